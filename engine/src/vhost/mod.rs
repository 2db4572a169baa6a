//! The vhost-user protocol. The back-end's side: a VMM describes its guest's memory and rings over a socket, and a device
//! of ours runs the rings. The front-end's side ([`Frontend`]): we describe rings of our own to somebody else's device.
//!
//! ```text
//!  socket -> Reader (bytes, files -> messages) -> Session (state, checks) -> Device (runs and stops rings)
//!     ^                                             |
//!     +------------------ Reply --------------------+
//! ```
//!
//! No socket and no thread is here: who owns the socket feeds what it read and sends what it is given, so nothing waits
//! and a VMM that stops in the midst of a message harms its own device only.
//!
//! A session holds a ring back until it is whole: features agreed on, size, addresses inside of guest memory, started and
//! enabled. Whatever changes something that a running ring uses stops it before and starts it again after. Whatever the
//! VMM gets wrong is a [`ProtocolError`]: it refuses that message if the VMM asked for an answer, and ends the session
//! otherwise, after its rings were stopped.
//!
//! Message numbers and layouts are those of the `vhost` crate; the source is QEMU's "Vhost-user Protocol" document.
//!
//! Left out: post-copy, and IOTLB messages (no `VIRTIO_F_IOMMU_PLATFORM`: a guest's own IOMMU in front of this device
//! would cost each address a lookup that may have to wait for the VMM). In-flight regions are
//! written as far as that says more than the rings do (`virtq/inflight.rs`): a packed ring goes on from there when its back-end was killed.

mod base;
mod device;
mod error;
mod frontend;
#[cfg(any(test, fuzzing))]
mod fuzz;
pub mod kernel;
mod marks;
mod message;
mod reader;
mod reply;
mod ring;
mod session;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;

pub use device::{Device, NetConfig};
pub use error::ProtocolError;
pub use frontend::{Frontend, Heard};
#[cfg(any(test, fuzzing))]
pub use fuzz::fuzz_session;
pub use message::{F_LOG_ALL, F_PROTOCOL_FEATURES, MAX_FDS, Message, PROTOCOL_FEATURES, config_changed};
pub use reader::Reader;
pub use reply::Reply;
pub use ring::RingPart;
pub use session::{Inflight, MAX_RINGS, Session};
