//! Split rings (virtio 1.3, 2.7): a descriptor table, an available ring by the driver, a used ring by the device.

mod device;
mod driver;
mod layout;

pub use device::SplitDevice;
pub use driver::SplitDriver;
pub use layout::{avail_bytes, desc_bytes, used_bytes};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod foreign;
