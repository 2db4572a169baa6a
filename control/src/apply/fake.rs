//! An engine and backends in memory, which remember what was asked of them.

use super::{
    Backends, DataPlane, DownScript, FilterKind, FilterRequest, Launched, OpenFilter, Opened, Pair, Plugged,
    Vdpa, system,
};
use crate::qmp::error::QmpError;
use engine::backend::af_xdp::AfXdpOptions;
use engine::backend::datagram::DatagramOptions;
use engine::backend::l2tpv3::L2tpv3Options;
use engine::backend::netmap::NetmapOptions;
use engine::backend::stream::{self, Report};
use engine::backend::tap::TapOptions;
use engine::backend::user::{self, UserOptions};
use engine::backend::vde::VdeOptions;
use engine::backend::vhost_vdpa::VdpaOptions;
use engine::backend::vxlan::VxlanOptions;
use engine::filter::bpf::{Insn, Program};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::port::testing::port;
use engine::port::{Caps, Queue, QueueId};
use engine::topology::model::{ClientKind, Topology};
use engine::topology::switch::Switch;
use engine::uring::IoMode;
use engine::{Attachments, ClientStats, QueueStats, Retired, Stats, SwitchStats, WorkerStats};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What the fakes share with the test.
#[derive(Debug, Default)]
pub struct Log {
    /// Every topology committed, oldest first.
    pub commits: Mutex<Vec<Topology>>,
    /// What was opened and run, in words.
    pub calls: Mutex<Vec<String>>,
    /// The other ends of the streams to switches that were joined, oldest first.
    pub switches: Mutex<Vec<UnixStream>>,
    /// What the connections of streams report, oldest first.
    pub streams: Mutex<Vec<Arc<Report>>>,
    /// The program that stands for `netdevd-user`.
    pub user: Mutex<PathBuf>,
    /// Commits fail.
    pub refuse: AtomicBool,
    /// Counters grow by this with every look.
    pub step: AtomicU64,
    /// Opens wait while this is true.
    pub held: Mutex<bool>,
    released: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// The last topology committed.
    pub fn last(&self) -> Topology {
        lock(&self.commits).last().cloned().unwrap_or_default()
    }

    /// How many commits there were.
    pub fn committed(&self) -> usize {
        lock(&self.commits).len()
    }

    /// What was called since the last look.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.calls))
    }

    /// Makes opens wait, or lets them go.
    pub fn hold(&self, hold: bool) {
        *lock(&self.held) = hold;
        self.released.notify_all();
    }

    fn call(&self, text: String) {
        let mut held = lock(&self.held);
        while *held {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        lock(&self.calls).push(text);
    }
}

/// An engine with two workers.
pub struct FakePlane {
    log: Arc<Log>,
    queues: u64,
    /// The queues of the last topology: what they hold stays open as long as they are in one.
    attached: Vec<Queue>,
    looks: AtomicU64,
}

impl FakePlane {
    /// An empty one.
    pub fn new(log: Arc<Log>) -> Self {
        Self { log, queues: 0, attached: Vec::new(), looks: AtomicU64::new(0) }
    }
}

impl DataPlane for FakePlane {
    fn workers(&self) -> usize {
        2
    }

    fn place(&mut self) -> usize {
        (self.queues % 2) as usize
    }

    fn unplace(&mut self, _worker: usize) {}

    fn wake(&self, _worker: usize) {}

    fn queue_id(&mut self) -> QueueId {
        self.queues += 1;
        QueueId(self.queues)
    }

    fn commit(&mut self, topology: &Topology, attach: Attachments) -> Result<Retired, String> {
        if self.log.refuse.load(Ordering::Relaxed) {
            return Err("worker 0 hangs".into());
        }
        lock(&self.log.commits).push(topology.clone());
        self.attached.extend(attach.queues.into_iter().map(|(_, queue)| queue));
        let named = |queue: &Queue| {
            topology.clients.iter().any(|client| match &client.kind {
                ClientKind::Port { queues } => queues.iter().any(|named| named.id == queue.id.0),
                ClientKind::HubPort { .. } | ClientKind::SwitchPort { .. } => false,
            })
        };
        self.attached.retain(named);
        Ok(Retired::default())
    }

