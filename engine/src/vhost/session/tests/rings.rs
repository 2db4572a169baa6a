//! When rings run, and what stops them for a moment.

use super::*;
use crate::vhost::F_LOG_ALL;

#[test]
fn a_ring_runs_when_it_is_whole_started_and_enabled_in_whatever_order() {
    type Step = fn(&mut Bench);
    let steps: [Step; 5] = [
        |bench| drop(bench.ring(Kind::SET_VRING_NUM, 0, 16).unwrap()),
        |bench| drop(bench.say(Kind::SET_VRING_ADDR, &addresses(0, 0, parts(0), 0), vec![]).unwrap()),
        |bench| bench.file(Kind::SET_VRING_KICK, 0),
        |bench| bench.enable(0),
        |bench| drop(bench.number(Kind::SET_FEATURES, F_VERSION_1 | F_PROTOCOL_FEATURES).unwrap()),
    ];
    for first in 0..steps.len() {
        let mut bench = Bench::new(Noted::new(F_VERSION_1, 1));
        bench.say(Kind::SET_MEM_TABLE, &table(&[region()]), vec![memory("guest", BYTES)]).unwrap();
        for at in 0..steps.len() {
            assert!(!bench.session.running(0));
            steps[(first + at) % steps.len()](&mut bench);
        }
        assert!(bench.session.running(0), "order from {first} on");
    }
}

#[test]
fn without_protocol_features_rings_are_enabled_from_the_start() {
    let mut bench = Bench::new(Noted::new(0, 1));
    bench.number(Kind::SET_FEATURES, 0).unwrap();
    bench.say(Kind::SET_MEM_TABLE, &table(&[region()]), vec![memory("guest", BYTES)]).unwrap();
    bench.kick(1);
    assert!(bench.session.running(1) && !bench.session.running(0));
}

#[test]
fn a_ring_may_do_without_files() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    bench.kick(0);
    for kind in [Kind::SET_VRING_KICK, Kind::SET_VRING_CALL, Kind::SET_VRING_ERR] {
        bench.number(kind, 0x100).unwrap();
    }
    bench.enable(0);
    let config = &bench.device.running[&0];
    assert!(config.kick.is_none() && config.call.is_none() && config.err.is_none());
}

#[test]
fn the_files_of_a_ring_never_make_a_worker_wait() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    bench.kick(0);
    bench.enable(0);
    for fd in [&bench.device.running[&0].kick, &bench.device.running[&0].call] {
        let flags = nix::fcntl::fcntl(fd.as_ref().unwrap(), nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(flags & nix::libc::O_NONBLOCK != 0);
    }
}

#[test]
fn what_a_running_ring_uses_changes_only_while_it_is_stopped() {
    let (mut bench, file) = Bench::running(F_VERSION_1);
    bench.device.steps = 1;
    let mut at = 0;
    let mut paused = |bench: &mut Bench| {
        at += 1;
        assert_eq!(bench.device.news(), [Told::Stop(0), Told::Start(0, stands(at))]);
    };
    bench.file(Kind::SET_VRING_CALL, 0);
    paused(&mut bench);
    bench.file(Kind::SET_VRING_ERR, 0);
    paused(&mut bench);
    bench.file(Kind::SET_VRING_KICK, 0);
    paused(&mut bench);
    bench.ring(Kind::SET_VRING_NUM, 0, 32).unwrap();
    paused(&mut bench);
    assert_eq!(bench.device.running[&0].size, 32);
    bench.say(Kind::SET_VRING_ADDR, &addresses(0, 0, parts(1), 0), vec![]).unwrap();
    paused(&mut bench);
    bench.say(Kind::SET_MEM_TABLE, &table(&[region()]), vec![file.try_clone().unwrap()]).unwrap();
    paused(&mut bench);
    let more = Region { guest: 1 << 40, user: 1 << 40, ..region() };
    let more = [longs(&[0]), crate::vhost::testing::entry(&more)].concat();
    bench.say(Kind::ADD_MEM_REG, &more, vec![file]).unwrap();
    paused(&mut bench);
    assert_eq!(bench.device.running[&0].memory.regions().count(), 2);
    bench.say(Kind::REM_MEM_REG, &more, vec![event()]).unwrap();
    paused(&mut bench);
    bench.say(Kind::SET_LOG_BASE, &longs(&[4096, 0]), vec![memory("log", 4096)]).unwrap();
    paused(&mut bench);
    bench.number(Kind::SET_FEATURES, F_VERSION_1 | F_LOG_ALL | F_PROTOCOL_FEATURES).unwrap();
    paused(&mut bench);
    // These touch nothing that it uses.
    bench.number(Kind::SET_FEATURES, F_VERSION_1 | F_LOG_ALL | F_PROTOCOL_FEATURES).unwrap();
    bench.enable(0);
    bench.ring(Kind::SET_VRING_NUM, 1, 16).unwrap();
    bench.file(Kind::SET_VRING_CALL, 1);
    bench.number(Kind::SET_STATUS, 15).unwrap();
    assert_eq!(bench.device.news(), [Told::Status(15)]);
}

