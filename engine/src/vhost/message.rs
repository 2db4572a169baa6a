//! The wire format: what a message is made of.

use super::error::ProtocolError;
use std::os::fd::OwnedFd;
use vhost::vhost_user::message::{
    BackendReq, FrontendReq, VhostUserMsgValidator, VhostUserProtocolFeatures as Protocol,
};
use vhost::vhost_user::{VhostUserVirtioFeatures, message};

/// Bytes of a header: request, flags, size of the payload; 32 bits each, in the machine's order.
pub(super) const HEADER: usize = 12;
/// Bytes of payload at most.
pub(super) const MAX_PAYLOAD: usize = message::MAX_MSG_SIZE;
/// Files that one message brings at most: a memory table with eight regions (`VHOST_MEMORY_BASELINE_NREGIONS`).
pub const MAX_FDS: usize = 8;

/// The version that flags name.
const VERSION: u32 = 1;
const VERSION_BITS: u32 = 0b11;
const REPLY: u32 = 0b100;
const NEED_REPLY: u32 = 0b1000;

/// Feature bit: the vhost-user protocol features are spoken of (it takes a bit that virtio leaves free).
pub const F_PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
/// Feature bit: writes to guest memory are logged now.
pub const F_LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();

/// The protocol features that a session offers.
pub const PROTOCOL_FEATURES: u64 = Protocol::MQ.bits()
    | Protocol::LOG_SHMFD.bits()
    | Protocol::RARP.bits()
    | Protocol::REPLY_ACK.bits()
    | Protocol::MTU.bits()
    | Protocol::BACKEND_REQ.bits()
    | Protocol::CONFIG.bits()
    | Protocol::INFLIGHT_SHMFD.bits()
    | Protocol::RESET_DEVICE.bits()
    | Protocol::CONFIGURE_MEM_SLOTS.bits()
    | Protocol::STATUS.bits();

/// A message of the front-end's, whole. Its files close with it.
#[derive(Debug)]
pub struct Message {
    /// Its number, which may be none that is known.
    pub request: u32,
    /// Whether an answer is asked for, whatever the message is.
    pub need_reply: bool,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

/// A header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) request: u32,
    pub(super) need_reply: bool,
    pub(super) size: usize,
}

/// Whose messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sender {
    /// A front-end's requests.
    #[default]
    FrontEnd,
    /// A back-end's answers.
    BackEnd,
}

impl Header {
    /// Reads one.
    pub(super) fn parse(bytes: [u8; HEADER], from: Sender) -> Result<Self, ProtocolError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        let request = u32::from_ne_bytes([a, b, c, d]);
        let flags = u32::from_ne_bytes([e, f, g, h]);
        let size = u32::from_ne_bytes([i, j, k, l]);
        let kind = if from == Sender::BackEnd { VERSION | REPLY } else { VERSION };
        if flags & !NEED_REPLY != kind {
            return Err(ProtocolError::Header { request, flags });
        }
        if size as usize > MAX_PAYLOAD {
            return Err(ProtocolError::Long { request, size });
        }
        Ok(Self { request, need_reply: flags & NEED_REPLY != 0, size: size as usize })
    }
}

/// Whether a message has an answer of its own, so that none can say no.
pub(super) fn answered(request: u32) -> bool {
    type Kind = FrontendReq;
    matches!(
        Kind::try_from(request),
        Ok(Kind::GET_FEATURES
            | Kind::GET_PROTOCOL_FEATURES
            | Kind::GET_QUEUE_NUM
            | Kind::GET_STATUS
            | Kind::GET_MAX_MEM_SLOTS
            | Kind::SET_LOG_BASE
            | Kind::GET_VRING_BASE
            | Kind::GET_CONFIG
            | Kind::GET_INFLIGHT_FD)
    )
}

/// Header and payload of an answer.
pub(super) fn answer(request: u32, payload: &[u8]) -> Vec<u8> {
    bytes_of(request, VERSION | REPLY, payload)
}

/// Header and payload of a request to a back-end.
pub(super) fn request(request: FrontendReq, need_reply: bool, payload: &[u8]) -> Vec<u8> {
    let flags = if need_reply { VERSION | NEED_REPLY } else { VERSION };
    bytes_of(request.into(), flags, payload)
}

