//! Nics: virtio-net devices that guests drive over vhost-user sockets.
//!
//! ```text
//!  chardev (listens, accepts) -> Connection (bytes, files) -> engine::vhost::Session (protocol)
//!                                                                  |
//!                                           Plug (queue pairs <-> workers, by a commit each)
//!                                                                  |
//!                                           Control (the control queue, on this thread)
//! ```
//!
//! A nic exists without a guest: frames for it are then dropped as `not-connected`. A guest may leave and another come.
//! Nothing here waits for a VMM: a message that stopped half-way stays half-way.

mod connection;
mod control;
mod device;
mod features;
mod nics;
mod plug;
mod view;

pub(crate) use connection::{Connection, Read};
pub use device::{Happened, Made, Nic, NicState, Standing};
pub use features::{MOST_PAIRS, NicProperties};
pub use nics::Nics;
pub use view::{MODEL, RingView, complete, info, show_mac};
