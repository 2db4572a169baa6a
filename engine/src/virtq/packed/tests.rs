use super::layout::{AVAIL, USED};
use super::*;
use crate::mem::dirty::DirtyLog;
use crate::virtq::testing::{Format, GUEST, Rig};
use crate::virtq::{
    Access, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DeviceRing, DriverRing, DriverSeg, F_IN_ORDER,
    F_INDIRECT_DESC, Found, Position, RingConfig, RingFault,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pread;
use std::sync::Arc;

fn rig(size: u16, features: u64) -> (Rig, PackedDriver, PackedDevice) {
    let rig = Rig::new(Format::Packed, size, features, 1 << 16).unwrap();
    let driver = PackedDriver::new(&rig.config).unwrap();
    let device = PackedDevice::new(&rig.config).unwrap();
    (rig, driver, device)
}

#[test]
fn buffers_go_round_rings_of_every_size() {
    for size in [1, 2, 3, 7, 100] {
        let (rig, mut driver, mut device) = rig(size, 0);
        let mut found = Found::new();
        for i in 0..3 * usize::from(size) {
            let addr = rig.buffer(64 * i);
            assert!(driver.add(&[DriverSeg { addr, len: 60 }], 1, 7 + i as u32));
            device.look(64, Access::Read, &mut found).unwrap();
            assert!(found.chains().is_empty(), "not before it is published");
            assert!(!driver.publish(), "the device polls");
            assert_eq!(device.available(1), Ok(1));
            device.look(64, Access::Read, &mut found).unwrap();
            let chain = found.chains()[0];
            assert_eq!(found.chains().len(), 1);
            assert_eq!(rig.guest(found.segs(&chain)[0].ptr()), addr);
            assert_eq!(chain.len, 60);
            device.give(&chain, 5);
            found.clear();
            assert_eq!(driver.used(), Ok(None));
            assert!(!device.publish(), "the driver polls");
            assert_eq!(driver.used(), Ok(Some((7 + i as u32, 5))));
            assert_eq!(driver.used(), Ok(None));
        }
    }
}

#[test]
fn what_the_device_writes_of_the_ring_is_logged() {
    let mut rig = Rig::new(Format::Packed, 512, 0, 1 << 16).unwrap();
    let log: std::os::fd::OwnedFd = memfd_create("log", MFdFlags::empty()).unwrap();
    nix::unistd::ftruncate(&log, 4096).unwrap();
    let dirty = Arc::new(DirtyLog::new(&log, 0, 4096).unwrap());
    rig.config.memory = Arc::new(rig.config.memory.with_log(Some(dirty)));
    // As QEMU says it.
    rig.config.used_log = Some(rig.guest(rig.config.used.as_ptr()));
    let mut driver = PackedDriver::new(&rig.config).unwrap();
    let mut device = PackedDevice::new(&rig.config).unwrap();
    assert!(driver.add(&[DriverSeg { addr: rig.buffer(0), len: 60 }], 0, 1));
    driver.publish();
    let mut found = Found::new();
    device.look(64, Access::Write, &mut found).unwrap();
    device.give(&found.chains()[0], 5);
    device.publish();
    // Two pages of descriptors, and the one behind them.
    let mut byte = [0];
    pread(&log, &mut byte, (GUEST / 4096 / 8) as i64).unwrap();
    assert_eq!(byte, [0b111]);
}

#[test]
fn chains_wrap_over_the_end_of_the_ring() {
    let (rig, mut driver, mut device) = rig(7, 0);
    let mut found = Found::new();
    for i in 0..20 {
        let segs = [0, 100, 300].map(|at| DriverSeg { addr: rig.buffer(at), len: 60 + i });
        assert!(driver.add(&segs, 3, i));
        assert!(driver.add(&segs[..2], 2, 100 + i));
        driver.publish();
        assert_eq!(driver.room(), 2);
        device.look(64, Access::Read, &mut found).unwrap();
        let chains = found.chains();
        assert_eq!(
            chains.iter().map(|c| (c.slots, c.len)).collect::<Vec<_>>(),
            [(3, 180 + 3 * i), (2, 120 + 2 * i)]
        );
        for chain in chains {
            let at: Vec<u64> = found.segs(chain).iter().map(|s| rig.guest(s.ptr())).collect();
            assert_eq!(at, segs[..at.len()].iter().map(|s| s.addr).collect::<Vec<_>>());
            device.give(chain, 0);
        }
        found.clear();
        device.publish();
        assert_eq!(driver.used(), Ok(Some((i, 0))));
        assert_eq!(driver.used(), Ok(Some((100 + i, 0))));
        assert_eq!(driver.used(), Ok(None));
        assert_eq!(driver.room(), 7);
    }
}

/// A ring without a driver: the test writes what it likes. All in the first round.
struct Hostile {
    rig: Rig,
    device: PackedDevice,
    found: Found,
}

const GOOD: u64 = GUEST + 0x8000;

impl Hostile {
    fn new(size: u16) -> Self {
        let rig = Rig::new(Format::Packed, size, F_INDIRECT_DESC, 1 << 16).unwrap();
        let device = PackedDevice::new(&rig.config).unwrap();
        Self { rig, device, found: Found::new() }
    }

    fn raw(&self, i: u16, addr: u64, len: u32, id: u16, flags: u16) {
        self.rig.write_desc(self.rig.guest(self.rig.config.desc.as_ptr()), i, addr, len, [id, flags]);
    }

    /// An available descriptor.
    fn desc(&self, i: u16, addr: u64, len: u32, id: u16, flags: u16) {
        self.raw(i, addr, len, id, AVAIL | flags);
    }

    /// What a look for reading says: twice the same, with as many good chains in front.
    fn look(&mut self) -> (usize, Result<(), RingFault>) {
        let once = self.device.look(64, Access::Read, &mut self.found);
        let chains = self.found.chains().len();
        self.found.clear();
        let again = self.device.look(64, Access::Read, &mut self.found);
        assert_eq!((once, chains), (again, self.found.chains().len()), "a fault stays");
        self.found.clear();
        (chains, once)
    }
}

#[test]
fn wrong_wrap_bits_are_not_available_and_tear_a_chain() {
    let mut h = Hostile::new(8);
    for flags in [0, USED, AVAIL | USED] {
        h.raw(0, GOOD, 60, 0, flags);
        assert_eq!(h.look(), (0, Ok(())));
        assert_eq!(h.device.available(9), Ok(0));
    }
    h.desc(0, GOOD, 60, 0, 0);
    for flags in [0, USED, AVAIL | USED] {
        h.desc(1, GOOD, 60, 0, DESC_NEXT);
        h.raw(2, GOOD, 60, 0, flags);
        assert_eq!(h.look(), (1, Err(RingFault::Torn)));
    }
    h.desc(2, GOOD, 60, 1, 0);
    assert_eq!(h.look(), (2, Ok(())));
}

#[test]
fn chains_over_the_whole_ring_end() {
    let mut h = Hostile::new(8);
    for i in 0..8 {
        h.desc(i, GOOD, 60, 0, DESC_NEXT);
    }
    assert_eq!(h.look(), (0, Err(RingFault::Chain)));
    h.desc(7, GOOD, 60, 0, 0);
    assert_eq!(h.look(), (1, Ok(())));
    h.desc(0, GOOD, 60, 0, 0);
    for i in 1..8 {
        h.desc(i, GOOD, 60, 0, DESC_NEXT);
    }
    assert_eq!(h.look(), (1, Err(RingFault::Chain)));
    let mut h = Hostile::new(2048);
    for i in 0..2048 {
        h.desc(i, GOOD, 1, 0, if i % 1024 == 1023 { 0 } else { DESC_NEXT });
    }
    assert_eq!(h.look(), (2, Ok(())), "1024 are the most");
    h.desc(1023, GOOD, 1, 0, DESC_NEXT);
    assert_eq!(h.look(), (0, Err(RingFault::Chain)));
}

#[test]
fn a_driver_that_overwrites_what_it_made_available_gets_no_more_than_the_ring_holds() {
    for size in [1, 2, 3, 7] {
        let mut h = Hostile::new(size);
        (0..size).for_each(|i| h.desc(i, GOOD, 60, 0, 0));
        h.device.look(64, Access::Read, &mut h.found).unwrap();
        assert_eq!(h.found.chains().len(), usize::from(size));
        // The next round, before the first is used.
        (0..size).for_each(|i| h.raw(i, GOOD, 60, 0, USED));
        h.device.look(64, Access::Read, &mut h.found).unwrap();
        assert_eq!(h.found.chains().len(), usize::from(size));
    }
}

#[test]
fn ids_buffers_and_directions_are_checked() {
    let mut h = Hostile::new(8);
    h.desc(0, GOOD, 60, 0, 0);
    h.desc(1, GOOD, 60, 8, 0);
    assert_eq!(h.look(), (1, Err(RingFault::Descriptor(8, 8))));
    h.desc(1, GOOD, 60, 8, DESC_NEXT);
    h.desc(2, GOOD, 60, 9, 0);
    assert_eq!(h.look(), (1, Err(RingFault::Descriptor(9, 8))), "the last one's counts");
    h.desc(2, GOOD, 60, 7, 0);
    assert_eq!(h.look(), (2, Ok(())));
    let end = h.rig.end();
    for (addr, len) in
        [(0, 60), (GUEST - 1, 60), (end, 1), (end - 59, 60), (u64::MAX - 10, 60), (GOOD, u32::MAX)]
    {
        h.desc(1, addr, len, 0, 0);
        assert_eq!(h.look(), (1, Err(RingFault::Address { addr, len })));
        h.desc(1, addr, len, 0, DESC_NEXT);
        assert_eq!(h.look(), (1, Err(RingFault::Address { addr, len })), "in a chain");
    }
    h.desc(1, GOOD, 0, 0, 0);
    assert_eq!(h.look(), (1, Err(RingFault::Empty)));
    h.desc(1, GOOD, 60, 0, DESC_WRITE);
    assert_eq!(h.look(), (1, Err(RingFault::Direction)));
    h.desc(1, GOOD, 60, 0, DESC_NEXT);
    h.desc(2, GOOD, 60, 0, DESC_WRITE);
    assert_eq!(h.look(), (1, Err(RingFault::Direction)));
}

#[test]
fn bad_indirect_tables_are_faults() {
    let mut h = Hostile::new(8);
    let table = h.rig.buffer(0xc000);
    h.desc(0, GOOD, 60, 0, 0);
    for (len, flags) in [(0, 0), (15, 0), (17, 0), (32, DESC_NEXT)] {
        h.desc(1, table, len, 0, DESC_INDIRECT | flags);
        assert_eq!(h.look(), (1, Err(RingFault::Indirect)), "length {len}, flags {flags}");
    }
    let cut = h.rig.end() - 16;
    h.desc(1, cut, 32, 0, DESC_INDIRECT);
    assert_eq!(h.look(), (1, Err(RingFault::Address { addr: cut, len: 32 })));
    h.desc(1, table, 32, 0, DESC_INDIRECT);
    h.rig.write_desc(table, 0, GOOD, 60, [0, 0]);
    h.rig.write_desc(table, 1, table, 16, [0, DESC_INDIRECT]);
    assert_eq!(h.look(), (1, Err(RingFault::Indirect)), "nested");
    h.rig.write_desc(table, 1, GOOD, 60, [0, DESC_WRITE]);
    assert_eq!(h.look(), (1, Err(RingFault::Direction)));
    h.rig.write_desc(table, 1, GOOD, 60, [77, DESC_NEXT]);
    assert_eq!(h.look(), (2, Ok(())), "id and NEXT mean nothing in a table (virtio 1.3, 2.8.7)");
    h.desc(1, GOOD, 60, 0, DESC_NEXT);
    h.desc(2, table, 32, 0, DESC_INDIRECT);
    assert_eq!(h.look(), (1, Err(RingFault::Indirect)), "no table in a chain");
    let at = h.rig.buffer(0);
    for i in 0..1025 {
        h.rig.write_desc(at, i, GOOD, 1, [0, 0]);
    }
    h.desc(1, at, 16 * 1025, 0, DESC_INDIRECT);
    assert_eq!(h.look(), (1, Err(RingFault::Chain)));
    h.desc(1, at, 16 * 1024, 0, DESC_INDIRECT);
    assert_eq!(h.look(), (2, Ok(())));
}

#[test]
fn rings_that_cannot_be_are_refused() {
    let rig = Rig::new(Format::Packed, 8, 0, 64).unwrap();
    for size in [0, 32769, 65535] {
        let config = RingConfig { size, ..rig.config.clone() };
        assert_eq!(PackedDevice::new(&config).err(), Some(RingFault::Size(size)));
        assert_eq!(PackedDriver::new(&config).err(), Some(RingFault::Size(size)));
    }
    let at = |avail, used, used_wrap| {
        let position = Position { avail, used, avail_wrap: true, used_wrap };
        PackedDevice::new(&RingConfig { position, ..rig.config.clone() }).err()
    };
    assert_eq!(at(8, 0, true), Some(RingFault::Position(8, 8)));
    assert_eq!(at(0, 9, true), Some(RingFault::Position(9, 8)));
    assert_eq!(at(3, 4, true), Some(RingFault::Position(3, 8)), "used is ahead of available");
    assert_eq!(at(3, 2, false), Some(RingFault::Position(3, 8)), "more than a round");
    assert_eq!(at(3, 3, false), None, "the whole ring is in flight");
}

/// A driver with four buffers under way (the second of two slots), and a way to write used descriptors.
fn under_way(features: u64) -> (Rig, PackedDriver, impl Fn(&Rig, u16, u16, u32)) {
    let rig = Rig::new(Format::Packed, 8, features, 1 << 16).unwrap();
    let mut driver = PackedDriver::new(&rig.config).unwrap();
    for token in 10..14 {
        let seg = DriverSeg { addr: GOOD, len: 100 + token };
        assert!(driver.add(&[seg, seg][..if token == 11 { 2 } else { 1 }], 0, token));
    }
    driver.publish();
    let used = |rig: &Rig, slot: u16, id: u16, len: u32| {
        let ring = rig.guest(rig.config.desc.as_ptr());
        rig.write_desc(ring, slot, 0, len, [id, AVAIL | USED]);
    };
    (rig, driver, used)
}

#[test]
fn buffers_may_come_back_in_any_order_but_only_once() {
    let (rig, mut driver, used) = under_way(0);
    assert_eq!(driver.used(), Ok(None));
    used(&rig, 0, 1, 7);
    assert_eq!(driver.used(), Ok(Some((11, 7))));
    assert_eq!(driver.used(), Ok(None), "the buffer took two slots");
    used(&rig, 2, 3, 0);
    used(&rig, 3, 0, 5);
    used(&rig, 4, 3, 5);
    assert_eq!(driver.used(), Ok(Some((13, 0))));
    assert_eq!(driver.used(), Ok(Some((10, 5))));
    assert_eq!(driver.used(), Err(RingFault::NotUnderWay(3)));
    assert_eq!(driver.room(), 7);
    used(&rig, 4, 8, 5);
    assert_eq!(driver.used(), Err(RingFault::NotUnderWay(8)));
    used(&rig, 4, 2, 5);
    assert_eq!(driver.used(), Ok(Some((12, 5))));
    used(&rig, 5, 0, 0);
    assert_eq!(driver.used(), Err(RingFault::NotUnderWay(0)), "nothing is under way");
}

#[test]
fn one_descriptor_stands_for_a_batch_in_order() {
    let (rig, mut driver, used) = under_way(F_IN_ORDER);
    used(&rig, 0, 2, 55);
    assert_eq!(driver.used(), Ok(Some((10, 110))), "wholly written");
    assert_eq!(driver.used(), Ok(Some((11, 222))));
    assert_eq!(driver.used(), Ok(Some((12, 55))));
    assert_eq!(driver.used(), Ok(None));
    used(&rig, 4, 2, 0);
    assert_eq!(driver.used(), Err(RingFault::NotUnderWay(2)), "it is back already");
}
