//! The kernel's side is played: what it is told, and the nic of this project on the rings that it was told of.

use super::*;
use crate::backend::nic::{self, Asked, Mac, MacTable, Mode};
use crate::backend::testing::{World, frame, wake};
use crate::burst::Seg;
use crate::port::testing::port;
use crate::port::{Caps, QueueId};
use crate::vhost::kernel::F_ACCESS_PLATFORM;
use crate::vhost::kernel::testing::{Fake, runs};
use crate::virtq::split::SplitDevice;
use crate::virtq::{Access, DeviceRing, F_EVENT_IDX, F_RING_PACKED, F_VERSION_1, Found};
use crate::wire::vnet_hdr::VnetHdr;
use std::sync::mpsc::{Receiver, channel};

const PLAIN: u64 =
    F_VERSION_1 | F_ACCESS_PLATFORM | F_EVENT_IDX | NetFeatures::MRG_RXBUF | NetFeatures::STATUS;

/// A device with one queue pair and no control queue.
fn device(features: u64) -> Fake {
    let fake = Fake::default();
    let mut told = fake.told();
    told.features = features;
    told.backend = 0x17e;
    told.config = vec![2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 5];
    told.kind = 1;
    told.largest = 256;
    told.rings_max = 3;
    told.range = (0, u64::MAX);
    drop(told);
    fake
}

fn refusal(fake: &Fake, shadow: bool) -> String {
    match open_on(Box::new(fake.clone()), shadow, &wake()) {
        Err(error) => error.to_string(),
        Ok(_) => "it opens".into(),
    }
}

#[test]
fn frames_cross_both_ways_and_the_device_is_reset_before_its_memory_goes() {
    for features in [PLAIN, F_VERSION_1 | F_ACCESS_PLATFORM, PLAIN | F_RING_PACKED] {
        let fake = device(features);
        let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
        assert!(opened.up && runs(&fake.told()) && fake.told().accepted == features);
        let mut far =
            nic::pair(Some(&fake.ring(1, false)), Some(&fake.ring(0, false)), &wake(), &Arc::default())
                .unwrap();
        let mut near = opened.pairs.remove(0);
        let mut world = World::new();
        let (mut us, outside) = port(QueueId(1), 512, Caps::NONE);
        let (mut them, beyond) = port(QueueId(2), 512, Caps::NONE);
        for mark in 0..200 {
            outside.sent.push((VnetHdr::NONE, frame(1000, mark))).unwrap();
            beyond.sent.push((VnetHdr::NONE, frame(60, mark))).unwrap();
        }
        for _ in 0..300 {
            world.hop(&mut *us.rx, &mut *near.tx);
            world.hop(&mut *far.rx, &mut *them.tx);
            world.hop(&mut *them.rx, &mut *far.tx);
            world.hop(&mut *near.rx, &mut *us.tx);
        }
        for mark in 0..200 {
            assert_eq!(beyond.received.pop().unwrap().1, frame(1000, mark));
            assert_eq!(outside.received.pop().unwrap().1, frame(60, mark));
        }
        drop(far);
        drop(opened);
        drop(near.rx);
        assert!(runs(&fake.told()) && fake.told().memory.is_some(), "a half is still there");
        drop(near.tx);
        let told = fake.told();
        assert_eq!(told.log[told.log.len() - 3..], ["suspend", "status 0", "iotlb Unmap"]);
    }
}

#[test]
fn a_device_is_told_in_the_order_that_the_kernel_wants() {
    let fake = device(PLAIN);
    let opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
    let ring = |n: u32| {
        ["ring 0 256", "base 0 0x0", "at 0", "call 0", "kick 0", "enable 0"]
            .map(|l| l.replacen('0', &n.to_string(), 1))
    };
    let start = ["own", "status 0", "status 3", &format!("accept {PLAIN:#x}"), "backend 0x16", "status 11"];
    let mut expected: Vec<String> = start.iter().map(ToString::to_string).collect();
    expected.extend(["iotlb Begin", "iotlb Map", "iotlb End"].map(String::from));
    expected.extend(ring(0).into_iter().chain(ring(1)));
    expected.extend(["config call", "status 15"].map(String::from));
    assert_eq!(fake.told().log, expected);
    let kicked = |ring: u32| nix::unistd::read(fake.told().rings[&ring].kick.as_ref().unwrap(), &mut [0; 8]);
    assert_eq!((kicked(0), kicked(1)), (Ok(8), Ok(8)), "buffers are there already");
    assert_eq!((opened.handle.size(), opened.handle.features()), (256, (PLAIN, PLAIN)));
}

