//! What the user may say of a vDPA device, as plain values.

use std::os::fd::OwnedFd;

/// Options of one device.
#[derive(Debug)]
pub struct VdpaOptions {
    /// Its node, or the open file.
    pub device: Result<String, OwnedFd>,
    /// `x-svq`: QEMU puts rings of its own between guest and device then. Here they always are; what it asks of the device stays.
    pub shadow: bool,
}
