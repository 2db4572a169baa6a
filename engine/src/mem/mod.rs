//! Whose bytes: the arena (hugepages or ordinary memory), the pools of frame buffers cut from it, and guests' memory.
//!
//! ```text
//!  Arena  = regions (64 MiB at first, grown by 32 MiB): mapped, populated, locked
//!    Part = a run of a region: a worker's pool, a file's receive buffers, a ring
//!      Pool = one worker's frame buffers in two sizes, free lists in LIFO order
//!  GuestMemory = what a guest's VMM shares: a table of mapped files, immutable, and its dirty log
//! ```
//!
//! Only control maps, takes and gives back parts; workers see pools and tables.

pub mod arena;
pub mod chunks;
pub mod dirty;
pub mod guest;
pub mod map;
pub mod pool;
pub mod records;
pub mod shared;
mod sigbus;
