//! The second oracle: rust-vmm's `virtio-queue` on the other side of our rings.

#![allow(unsafe_code)] // hands it the rig's memory

use super::{SplitDevice, SplitDriver};
use crate::virtq::testing::{Format, GUEST, Rig};
use crate::virtq::{Access, DeviceRing, DriverRing, DriverSeg, F_EVENT_IDX, F_INDIRECT_DESC, Found};
use proptest::prelude::*;
use std::collections::VecDeque;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

const BUFFERS: usize = 1 << 16;

/// The rig's memory as the other implementation sees it.
fn memory(rig: &Rig) -> GuestMemoryMmap {
    let bytes = (rig.end() - GUEST) as usize;
    let base = rig.at(GUEST, bytes).unwrap().as_ptr();
    // SAFETY: the rig outlives the queue, and both sides access the memory as shared.
    let region =
        unsafe { MmapRegion::build_raw(base, bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED) };
    let region = GuestRegionMmap::new(region.unwrap(), GuestAddress(GUEST)).unwrap();
    GuestMemoryMmap::from_regions(vec![region]).unwrap()
}

/// Their device on the rig's ring.
fn queue(rig: &Rig) -> Queue {
    let c = &rig.config;
    let mut queue = Queue::new(c.size).unwrap();
    let [desc, avail, used] = [c.desc, c.avail, c.used].map(|p| GuestAddress(rig.guest(p.as_ptr())));
    queue.try_set_desc_table_address(desc).unwrap();
    queue.try_set_avail_ring_address(avail).unwrap();
    queue.try_set_used_ring_address(used).unwrap();
    queue.set_event_idx(c.features & F_EVENT_IDX != 0);
    queue.set_ready(true);
    queue
}

/// Our driver under `ops` with their device: each operation adds some buffers, takes and uses some, and takes some back.
fn their_device(size: u16, features: u64, ops: &[[u8; 4]]) {
    let rig = Rig::new(Format::Split, size, features, BUFFERS).unwrap();
    let mem = memory(&rig);
    let mut driver = SplitDriver::new(&rig.config).unwrap();
    let mut device = queue(&rig);
    assert!(device.is_valid(&mem));
    let (mut avail, mut taken, mut used) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
    let mut token = 0;
    device.needs_notification(&mem).unwrap(); // the first answer is always yes
    for &[adds, takes, backs, flags] in ops {
        for i in 0..u32::from(adds % 8) {
            let segs: Vec<DriverSeg> = (0..1 + (token + i) % 5)
                .map(|s| DriverSeg {
                    addr: rig.buffer(((token * 331 + s * 97) % 60000) as usize),
                    len: 1 + s,
                })
                .collect();
            let readable = (token % 3) as usize;
            if driver.add(&segs, readable, token) {
                avail.push_back((token, segs, readable));
            }
            token += 1;
        }
        let before = avail.len() + taken.len() + used.len();
        assert!(before <= usize::from(size));
        driver.publish();
        for _ in 0..takes % 8 {
            let chain = device.pop_descriptor_chain(&mem);
            let expected = avail.pop_front();
            assert_eq!(chain.is_some(), expected.is_some());
            let (Some(chain), Some((token, segs, readable))) = (chain, expected) else { break };
            let head = chain.head_index();
            let found: Vec<_> = chain.map(|d| (d.addr().0, d.len(), d.is_write_only())).collect();
            let made: Vec<_> = segs.iter().enumerate().map(|(i, s)| (s.addr, s.len, i >= readable)).collect();
            assert_eq!(found, made);
            taken.push_back((token, head));
        }
        if flags & 1 != 0 {
            taken.make_contiguous().reverse(); // in whatever order they like
        }
        driver.want_calls(flags & 2 != 0);
        // What our driver asks for now is what their device must see, where nothing lies in between.
        let quiet = used.is_empty();
        let mut count = 0;
        for _ in 0..takes % 5 {
            let Some((token, head)) = taken.pop_front() else { break };
            device.add_used(&mem, head, token).unwrap();
            used.push_back((token, token));
            count += 1;
        }
        // Without event indices their device always notifies.
        if count > 0 {
            let told = device.needs_notification(&mem).unwrap();
            assert!(!quiet || features & F_EVENT_IDX == 0 || told == (flags & 2 != 0));
        }
        for _ in 0..backs % 8 {
            let expected = used.pop_front();
            assert_eq!(driver.used(), Ok(expected));
            if expected.is_none() {
                break;
            }
        }
        // Their device asks for kicks; our driver must see it.
        if flags & 4 != 0 && avail.is_empty() && driver.room() > 0 {
            assert!(!device.enable_notification(&mem).unwrap(), "nothing is there");
            let seg = DriverSeg { addr: rig.buffer(0), len: 9 };
            assert!(driver.add(&[seg], 1, token));
            avail.push_back((token, vec![seg], 1));
            token += 1;
            assert!(driver.publish(), "it waits");
            device.disable_notification(&mem).unwrap();
        }
    }
}

