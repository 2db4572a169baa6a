//! A virtual machine on netdevd's nics: QEMU 10.0 without KVM boots the image of `scripts/guest-image`, with shared memory
//! and a vhost-user netdev for each nic.
//!
//! Commands for the guest go through a virtio serial port and are answered there, so that a test waits for what happens
//! and never for a time. A machine is killed when it is dropped.

mod boot;
mod vm;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use boot::{Boot, Socket};
pub use vm::Machine;

/// Longest time for a boot, a command or a migration; emulation on a busy machine may be twenty times slower than alone.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Passes over memory before a guest stops at one machine and goes on at another.
const PASSES: u64 = 6;

/// Holds off the other tests with machines of this program: each of them needs all cores.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed has left nothing behind.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where `scripts/guest-image` put the image, or what `NETDEVD_GUEST` names: a directory with `vmlinux` and `initramfs`.
///
/// # Errors
/// Why there is none.
pub fn image() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("NETDEVD_GUEST") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let found = own.ancestors().map(|above| above.join("guest/current")).find(|path| path.is_dir());
    found.ok_or_else(|| "needs an image of a guest (run scripts/guest-image)".into())
}
