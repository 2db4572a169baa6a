//! Taps through the real kernel, each test in a network namespace of its own (root), and the transmitting half on
//! socket pairs (no privilege). Both io modes.

#![allow(unsafe_code)] // packet sockets, lent test bytes

use super::tx::TapTx;
use super::*;
use crate::burst::{Burst, Mask, Seg};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::pool::{Pool, PoolSize};
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Turn, TxQueue};
use crate::uring::{FdIo, IoMode};
use crate::wire::vnet_hdr::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use nix::sched::{CloneFlags, unshare};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One worker's things.
struct Bench {
    io: FdIo,
    pool: Pool,
    arena: Arc<Arena>,
    burst: Burst,
}

impl Bench {
    fn new(mode: IoMode) -> Option<Self> {
        let arena = Arena::new(&ArenaConfig { initial: 8 << 20, step: 8 << 20, hugepages: false }).unwrap();
        let pool = Pool::set_of(1, PoolSize { small: 256, large: 32 }, &arena).unwrap().remove(0);
        match FdIo::new(Some(mode)) {
            Ok((io, _)) => Some(Self { io, pool, arena, burst: Burst::new() }),
            Err(e) => {
                eprintln!("skipped for {}: {e}", mode.name());
                None
            }
        }
    }

    /// Both modes, as far as this machine has them.
    fn all() -> impl Iterator<Item = Self> {
        [IoMode::Uring, IoMode::Batched].into_iter().filter_map(Self::new)
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Turn<'_>, &mut Burst) -> R) -> R {
        f(&mut Turn { now: 0, io: &mut self.io, pool: &mut self.pool }, &mut self.burst)
    }

    fn start(&mut self, pair: &mut QueuePair) {
        self.with(|turn, _| {
            pair.rx.start(turn);
            pair.tx.start(turn);
        });
    }

    fn stop(&mut self, pair: &mut QueuePair) {
        self.with(|turn, _| while !(pair.rx.stop(turn) && pair.tx.stop(turn)) {});
    }

    /// Moves what has arrived at `from` to `to` until `frames` have gone or a second has passed.
    fn forward(&mut self, from: &mut QueuePair, to: &mut QueuePair, frames: usize) -> PortCounters {
        let counters = PortCounters::default();
        let end = Instant::now() + Duration::from_secs(1);
        let mut gone = 0;
        while gone < frames && Instant::now() < end {
            self.io.sleep(Some(1_000_000));
            while self.io.take_ready().is_some() {}
            gone += self.with(|turn, burst| {
                burst.clear();
                let room = to.tx.room(turn, 64).min(64);
                from.rx.rx(turn, room, burst);
                let taken = to.tx.tx(turn, burst, burst.all());
                to.tx.flush(turn);
                turn.io.submit();
                to.tx.settle(turn, &counters);
                from.rx.release(turn, taken);
                taken
            });
        }
        counters
    }
}

/// A namespace for this test's thread, one test at a time: a child that another test has forked would hold this one's
/// taps until it reaches `exec`. `None`, with the reason printed, where that is not allowed.
fn namespace() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace: {errno} (needs root)");
        return None;
    }
    if std::fs::File::open("/dev/net/tun").is_err() {
        eprintln!("skipped: no /dev/net/tun");
        return None;
    }
    Some(alone)
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(done.success(), "ip {args}");
}

fn named(ifname: &str) -> TapOptions {
    TapOptions { ifname: Some(ifname.into()), ..TapOptions::default() }
}

