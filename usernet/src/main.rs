//! `netdevd-user`: the network of a `user` netdev. The daemon starts it with two sockets (`protocol.rs` tells of them), and it ends with them.

#![cfg_attr(not(feature = "slirp"), allow(dead_code))]

#[cfg(feature = "slirp")]
mod accepted;
#[cfg(feature = "slirp")]
mod address;
#[cfg(feature = "slirp")]
mod ahead;
#[cfg(feature = "slirp")]
mod connections;
mod control;
mod fds;
#[cfg(feature = "slirp")]
mod ffi;
#[cfg(feature = "slirp")]
mod flows;
#[cfg(feature = "slirp")]
mod inbox;
#[cfg(feature = "slirp")]
mod message;
#[cfg(feature = "slirp")]
mod network;
#[cfg(feature = "slirp")]
mod outbox;
#[cfg(feature = "slirp")]
mod poll;
#[cfg(feature = "slirp")]
mod resolver;
#[cfg(feature = "slirp")]
mod sandbox;
#[cfg(feature = "slirp")]
mod segment;
#[cfg(feature = "slirp")]
mod services;
#[cfg(feature = "slirp")]
mod split;
#[cfg(feature = "slirp")]
mod stack;
#[cfg(feature = "slirp")]
mod turn;
#[cfg(feature = "slirp")]
mod windows;
#[cfg(feature = "slirp")]
mod wire;

use control::{Came, Control};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::process::ExitCode;
use usernet::protocol::{Answer, CONTROL, FRAMES, Failure, Request};

/// Whether a descriptor is a socket of the kind that the daemon makes.
fn is_ours(number: i32) -> bool {
    getsockopt(&fds::borrowed(number), sockopt::SockType) == Ok(SockType::SeqPacket)
}

fn main() -> ExitCode {
    if !is_ours(FRAMES) || !is_ours(CONTROL) {
        eprintln!("netdevd-user is started by netdevd for a user netdev; it is of no use by itself");
        return ExitCode::from(2);
    }
    let mut control = Control::new(CONTROL);
    let failed = |text: String| Answer::Failed(Failure { text, errno: None });
    let answer = match control.receive(true) {
        Came::End | Came::Nothing => return ExitCode::SUCCESS,
        Came::Request(Request::Start(network), files) => return start(control, &network, files),
        Came::Request(..) => failed("the network has not been started".into()),
        Came::Nonsense(why) => failed(format!("no request: {why}")),
    };
    let _ = control.answer(answer);
    ExitCode::FAILURE
}

#[cfg(feature = "slirp")]
use turn::start;

/// Without libslirp there is no network.
#[cfg(not(feature = "slirp"))]
fn start(mut control: Control, _: &usernet::protocol::Network, _: Vec<std::os::fd::OwnedFd>) -> ExitCode {
    let text = "netdevd-user was built without libslirp".into();
    let _ = control.answer(Answer::Failed(Failure { text, errno: None }));
    ExitCode::FAILURE
}