#[test]
fn a_disabled_ring_stands_still_and_goes_on_where_it_was() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    bench.device.steps = 5;
    bench.ring(Kind::SET_VRING_ENABLE, 0, 0).unwrap();
    assert_eq!(bench.device.news(), [Told::Stop(0)]);
    bench.enable(0);
    assert_eq!(bench.device.news(), [Told::Start(0, stands(5))]);
}

#[test]
fn a_split_ring_goes_on_from_its_used_index_whatever_the_front_end_remembers() {
    let (mut bench, file) = Bench::ready(F_VERSION_1);
    let used = parts(0)[2] - USER + 2;
    pwrite(&file, &0x1234_u16.to_le_bytes(), used as i64).unwrap();
    bench.kick(0);
    bench.ring(Kind::SET_VRING_BASE, 0, 7).unwrap();
    assert_eq!(bench.base(0), 7, "not started yet");
    bench.kick(0);
    bench.enable(0);
    assert_eq!(bench.device.news(), [Told::Start(0, stands(0x1234))]);
    // Stopped for good: the index it stopped at is what counts, until the front-end speaks of another guest.
    bench.device.steps = 2;
    assert_eq!(bench.base(0), 0x1236);
    assert!(!bench.session.running(0));
    bench.file(Kind::SET_VRING_KICK, 0);
    assert_eq!(bench.device.news(), [Told::Stop(0), Told::Start(0, stands(0x1236))]);
    pwrite(&file, &[0, 0], used as i64).unwrap();
    bench.ring(Kind::SET_VRING_BASE, 0, 0).unwrap();
    assert_eq!(bench.device.news(), [Told::Stop(0), Told::Start(0, START)]);
}

#[test]
fn a_packed_ring_carries_its_wrap_counters() {
    let (mut bench, file) = Bench::ready(F_VERSION_1 | F_RING_PACKED);
    bench.kick(0);
    assert_eq!(bench.base(0), 0x8000_8000, "a new ring");
    bench.kick(0);
    // From the eighth on available in the second lap; two more in the third.
    flags(&file, &[[0x80; 2].as_slice(), &[0; 5], &[0x8000; 9]].concat());
    bench.ring(Kind::SET_VRING_BASE, 0, 0x0007_8002).unwrap();
    bench.enable(0);
    let position = Position { avail: 2, avail_wrap: true, used: 7, used_wrap: false };
    assert_eq!(bench.device.news(), [Told::Start(0, position)]);
    assert_eq!(bench.base(0), 0x0007_8002);
}

/// Writes the flags of a packed ring's first descriptors.
fn flags(file: &OwnedFd, flags: &[u16]) {
    for (slot, flags) in (0..).zip(flags) {
        pwrite(file, &flags.to_le_bytes(), 0x1000 + slot * 16 + 14).unwrap();
    }
}