#[test]
fn a_ring_without_mergeable_buffers_is_full_of_buffers_as_long_as_the_device_says() {
    let plain = F_VERSION_1 | F_ACCESS_PLATFORM;
    for (mtu, len) in [(None, 9728), (Some(1500), 1536), (Some(9000), 9088), (Some(0), 1536)] {
        let bit = if mtu.is_some() { NetFeatures::MTU } else { 0 };
        let fake = device(plain | bit);
        fake.told().config[10..12].copy_from_slice(&mtu.unwrap_or(0u16).to_le_bytes());
        let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
        assert_eq!(fake.told().accepted, plain | bit);
        let mut ring = SplitDevice::new(&fake.ring(0, false)).unwrap();
        let (mut found, mut posted) = (Found::new(), 0);
        loop {
            found.clear();
            ring.look(64, Access::Write, &mut found).unwrap();
            if found.chains().is_empty() {
                break;
            }
            for chain in found.chains() {
                assert_eq!(found.segs(chain).iter().map(Seg::len).sum::<usize>(), len, "{mtu:?}");
                ring.give(chain, 0);
                posted += 1;
            }
        }
        assert_eq!(posted, 256, "{mtu:?}");
        drop(opened.pairs.pop());
    }
}

/// Serves a control queue, an answer a command; the commands.
fn serve(fake: &Fake, ring: u32, answers: &'static [u8]) -> Receiver<Vec<u8>> {
    let (device, (says, hears)) = (fake.clone(), channel());
    std::thread::spawn(move || {
        while !runs(&device.told()) {
            std::thread::yield_now();
        }
        let mut ring = SplitDevice::new(&device.ring(ring, false)).unwrap();
        answers.iter().try_for_each(|answer| says.send(device.command(&mut ring, *answer)))
    });
    hears
}

/// The next `count` commands.
fn settle(handle: &mut Handle, served: &Receiver<Vec<u8>>, count: usize) -> Vec<Vec<u8>> {
    let mut commands = Vec::new();
    while commands.len() < count {
        assert_eq!(handle.health(), Health::Runs(true));
        commands.extend(served.try_recv());
        std::thread::yield_now();
    }
    // The answer to the last one is there, and may be taken.
    handle.health();
    commands
}

/// A guest of that address that asked for this.
fn guest(mac: Mac, modes: &[(Mode, bool)], tables: [&[Mac]; 2]) -> Asked {
    let mut asked = Asked::new(mac);
    asked.filter.set_mode(Mode::Promiscuous, false);
    for (mode, on) in modes {
        asked.filter.set_mode(*mode, *on);
    }
    let counts = tables.map(|part| part.len() as u64);
    let mut parts = tables.iter();
    let table = MacTable::fill(counts, |_, to| parts.next().map(|part| to.copy_from_slice(part)).is_some());
    asked.filter.table = table.unwrap();
    asked
}

const CONTROL: u64 = NetFeatures::CTRL_VQ | NetFeatures::CTRL_RX | NetFeatures::CTRL_MAC_ADDR;
const MAC: Mac = [2, 3, 4, 5, 6, 7];

#[test]
fn the_control_queue_turns_on_pairs_and_tells_the_address() {
    let fake = device(PLAIN | NetFeatures::MQ | NetFeatures::CTRL_VLAN | CONTROL);
    fake.told().config[8] = 3;
    fake.told().rings_max = 7;
    let served = serve(&fake, 6, &[0, 1, 0]);
    let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
    assert_eq!((opened.pairs.len(), fake.told().accepted & NetFeatures::CTRL_VLAN), (3, 0));
    assert_eq!(opened.handle.files().count(), 2);
    opened.handle.wish(Wishes::of(&Asked::new(MAC)));
    let commands = settle(&mut opened.handle, &served, 3);
    assert_eq!(commands, [vec![4, 0, 3, 0], vec![0, 0, 1], vec![1, 1, 2, 3, 4, 5, 6, 7]]);
    assert!(!opened.handle.keeps_mac());
}

