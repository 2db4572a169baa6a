//! The engine, the backends and the jobs, as the commands use them.

use super::carriers::Carriers;
use super::jobs::Product;
use super::{Backends, DataPlane, DownScript, Jobs, Opened, Pair, Ticket};
use crate::model::{ClientId, FilterId, Net, QueueRef};
use crate::passt::Process;
use crate::qmp::error::QmpError;
use engine::filter::Handle;
use engine::port::Queue;
use engine::port::counters::PortCounters;
use engine::topology::model::Topology;
use engine::{Attachments, Retired};
use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long an open, with its script, may take.
pub const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long closing, with its down script, may keep a command from its reply.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How long a filter that goes may take to hand on what it holds: what its receiver does not take by then is lost.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Between looks whether it has.
const DRAIN_LOOK: Duration = Duration::from_micros(500);
/// How long the end of the daemon waits for closing and down scripts.
pub const END_LIMIT: Duration = Duration::from_millis(1500);

/// The engine, the backends and the jobs, as the commands use them.
pub struct Binding {
    /// The engine.
    pub plane: Box<dyn DataPlane>,
    /// What opens.
    pub backends: Arc<dyn Backends>,
    /// What is under way off the control thread.
    pub jobs: Jobs,
    /// Scripts owed to clients when they go.
    down: HashMap<ClientId, DownScript>,
    /// Processes that end when their clients go.
    processes: HashMap<ClientId, Process>,
    /// What goes when the queues of its client are closed.
    leaving: HashMap<ClientId, Box<dyn Any + Send>>,
    /// Filters in use, but for those that do nothing.
    filters: HashMap<FilterId, Arc<dyn Handle>>,
    /// Carriers of taps.
    pub carriers: Carriers,
}

impl Binding {
    /// Binds an engine.
    ///
    /// # Errors
    /// The kernel has no descriptor for the jobs.
    pub fn new(plane: Box<dyn DataPlane>, backends: Arc<dyn Backends>) -> io::Result<Self> {
        Ok(Self {
            plane,
            backends,
            jobs: Jobs::new()?,
            down: HashMap::new(),
            processes: HashMap::new(),
            leaving: HashMap::new(),
            filters: HashMap::new(),
            carriers: Carriers::default(),
        })
    }

    /// Puts the network in force on all workers.
    ///
    /// # Errors
    /// The engine's words; nothing new is in force then.
    pub fn commit(&mut self, net: &Net, attach: Attachments) -> Result<Retired, QmpError> {
        self.tell_headers(net);
        let retired = self.plane.commit(&net.topology(), attach).map_err(QmpError::generic)?;
        self.carriers.settle(net);
        Ok(retired)
    }

    /// Gives each queue pair a worker and a name: what the model keeps, and what the engine gets.
    pub fn place(&mut self, pairs: Vec<Pair>) -> (Vec<QueueRef>, Attachments) {
        let mut attach = Attachments::default();
        let mut refs = Vec::with_capacity(pairs.len());
        for Pair { rx, tx, fd, worker } in pairs {
            let worker = worker.unwrap_or_else(|| self.plane.place());
            let id = self.plane.queue_id();
            refs.push(QueueRef { id: id.0, worker });
            attach.queues.push((worker, Queue { id, rx, tx, counters: Arc::default(), fd }));
        }
        (refs, attach)
    }

    /// Gives one queue pair, whose counters exist already, a worker and a name.
    pub fn place_one(&mut self, pair: Pair, counters: Arc<PortCounters>) -> (QueueRef, Attachments) {
        let Pair { rx, tx, fd, worker } = pair;
        let worker = worker.unwrap_or_else(|| self.plane.place());
        let id = self.plane.queue_id();
        let queues = vec![(worker, Queue { id, rx, tx, counters, fd })];
        (QueueRef { id: id.0, worker }, Attachments { queues, filters: Vec::new() })
    }

    /// Notes a script that is owed when the client goes.
    pub fn owe(&mut self, client: ClientId, script: DownScript) {
        self.down.insert(client, script);
    }

    /// Keeps a process, which ends when the client goes.
    pub fn keep_process(&mut self, client: ClientId, process: Process) {
        self.processes.insert(client, process);
    }

    /// Whether a process belongs to the client.
    #[must_use]
    pub fn has_process(&self, client: ClientId) -> bool {
        self.processes.contains_key(&client)
    }

    /// Ends the client's process, if there is one; nobody waits for it.
    pub fn end_process(&mut self, client: ClientId) {
        if let Some(process) = self.processes.remove(&client) {
            self.detach(move || process.end());
        }
    }

    /// Keeps what goes when the queues of a client that left are closed.
    pub fn keep(&mut self, client: ClientId, what: Box<dyn Any + Send>) {
        self.leaving.insert(client, what);
    }