    fn stats(&self) -> Stats {
        let step = self.log.step.load(Ordering::Relaxed);
        let n = self.looks.fetch_add(step, Ordering::Relaxed);
        let clients = self.log.last().clients.into_iter().map(|c| ClientStats {
            client: Some(c.id),
            queues: match c.kind {
                ClientKind::HubPort { .. } | ClientKind::SwitchPort { .. } => vec![QueueStats::default()],
                ClientKind::Port { queues } => {
                    queues.iter().map(|_| QueueStats { rx_frames: n, ..QueueStats::default() }).collect()
                }
            },
        });
        let workers = vec![WorkerStats { core: Some(3), turns: n, ..WorkerStats::default() }; 2];
        Stats { tsc_hz: 1_000_000_000, workers, clients: clients.collect() }
    }

    fn switches(&self) -> Vec<SwitchStats> {
        let switches = self.log.last().switches.into_iter();
        let stats = |s: Switch| SwitchStats {
            number: s.number,
            ageing: s.ageing,
            most: s.stations,
            ..Default::default()
        };
        switches.map(stats).collect()
    }

    fn now(&self) -> u64 {
        0
    }

    fn polls(&self) -> bool {
        false
    }

    fn io_mode(&self, _worker: usize) -> Option<IoMode> {
        Some(IoMode::Uring)
    }
}

/// Backends that open everything except an interface `busy` and files below `/nodir`.
#[derive(Debug)]
pub struct FakeBackends(pub Arc<Log>);

impl Backends for FakeBackends {
    fn open_tap(&self, options: TapOptions) -> Result<Opened, QmpError> {
        let by_name = options.fds.is_empty() && options.helper.is_none();
        if let Some(helper) = &options.helper {
            self.0.call(format!("helper {} br {}", helper.program, helper.bridge));
        }
        let script = options.script_path().filter(|_| by_name).unwrap_or("-");
        self.0.call(format!("open script {script} fds {}", options.fds.len()));
        if options.ifname.as_deref() == Some("busy") {
            let desc = "could not configure /dev/net/tun (busy): Device or resource busy";
            return Err(QmpError::generic(desc));
        }
        let queues = if by_name { options.queues as usize } else { options.fds.len().max(1) };
        let pair = |_| {
            let (queue, _) = port(QueueId(0), 8, Caps::NONE);
            Pair { rx: queue.rx, tx: queue.tx, fd: -1, worker: None }
        };
        let ifname = by_name.then(|| options.ifname.clone().unwrap_or_else(|| "tap0".into()));
        Ok(Opened {
            queues: (0..queues).map(pair).collect(),
            ifname,
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        })
    }

    fn open_af_xdp(&self, options: AfXdpOptions) -> Result<Opened, QmpError> {
        self.0.call(format!("open af-xdp {} on {:?}", options.ifname, options.workers));
        let pair = |worker: usize| {
            let (queue, _) = port(QueueId(0), 8, Caps::NONE);
            Pair { rx: queue.rx, tx: queue.tx, fd: -1, worker: Some(worker) }
        };
        let queues = options.workers.iter().copied().map(pair).collect();
        Ok(Opened {
            queues,
            ifname: Some(options.ifname),
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        })
    }

    fn open_datagrams(&self, options: DatagramOptions) -> Result<Opened, QmpError> {
        self.0.call(format!("open datagrams {options:?}"));
        let (queue, _) = port(QueueId(0), 8, Caps::NONE);
        let queues = vec![Pair { rx: queue.rx, tx: queue.tx, fd: -1, worker: None }];
        Ok(Opened {
            queues,
            ifname: None,
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        })
    }

