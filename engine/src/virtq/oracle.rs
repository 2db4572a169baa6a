//! One oracle for every pair of a device's and a driver's side: a list of operations runs on a ring and on plain queues, and both must
//! say the same. The list comes from a test, from proptest or from a fuzzer.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)] // it fails by panicking

use super::packed::{PackedDevice, PackedDriver};
use super::split::{SplitDevice, SplitDriver};
use super::testing::{Format, Rig};
use super::{
    Access, CHAINS, DESC_NEXT, DESC_WRITE, DeviceRing, DriverRing, DriverSeg, F_EVENT_IDX, F_IN_ORDER,
    F_INDIRECT_DESC, Found, Position,
};
use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

/// Bytes for buffers, and behind them places for so many indirect tables.
const BUFFERS: usize = 1 << 16;
const TABLES: usize = 64;
/// Segments of a chain at most: few enough that every look has room for all of its chains.
const SEGS: usize = 16;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Split or packed.
    pub format: Format,
    /// Entries of the ring.
    pub size: u16,
    /// Beside indirect descriptors, which are always agreed on.
    pub features: u64,
    /// Direction of all buffers.
    pub access: Access,
    /// Where the ring starts.
    pub start: u16,
}

/// One operation; the numbers choose sizes and counts.
pub type Op = [u8; 3];

/// A buffer in the model.
#[derive(Debug)]
struct Buffer {
    token: u32,
    slots: u16,
    /// The place of its indirect table.
    table: Option<usize>,
    segs: Vec<(u64, u32)>,
}

/// The ring beside its model.
struct Run<D, V> {
    setup: Setup,
    rig: Rig,
    device: D,
    driver: V,
    found: Found,
    /// Added and not published.
    added: VecDeque<Buffer>,
    /// Published and not given, oldest first; the first `held` of them are in `found`.
    avail: VecDeque<Buffer>,
    held: usize,
    /// Given and not published, with the bytes written.
    given: VecDeque<(Buffer, u32)>,
    /// Published by the device and not taken by the driver.
    used: VecDeque<(Buffer, u32)>,
    free: u16,
    /// Places for indirect tables.
    tables: Vec<usize>,
    tokens: u32,
    /// Buffers (split) or slots (packed) from the first on that each side has published.
    shown: [u64; 2],
    /// Each side asked for notifications when there was nothing to do: the next publish must bring one.
    armed: [bool; 2],
}

/// The driver publishes to the device, the device to the driver.
const DRIVER: usize = 0;
const DEVICE: usize = 1;

impl<D: DeviceRing, V: DriverRing> Run<D, V> {
    fn new(setup: Setup) -> Self {
        let features = setup.features | F_INDIRECT_DESC;
        let mut rig = Rig::new(setup.format, setup.size, features, BUFFERS + TABLES * 16 * SEGS).unwrap();
        rig.config.position = match setup.format {
            Format::Split => Position { avail: setup.start, used: setup.start, ..Position::START },
            Format::Packed => {
                let (at, wrap) = (setup.start % setup.size, (setup.start / setup.size).is_multiple_of(2));
                Position { avail: at, used: at, avail_wrap: wrap, used_wrap: wrap }
            }
        };
        let driver = V::new(&rig.config).unwrap();
        let device = D::new(&rig.config).unwrap();
        Self {
            setup,
            device,
            driver,
            found: Found::new(),
            added: VecDeque::new(),
            avail: VecDeque::new(),
            held: 0,
            given: VecDeque::new(),
            used: VecDeque::new(),
            free: setup.size,
            tables: (0..TABLES).collect(),
            tokens: 0,
            shown: [u64::from(setup.start); 2],
            armed: [false; 2],
            rig,
        }
    }

    fn op(&mut self, [kind, a, b]: Op) {
        match kind % 13 {
            0 | 1 => self.add(1 + usize::from(a) % SEGS, u32::from(b) + 1, false),
            2 => self.add(1 + usize::from(a) % SEGS, u32::from(b) + 1, true),
            3 => (0..a % 64).for_each(|_| self.add(1, u32::from(b) + 1, false)),
            4 => self.show(),
            5 => self.look(usize::from(a) % (CHAINS + 8)),
            6 => self.give(usize::from(a) % CHAINS, u32::from(b)),
            7 => self.device_publish(),
            8 => self.take(usize::from(a)),
            9 => self.kicks(a % 2 == 1),
            10 => self.calls(a % 2 == 1),
            11 => self.device_publish_but(a.into()),
            _ => self.remake(),
        }
        self.check(usize::from(b));
    }

