//! Opening: which requests are made, and what is refused.

use super::super::testing::Fake;
use super::{Regions, abi, options, start, try_open};
use crate::backend::netmap::NetmapOptions;
use crate::backend::netmap::abi::{Interface, RingHeader};
use crate::backend::netmap::open::open;
use crate::backend::testing::{World, frame};
use std::mem::offset_of;
use std::sync::Arc;

fn calls(fake: &Arc<Fake>) -> Vec<String> {
    std::mem::take(&mut fake.state().calls)
}

#[test]
fn without_the_module_it_is_what_qemu_says() {
    let device = "/nonexistent/netmap".to_owned();
    let error = open(&NetmapOptions { device, ..options("vale0:1") }, &Regions::default());
    assert_eq!(error.err().unwrap().to_string(), "Failed to nm_open() vale0:1: No such file or directory");
    let fake = Fake::new();
    fake.state().no_device = true;
    // The device comes first, whatever the name is.
    let error = try_open(&fake, &Regions::default(), "vale").err().unwrap();
    assert_eq!(error, "Failed to nm_open() vale: No such file or directory");
    fake.state().no_device = false;
    let error = try_open(&fake, &Regions::default(), "vale").err().unwrap();
    assert_eq!(error, "Failed to nm_open() vale: Invalid argument");
}

#[test]
fn a_nic_has_a_file_for_each_ring_pair() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    fake.state().rings = (3, 3);
    let mut queues = start(&mut world, &fake, &regions, "netmap:eth0");
    assert_eq!(queues.len(), 3);
    let open = "open /dev/netmap";
    let one = |ring| format!("register eth0 mode 4 ring {ring} mem 0");
    assert_eq!(
        calls(&fake),
        [open, &one(0), open, &one(1), open, &one(2), open, "register netdevd mode 7 ring 0 mem 1",]
    );
    for (n, queue) in queues.iter_mut().enumerate() {
        fake.send(0, n, [(0, frame(60, n as u8))]);
        assert_eq!(world.hop(&mut *queue.rx, &mut *queue.tx), (1, 1));
        assert_eq!(fake.sent(0, n).remove(0).1, frame(60, n as u8));
    }
    fake.census();
}

#[test]
fn a_nic_with_more_rings_one_way_has_one_file_for_all() {
    let (mut world, fake, regions) = (World::new(), Fake::new(), Regions::default());
    fake.state().rings = (1, 4);
    let mut queues = start(&mut world, &fake, &regions, "eth0");
    assert_eq!((queues.len(), &*calls(&fake)[3]), (1, "register eth0 mode 1 ring 0 mem 0"));
    for n in 0..4 {
        fake.send(0, n, [(0, frame(60, n as u8))]);
    }
    let mut queue = queues.remove(0);
    for _ in 0..4 {
        assert_eq!(world.hop(&mut *queue.rx, &mut *queue.tx), (1, 1));
    }
    let mut got: Vec<_> = fake.sent(0, 0).into_iter().map(|(_, bytes)| bytes).collect();
    got.sort();
    let mut expected: Vec<_> = (0..4).map(|n| frame(60, n)).collect();
    expected.sort();
    assert_eq!(got, expected);
    fake.census();
}

#[test]
fn older_and_newer_modules_are_understood() {
    let (fake, regions) = (Fake::new(), Regions::default());
    fake.state().old_only = true;
    let opened = try_open(&fake, &regions, "vale0:1").unwrap();
    assert_eq!((opened.queues.len(), opened.header, fake.state().ports[0].header), (1, 10, 10));
    drop(opened);
    assert_eq!(fake.state().ports[0].header, 0);
    let (fake, regions) = (Fake::new(), Regions::default());
    fake.state().version = 15;
    assert_eq!(try_open(&fake, &regions, "netmap:x{1").unwrap().queues.len(), 1);
    assert!(calls(&fake).contains(&"register x{1 mode 1 ring 0 mem 0".to_owned()));
}

#[test]
fn memory_is_mapped_by_a_file_of_its_own_if_there_can_be_one() {
    let (fake, regions) = (Fake::new(), Regions::default());
    fake.state().no_null = true;
    let one = try_open(&fake, &regions, "netmap:a").unwrap();
    let two = try_open(&fake, &regions, "netmap:b").unwrap();
    assert_eq!(fake.state().maps, 2, "each port by its own");
    drop((one, two));
    fake.state().no_null = false;
    let one = try_open(&fake, &regions, "netmap:a").unwrap();
    let two = try_open(&fake, &regions, "netmap:b").unwrap();
    assert_eq!(fake.state().maps, 3, "one for both");
    drop((one, two));
    try_open(&fake, &regions, "netmap:a").unwrap();
    assert_eq!(fake.state().maps, 4, "gone with its last port");
}

#[test]
fn memory_that_does_not_hold_what_it_says_is_refused() {
    let unusable = |spoil: &dyn Fn(&Fake)| {
        let (fake, regions) = (Fake::new(), Regions::default());
        drop(try_open(&fake, &regions, "netmap:a").unwrap());
        spoil(&fake);
        try_open(&fake, &regions, "netmap:a").err().unwrap()
    };
    let says = |what: &str| format!("netmap port netmap:a cannot be used: {what}");
    let small = unusable(&|fake| fake.state().memsize = Some(4096));
    assert_eq!(small, says("its description lies outside of the 4096 bytes of its memory"));
    let none = unusable(&|fake| fake.state().memsize = Some(0));
    assert_eq!(none, "Failed to nm_open() netmap:a: Invalid argument");
    let port = |fake: &Fake| fake.state().ports[0].offset;
    let ring = |fake: &Fake| fake.state().ports[0].rx[0].at;
    let entry = size_of::<Interface>() + 2 * 8;
    for distance in [i64::MAX, i64::MIN, -(1 << 30), 1 << 30, 3] {
        let far = unusable(&|fake| fake.write(port(fake) + entry, distance));
        assert_eq!(far, says("ring 0 lies outside of its memory"), "{distance}");
    }
    for (at, value, what) in [
        (offset_of!(RingHeader, num_slots), u32::MAX, "ring 0 lies outside of its memory"),
        (offset_of!(RingHeader, num_slots), 0, "ring 0 stands where it has no slot"),
        (offset_of!(RingHeader, head), 16, "ring 0 stands where it has no slot"),
        (offset_of!(RingHeader, tail), 77, "ring 0 stands where it has no slot"),
        (offset_of!(RingHeader, buf_size), 0, "the buffers of ring 0 lie outside of its memory"),
        (offset_of!(RingHeader, buf_size), u32::MAX, "the buffers of ring 0 lie outside of its memory"),
    ] {
        assert_eq!(unusable(&|fake| fake.write(ring(fake) + at, value)), says(what), "{at} {value}");
    }
    for distance in [i64::MAX, i64::MIN, 1 << 40] {
        let far = unusable(&|fake| fake.write(ring(fake), distance));
        assert_eq!(far, says("the buffers of ring 0 lie outside of its memory"), "{distance}");
    }
    let no_ring = unusable(&|fake| {
        let rings = Interface { host_tx_rings: 0, host_rx_rings: 0, ..Interface::default() };
        fake.write(port(fake), rings);
    });
    assert_eq!(no_ring, says("it has no ring that could be used"));
    assert_eq!(abi::APIS, [14, 15]);
}
