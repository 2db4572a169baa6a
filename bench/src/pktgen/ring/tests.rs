//! Both formats against netdevd's own device side, and against one that gives buffers back as it likes.

use super::*;
use engine::virtq::packed::PackedDevice;
use engine::virtq::split::SplitDevice;
use engine::virtq::testing::{self, Rig};
use engine::virtq::{Access, Chain, DeviceRing, DriverSeg, Found};

const SIZE: u16 = 8;
/// Bytes of a buffer.
const LEN: usize = 128;

/// A receive ring of `count` buffers and its memory.
fn ring<F: Format>(format: testing::Format, count: usize, features: u64) -> (Ring<F>, Rig) {
    let rig = Rig::new(format, SIZE, features, count * LEN).unwrap();
    let seg = |token| DriverSeg { addr: rig.buffer(token * LEN), len: LEN as u32 };
    let memory = Memory {
        segs: (0..count).map(seg).collect(),
        base: rig.at(rig.buffer(0), count * LEN).unwrap(),
        stride: LEN,
        _mapping: rig.config.memory.clone(),
    };
    let kick = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    (Ring::new(&rig.config, memory, true, kick).unwrap(), rig)
}

/// What comes back now: tokens and lengths.
fn taken<F: Format>(ring: &mut Ring<F>) -> failure::Result<Vec<(u16, u32)>> {
    let mut all = Vec::new();
    let n = ring.take(64, |_, token, len| all.push((token, len)))?;
    assert_eq!(n, all.len());
    Ok(all)
}

/// The device uses up to `n` buffers in turn: where they lie. Each is written with one byte more than the one before.
fn used<D: DeviceRing>(device: &mut D, rig: &Rig, n: usize) -> Vec<usize> {
    let mut found = Found::new();
    device.look(n, Access::Write, &mut found).unwrap();
    let at = |chain: &Chain| (rig.guest(found.segs(chain)[0].ptr()) - rig.buffer(0)) as usize / LEN;
    let tokens = found.chains().iter().map(at).collect();
    let lens = (1..).zip(found.chains()).map(|(len, chain)| (chain, len));
    device.give_all(lens);
    device.publish();
    tokens
}

/// Laps with a device that keeps the order, `count` buffers on a ring of eight.
fn in_turn<F: Format, D: DeviceRing>(format: testing::Format, count: usize) {
    let (mut ring, rig) = ring::<F>(format, count, 0);
    let mut device = D::new(&rig.config).unwrap();
    assert_eq!((ring.free(), taken(&mut ring).unwrap().len()), (count, 0));
    ring.offer(count);
    let (mut next, mut back) = (0, 0);
    for round in 0..50 {
        let burst = 1 + round % count;
        let tokens = used(&mut device, &rig, burst);
        let wanted: Vec<usize> = (next..next + burst).map(|n| n % count).collect();
        assert_eq!(tokens, wanted, "round {round}");
        next += burst;
        let came = taken(&mut ring).unwrap();
        let wanted: Vec<(u16, u32)> =
            (back..next).zip(1..).map(|(n, len)| ((n % count) as u16, len)).collect();
        assert_eq!(came, wanted, "round {round}");
        back = next;
        assert_eq!(ring.free(), burst);
        ring.offer(burst);
    }
    assert_eq!(
        ring.out.is_empty(),
        usize::from(SIZE).is_multiple_of(count),
        "nothing was noted where slots tell"
    );
}

#[test]
fn buffers_come_round_in_turn() {
    for count in [8, 4, 3, 1] {
        in_turn::<Split, SplitDevice>(testing::Format::Split, count);
        in_turn::<Packed, PackedDevice>(testing::Format::Packed, count);
    }
}

/// The device's side written by hand: entry number `at` says that `token` was used. Packed: in its first lap.
fn use_by_hand(format: testing::Format, rig: &Rig, at: u16, token: u16, len: u32) {
    match format {
        testing::Format::Split => {
            let entry = u64::from(token) | u64::from(len) << 32;
            let used = rig.guest(rig.config.used.as_ptr());
            rig.write(used + 4 + u64::from(at % SIZE) * 8, &entry.to_le_bytes());
            rig.write(used + 2, &(at + 1).to_le_bytes());
        }
        testing::Format::Packed => {
            let word = u64::from(len) | u64::from(token) << 32 | 0x8080 << 48;
            rig.write(rig.guest(rig.config.desc.as_ptr()) + u64::from(at) * 16 + 8, &word.to_le_bytes());
        }
    }
}

