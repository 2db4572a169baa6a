//! Whose bytes: the arena (hugepages or ordinary memory) and the pools of frame buffers cut from it.
//!
//! ```text
//!  Arena  = regions (64 MiB at first, grown by 32 MiB): mapped, populated, locked
//!    Part = a run of a region: a worker's pool, a file's receive buffers, a ring
//!      Pool = one worker's frame buffers in two sizes, free lists in LIFO order
//! ```
//!
//! Only control maps, takes and gives back parts; workers see pools.

pub mod arena;
pub mod map;
pub mod pool;