#[test]
fn what_a_guest_asks_for_reaches_its_device_and_is_taken_back() {
    let offloads = NetFeatures::CTRL_GUEST_OFFLOADS
        | NetFeatures::GUEST_CSUM
        | NetFeatures::GUEST_TSO4
        | NetFeatures::GUEST_ECN;
    let fake = device(PLAIN | CONTROL | NetFeatures::CTRL_RX_EXTRA | offloads);
    let served = serve(&fake, 2, &[0; 9]);
    let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
    let others: &[Mac] = &[[1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]];
    let mut asked = guest(MAC, &[(Mode::AllMulticast, true), (Mode::NoBroadcast, true)], [&[[2; 6]], others]);
    asked.agree(NetFeatures::GUEST_CSUM | NetFeatures::GUEST_TSO6);
    opened.handle.wish(Wishes::of(&asked));
    let mut commands = settle(&mut opened.handle, &served, 7);
    // Joined to something that asks for nothing.
    opened.handle.wish(Wishes::default());
    commands.extend(settle(&mut opened.handle, &served, 2));
    let table = [&[1, 0, 1, 0, 0, 0][..], &[2; 6], &[2, 0, 0, 0], &others.concat()].concat();
    let all = NetFeatures::GUEST_CSUM | NetFeatures::GUEST_TSO4 | NetFeatures::GUEST_ECN;
    let expected = [
        vec![0, 0, 1],
        vec![1, 1, 2, 3, 4, 5, 6, 7],
        [&[5, 0][..], &NetFeatures::GUEST_CSUM.to_le_bytes()].concat(),
        table,
        vec![0, 1, 1],
        vec![0, 5, 1],
        vec![0, 0, 0],
        [&[5, 0][..], &(all & fake.told().accepted).to_le_bytes()].concat(),
        vec![0, 0, 1],
    ];
    assert_eq!(commands, expected);
}

