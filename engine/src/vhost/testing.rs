//! The other two sides of a session: a front-end that makes messages, and a device that notes what it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // for tests
#![cfg_attr(not(test), allow(dead_code))] // the fuzzer needs a part

use super::{Device, Message, NetConfig, ProtocolError, Reply, Session};
use crate::mem::guest::Region;
use crate::virtq::{Position, RingConfig};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use vhost::vhost_user::message::FrontendReq;

/// What a device was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Features(u64),
    Start(usize, Position),
    Stop(usize),
    Mtu(u16),
    Mac([u8; 6]),
    Rarp([u8; 6]),
    Status(u8),
    Reset,
}

/// A device that runs nothing, and insists on being told in an order that makes sense.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) offers: u64,
    pub(crate) pairs: u16,
    pub(crate) running: BTreeMap<usize, RingConfig>,
    pub(crate) told: Vec<Told>,
    /// How far a ring gets before it is stopped.
    pub(crate) steps: u16,
    /// Rings that it cannot run.
    pub(crate) broken: Option<usize>,
}

impl Noted {
    pub(crate) fn new(offers: u64, pairs: u16) -> Self {
        Self { offers, pairs, running: BTreeMap::new(), told: Vec::new(), steps: 0, broken: None }
    }

    /// What was told since the last look.
    pub(crate) fn news(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }
}

impl Device for Noted {
    fn features(&self) -> u64 {
        self.offers
    }

    fn queues(&self) -> u16 {
        self.pairs
    }

    fn config(&self) -> NetConfig {
        NetConfig {
            mac: [2, 0, 0, 0, 0, 1],
            status: 1,
            max_virtqueue_pairs: self.pairs,
            mtu: 1500,
            ..NetConfig::default()
        }
    }

    fn set_features(&mut self, accepted: u64) {
        assert!(self.running.is_empty(), "features change under running rings");
        self.told.push(Told::Features(accepted));
    }

    fn start(&mut self, ring: usize, config: RingConfig) -> Result<(), String> {
        if self.broken == Some(ring) {
            return Err("no worker has room".into());
        }
        let inside = |at: std::ptr::NonNull<u8>| config.memory.guest_of(at.as_ptr()).is_some();
        assert!(inside(config.desc) && inside(config.avail) && inside(config.used));
        self.told.push(Told::Start(ring, config.position));
        assert!(self.running.insert(ring, config).is_none(), "ring {ring} started twice");
        Ok(())
    }

    fn stop(&mut self, ring: usize) -> Option<Position> {
        self.told.push(Told::Stop(ring));
        let config = self.running.remove(&ring).expect("a ring that runs");
        let step = |at: u16| at.wrapping_add(self.steps);
        let Position { avail, used, .. } = config.position;
        (self.steps > 0).then(|| Position { avail: step(avail), used: step(used), ..config.position })
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.told.push(Told::Mtu(mtu));
    }

    fn set_mac(&mut self, mac: [u8; 6]) {
        self.told.push(Told::Mac(mac));
    }

    fn send_rarp(&mut self, mac: [u8; 6]) {
        self.told.push(Told::Rarp(mac));
    }

    fn set_status(&mut self, status: u8) {
        self.told.push(Told::Status(status));
    }

    fn reset(&mut self) {
        assert!(self.running.is_empty(), "a reset under running rings");
        self.told.push(Told::Reset);
    }
}

/// A session with its device, and messages to it.
pub(crate) struct Bench {
    pub(crate) session: Session,
    pub(crate) device: Noted,
}

impl Bench {
    pub(crate) fn new(device: Noted) -> Self {
        Self { session: Session::new(&device), device }
    }

    pub(crate) fn raw(&mut self, message: Message) -> Result<Option<Reply>, ProtocolError> {
        self.session.handle(message, &mut self.device)
    }

    /// A message that asks for no answer; the payload of the one that it has of itself.
    pub(crate) fn say(
        &mut self,
        kind: FrontendReq,
        payload: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        let reply = self.raw(message(kind, payload, fds))?;
        Ok(reply.map(|reply| reply.bytes.get(12..).unwrap_or_default().to_vec()))
    }

    /// A message that is a number.
    pub(crate) fn number(&mut self, kind: FrontendReq, value: u64) -> Result<Option<Vec<u8>>, ProtocolError> {
        self.say(kind, &value.to_ne_bytes(), vec![])
    }

    /// A message about a ring.
    pub(crate) fn ring(
        &mut self,
        kind: FrontendReq,
        ring: u32,
        num: u32,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        self.say(kind, &words(&[ring, num]), vec![])
    }

    /// A question whose answer is a number.
    pub(crate) fn ask(&mut self, kind: FrontendReq) -> u64 {
        let answer = self.say(kind, &[], vec![]).unwrap().expect("an answer");
        u64::from_ne_bytes(answer.try_into().unwrap())
    }

    /// The same message, asking for an answer: 0 is yes.
    pub(crate) fn acknowledged(&mut self, kind: FrontendReq, payload: &[u8], fds: Vec<OwnedFd>) -> u64 {
        let reply = self.raw(Message { need_reply: true, ..message(kind, payload, fds) });
        let bytes = reply.unwrap().expect("an answer").bytes;
        u64::from_ne_bytes(bytes.get(12..).unwrap().try_into().unwrap())
    }
}

pub(crate) fn message(kind: FrontendReq, payload: &[u8], fds: Vec<OwnedFd>) -> Message {
    Message { request: kind.into(), need_reply: false, payload: payload.into(), fds }
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().copied().flat_map(u32::to_ne_bytes).collect()
}

pub(crate) fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().copied().flat_map(u64::to_ne_bytes).collect()
}

/// Memory to share, of a name that can be found again.
pub(crate) fn memory(name: &str, bytes: u64) -> OwnedFd {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&fd, bytes as i64).unwrap();
    fd
}

/// A memory table on the wire.
pub(crate) fn table(regions: &[Region]) -> Vec<u8> {
    let mut bytes = words(&[regions.len() as u32, 0]);
    bytes.extend(regions.iter().flat_map(entry));
    bytes
}

/// One region on the wire.
pub(crate) fn entry(region: &Region) -> Vec<u8> {
    longs(&[region.guest, region.size, region.user, region.offset])
}

/// SET_VRING_ADDR on the wire.
pub(crate) fn addresses(ring: u32, flags: u32, [desc, avail, used]: [u64; 3], log: u64) -> Vec<u8> {
    [words(&[ring, flags]), longs(&[desc, used, avail, log])].concat()
}
