//! Front-ends that get it wrong.

use super::*;
use crate::vhost::ring::RingPart;
use crate::vhost::testing::message;
use crate::virtq::F_EVENT_IDX;
use nix::unistd::{pipe, read};

/// Each message with a payload and files that are right for it, in a session that would take it.
fn right() -> Vec<(Kind, Vec<u8>, usize)> {
    let entry =
        [longs(&[0]), crate::vhost::testing::entry(&Region { guest: 1 << 40, user: 1 << 40, ..region() })];
    let inflight = [longs(&[BYTES, 0]), words(&[16 << 16 | 2, 0])].concat();
    vec![
        (Kind::GET_FEATURES, vec![], 0),
        (Kind::SET_FEATURES, longs(&[F_VERSION_1 | F_PROTOCOL_FEATURES]), 0),
        (Kind::GET_PROTOCOL_FEATURES, vec![], 0),
        (Kind::SET_PROTOCOL_FEATURES, longs(&[PROTOCOL_FEATURES]), 0),
        (Kind::GET_QUEUE_NUM, vec![], 0),
        (Kind::SET_OWNER, vec![], 0),
        (Kind::RESET_OWNER, vec![], 0),
        (Kind::SET_MEM_TABLE, table(&[region()]), 1),
        (Kind::SET_LOG_BASE, longs(&[4096, 0]), 1),
        (Kind::SET_LOG_FD, vec![], 1),
        (Kind::SET_VRING_NUM, words(&[0, 16]), 0),
        (Kind::SET_VRING_ADDR, addresses(0, 0, parts(0), 0), 0),
        (Kind::SET_VRING_BASE, words(&[0, 0]), 0),
        (Kind::GET_VRING_BASE, words(&[0, 0]), 0),
        (Kind::SET_VRING_KICK, longs(&[0]), 1),
        (Kind::SET_VRING_CALL, longs(&[0]), 1),
        (Kind::SET_VRING_ERR, longs(&[0]), 1),
        (Kind::SET_VRING_ENABLE, words(&[0, 1]), 0),
        (Kind::SEND_RARP, longs(&[1]), 0),
        (Kind::NET_SET_MTU, longs(&[1500]), 0),
        (Kind::SET_BACKEND_REQ_FD, vec![], 1),
        (Kind::SET_CONFIG, [words(&[0, 6, 0]), vec![2; 6]].concat(), 0),
        (Kind::GET_CONFIG, [words(&[0, 6, 0]), vec![0; 6]].concat(), 0),
        (Kind::GET_INFLIGHT_FD, inflight.clone(), 0),
        (Kind::SET_INFLIGHT_FD, inflight, 1),
        (Kind::ADD_MEM_REG, entry.concat(), 1),
        (Kind::GET_MAX_MEM_SLOTS, vec![], 0),
        (Kind::SET_STATUS, longs(&[1]), 0),
        (Kind::GET_STATUS, vec![], 0),
        (Kind::RESET_DEVICE, vec![], 0),
    ]
}

fn files(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| memory("file", BYTES)).collect()
}

/// So many files as the message wants them.
fn right_files(kind: Kind, count: usize) -> Vec<OwnedFd> {
    match kind {
        Kind::SET_VRING_KICK | Kind::SET_VRING_CALL | Kind::SET_VRING_ERR => {
            (0..count).map(|_| event()).collect()
        }
        _ => files(count),
    }
}

#[test]
fn every_message_is_taken_when_it_is_right() {
    for (kind, payload, fds) in right() {
        let (mut bench, _file) = Bench::running(F_VERSION_1);
        bench.say(kind, &payload, right_files(kind, fds)).unwrap();
    }
}

#[test]
fn every_message_of_a_wrong_size_is_refused() {
    for (kind, payload, fds) in right() {
        for size in [payload.len() + 1, payload.len() + 8, payload.len().saturating_sub(1), 4096] {
            if size == payload.len() {
                continue;
            }
            let (mut bench, _file) = Bench::running(F_VERSION_1);
            let mut payload = payload.clone();
            payload.resize(size, 0);
            let error = bench.say(kind, &payload, files(fds)).unwrap_err();
            assert!(
                matches!(error, ProtocolError::Size { request, .. } if request == kind),
                "{kind:?}: {error}"
            );
            assert_eq!(bench.device.news().last(), Some(&Told::Stop(0)), "{kind:?} left the ring running");
        }
    }
}

