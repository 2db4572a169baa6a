//! A guest and a daemon that mean no good, or are gone.
#![cfg(feature = "slirp")]

mod guest;

use guest::{Guest, HOST, MAC, ME, PATIENCE, arp, network, tcp, udp};
use proptest::prelude::*;
use std::fs;
use std::time::Instant;
use usernet::protocol::{Answer, HEADER, Request};

/// The process lives and serves.
fn alive(guest: &mut Guest) -> bool {
    while guest.receive(std::time::Duration::ZERO).is_some() {}
    guest.send(&arp(1, ME, HOST, [0xff; 6]));
    // What a burst asked for under other addresses may still come.
    guest.until(|frame| frame[12..14] == [8, 6] && frame[21] == 2 && frame[..6] == MAC);
    matches!(guest.request(&Request::State), Answer::State { .. })
}

/// Sends, and takes what comes back, so that neither waits for the other.
fn send(guest: &mut Guest, header: &[u8; HEADER], frame: &[u8]) {
    while !guest.try_send(header, frame) {
        guest.receive(std::time::Duration::from_millis(1));
    }
}

/// A frame that is nearly one: a good one with bytes changed and its end moved.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(udp((ME, 68), (HOST, 67), &[1; 300])),
        Just(udp((ME, 4000), (HOST, 69), b"\0\x01name\0octet\0")),
        Just(tcp((ME, 4001), (HOST, 9), 7, 0, 2, &[], Some(1460))),
        Just(tcp((ME, 4001), (HOST, 9), 8, 9, 16, &[3; 500], None)),
        Just(arp(1, ME, HOST, [0xff; 6])),
        Just(
            [&[0x52, 0x55, 10, 0, 2, 2][..], &MAC, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 58, 255], &[0xfe; 70]]
                .concat()
        ),
        prop::collection::vec(any::<u8>(), 0..1600),
    ];
    (good, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), 0..80usize).prop_map(
        |(mut frame, changes, cut)| {
            if !frame.is_empty() {
                for (at, value) in changes {
                    let at = at.index(frame.len());
                    frame[at] = value;
                }
            }
            frame.truncate(frame.len().saturating_sub(cut / 2));
            frame
        },
    )
}

fn header() -> impl Strategy<Value = [u8; HEADER]> {
    prop_oneof![
        Just([0; HEADER]),
        (0..4u8, 0..7u8, any::<[u8; 6]>(), 0..70u8, 0..20u8).prop_map(
            |(flags, gso, sizes, start, offset)| {
                let mut header = [0; HEADER];
                header[0] = flags;
                header[1] = gso;
                header[2..8].copy_from_slice(&sizes);
                (header[6], header[7], header[8]) = (start, 0, offset);
                header
            }
        ),
        any::<[u8; HEADER]>(),
    ]
}

#[test]
fn hostile_frames_end_nothing() {
    let mut guest = Guest::start(network(), &[]);
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let bursts = prop::collection::vec((header(), nearly()), 1..40);
    let guest = std::cell::RefCell::new(&mut guest);
    runner
        .run(&bursts, |burst| {
            let mut guest = guest.borrow_mut();
            for (header, frame) in &burst {
                send(&mut guest, header, frame);
            }
            prop_assert!(alive(&mut guest));
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_process_has_no_rights_and_ends_with_its_daemon() {
    let mut guest = Guest::start(network(), &[]);
    let status = fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name).map(|rest| rest.trim_start_matches(':').trim()))
            .unwrap()
    };
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(field(name), 16), Ok(0), "{name}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"));
    guest.hang_up();
    let end = Instant::now() + PATIENCE;
    while guest.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not end");
        std::thread::yield_now();
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut guest = Guest::spawn();
    assert!(matches!(guest.request(&Request::State), Answer::Failed(_)));
    drop(guest);
    let mut guest = Guest::start(network(), &[]);
    assert!(matches!(guest.request(&Request::Start(Box::new(network()))), Answer::Failed(_)));
    assert!(alive(&mut guest));
    let mut guest = Guest::spawn();
    let long = usernet::protocol::Network { bootfile: Some("x".repeat(128)), ..network() };
    assert!(matches!(guest.begin(long, &[], "/etc/resolv.conf".as_ref()), Answer::Failed(_)));
}