fn tap(bench: &Bench, ifname: &str) -> QueuePair {
    // Tests of other modules fork, too, and hold a tap of that name, just closed here, until their child reaches `exec`.
    let busy = |made: &Result<_, TapError>| {
        matches!(made, Err(TapError::Configure { errno: nix::errno::Errno::EBUSY, .. }))
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let mut made = open(named(ifname), &bench.arena);
    while busy(&made) && std::time::Instant::now() < end {
        std::thread::yield_now();
        made = open(named(ifname), &bench.arena);
    }
    let mut opened = made.unwrap();
    assert!(opened.vnet_hdr && opened.ifname == ifname);
    // Quiet: no router solicitations among the frames that are counted.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6"), "1").unwrap();
    ip(&format!("link set {ifname} up"));
    opened.queues.remove(0)
}

/// The kernel's end of an interface: a packet socket that sends and receives frames with virtio-net headers.
struct Wire(OwnedFd);

impl Wire {
    fn open(ifname: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: plain system calls on values and one sockaddr that lives across the call.
        let fd = unsafe {
            let fd = libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                i32::from(protocol),
            );
            assert!(fd >= 0);
            let mut addr: libc::sockaddr_ll = std::mem::zeroed();
            addr.sll_family = libc::AF_PACKET as u16;
            addr.sll_protocol = protocol;
            addr.sll_ifindex = nix::net::if_::if_nametoindex(ifname).unwrap() as i32;
            let len = size_of::<libc::sockaddr_ll>() as u32;
            assert_eq!(libc::bind(fd, (&raw const addr).cast(), len), 0);
            let (on, ignore) = (1i32, 23 /* PACKET_IGNORE_OUTGOING */);
            for option in [15 /* PACKET_VNET_HDR */, ignore] {
                assert_eq!(libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const on).cast(), 4), 0);
            }
            OwnedFd::from_raw_fd(fd)
        };
        Self(fd)
    }

    fn send(&self, hdr: VnetHdr, frame: &[u8]) {
        let bytes = [&hdr.encode()[..], frame].concat();
        assert_eq!(nix::unistd::write(&self.0, &bytes), Ok(bytes.len()));
    }

    fn receive(&self) -> Option<(VnetHdr, Vec<u8>)> {
        let mut bytes = vec![0; 70_000];
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            let mut fds = [nix::poll::PollFd::new(self.0.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, 100u16).unwrap();
            if let Ok(n) = nix::unistd::read(&self.0, &mut bytes) {
                let hdr = VnetHdr::decode(bytes[..VnetHdr::LEN].try_into().unwrap());
                return Some((hdr, bytes[VnetHdr::LEN..n].to_vec()));
            }
        }
        None
    }
}

/// An Ethernet frame of an experimental type.
fn plain(mark: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![mark; len];
    frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// A TCP/IPv4 frame of `payload` bytes to be segmented, with its header.
fn gso(payload: usize) -> (VnetHdr, Vec<u8>) {
    let mut frame = plain(0x5a, 54 + payload);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..54].fill(0);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&((40 + payload) as u16).to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[46] = 0x50;
    let hdr = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };
    (hdr, frame)
}

fn error(options: TapOptions) -> String {
    let arena = Arena::new(&ArenaConfig { initial: 4096, step: 4096, hugepages: false }).unwrap();
    open(options, &arena).err().unwrap().to_string()
}

#[test]
fn frames_cross_from_tap_to_tap_whole_and_in_order() {
    let Some(_alone) = namespace() else { return };
    for mut bench in Bench::all() {
        let (mut a, mut b) = (tap(&bench, "ta"), tap(&bench, "tb"));
        bench.start(&mut a);
        bench.start(&mut b);
        let (near, far) = (Wire::open("ta"), Wire::open("tb"));
        for mark in 0..40 {
            near.send(VnetHdr::NONE, &plain(mark, 60 + 30 * usize::from(mark)));
        }
        let counters = bench.forward(&mut a, &mut b, 40);
        for mark in 0..40 {
            assert_eq!(far.receive().unwrap().1, plain(mark, 60 + 30 * usize::from(mark)));
        }
        assert_eq!(counters.tx.frames.get(), 40);
        bench.stop(&mut a);
        bench.stop(&mut b);
    }
}

#[test]
fn a_64_kib_gso_frame_passes_whole_with_its_header() {
    let Some(_alone) = namespace() else { return };
    for mut bench in Bench::all() {
        let (mut a, mut b) = (tap(&bench, "ta"), tap(&bench, "tb"));
        bench.start(&mut a);
        bench.start(&mut b);
        let (near, far) = (Wire::open("ta"), Wire::open("tb"));
        let (hdr, frame) = gso(64_000);
        near.send(hdr, &frame);
        bench.forward(&mut a, &mut b, 1);
        let (got, bytes) = far.receive().unwrap();
        assert_eq!((got.gso_type, got.gso_size, bytes.len()), (GSO_TCPV4, 1448, frame.len()));
        assert_eq!(bytes[54..], frame[54..]);
        bench.stop(&mut a);
        bench.stop(&mut b);
    }
}

