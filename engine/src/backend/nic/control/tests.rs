use super::super::filter::Mode;
use super::*;
use crate::virtq::packed::PackedDriver;
use crate::virtq::split::SplitDriver;
use crate::virtq::testing::{Format, Rig};
use crate::virtq::{DriverRing, DriverSeg, F_INDIRECT_DESC, F_VERSION_1};
use proptest::collection::vec;
use proptest::prelude::*;

const SIZE: u16 = 16;
/// Bytes from one command's place to the next one's.
const STRIDE: usize = 512;
/// Where its answer lies.
const STATUS: usize = 500;
const UNSET: u8 = 0xaa;

struct Bench<V> {
    rig: Rig,
    driver: V,
    queue: ControlQueue,
}

impl<V: DriverRing> Bench<V> {
    fn new(format: Format) -> Self {
        let packed = if format == Format::Packed { F_RING_PACKED } else { 0 };
        let features = F_VERSION_1 | F_INDIRECT_DESC | packed;
        let rig = Rig::new(format, SIZE, features, STRIDE * usize::from(SIZE)).unwrap();
        let driver = V::new(&rig.config).unwrap();
        let queue = ControlQueue::new(&rig.config).unwrap();
        Self { rig, driver, queue }
    }

    fn at(&self, token: u32, offset: usize) -> u64 {
        self.rig.buffer(token as usize * STRIDE + offset)
    }

    /// A command in pieces of that many bytes, with `answers` bytes to be written.
    fn send(&mut self, token: u32, bytes: &[u8], piece: usize, answers: u32) {
        self.rig.write(self.at(token, 0), bytes);
        self.rig.write(self.at(token, STATUS), &[UNSET; 4]);
        let mut segs: Vec<_> = (0..bytes.len())
            .step_by(piece)
            .map(|from| DriverSeg { addr: self.at(token, from), len: piece.min(bytes.len() - from) as u32 })
            .collect();
        let readable = segs.len();
        segs.extend((answers > 0).then(|| DriverSeg { addr: self.at(token, STATUS), len: answers }));
        assert!(self.driver.add(&segs, readable, token));
        self.driver.publish();
    }

    fn status(&self, token: u32) -> [u8; 2] {
        self.rig.read_u16(self.at(token, STATUS)).to_le_bytes()
    }

    /// Serves all; the commands that came.
    fn serve(&mut self, most: usize) -> (Result<bool, RingFault>, Vec<Command>) {
        let mut came = Vec::new();
        let served = self.queue.serve(most, |command| {
            let refused = matches!(command, Command::Pairs(_));
            came.push(command);
            !refused
        });
        self.queue.publish();
        (served, came)
    }
}

fn commands_are_answered<V: DriverRing>(format: Format) {
    let mut b = Bench::<V>::new(format);
    assert_eq!(b.serve(8), (Ok(true), vec![]));
    b.send(0, &[0, 0, 1], 3, 1);
    b.send(1, &[4, 0, 1, 0], 2, 1);
    b.send(2, &[9, 9, 9], 1, 2);
    let (served, came) = b.serve(8);
    assert_eq!((served, came), (Ok(true), vec![Command::Mode(Mode::Promiscuous, true), Command::Pairs(1)]));
    // Done, refused, unknown; the first byte that is writable, and no other.
    assert_eq!([0, 1, 2].map(|token| b.status(token)), [[OK, UNSET], [ERR, UNSET], [ERR, UNSET]]);
    for token in 0..3 {
        assert_eq!(b.driver.used(), Ok(Some((token, 1))));
    }
    assert_eq!(b.driver.used(), Ok(None));
}

#[test]
fn commands_of_both_formats_are_answered() {
    commands_are_answered::<SplitDriver>(Format::Split);
    commands_are_answered::<PackedDriver>(Format::Packed);
}

fn a_flood_is_bounded<V: DriverRing>(format: Format) {
    let mut b = Bench::<V>::new(format);
    let round = |b: &mut Bench<V>| {
        for token in 0..5 {
            b.send(token, &[3, 0], 2, 1);
        }
        assert_eq!(b.serve(3), (Ok(false), vec![Command::Announced; 3]));
        let at = b.queue.position();
        assert_eq!(b.serve(3), (Ok(true), vec![Command::Announced; 2]));
        (0..5).for_each(|token| assert_eq!(b.driver.used(), Ok(Some((token, 1)))));
        at
    };
    let first = round(&mut b);
    assert_ne!(round(&mut b), first);
    // It goes on where it stood.
    let config = RingConfig { position: b.queue.position(), ..b.rig.config.clone() };
    b.queue = ControlQueue::new(&config).unwrap();
    round(&mut b);
}

#[test]
fn a_flood_of_commands_is_bounded_and_goes_on_later() {
    a_flood_is_bounded::<SplitDriver>(Format::Split);
    a_flood_is_bounded::<PackedDriver>(Format::Packed);
}