/// Used in the first lap, and left from it, in a chain.
const USED: u16 = 0x8080;
const LEFT: u16 = 0x0080;

#[test]
fn a_packed_ring_that_was_in_use_waits_for_a_reset() {
    let (mut bench, file) = Bench::ready(F_VERSION_1 | F_RING_PACKED);
    // Two chains of two descriptors.
    flags(&file, &[USED, LEFT, USED, LEFT]);
    bench.ring(Kind::SET_VRING_BASE, 0, 0x8000_8000).unwrap();
    bench.kick(0);
    bench.enable(0);
    assert_eq!(bench.device.news(), []);
    assert_eq!(bench.session.lost_position(), Some((0, ProtocolError::InUse { ring: 0 })));
    // A front-end that knows where it stands is believed.
    bench.ring(Kind::SET_VRING_BASE, 0, 0x8004_8004).unwrap();
    let position = Position { avail: 4, used: 4, ..START };
    assert_eq!(bench.device.news(), [Told::Start(0, position)]);
    assert_eq!(bench.session.lost_position(), None);
    // Unless the ring says that it went on. It is not looked at again before something changes.
    bench.ring(Kind::SET_VRING_BASE, 0, 0x8002_8002).unwrap();
    flags(&file, &[USED, LEFT, LEFT, LEFT]);
    bench.ask(Kind::GET_FEATURES);
    assert_eq!(bench.session.lost_position(), Some((0, ProtocolError::InUse { ring: 0 })));
    assert_eq!(bench.session.waiting(0), Some(ProtocolError::InUse { ring: 0 }));
    bench.ring(Kind::SET_VRING_ENABLE, 0, 0).unwrap();
    bench.enable(0);
    assert_eq!(bench.session.lost_position(), None);
    bench.base(0);
    bench.device.news();
    // After a reset the driver's ring is new.
    bench.ring(Kind::SET_VRING_BASE, 0, 0x8000_8000).unwrap();
    flags(&file, &[0; 4]);
    bench.kick(0);
    assert_eq!(bench.device.news(), [Told::Start(0, START)]);
}

#[test]
fn a_packed_ring_of_single_descriptors_goes_on_where_it_shows_that_it_stands() {
    for base in [0x8000_8000, 0x8003_8003, 0x0005_0005] {
        let (mut bench, file) = Bench::ready(F_VERSION_1 | F_RING_PACKED);
        // Five were used; one more is there.
        flags(&file, &[USED, USED, USED, USED, USED, LEFT]);
        bench.ring(Kind::SET_VRING_BASE, 0, base).unwrap();
        bench.kick(0);
        bench.enable(0);
        let position = Position { avail: 5, used: 5, ..START };
        assert_eq!(bench.device.news(), [Told::Start(0, position)], "{base:#x}");
    }
}

/// A ring of 16 whose region says that it was used up to the fifth entry, and up to the second before: what became of it with these flags.
fn with_region(found: &[u16]) -> (Vec<Told>, Option<(usize, ProtocolError)>) {
    let (mut bench, file) = Bench::ready(F_VERSION_1 | F_RING_PACKED);
    let ask = [longs(&[0, 0]), words(&[16 << 16 | 2, 0])].concat();
    let reply =
        bench.raw(crate::vhost::testing::message(Kind::GET_INFLIGHT_FD, &ask, vec![])).unwrap().unwrap();
    let fd = reply.fd.unwrap();
    // Version and size; where it was used to, and before; their wrap counters.
    for (at, bytes) in [(8, [1u8, 0, 16, 0]), (16, [4, 0, 1, 0]), (20, [1, 1, 0, 0])] {
        pwrite(&fd, &bytes, at).unwrap();
    }
    bench.say(Kind::SET_INFLIGHT_FD, &reply.bytes[12..], vec![fd]).unwrap();
    flags(&file, found);
    bench.ring(Kind::SET_VRING_BASE, 0, 0x8000_8000).unwrap();
    bench.kick(0);
    bench.enable(0);
    (bench.device.news(), bench.session.lost_position())
}