#[test]
fn every_message_with_files_too_many_or_missing_is_refused() {
    for (kind, payload, fds) in right() {
        for count in [0, 1, 2, 8] {
            if count == fds {
                continue;
            }
            let (mut bench, _file) = Bench::running(F_VERSION_1);
            let error = bench.say(kind, &payload, files(count)).unwrap_err();
            let expected = ProtocolError::Files { request: kind, files: count, wanted: fds };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn the_files_of_a_refused_message_are_closed() {
    for (kind, payload, _) in right() {
        let (mut bench, _file) = Bench::running(F_VERSION_1);
        let (end, other) = pipe().unwrap();
        let mut fds = files(7);
        fds.push(other);
        bench.say(kind, &payload, fds).unwrap_err();
        assert_eq!(read(&end, &mut [0]), Ok(0), "{kind:?} keeps a file");
    }
}

#[test]
fn files_that_could_make_somebody_wait_are_refused() {
    let others = || {
        let (end, pipe) = pipe().unwrap();
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let timer = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC).unwrap().0;
        let device = std::fs::File::open("/dev/null").unwrap();
        [end, pipe, socket.into(), timer, device.into(), memory("no-event", 4096)]
    };
    for kind in [Kind::SET_VRING_KICK, Kind::SET_VRING_CALL, Kind::SET_VRING_ERR] {
        for file in others() {
            let (mut bench, _file) = Bench::running(F_VERSION_1);
            assert_eq!(bench.say(kind, &longs(&[0]), vec![file]).unwrap_err(), ProtocolError::NoEvent(kind));
        }
    }
}

#[test]
fn rings_beyond_the_last_are_named() {
    for kind in [Kind::SET_VRING_NUM, Kind::SET_VRING_BASE, Kind::GET_VRING_BASE, Kind::SET_VRING_ENABLE] {
        for ring in [4, 255, u32::MAX] {
            let (mut bench, _file) = Bench::running(F_VERSION_1);
            let error = bench.ring(kind, ring, 1).unwrap_err();
            assert_eq!(error, ProtocolError::NoRing { request: kind, ring: ring.into(), rings: 4 });
        }
    }
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    let error = bench.say(Kind::SET_VRING_ADDR, &addresses(4, 0, parts(0), 0), vec![]).unwrap_err();
    assert!(matches!(error, ProtocolError::NoRing { ring: 4, .. }));
    for (value, expected) in [
        (4, ProtocolError::NoRing { request: Kind::SET_VRING_KICK, ring: 4, rings: 4 }),
        (0x200, ProtocolError::Value { request: Kind::SET_VRING_KICK, value: 0x200 }),
        (0x100, ProtocolError::Files { request: Kind::SET_VRING_KICK, files: 1, wanted: 0 }),
    ] {
        let (mut bench, _file) = Bench::running(F_VERSION_1);
        assert_eq!(bench.say(Kind::SET_VRING_KICK, &longs(&[value]), vec![event()]).unwrap_err(), expected);
    }
}

#[test]
fn a_ring_that_lies_wrong_is_refused_when_it_is_started() {
    let [desc, avail, used] = parts(0);
    let end = USER + BYTES;
    let misaligned = |part, address| ProtocolError::Misaligned { ring: 0, part, address };
    let outside = |part, address, len| ProtocolError::Outside { ring: 0, part, address, len };
    for (at, error) in [
        ([desc + 8, avail, used], misaligned(RingPart::Descriptors, desc + 8)),
        ([desc, avail + 1, used], misaligned(RingPart::Available, avail + 1)),
        ([desc, avail, used + 2], misaligned(RingPart::Used, used + 2)),
        ([end - 240, avail, used], outside(RingPart::Descriptors, end - 240, 256)),
        ([desc, end - 36, used], outside(RingPart::Available, end - 36, 38)),
        ([desc, avail, end - 132], outside(RingPart::Used, end - 132, 134)),
        ([desc, avail, 0], outside(RingPart::Used, 0, 134)),
        ([u64::MAX - 15, avail, used], outside(RingPart::Descriptors, u64::MAX - 15, 256)),
    ] {
        let (mut bench, _file) = Bench::ready(F_VERSION_1);
        bench.device.offers |= F_EVENT_IDX;
        bench.number(Kind::SET_FEATURES, F_VERSION_1 | F_EVENT_IDX | F_PROTOCOL_FEATURES).unwrap();
        bench.enable(0);
        bench.ring(Kind::SET_VRING_NUM, 0, 16).unwrap();
        bench.say(Kind::SET_VRING_ADDR, &addresses(0, 0, at, 0), vec![]).unwrap();
        assert_eq!(bench.acknowledged(Kind::SET_VRING_KICK, &longs(&[0]), vec![event()]), 1);
        assert_eq!(bench.session.refused(), Some(error));
        assert!(!bench.session.running(0));
        // Put right, it runs.
        bench.kick(0);
        assert!(bench.session.running(0));
    }
}

#[test]
fn a_bad_change_to_a_running_ring_is_taken_back() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    let bad = addresses(0, 0, [DESC, DESC, 16], 0);
    assert_eq!(bench.acknowledged(Kind::SET_VRING_ADDR, &bad, vec![]), 1);
    assert!(matches!(bench.session.refused(), Some(ProtocolError::Outside { part: RingPart::Used, .. })));
    let flags = addresses(0, 2, parts(0), 0);
    assert_eq!(bench.acknowledged(Kind::SET_VRING_ADDR, &flags, vec![]), 1);
    assert_eq!(bench.acknowledged(Kind::SET_VRING_NUM, &words(&[0, 3]), vec![]), 1);
    assert_eq!(bench.acknowledged(Kind::SET_VRING_ENABLE, &words(&[0, 2]), vec![]), 1);
    assert!(bench.session.running(0));
    assert_eq!(bench.device.running[&0].size, 16);
}

#[test]
fn a_packed_base_beyond_the_ring_is_refused() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1 | F_RING_PACKED);
    bench.kick(0);
    let base = 0x8000_8010;
    assert_eq!(bench.acknowledged(Kind::SET_VRING_BASE, &words(&[0, base]), vec![]), 1);
    assert_eq!(bench.session.refused(), Some(ProtocolError::Base { ring: 0, base, size: 16 }));
}