    fn open_stream(&self, socket: OwnedFd, wake: &Arc<OwnedFd>) -> Result<(Pair, Arc<Report>), QmpError> {
        self.0.call("open stream".into());
        let small = ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false };
        let arena = Arena::new(&small).map_err(|e| QmpError::generic(e.to_string()))?;
        let opened = stream::open(socket, wake, &arena).map_err(|e| QmpError::generic(e.to_string()))?;
        lock(&self.0.streams).push(opened.report.clone());
        let pair = Pair { rx: opened.rx, tx: opened.tx, fd: opened.fd, worker: None };
        Ok((pair, opened.report))
    }

    fn open_l2tpv3(&self, options: L2tpv3Options) -> Result<Opened, QmpError> {
        self.0.call(format!("open l2tpv3 {options:?}"));
        Ok(one())
    }

    fn open_vxlan(&self, options: VxlanOptions) -> Result<Opened, QmpError> {
        self.0.call(format!("open vxlan {options:?}"));
        Ok(one())
    }

    fn open_netmap(&self, options: NetmapOptions) -> Result<Opened, QmpError> {
        self.0.call(format!("open netmap {options:?}"));
        Ok(one())
    }

    fn open_vde(&self, options: VdeOptions) -> Result<Plugged, QmpError> {
        self.0.call(format!("plug {} port {} mode {:o}", options.sock, options.port, options.mode));
        if options.sock.starts_with("/nodir") {
            return Err(QmpError::generic("Could not open vde: No such file or directory"));
        }
        let (plug, switch) = UnixStream::pair().map_err(|e| QmpError::generic(e.to_string()))?;
        lock(&self.0.switches).push(switch);
        let (queue, _) = port(QueueId(0), 8, Caps::NONE);
        let pair = Pair { rx: queue.rx, tx: queue.tx, fd: 7, worker: None };
        let opened = Opened {
            queues: vec![pair],
            ifname: None,
            connected: true,
            down: None,
            port: None,
            carrier: None,
            rings: None,
        };
        Ok(Plugged { opened, plug: plug.into(), options })
    }

    fn open_user(&self) -> Result<Launched, QmpError> {
        self.0.call("open user".into());
        let small = ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false };
        let arena = Arena::new(&small).map_err(|e| QmpError::generic(e.to_string()))?;
        let program = lock(&self.0.user).clone();
        let user::Opened { queue, process, control } = user::open(&UserOptions { program }, &arena)
            .map_err(|error| QmpError::generic(error.to_string()))?;
        let pair = Pair { rx: queue.rx, tx: queue.tx, fd: queue.fd, worker: None };
        Ok(Launched { opened: Opened { queues: vec![pair], ..one() }, process, control })
    }

    fn open_vhost_vdpa(&self, options: VdpaOptions, wake: &Arc<OwnedFd>) -> Result<Vdpa, QmpError> {
        self.0.call(format!("open vhost-vdpa {options:?}"));
        system::vhost_vdpa(options, wake)
    }

    fn run_down_script(&self, script: &DownScript) {
        self.0.call(format!("down {} {}", script.path, script.ifname));
    }

    fn open_filter(&self, request: &FilterRequest) -> Result<OpenFilter, QmpError> {
        match &request.kind {
            FilterKind::Dump { file, maxlen, filter } => {
                self.compile(filter)?;
                self.0.call(format!("dump {file} {maxlen}"));
                if file.starts_with("/nodir") {
                    let desc = format!("net dump: can't open {file}: No such file or directory");
                    return Err(QmpError::generic(desc));
                }
            }
            FilterKind::Match { expression, pass } => {
                self.0.call(format!("match {expression} {}", if *pass { "pass" } else { "drop" }));
                self.compile(expression)?;
            }
            FilterKind::Replay { file, paced } => {
                self.0.call(format!("replay {file} {}", if *paced { "paced" } else { "at once" }));
            }
            _ => {}
        }
        Ok(OpenFilter { handle: None, instances: Vec::new() })
    }

    fn compile(&self, expression: &str) -> Result<Program, QmpError> {
        if expression.contains("bad") {
            let desc = format!("cannot compile filter expression '{expression}': syntax error");
            return Err(QmpError::generic(desc));
        }
        let all = [Insn { code: 6, jt: 0, jf: 0, k: 1 }];
        Program::load(&all).map_err(|error| QmpError::generic(error.to_string()))
    }
}

/// One queue pair of nothing.
fn one() -> Opened {
    let (queue, _) = port(QueueId(0), 8, Caps::NONE);
    let pair = Pair { rx: queue.rx, tx: queue.tx, fd: -1, worker: None };
    Opened {
        queues: vec![pair],
        ifname: None,
        connected: true,
        down: None,
        port: None,
        carrier: None,
        rings: None,
    }
}