fn out_of_turn<F: Format>(format: testing::Format) {
    let (mut ring, rig) = ring::<F>(format, 8, 0);
    ring.offer(8);
    for (at, token) in [0, 3, 1].into_iter().enumerate() {
        use_by_hand(format, &rig, at as u16, token, 100);
    }
    assert_eq!(taken(&mut ring).unwrap(), [(0, 100), (3, 100), (1, 100)]);
    assert_eq!(
        [0, 1, 2].map(|n| ring.upcoming(n)),
        [0, 3, 1],
        "they go again in the order in which they came"
    );
    ring.offer(3);
    use_by_hand(format, &rig, 3, 3, 5000);
    assert_eq!(taken(&mut ring).unwrap(), [(3, LEN as u32)], "no more than it has");
    use_by_hand(format, &rig, 4, 3, 1);
    assert!(taken(&mut ring).unwrap_err().to_string().contains("used buffer 3"), "twice");
}

#[test]
fn buffers_out_of_turn_are_followed_and_none_comes_twice() {
    out_of_turn::<Split>(testing::Format::Split);
    out_of_turn::<Packed>(testing::Format::Packed);
}

#[test]
fn one_entry_ends_a_batch_where_that_was_agreed_on() {
    for format in [testing::Format::Split, testing::Format::Packed] {
        let check = |came: Vec<(u16, u32)>| assert_eq!(came, [(0, 128), (1, 128), (2, 40)], "{format:?}");
        match format {
            testing::Format::Split => {
                let (mut ring, rig) = ring::<Split>(format, 8, F_IN_ORDER);
                ring.offer(8);
                use_by_hand(format, &rig, 0, 2, 40);
                rig.write(rig.guest(rig.config.used.as_ptr()) + 2, &3u16.to_le_bytes());
                check(taken(&mut ring).unwrap());
            }
            testing::Format::Packed => {
                let (mut ring, rig) = ring::<Packed>(format, 8, F_IN_ORDER);
                ring.offer(8);
                use_by_hand(format, &rig, 0, 2, 40);
                check(taken(&mut ring).unwrap());
            }
        }
    }
}

#[test]
fn an_index_that_jumps_is_refused() {
    let (mut ring, rig) = ring::<Split>(testing::Format::Split, 8, 0);
    ring.offer(5);
    rig.write(rig.guest(rig.config.used.as_ptr()) + 2, &6u16.to_le_bytes());
    assert!(taken(&mut ring).unwrap_err().to_string().contains("jumped from 0 to 6"));
}

#[test]
fn a_device_that_sleeps_is_woken_when_nothing_comes_back() {
    for (format, event, asleep) in [(testing::Format::Split, 0, 0), (testing::Format::Packed, 2, 0u16)] {
        let woken = |sleeps: bool| -> u64 {
            let nudged = |rig: &Rig| {
                let flags = if sleeps { asleep } else { 1 };
                rig.write(rig.guest(rig.config.used.as_ptr()) + event, &flags.to_le_bytes());
            };
            match format {
                testing::Format::Split => {
                    let (mut ring, rig) = ring::<Split>(format, 8, 0);
                    nudged(&rig);
                    ring.offer(2);
                    ring.nudge();
                    ring.nudge();
                    ring.kick.read().unwrap_or(0)
                }
                testing::Format::Packed => {
                    let (mut ring, rig) = ring::<Packed>(format, 8, 0);
                    nudged(&rig);
                    ring.offer(2);
                    ring.nudge();
                    ring.nudge();
                    ring.kick.read().unwrap_or(0)
                }
            }
        };
        assert_eq!((woken(true), woken(false)), (1, 0), "{format:?}");
    }
}

#[test]
fn a_buffer_of_another_length_is_written_anew() {
    let (mut ring, rig) = ring::<Packed>(testing::Format::Packed, 4, 0);
    let mut device = PackedDevice::new(&rig.config).unwrap();
    ring.resize(1, 77);
    ring.offer(2);
    let mut found = Found::new();
    device.look(2, Access::Write, &mut found).unwrap();
    let lens: Vec<u32> = found.chains().iter().map(|chain| chain.len).collect();
    assert_eq!(lens, [LEN as u32, 77]);
}
