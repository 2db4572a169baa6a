//! The kernel's side and the tap are played: what they are told, and the nic of this project on the rings.

use super::*;
use crate::backend::nic;
use crate::backend::testing::{World, frame, wake};
use crate::port::QueueId;
use crate::port::testing::port;
use crate::vhost::kernel::F_NET_HDR;
use crate::vhost::kernel::testing::Fake;
use crate::virtq::{F_RING_PACKED, RingFault};
use crate::wire::vnet_hdr::VnetHdr;
use std::sync::Mutex;

/// A tap that remembers what it is told.
struct FakeTap {
    file: OwnedFd,
    told: Mutex<Vec<String>>,
    refuses: bool,
}

impl FakeTap {
    fn new(refuses: bool) -> Arc<Self> {
        Arc::new(Self { file: event().unwrap(), told: Mutex::default(), refuses })
    }

    fn does(&self, what: String) -> Result<(), Errno> {
        self.told.lock().unwrap().push(what);
        if self.refuses { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

impl Tap for FakeTap {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn set_header_len(&self, len: i32) -> Result<(), Errno> {
        self.does(format!("header {len}"))
    }

    fn set_offload(&self, flags: u32) -> Result<(), Errno> {
        self.does(format!("offload {flags:#x}"))
    }
}

/// What vhost-net of Linux 6.12 offers, and then some that we do not know.
fn device(features: u64) -> Fake {
    let fake = Fake::default();
    fake.told().features = features | 1 << 24 | 1 << 26 | F_NET_HDR | 1 << 41;
    fake
}

fn caps() -> Caps {
    Caps { csum: true, tso4: true, tso6: true, ecn: true, ufo: true, uso: true, coalesce: true }
}

fn vhost(vnet_hdr: bool, busy: u32) -> Vhost {
    Vhost::new(VhostOptions { fds: Vec::new(), busy }, vnet_hdr, caps()).unwrap()
}

/// The reason behind QEMU's words.
fn refusal(result: Result<QueuePair, TapError>) -> String {
    match result {
        Err(TapError::Vhost(Some(why))) => why.to_string(),
        Err(other) => other.to_string(),
        Ok(_) => "it opens".into(),
    }
}

#[test]
fn frames_cross_both_ways_with_a_header_of_the_tap_or_of_vhost_net() {
    for (vnet_hdr, features) in
        [(true, OF_RINGS), (true, F_VERSION_1), (false, OF_RINGS), (false, F_EVENT_IDX)]
    {
        let (fake, tap) = (device(features), FakeTap::new(false));
        let mut vhost = vhost(vnet_hdr, 0);
        let mut near = vhost.pair_on(Box::new(fake.clone()), &tap).unwrap();
        assert_eq!(near.tx.caps().tso4, vnet_hdr, "{features:#x}");
        let header = if vnet_hdr { 0 } else { F_NET_HDR };
        assert_eq!(fake.told().accepted, features | header);
        let mut far =
            nic::pair(Some(&fake.ring(1, true)), Some(&fake.ring(0, true)), &wake(), &Arc::default())
                .unwrap();
        let mut world = World::new();
        let (mut us, outside) = port(QueueId(1), 512, Caps::NONE);
        let (mut them, beyond) = port(QueueId(2), 512, Caps::NONE);
        for mark in 0..100 {
            outside.sent.push((VnetHdr::NONE, frame(1000, mark))).unwrap();
            beyond.sent.push((VnetHdr::NONE, frame(60, mark))).unwrap();
        }
        for _ in 0..100 {
            world.hop(&mut *us.rx, &mut *near.tx);
            world.hop(&mut *far.rx, &mut *them.tx);
            world.hop(&mut *them.rx, &mut *far.tx);
            world.hop(&mut *near.rx, &mut *us.tx);
        }
        for mark in 0..100 {
            assert_eq!(beyond.received.pop().unwrap().1, frame(1000, mark));
            assert_eq!(outside.received.pop().unwrap().1, frame(60, mark));
        }
        drop((far, near.rx));
        assert!(!fake.told().log.contains(&"no tap 0".into()), "a half is still there");
        drop(near.tx);
        assert!(fake.told().log.ends_with(&["no tap 0".into(), "no tap 1".into()]));
    }
}

#[test]
fn vhost_net_is_told_in_the_order_that_the_kernel_wants() {
    let (fake, tap) = (device(OF_RINGS | F_RING_PACKED), FakeTap::new(false));
    let _pair = vhost(true, 20).pair_on(Box::new(fake.clone()), &tap).unwrap();
    let ring = |n: u32| {
        ["ring 0 256", "base 0 0x0", "at 0", "call 0", "error 0", "kick 0", "busy 0 20"]
            .map(|line| line.replacen('0', &n.to_string(), 1))
    };
    let mut expected: Vec<String> = ["own".into(), format!("accept {OF_RINGS:#x}"), "memory".into()].into();
    expected.extend(ring(0).into_iter().chain(ring(1)));
    expected.extend(["tap 0", "tap 1"].map(String::from));
    assert_eq!(fake.told().log, expected);
    assert_eq!(*tap.told.lock().unwrap(), ["header 12"]);
}

#[test]
fn a_tap_is_not_to_send_what_one_buffer_does_not_hold() {
    for (features, header) in [(F_VERSION_1, "header 12"), (0, "header 10")] {
        let tap = FakeTap::new(false);
        let _pair = vhost(true, 0).pair_on(Box::new(device(features)), &tap).unwrap();
        assert_eq!(*tap.told.lock().unwrap(), [header, "offload 0x1"]);
    }
}

#[test]
fn a_ring_that_stops_is_named_once_whoever_stopped_it() {
    let (first, second, tap) = (device(OF_RINGS), device(OF_RINGS), FakeTap::new(false));
    let mut vhost = vhost(true, 0);
    let _one = vhost.pair_on(Box::new(first), &tap).unwrap();
    let mut two = vhost.pair_on(Box::new(second.clone()), &tap).unwrap();
    let rings = vhost.rings();
    assert_eq!((rings.files().count(), rings.look()), (5, None));
    // The kernel: of the second pair's transmit ring.
    let error = second.told().rings[&1].error.clone().unwrap();
    nix::unistd::write(&*error, &1u64.to_ne_bytes()).unwrap();
    assert_eq!(rings.look(), Some((3, "the kernel cannot use it".into())));
    assert_eq!(rings.look(), None);
    // A worker: the kernel used more of its receive ring than there was.
    let used = second.ring(0, true).used;
    // SAFETY: the used ring's index, which lies in memory that the pair keeps.
    #[allow(unsafe_code)]
    unsafe {
        used.cast::<u16>().add(1).write_volatile(999);
    }
    let (mut us, _outside) = port(QueueId(1), 4, Caps::NONE);
    World::new().hop(&mut *two.rx, &mut *us.tx);
    let why = RingFault::Jump { from: 0, to: 999, size: 256 }.to_string();
    assert_eq!(rings.look(), Some((2, why)));
}

#[test]
fn what_is_refused_says_which_step() {
    for (step, errno, at, hint) in [
        ("own", Errno::ENOTTY, "taking the vhost device over", ""),
        ("own", Errno::EBUSY, "taking the vhost device over", " (somebody uses the device)"),
        ("accept", Errno::EOPNOTSUPP, "settling features", ""),
        ("error", Errno::EBADF, "setting a ring up", ""),
        ("backend", Errno::ENOTSOCK, "giving the tap to vhost-net", ""),
    ] {
        let fake = device(OF_RINGS);
        fake.told().refuses = Some((step, errno));
        let said = refusal(vhost(true, 0).pair_on(Box::new(fake.clone()), &FakeTap::new(false)));
        assert_eq!(said, format!("{at} failed: {}{hint}", errno.desc()));
        let undone = fake.told().log.ends_with(&["no tap 0".into(), "no tap 1".into()]);
        assert_eq!(undone, step != "own", "{step}");
    }
    let refused = vhost(true, 0).pair_on(Box::new(device(OF_RINGS)), &FakeTap::new(true));
    assert_eq!(refusal(refused), format!("setting the header's length failed: {}", Errno::EINVAL.desc()));
    // A file that is something else, and fewer files than queues.
    let null = std::fs::File::open("/dev/null").unwrap();
    let options = VhostOptions { fds: vec![null.into()], busy: 0 };
    let mut given = Vhost::new(options, true, caps()).unwrap();
    let tap = Arc::new(Shared::new(event().unwrap(), true));
    assert_eq!(
        refusal(given.pair(&tap)),
        format!("taking the vhost device over failed: {}", Errno::ENOTTY.desc())
    );
    assert_eq!(refusal(given.pair(&tap)), "vhost-net requested but could not be initialized");
}