/// Our device with their driver: chains of the given lengths, a bit of each of which says whether it is an indirect table.
fn their_driver(lengths: &[u8]) {
    let features = F_INDIRECT_DESC;
    // Their driver lays its ring out from an address on, and its buffers over the first pages of it.
    let rig = Rig::new(Format::Split, 256, features, BUFFERS).unwrap();
    let mem = memory(&rig);
    let mock = MockSplitQueue::create(&mem, GuestAddress(rig.buffer(0)), 256);
    let mut config = rig.config.clone();
    let at = |a: GuestAddress| rig.at(a.0, 1).unwrap();
    (config.desc, config.avail, config.used) =
        (at(mock.desc_table_addr()), at(mock.avail_addr()), at(mock.used_addr()));
    let mut device = SplitDevice::new(&config).unwrap();
    let mut found = Found::new();
    let mut next = 0;
    let mut used = 0;
    for &length in lengths {
        let count = u16::from(length % 7) + 1;
        if next + count > 256 {
            break;
        }
        let made: Vec<(u64, u32)> =
            (0..count).map(|i| (rig.buffer(0x8000 + usize::from(next + i) * 64), 1 + u32::from(i))).collect();
        let write = if length & 0x80 == 0 { 0 } else { 2 };
        let descs: Vec<RawDescriptor> = made
            .iter()
            .enumerate()
            .map(|(i, &(addr, len))| {
                let link = if i + 1 < made.len() { 1 } else { 0 };
                RawDescriptor::from(Descriptor::new(addr, len, write | link, next + i as u16 + 1))
            })
            .collect();
        mock.add_desc_chains(&descs, next).unwrap();
        let access = if write == 0 { Access::Read } else { Access::Write };
        device.look(64, access, &mut found).unwrap();
        let chain = found.chains()[0];
        assert_eq!((found.chains().len(), chain.id), (1, next));
        let segs: Vec<_> = found.segs(&chain).iter().map(|s| (rig.guest(s.ptr()), s.len() as u32)).collect();
        assert_eq!(segs, made);
        device.give(&chain, 7 + u32::from(next));
        found.clear();
        device.publish();
        let element = mock.used().ring().ref_at(usize::from(used)).unwrap().load();
        assert_eq!((element.id(), element.len()), (u32::from(next), 7 + u32::from(next)));
        used += 1;
        assert_eq!(mock.used().idx().load(), used);
        next += count;
    }
    // The words that both sides agree on lie where the other one reads them.
    let flags: u16 = mem.read_obj(mock.used_addr()).unwrap();
    assert_eq!(flags, 1, "the device polls");
    device.want_kicks(true);
    let flags: u16 = mem.read_obj(mock.used_addr()).unwrap();
    assert_eq!(flags, 0);
}

#[test]
fn our_driver_and_their_device_agree_for_long() {
    let ops: Vec<[u8; 4]> = (0..40_000_u32).map(|i| (i.wrapping_mul(2_654_435_761)).to_be_bytes()).collect();
    for size in [2, 4, 256] {
        for features in [0, F_EVENT_IDX] {
            their_device(size, features, &ops);
        }
    }
}

proptest! {
    #[test]
    fn our_driver_and_their_device_agree(
        size in 1u32..9, event in any::<bool>(), ops in proptest::collection::vec(any::<[u8; 4]>(), 0..200),
    ) {
        their_device(1 << size, if event { F_EVENT_IDX } else { 0 }, &ops);
    }

    #[test]
    fn our_device_and_their_driver_agree(lengths in proptest::collection::vec(any::<u8>(), 0..60)) {
        their_driver(&lengths);
    }
}