    /// The driver adds a buffer of `segs` segments, in a table where one is free.
    fn add(&mut self, segs: usize, len: u32, table: bool) {
        let token = self.tokens;
        let readable = if self.setup.access == Access::Read { segs } else { 0 };
        let list: Vec<DriverSeg> = (0..segs)
            .map(|i| {
                let at = (token as usize * 577 + i * 331) % (BUFFERS - 256 - SEGS);
                DriverSeg { addr: self.rig.buffer(at), len: len.min(256) + i as u32 }
            })
            .collect();
        let table = if table { self.tables.last().copied() } else { None };
        let slots = if table.is_some() { 1 } else { segs as u16 };
        let fits = slots <= self.free;
        let taken = if let Some(place) = table {
            let (at, bytes) = self.table(place, &list);
            self.driver.add_table(at, if readable == 0 { bytes } else { 0 }, token)
        } else {
            self.driver.add(&list, readable, token)
        };
        assert_eq!(taken, fits, "{slots} slots, {} free", self.free);
        if fits {
            self.tokens += 1;
            self.free -= slots;
            if table.is_some() {
                self.tables.pop();
            }
            let segs = list.iter().map(|s| (s.addr, s.len)).collect();
            self.added.push_back(Buffer { token, slots, table, segs });
        }
    }

    /// Writes an indirect table; where it is, and its bytes that the device may write.
    fn table(&self, place: usize, list: &[DriverSeg]) -> (DriverSeg, u32) {
        let at = self.rig.buffer(BUFFERS + place * 16 * SEGS);
        let write = if self.setup.access == Access::Write { DESC_WRITE } else { 0 };
        for (i, seg) in list.iter().enumerate() {
            let i = i as u16;
            let words = match self.setup.format {
                Format::Packed => [0, write],
                Format::Split if usize::from(i) + 1 < list.len() => [write | DESC_NEXT, i + 1],
                Format::Split => [write, 0],
            };
            self.rig.write_desc(at, i, seg.addr, seg.len, words);
        }
        (DriverSeg { addr: at, len: 16 * list.len() as u32 }, list.iter().map(|s| s.len).sum())
    }

    fn units(&self, buffer: &Buffer) -> u64 {
        match self.setup.format {
            Format::Split => 1,
            Format::Packed => u64::from(buffer.slots),
        }
    }

    /// Whether virtio asks for a notification of a move by `units` (virtio 1.3, 2.7.7, 2.7.10, 2.8.10), from what stands in memory.
    fn asks(&self, side: usize, units: u64) -> bool {
        let config = &self.rig.config;
        let (avail, used) = (self.rig.guest(config.avail.as_ptr()), self.rig.guest(config.used.as_ptr()));
        let (from, size) = (self.shown[side], u64::from(self.setup.size));
        match self.setup.format {
            Format::Split => {
                let (flags, event) =
                    if side == DRIVER { (used, used + 4 + 8 * size) } else { (avail, avail + 4 + 2 * size) };
                if self.setup.features & F_EVENT_IDX == 0 {
                    return self.rig.read_u16(flags) & 1 == 0;
                }
                let event = self.rig.read_u16(event);
                (from..from + units).any(|i| i as u16 == event)
            }
            Format::Packed => {
                let event = if side == DRIVER { used } else { avail };
                let (slot, flags) = (self.rig.read_u16(event), self.rig.read_u16(event + 2));
                let name = |i: u64| (i % size) as u16 | u16::from((i / size).is_multiple_of(2)) << 15;
                flags == 0 || flags == 2 && (from..from + units).any(|i| name(i) == slot)
            }
        }
    }

    fn published(&mut self, side: usize, units: u64, told: bool) {
        assert_eq!(told, units > 0 && self.asks(side, units), "side {side} moved by {units}");
        if units > 0 {
            assert!(told || !self.armed[side], "side {side}: the other one asked and waits");
            self.armed[side] = false;
        }
        self.shown[side] += units;
    }

    fn show(&mut self) {
        let units = self.added.iter().map(|b| self.units(b)).sum();
        let told = self.driver.publish();
        self.published(DRIVER, units, told);
        self.avail.append(&mut self.added);
    }

    fn device_publish(&mut self) {
        let units = self.given.iter().map(|(b, _)| self.units(b)).sum();
        let told = self.device.publish();
        self.published(DEVICE, units, told);
        self.used.append(&mut self.given);
    }

    /// The device publishes, but for the last `most` buffers if nobody asked about one of them.
    fn device_publish_but(&mut self, most: u16) {
        let all = self.given.iter().map(|(b, _)| self.units(b)).sum();
        let asked = self.asks(DEVICE, all);
        let wait = usize::from(self.device.show_but(most));
        assert!(wait <= usize::from(most).min(self.given.len()) && (wait == 0 || !asked));
        let later = self.given.split_off(self.given.len() - wait);
        let units = self.given.iter().map(|(b, _)| self.units(b)).sum();
        fence(Ordering::SeqCst);
        let told = self.device.asks();
        self.published(DEVICE, units, told);
        self.used.append(&mut self.given);
        self.given = later;
    }

