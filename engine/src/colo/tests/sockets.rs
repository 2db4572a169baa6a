//! The thread, on socket pairs.

use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

struct Rig {
    compare: Compare,
    wake: Arc<OwnedFd>,
}

impl Rig {
    fn new() -> Self {
        let wake: Arc<OwnedFd> = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap().into());
        let settings = Arc::new(Settings::default());
        Self { compare: Compare::start(settings, false, wake.clone()).unwrap(), wake }
    }

    /// Our end of a new connection.
    fn connect(&self, role: Role) -> UnixStream {
        let (ours, its) = UnixStream::pair().unwrap();
        its.set_nonblocking(true).unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        self.compare.connect(role, its.into());
        ours
    }

    fn count(&self, name: &str) -> u64 {
        self.compare.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// Waits until the thread tells control something.
    fn told(&self) {
        let mut fds = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(20_000u16)), Ok(1), "nothing was told");
        nix::unistd::read(&*self.wake, &mut [0; 8]).unwrap();
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

fn take(stream: &mut UnixStream) -> Vec<u8> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn frames_of_both_sides_meet_however_they_are_cut() {
    let rig = Rig::new();
    let [mut primary, mut secondary, mut out, mut notify] = Role::ALL.map(|role| rig.connect(role));
    let frame = udp(1, 0, b"data");
    for byte in framed(&frame) {
        primary.write_all(&[byte]).unwrap();
    }
    secondary.write_all(&framed(&frame)).unwrap();
    assert_eq!(take(&mut out), frame);
    primary.write_all(&framed(&udp(1, 0, b"this"))).unwrap();
    secondary.write_all(&framed(&udp(1, 0, b"that"))).unwrap();
    assert_eq!(take(&mut notify), b"DO_CHECKPOINT");
    notify.write_all(&framed(b"COLO_CHECKPOINT")).unwrap();
    assert_eq!(take(&mut out), udp(1, 0, b"this"));
}

#[test]
fn an_end_within_a_frame_is_told_and_the_next_connection_begins_anew() {
    let rig = Rig::new();
    let (mut primary, mut out) = (rig.connect(Role::Primary), rig.connect(Role::Out));
    primary.write_all(&[0, 0, 1]).unwrap();
    drop(primary);
    rig.told();
    assert_eq!(rig.compare.take_ended(), [Role::Primary]);
    assert_eq!(rig.count("truncated"), 1);
    let arp = eth(0x806, &[1; 28]);
    rig.connect(Role::Primary).write_all(&framed(&arp)).unwrap();
    assert_eq!(take(&mut out), arp);
}

#[test]
fn an_oversized_frame_detaches_its_reader_for_good() {
    let rig = Rig::new();
    let (mut primary, mut secondary) = (rig.connect(Role::Primary), rig.connect(Role::Secondary));
    primary.write_all(&[0xff; 64]).unwrap();
    rig.told();
    assert!(rig.compare.is_detached(Role::Primary) && !rig.compare.is_detached(Role::Secondary));
    assert_eq!(rig.count("oversized"), 1);
    drop(primary);
    rig.told();
    let mut primary = rig.connect(Role::Primary);
    primary.write_all(&framed(&eth(0x806, &[1; 28]))).unwrap();
    drop(primary);
    rig.told();
    // The other side is read on.
    secondary.write_all(&framed(&udp(1, 0, b"x"))).unwrap();
    drop(secondary);
    rig.told();
    assert_eq!((rig.count("primary"), rig.count("secondary")), (0, 1));
}

#[test]
fn an_outdev_that_is_not_read_loses_frames_by_name_and_holds_up_nobody() {
    let rig = Rig::new();
    let (mut primary, _out, mut notify) =
        (rig.connect(Role::Primary), rig.connect(Role::Out), rig.connect(Role::Notify));
    let frame = framed(&eth(0x806, &vec![1; 60_000]));
    for _ in 0..200 {
        primary.write_all(&frame).unwrap();
    }
    notify.write_all(&framed(b"COLO_USERSPACE_PROXY_INIT")).unwrap();
    assert_eq!(take(&mut notify), b"COLO_COMPARE_GET_XEN_INIT");
    drop(primary);
    rig.told();
    assert!(rig.count("outdev-full") > 0);
}

#[test]
fn without_outdev_frames_are_lost_by_name() {
    let rig = Rig::new();
    let mut primary = rig.connect(Role::Primary);
    primary.write_all(&framed(&eth(0x806, &[1; 28]))).unwrap();
    drop(primary);
    rig.told();
    assert_eq!(rig.count("outdev-gone"), 1);
}

#[test]
fn the_end_lets_go_of_what_is_held() {
    let rig = Rig::new();
    let (mut primary, mut out) = (rig.connect(Role::Primary), rig.connect(Role::Out));
    primary.write_all(&framed(&udp(1, 0, b"held"))).unwrap();
    // An answer says that all before it has been read.
    primary.write_all(&framed(&eth(0x806, &[1; 28]))).unwrap();
    take(&mut out);
    rig.compare.finish();
    assert_eq!(take(&mut out), udp(1, 0, b"held"));
    assert_eq!(out.read(&mut [0]).unwrap(), 0, "closed");
}
