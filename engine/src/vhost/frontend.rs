//! The front-end's side: tells somebody else's device of our memory and rings.
//!
//! As a session, it knows no socket and never waits: answers in, requests out. One request is under way at a time, so
//! that a back-end which reads one message and answers it is never ahead or behind.
//!
//! ```text
//!  GET_FEATURES, protocol features, queue pairs -> Heard::Offer -> the owner makes memory and rings -> set_up
//!  SET_FEATURES, memory, each ring, enable      -> Heard::Ready
//! ```

use super::error::ProtocolError;
use super::message::{F_PROTOCOL_FEATURES, Message, answered, request};
use super::reply::Reply;
use super::session::MAX_RINGS;
use crate::mem::guest::Region;
use crate::virtq::{F_RING_PACKED, RingConfig};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::{BackendReq, FrontendReq as Kind, VhostUserConfig};

/// The protocol features that are used where they are offered.
const PROTOCOL: u64 =
    Protocol::MQ.bits() | Protocol::REPLY_ACK.bits() | Protocol::CONFIG.bits() | Protocol::BACKEND_REQ.bits();
/// What is read of the configuration space: MAC address and status.
const CONFIG: usize = 8;
/// Where its status lies, of which bit 0 says that the link is up (virtio 1.3, 5.1.4).
const STATUS: usize = 6;
/// `VIRTIO_NET_F_STATUS`: the configuration space tells of the link.
const F_STATUS: u64 = 1 << 16;
/// In the number that comes with a ring's file: there is none.
const NO_FILE: u64 = 0x100;

/// What came of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// What the back-end offers: call [`Frontend::set_up`], or hang up.
    Offer {
        /// Virtio features.
        features: u64,
        /// Queue pairs at most.
        pairs: u16,
    },
    /// The back-end has all rings and may run them.
    Ready,
    /// Whether the device's link is up; told before `Ready` and whenever it changes, by a back-end that has such a state.
    Link(bool),
}

/// A request that waits to be sent.
#[derive(Debug)]
struct Request {
    kind: Kind,
    payload: Vec<u8>,
    file: Option<Arc<OwnedFd>>,
    /// It has no answer of its own, and asks for one.
    acknowledged: bool,
}

/// One connection to a back-end.
#[derive(Debug)]
pub struct Frontend {
    waiting: VecDeque<Request>,
    /// The request whose answer is due.
    asked: Option<Kind>,
    /// Feature bits offered, vhost-user's own among them.
    offered: u64,
    /// Protocol features agreed on.
    protocol: u64,
    /// Rings have been described.
    set_up: bool,
    /// The device has a link state, which can be read.
    status: bool,
}

impl Default for Frontend {
    fn default() -> Self {
        Self::new()
    }
}

impl Frontend {
    /// A new connection, with its first question waiting.
    #[must_use]
    pub fn new() -> Self {
        let mut this = Self {
            waiting: VecDeque::new(),
            asked: None,
            offered: 0,
            protocol: 0,
            set_up: false,
            status: false,
        };
        this.ask(Kind::GET_FEATURES);
        this
    }

