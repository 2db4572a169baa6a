//! Opening: the slow path, off the workers. Order of steps and texts are QEMU's (net/af-xdp.c); what helps stands in brackets behind.

use super::held::{Held, Share};
use super::interface::{self, Link};
use super::options::{AfXdpOptions, Given};
use super::rx::AfXdpRx;
use super::tx::AfXdpTx;
use super::umems::{Room, UmemSets};
use super::{Bound, Lingering, RING};
use crate::backend::errno::{self, text};
use crate::backend::signal::Signal;
use crate::mem::arena::{Arena, ArenaError};
use crate::mem::chunks::{Lent, SharedUmem};
use crate::port::{RxQueue, TxQueue};
use af_xdp::program::Mode;
use af_xdp::socket::{self, Copying, Rings};
use af_xdp::{Error, Program, Socket, SocketConfig, Statistics, Umem, UmemConfig, XskMap};
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Frames that one look of ours takes through the driver, as DPDK has it (`busy_budget`).
const BUDGET: u32 = 64;

/// Places of a map at least: queues may be added to an interface later.
const PLACES: u32 = 64;

/// Why a netdev could not be opened. What it displays is what QMP shows.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such interface.
    #[error("failed to get ifindex for '{ifname}': {}", text(*.errno))]
    Interface {
        /// Name of the interface.
        ifname: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The frame memory was refused.
    #[error("failed to create umem for {ifname} queue_index: {index}: {}", words(.error))]
    Umem {
        /// Name of the interface.
        ifname: String,
        /// Number of the netdev's queue.
        index: u32,
        /// The kernel's answer.
        error: Error,
    },
    /// The socket was refused, or the program.
    #[error("failed to create AF_XDP socket for {ifname} queue_id: {queue}: {}", words(.error))]
    Socket {
        /// Name of the interface.
        ifname: String,
        /// Number of the interface's queue.
        queue: u32,
        /// The kernel's answer.
        error: Error,
    },
    /// The pinned map could not be opened.
    #[error("failed to open AF_XDP map {path}: {}", words(.error))]
    Map {
        /// Where it is pinned.
        path: String,
        /// The kernel's answer.
        error: Error,
    },
    /// The pinned map did not take a socket.
    #[error("failed to insert AF_XDP socket into map {path}: {}", words(.error))]
    Insert {
        /// Where it is pinned.
        path: String,
        /// The kernel's answer.
        error: Error,
    },
    /// Frames do not round-trip there.
    #[error(
        "failed to create AF_XDP socket for {0} queue_id: 0: a loopback interface has no queues that AF_XDP could serve; use a veth pair"
    )]
    Loopback(String),
    /// No memory for frames.
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

fn words(error: &Error) -> String {
    errno::words(&error.error) + &error.advice()
}

/// One queue pair, ready for the worker that was chosen for it.
pub struct QueuePair {
    /// Receiving half.
    pub rx: Box<dyn RxQueue>,
    /// Transmitting half.
    pub tx: Box<dyn TxQueue>,
    /// The socket, for messages; the two halves own it.
    pub fd: RawFd,
    room: Room,
}

impl QueuePair {
    /// Its halves, and the socket's number.
    #[must_use]
    pub fn into_parts(self) -> (Box<dyn RxQueue>, Box<dyn TxQueue>, RawFd) {
        (self.rx, self.tx, self.fd)
    }
}

/// An open netdev.
pub struct Opened {
    /// Its queues, in order.
    pub queues: Vec<QueuePair>,
    /// What control keeps.
    pub port: Port,
}

/// What control keeps of an open netdev: the program stays attached as long as this lives.
#[derive(Debug)]
pub struct Port {
    ifname: String,
    link: Link,
    program: Option<Program>,
    limit: Arc<AtomicU32>,
    sockets: Vec<Weak<Bound>>,
    _rooms: Vec<Room>,
    /// By queue: the number of its UMEM, the UMEM, and what the queue has of it.
    memory: Vec<(usize, Arc<SharedUmem>, Arc<Held>)>,
    zero_copy: bool,
    multi_buffer: bool,
}

