use super::*;
use crate::virtq::testing::{Format, GUEST, Rig};
use crate::virtq::{
    Access, DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DeviceRing, DriverRing, DriverSeg, F_IN_ORDER,
    F_INDIRECT_DESC, Found, RingConfig, RingFault,
};

fn rig(size: u16, features: u64) -> (Rig, SplitDriver, SplitDevice) {
    let rig = Rig::new(Format::Split, size, features, 1 << 16).unwrap();
    let driver = SplitDriver::new(&rig.config).unwrap();
    let device = SplitDevice::new(&rig.config).unwrap();
    (rig, driver, device)
}

#[test]
fn a_buffer_goes_round() {
    let (rig, mut driver, mut device) = rig(4, 0);
    let mut found = Found::new();
    for i in 0..10 {
        let addr = rig.buffer(64 * i);
        assert!(driver.add(&[DriverSeg { addr, len: 60 }], 1, 7 + i as u32));
        device.look(64, Access::Read, &mut found).unwrap();
        assert!(found.chains().is_empty(), "not before it is published");
        assert!(!driver.publish(), "the device polls");
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

/// A ring without a driver: the test writes what it likes.
struct Hostile {
    rig: Rig,
    device: SplitDevice,
    found: Found,
}

impl Hostile {
    fn new(size: u16) -> Self {
        let rig = Rig::new(Format::Split, size, F_INDIRECT_DESC, 1 << 16).unwrap();
        let device = SplitDevice::new(&rig.config).unwrap();
        Self { rig, device, found: Found::new() }
    }

    fn desc(&self, i: u16, addr: u64, len: u32, words: [u16; 2]) {
        self.rig.write_desc(self.rig.guest(self.rig.config.desc.as_ptr()), i, addr, len, words);
    }

    /// Makes `heads` available, from the first entry on, and sets the index.
    fn avail(&self, heads: &[u16], index: u16) {
        let at = self.rig.guest(self.rig.config.avail.as_ptr());
        for (i, head) in heads.iter().enumerate() {
            self.rig.write(at + 4 + 2 * i as u64, &head.to_le_bytes());
        }
        self.rig.write(at + 2, &index.to_le_bytes());
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

const GOOD: u64 = GUEST + 0x4000;

#[test]
fn heads_and_links_beyond_the_ring_are_faults() {
    let mut h = Hostile::new(8);
    h.desc(0, GOOD, 60, [0, 0]);
    h.avail(&[0, 8, 0], 3);
    assert_eq!(h.look(), (1, Err(RingFault::Descriptor(8, 8))));
    h.avail(&[0, 0xffff, 0], 3);
    assert_eq!(h.look(), (1, Err(RingFault::Descriptor(0xffff, 8))));
    h.desc(1, GOOD, 60, [DESC_NEXT, 9]);
    h.avail(&[0, 1, 0], 3);
    assert_eq!(h.look(), (1, Err(RingFault::Descriptor(9, 8))));
}

#[test]
fn loops_end() {
    let mut h = Hostile::new(8);
    h.desc(0, GOOD, 60, [DESC_NEXT, 1]);
    h.desc(1, GOOD, 60, [DESC_NEXT, 0]);
    h.desc(2, GOOD, 60, [DESC_NEXT, 2]);
    h.avail(&[0, 2], 2);
    assert_eq!(h.look(), (0, Err(RingFault::Chain)));
    h.avail(&[2, 0], 2);
    assert_eq!(h.look(), (0, Err(RingFault::Chain)));
}

#[test]
fn an_index_that_jumps_is_a_fault_behind_what_was_there() {
    let mut h = Hostile::new(8);
    h.desc(0, GOOD, 60, [0, 0]);
    h.avail(&[0; 8], 9);
    assert_eq!(h.look(), (0, Err(RingFault::Jump { from: 0, to: 9, size: 8 })));
    assert_eq!(h.device.available(1), Err(RingFault::Jump { from: 0, to: 9, size: 8 }));
    h.avail(&[0; 8], 8);
    assert_eq!(h.look(), (8, Ok(())));
    h.avail(&[0; 8], 7);
    assert_eq!(h.look(), (8, Err(RingFault::Jump { from: 8, to: 7, size: 8 })), "it moved back");
    h.avail(&[0; 8], 40000);
    assert_eq!(h.look(), (8, Err(RingFault::Jump { from: 8, to: 40000, size: 8 })));
    assert_eq!(h.device.available(8), Ok(8));
}

#[test]
fn the_largest_ring_can_be_full() {
    let mut h = Hostile::new(32768);
    h.desc(0, GOOD, 60, [0, 0]);
    h.avail(&[], 32768);
    assert_eq!(h.device.available(40000), Ok(32768));
    assert_eq!(h.look(), (64, Ok(())));
    let mut h = Hostile::new(32768);
    h.avail(&[], 32769);
    assert_eq!(h.look(), (0, Err(RingFault::Jump { from: 0, to: 32769, size: 32768 })));
}

#[test]
fn buffers_outside_of_memory_empty_or_of_the_wrong_direction_are_faults() {
    let mut h = Hostile::new(8);
    h.desc(0, GOOD, 60, [0, 0]);
    let end = h.rig.end();
    for (addr, len) in
        [(0, 60), (GUEST - 1, 60), (end, 1), (end - 59, 60), (u64::MAX - 10, 60), (GOOD, u32::MAX)]
    {
        h.desc(1, addr, len, [0, 0]);
        h.avail(&[0, 1, 0], 3);
        assert_eq!(h.look(), (1, Err(RingFault::Address { addr, len })));
        h.desc(2, GOOD, 1, [DESC_NEXT, 1]);
        h.avail(&[0, 2, 0], 3);
        assert_eq!(h.look(), (1, Err(RingFault::Address { addr, len })), "in a chain");
    }
    h.desc(1, end - 60, 60, [0, 0]);
    assert_eq!(h.look(), (3, Ok(())));
    h.desc(1, GOOD, 0, [0, 0]);
    assert_eq!(h.look(), (1, Err(RingFault::Empty)));
    h.desc(1, GOOD, 60, [DESC_WRITE, 0]);
    assert_eq!(h.look(), (1, Err(RingFault::Direction)));
    h.desc(2, GOOD, 60, [DESC_WRITE, 0]);
    h.desc(1, GOOD, 60, [0, 0]);
    h.avail(&[0, 1, 2], 3);
    assert_eq!(h.look(), (2, Err(RingFault::Direction)));
}

#[test]
fn bad_indirect_tables_are_faults() {
    let mut h = Hostile::new(8);
    let table = h.rig.buffer(0x8000);
    h.desc(0, GOOD, 60, [0, 0]);
    h.avail(&[0, 1], 2);
    for (len, flags) in [(0, 0), (15, 0), (17, 0), (32, DESC_NEXT)] {
        h.desc(1, table, len, [DESC_INDIRECT | flags, 0]);
        assert_eq!(h.look(), (1, Err(RingFault::Indirect)), "length {len}, flags {flags}");
    }
    let cut = h.rig.end() - 16;
    h.desc(1, cut, 32, [DESC_INDIRECT, 0]);
    assert_eq!(h.look(), (1, Err(RingFault::Address { addr: cut, len: 32 })));
    h.desc(1, table, 32, [DESC_INDIRECT, 0]);
    h.rig.write_desc(table, 0, table, 16, [DESC_INDIRECT, 0]);
    assert_eq!(h.look(), (1, Err(RingFault::Indirect)), "nested");
    h.rig.write_desc(table, 0, GOOD, 60, [DESC_NEXT, 2]);
    assert_eq!(h.look(), (1, Err(RingFault::Descriptor(2, 2))));
    h.rig.write_desc(table, 0, GOOD, 60, [DESC_NEXT, 0]);
    assert_eq!(h.look(), (1, Err(RingFault::Chain)), "a loop");
    h.rig.write_desc(table, 0, GOOD, 60, [DESC_NEXT, 1]);
    h.rig.write_desc(table, 1, GOOD, 60, [DESC_WRITE, 0]);
    assert_eq!(h.look(), (1, Err(RingFault::Direction)));
    h.rig.write_desc(table, 1, GOOD, 60, [0, 0]);
    assert_eq!(h.look(), (2, Ok(())));
    h.desc(1, table, 32, [DESC_INDIRECT | DESC_WRITE, 0]);
    assert_eq!(
        h.look(),
        (2, Ok(())),
        "the direction of a table itself means nothing (virtio 1.3, 2.7.5.3.2)"
    );
    h.desc(2, GOOD, 60, [DESC_NEXT, 1]);
    h.avail(&[0, 2], 2);
    assert_eq!(h.look(), (2, Ok(())), "descriptors of the ring before a table");
}

#[test]
fn a_chain_of_1024_is_the_longest() {
    let mut h = Hostile::new(2048);
    for i in 0..2048 {
        h.desc(i, GOOD, 1, [DESC_NEXT, i + 1]);
    }
    h.desc(1023, GOOD, 1, [0, 0]);
    h.avail(&[0, 0, 0, 0], 4);
    assert_eq!(h.look(), (2, Ok(())), "as many as there is room for");
    h.device.look(64, Access::Read, &mut h.found).unwrap();
    assert_eq!(h.found.segs(&h.found.chains()[1]).len(), 1024);
    h.found.clear();
    h.desc(1023, GOOD, 1, [DESC_NEXT, 1024]);
    h.desc(1024, GOOD, 1, [0, 0]);
    assert_eq!(h.look(), (0, Err(RingFault::Chain)));
}

#[test]
fn rings_that_cannot_be_are_refused() {
    let rig = Rig::new(Format::Split, 8, 0, 64).unwrap();
    for size in [0, 3, 65535, 32769] {
        let config = RingConfig { size, ..rig.config.clone() };
        assert_eq!(SplitDevice::new(&config).err(), Some(RingFault::Size(size)));
        assert_eq!(SplitDriver::new(&config).err(), Some(RingFault::Size(size)));
    }
    let odd = rig.at(GUEST + 8, 64).unwrap();
    let config = RingConfig { desc: odd, ..rig.config.clone() };
    assert_eq!(SplitDevice::new(&config).err(), Some(RingFault::Alignment));
}

/// A driver with four buffers under way.
fn under_way(features: u64) -> (Rig, SplitDriver) {
    let rig = Rig::new(Format::Split, 8, features, 1 << 16).unwrap();
    let mut driver = SplitDriver::new(&rig.config).unwrap();
    for token in 10..14 {
        assert!(driver.add(&[DriverSeg { addr: GOOD, len: 100 + token }], 0, token));
    }
    driver.publish();
    (rig, driver)
}

/// Writes a used element.
fn element(rig: &Rig, i: u16, id: u32, len: u32) {
    let at = rig.guest(rig.config.used.as_ptr()) + 4 + 8 * u64::from(i);
    rig.write(at, &(u64::from(id) | u64::from(len) << 32).to_le_bytes());
}

/// Sets the used index.
fn index(rig: &Rig, i: u16) {
    rig.write(rig.guest(rig.config.used.as_ptr()) + 2, &i.to_le_bytes());
}

#[test]
fn buffers_may_come_back_in_any_order_but_only_once() {
    let (rig, mut driver) = under_way(0);
    for (i, id) in [2, 0, 3, 3].into_iter().enumerate() {
        element(&rig, i as u16, id, id);
    }
    index(&rig, 4);
    assert_eq!(driver.used(), Ok(Some((12, 2))));
    assert_eq!(driver.used(), Ok(Some((10, 0))));
    assert_eq!(driver.used(), Ok(Some((13, 3))));
    assert_eq!(driver.used(), Err(RingFault::NotUnderWay(3)));
    assert_eq!(driver.room(), 7);
    let (rig, mut driver) = under_way(0);
    element(&rig, 0, 70000, 0);
    index(&rig, 1);
    assert_eq!(driver.used(), Err(RingFault::NotUnderWay(70000)));
}

#[test]
fn a_device_cannot_use_more_than_is_under_way() {
    let (rig, mut driver) = under_way(0);
    index(&rig, 5);
    assert_eq!(driver.used(), Err(RingFault::Jump { from: 0, to: 5, size: 8 }));
}

#[test]
fn one_element_stands_for_a_batch_in_order() {
    let (rig, mut driver) = under_way(F_IN_ORDER);
    element(&rig, 0, 2, 55);
    index(&rig, 3);
    assert_eq!(driver.used(), Ok(Some((10, 110))), "wholly written");
    assert_eq!(driver.used(), Ok(Some((11, 111))));
    assert_eq!(driver.used(), Ok(Some((12, 55))));
    assert_eq!(driver.used(), Ok(None));
    element(&rig, 3, 2, 0);
    index(&rig, 4);
    assert_eq!(driver.used(), Err(RingFault::NotUnderWay(2)), "it is back already");
}