/// What tells the front-end, on the channel for requests of the back-end's, that the configuration space changed. No
/// answer is asked for.
#[must_use]
pub fn config_changed() -> Vec<u8> {
    bytes_of(BackendReq::CONFIG_CHANGE_MSG.into(), VERSION, &[])
}

fn bytes_of(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let words = [request, flags & (VERSION_BITS | REPLY | NEED_REPLY), payload.len() as u32];
    words.into_iter().flat_map(u32::to_ne_bytes).chain(payload.iter().copied()).collect()
}

impl Message {
    /// What it asks for.
    pub(super) fn kind(&self) -> Result<FrontendReq, ProtocolError> {
        FrontendReq::try_from(self.request).map_err(|()| ProtocolError::Unknown(self.request))
    }

    /// The payload as one of the protocol's structures, which it must have the size of.
    pub(super) fn body<T: VhostUserMsgValidator + Default>(&self) -> Result<T, ProtocolError> {
        self.sized(size_of::<T>())?;
        Ok(structure(&self.payload))
    }

    /// The payload as a number.
    pub(super) fn number(&self) -> Result<u64, ProtocolError> {
        self.sized(8)?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.payload);
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Nothing follows the header.
    pub(super) fn empty(&self) -> Result<(), ProtocolError> {
        self.sized(0)
    }

    /// The payload has `wanted` bytes.
    pub(super) fn sized(&self, wanted: usize) -> Result<(), ProtocolError> {
        if self.payload.len() == wanted {
            return Ok(());
        }
        Err(ProtocolError::Size { request: self.kind()?, size: self.payload.len(), wanted })
    }

    /// Exactly `wanted` files came with it.
    pub(super) fn files(&self, wanted: usize) -> Result<(), ProtocolError> {
        if self.fds.len() == wanted {
            return Ok(());
        }
        Err(ProtocolError::Files { request: self.kind()?, files: self.fds.len(), wanted })
    }

    /// The one file that came with it.
    pub(super) fn file(&mut self) -> Result<OwnedFd, ProtocolError> {
        self.files(1)?;
        let error = ProtocolError::Files { request: self.kind()?, files: 0, wanted: 1 };
        self.fds.pop().ok_or(error)
    }

    /// A value that it cannot have.
    pub(super) fn bad_value(&self, value: u64) -> ProtocolError {
        self.kind().map_or_else(|error| error, |request| ProtocolError::Value { request, value })
    }
}

/// The first bytes as one of the protocol's structures; what is missing reads as zero.
pub(super) fn structure<T: VhostUserMsgValidator + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    for (to, from) in value.as_mut_slice().iter_mut().zip(bytes) {
        *to = *from;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(request: u32, flags: u32, size: u32) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        for (to, from) in bytes.chunks_mut(4).zip([request, flags, size]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn a_header_is_a_request_of_version_1_and_of_bounded_size() {
        let parsed = Header::parse(header(1, 1, 4096), Sender::FrontEnd).unwrap();
        assert_eq!(parsed, Header { request: 1, need_reply: false, size: 4096 });
        assert!(Header::parse(header(1, 9, 0), Sender::FrontEnd).unwrap().need_reply);
        for flags in [0, 2, 3, 5, 0x11, 0x8000_0001] {
            let error = Header::parse(header(7, flags, 0), Sender::FrontEnd).unwrap_err();
            assert_eq!(error, ProtocolError::Header { request: 7, flags });
        }
        let error = Header::parse(header(5, 1, 4097), Sender::FrontEnd).unwrap_err();
        assert_eq!(error, ProtocolError::Long { request: 5, size: 4097 });
    }

    #[test]
    fn an_answer_is_taken_from_a_back_end_only() {
        assert!(Header::parse(header(1, 5, 8), Sender::BackEnd).is_ok());
        assert!(Header::parse(header(1, 1, 8), Sender::BackEnd).is_err());
    }

    #[test]
    fn an_answer_is_marked_as_one() {
        assert_eq!(answer(15, &[1, 2]), [&header(15, 5, 2)[..], &[1, 2]].concat());
        assert_eq!(config_changed(), header(2, 1, 0));
    }
}