    /// Keeps the hold on a filter in force.
    pub fn keep_filter(&mut self, filter: FilterId, handle: Arc<dyn Handle>) {
        self.filters.insert(filter, handle);
    }

    /// Tells filters whether each frame of their netdev has a virtio-net header, which its peer decides.
    pub fn tell_headers(&self, net: &Net) {
        for (id, handle) in &self.filters {
            if let Some(filter) = net.filter(*id) {
                handle.tune("vnet_hdr_len", u64::from(net.has_headers(filter.client)));
            }
        }
    }

    /// The hold on a filter in force.
    #[must_use]
    pub fn filter(&self, filter: FilterId) -> Option<&Arc<dyn Handle>> {
        self.filters.get(&filter)
    }

    /// Wakes all workers that sleep.
    pub fn wake_all(&self) {
        (0..self.plane.workers()).for_each(|worker| self.plane.wake(worker));
    }

    /// Waits, off the control thread, until filters hold nothing any more, at most two seconds.
    ///
    /// # Errors
    /// No thread could be made.
    pub fn drain(&mut self, handles: Vec<Arc<dyn Handle>>) -> io::Result<Ticket> {
        self.jobs.start(CLOSE_LIMIT, move || {
            let end = Instant::now() + DRAIN_LIMIT;
            while handles.iter().any(|handle| handle.held() != 0) && Instant::now() < end {
                std::thread::sleep(DRAIN_LOOK);
            }
            Product::Drained
        })
    }

    /// Closes what a commit retired: the script of the client that went runs first, and files are complete at the end.
    ///
    /// # Errors
    /// No thread could be made; everything was closed without the script.
    pub fn close(
        &mut self,
        retired: Retired,
        gone: Option<ClientId>,
        filters: &[FilterId],
    ) -> io::Result<Ticket> {
        let script = gone.and_then(|id| self.down.remove(&id));
        let process = gone.and_then(|id| self.processes.remove(&id));
        let leaving = gone.and_then(|id| self.leaving.remove(&id));
        let handles: Vec<_> = filters.iter().filter_map(|id| self.filters.remove(id)).collect();
        let backends = Arc::clone(&self.backends);
        self.jobs.start(CLOSE_LIMIT, move || {
            if let Some(script) = script {
                backends.run_down_script(&script);
            }
            drop(retired);
            process.into_iter().for_each(Process::end);
            drop(leaving);
            handles.iter().for_each(|handle| handle.finish(CLOSE_LIMIT));
            Product::Closed
        })
    }

    /// Runs a script whose tap could not be used after all.
    pub fn run_down_script(&self, script: DownScript) {
        let backends = Arc::clone(&self.backends);
        self.detach(move || backends.run_down_script(&script));
    }

    /// Closes what went by itself; nobody waits for it.
    pub fn let_go(&self, retired: Retired) {
        if !retired.queues.is_empty() {
            self.detach(move || drop(retired));
        }
    }

    /// Closes a product that came too late or could not be used.
    pub fn discard(&self, product: Product) {
        let backends = Arc::clone(&self.backends);
        let job = move || match product {
            Product::Passt(Ok(started)) => started.process.end(),
            product => {
                if let Product::Opened(Ok(Opened { down: Some(script), .. })) = &product {
                    backends.run_down_script(script);
                }
                drop(product);
            }
        };
        self.detach(job);
    }

    /// Runs something that nobody waits for.
    fn detach(&self, job: impl FnOnce() + Send + 'static) {
        if let Err(error) = std::thread::Builder::new().name("netdevd-job".into()).spawn(job) {
            tracing::warn!("no thread to close on: {error}");
        }
    }

    /// The end: runs all scripts at once and closes everything, within [`END_LIMIT`].
    pub fn end(&mut self) {
        let retired = self.plane.commit(&Topology::default(), Attachments::default());
        let scripts: Vec<DownScript> = self.down.drain().map(|(_, script)| script).collect();
        let processes: Vec<_> = self.processes.drain().map(|(_, process)| process).collect();
        let handles: Vec<_> = self.filters.drain().map(|(_, handle)| handle).collect();
        let (backends, (done, ended)) = (Arc::clone(&self.backends), mpsc::channel::<()>());
        let job = move || {
            std::thread::scope(|scope| {
                for process in processes {
                    scope.spawn(move || process.end());
                }
                for script in &scripts {
                    scope.spawn(|| backends.run_down_script(script));
                }
            });
            drop(retired);
            handles.iter().for_each(|handle| handle.finish(END_LIMIT));
            drop(done);
        };
        match std::thread::Builder::new().name("netdevd-job".into()).spawn(job) {
            // Nothing is ever sent: the end of the only sender is the end of the job.
            Ok(_) if ended.recv_timeout(END_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::warn!("down scripts have not ended in time");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("down scripts were not run: {error}"),
        }
    }
}
