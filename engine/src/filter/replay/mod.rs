//! `filter-replay` with a file, which QEMU does not have: puts the frames of a pcap file in.
//!
//! ```text
//!  file --> replay thread --records--> worker of the netdev's first queue: puts them in at the filter's place
//! ```
//! Frames go as those of a redirector's `indev`: with `queue=rx` to the netdev, with `tx` from it, with `all` both. They keep the distances in
//! which they were recorded, or go as fast as they are taken; what was held up goes as soon as it may. Off, the file is read no further. Frames
//! that pass the netdev anyway are let pass.

mod file;
mod pace;
mod thread;

use super::channel::{Feed, Flow};
use super::mirror::Instance;
use super::{Filter, Handle, Settings};
use crate::mem::arena::Arena;
use crate::uring::Waker;
use file::Format;
pub use file::NoPcap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use thread::{Counts, Run};

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No such file, or none that may be read.
    #[error("can't open it: {0}")]
    Open(#[source] io::Error),
    /// A directory.
    #[error("it is a directory")]
    Directory,
    /// What may keep its reader waiting, and is no file of a known length.
    #[error("it is no regular file")]
    Irregular,
    /// Opened, but not read.
    #[error("can't read it: {0}")]
    Read(#[source] io::Error),
    /// Not what can be replayed.
    #[error(transparent)]
    NoPcap(#[from] NoPcap),
    /// No memory, no descriptor, no thread.
    #[error("no means to replay it: {0}")]
    Means(#[source] io::Error),
}

/// A replay, held by control.
#[derive(Debug)]
pub struct Replay {
    settings: Arc<Settings>,
    flow: Arc<Flow>,
    counts: Arc<Counts>,
}

impl Replay {
    /// Begins to replay the file, with an instance for each of `workers` workers. Worker `home`, which `waker` wakes, puts the frames in; `paced`:
    /// in the distances in which they were recorded.
    ///
    /// # Errors
    /// There is no such file, it is no pcap file of Ethernet frames, or a means is missing.
    pub fn open(
        path: &Path,
        paced: bool,
        settings: Settings,
        arena: &Arc<Arena>,
        (workers, home): (usize, usize),
        waker: Option<Arc<Waker>>,
    ) -> Result<(Self, Vec<Box<dyn Filter>>), ReplayError> {
        let (file, format) = begin(path)?;
        let settings = Arc::new(settings);
        let (feed, inlet, running) = Feed::new(arena, waker).map_err(ReplayError::Means)?;
        let counts = Arc::new(Counts::default());
        let this = Self { settings: settings.clone(), flow: feed.flow().clone(), counts: counts.clone() };
        let run = Run::new(file, format, paced, feed, settings.clone(), counts);
        let body = move || {
            run.run();
            drop(running);
        };
        std::thread::Builder::new().name("netdevd-replay".into()).spawn(body).map_err(ReplayError::Means)?;
        let mut inlet = Some(inlet);
        let instance = |worker| {
            let inlet = if worker == home { inlet.take() } else { None };
            Box::new(Instance::injecting(settings.clone(), inlet)) as Box<dyn Filter>
        };
        Ok((this, (0..workers).map(instance).collect()))
    }
}

/// Opens a file and reads its header.
fn begin(path: &Path) -> Result<(File, Format), ReplayError> {
    // A pipe without a writer would keep us waiting.
    let flags = (nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY).bits();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(ReplayError::Open)?;
    let kind = file.metadata().map_err(ReplayError::Open)?.file_type();
    if kind.is_dir() {
        return Err(ReplayError::Directory);
    }
    if !kind.is_file() {
        return Err(ReplayError::Irregular);
    }
    let mut header = Vec::new();
    file.by_ref().take(file::HEADER as u64).read_to_end(&mut header).map_err(ReplayError::Read)?;
    Ok((file, Format::read(&header)?))
}

impl Handle for Replay {
    fn set(&self, on: bool, rx: bool, tx: bool) {
        self.settings.switch(on, rx, tx);
        self.flow.link.wake();
    }

    fn held(&self) -> u64 {
        self.flow.held()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counts { replayed, cut, empty, too_long, truncated, unread, ended } = &*self.counts;
        let all = [
            ("replayed", replayed),
            ("cut", cut),
            ("empty", empty),
            ("too-long", too_long),
            ("truncated", truncated),
            ("read-error", unread),
            ("ended", ended),
        ];
        all.map(|(name, count)| (name, count.load(Ordering::Relaxed))).into()
    }

    fn finish(&self, bound: Duration) {
        self.flow.link.close();
        let _ = self.flow.link.wait(bound);
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.flow.link.close();
    }
}

#[cfg(test)]
mod tests;