    /// The next request to be sent, if it is time for one.
    ///
    /// # Errors
    /// No descriptor was left for its file.
    pub fn request(&mut self) -> Result<Option<Reply>, ProtocolError> {
        if self.asked.is_some() {
            return Ok(None);
        }
        let Some(Request { kind, payload, file, acknowledged }) = self.waiting.pop_front() else {
            return Ok(None);
        };
        if acknowledged || answered(kind.into()) {
            self.asked = Some(kind);
        }
        let fd = file.map(|file| file.try_clone()).transpose();
        let fd = fd.map_err(|error| ProtocolError::NoFile(kind, error.to_string()))?;
        Ok(Some(Reply { bytes: request(kind, acknowledged, &payload), fd }))
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// It belongs to no question, has not its form, or says no: the connection is to be closed.
    pub fn answer(&mut self, message: &Message) -> Result<Option<Heard>, ProtocolError> {
        message.files(0)?;
        let kind = match self.asked.take() {
            Some(kind) if u32::from(kind) == message.request => kind,
            _ => return Err(ProtocolError::Unasked(message.request)),
        };
        if kind == Kind::GET_CONFIG {
            return Ok(Some(Heard::Link(link_up(message))));
        }
        let number = message.number()?;
        match kind {
            Kind::GET_FEATURES if self.set_up => return Ok(Some(Heard::Ready)),
            Kind::GET_FEATURES => {
                self.offered = number;
                if self.speaks_features() {
                    self.ask(Kind::GET_PROTOCOL_FEATURES);
                } else {
                    self.say(Kind::SET_OWNER, &[], None);
                    return Ok(Some(self.offer(1)));
                }
            }
            Kind::GET_PROTOCOL_FEATURES => {
                let agreed = number & PROTOCOL;
                self.say(Kind::SET_PROTOCOL_FEATURES, &agreed.to_ne_bytes(), None);
                self.say(Kind::SET_OWNER, &[], None);
                self.protocol = agreed;
                if !self.agreed(Protocol::MQ) {
                    return Ok(Some(self.offer(1)));
                }
                self.ask(Kind::GET_QUEUE_NUM);
            }
            Kind::GET_QUEUE_NUM => return Ok(Some(self.offer(number.min(MAX_RINGS as u64 / 2) as u16))),
            kind if number != 0 => return Err(ProtocolError::Refused(kind)),
            _ => {}
        }
        Ok(None)
    }

    /// The name of the request whose answer is due, or which could not be sent yet. While the handshake goes on there is one.
    #[must_use]
    pub fn due(&self) -> Option<String> {
        let kind = self.asked.or_else(|| self.waiting.front().map(|request| request.kind))?;
        Some(format!("{kind:?}"))
    }

    /// Takes what the back-end says by itself, on the channel that it was given. The answer, if it asks for one.
    pub fn wish(&mut self, message: &Message) -> Option<Reply> {
        let known = message.request == u32::from(BackendReq::CONFIG_CHANGE_MSG);
        // One question that waits will do, however often it is told.
        let waits = self.waiting.iter().any(|request| request.kind == Kind::GET_CONFIG);
        if known && self.status && !waits {
            self.read_config();
        }
        message.need_reply.then(|| Reply::number(message, u64::from(!known)))
    }

    /// Describes memory and rings, two a queue pair, which lie in it; `features` are the virtio features accepted. The answer to an
    /// offer. On the other end of `channel` the back-end says what it has to say by itself, see [`Frontend::wish`].
    pub fn set_up(
        &mut self,
        features: u64,
        region: &Region,
        file: OwnedFd,
        rings: &[RingConfig],
        channel: Option<OwnedFd>,
    ) {
        self.set_up = true;
        self.status = features & F_STATUS != 0 && self.agreed(Protocol::CONFIG);
        if let Some(channel) = channel.filter(|_| self.status && self.agreed(Protocol::BACKEND_REQ)) {
            self.say(Kind::SET_BACKEND_REQ_FD, &[], Some(&Arc::new(channel)));
        }
        let features = features | self.offered & F_PROTOCOL_FEATURES;
        self.say(Kind::SET_FEATURES, &features.to_ne_bytes(), None);
        let Region { guest, user, size, offset } = *region;
        let table = [&words(&[1, 0])[..], &longs(&[guest, size, user, offset])].concat();
        self.say(Kind::SET_MEM_TABLE, &table, Some(&Arc::new(file)));
        for (index, ring) in (0..).zip(rings) {
            self.describe(index, ring);
        }
        if self.speaks_features() {
            for (index, _) in (0..).zip(rings) {
                self.say(Kind::SET_VRING_ENABLE, &words(&[index, 1]), None);
            }
        }
        if self.status {
            self.read_config();
        }
        // Its answer says that all before was taken, also where nothing else is answered.
        self.ask(Kind::GET_FEATURES);
    }

    fn describe(&mut self, index: u32, ring: &RingConfig) {
        let packed = ring.features & F_RING_PACKED != 0;
        // A packed ring begins with both wrap counters set.
        let base = if packed { 0x8000 } else { 0 };
        let at = |part: NonNull<u8>| ring.memory.guest_of(part.as_ptr()).unwrap_or_default();
        let addresses = longs(&[at(ring.desc), at(ring.used), at(ring.avail), 0]);
        self.event(Kind::SET_VRING_CALL, index, ring.call.as_ref());
        self.say(Kind::SET_VRING_NUM, &words(&[index, ring.size.into()]), None);
        self.say(Kind::SET_VRING_BASE, &words(&[index, base]), None);
        self.say(Kind::SET_VRING_ADDR, &[words(&[index, 0]), addresses].concat(), None);
        self.event(Kind::SET_VRING_KICK, index, ring.kick.as_ref());
    }

    fn event(&mut self, kind: Kind, index: u32, file: Option<&Arc<OwnedFd>>) {
        let value = u64::from(index) | if file.is_none() { NO_FILE } else { 0 };
        self.say(kind, &value.to_ne_bytes(), file);
    }

    fn read_config(&mut self) {
        let payload = [words(&[0, CONFIG as u32, 0]), vec![0; CONFIG]].concat();
        let request = Request { kind: Kind::GET_CONFIG, payload, file: None, acknowledged: false };
        self.waiting.push_back(request);
    }

    fn offer(&self, pairs: u16) -> Heard {
        Heard::Offer { features: self.offered & !F_PROTOCOL_FEATURES, pairs }
    }

    const fn speaks_features(&self) -> bool {
        self.offered & F_PROTOCOL_FEATURES != 0
    }

    const fn agreed(&self, feature: Protocol) -> bool {
        self.protocol & feature.bits() != 0
    }

    fn ask(&mut self, kind: Kind) {
        self.waiting.push_back(Request { kind, payload: Vec::new(), file: None, acknowledged: false });
    }

    fn say(&mut self, kind: Kind, payload: &[u8], file: Option<&Arc<OwnedFd>>) {
        let acknowledged = self.agreed(Protocol::REPLY_ACK);
        self.waiting.push_back(Request {
            kind,
            payload: payload.to_vec(),
            file: file.cloned(),
            acknowledged,
        });
    }
}

/// The link state in an answer to GET_CONFIG; up where there is none.
fn link_up(message: &Message) -> bool {
    let config = message.payload.get(size_of::<VhostUserConfig>()..).unwrap_or_default();
    config.get(STATUS).is_none_or(|status| status & 1 != 0)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().copied().flat_map(u32::to_ne_bytes).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().copied().flat_map(u64::to_ne_bytes).collect()
}

#[cfg(test)]
mod tests;
