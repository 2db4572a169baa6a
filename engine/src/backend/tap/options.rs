//! What the user may say of a tap, as plain values with QEMU's defaults (qapi/net.json `NetdevTapOptions`).

use super::helper::Helper;
use std::os::fd::{OwnedFd, RawFd};

/// Bytes of an interface name at most (IFNAMSIZ without the final zero); QEMU cuts longer ones.
pub(super) const MAX_IFNAME: usize = 15;

/// A file descriptor that came from the user.
#[derive(Debug)]
pub struct GivenFd {
    /// The file.
    pub fd: OwnedFd,
    /// Its number as messages show it.
    pub number: RawFd,
}

/// Options of one tap. Either it is opened by name, or descriptors are given; control has checked the exclusions.
#[derive(Debug, Default)]
pub struct TapOptions {
    /// Name of the interface, may be a pattern such as `tap%d`; the kernel picks `tap%d` when absent or empty.
    pub ifname: Option<String>,
    /// Open tap descriptors, one a queue (`fd=`, `fds=`). Empty: open by name.
    pub fds: Vec<GivenFd>,
    /// Who opens it and passes it over, before it can be opened by [`super::open()`] as a given one (`helper=`).
    pub helper: Option<Helper>,
    /// Whether frames carry a virtio-net header: `None` tries, true insists, false does without.
    pub vnet_hdr: Option<bool>,
    /// Bytes that may wait in the receiver before writes are refused. `None` and 0: no limit (INT_MAX).
    pub sndbuf: Option<u64>,
    /// Queue pairs; 0 is taken as 1.
    pub queues: u32,
    /// Path of the script to run after opening; see [`TapOptions::script_path`].
    pub script: Option<String>,
    /// The kernel's vhost-net moves the frames.
    pub vhost: Option<VhostOptions>,
    /// Path of the script to run before closing; see [`TapOptions::downscript_path`].
    pub downscript: Option<String>,
}

/// vhost-net for a tap (`vhost=on`).
#[derive(Debug, Default)]
pub struct VhostOptions {
    /// Open `/dev/vhost-net`, one a queue (`vhostfd=`, `vhostfds=`). Empty: opened here.
    pub fds: Vec<OwnedFd>,
    /// Microseconds that the kernel looks busily for more (`poll-us=`).
    pub busy: u32,
}

impl TapOptions {
    /// The script that sets the interface up, `None` when there is none to run.
    #[must_use]
    pub fn script_path(&self) -> Option<&str> {
        script(self.script.as_deref().unwrap_or("/etc/qemu-ifup"))
    }

    /// The script that takes the interface down, `None` when there is none to run.
    #[must_use]
    pub fn downscript_path(&self) -> Option<&str> {
        script(self.downscript.as_deref().unwrap_or("/etc/qemu-ifdown"))
    }

    /// The name to ask the kernel for: at most 15 bytes.
    pub(super) fn wanted_name(&self) -> &[u8] {
        let name = self.ifname.as_deref().unwrap_or_default().as_bytes();
        name.get(..MAX_IFNAME).unwrap_or(name)
    }

    /// The limit that TUNSETSNDBUF sets.
    pub(super) fn send_limit(&self) -> i32 {
        match self.sndbuf {
            None | Some(0) => i32::MAX,
            Some(n) => i32::try_from(n).unwrap_or(i32::MAX),
        }
    }
}

/// `no` and the empty path mean no script.
fn script(path: &str) -> Option<&str> {
    (!path.is_empty() && path != "no").then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_default_to_qemus_and_no_or_empty_means_none() {
        let mut options = TapOptions::default();
        assert_eq!(options.script_path(), Some("/etc/qemu-ifup"));
        assert_eq!(options.downscript_path(), Some("/etc/qemu-ifdown"));
        options.script = Some("no".into());
        options.downscript = Some(String::new());
        assert_eq!((options.script_path(), options.downscript_path()), (None, None));
    }

    #[test]
    fn names_are_cut_and_limits_clamped_as_qemu_does() {
        let options = TapOptions {
            ifname: Some("averyveryverylongname".into()),
            sndbuf: Some(u64::MAX),
            ..TapOptions::default()
        };
        assert_eq!(options.wanted_name(), b"averyveryverylo");
        assert_eq!(options.send_limit(), i32::MAX);
        assert_eq!(TapOptions { sndbuf: Some(0), ..TapOptions::default() }.send_limit(), i32::MAX);
        assert_eq!(TapOptions { sndbuf: Some(1 << 20), ..TapOptions::default() }.send_limit(), 1 << 20);
    }
}
