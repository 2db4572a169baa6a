//! What control asks of the backends: to open, to run scripts. Everything here may block and runs off its thread.

use crate::qmp::error::QmpError;
use engine::filter::Filter;
use engine::filter::dump::DumpFile;
use engine::port::{RxQueue, TxQueue};
use std::os::fd::{OwnedFd, RawFd};

/// A tap to be opened; its options have been checked against each other.
#[derive(Debug)]
pub struct TapRequest {
    /// The netdev's id, for messages.
    pub id: String,
    /// Open files, one a queue, instead of an interface by name.
    pub fds: Vec<OwnedFd>,
    /// The interface; the kernel picks a name without it.
    pub ifname: Option<String>,
    /// Program that configures the interface, run before the netdev is ready.
    pub script: Option<String>,
    /// Bound of the kernel's send buffer; a failure to set it matters only if it was given.
    pub sndbuf: Option<u64>,
    /// Frames carry a virtio-net header: wanted, unwanted, or where the kernel can.
    pub vnet_hdr: Option<bool>,
    /// Number of queues to open by name.
    pub queues: u32,
}

/// A queue's two halves and the file behind them (-1 for none).
pub struct Pair {
    /// Receiving half.
    pub rx: Box<dyn RxQueue>,
    /// Transmitting half.
    pub tx: Box<dyn TxQueue>,
    /// The file, for messages.
    pub fd: RawFd,
}

/// An open backend.
pub struct Opened {
    /// Its queues, in order; at least one.
    pub queues: Vec<Pair>,
    /// The interface's name, where there is one.
    pub ifname: Option<String>,
    /// Whether somebody is at the other end.
    pub connected: bool,
    /// The script that is owed when this goes.
    pub down: Option<DownScript>,
}

impl Opened {
    /// Notes the script that is owed when this goes, if there is an interface to tell it of.
    #[must_use]
    pub fn owing(mut self, script: Option<String>) -> Self {
        if let (Some(path), Some(ifname), Some(first)) = (script, &self.ifname, self.queues.first()) {
            self.down = Some(DownScript { path, ifname: ifname.clone(), fd: first.fd });
        }
        self
    }
}

/// A script that runs when a tap goes, while its files are still open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownScript {
    /// The program.
    pub path: String,
    /// Its argument.
    pub ifname: String,
    /// The tap's first file, which the script may use.
    pub fd: RawFd,
}

/// The backends. Any thread may call them, several at once.
pub trait Backends: Send + Sync {
    /// Opens a tap and runs its script.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_tap(&self, request: TapRequest) -> Result<Opened, QmpError>;

    /// Runs a down script to its end; failures are logged, as QEMU does.
    fn run_down_script(&self, script: &DownScript);

    /// Opens a capture file with one instance of the filter for each worker.
    ///
    /// # Errors
    /// `net dump: can't open FILE: WHY`.
    fn open_dump(&self, request: &DumpRequest) -> Result<Dump, QmpError>;
}

/// A capture file to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRequest {
    /// The file; it is made, or emptied.
    pub file: String,
    /// Bytes kept of each frame.
    pub maxlen: u32,
    /// The engine's time, in nanoseconds since it started.
    pub now: u64,
    /// Number of workers.
    pub workers: usize,
}

/// An open capture.
pub struct Dump {
    /// Control's hold on the file; fakes have none.
    pub file: Option<DumpFile>,
    /// One a worker.
    pub instances: Vec<Box<dyn Filter>>,
}

/// The system's words for an error, without Rust's error number.
#[must_use]
pub fn strerror(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
