//! Opening ports: the slow path, off the workers. Order of steps and texts are QEMU's (net/netmap.c, net/netmap_user.h `nm_open`).

use super::abi::{self, Header, OldRequest, PortHeader, Register};
use super::driver::{Body, Driver, System, Way};
use super::name::{Port, fill};
use super::options::NetmapOptions;
use super::region::{Region, Regions};
use super::ring::{self, Flaw, Ring};
use super::rx::NetmapRx;
use super::tx::NetmapTx;
use super::{Registered, Shared};
use crate::backend::errno::text;
use crate::backend::pair::QueuePair;
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Queues of a port at most.
const QUEUES: u16 = 1024;

/// Bytes of the virtio-net header that we ask for, and of the one with a number of buffers.
const SHORT: u32 = VnetHdr::LEN as u32;
const LONG: u32 = 12;

/// Why a port could not be opened. What it displays is what QMP shows.
#[derive(Debug, thiserror::Error)]
pub enum NetmapError {
    /// The device, the name, the port or its memory.
    #[error("Failed to nm_open() {ifname}: {}", text(*.errno))]
    Open {
        /// The port's name as the user gave it.
        ifname: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// What the kernel shares makes no sense.
    #[error("netmap port {ifname} cannot be used: {flaw}")]
    Unusable {
        /// The port's name as the user gave it.
        ifname: String,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// An open netdev.
pub struct Opened {
    /// Its queues, in order.
    pub queues: Vec<QueuePair>,
    /// Bytes of the virtio-net header in front of its frames.
    pub header: usize,
}

enum Failure {
    Kernel(Errno),
    Flaw(Flaw),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<Flaw> for Failure {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

/// Opens a port.
///
/// # Errors
/// [`NetmapError`]; everything opened so far is closed again.
pub fn open(options: &NetmapOptions, regions: &Regions) -> Result<Opened, NetmapError> {
    open_by(&(Arc::new(System) as Arc<dyn Driver>), options, regions)
}

/// As [`open()`], by a kernel module of one's own.
pub(super) fn open_by(
    driver: &Arc<dyn Driver>,
    options: &NetmapOptions,
    regions: &Regions,
) -> Result<Opened, NetmapError> {
    let ifname = options.ifname.clone();
    match (Opening { driver, options, regions }).open() {
        Ok(opened) => Ok(opened),
        Err(Failure::Kernel(errno)) => Err(NetmapError::Open { ifname, errno }),
        Err(Failure::Flaw(flaw)) => Err(NetmapError::Unusable { ifname, flaw }),
    }
}

/// Asks in each version of the API that there is, until one is understood.
fn ask(
    driver: &dyn Driver,
    fd: BorrowedFd<'_>,
    name: &str,
    reqtype: u16,
    mut body: Body<'_>,
) -> Result<(), Errno> {
    let name = fill(name).ok_or(Errno::ENAMETOOLONG)?;
    let mut answer = Err(Errno::EINVAL);
    for version in abi::APIS {
        let mut header = Header { version, reqtype, reserved: 0, name, options: 0, body: 0 };
        answer = driver.control(fd, &mut header, &mut body);
        // Of another version, or really wrong.
        if answer != Err(Errno::EINVAL) {
            break;
        }
    }
    answer
}

/// Registers a port with a file.
pub(super) fn register(
    driver: &dyn Driver,
    fd: BorrowedFd<'_>,
    name: &str,
    body: &mut Register,
) -> Result<(), Errno> {
    ask(driver, fd, name, abi::REQ_REGISTER, Body::Register(body))
}

struct Opening<'a> {
    driver: &'a Arc<dyn Driver>,
    options: &'a NetmapOptions,
    regions: &'a Regions,
}

/// A file with a port, and what the kernel said of it.
struct Bound {
    fd: OwnedFd,
    port: Port,
    reply: Register,
}

impl Opening<'_> {
    fn open(&self) -> Result<Opened, Failure> {
        let first = self.device()?;
        let port = Port::parse(&self.options.ifname).ok_or(Errno::EINVAL)?;
        let bound = self.bind(first, port)?;
        let (mut queues, mut header, mut restore) = (Vec::new(), 0, None);
        let mut region = None;
        for Bound { fd, port, reply } in bound {
            if queues.is_empty() && port.is_vale() {
                (header, restore) = self.header(&fd, &port);
            }
            let region = match &region {
                Some(region) => region,
                None => region.insert(self.region(&fd, &reply)?),
            };
            let restore = restore.clone();
            let driver = self.driver.clone();
            let shared = Shared { _restore: restore, fd, driver, file: Registered::new(), header };
            queues.push(pair(Arc::new(shared), region, &reply, &port)?);
        }
        Ok(Opened { queues, header })
    }

    fn device(&self) -> Result<OwnedFd, Errno> {
        self.driver.open(&self.options.device)
    }

    fn region(&self, fd: &OwnedFd, reply: &Register) -> Result<Arc<Region>, Errno> {
        self.regions.of(&**self.driver, &self.options.device, fd.as_fd(), reply)
    }

    fn attach(&self, fd: OwnedFd, port: Port) -> Result<Bound, Errno> {
        let (port, reply) = attach(&**self.driver, fd.as_fd(), port)?;
        Ok(Bound { fd, port, reply })
    }

    /// Registers the port: a NIC by a file for each ring pair, where it has as many rings one way as the other.
    fn bind(&self, first: OwnedFd, port: Port) -> Result<Vec<Bound>, Errno> {
        if !port.can_split() {
            return Ok(vec![self.attach(first, port)?]);
        }
        let one = |ring| Port { mode: abi::REG_ONE_NIC, ring, ..port.clone() };
        let first = self.attach(first, one(0))?;
        let (rings, others) = (first.reply.tx_rings, first.reply.rx_rings);
        if rings != others || rings == 0 || rings > QUEUES {
            drop(first);
            return Ok(vec![self.attach(self.device()?, port)?]);
        }
        let mut bound = vec![first];
        for ring in 1..rings {
            bound.push(self.attach(self.device()?, one(ring))?);
        }
        Ok(bound)
    }

    /// Puts a virtio-net header in front of a VALE port's frames: bytes that it has, and how to undo it.
    fn header(&self, fd: &OwnedFd, port: &Port) -> (usize, Option<Arc<Restore>>) {
        let Ok(fd) = fd.try_clone() else { return (0, None) };
        let restore =
            Restore { fd, driver: self.driver.clone(), name: port.name.clone(), was: 0, set: false };
        restore.begin()
    }
}

/// The length of a port's header as it was before. A port that outlives us gets it back: others would be refused.
pub(super) struct Restore {
    fd: OwnedFd,
    driver: Arc<dyn Driver>,
    name: String,
    was: u32,
    set: bool,
}

impl Restore {
    /// Sets ours; without one there are no large frames.
    fn begin(mut self) -> (usize, Option<Arc<Self>>) {
        self.was = self.get().unwrap_or(0);
        self.set = self.was != SHORT && self.set(SHORT).is_ok();
        match (self.set, self.was) {
            (true, _) => (SHORT as usize, Some(Arc::new(self))),
            (false, was @ (SHORT | LONG)) => (was as usize, None),
            _ => (0, None),
        }
    }

    fn get(&self) -> Result<u32, Errno> {
        let mut body = PortHeader::default();
        let fd = self.fd.as_fd();
        let asked = ask(&*self.driver, fd, &self.name, abi::REQ_PORT_HDR_GET, Body::PortHeader(&mut body));
        if asked != Err(Errno::ENOTTY) {
            return asked.map(|()| body.len);
        }
        self.old(abi::OLD_VNET_HDR_GET, 0)
    }

    fn set(&self, len: u32) -> Result<(), Errno> {
        let mut body = PortHeader { len, pad: 0 };
        let fd = self.fd.as_fd();
        let asked = ask(&*self.driver, fd, &self.name, abi::REQ_PORT_HDR_SET, Body::PortHeader(&mut body));
        if asked != Err(Errno::ENOTTY) {
            return asked;
        }
        self.old(abi::OLD_VNET_HDR, len as u16).map(drop)
    }

    fn old(&self, cmd: u16, arg1: u16) -> Result<u32, Errno> {
        let name = fill(&self.name).ok_or(Errno::ENAMETOOLONG)?;
        let version = u32::from(abi::APIS[0]);
        let mut request = OldRequest { name, version, cmd, arg1, ..OldRequest::default() };
        self.driver.old(self.fd.as_fd(), &mut request)?;
        Ok(u32::from(request.arg1))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if self.set {
            let _ = self.set(self.was);
        }
    }
}

/// Registers a port with a file, by the old request where the module knows no other.
fn attach(driver: &dyn Driver, fd: BorrowedFd<'_>, port: Port) -> Result<(Port, Register), Errno> {
    let mut reply = port.register();
    match register(driver, fd, &port.name, &mut reply) {
        Ok(()) => return Ok((port, reply)),
        Err(Errno::EINVAL | Errno::ENOTTY) => {}
        Err(errno) => return Err(errno),
    }
    let mut old = port.old().ok_or(Errno::EINVAL)?;
    driver.old(fd, &mut old)?;
    let reply = Register {
        offset: old.offset.into(),
        memsize: old.memsize.into(),
        tx_slots: old.tx_slots,
        rx_slots: old.rx_slots,
        tx_rings: old.tx_rings,
        rx_rings: old.rx_rings,
        mem_id: old.arg2,
        ..port.register()
    };
    Ok((port, reply))
}

/// The rings that a file has, as numbers: those of the host come behind those of the NIC.
fn numbers(port: &Port, own: u32, host: u32) -> std::ops::Range<u32> {
    let ring = u32::from(port.ring);
    match port.mode {
        abi::REG_SW => own..own.saturating_add(host),
        abi::REG_ONE_SW => own.saturating_add(ring)..own.saturating_add(ring + 1),
        abi::REG_NIC_SW => 0..own.saturating_add(host),
        abi::REG_ONE_NIC => ring..ring + 1,
        _ => 0..own,
    }
}

/// The two halves of a file's rings.
fn pair(shared: Arc<Shared>, region: &Arc<Region>, reply: &Register, port: &Port) -> Result<QueuePair, Flaw> {
    let interface = ring::interface(region, reply.offset)?;
    let find = |way, number| Ring::find(region, reply.offset, &interface, way, number);
    let mut receive = Vec::new();
    for number in numbers(port, interface.rx_rings, interface.host_rx_rings).take(QUEUES.into()) {
        receive.extend(find(Way::Rx, number)?);
    }
    // One ring, as QEMU has it: a flow that changed rings would be reordered.
    let mut transmit = None;
    for number in numbers(port, interface.tx_rings, interface.host_tx_rings).take(1) {
        transmit = find(Way::Tx, number)?;
    }
    if receive.is_empty() && transmit.is_none() {
        return Err(Flaw::NoRing);
    }
    let fd = shared.fd.as_raw_fd();
    let rx = Box::new(NetmapRx::new(shared.clone(), receive));
    let tx = Box::new(NetmapTx::new(shared, transmit));
    Ok(QueuePair { rx, tx, fd })
}
