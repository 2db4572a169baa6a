//! The daemon is killed, and guests that know nothing of it come back to the next one.

use super::*;

/// The daemon, killed and started again.
fn killed_and_back(daemon: Daemon) -> Daemon {
    let directory = daemon.kill();
    let arguments: Vec<String> = (0..2)
        .flat_map(|n| {
            let (port, nic) =
                (format!("hubport,id=h{n},hubid=0"), format!("nic,id=n{n},netdev=h{n},addr=n{n}.sock"));
            ["-netdev".to_owned(), port, "-netdev".to_owned(), nic]
        })
        .collect();
    Daemon::of(Program::Netdevd).args(arguments).directory(directory).start()
}

#[test]
fn guests_go_on_when_the_daemon_was_killed_and_comes_back() {
    for (first, second) in [(SPLIT, PACKED), (PACKED, PACKED)] {
        if first.packed {
            survive::<PackedDriver>(first, second);
        } else {
            survive::<SplitDriver>(first, second);
        }
    }
}

fn survive<R: DriverRing>(first: Shape, second: Shape) {
    let (daemon, _client) = hub(2);
    let (mut a, mut b): (Guest<R>, Packed) = (plug(&daemon, "n0", first), plug(&daemon, "n1", second));
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
    // Something is under way when it dies.
    for seed in 0..30 {
        assert!(a.send(&frame(900, seed)));
    }
    let daemon = killed_and_back(daemon);
    b.reconnect(&socket(&daemon, "n1")).expect("the second guest is taken");
    a.reconnect(&socket(&daemon, "n0")).expect("the first guest is taken");
    // What was sent before arrives, once and in order, but for what was in the dead one's hands.
    let mut seen = None;
    while seen != Some(29) {
        let got = b.receive(PATIENCE).expect("the rest arrives");
        let seed = (0..30).find(|seed| got == frame(900, *seed)).expect("one of them, unchanged");
        assert!(seen.is_none_or(|last| last < seed), "{seed} behind {seen:?}");
        seen = Some(seed);
    }
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
}

#[test]
fn packed_rings_of_single_buffers_show_where_they_stand() {
    let (mut daemon, _client) = hub(2);
    let (mut a, mut b): (Packed, Packed) = (plug(&daemon, "n0", PACKED), plug(&daemon, "n1", PACKED));
    for guest in [&mut a, &mut b] {
        guest.forget_inflight();
    }
    for round in 0..4 {
        // Another distance each time, laps and parts of one.
        for seed in 0..(50 * round + 7) as u8 {
            assert!(a.send(&frame(900, seed)));
            assert_eq!(b.receive(PATIENCE), Some(frame(900, seed)));
        }
        cross(&mut b, &mut a);
        for guest in [&mut a, &mut b] {
            assert_eq!(wait::until(PATIENCE, || guest.has_all_back().then_some(())), Some(()));
        }
        daemon = killed_and_back(daemon);
        b.reconnect(&socket(&daemon, "n1")).expect("the second guest is taken");
        a.reconnect(&socket(&daemon, "n0")).expect("the first guest is taken");
    }
    cross(&mut a, &mut b);
    cross(&mut b, &mut a);
}

#[test]
fn a_packed_ring_that_does_not_show_where_it_stands_waits_for_a_reset() {
    let (daemon, _client) = hub(2);
    let mut a: Packed = plug(&daemon, "n0", PACKED);
    a.forget_inflight();
    let daemon = killed_and_back(daemon);
    let mut client = daemon.client();
    // Chains of two, as they are left behind: the first is marked as used.
    for (slot, flags) in (0..8).zip([0x8080u16, 0x0080].into_iter().cycle()) {
        a.poke(1, Part::Descriptors, slot * 16 + 14, &flags.to_le_bytes());
    }
    a.reconnect(&socket(&daemon, "n0")).expect("the guest is taken");
    let why =
        "ring 1 was in use, and nobody knows where it stands: it waits until the guest resets the device";
    let now = shown(&mut client, "n0");
    assert!(now["transport"]["error"].as_str().is_some_and(|error| error.contains(why)), "{now}");
    // A driver that begins anew.
    for slot in 0..u64::from(tests::guest::RING) {
        a.poke(1, Part::Descriptors, slot * 16 + 14, &[0; 2]);
    }
    a.reconnect(&socket(&daemon, "n0")).expect("the guest is taken");
    let now = shown(&mut client, "n0");
    assert_eq!((&now["transport"]["state"], now["transport"].get("error")), (&json!("ready"), None));
}
