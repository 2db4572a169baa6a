//! What a front-end can get wrong.

use super::message::MAX_FDS;
use super::ring::RingPart;
use crate::mem::guest::MemoryError;
use crate::mem::shared::SharedError;
use vhost::vhost_user::message::FrontendReq;

/// Why a message was refused or a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not a message of this protocol.
    #[error("message {request} has flags {flags:#x}: not what protocol version 1 has here")]
    Header {
        /// Number of the message.
        request: u32,
        /// Its flags.
        flags: u32,
    },
    /// Longer than any message.
    #[error("message {request} of {size} bytes is too long")]
    Long {
        /// Number of the message.
        request: u32,
        /// Bytes of payload announced.
        size: u32,
    },
    /// More files than any message brings.
    #[error("{0} files came with one message, at most {MAX_FDS} may")]
    ManyFiles(usize),
    /// A number that is no message.
    #[error("message {0} is unknown")]
    Unknown(u32),
    /// A message of a feature that is not offered here.
    #[error("{0:?} belongs to a feature that was not offered")]
    NotOffered(FrontendReq),
    /// A message of a protocol feature that was not agreed on.
    #[error("{0:?} came without its protocol feature")]
    NotAgreed(FrontendReq),
    /// Payload of a wrong size.
    #[error("{request:?} has {size} bytes, not {wanted}")]
    Size {
        /// The message.
        request: FrontendReq,
        /// Its bytes of payload.
        size: usize,
        /// Bytes that it should have.
        wanted: usize,
    },
    /// Files missing or too many.
    #[error("{request:?} came with {files} files, not {wanted}")]
    Files {
        /// The message.
        request: FrontendReq,
        /// Files that came with it.
        files: usize,
        /// Files that should have come.
        wanted: usize,
    },
    /// A ring's file that is no eventfd.
    #[error("{0:?} came with a file that is no eventfd")]
    NoEvent(FrontendReq),
    /// A value that the message cannot have.
    #[error("{request:?} of {value:#x} is not possible")]
    Value {
        /// The message.
        request: FrontendReq,
        /// The value.
        value: u64,
    },
    /// Feature bits that were not offered.
    #[error("features {0:#x} were accepted but never offered")]
    Features(u64),
    /// Protocol feature bits that were not offered.
    #[error("protocol features {0:#x} were accepted but never offered")]
    ProtocolFeatures(u64),
    /// A ring beyond the last.
    #[error("{request:?} names ring {ring}, there are {rings}")]
    NoRing {
        /// The message.
        request: FrontendReq,
        /// The ring named.
        ring: u64,
        /// Rings there are.
        rings: usize,
    },
    /// A size that no ring has.
    #[error(
        "ring {ring}: size {size} is not possible (split: a power of two up to 32768; packed: 1 to 32768)"
    )]
    RingSize {
        /// The ring.
        ring: usize,
        /// Entries.
        size: u32,
    },
    /// An address without the alignment that the ring's part needs.
    #[error("ring {ring}: {part} at {address:#x} is misaligned")]
    Misaligned {
        /// The ring.
        ring: usize,
        /// Its part.
        part: RingPart,
        /// Address in the VMM.
        address: u64,
    },
    /// Part of a ring is not in guest memory.
    #[error("ring {ring}: {part} of {len} bytes at {address:#x} lies outside of guest memory")]
    Outside {
        /// The ring.
        ring: usize,
        /// Its part.
        part: RingPart,
        /// Address in the VMM.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// A packed ring that was used, and the front-end does not know how far: its back-end was killed.
    #[error(
        "ring {ring} was in use, and nobody knows where it stands: it waits until the guest resets the device"
    )]
    InUse {
        /// The ring.
        ring: usize,
    },
    /// A position beyond the end of a packed ring.
    #[error("ring {ring}: base {base:#x} lies beyond its {size} entries")]
    Base {
        /// The ring.
        ring: usize,
        /// What SET_VRING_BASE said.
        base: u32,
        /// Entries.
        size: u16,
    },
    /// The memory table.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No memory at all, where there should be.
    #[error(
        "the VMM shares no guest memory; it needs memory that is shared, as with memory-backend-memfd,share=on"
    )]
    NoMemory,
    /// The dirty log.
    #[error("the dirty log {0}")]
    Log(SharedError),
    /// The in-flight region.
    #[error("the in-flight region {0}")]
    Inflight(String),
    /// The device could not run the ring.
    #[error("ring {ring} could not be started: {reason}")]
    Start {
        /// The ring.
        ring: usize,
        /// What the device said.
        reason: String,
    },
    /// A back-end's answer that belongs to no question.
    #[error("the back-end sent message {0}, which nobody asked for")]
    Unasked(u32),
    /// A back-end that said no.
    #[error("the back-end refused {0:?}")]
    Refused(FrontendReq),
    /// No descriptor was left for a message.
    #[error("no file to send with {0:?}: {1}")]
    NoFile(FrontendReq, String),
    /// A message after the end.
    #[error("the session has ended")]
    Ended,
}
