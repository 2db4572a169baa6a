//! Starting the engine: arena, pools, workers.

use super::{Engine, FreeSlots, Handle};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::pool::Pool;
use crate::switch::Routes;
use crate::topology::cell;
use crate::uring::{FdIo, IoMode, Waker};
use crate::worker::clock::Clock;
use crate::worker::idle::{Idle, Wakers};
use crate::worker::inbox::Mail;
use crate::worker::link::Links;
use crate::worker::place::{self, Load};
use crate::worker::regimes::WorkerCounters;
use crate::worker::turn::{Worker, WorkerParts};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// What the engine is started with.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// One worker a core, pinned there. Empty: one worker, not pinned.
    pub cores: Vec<usize>,
    /// What idle workers do.
    pub idle: Idle,
    /// Workers yield their core after each empty turn, because others need it.
    pub yield_empty: bool,
    /// Forces batched system calls (`Some(IoMode::Batched)`) where io_uring would be used.
    pub io: Option<IoMode>,
}

/// Why the engine did not start or did not take a topology.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A core that this process may not use.
    #[error("core {0} is not in the affinity mask of this process; choose from {1:?}")]
    Core(usize, Vec<usize>),
    /// The same core twice.
    #[error("core {0} is named twice; a core runs one worker")]
    CoreTwice(usize),
    /// No memory for buffers.
    #[error("cannot allocate frame buffers: {0}; free memory or raise the memlock limit")]
    Memory(String),
    /// A thread could not be made or pinned.
    #[error("cannot start worker {0}: {1}")]
    Thread(usize, String),
    /// A worker has no slot left.
    #[error("worker {0} has no slot left for another queue; use more cores")]
    Slots(usize),
    /// A worker does not answer.
    #[error("worker {0} did not take the new configuration within {1} s; it hangs")]
    Hangs(usize, u64),
}

/// What a worker thread tells when it has its files.
struct Born {
    waker: Arc<Waker>,
    mode: IoMode,
    reason: Option<String>,
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// A core that cannot be used, no memory, no threads.
    pub fn start(config: &Config) -> Result<Self, EngineError> {
        check_cores(&config.cores)?;
        let cores: Vec<Option<usize>> = if config.cores.is_empty() {
            vec![None]
        } else {
            config.cores.iter().copied().map(Some).collect()
        };
        let memory = |e: crate::mem::arena::ArenaError| EngineError::Memory(e.to_string());
        let arena = Arena::new(&ArenaConfig::default()).map_err(memory)?;
        let pools = Pool::set(cores.len(), &arena).map_err(memory)?;
        let (publisher, readers) = cell::new(Routes::default(), cores.len());
        let links = Links::all(&pools);
        let stop = Arc::new(AtomicBool::new(false));
        let clock = Clock::calibrate();

        let mut workers = Vec::new();
        let mut births = Vec::new();
        for (index, core) in cores.iter().copied().enumerate() {
            let (born, birth) = channel();
            let (parts, wait) = channel();
            let mode = config.io;
            let name = core.map_or_else(|| format!("netdevd/w{index}"), |c| format!("netdevd/w{index}c{c}"));
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || body(core, mode, &born, &wait))
                .map_err(|e| EngineError::Thread(index, e.to_string()))?;
            births.push((parts, birth, thread));
        }
        let mut starts = Vec::new();
        for (index, (parts, birth, thread)) in births.into_iter().enumerate() {
            let born = birth.recv().map_err(|_| EngineError::Thread(index, "it ended at once".into()))?;
            let born = born.map_err(|e| EngineError::Thread(index, e))?;
            workers.push(Handle {
                mail: Mail::default(),
                waker: born.waker,
                counters: Arc::new(WorkerCounters::default()),
                core: cores.get(index).copied().flatten(),
                io_mode: born.mode,
                io_reason: born.reason,
                thread: Some(thread),
            });
            starts.push(parts);
        }
        let wakers = Wakers::new(workers.iter().map(|w| w.waker.clone()).collect());
        let ends = readers.into_iter().zip(pools).zip(links).zip(starts);
        for (index, (((reader, pool), links), start)) in ends.enumerate() {
            let Some(handle) = workers.get(index) else { continue };
            let _ = start.send(Start {
                index,
                reader,
                mail: handle.mail.clone(),
                pool,
                links,
                wakers: wakers.clone(),
                counters: handle.counters.clone(),
                clock,
                idle: config.idle,
                yield_empty: config.yield_empty,
                stop: stop.clone(),
            });
        }
        let n = workers.len();
        Ok(Self {
            publisher,
            workers,
            stop,
            clock,
            arena,
            next_queue: AtomicU64::new(0),
            load: Load::new(n),
            slots: Default::default(),
            free_queues: (0..n).map(|_| FreeSlots::default()).collect(),
            free_filters: FreeSlots::default(),
            queues: HashMap::new(),
            lanes: Default::default(),
            clients: Vec::new(),
            extent: crate::worker::turn::FIRST_EXTENT,
            switches: Default::default(),
            idle: config.idle,
        })
    }
}

/// A worker's parts but for its files, which must be made on its thread (io_uring with a single issuer).
struct Start {
    index: usize,
    reader: cell::Reader<Routes>,
    mail: Mail,
    pool: Pool,
    links: Links,
    wakers: Wakers,
    counters: Arc<WorkerCounters>,
    clock: Clock,
    idle: Idle,
    yield_empty: bool,
    stop: Arc<AtomicBool>,
}

fn body(
    core: Option<usize>,
    mode: Option<IoMode>,
    born: &Sender<Result<Born, String>>,
    wait: &Receiver<Start>,
) {
    if let Some(core) = core
        && !place::pin(core)
    {
        let _ = born.send(Err(format!("the kernel refuses to pin it to core {core}")));
        return;
    }
    let (io, waker) = match FdIo::new(mode) {
        Ok(made) => made,
        Err(e) => {
            let _ = born.send(Err(e.to_string()));
            return;
        }
    };
    let _ = born.send(Ok(Born { waker, mode: io.mode(), reason: io.reason().map(str::to_owned) }));
    // Without a start message the engine failed to start, and this thread ends.
    let Ok(s) = wait.recv() else { return };
    let Start { index, reader, mail, pool, links, wakers, counters, clock, idle, yield_empty, stop } = s;
    let parts = WorkerParts {
        index,
        reader,
        mail,
        io,
        pool,
        links,
        wakers,
        counters,
        clock,
        idle,
        yield_empty,
        stop,
    };
    Worker::new(parts).run();
}

fn check_cores(cores: &[usize]) -> Result<(), EngineError> {
    let allowed = place::allowed();
    for (i, &core) in cores.iter().enumerate() {
        if !allowed.contains(&core) {
            return Err(EngineError::Core(core, allowed));
        }
        if cores[..i].contains(&core) {
            return Err(EngineError::CoreTwice(core));
        }
    }
    Ok(())
}
