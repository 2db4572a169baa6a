//! What control asks of the backends: to open, to run scripts. Everything here may block and runs off its thread.

use crate::qmp::error::QmpError;
use engine::backend::af_xdp::{AfXdpOptions, Port};
use engine::backend::datagram::DatagramOptions;
use engine::backend::l2tpv3::L2tpv3Options;
use engine::backend::stream::Report;
use engine::backend::tap::TapOptions;
use engine::backend::vde::VdeOptions;
use engine::backend::vxlan::VxlanOptions;
use engine::filter::Filter;
use engine::filter::bpf::Program;
use engine::filter::dump::DumpFile;
use engine::filter::matching::MatchHandle;
use engine::port::{RxQueue, TxQueue};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

/// A queue's two halves and the file behind them (-1 for none).
pub struct Pair {
    /// Receiving half.
    pub rx: Box<dyn RxQueue>,
    /// Transmitting half.
    pub tx: Box<dyn TxQueue>,
    /// The file, for messages.
    pub fd: RawFd,
    /// The worker that it was made for, where that matters.
    pub worker: Option<usize>,
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
    /// What stays with control of an AF_XDP netdev.
    pub port: Option<Port>,
}

impl Opened {
    /// Notes the script that is owed when this goes, if there is an interface to tell it of.
    #[must_use]
    pub fn owing(mut self, script: Option<String>) -> Self {
        self.down = script.zip(self.ifname.clone()).map(|(path, ifname)| DownScript { path, ifname });
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
}

/// A port of a VDE switch.
pub struct Plugged {
    /// The netdev's queue.
    pub opened: Opened,
    /// The stream whose end is that of the port.
    pub plug: OwnedFd,
    /// What was asked for.
    pub options: VdeOptions,
}

/// The backends. Any thread may call them, several at once.
pub trait Backends: Send + Sync {
    /// Opens a tap and runs its script.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_tap(&self, options: TapOptions) -> Result<Opened, QmpError>;

    /// Opens queues of an interface by AF_XDP.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_af_xdp(&self, options: AfXdpOptions) -> Result<Opened, QmpError>;

    /// Opens a socket whose datagrams are frames.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_datagrams(&self, options: DatagramOptions) -> Result<Opened, QmpError>;

    /// Makes a queue pair of a connected stream socket; `wake` is written to when the connection ends.
    ///
    /// # Errors
    /// No memory; the socket is closed.
    fn open_stream(&self, socket: OwnedFd, wake: &Arc<OwnedFd>) -> Result<(Pair, Arc<Report>), QmpError>;

    /// Opens an L2TPv3 tunnel.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_l2tpv3(&self, options: L2tpv3Options) -> Result<Opened, QmpError>;

    /// Opens a VXLAN tunnel.
    ///
    /// # Errors
    /// What failed, and why; nothing stays open.
    fn open_vxlan(&self, options: VxlanOptions) -> Result<Opened, QmpError>;

    /// Joins a VDE switch.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_vde(&self, options: VdeOptions) -> Result<Plugged, QmpError>;

    /// Runs a down script to its end; failures are logged, as QEMU does.
    fn run_down_script(&self, script: &DownScript);

    /// Opens a capture file with one instance of the filter for each worker.
    ///
    /// # Errors
    /// `net dump: can't open FILE: WHY`.
    fn open_dump(&self, request: &DumpRequest) -> Result<Dump, QmpError>;

    /// Makes the instances of a `filter-match` that writes no file.
    ///
    /// # Errors
    /// As [`Backends::compile`].
    fn open_match(&self, request: &MatchRequest) -> Result<Dump, QmpError>;

    /// Compiles a pcap filter expression; it may name hosts, which are looked up.
    ///
    /// # Errors
    /// libpcap's words, or that there is no libpcap.
    fn compile(&self, expression: &str) -> Result<Program, QmpError>;
}

/// A capture file to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRequest {
    /// The file; it is made, or emptied.
    pub file: String,
    /// Bytes kept of each frame.
    pub maxlen: u32,
    /// The pcap filter expression that frames match; empty for all.
    pub filter: String,
    /// The engine's time, in nanoseconds since it started.
    pub now: u64,
    /// Number of workers.
    pub workers: usize,
}

/// A `filter-match` to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchRequest {
    /// The pcap filter expression.
    pub expression: String,
    /// Whether what matches goes on, or the rest.
    pub pass: bool,
    /// Number of workers.
    pub workers: usize,
}

/// An open capture, or a match.
pub struct Dump {
    /// Control's hold on the file; fakes have none.
    pub file: Option<DumpFile>,
    /// Control's hold on a match without a file.
    pub held: Option<MatchHandle>,
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