fn chains_that_are_no_command<V: DriverRing>(format: Format) {
    for (bytes, answers) in [(&[0, 0, 1][..], 0), (&[0][..], 1), (&[][..], 1)] {
        let mut b = Bench::<V>::new(format);
        b.send(0, &[3, 0], 2, 1);
        b.send(1, bytes, 4, answers);
        assert_eq!(b.serve(8), (Err(RingFault::Command), vec![Command::Announced]), "{bytes:?}");
        // What was good was answered.
        assert_eq!(b.driver.used(), Ok(Some((0, 1))));
        assert_eq!(b.driver.used(), Ok(None));
    }
    // What is written in front of what is read.
    let mut b = Bench::<V>::new(format);
    let seg = |at: usize| DriverSeg { addr: b.at(0, at), len: 4 };
    let table = b.at(1, 0);
    for (i, (at, write)) in [(0, 0), (8, 2), (16, 0)].into_iter().enumerate() {
        let next = if i < 2 { 1 } else { 0 };
        let words = match format {
            Format::Split => [write | next, i as u16 + 1],
            Format::Packed => [0, write],
        };
        b.rig.write_desc(table, i as u16, seg(at).addr, 4, words);
    }
    assert!(b.driver.add_table(DriverSeg { addr: table, len: 48 }, 4, 0));
    b.driver.publish();
    assert_eq!(b.serve(8), (Err(RingFault::Direction), vec![]));
    // A chain outside of memory, and one without a byte.
    for (addr, len) in [(b.rig.end(), 4), (b.at(0, 0), 0)] {
        let mut b = Bench::<V>::new(format);
        assert!(b.driver.add(&[DriverSeg { addr, len }, DriverSeg { addr: b.at(0, 8), len: 1 }], 1, 0));
        b.driver.publish();
        let fault = if len == 0 { RingFault::Empty } else { RingFault::Address { addr, len } };
        assert_eq!(b.serve(8), (Err(fault), vec![]));
    }
}

#[test]
fn a_chain_that_is_no_command_is_a_fault() {
    chains_that_are_no_command::<SplitDriver>(Format::Split);
    chains_that_are_no_command::<PackedDriver>(Format::Packed);
}

#[test]
fn a_chain_that_loops_is_a_fault() {
    let mut b = Bench::<SplitDriver>::new(Format::Split);
    let (ring, at) = (b.rig.guest(b.rig.config.desc.as_ptr()), b.at(0, 0));
    b.send(0, &[0, 0, 1], 2, 1);
    // The second descriptor leads back to the first.
    b.rig.write_desc(ring, 1, at, 2, [1, 0]);
    assert_eq!(b.serve(8), (Err(RingFault::Chain), vec![]));
    // An index that jumps.
    let mut b = Bench::<SplitDriver>::new(Format::Split);
    b.rig.write(b.rig.guest(b.rig.config.avail.as_ptr()) + 2, &0x7000u16.to_le_bytes());
    assert!(matches!(b.serve(8), (Err(RingFault::Jump { .. }), _)));
}

/// A descriptor as a driver may write it: where in the buffers (or behind them), length, flags, next or id.
type Wild = (usize, u32, u16, u16);

fn wild<V: DriverRing>(format: Format, descs: &[Wild], heads: &[u16], bytes: &[u8]) {
    let mut b = Bench::<V>::new(format);
    b.rig.write(b.at(0, 0), bytes);
    let ring = b.rig.guest(b.rig.config.desc.as_ptr());
    for (i, &(at, len, flags, next)) in descs.iter().enumerate() {
        let words = match format {
            Format::Split => [flags, next],
            // Most are available.
            Format::Packed => [next, flags | if next == 0 { 0 } else { 1 << 7 }],
        };
        b.rig.write_desc(ring, i as u16, b.rig.buffer(at), len, words);
    }
    if format == Format::Split {
        let avail = b.rig.guest(b.rig.config.avail.as_ptr());
        for (i, head) in [heads.len() as u16].iter().chain(heads).enumerate() {
            b.rig.write(avail + 2 + 2 * i as u64, &head.to_le_bytes());
        }
    }
    let (first, came) = b.serve(64);
    assert!(came.len() <= usize::from(SIZE));
    // What is a fault stays one, and what was served is not served again.
    assert_eq!(b.serve(64), (first, vec![]));
}

proptest! {
    /// Whatever a driver writes, it ends: in answers or in a fault.
    #[test]
    fn any_chains_end(
        descs in vec((0usize..9000, 0u32..600, 0u16..8, 0u16..20), usize::from(SIZE)),
        heads in vec(0u16..20, 0..=usize::from(SIZE)),
        bytes in vec(0u8..6, 64),
        packed: bool,
    ) {
        if packed {
            wild::<PackedDriver>(Format::Packed, &descs, &heads, &bytes);
        } else {
            wild::<SplitDriver>(Format::Split, &descs, &heads, &bytes);
        }
    }
}