#[test]
fn a_size_of_the_wrong_format_is_noticed_when_features_come_late() {
    let mut bench = Bench::new(Noted::new(F_VERSION_1 | F_RING_PACKED, 1));
    bench.say(Kind::SET_MEM_TABLE, &table(&[region()]), vec![memory("guest", BYTES)]).unwrap();
    bench.kick(0);
    bench.ring(Kind::SET_VRING_NUM, 0, 13).unwrap();
    let error = bench.number(Kind::SET_FEATURES, F_VERSION_1).unwrap_err();
    assert_eq!(error, ProtocolError::RingSize { ring: 0, size: 13 });
}

#[test]
fn a_status_is_eight_bits() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    let error = bench.number(Kind::SET_STATUS, 256).unwrap_err();
    assert_eq!(error, ProtocolError::Value { request: Kind::SET_STATUS, value: 256 });
}

#[test]
fn a_disconnect_at_every_point_of_the_handshake_stops_what_ran() {
    let steps: Vec<(Kind, Vec<u8>, usize)> =
        right().into_iter().filter(|(kind, ..)| *kind != Kind::RESET_OWNER).collect();
    for end in 0..steps.len() {
        let (mut bench, _file) = Bench::ready(F_VERSION_1);
        for (kind, payload, fds) in steps.iter().take(end) {
            bench.raw(message(*kind, payload, right_files(*kind, *fds))).unwrap();
        }
        bench.session.end(&mut bench.device);
        assert!(bench.device.running.is_empty());
    }
}