impl Port {
    /// The interface as it was opened.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Name of the interface.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// Where the program runs: not known where it is somebody else's, or was joined.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.program.as_ref().and_then(Program::mode)
    }

    /// Whether the NIC itself writes to frame memory.
    #[must_use]
    pub const fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Whether frames may lie in several chunks, so that an MTU above 3,800 works.
    #[must_use]
    pub const fn multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// The interface's MTU is another now: longer frames are dropped by name.
    pub fn follow(&mut self, link: Link) {
        self.link = link;
        self.limit.store(link.longest(), Ordering::Relaxed);
    }

    /// By queue: its share of frame memory.
    pub fn memory(&self) -> impl Iterator<Item = Share> {
        self.memory.iter().map(|(number, umem, held)| Share::of(*number, umem, held))
    }

    /// What the kernel counted for all sockets; those that are gone are left out.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let each = self
            .sockets
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|bound| bound.socket().statistics().ok());
        each.fold(Statistics::default(), |sum, s| Statistics {
            rx_dropped: sum.rx_dropped + s.rx_dropped,
            rx_invalid: sum.rx_invalid + s.rx_invalid,
            tx_invalid: sum.tx_invalid + s.tx_invalid,
            rx_ring_full: sum.rx_ring_full + s.rx_ring_full,
            fill_ring_empty: sum.fill_ring_empty + s.fill_ring_empty,
            tx_ring_empty: sum.tx_ring_empty + s.tx_ring_empty,
        })
    }
}

/// Opens the queues of an interface, and attaches the program unless the user has one.
///
/// # Errors
/// [`OpenError`]; everything opened so far is closed again.
pub fn open(options: &AfXdpOptions, arena: &Arc<Arena>, sets: &UmemSets) -> Result<Opened, OpenError> {
    let ifname = options.ifname.clone();
    let link =
        interface::link(&ifname).map_err(|errno| OpenError::Interface { ifname: ifname.clone(), errno })?;
    if link.loopback {
        return Err(OpenError::Loopback(ifname));
    }
    let limit = Arc::new(AtomicU32::new(link.longest()));
    let mut opening = Opening { options, link, limit: limit.clone(), arena, sets, queues: Vec::new() };
    let (mut files, map) = match &options.given {
        Some(Given::Map(path, first)) => {
            let shown = path.display().to_string();
            let map = XskMap::open(path).map_err(|error| OpenError::Map { path: shown.clone(), error })?;
            (Vec::new(), Some((map, shown, *first)))
        }
        Some(Given::Sockets(sockets)) => {
            let mut files = Vec::new();
            for (index, socket) in sockets.iter().enumerate() {
                let own = socket.try_clone().map_err(|e| opening.refused(index, Error::of_socket(e)))?;
                files.push(own);
            }
            (files, None)
        }
        None => (Vec::new(), None),
    };
    files.reverse();
    let probe = opening.probe()?;
    for index in 0..options.workers.len() {
        let file = match files.pop() {
            Some(file) => file,
            None => socket::create().map_err(|error| opening.refused(index, error))?,
        };
        opening.queue(index, file, probe.as_ref())?;
    }
    let program = opening.attach(map)?;
    let sockets = opening.queues.iter().map(|queue| Arc::downgrade(&queue.bound)).collect();
    let zero_copy = opening.queues.iter().all(|queue| queue.bound.socket().zero_copy());
    let multi_buffer = opening.queues.iter().all(|queue| queue.bound.socket().umem().multi_buffer());
    let rooms = opening.queues.iter().map(|queue| queue.pair.room.clone()).collect();
    let (queues, memory) = opening.queues.into_iter().map(|queue| (queue.pair, queue.memory)).unzip();
    let port = Port { ifname, link, program, limit, sockets, _rooms: rooms, memory, zero_copy, multi_buffer };
    Ok(Opened { queues, port })
}

/// What is open so far.
struct Opening<'a> {
    options: &'a AfXdpOptions,
    link: Link,
    limit: Arc<AtomicU32>,
    arena: &'a Arc<Arena>,
    sets: &'a UmemSets,
    queues: Vec<Queue>,
}

struct Queue {
    pair: QueuePair,
    bound: Arc<Bound>,
    memory: (usize, Arc<SharedUmem>, Arc<Held>),
}

