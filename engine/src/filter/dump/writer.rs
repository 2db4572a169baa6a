//! The file's side: a thread that writes chunks.

use super::instance::Instance;
use super::{CHUNK, CHUNKS, pcap};
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
    full: ArrayQueue<Vec<u8>>,
    empty: ArrayQueue<Vec<u8>>,
    writer: OnceLock<Thread>,
    captured: AtomicU64,
    lost: AtomicU64,
    /// The file took no more: nothing is recorded from then on.
    failed: AtomicBool,
    /// Instances alive.
    instances: AtomicUsize,
}

impl Shared {
    /// An empty chunk, unless all are under way or the file has failed.
    pub(super) fn empty(&self) -> Option<Vec<u8>> {
        if self.failed.load(Ordering::Relaxed) { None } else { self.empty.pop() }
    }

    /// Hands a chunk to the writer.
    pub(super) fn full(&self, chunk: Vec<u8>) {
        // As many places as chunks: this does not fail.
        let _ = self.full.push(chunk);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    pub(super) fn count(&self, captured: u64, lost: u64) {
        self.captured.fetch_add(captured, Ordering::Relaxed);
        if lost != 0 {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }

    pub(super) fn leave(&self) {
        self.instances.fetch_sub(1, Ordering::Release);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    fn write(&self, file: &mut File, mut chunk: Vec<u8>) {
        if !self.failed.load(Ordering::Relaxed)
            && let Err(_full_disk) = file.write_all(&chunk)
        {
            self.failed.store(true, Ordering::Relaxed);
            let lost = records(&chunk);
            self.captured.fetch_sub(lost, Ordering::Relaxed);
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        chunk.clear();
        let _ = self.empty.push(chunk);
    }
}

/// Records in a chunk.
fn records(chunk: &[u8]) -> u64 {
    let (mut at, mut n) = (0, 0);
    while let Some(kept) = chunk.get(at + 8..at + 12).and_then(|b| <[u8; 4]>::try_from(b).ok()) {
        at += pcap::RECORD_HEADER + u32::from_ne_bytes(kept) as usize;
        n += 1;
    }
    n
}

/// An open capture, held by control.
pub struct DumpFile {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl DumpFile {
    /// Creates (or truncates) `path`, writes the file header, and starts the writer. Frames are cut to `maxlen` bytes.
    /// `now` is the engine's time, in nanoseconds since it started. Returns the file and one instance for each of
    /// `workers` workers; the file is complete when the last of them has been dropped.
    ///
    /// # Errors
    /// Of the file or of the thread.
    pub fn open(
        path: &Path,
        maxlen: u32,
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
            empty: ArrayQueue::new(chunks),
            writer: OnceLock::new(),
            captured: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            instances: AtomicUsize::new(workers),
        });
        for _ in 0..chunks {
            let _ = shared.empty.push(Vec::with_capacity(CHUNK));
        }
        let theirs = shared.clone();
        let writer =
            thread::Builder::new().name("netdevd-dump".into()).spawn(move || run(&theirs, &mut file))?;
        let _ = shared.writer.set(writer.thread().clone());
        let instance = |_| Box::new(Instance::new(shared.clone())) as Box<dyn Filter>;
        let instances = (0..workers).map(instance).collect();
        Ok((Self { shared, writer: Mutex::new(Some(writer)) }, instances))
    }

    /// What was captured and lost so far.
    #[must_use]
    pub fn counters(&self) -> DumpCounters {
        DumpCounters {
            captured: self.shared.captured.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
        }
    }
}

impl Handle for DumpFile {
    fn counters(&self) -> Vec<(&'static str, u64)> {
        let DumpCounters { captured, lost } = self.counters();
        vec![("captured", captured), ("lost", lost)]
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
