//! Descriptors that are handed over, and the older `socket` netdev.

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::json;
use tests::skip::ready;
use tests::wait;

use super::{LONGEST, NEEDS, both_ways, connect, frame, info, pair, receive, send};

#[test]
fn descriptors_that_are_handed_over_serve() {
    if !ready("descriptors_that_are_handed_over_serve", NEEDS) {
        return;
    }
    let (_place, mut ours, mut theirs) = pair();
    let (one, other) = UnixStream::pair().expect("a pair");
    ours.qmp.execute_with("getfd", json!({"fdname": "f"}), &[one.as_fd()]).expect("taken");
    ours.link(json!({"type": "stream", "id": "link", "addr": {"type": "fd", "str": "f"}}));
    ours.shows("unix:");
    theirs.qmp.execute_with("getfd", json!({"fdname": "f"}), &[other.as_fd()]).expect("taken");
    theirs.link(json!({"type": "socket", "id": "link", "fd": "f"}));
    drop((one, other));
    both_ways(&ours, &theirs, &[14, 1514, LONGEST], "a pair of sockets");
    theirs.unlink();
    ours.qmp.event("NETDEV_STREAM_DISCONNECTED", wait::PATIENCE).expect("the end");
    ours.unlink();
    // A socket that listens already.
    let path = ours.daemon.directory().join("given");
    let listener = UnixListener::bind(&path).expect("bound");
    ours.qmp.execute_with("getfd", json!({"fdname": "l"}), &[listener.as_fd()]).expect("taken");
    ours.link(json!({"type": "stream", "id": "link", "server": true, "addr": {"type": "fd", "str": "l"}}));
    ours.shows("listening");
    let mut peer = connect(&path);
    send(&mut peer, &frame(77, 1));
    assert!(receive(&mut ours.wire) == frame(77, 1));
    ours.unlink();
    // One that is no stream.
    let (datagram, _) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
    ours.qmp.execute_with("getfd", json!({"fdname": "d"}), &[datagram.as_fd()]).expect("taken");
    ours.link(json!({"type": "stream", "id": "link", "addr": {"type": "fd", "str": "d"}}));
    ours.shows("error: File descriptor 'd' is not a stream socket");
}

#[test]
fn the_older_socket_netdev_listens_and_connects() {
    if !ready("the_older_socket_netdev_listens_and_connects", NEEDS) {
        return;
    }
    let (place, mut ours, mut theirs) = pair();
    let sizes = [14, 1514, 65_535, LONGEST];
    for server in [true, false] {
        let (first, second) = if server { (&mut ours, &mut theirs) } else { (&mut theirs, &mut ours) };
        first.link(json!({"type": "socket", "id": "link", "listen": "127.0.0.1:7050"}));
        assert_eq!(info(&mut first.qmp, "link"), "");
        second.link(json!({"type": "socket", "id": "link", "connect": "127.0.0.1:7050"}));
        second.shows("socket: connect to 127.0.0.1:7050");
        first.shows("socket: connection from 127.0.0.1:");
        both_ways(&ours, &theirs, &sizes, if server { "we listen" } else { "they listen" });
        ours.unlink();
        theirs.unlink();
    }
    // The next client after one that has gone; no event tells of either.
    ours.link(json!({"type": "socket", "id": "link", "listen": ":7051"}));
    for number in 0..2 {
        let mut peer = place.inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 7051))).expect("it listens");
        let own = peer.local_addr().expect("an address").port();
        ours.shows(&format!("socket: connection from 127.0.0.1:{own}"));
        send(&mut peer, &frame(60, number));
        assert!(receive(&mut ours.wire) == frame(60, number));
        drop(peer);
        wait::until(wait::PATIENCE, || info(&mut ours.qmp, "link").is_empty().then_some(()))
            .expect("alone again");
    }
    assert!(ours.qmp.take_events().is_empty());
    // A port in use is said at once; an address where nobody listens is not.
    let taken = ours.qmp.refused("netdev_add", json!({"type": "socket", "id": "x", "listen": ":7051"}));
    assert_eq!(taken, "can't bind ip=0.0.0.0 to socket: Address already in use");
    ours.unlink();
    ours.link(json!({"type": "socket", "id": "link", "connect": "127.0.0.1:7052"}));
    wait::until(wait::PATIENCE, || info(&mut ours.qmp, "link").is_empty().then_some(()))
        .expect("it has failed");
    assert_eq!(ours.qmp.ok("query-netdev", json!({"name": "link"}))[0]["link"], false);
}
