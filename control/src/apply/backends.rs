//! What control asks of the backends: to open, to run scripts. Everything here may block and runs off its thread.

use crate::qmp::error::QmpError;
use engine::backend::af_xdp::{AfXdpOptions, Port};
use engine::backend::datagram::DatagramOptions;
use engine::backend::l2tpv3::L2tpv3Options;
use engine::backend::netmap::NetmapOptions;
use engine::backend::stream::Report;
use engine::backend::tap::{Carrier, Rings, TapOptions};
use engine::backend::user::Process;
use engine::backend::vde::VdeOptions;
use engine::backend::vhost_vdpa::{Handle as VdpaHandle, VdpaOptions};
use engine::backend::vxlan::VxlanOptions;
use engine::filter::bpf::Program;
use engine::filter::limit::Limits;
use engine::filter::mirror::Outdev;
use engine::filter::{Filter, Handle};
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
    /// The carrier of a tap.
    pub carrier: Option<Carrier>,
    /// The rings of a tap that vhost-net runs.
    pub rings: Option<Rings>,
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

/// A process of a `user` netdev that has been told nothing yet.
pub struct Launched {
    /// The netdev's queue.
    pub opened: Opened,
    /// The process.
    pub process: Process,
    /// Our end of its control socket.
    pub control: OwnedFd,
}

/// An open vDPA device.
pub struct Vdpa {
    /// The netdev's queues.
    pub queues: Vec<Pair>,
    /// Control's hold on the device.
    pub handle: VdpaHandle,
    /// Whether its link is up.
    pub up: bool,
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

    /// Opens a netmap port.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_netmap(&self, options: NetmapOptions) -> Result<Opened, QmpError>;

    /// Joins a VDE switch.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_vde(&self, options: VdeOptions) -> Result<Plugged, QmpError>;

    /// Starts the process of a `user` netdev.
    ///
    /// # Errors
    /// What failed, and why; nothing is left behind.
    fn open_user(&self) -> Result<Launched, QmpError>;

    /// Opens a vDPA device; `wake` is written to when a ring stops for cause.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_vhost_vdpa(&self, options: VdpaOptions, wake: &Arc<OwnedFd>) -> Result<Vdpa, QmpError>;

    /// Runs a down script to its end; failures are logged, as QEMU does.
    fn run_down_script(&self, script: &DownScript);

    /// Makes a filter, with one instance for each worker.
    ///
    /// # Errors
    /// In QEMU's words; nothing stays open.
    fn open_filter(&self, request: &FilterRequest) -> Result<OpenFilter, QmpError>;

    /// Compiles a pcap filter expression; it may name hosts, which are looked up.
    ///
    /// # Errors
    /// libpcap's words, or that there is no libpcap.
    fn compile(&self, expression: &str) -> Result<Program, QmpError>;
}

/// A filter to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRequest {
    /// Of which kind, with its own properties.
    pub kind: FilterKind,
    /// Whether it begins switched on.
    pub on: bool,
    /// It sees frames sent to its netdev.
    pub rx: bool,
    /// It sees frames that its netdev sends.
    pub tx: bool,
    /// The engine's time, in nanoseconds since it started.
    pub now: u64,
    /// Number of workers.
    pub workers: usize,
    /// The worker of its netdev's first queue.
    pub home: usize,
}

/// What a filter does, and its own properties as far as the engine needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterKind {
    /// `filter-dump`.
    Dump {
        /// The file; it is made, or emptied.
        file: String,
        /// Bytes kept of each frame.
        maxlen: u32,
        /// The pcap filter expression that frames match; empty for all.
        filter: String,
    },
    /// `filter-match` that writes no file.
    Match {
        /// The pcap filter expression.
        expression: String,
        /// Whether what matches goes on, or the rest.
        pass: bool,
    },
    /// `filter-mirror`, `filter-redirector`.
    Mirror {
        /// Frames are taken away, not copied.
        steals: bool,
        /// There is an `indev`.
        indev: bool,
        /// There is an `outdev`.
        outdev: Option<Outdev>,
        /// `vnet_hdr_support`.
        vnet: bool,
    },
    /// `filter-replay` without a file: nothing.
    Nothing,
    /// `filter-replay` with one.
    Replay {
        /// The pcap file.
        file: String,
        /// Frames keep the distances in which they were recorded.
        paced: bool,
    },
    /// `filter-buffer`.
    Buffer {
        /// Microseconds between releases.
        interval: u32,
    },
    /// `filter-limit`.
    Limit(Limits),
    /// `filter-rewriter`.
    Rewriter,
}

/// A filter that no frame passes yet.
pub struct OpenFilter {
    /// Control's hold on it; one that does nothing has none.
    pub handle: Option<Arc<dyn Handle>>,
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