#[test]
fn a_tap_removed_under_traffic_is_free_at_once() {
    let Some(_alone) = namespace() else { return };
    for mut bench in Bench::all() {
        for round in 0..20 {
            let mut a = tap(&bench, "ta");
            bench.start(&mut a);
            let near = Wire::open("ta");
            for _ in 0..round * 3 {
                near.send(VnetHdr::NONE, &plain(1, 100)); // some stay with the kernel, some unread
            }
            bench.io.poll();
            bench.stop(&mut a);
        }
        assert_eq!(bench.pool.out(), 0);
    }
}

#[test]
fn a_deleted_interface_ends_the_port_without_spinning() {
    let Some(_alone) = namespace() else { return };
    for mut bench in Bench::all() {
        let (mut a, mut b) = (tap(&bench, "ta"), tap(&bench, "tb"));
        bench.start(&mut a);
        bench.start(&mut b);
        bench.io.poll();
        let near = Wire::open("ta");
        ip("link delete tb");
        near.send(VnetHdr::NONE, &plain(1, 100));
        let counters = bench.forward(&mut a, &mut b, 1);
        assert_eq!(counters.dropped(DropReason::NotConnected), 1);
        bench.with(|turn, burst| b.rx.rx(turn, 1, burst));
        assert_eq!(b.rx.trouble(), libc::EBADFD);
        let start = Instant::now();
        while bench.io.take_ready().is_some() {}
        bench.io.sleep(Some(30_000_000));
        assert!(start.elapsed() >= Duration::from_millis(25), "{:?}", bench.io.mode());
        bench.stop(&mut a);
        bench.stop(&mut b);
        assert_eq!(open(named("tb"), &bench.arena).err().map(|e| e.to_string()), None);
    }
}

#[test]
fn an_interface_that_is_down_drops_by_name() {
    let Some(_alone) = namespace() else { return };
    for mut bench in Bench::all() {
        let (mut a, mut b) = (tap(&bench, "ta"), tap(&bench, "tb"));
        bench.start(&mut a);
        bench.start(&mut b);
        ip("link set tb down");
        Wire::open("ta").send(VnetHdr::NONE, &plain(1, 100));
        let counters = bench.forward(&mut a, &mut b, 1);
        assert_eq!(counters.dropped(DropReason::NotConnected), 1);
        bench.stop(&mut a);
        bench.stop(&mut b);
    }
}

#[test]
fn a_tap_works_on_in_another_namespace() {
    let Some(_alone) = namespace() else { return };
    for mut bench in Bench::all() {
        let (mut a, mut b) = (tap(&bench, "ta"), tap(&bench, "tb"));
        bench.start(&mut a);
        bench.start(&mut b);
        let far = std::thread::scope(|scope| {
            let (moved, ready) = std::sync::mpsc::channel();
            let other = scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                moved.send(nix::unistd::gettid()).unwrap();
                while std::fs::write("/proc/sys/net/ipv6/conf/tb/disable_ipv6", "1").is_err() {
                    std::thread::yield_now(); // until the interface has come
                }
                ip("link set tb up");
                Wire::open("tb")
            });
            ip(&format!("link set tb netns {}", ready.recv().unwrap()));
            other.join().unwrap()
        });
        Wire::open("ta").send(VnetHdr::NONE, &plain(7, 100));
        bench.forward(&mut a, &mut b, 1);
        assert_eq!(far.receive().unwrap().1, plain(7, 100));
        bench.stop(&mut a);
        bench.stop(&mut b);
    }
}

#[test]
fn a_macvtap_is_opened_by_its_own_node() {
    let Some(_alone) = namespace() else { return };
    ip("link add v0 type veth peer name v1");
    ip("link add link v0 name mt0 type macvtap mode bridge");
    let node = format!("/dev/tap{}", nix::net::if_::if_nametoindex("mt0").unwrap());
    if std::fs::File::open(&node).is_err() {
        return eprintln!("skipped: no {node} (device nodes do not appear by themselves here)");
    }
    for name in ["v0", "v1"] {
        ip(&format!("link set {name} up"));
    }
    for mut bench in Bench::all() {
        let (mut a, mut b) = (tap(&bench, "ta"), tap(&bench, "mt0"));
        bench.start(&mut a);
        bench.start(&mut b);
        let (near, far) = (Wire::open("ta"), Wire::open("v1"));
        near.send(VnetHdr::NONE, &plain(3, 300));
        bench.forward(&mut a, &mut b, 1);
        let there = std::iter::from_fn(|| far.receive()).find(|(_, f)| f[12..14] == [0x88, 0xb5]);
        assert_eq!(there.unwrap().1, plain(3, 300));
        far.send(VnetHdr::NONE, &plain(4, 400));
        bench.forward(&mut b, &mut a, 1);
        let back = std::iter::from_fn(|| near.receive()).find(|(_, f)| f[12..14] == [0x88, 0xb5]);
        assert_eq!(back.unwrap().1, plain(4, 400));
        bench.stop(&mut a);
        bench.stop(&mut b);
    }
}

