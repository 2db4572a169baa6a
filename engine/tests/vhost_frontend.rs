//! The front-end of the `vhost` crate drives a session over a socket.

use engine::vhost::{Device, NetConfig, Reader, Reply, Session};
use engine::virtq::{Position, RingConfig};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

const VERSION_1: u64 = 1 << 32;
const LOG_ALL: u64 = 1 << 26;
const PROTOCOL: u64 = 1 << 30;
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
const BYTES: u64 = 0x1_0000;

/// A device that notes which rings it runs.
#[derive(Default)]
struct Noted {
    running: Vec<usize>,
    told: Vec<String>,
}

impl Device for Noted {
    fn features(&self) -> u64 {
        VERSION_1
    }

    fn queues(&self) -> u16 {
        2
    }

    fn config(&self) -> NetConfig {
        NetConfig { mac: [2, 0, 0, 0, 0, 9], mtu: 1500, ..NetConfig::default() }
    }

    fn set_features(&mut self, accepted: u64) {
        self.told.push(format!("features {accepted:#x}"));
    }

    fn start(&mut self, ring: usize, config: RingConfig) -> Result<(), String> {
        self.told.push(format!("start {ring} at {}", config.position.avail));
        if config.memory.logs() {
            config.memory.mark(GUEST + 0x2000, 1);
        }
        self.running.push(ring);
        Ok(())
    }

    fn stop(&mut self, ring: usize) -> Option<Position> {
        self.told.push(format!("stop {ring}"));
        self.running.retain(|other| *other != ring);
        None
    }

    fn set_mtu(&mut self, _: u16) {}
    fn set_mac(&mut self, mac: [u8; 6]) {
        self.told.push(format!("mac {mac:x?}"));
    }
    fn send_rarp(&mut self, _: [u8; 6]) {}
    fn set_status(&mut self, _: u8) {}
    fn reset(&mut self) {
        self.told.push("reset".into());
    }
}

/// One read of at most `room` bytes, with its files. None at the end of the stream.
fn read(socket: &UnixStream, room: usize) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; room];
    let mut control = cmsg_space!([RawFd; 8]);
    loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(message) => {
                let count = message.bytes;
                let files = message.cmsgs().unwrap().flat_map(|part| match part {
                    ControlMessageOwned::ScmRights(files) => files,
                    _ => vec![],
                });
                // SAFETY: the kernel has just made these files for us, and nobody else knows them.
                let files = files.map(|file| unsafe { OwnedFd::from_raw_fd(file) }).collect();
                bytes.truncate(count);
                return (count > 0).then_some((bytes, files));
            }
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
            }
            Err(Errno::ECONNRESET) => return None,
            Err(errno) => panic!("recvmsg: {errno}"),
        }
    }
}

fn send(socket: &UnixStream, Reply { bytes, fd }: &Reply) {
    let files: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let control: &[ControlMessage<'_>] =
        if files.is_empty() { &[] } else { &[ControlMessage::ScmRights(&files)] };
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::empty(), None);
    assert_eq!(sent, Ok(bytes.len()));
}

/// Serves one connection as the owner of a session does, in reads of at most `most` bytes. Returns what the device was
/// told, and why the session ended (nothing when the front-end went).
fn serve(socket: UnixStream, most: usize) -> JoinHandle<(Noted, Option<String>)> {
    spawn(move || {
        let mut device = Noted::default();
        let (mut session, mut reader) = (Session::new(&device), Reader::new());
        let mut reason = None;
        'connected: while let Some((bytes, files)) = read(&socket, reader.want().min(most)) {
            reader.feed(&bytes, files);
            while let Some(message) = reader.next() {
                match message.and_then(|message| session.handle(message, &mut device)) {
                    Ok(reply) => reply.iter().for_each(|reply| send(&socket, reply)),
                    Err(error) => {
                        reason = Some(error.to_string());
                        break 'connected;
                    }
                }
            }
        }
        session.end(&mut device);
        (device, reason)
    })
}

fn memory(bytes: u64) -> OwnedFd {
    let fd = memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&fd, bytes as i64).unwrap();
    fd
}

fn region(fd: &OwnedFd, nth: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: GUEST + nth * BYTES,
        memory_size: BYTES,
        userspace_addr: USER + nth * BYTES,
        mmap_offset: 0,
        mmap_handle: fd.as_raw_fd(),
    }
}

fn addresses(ring: u64, log: Option<u64>) -> VringConfigData {
    let desc = USER + ring * 0x4000;
    VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: u32::from(log.is_some()),
        desc_table_addr: desc,
        avail_ring_addr: desc + 0x1000,
        used_ring_addr: desc + 0x2000,
        log_addr: log,
    }
}

