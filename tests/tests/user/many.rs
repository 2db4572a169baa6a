//! Many connections: one after the other, and at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use serde_json::json;
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::wait::{PATIENCE, success, until};

use crate::world::{guest, has_process, pid};

/// One after the other, and at once. All of it takes a few seconds; `NETDEVD_CONNECTIONS` asks for more.
const CONNECTIONS: (usize, usize) = (2000, 1000);
/// Descriptors that a process may have more than before.
const FEW: usize = 3;

fn connections() -> (usize, usize) {
    let more = std::env::var("NETDEVD_CONNECTIONS").ok().and_then(|text| text.parse().ok());
    more.map_or(CONNECTIONS, |more| (more, more))
}

/// Descriptors of the netdev's process.
fn open_files(lab: &mut Lab) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pid(lab))).map_or(0, Iterator::count)
}

/// The guest connects and says a word, the host answers it and closes first, or last.
fn one_after_the_other(listener: &TcpListener, place: &NetNs, to: SocketAddr, count: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..count {
                let mut stream = listener.accept().expect("a connection").0;
                let mut word = [0; 4];
                stream.read_exact(&mut word).expect("a word");
                stream.write_all(&word).expect("the answer");
                if at % 2 == 0 {
                    assert_eq!(stream.read(&mut word).expect("an end"), 0);
                }
            }
        });
        place.inside(|| {
            for at in 0..count {
                let mut stream = TcpStream::connect(to).expect("a connection");
                let mut word = [0; 4];
                stream.write_all(&(at as u32).to_be_bytes()).expect("a word goes");
                stream.read_exact(&mut word).expect("the answer");
                assert_eq!(word, (at as u32).to_be_bytes());
                if at % 2 == 1 {
                    assert_eq!(stream.read(&mut word).expect("an end"), 0);
                }
            }
        });
    });
}

#[test]
fn connections_that_have_closed_leave_nothing_and_many_are_served_at_once() {
    if !has_process("connections_that_have_closed_leave_nothing_and_many_are_served_at_once") {
        return;
    }
    let (in_turn, at_once) = connections();
    // Two ends here, and one in the process, which has the same limits.
    let limit = format!("--nofile={0}:{0}", (4 * at_once).max(20_000));
    let mut command = Command::new("prlimit");
    success(command.args(["--pid", &std::process::id().to_string(), &limit]), 10);
    let (mut lab, place) = guest(&json!({}));
    let listener = lab.home.inside(|| TcpListener::bind(("127.0.0.1", 8110)).expect("a port of the host"));
    let to = SocketAddr::from(([10, 0, 2, 2], 8110));
    one_after_the_other(&listener, &place, to, 10);
    let before = open_files(&mut lab);
    let began = std::time::Instant::now();
    one_after_the_other(&listener, &place, to, in_turn);
    eprintln!("{in_turn} connections, one after the other: {:?}", began.elapsed());
    let left = until(PATIENCE, || Some(open_files(&mut lab)).filter(|left| *left <= before + FEW));
    assert!(left.is_some(), "{} descriptors, {before} before", open_files(&mut lab));
    let began = std::time::Instant::now();
    let pairs: Vec<_> = place.inside(|| {
        (0..at_once)
            .map(|_| (TcpStream::connect(to).expect("a connection"), listener.accept().expect("it comes").0))
            .collect()
    });
    eprintln!("{at_once} connections at once: {:?}", began.elapsed());
    assert!(open_files(&mut lab) >= at_once, "they are there");
    for (at, (guest, host)) in pairs.iter().enumerate() {
        let (mut guest, mut host) = (guest, host);
        let mut word = [0; 4];
        guest.write_all(&(at as u32).to_be_bytes()).expect("a word goes");
        host.read_exact(&mut word).expect("a word comes");
        assert_eq!(word, (at as u32).to_be_bytes());
    }
    eprintln!("a word on each: {:?}", began.elapsed());
    drop(pairs);
    let left = until(PATIENCE, || Some(open_files(&mut lab)).filter(|left| *left <= before + FEW));
    assert!(left.is_some(), "{} descriptors, {before} before", open_files(&mut lab));
    one_after_the_other(&listener, &place, to, 10);
}