    fn look(&mut self, want: usize) {
        self.device.look(want, self.setup.access, &mut self.found).unwrap();
        self.held += want.min(self.avail.len() - self.held).min(CHAINS - self.held);
        assert_eq!(self.found.chains().len(), self.held, "looked for {want}, {} there", self.avail.len());
        for (chain, buffer) in self.found.chains().iter().zip(&self.avail) {
            let segs = self.found.segs(chain);
            let segs: Vec<_> = segs.iter().map(|s| (self.rig.guest(s.ptr()), s.len() as u32)).collect();
            assert_eq!(u64::from(chain.slots), self.units(buffer));
            assert_eq!(chain.len, segs.iter().map(|s| s.1).sum::<u32>());
            assert_eq!(segs, buffer.segs);
        }
    }

    fn give(&mut self, most: usize, written: u32) {
        let given = self.found.chains().len().min(most);
        for chain in self.found.chains().iter().take(given) {
            let written = if self.setup.access == Access::Write { written.min(chain.len) } else { 0 };
            self.device.give(chain, written);
            let buffer = self.avail.pop_front().expect("no more is held than there is");
            self.given.push_back((buffer, written));
        }
        // What is left may be kept, or looked at anew.
        if most.is_multiple_of(2) {
            self.found.clear();
            self.held = 0;
        } else {
            self.found.drop_front(given);
            self.held -= given;
            self.look(0);
        }
    }

    fn take(&mut self, most: usize) {
        for _ in 0..most {
            let expected = self.used.pop_front();
            let got = self.driver.used().unwrap();
            assert_eq!(got, expected.as_ref().map(|(b, written)| (b.token, *written)));
            let Some((buffer, _)) = expected else { break };
            self.free += buffer.slots;
            self.tables.extend(buffer.table);
        }
    }

    fn kicks(&mut self, on: bool) {
        self.device.want_kicks(on);
        // As the contract says: after asking, look once more.
        let before = self.device.available(usize::MAX).unwrap();
        assert_eq!(before, self.avail.len());
        self.armed[DRIVER] = on && before == 0;
    }

    fn calls(&mut self, on: bool) {
        self.driver.want_calls(on);
        self.armed[DEVICE] = on && self.used.is_empty();
    }

    /// The device stops in good order and is made again where it stood.
    fn remake(&mut self) {
        self.device_publish();
        let mut config = self.rig.config.clone();
        config.position = self.device.position();
        self.device = D::new(&config).unwrap();
        assert_eq!(self.device.position(), config.position);
        self.found.clear();
        (self.held, self.armed[DRIVER]) = (0, false);
    }

    fn check(&mut self, want: usize) {
        assert_eq!(self.driver.room(), usize::from(self.free));
        let there = self.device.available(want).unwrap();
        assert!(there <= self.avail.len() && there >= want.min(self.avail.len()));
        assert_eq!(self.device.is_empty(), self.avail.is_empty());
        assert!(self.avail.len() + self.given.len() + self.used.len() <= usize::from(self.setup.size));
    }

    /// All that is under way comes home.
    fn drain(&mut self) {
        self.show();
        while !self.avail.is_empty() {
            self.look(CHAINS);
            self.give(CHAINS, 1);
        }
        self.device_publish();
        self.take(usize::from(self.setup.size) + 1);
        assert_eq!(self.driver.room(), usize::from(self.setup.size));
    }
}

/// Runs `ops` on a ring made as `setup` says, and then brings all buffers home.
///
/// # Panics
/// The ring and its model differ.
pub fn run(setup: Setup, ops: &[Op]) {
    fn on<D: DeviceRing, V: DriverRing>(setup: Setup, ops: &[Op]) {
        let mut run = Run::<D, V>::new(setup);
        ops.iter().for_each(|&op| run.op(op));
        run.drain();
    }
    match setup.format {
        Format::Split => on::<SplitDevice, SplitDriver>(setup, ops),
        Format::Packed => on::<PackedDevice, PackedDriver>(setup, ops),
    }
}

/// Every size of ring that is run.
pub const SIZES: [(Format, u16); 12] = [
    (Format::Split, 2),
    (Format::Split, 4),
    (Format::Split, 256),
    (Format::Split, 32768),
    (Format::Packed, 1),
    (Format::Packed, 2),
    (Format::Packed, 3),
    (Format::Packed, 4),
    (Format::Packed, 7),
    (Format::Packed, 100),
    (Format::Packed, 256),
    (Format::Packed, 32768),
];

