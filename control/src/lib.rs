//! The control side of netdevd: it decides and never touches a frame.
//!
//! ```text
//! qmp::session -> schema::validate -> commands -> model -> apply -> engine
//! ```
#![deny(unsafe_code)]

pub mod af_xdp;
pub mod announce;
pub mod apply;
pub mod bridge_helper;
pub mod chardev;
pub mod colo;
pub mod commands;
pub mod ctl;
pub mod daemon;
pub mod fds;
pub mod model;
pub mod nic;
pub mod observe;
pub mod options;
pub mod passt;
pub mod qmp;
pub mod reactor;
pub mod schema;
pub mod server;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod user;
pub mod vde;
pub mod vhost_net;
pub mod vhost_user;
pub mod vhost_vdpa;
