//! A light guest: the driver's side of vhost-user sockets, as little work a frame as possible, so that what is measured is the
//! other side. It is the load of `scripts/compare vhost`, for us and for the peers alike.

mod guest;
mod run;

pub use guest::{Guest, Shape};
pub use run::{Report, Run, run};