#[test]
fn queues_of_a_multiqueue_tap_share_the_interface() {
    let Some(_alone) = namespace() else { return };
    let bench = Bench::new(IoMode::Batched).unwrap();
    let opened = open(TapOptions { queues: 4, ..named("mq%d") }, &bench.arena).unwrap();
    assert_eq!((opened.queues.len(), opened.ifname.as_str()), (4, "mq0"));
    assert_eq!(error(named("mq0")), "could not configure /dev/net/tun (mq0): Invalid argument");
}

#[test]
fn given_descriptors_are_taken_over_and_asked_for_their_header() {
    let Some(_alone) = namespace() else { return };
    let bench = Bench::new(IoMode::Batched).unwrap();
    let raw = |name: &str, flags| {
        let fd: OwnedFd =
            std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap().into();
        ioctl::attach(fd.as_fd(), name.as_bytes(), flags).unwrap();
        GivenFd { number: fd.as_raw_fd(), fd }
    };
    let fds = |fds| TapOptions { fds, ..TapOptions::default() };
    let opened = open(fds(vec![raw("ta", ioctl::IFF_VNET_HDR)]), &bench.arena).unwrap();
    assert_eq!((opened.ifname.as_str(), opened.vnet_hdr), ("ta", true));
    let opened = open(fds(vec![raw("tb", 0)]), &bench.arena).unwrap();
    assert_eq!((opened.vnet_hdr, opened.caps), (false, Caps::NONE));
    let mixed = fds(vec![raw("tc", ioctl::IFF_VNET_HDR), raw("td", 0)]);
    assert_eq!(error(mixed), "vnet_hdr not consistent across given tap fds");
}

#[test]
fn refusals_have_qemus_words() {
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let given = TapOptions { fds: vec![GivenFd { fd: null, number: 7 }], ..TapOptions::default() };
    assert_eq!(error(given), "Unable to query TUNGETIFF on FD 7: Inappropriate ioctl for device");
    let Some(_alone) = namespace() else { return };
    assert_eq!(error(named("lo")), "could not configure /dev/net/tun (lo): Invalid argument");
    assert_eq!(error(named("a/b")), "could not configure /dev/net/tun (a/b): Invalid argument");
    let many = TapOptions { queues: 300, ..named("mq1") };
    assert_eq!(error(many), "could not configure /dev/net/tun (mq1): Argument list too long");
    let bench = Bench::new(IoMode::Batched).unwrap();
    let _busy = open(named("bz0"), &bench.arena).unwrap();
    assert_eq!(error(named("bz0")), "could not configure /dev/net/tun (bz0): Device or resource busy");
    let long = open(named("averyveryverylongname"), &bench.arena).unwrap();
    assert_eq!(long.ifname, "averyveryverylo");
    let unnamed = open(TapOptions::default(), &bench.arena).unwrap();
    assert_eq!(unnamed.ifname, "tap0");
}

#[test]
fn a_thousand_queues_stay_below_half_a_gigabyte() {
    let Some(_alone) = namespace() else { return };
    let bench = Bench::new(IoMode::Batched).unwrap();
    let opened: Vec<_> = (0..4)
        .map(|i| open(TapOptions { queues: 250, ..named(&format!("mq{i}")) }, &bench.arena).unwrap())
        .collect();
    let report = bench.arena.report();
    assert!(report.used < 450 << 20, "{} MiB", report.used >> 20);
    drop(opened);
    assert_eq!(bench.arena.receiving(), 0);
}

/// A transmitting half whose receiver is a socket.
fn socket_tx(bench: &mut Bench, limited: bool) -> (TapTx, OwnedFd) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (near, far) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).unwrap();
    let shared = Arc::new(Shared::new(near, false));
    shared.file.set(bench.io.register(shared.fd.as_fd(), None).ok());
    (TapTx::new(shared, Caps::NONE, limited), far)
}

