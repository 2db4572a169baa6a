//! TCP through `netdevd-user`: large segments both ways, many connections.
#![cfg(feature = "slirp")]

mod guest;

use guest::{Guest, HOST, network};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use usernet::protocol::{Answer, Request};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

const BULK: usize = 10 << 20;

#[test]
fn large_segments_go_to_the_host_and_come_back() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        all
    });
    let mut guest = Guest::start(network(), &[]);
    let mut tcp = guest.connect((HOST, port), 1460);
    let sent = pattern(BULK);
    tcp.write(&mut guest, &sent, 60_000);
    tcp.finish(&mut guest);
    let back = tcp.read(&mut guest, BULK);
    assert!(host.join().unwrap() == sent, "what the host got");
    assert!(back == sent, "what came back");
    assert!(tcp.largest > 16_000, "segments are large: {}", tcp.largest);
}

#[test]
fn a_host_that_reads_late_is_written_to_at_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::start(network(), &[]);
    let mut tcp = guest.connect((HOST, port), 1460);
    let (mut stream, _) = listener.accept().unwrap();
    // More than all buffers on the way hold.
    let sent = pattern(64 << 20);
    let gone = tcp.fill(&mut guest, &sent);
    assert!(gone < sent.len(), "the window never closed");
    let host = thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    // This guest never asks for a window: it goes on when it is told of one.
    tcp.write(&mut guest, &sent[gone..gone + BULK], 60_000);
    tcp.finish(&mut guest);
    assert!(host.join().unwrap() == sent[..gone + BULK], "what the host got");
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // The host ends each one first, which leaves libslirp's side waiting.
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"bye");
        }
    });
    let mut guest = Guest::start(network(), &[]);
    let files = format!("/proc/{}/fd", guest.child.id());
    let count = || std::fs::read_dir(&files).map(Iterator::count).ok();
    let rounds = 10_000;
    for _ in 0..rounds {
        let mut tcp = guest.connect((HOST, port), 1460);
        assert_eq!(tcp.read(&mut guest, 3), b"bye");
        tcp.close(&mut guest);
    }
    let Answer::State { connections: list, .. } = guest.request(&Request::State) else {
        panic!("no connections")
    };
    assert!(list.len() < 3, "{} connections are left, {:?} descriptors", list.len(), count());
}
