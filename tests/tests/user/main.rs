//! A guest's namespace on a `user` netdev: DHCP, ping, TCP both ways, services, and a process that is killed.

mod dhcp6;
mod forwards;
mod hostile;
mod many;
mod services;
mod world;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::json;
use tests::program;
use tests::skip::{Need, ready};
use tests::wait::output;
use world::{exchange, guest, has_process, kill, line, reaches_guest, reaches_host};

#[test]
fn a_guest_has_its_network_and_forwards_lead_to_it() {
    if !has_process("a_guest_has_its_network_and_forwards_lead_to_it") {
        return;
    }
    let (mut lab, place) = guest(&json!({
        "hostfwd": [{"str": "tcp:127.0.0.1:2201-:81"}],
        "guestfwd": [{"str": "tcp:10.0.2.100:80-cmd:sed s/^/told-/"}],
    }));
    let bulk: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    // The first connection waits until the guest's address is known.
    reaches_guest(&lab, &place, ("127.0.0.1", 2201), 81, &bulk);
    reaches_host(&lab, &place, 8081, &bulk);
    place.run("ping", &["-c", "1", "-W", "5", "10.0.2.2"]);
    lab.qmp.ok(
        "netdev-user-forward-add",
        json!({"id": "u", "host-addr": "127.0.0.1", "host-port": 2202, "guest-addr": "10.0.2.15", "guest-port": 82}),
    );
    reaches_guest(&lab, &place, ("127.0.0.1", 2202), 82, b"by another way");
    let told = place.inside(|| exchange(("10.0.2.100", 80), b"one\ntwo\n")).expect("the command answers");
    assert_eq!(String::from_utf8_lossy(&told), "told-one\ntold-two\n");
    let all = lab.qmp.ok("query-netdev-user", json!({"id": "u"}));
    assert_eq!(all[0]["forwards"].as_array().map(Vec::len), Some(2), "{all}");
    let table = line(&mut lab, "info usernet");
    assert!(table.starts_with("Hub 1 (u):\r\n  Protocol[State]    FD"), "{table}");
    assert!(table.contains("  TCP[HOST_FORWARD]"), "{table}");
    lab.qmp.ok("netdev-user-forward-remove", json!({"id": "u", "host-addr": "127.0.0.1", "host-port": 2202}));
    assert!(lab.home.inside(|| exchange(("127.0.0.1", 2202), b"x")).is_err(), "it listens still");
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    assert!(lab.home.inside(|| exchange(("127.0.0.1", 2201), b"x")).is_err(), "it listens still");
}

#[test]
fn a_dhcp_client_is_told_the_network() {
    if !has_process("a_dhcp_client_is_told_the_network") || !ready("dhcp", &[Need::Tool("busybox")]) {
        return;
    }
    let (lab, place) = guest(&json!({"hostname": "guest", "domainname": "inside"}));
    let script = lab.daemon.directory().join("told");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] && echo $ip $router $dns $hostname $domain\nexit 0\n";
    program::write(&script, text);
    let mut client = place.command("busybox");
    client.args(["udhcpc", "-i", "guest", "-n", "-q", "-f", "-s"]).arg(&script);
    let output = output(&client, 30);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("10.0.2.15 10.0.2.2 10.0.2.3 guest inside"), "{text}{output:?}");
}

#[test]
fn a_process_that_is_killed_in_mid_transfer_is_replaced_and_nothing_else_is_disturbed() {
    if !has_process("a_process_that_is_killed_in_mid_transfer_is_replaced_and_nothing_else_is_disturbed") {
        return;
    }
    let (mut lab, place) = guest(&json!({"hostfwd": [{"str": "tcp:127.0.0.1:2203-:83"}]}));
    let listener = lab.home.inside(|| TcpListener::bind("127.0.0.1:8083").expect("a port of the host"));
    let mut sending = place.inside(|| TcpStream::connect("10.0.2.2:8083").expect("the host answers"));
    let (mut receiving, _) = listener.accept().expect("a connection");
    sending.write_all(&[1; 100_000]).expect("bytes go");
    receiving.read_exact(&mut [0; 1000]).expect("bytes come");
    kill(&mut lab);
    reaches_guest(&lab, &place, ("127.0.0.1", 2203), 83, b"again");
    reaches_host(&lab, &place, 8084, b"again");
    let state = lab.qmp.ok("query-netdev", json!({"name": "u"}));
    assert_eq!((&state[0]["transport"]["state"], &state[0]["link"]), (&json!("ready"), &json!(true)));
}
