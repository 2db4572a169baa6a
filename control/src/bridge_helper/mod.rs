//! `netdevd-bridge-helper`: gives whoever may use a bridge a tap on it, for systems without QEMU's helper (same command line, same list of
//! who may do what, `qemu-bridge-helper.c`).
//!
//! It is meant to be installed set-user-ID root, or with the capability `CAP_NET_ADMIN`. Of all rights it keeps that capability alone, before
//! it reads the list: so a file of the list that its caller may not read does not speak for him.

mod acl;
mod kernel;

pub use acl::{Acl, AclError};

use engine::backend::tap::{TapError, create};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// The list of who may do what.
const ACL: &str = "/etc/qemu/bridge.conf";

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Words that it does not know, or too few.
    #[error("Usage: netdevd-bridge-helper [--use-vnet] --br=bridge --fd=unixfd")]
    Usage,
    /// Rights that it cannot give up.
    #[error("failed to drop privileges: {}", .0.desc())]
    Privileges(Errno),
    /// The list is missing or makes no sense.
    #[error("failed to parse default acl file `{ACL}': {0}")]
    Acl(#[from] AclError),
    /// The list says no, or does not say yes.
    #[error("access denied by acl file")]
    Denied,
    /// No tap.
    #[error("failed to create tun device: {0}")]
    Tap(#[from] TapError),
    /// The kernel refused a step on the way to the bridge.
    #[error("failed to {step} `{name}': {}", .errno.desc())]
    Step {
        /// What was tried.
        step: &'static str,
        /// With which interface.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The caller does not take it.
    #[error("failed to write fd to unix socket: {}", .0.desc())]
    Send(Errno),
}

/// What it is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    vnet_hdr: bool,
    bridge: &'a str,
    socket: RawFd,
}

impl<'a> Request<'a> {
    fn parse(words: &'a [String]) -> Result<Self, HelperError> {
        let (mut vnet_hdr, mut bridge, mut socket) = (false, None, None);
        for word in words {
            if word == "--use-vnet" {
                vnet_hdr = true;
            } else if let Some(name) = word.strip_prefix("--br=") {
                bridge = Some(name);
            } else if let Some(number) = word.strip_prefix("--fd=") {
                socket = number.parse().ok().filter(|number| *number >= 0);
            } else {
                return Err(HelperError::Usage);
            }
        }
        let (bridge, socket) = bridge.zip(socket).ok_or(HelperError::Usage)?;
        Ok(Self { vnet_hdr, bridge, socket })
    }
}

/// Does what the words ask for, if the caller may have it.
///
/// # Errors
/// [`HelperError`]; the tap is gone then.
pub fn run(words: &[String]) -> Result<(), HelperError> {
    kernel::drop_privileges().map_err(HelperError::Privileges)?;
    let Request { vnet_hdr, bridge, socket } = Request::parse(words)?;
    if !Acl::read(Path::new(ACL))?.allows(bridge) {
        return Err(HelperError::Denied);
    }
    let links = kernel::Links::new().map_err(|errno| step("open a control socket for", bridge, errno))?;
    let mtu = links.mtu(bridge).map_err(|errno| step("get mtu of bridge", bridge, errno))?;
    let (tap, name) = create(vnet_hdr)?;
    links.set_mtu(&name, mtu).map_err(|errno| step("set mtu of device", &name, errno))?;
    // A bridge has the lowest address of its ports: a high one does not change it.
    links.raise_address(&name).map_err(|errno| step("set MAC address of device", &name, errno))?;
    links.join(bridge, &name).map_err(|errno| step("add an interface to bridge", bridge, errno))?;
    links.up(&name).map_err(|errno| step("bring up interface", &name, errno))?;
    let rights = [tap.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(socket, &[IoSlice::new(&[0])], &message, MsgFlags::empty(), None)
        .map(drop)
        .map_err(HelperError::Send)
}

fn step(step: &'static str, name: &str, errno: Errno) -> HelperError {
    HelperError::Step { step, name: name.to_owned(), errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_words_are_those_of_qemus_helper() {
        let line = words("--use-vnet --fd=7 --br=br0");
        assert_eq!(Request::parse(&line).unwrap(), Request { vnet_hdr: true, bridge: "br0", socket: 7 });
        assert!(!Request::parse(&words("--br=b --fd=0")).unwrap().vnet_hdr);
        for line in ["", "--br=b", "--fd=3", "--br=b --fd=x", "--br=b --fd=-1", "--br=b --fd=3 -v", "br0"] {
            assert!(matches!(Request::parse(&words(line)), Err(HelperError::Usage)), "{line}");
        }
    }
}
