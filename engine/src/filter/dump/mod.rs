//! `filter-dump`: writes the frames that pass to a pcap file, and lets them go on.
//!
//! ```text
//! worker: frames -> chunk --full--> ring of chunks --> writer thread --> file
//!                     ^------------- empty chunks <-------|
//! ```
//! A worker only copies into its chunk. When the writer is too slow or the disk is full, captured frames are lost and
//! counted; traffic never waits. Frames of several workers are in order per worker.

mod chunk;
mod instance;
pub mod pcap;
mod writer;

pub use writer::{DumpCounters, DumpFile};

/// Bytes of a chunk. Smaller ones cost a hand-over more often; larger ones only memory.
const CHUNK: usize = 256 * 1024;

/// Chunks that circulate for each worker: what the writer does not get away in their time is lost. At 5 million small frames a second they are
/// full after 40 ms, some turns of a scheduler. While the writer keeps up only the first few of them are used.
const CHUNKS: usize = 64;

/// Nanoseconds after which a chunk is handed over though it is not full, so that a reader sees the frames soon.
const LINGER: u64 = 20_000_000;

#[cfg(test)]
mod tests;
