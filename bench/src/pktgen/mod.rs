//! A light guest and traffic generator: the driver's side of vhost-user sockets, taps, packet sockets, datagrams and streams, with as little work a frame as
//! possible, so that what is measured is the other side. It is the load of `scripts/compare`, for us and for the peers alike.
//!
//! An [`End`] is where frames go in and come out. A [`slice::Slice`] is one measurement over all ends: as fast as the rings take
//! frames (closed loop), or at a rate by the clock (open loop). `payload::Payload` says what each frame carries: nothing,
//! the time, or a number and a pattern that the receiver checks.

mod end;
mod frame;
mod guest;
mod packet;
mod payload;
mod queue;
mod ring;
mod serve;
mod slice;
mod stations;
mod stream;
mod tap;
mod vde;
mod xdp;

pub use end::{End, Place};
pub use frame::{Kind, Shape};
pub use packet::Path;
pub use serve::serve;
pub use slice::{Report, Role, Slice, run};
pub use stations::{Stations, To};

/// Frames taken from, or given to, an end in one go.
const BURST: usize = 64;
