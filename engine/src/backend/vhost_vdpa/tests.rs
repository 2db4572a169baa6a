//! The kernel's side is played: what it is told, and the nic of this project on the rings that it was told of.

use super::*;
use crate::backend::nic;
use crate::backend::testing::{World, frame, wake};
use crate::port::testing::port;
use crate::port::{Caps, QueueId};
use crate::vhost::kernel::F_ACCESS_PLATFORM;
use crate::vhost::kernel::testing::{Fake, runs};
use crate::virtq::split::SplitDevice;
use crate::virtq::{DeviceRing, F_EVENT_IDX, F_RING_PACKED, F_VERSION_1};
use crate::wire::vnet_hdr::VnetHdr;

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
        assert_eq!(told.log[told.log.len() - 2..], ["status 0", "iotlb Unmap"]);
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
    let start = ["own", "status 0", "status 3", &format!("accept {PLAIN:#x}"), "backend 0x6", "status 11"];
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
fn the_control_queue_turns_on_pairs_and_tells_the_address() {
    let control = NetFeatures::CTRL_VQ | NetFeatures::CTRL_RX | NetFeatures::CTRL_MAC_ADDR;
    let fake = device(PLAIN | NetFeatures::MQ | control);
    fake.told().config[8] = 3;
    fake.told().rings_max = 7;
    let device = fake.clone();
    let served = std::thread::spawn(move || {
        while !runs(&device.told()) {
            std::thread::yield_now();
        }
        let mut ring = SplitDevice::new(&device.ring(6, false)).unwrap();
        [0, 1, 0].map(|answer| device.command(&mut ring, answer))
    });
    let mut opened = open_on(Box::new(fake.clone()), false, &wake()).unwrap();
    assert_eq!(opened.pairs.len(), 3);
    assert!(opened.handle.set_mac([2, 3, 4, 5, 6, 7]));
    assert_eq!(served.join().unwrap(), [vec![4, 0, 3, 0], vec![0, 0, 1], vec![1, 1, 2, 3, 4, 5, 6, 7]]);
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
