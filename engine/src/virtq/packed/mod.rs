//! Packed rings (virtio 1.3, 2.8): one ring of descriptors, which the driver makes available and the device overwrites where it has used
//! them. Who wrote a descriptor last stands in two flags, whose meaning turns round each time a side passes the ring's end.

mod cursor;
mod device;
mod driver;
mod layout;

pub use device::PackedDevice;
pub use driver::PackedDriver;
pub use layout::{EVENT_BYTES, desc_bytes};

#[cfg(test)]
mod tests;
