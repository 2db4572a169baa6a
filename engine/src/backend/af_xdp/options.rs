//! What the user may say of an AF_XDP netdev, as plain values with QEMU's defaults (qapi/net.json `NetdevAFXDPOptions`).

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use af_xdp::{Filter, Mode as XdpMode};

/// Sockets or a map that came from the user, who also has the program: nothing is loaded (`inhibit=on`).
#[derive(Debug)]
pub enum Given {
    /// Sockets that stand in the map of the program already, one a queue (`sock-fds`).
    Sockets(Vec<OwnedFd>),
    /// A pinned map (`map-path`), and the entry of the first queue there (`map-start-index`).
    Map(PathBuf, u32),
}

/// Options of one netdev; control has checked the exclusions.
#[derive(Debug, Default)]
pub struct AfXdpOptions {
    /// Name of the interface.
    pub ifname: String,
    /// Where the program runs; nothing tries the driver first.
    pub mode: Option<XdpMode>,
    /// The kernel copies even where the NIC could write to the UMEM itself.
    pub force_copy: bool,
    /// The first queue of the interface.
    pub start_queue: u32,
    /// By queue: the worker that will run it. At least one.
    pub workers: Vec<usize>,
    /// What came from the user.
    pub given: Option<Given>,
    /// Which frames come here; the kernel keeps the rest. (An extension.)
    pub only: Filter,
    /// The worker never sleeps: it takes frames through the driver itself, which then needs no interrupts.
    pub busy_poll: bool,
}

impl AfXdpOptions {
    /// The same once more, for an interface that went and came back. Sockets that came from the user went with it.
    #[must_use]
    pub fn again(&self) -> Option<Self> {
        let given = match &self.given {
            None => None,
            Some(Given::Map(path, first)) => Some(Given::Map(path.clone(), *first)),
            Some(Given::Sockets(_)) => return None,
        };
        let (ifname, workers) = (self.ifname.clone(), self.workers.clone());
        let Self { mode, force_copy, start_queue, only, busy_poll, .. } = *self;
        Some(Self { ifname, mode, force_copy, start_queue, workers, given, only, busy_poll })
    }
}
