//! `netdev_add type=passt` (QEMU 10.1 `net/passt.c`), and such a netdev when its passt has gone.

use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::chardev::Stream;
use crate::commands::args::Args;
use crate::commands::pending::Pending;
use crate::commands::state::empty;
use crate::commands::{Outcome, State};
use crate::model::{Client, ClientId, Kind, Netdev};
use crate::options::netdev::PasstOptions;
use crate::passt::{Happened, LaunchError, START_LIMIT, Started, launch};
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::reactor::Ready;
use crate::stream::{Asked, Start, Style};
use crate::vhost_user::Standing;
use engine::Attachments;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end of the daemon waits for launches that it stopped.
const STOPPING: Duration = Duration::from_millis(500);
const CLOSED: &str = "passt has closed its connection";
const ENDED: &str = "passt has ended";

/// A `passt` netdev whose passt is being started.
#[derive(Debug)]
pub(in crate::commands) struct NewPasst {
    options: Arc<PasstOptions>,
    args: Map<String, Value>,
}

impl NewPasst {
    pub(in crate::commands) fn name(&self) -> &str {
        self.args.text("id")
    }
}

impl State {
    /// The reply waits until passt has started, as QEMU's does; nothing else waits.
    pub(super) fn add_passt(&mut self, args: Map<String, Value>) -> Outcome {
        // Cannot fail for checked arguments.
        let options = match serde_json::from_value::<PasstOptions>(Value::Object(args.clone())) {
            Ok(options) => Arc::new(options),
            Err(error) => return Err(QmpError::generic(format!("Invalid arguments: {error}"))).into(),
        };
        if let Err(error) = self.net.reserve(args.text("id")) {
            return Err(error.into()).into();
        }
        let new = NewPasst { options: options.clone(), args };
        let stop = self.passts.stop();
        match self
            .binding
            .jobs
            .start(OPEN_LIMIT, move || Product::Passt(launch(&options, START_LIMIT, &stop)))
        {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Passt(new));
                Outcome::Later(ticket)
            }
            Err(error) => {
                let name = new.name();
                self.net.unreserve(name);
                Err(QmpError::generic(format!("netdev '{name}': no thread to start passt on: {error}")))
                    .into()
            }
        }
    }

    /// Its first passt has started, or has not.
    pub(in crate::commands) fn passt_started(
        &mut self,
        new: NewPasst,
        result: Result<Started, LaunchError>,
    ) -> Result<Value, QmpError> {
        let started = match result {
            Ok(started) => started,
            Err(error) => {
                self.net.unreserve(new.name());
                return Err(QmpError::generic(error.to_string()));
            }
        };
        let NewPasst { options, args } = new;
        let raises_link = args.flag("link").unwrap_or(true);
        let name = args.text("id").to_owned();
        let dev = Netdev { driver: "passt", queues: Vec::new(), info: vec![String::new()], connected: false };
        let added = self.net.add_netdev(&name, dev, false, args).map_err(QmpError::from);
        let client = added.and_then(|client| {
            let committed = self.binding.commit(&self.net, Attachments::default());
            committed.map(|_| client).inspect_err(|_| drop(self.net.remove_client(client)))
        });
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                self.binding.discard(Product::Passt(Ok(started)));
                return Err(error);
            }
        };
        let rings = if options.uses_vhost_user() {
            Some(self.vhost_users.add(&name, "", client, 1, raises_link))
        } else {
            let asked = Asked {
                name: name.clone(),
                client,
                style: Style::Passt,
                start: Start::Supplied,
                given: None,
                raises_link,
            };
            self.streams.add(asked, &mut self.net, &mut self.binding);
            None
        };
        self.passts.add(client, &name, options, rings);
        self.join_passt(client, started);
        Ok(empty())
    }

    /// A passt has been started again, or has not.
    pub(in crate::commands) fn passt_restarted(
        &mut self,
        client: ClientId,
        result: Result<Started, LaunchError>,
    ) {
        match result {
            Ok(started) => self.join_passt(client, started),
            Err(error) => drop(self.passts.failed(client, error.to_string())),
        }
    }

    /// Connects a netdev with a passt that has started.
    fn join_passt(&mut self, client: ClientId, started: Started) {
        let Started { socket, process, said } = started;
        let pid = process.pid();
        let known = self.passts.started(client, &process, said);
        self.binding.keep_process(client, process);
        if !known {
            return self.binding.end_process(client);
        }
        let mut events = Vec::new();
        if let Some(number) = self.passts.rings(client) {
            self.describe_as(client, "connecting to passt");
            self.join_rings(client, number, socket, &mut events);
        } else {
            self.describe_as(client, &format!("stream,connected to pid {pid}"));
            self.streams.supply(client, socket, &mut self.net, &mut self.binding);
            self.settle_links(&mut events);
        }
        self.after_reply.append(&mut events);
    }

    fn join_rings(&mut self, client: ClientId, number: u32, socket: OwnedFd, events: &mut Vec<Event>) {
        match Stream::unix(UnixStream::from(socket), false, None) {
            Ok(stream) => self.vhost_user_connected(number, stream, events),
            Err(error) => self.passt_lost(client, &format!("its socket cannot be used: {error}"), events),
        }
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::Passt`].
    pub fn passt_ready(&mut self, ready: Ready, events: &mut Vec<Event>) {
        for happened in self.passts.ready(ready) {
            match happened {
                Happened::Ended(client) => self.passt_lost(client, ENDED, events),
                Happened::Again(client, options) => self.start_again(client, options),
            }
        }
    }

    /// Its end of a stream was closed.
    pub(in crate::commands) fn passt_closed(&mut self, client: ClientId, events: &mut Vec<Event>) {
        self.passt_lost(client, CLOSED, events);
    }

    /// Looks at those on rings: connections that stand, and connections that ended.
    pub(in crate::commands) fn look_at_passts(&mut self, events: &mut Vec<Event>) {
        let all: Vec<ClientId> = self.passts.on_rings().collect();
        for client in all {
            let Some(netdev) = self.vhost_users.of(client) else { continue };
            match netdev.standing() {
                Standing::Alone => {
                    let why = netdev.ended.clone().unwrap_or_else(|| CLOSED.to_owned());
                    self.passt_lost(client, &why, events);
                }
                Standing::Running => {
                    let pid = self.passts.pid(client).unwrap_or_default();
                    self.describe_as(client, &format!("vhost-user,connected to pid {pid}"));
                }
                Standing::Connecting | Standing::Failed(..) => {}
            }
        }
    }

    /// A passt is of no more use: whatever of it is left ends, and another one is started.
    fn passt_lost(&mut self, client: ClientId, why: &str, events: &mut Vec<Event>) {
        if !self.passts.lost(client, why) {
            return;
        }
        self.binding.end_process(client);
        self.describe_as(client, "launching passt");
        self.streams.cut(client, &mut self.net, &mut self.binding);
        self.vhost_users.cut(client, &mut self.net, &mut self.binding);
        self.settle_links(events);
    }

    fn start_again(&mut self, client: ClientId, options: Arc<PasstOptions>) {
        let stop = self.passts.stop();
        match self
            .binding
            .jobs
            .start(OPEN_LIMIT, move || Product::Passt(launch(&options, START_LIMIT, &stop)))
        {
            Ok(ticket) => drop(self.pending.insert(ticket, Pending::Respawn(client))),
            Err(error) => {
                self.passts.failed(client, format!("no thread to start it on: {error}"));
            }
        }
    }

    /// The end of the daemon: no passt that is just being started stays behind.
    pub(in crate::commands) fn stop_launches(&mut self) {
        self.passts.stop().wake();
        let end = Instant::now() + STOPPING;
        let starts = |pending: &Pending| matches!(pending, Pending::Passt(_) | Pending::Respawn(_));
        while self.pending.values().any(starts) && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.completion_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
            // One that has started all the same ends with all others.
            drop(self.finish_jobs());
        }
    }

    /// What `info network` says of it.
    fn describe_as(&mut self, client: ClientId, info: &str) {
        if let Some(Client { kind: Kind::Netdev(dev), .. }) = self.net.client_mut(client) {
            dev.info = vec![info.to_owned()];
        }
    }

    /// Its own members of `query-netdev`.
    pub(in crate::commands) fn passt_state(&self, client: ClientId) -> (&'static str, Option<String>) {
        if let Some(trouble) = self.passts.trouble(client) {
            return ("failed", Some(trouble));
        }
        match self.passts.rings(client) {
            Some(_) => self.vhost_user_state(client),
            None => self.stream_state(client),
        }
    }
}