fn fill(burst: &mut Burst, frames: &[Vec<u8>]) {
    burst.clear();
    for frame in frames {
        // SAFETY: the test keeps the frames alive until the burst is done with.
        let seg = unsafe { Seg::new(NonNull::from(&frame[0]), frame.len() as u32) };
        assert!(burst.push(VnetHdr::NONE, &[seg]));
    }
}

#[test]
fn a_tap_whose_file_nobody_watches_drops_by_name_and_holds_up_nobody() {
    for mut bench in Bench::all() {
        let (near, _far) = UnixDatagram::pair().unwrap();
        let mut tx = TapTx::new(Arc::new(Shared::new(near.into(), false)), Caps::NONE, false);
        let (counters, frames) = (PortCounters::default(), vec![plain(7, 100); 5]);
        let taken = bench.with(|turn, burst| {
            fill(burst, &frames);
            assert!(tx.room(turn, 32) >= frames.len());
            let taken = tx.tx(turn, burst, burst.all());
            tx.settle(turn, &counters);
            taken
        });
        assert_eq!((taken, counters.dropped(DropReason::NotConnected)), (5, 5));
    }
}

#[test]
fn a_full_receiver_gets_every_frame_once_and_in_order() {
    for limited in [false, true] {
        for mut bench in Bench::all() {
            let (mut tx, far) = socket_tx(&mut bench, limited);
            let counters = PortCounters::default();
            let mut bytes = [0; 256];
            let mut got = Vec::new();
            let frames: Vec<_> = (0..200u8).map(|mark| plain(mark, 100)).collect();
            let (mut from, mut saw_block) = (0, false);
            while got.len() < frames.len() {
                from += bench.with(|turn, burst| {
                    let room = tx.room(turn, 32).min(32).min(frames.len() - from);
                    saw_block |= room == 0;
                    fill(burst, &frames[from..from + room]);
                    let taken = if room > 0 { tx.tx(turn, burst, Mask::first(room)) } else { 0 };
                    turn.io.submit();
                    tx.settle(turn, &counters);
                    taken
                });
                if tx.blocked() || from == frames.len() {
                    // The receiver reads a little; the sender learns of it by its file.
                    for _ in 0..7 {
                        if let Ok(n) = nix::unistd::read(&far, &mut bytes) {
                            got.push(bytes[..n].to_vec());
                        }
                    }
                    bench.io.sleep(Some(1_000_000));
                    while bench.io.take_ready().is_some() {}
                }
            }
            assert!(saw_block, "the receiver never filled up");
            if limited {
                assert_eq!(got, frames, "{:?}", bench.io.mode());
            } else {
                got.sort();
                assert_eq!(got, frames, "{:?}", bench.io.mode());
            }
            assert_eq!((counters.tx.frames.get(), bench.pool.out()), (200, 0));
            assert!(DropReason::ALL.iter().all(|&r| counters.dropped(r) == 0));
        }
    }
}

#[test]
fn frames_beyond_the_scratch_go_at_once_and_behind_the_queued_ones() {
    use nix::fcntl::OFlag;
    for mut bench in Bench::all() {
        let (far, near) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let shared = Arc::new(Shared::new(near, false));
        shared.file.set(bench.io.register(shared.fd.as_fd(), None).ok());
        let mut tx = TapTx::new(shared, Caps::NONE, false);
        let frames: Vec<Vec<u8>> = (0..64u8).map(|mark| vec![mark; 14]).collect();
        let counters = PortCounters::default();
        let taken: usize = bench.with(|turn, burst| {
            fill(burst, &frames);
            let all = burst.all();
            let taken = (0..70).map(|_| tx.tx(turn, burst, all)).sum();
            turn.io.submit();
            tx.settle(turn, &counters);
            taken
        });
        let mut read = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = nix::unistd::read(&far, &mut bytes) {
            read.extend_from_slice(&bytes[..n]);
        }
        assert!(taken > 4096 && taken == read.len() / 14, "{taken}");
        assert_eq!(counters.tx.frames.get(), taken as u64);
        assert!(read.chunks(14).enumerate().all(|(i, f)| f == [(i % 64) as u8; 14]));
    }
}