#[test]
fn a_device_that_cannot_filter_lets_everything_in() {
    // One that refuses the table, one that does not know the mode, and a guest with too many addresses for the kernel.
    let many = [[1; 6]; 64];
    type Case = (u64, Asked, &'static [u8], Vec<Vec<u8>>);
    let cases: [Case; 3] = [
        (
            CONTROL,
            guest(MAC, &[], [&[[4; 6]], &[]]),
            &[0, 0, 1],
            vec![vec![1, 0, 1, 0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0]],
        ),
        (CONTROL, guest(MAC, &[(Mode::AllUnicast, true)], [&[], &[]]), &[0, 0], vec![]),
        (
            CONTROL,
            guest(MAC, &[], [&[], &many]),
            &[0, 0, 0, 0],
            vec![[&[1, 0, 0, 0, 0, 0, 64, 0, 0, 0][..], &many.concat()].concat(), vec![0, 0, 0]],
        ),
    ];
    for (features, asked, answers, expected) in cases {
        let fake = device(PLAIN | features);
        let served = serve(&fake, 2, answers);
        let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
        opened.handle.wish(Wishes::of(&asked));
        let commands = settle(&mut opened.handle, &served, answers.len());
        assert_eq!(commands[..2], [vec![0, 0, 1], vec![1, 1, 2, 3, 4, 5, 6, 7]]);
        assert_eq!(commands[2..], expected);
        opened.handle.health();
        let control = opened.handle.control.as_ref().unwrap();
        assert!(control.commands.idle(), "nothing more is asked for");
    }
}

#[test]
fn an_address_that_is_refused_is_told_once_and_an_announcement_is_acknowledged() {
    let fake = device(PLAIN | CONTROL | NetFeatures::GUEST_ANNOUNCE);
    let served = serve(&fake, 2, &[0, 1, 0]);
    let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
    let handle = &mut opened.handle;
    handle.wish(Wishes::of(&Asked::new(MAC)));
    assert!(!handle.asks_announcement());
    while !handle.control.as_ref().unwrap().keeps_mac {
        handle.health();
    }
    assert!(handle.keeps_mac() && !handle.keeps_mac());
    fake.told().config[6] = 3;
    assert!(handle.asks_announcement());
    assert_eq!(settle(handle, &served, 3)[2], [3, 0]);
}

#[test]
fn more_pairs_than_there_are_rings_are_not_believed_and_pairs_that_are_refused_are_an_error() {
    let fake = device(PLAIN | NetFeatures::MQ | NetFeatures::CTRL_VQ);
    fake.told().config[8..10].copy_from_slice(&[0xff, 0xff]);
    let device = fake.clone();
    let served = std::thread::spawn(move || {
        while !runs(&device.told()) {
            std::thread::yield_now();
        }
        let mut ring = SplitDevice::new(&device.ring(4, false)).unwrap();
        device.command(&mut ring, 1)
    });
    fake.told().rings_max = 5;
    assert_eq!(refusal(&fake, false), "vhost-vdpa: the device refuses to use 2 queue pairs");
    assert_eq!(served.join().unwrap(), [4, 0, 2, 0]);
    assert_eq!(fake.told().status, 0);
}

#[test]
fn the_link_follows_and_a_device_that_goes_or_breaks_is_named() {
    let fake = device(PLAIN);
    let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
    let handle = &mut opened.handle;
    fake.told().config[6] = 0;
    assert_eq!(handle.health(), Health::Runs(false));
    fake.told().config[6] = 1;
    assert_eq!(handle.health(), Health::Runs(true));
    fake.told().status |= status::NEEDS_RESET;
    assert_eq!(handle.health(), Health::Broken);
    fake.told().gone = true;
    assert_eq!(handle.health(), Health::Gone);
    let down = device(PLAIN);
    down.told().config[6] = 0;
    assert!(!open_on(Box::new(down.clone()), false, &wake()).unwrap().up);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    type Change = fn(&mut crate::vhost::kernel::testing::Told);
    let cases: [(Change, bool, &str); 9] = [
        (|told| told.kind = 2, false, "Device 'vhost-vdpa' could not be initialized"),
        (|told| told.features &= !F_VERSION_1, false, "vhost-vdpa: the device has no virtio 1.0"),
        (|told| told.largest = 1, false, "vhost-vdpa: the device has rings of less than two entries"),
        (
            |told| told.features |= 1 << 62 | 1 << 41,
            true,
            "vdpa svq does not work with features 0x20000000000",
        ),
        (
            |told| told.range = (0, 4095),
            false,
            "vhost-vdpa: get iova range failed: Numerical result out of range",
        ),
        (
            |told| told.range = (0, 4 << 20),
            false,
            "vhost-vdpa: get iova range failed: Numerical result out of range",
        ),
        (
            |told| {
                told.features |= NetFeatures::MQ | NetFeatures::CTRL_VQ;
                told.config.truncate(8);
            },
            false,
            "Fail to get config from vhost-vDPA device: Argument list too long",
        ),
        (
            |told| told.refuses = Some(("iotlb", Errno::ENOMEM)),
            false,
            "vhost-vdpa: sharing memory failed: Out of memory (memory that a device uses counts as locked: raise RLIMIT_MEMLOCK)",
        ),
        (
            |told| told.refuses = Some(("own", Errno::EBUSY)),
            false,
            "vhost-vdpa: taking the vDPA device over failed: Device or resource busy (somebody uses the device)",
        ),
    ];
    for (change, shadow, expected) in cases {
        let fake = device(PLAIN);
        change(&mut fake.told());
        assert_eq!(refusal(&fake, shadow), expected);
    }
    // A device with small addresses gets small ones.
    let fake = device(PLAIN);
    fake.told().range = (0, (1 << 30) - 1);
    let opened = open_on(Box::new(fake.clone()), true, &wake()).unwrap();
    assert_eq!(fake.told().memory.unwrap().0, 2 << 20);
    drop(opened);
}
