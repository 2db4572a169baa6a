//! The file's side: a thread that writes chunks.

use super::chunk::Chunk;
use super::instance::{Counts, Instance};
use super::{CHUNKS, pcap};
use crate::filter::bpf::{Program, Selection, selection};
use crate::filter::{Filter, Handle};
use crossbeam::queue::ArrayQueue;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a capture counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DumpCounters {
    /// Frames that passed.
    pub seen: u64,
    /// Frames handed to the writer.
    pub captured: u64,
    /// Frames lost because the writer was too slow or the file took no more.
    pub lost: u64,
}

/// What workers and writer share.
pub(super) struct Shared {
    pub(super) snaplen: u32,
    /// Nanoseconds since 1970 at the engine's start.
    pub(super) epoch: u64,
    full: ArrayQueue<Chunk>,
    /// Chunks on their way back, by instance.
    empty: Box<[ArrayQueue<Chunk>]>,
    counts: Box<[Arc<Counts>]>,
    writer: OnceLock<Thread>,
    /// Records that the file did not take, after they had counted as captured.
    refused: AtomicU64,
    /// The file took no more: nothing is recorded from then on.
    failed: AtomicBool,
    /// Instances alive.
    instances: AtomicUsize,
}

impl Shared {
    /// Takes what has come back to an instance.
    pub(super) fn take_back(&self, index: usize, into: &mut Vec<Chunk>) {
        let Some(empty) = self.empty.get(index) else { return };
        while into.len() < into.capacity()
            && let Some(chunk) = empty.pop()
        {
            into.push(chunk);
        }
    }

    /// Whether the file took no more.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Hands a chunk to the writer.
    pub(super) fn full(&self, chunk: Chunk) {
        // As many places as chunks: this does not fail.
        let _ = self.full.push(chunk);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    pub(super) fn leave(&self) {
        self.instances.fetch_sub(1, Ordering::Release);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    fn write(&self, file: &mut File, mut chunk: Chunk) {
        let refused = self.failed() || file.write_all(chunk.filled()).is_err();
        if refused {
            self.failed.store(true, Ordering::Relaxed);
            self.refused.fetch_add(chunk.records, Ordering::Relaxed);
        }
        chunk.clear();
        if let Some(empty) = self.empty.get(chunk.owner) {
            let _ = empty.push(chunk);
        }
    }
}

/// An open capture, held by control.
pub struct DumpFile {
    shared: Arc<Shared>,
    selection: Selection,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl DumpFile {
    /// Creates (or truncates) `path`, writes the file header, and starts the writer. Frames that `program` matches, all without one, are cut
    /// to `maxlen` bytes.
    /// `now` is the engine's time, in nanoseconds since it started. Returns the file and one instance for each of
    /// `workers` workers; the file is complete when the last of them has been dropped.
    ///
    /// # Errors
    /// Of the file or of the thread.
    pub fn open(
        path: &Path,
        maxlen: u32,
        program: Option<Program>,
        now: u64,
        workers: usize,
    ) -> io::Result<(Self, Vec<Box<dyn Filter>>)> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
        file.write_all(&pcap::file_header(maxlen))?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let chunks = CHUNKS * workers.max(1);
        let shared = Arc::new(Shared {
            snaplen: maxlen,
            epoch: wall.saturating_sub(now),
            full: ArrayQueue::new(chunks),
            empty: (0..workers).map(|_| ArrayQueue::new(CHUNKS)).collect(),
            counts: (0..workers).map(|_| Arc::default()).collect(),
            writer: OnceLock::new(),
            refused: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            instances: AtomicUsize::new(workers),
        });
        for (owner, empty) in shared.empty.iter().enumerate() {
            // The last one is used last, and the first ones only while the writer is behind.
            while empty.push(Chunk::new(owner)).is_ok() && !empty.is_full() {}
        }
        let theirs = shared.clone();
        let writer =
            thread::Builder::new().name("netdevd-dump".into()).spawn(move || run(&theirs, &mut file))?;
        let _ = shared.writer.set(writer.thread().clone());
        let (selection, matchers) = selection(program, workers);
        let instance = |(index, (matcher, counts)): (usize, (_, &Arc<Counts>))| {
            Box::new(Instance::new(shared.clone(), index, matcher, counts.clone())) as Box<dyn Filter>
        };
        let instances = matchers.into_iter().zip(&shared.counts).enumerate().map(instance).collect();
        Ok((Self { shared, selection, writer: Mutex::new(Some(writer)) }, instances))
    }

    /// What was captured and lost so far.
    #[must_use]
    pub fn counters(&self) -> DumpCounters {
        let sum = |of: fn(&Counts) -> u64| self.shared.counts.iter().map(|counts| of(counts)).sum::<u64>();
        // Read first: a record is refused after it was captured.
        let refused = self.shared.refused.load(Ordering::Relaxed);
        DumpCounters {
            seen: sum(|counts| counts.seen.get()),
            captured: sum(|counts| counts.captured.get()).saturating_sub(refused),
            lost: sum(|counts| counts.lost.get()) + refused,
        }
    }
}

impl Handle for DumpFile {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let DumpCounters { seen, captured, lost } = self.counters();
        vec![("seen", seen), ("matched", captured + lost), ("captured", captured), ("lost", lost)]
    }

    fn select(&self, program: Option<Program>) {
        self.selection.set(program);
    }

    /// Waits until everything is in the file. A writer that hangs in a slow file ends by itself later.
    fn finish(&self, bound: Duration) {
        let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let end = std::time::Instant::now() + bound;
        while !writer.is_finished() && std::time::Instant::now() < end {
            thread::yield_now();
        }
        if writer.is_finished() {
            let _ = writer.join();
        }
    }
}

/// Writes chunks until the last instance has gone.
fn run(shared: &Shared, file: &mut File) {
    loop {
        // Read before the last look at the ring: an instance leaves after its last chunk.
        let last = shared.instances.load(Ordering::Acquire) == 0;
        while let Some(chunk) = shared.full.pop() {
            shared.write(file, chunk);
        }
        if last {
            return;
        }
        thread::park_timeout(Duration::from_secs(1));
    }
}