/// A setup from four numbers, whatever they are.
#[must_use]
pub const fn setup(size: u8, features: u8, start: u16) -> Setup {
    let (format, size) = SIZES[size as usize % SIZES.len()];
    let event = if features & 1 == 0 { 0 } else { F_EVENT_IDX };
    let order = if features & 2 == 0 { 0 } else { F_IN_ORDER };
    let access = if features & 4 == 0 { Access::Read } else { Access::Write };
    Setup { format, size, features: event | order, access, start }
}

#[cfg(test)]
mod tests {
    use super::super::testing::GUEST;
    use super::*;
    use proptest::prelude::*;

    /// All setups.
    fn setups() -> impl Iterator<Item = Setup> {
        (0..SIZES.len() as u8).flat_map(|size| {
            (0..8).flat_map(move |features| [0, 5, 32767, 65533].map(|start| setup(size, features, start)))
        })
    }

    #[test]
    fn bursts_go_round_and_round() {
        for setup in setups() {
            let mut ops = Vec::new();
            for i in 0..if setup.size > 256 { 600 } else { 40 } {
                ops.extend([[3, 63, i as u8], [4, 0, 0], [5, 64, 9], [6, 63, 200], [7, 0, 0], [8, 255, 0]]);
            }
            run(setup, &ops);
        }
    }

    #[test]
    fn chains_of_every_form_mix() {
        for setup in setups() {
            let mut ops = Vec::new();
            for i in 0..60_u8 {
                ops.extend([
                    [0, i, 10],
                    [2, i / 2, 80],
                    [0, 0, i],
                    [4, 0, 0],
                    [5, 3, 0],
                    [5, 40, 1],
                    [6, 2, 30],
                ]);
                ops.extend([[5, 64, 0], [6, 50, i], [7, 0, 0], [8, i, 0]]);
            }
            run(setup, &ops);
        }
    }

    #[test]
    fn a_full_ring_is_looked_at_in_parts() {
        for setup in setups() {
            let full = (0..1 + setup.size / 63).map(|_| [3, 63, 7]);
            let mut ops: Vec<Op> = full.chain([[4, 0, 0]]).collect();
            for i in 0..30 {
                ops.extend([
                    [5, 7 + i, 255],
                    [6, 5, 1],
                    [11, 0, 0],
                    [5, 64, 0],
                    [6, 63, 1],
                    [7, 0, 0],
                    [8, 100, 3],
                ]);
                ops.extend([[3, 50, 1], [4, 0, 0]]);
            }
            run(setup, &ops);
        }
    }

    #[test]
    fn notifications_come_when_asked_for() {
        for setup in setups() {
            let mut ops = Vec::new();
            for i in 0..50_u8 {
                ops.extend([
                    [9, 1, 0],
                    [10, 1, 0],
                    [0, i, 1],
                    [4, 0, 0],
                    [9, i / 2, 0],
                    [3, 9, 1],
                    [4, 0, 0],
                ]);
                ops.extend([
                    [5, 64, 0],
                    [6, i, 1],
                    [7, 0, 0],
                    [10, i / 3, 0],
                    [5, 64, 0],
                    [6, 63, 1],
                    [7, 0, 0],
                ]);
                ops.extend([
                    [8, 255, 0],
                    [9, 0, 0],
                    [0, 0, 1],
                    [4, 0, 0],
                    [5, 64, 1],
                    [6, 63, 1],
                    [7, 0, 0],
                    [8, 255, 0],
                ]);
            }
            run(setup, &ops);
        }
    }

    #[test]
    fn positions_survive_a_new_device() {
        for setup in setups() {
            let mut ops = Vec::new();
            for i in 0..80_u8 {
                ops.extend([
                    [0, i % 3, 1],
                    [3, 3, 2],
                    [4, 0, 0],
                    [11, 0, 0],
                    [5, i % 7, 0],
                    [11, 0, 0],
                    [5, 5, 0],
                ]);
                ops.extend([
                    [6, i % 4, 1],
                    [11, 0, 0],
                    [9, 1, 0],
                    [8, 255, 0],
                    [5, 64, 0],
                    [6, 63, 2],
                    [11, 0, 0],
                    [8, 255, 0],
                ]);
            }
            run(setup, &ops);
        }
    }

    #[test]
    fn memory_of_the_rig_is_where_guests_have_it() {
        let rig = Rig::new(Format::Split, 4, 0, 64).unwrap();
        assert!(rig.at(GUEST, 1).is_some() && rig.at(GUEST - 1, 1).is_none());
        assert!(rig.at(rig.end() - 1, 1).is_some() && rig.at(rig.end() - 1, 2).is_none());
    }

    proptest! {
        #[test]
        fn any_list_of_operations(
            size in 0u8..12, features in 0u8..8, start in any::<u16>(), ops in proptest::collection::vec(any::<Op>(), 0..150),
        ) {
            run(setup(size, features, start), &ops);
        }
    }
}
