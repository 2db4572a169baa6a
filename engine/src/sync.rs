//! Atomics and mutex, exchanged for loom's under `--cfg loom`, and what is made of them alone.

pub mod sequence;

#[cfg(loom)]
pub use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

/// A value on cache lines of its own (two, as the prefetcher of current x86 fetches pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);
