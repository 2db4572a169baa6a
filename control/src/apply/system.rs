//! The backends as they are: kernel devices, scripts, files.

use super::backends::strerror;
use super::{
    Backends, DownScript, FilterKind, FilterRequest, Launched, OpenFilter, Opened, Pair, Plugged, Vdpa,
};
use crate::qmp::error::QmpError;
use engine::backend::af_xdp::{self, AfXdpOptions, UmemSets};
use engine::backend::datagram::{self, DatagramOptions};
use engine::backend::l2tpv3::{self, L2tpv3Options};
use engine::backend::netmap::{self, NetmapOptions, Regions};
use engine::backend::stream::{self, Report};
use engine::backend::tap::{self, QueuePair, TapOptions};
use engine::backend::user::{self, UserOptions};
use engine::backend::vde::{self, VdeOptions};
use engine::backend::vhost_vdpa::{self, VdpaOptions};
use engine::backend::vxlan::{self, VxlanOptions};
use engine::filter::bpf::{self, Program};
use engine::filter::buffer::Buffer;
use engine::filter::dump::DumpFile;
use engine::filter::limit::Limit;
use engine::filter::matching::{self, Action};
use engine::filter::mirror::{Mirror, MirrorOptions};
use engine::filter::replay::{Replay, ReplayError};
use engine::filter::rewriter::Rewriter;
use engine::filter::{Filter, Handle, Settings};
use engine::mem::arena::{Arena, ArenaError};
use engine::uring::Waker;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a script may run before it is killed; shorter than the limit of the command that waits for it.
const SCRIPT_LIMIT: Duration = Duration::from_secs(25);

/// How long a bridge helper may run before it is killed: it makes one tap.
const HELPER_LIMIT: Duration = Duration::from_secs(10);

/// The process of a `user` netdev, beside the daemon.
const USER_PROGRAM: &str = "netdevd-user";

/// How long a down script may run.
const DOWN_SCRIPT_LIMIT: Duration = Duration::from_secs(8);

/// Backends that open what the system has.
pub struct SystemBackends {
    arena: Arc<Arena>,
    umems: UmemSets,
    /// Memory of netmap ports.
    regions: Regions,
    /// What wakes each worker.
    wakers: Vec<Arc<Waker>>,
}

impl SystemBackends {
    /// Buffers come from the engine's arena; threads of filters wake its workers.
    #[must_use]
    pub fn new(arena: Arc<Arena>, wakers: Vec<Arc<Waker>>) -> Self {
        Self { arena, umems: UmemSets::default(), regions: Regions::default(), wakers }
    }
}

impl Backends for SystemBackends {
    fn open_tap(&self, mut options: TapOptions) -> Result<Opened, QmpError> {
        let generic = |error: tap::TapError| QmpError::generic(error.to_string());
        if let Some(helper) = options.helper.take() {
            options.fds = vec![tap::run_helper(&helper, HELPER_LIMIT).map_err(generic)?];
        }
        let by_name = options.fds.is_empty();
        let script = options.script_path().filter(|_| by_name).map(str::to_owned);
        let run = |ifname: &str| match &script {
            Some(script) => tap::run_script(script, ifname, SCRIPT_LIMIT),
            None => Ok(()),
        };
        let opened = tap::open_with(options, &self.arena, run).map_err(|error| {
            if let tap::TapError::Vhost(Some(why)) = &error {
                tracing::warn!("vhost-net: {why}");
            }
            generic(error)
        })?;
        let pair = |QueuePair { rx, tx, fd }| Pair { rx, tx, fd, worker: None };
        Ok(Opened {
            queues: opened.queues.into_iter().map(pair).collect(),
            ifname: by_name.then_some(opened.ifname),
            connected: true,
            down: None,
            port: None,
            carrier: Some(opened.carrier),
            rings: opened.rings,
        })
    }

    fn open_af_xdp(&self, options: AfXdpOptions) -> Result<Opened, QmpError> {
        let opened = af_xdp::open(&options, &self.arena, &self.umems)
            .map_err(|error| QmpError::generic(error.to_string()))?;
        let pair = |(queue, worker): (af_xdp::QueuePair, usize)| {
            let (rx, tx, fd) = queue.into_parts();
            Pair { rx, tx, fd, worker: Some(worker) }
        };
        Ok(Opened {
            queues: opened.queues.into_iter().zip(options.workers).map(pair).collect(),
            ifname: Some(opened.port.ifname().to_owned()),
            connected: true,
            down: None,
            port: Some(opened.port),
            carrier: None,
            rings: None,
        })
    }