#[test]
fn a_packed_ring_goes_on_where_its_in_flight_region_says_unless_it_was_torn() {
    let at = |slot| [Told::Start(0, Position { avail: slot, used: slot, ..START })];
    // A chain of three was shown; nothing was; two of three are marked behind the first, which is not.
    assert_eq!(with_region(&[USED, USED, LEFT | 1, LEFT, LEFT]), (at(4).to_vec(), None));
    assert_eq!(with_region(&[USED, LEFT, LEFT, LEFT, LEFT]), (at(1).to_vec(), None));
    let lost = Some((0, ProtocolError::InUse { ring: 0 }));
    assert_eq!(with_region(&[USED, LEFT, USED, USED, LEFT]), (vec![], lost));
}

#[test]
fn a_packed_ring_has_any_size_and_a_split_one_a_power_of_two() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1 | F_RING_PACKED);
    for size in [1, 3, 100, 32768] {
        assert_eq!(bench.acknowledged(Kind::SET_VRING_NUM, &words(&[0, size]), vec![]), 0);
    }
    for size in [0, 32769, 65536, u32::MAX] {
        assert_eq!(bench.acknowledged(Kind::SET_VRING_NUM, &words(&[0, size]), vec![]), 1);
        assert_eq!(bench.session.refused(), Some(ProtocolError::RingSize { ring: 0, size }));
    }
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    for (size, answer) in [(2, 0), (256, 0), (32768, 0), (1, 1), (3, 1), (65536, 1)] {
        assert_eq!(bench.acknowledged(Kind::SET_VRING_NUM, &words(&[0, size]), vec![]), answer, "{size}");
    }
}

#[test]
fn another_format_forgets_positions() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    bench.device.steps = 3;
    bench.number(Kind::SET_FEATURES, F_VERSION_1 | F_RING_PACKED | F_PROTOCOL_FEATURES).unwrap();
    assert_eq!(bench.device.news().last(), Some(&Told::Start(0, START)));
}

#[test]
fn resets_stop_rings_until_they_are_set_up_again() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    bench.say(Kind::RESET_OWNER, &[], vec![]).unwrap();
    assert_eq!(bench.device.news(), [Told::Stop(0)]);
    bench.enable(0);
    assert!(!bench.session.running(0));
    bench.file(Kind::SET_VRING_KICK, 0);
    assert!(bench.session.running(0));
    bench.device.news();
    bench.number(Kind::SET_STATUS, 0).unwrap();
    assert_eq!(bench.device.news(), [Told::Stop(0), Told::Status(0)]);
    bench.file(Kind::SET_VRING_KICK, 0);
    assert!(bench.session.running(0));
    bench.device.news();
    bench.say(Kind::RESET_DEVICE, &[], vec![]).unwrap();
    assert_eq!(bench.device.news(), [Told::Stop(0), Told::Reset]);
    assert_eq!(bench.session.features(), None);
    bench.number(Kind::SET_FEATURES, F_VERSION_1 | F_PROTOCOL_FEATURES).unwrap();
    bench.kick(0);
    assert!(!bench.session.running(0));
    bench.enable(0);
    assert!(bench.session.running(0), "memory outlives a reset");
}

#[test]
fn what_the_device_cannot_run_is_refused_with_its_reason() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    bench.device.broken = Some(0);
    bench.kick(0);
    assert_eq!(bench.acknowledged(Kind::SET_VRING_ENABLE, &words(&[0, 1]), vec![]), 1);
    let reason = ProtocolError::Start { ring: 0, reason: "no worker has room".into() };
    assert_eq!(bench.session.refused(), Some(reason.clone()));
    // It is not tried again with every message, only when it is started again.
    bench.ask(Kind::GET_FEATURES);
    let error = bench.say(Kind::SET_VRING_KICK, &longs(&[0]), vec![event()]).unwrap_err();
    assert_eq!(error, reason);
}