impl Opening<'_> {
    const fn queue_id(&self, index: usize) -> u32 {
        self.options.start_queue.saturating_add(index as u32)
    }

    fn refused(&self, index: usize, error: Error) -> OpenError {
        let ifname = self.options.ifname.clone();
        match error.step {
            af_xdp::Step::Umem | af_xdp::Step::Rings => {
                OpenError::Umem { ifname, index: index as u32, error }
            }
            _ => OpenError::Socket { ifname, queue: self.queue_id(index), error },
        }
    }

    /// Whether the NIC itself can write to our memory, found out with a little of it, which is also what tells later that it has stopped.
    fn probe(&self) -> Result<Option<Arc<Umem>>, OpenError> {
        if self.options.force_copy || self.options.mode == Some(Mode::Generic) {
            return Ok(None);
        }
        let part = self.arena.take(16 * 4096, 4096)?;
        let umem =
            Umem::new(Box::new(Lent(part)), UmemConfig::default()).map_err(|error| self.refused(0, error))?;
        let can = socket::try_zero_copy(&umem, self.link.index, self.queue_id(0)).unwrap_or(false);
        Ok(can.then_some(umem))
    }

    fn queue(&mut self, index: usize, file: OwnedFd, probe: Option<&Arc<Umem>>) -> Result<(), OpenError> {
        let copying = if probe.is_some() { Copying::ZeroCopy } else { Copying::Copy };
        let worker = self.options.workers.get(index).copied().unwrap_or_default();
        let (number, shared, room) = self.sets.take(self.arena, worker, copying)?;
        let config = SocketConfig {
            fill: RING,
            rx: RING,
            tx: RING,
            completion: RING,
            copying,
            multi_buffer: true,
            busy_poll: self.options.busy_poll.then_some(BUDGET),
        };
        let queue = self.queue_id(index);
        let fd = file.as_raw_fd();
        let (socket, rings) = Socket::bind(file, shared.umem(), self.link.index, queue, &config)
            .map_err(|error| self.refused(index, error))?;
        let mut seat = shared.join();
        if matches!(self.options.given, Some(Given::Sockets(_))) {
            // Who made the socket may keep it open when we close ours.
            seat.give_up();
        }
        let polls = socket.busy_polls();
        let (held, multi_buffer) = (Held::new(seat.member()), socket.umem().multi_buffer());
        let memory = (number, shared.clone(), held.clone());
        let ifindex = self.link.index;
        let lingers = probe.map(|probe| Lingering { probe: probe.clone(), ifindex, queue });
        let signal = Signal::new(Some(socket.file()));
        let bound = Arc::new(Bound::new(socket, seat, lingers));
        let Rings { fill, rx, tx, completion } = rings;
        let rx = AfXdpRx::new((fill, rx), bound.clone(), shared.clone(), held.clone(), polls, signal);
        let tx =
            AfXdpTx::new((tx, completion), bound.clone(), shared, held, multi_buffer, self.limit.clone());
        let pair = QueuePair { rx: Box::new(rx), tx: Box::new(tx), fd, room };
        self.queues.push(Queue { pair, bound, memory });
        Ok(())
    }

    /// Lets frames come: the sockets go into the map.
    fn attach(&self, map: Option<(XskMap, String, u32)>) -> Result<Option<Program>, OpenError> {
        if let Some((map, path, first)) = map {
            for (index, queue) in self.queues.iter().enumerate() {
                map.insert(first.saturating_add(index as u32), queue.bound.socket().as_fd())
                    .map_err(|error| OpenError::Insert { path: path.clone(), error })?;
            }
            return Ok(None);
        }
        if self.options.given.is_some() {
            return Ok(None);
        }
        let places = self.link.queues.unwrap_or(1).max(self.queue_id(self.queues.len())).max(PLACES);
        let program = Program::attach(self.link.index, self.options.mode, &self.options.only, places)
            .map_err(|error| self.refused(0, error))?;
        for (index, queue) in self.queues.iter().enumerate() {
            let inserted = program.map().insert(self.queue_id(index), queue.bound.socket().as_fd());
            inserted.map_err(|error| self.refused(index, error))?;
        }
        Ok(Some(program))
    }
}