    fn open_datagrams(&self, options: DatagramOptions) -> Result<Opened, QmpError> {
        let opened =
            datagram::open(options, &self.arena).map_err(|error| QmpError::generic(error.to_string()))?;
        let QueuePair { rx, tx, fd } = opened.queue;
        Ok(Opened {
            queues: vec![Pair { rx, tx, fd, worker: None }],
            ifname: None,
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        })
    }

    fn open_stream(&self, socket: OwnedFd, wake: &Arc<OwnedFd>) -> Result<(Pair, Arc<Report>), QmpError> {
        let opened = stream::open(socket, wake, &self.arena);
        let stream::Opened { rx, tx, fd, report } = opened.map_err(|e| QmpError::generic(e.to_string()))?;
        Ok((Pair { rx, tx, fd, worker: None }, report))
    }

    fn open_l2tpv3(&self, options: L2tpv3Options) -> Result<Opened, QmpError> {
        let pair =
            l2tpv3::open(&options, &self.arena).map_err(|error| QmpError::generic(error.to_string()))?;
        Ok(one(pair))
    }

    fn open_vxlan(&self, options: VxlanOptions) -> Result<Opened, QmpError> {
        let pair =
            vxlan::open(&options, &self.arena).map_err(|error| QmpError::generic(error.to_string()))?;
        Ok(one(pair))
    }

    fn open_netmap(&self, options: NetmapOptions) -> Result<Opened, QmpError> {
        let opened =
            netmap::open(&options, &self.regions).map_err(|error| QmpError::generic(error.to_string()))?;
        let pair = |QueuePair { rx, tx, fd }| Pair { rx, tx, fd, worker: None };
        Ok(Opened {
            queues: opened.queues.into_iter().map(pair).collect(),
            ifname: None,
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        })
    }

    fn open_vde(&self, options: VdeOptions) -> Result<Plugged, QmpError> {
        let vde::Opened { queue, plug } =
            vde::open(&options, &self.arena).map_err(|error| QmpError::generic(error.to_string()))?;
        let pair = Pair { rx: queue.rx, tx: queue.tx, fd: queue.fd, worker: None };
        let opened = Opened {
            queues: vec![pair],
            ifname: None,
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        };
        Ok(Plugged { opened, plug, options })
    }

    fn open_user(&self) -> Result<Launched, QmpError> {
        let program = beside(USER_PROGRAM);
        let user::Opened { queue, process, control } = user::open(&UserOptions { program }, &self.arena)
            .map_err(|error| QmpError::generic(error.to_string()))?;
        Ok(Launched { opened: one(queue), process, control })
    }