/// Agrees on everything, and sets two rings going.
fn connect(most: usize, guest: &OwnedFd) -> (Frontend, JoinHandle<(Noted, Option<String>)>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let served = serve(theirs, most);
    let mut front = Frontend::from_stream(ours, 2);
    assert_eq!(front.get_features().unwrap(), VERSION_1 | LOG_ALL | PROTOCOL);
    front.set_features(VERSION_1 | PROTOCOL).unwrap();
    let offered = front.get_protocol_features().unwrap();
    assert!(
        offered.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS | VhostUserProtocolFeatures::STATUS)
    );
    assert!(!offered.contains(VhostUserProtocolFeatures::PAGEFAULT));
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    front.set_protocol_features(offered).unwrap();
    assert_eq!(front.get_queue_num().unwrap(), 2);
    front.set_owner().unwrap();
    front.set_mem_table(&[region(guest, 0)]).unwrap();
    for ring in 0..2 {
        front.set_vring_num(ring, 256).unwrap();
        front.set_vring_base(ring, 0).unwrap();
        front.set_vring_addr(ring, &addresses(ring as u64, None)).unwrap();
        front.set_vring_call(ring, &EventFd::new(0).unwrap()).unwrap();
        front.set_vring_err(ring, &EventFd::new(0).unwrap()).unwrap();
        front.set_vring_kick(ring, &EventFd::new(0).unwrap()).unwrap();
        front.set_vring_enable(ring, true).unwrap();
    }
    (front, served)
}

#[test]
fn rings_start_and_stop_as_the_front_end_says() {
    for most in [1, 7, usize::MAX] {
        let guest = memory(BYTES);
        // The used index of ring 1: 0x105 buffers were used before.
        nix::sys::uio::pwrite(&guest, &[5, 1], 0x6002).unwrap();
        let (front, served) = connect(most, &guest);
        assert_eq!(front.get_vring_base(0).unwrap(), 0);
        assert_eq!(front.get_vring_base(1).unwrap(), 0x105);
        drop(front);
        let (device, reason) = served.join().unwrap();
        assert_eq!((device.running, reason), (vec![], None));
        assert_eq!(
            device.told,
            ["features 0x100000000", "start 0 at 0", "start 1 at 261", "stop 0", "stop 1"]
        );
    }
}

#[test]
fn memory_slots_configuration_and_in_flight_regions_are_exchanged() {
    let (guest, more) = (memory(BYTES), memory(BYTES));
    let (mut front, served) = connect(usize::MAX, &guest);
    assert_eq!(front.get_max_mem_slots().unwrap(), 509);
    front.add_mem_region(&region(&more, 1)).unwrap();
    assert!(front.add_mem_region(&region(&more, 1)).is_err(), "twice");
    front.remove_mem_region(&region(&more, 1)).unwrap();
    assert!(front.remove_mem_region(&region(&more, 1)).is_err(), "twice");
    let (_, space) = front.get_config(0, 12, VhostUserConfigFlags::empty(), &[0; 12]).unwrap();
    assert_eq!(space, [2, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0xdc, 5]);
    front.set_config(0, VhostUserConfigFlags::empty(), &[2, 1, 1, 1, 1, 1]).unwrap();
    front.set_backend_request_fd(&EventFd::new(0).unwrap()).unwrap();
    let (inflight, file) = front.get_inflight_fd(&VhostUserInflight::new(0, 0, 2, 256)).unwrap();
    assert!(inflight.mmap_size >= 2 * (16 + 256 * 16));
    front.set_inflight_fd(&inflight, file.as_raw_fd()).unwrap();
    front.reset_device().unwrap();
    drop(front);
    let (device, reason) = served.join().unwrap();
    assert_eq!((device.running, reason), (vec![], None));
    assert_eq!(device.told.last().unwrap(), "reset");
    assert!(device.told.contains(&"mac [2, 1, 1, 1, 1, 1]".into()));
}

#[test]
fn a_migration_logs_what_rings_write() {
    let (guest, log) = (memory(BYTES), memory(0x1_0000));
    let (front, served) = connect(usize::MAX, &guest);
    let region =
        VhostUserDirtyLogRegion { mmap_size: 0x1_0000, mmap_offset: 0, mmap_handle: log.as_raw_fd() };
    front.set_log_base(0, Some(region)).unwrap();
    front.set_features(VERSION_1 | LOG_ALL | PROTOCOL).unwrap();
    front.set_vring_addr(0, &addresses(0, Some(GUEST + 0x2000))).unwrap();
    let mut byte = [0];
    nix::sys::uio::pread(&log, &mut byte, (GUEST / 4096 / 8) as i64).unwrap();
    assert_eq!(byte, [0b100]);
    drop(front);
    assert_eq!(served.join().unwrap().1, None);
}

#[test]
fn a_front_end_that_asks_for_no_answers_loses_its_connection_when_it_errs() {
    let guest = memory(BYTES);
    let (front, served) = connect(usize::MAX, &guest);
    front.set_hdr_flags(VhostUserHeaderFlag::empty());
    front.set_vring_num(1, 300).unwrap();
    let (device, reason) = served.join().unwrap();
    let expected = "ring 1: size 300 is not possible (split: a power of two up to 32768; packed: 1 to 32768)";
    assert_eq!(reason.as_deref(), Some(expected));
    assert_eq!(device.told[device.told.len() - 2..], ["stop 1", "stop 0"].map(str::to_owned));
}