    fn open_vhost_vdpa(&self, options: VdpaOptions, wake: &Arc<OwnedFd>) -> Result<Vdpa, QmpError> {
        // The kernel counts what a device may reach as locked, whoever asks: as far as the daemon may, it raises the limit.
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK)
            && setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err()
        {
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
        }
        vhost_vdpa(options, wake)
    }

    fn run_down_script(&self, script: &DownScript) {
        if let Err(error) = tap::run_script(&script.path, &script.ifname, DOWN_SCRIPT_LIMIT) {
            tracing::warn!("{error}");
        }
    }

    fn open_filter(&self, request: &FilterRequest) -> Result<OpenFilter, QmpError> {
        match &request.kind {
            FilterKind::Dump { file, maxlen, filter } => {
                // Before the file is emptied.
                let program = if filter.is_empty() { None } else { Some(self.compile(filter)?) };
                let (held, instances) =
                    DumpFile::open(Path::new(file), *maxlen, program, request.now, request.workers).map_err(
                        |e| QmpError::generic(format!("net dump: can't open {file}: {}", strerror(&e))),
                    )?;
                Ok(OpenFilter { handle: Some(Arc::new(held)), instances })
            }
            FilterKind::Match { expression, pass } => {
                let action = if *pass { Action::Pass } else { Action::Drop };
                let (held, instances) = matching::open(self.compile(expression)?, action, request.workers);
                Ok(OpenFilter { handle: Some(Arc::new(held)), instances })
            }
            FilterKind::Mirror { steals, indev, outdev, vnet } => {
                let FilterRequest { on, rx, tx, workers, home, .. } = *request;
                let (steals, indev, outdev, vnet) = (*steals, *indev, *outdev, *vnet);
                let options = MirrorOptions { steals, indev, outdev, vnet, on, rx, tx };
                let waker = self.wakers.get(home).cloned();
                let (held, instances) = Mirror::open(&options, &self.arena, workers, home, waker)
                    .map_err(|e| QmpError::generic(format!("filter mirror: {}", strerror(&e))))?;
                Ok(OpenFilter { handle: Some(Arc::new(held)), instances })
            }
            FilterKind::Replay { file, paced } => {
                let FilterRequest { workers, home, .. } = *request;
                let waker = self.wakers.get(home).cloned();
                let made = Replay::open(
                    Path::new(file),
                    *paced,
                    settings(request),
                    &self.arena,
                    (workers, home),
                    waker,
                );
                let (held, instances) = made.map_err(|e| unreplayable(file, &e))?;
                Ok(OpenFilter { handle: Some(Arc::new(held)), instances })
            }
            FilterKind::Nothing => Ok(OpenFilter { handle: None, instances: Vec::new() }),
            FilterKind::Buffer { interval } => {
                in_memory(Buffer::open(settings(request), *interval, &self.arena, request.workers))
            }
            FilterKind::Limit(limits) => {
                in_memory(Limit::open(settings(request), *limits, &self.arena, request.workers))
            }
            FilterKind::Rewriter => {
                in_memory(Rewriter::open(settings(request), &self.arena, request.workers))
            }
        }
    }

    fn compile(&self, expression: &str) -> Result<Program, QmpError> {
        bpf::compile(expression).map_err(|error| QmpError::generic(error.to_string()))
    }
}

/// A program of ours, where the daemon's own is.
fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok();
    own.and_then(|own| Some(own.parent()?.join(name))).unwrap_or_else(|| name.into())
}

/// A vDPA device, whatever the limits are.
pub(super) fn vhost_vdpa(options: VdpaOptions, wake: &Arc<OwnedFd>) -> Result<Vdpa, QmpError> {
    let opened = vhost_vdpa::open(options, wake).map_err(|error| QmpError::generic(error.to_string()))?;
    if !opened.hugepages {
        tracing::warn!(
            "the rings of a vhost-vdpa netdev lie in ordinary memory: not enough free hugepages (see vm.nr_hugepages)"
        );
    }
    let pair = |halves: vhost_vdpa::Halves| Pair { rx: halves.rx, tx: halves.tx, fd: -1, worker: None };
    Ok(Vdpa { queues: opened.pairs.into_iter().map(pair).collect(), handle: opened.handle, up: opened.up })
}

fn settings(request: &FilterRequest) -> Settings {
    Settings::new(request.on, request.rx, request.tx)
}

/// Why a file is not replayed, in the words of a filter-dump that has none.
fn unreplayable(file: &str, error: &ReplayError) -> QmpError {
    QmpError::generic(match error {
        ReplayError::Open(why) => format!("filter replay: can't open {file}: {}", strerror(why)),
        ReplayError::Read(why) => format!("filter replay: can't read {file}: {}", strerror(why)),
        ReplayError::Means(why) => format!("filter replay: {}", strerror(why)),
        other => format!("filter replay: can't replay {file}: {other}"),
    })
}

/// A filter that needs nothing but memory.
fn in_memory<H: Handle + 'static>(
    made: Result<(H, Vec<Box<dyn Filter>>), ArenaError>,
) -> Result<OpenFilter, QmpError> {
    let (held, instances) = made.map_err(|error| QmpError::generic(error.to_string()))?;
    Ok(OpenFilter { handle: Some(Arc::new(held)), instances })
}

/// What has one queue, no interface, and no peer to wait for.
fn one(QueuePair { rx, tx, fd }: QueuePair) -> Opened {
    let queues = vec![Pair { rx, tx, fd, worker: None }];
    Opened { queues, ifname: None, connected: true, down: None, port: None, carrier: None, rings: None }
}
