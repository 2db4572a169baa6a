//! The control state and the table of commands.

use super::chardev::Chardevs;
use super::fd::Fds;
use super::netstat::Baseline;
use super::object::Channels;
use super::pending::Pending;
use crate::af_xdp::AfXdps;
use crate::announce::Announcements;
use crate::apply::{Backends, Binding, DataPlane, Ticket};
use crate::colo::Colos;
use crate::model::Net;
use crate::nic::Nics;
use crate::passt::Passts;
use crate::qmp::error::{ErrorClass, QmpError};
use crate::qmp::events::Event;
use crate::reactor::Reactor;
use crate::schema::Schema;
use crate::stream::Streams;
use crate::user::Users;
use crate::vde::Vdes;
use crate::vhost_net::VhostNets;
use crate::vhost_user::VhostUsers;
use crate::vhost_vdpa::Vdpas;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a command sees of where it came from.
pub struct Context<'a> {
    /// The monitor's number, never used twice; named file descriptors belong to it.
    pub monitor: u64,
    /// Files that came with this command's bytes and were not taken yet.
    pub received: &'a mut Vec<OwnedFd>,
    /// Events that the command causes.
    pub events: &'a mut Vec<Event>,
}

/// A command's answer.
#[derive(Debug)]
pub enum Outcome {
    /// The reply.
    Done(Result<Value, QmpError>),
    /// The reply comes from [`State::completed`].
    Later(Ticket),
}

impl From<Result<Value, QmpError>> for Outcome {
    fn from(result: Result<Value, QmpError>) -> Self {
        Self::Done(result)
    }
}

/// The empty reply.
pub(super) fn empty() -> Value {
    Value::Object(Map::new())
}

/// Everything that the commands know.
pub struct State {
    pub(super) net: Net,
    pub(super) binding: Binding,
    pub(super) chardevs: Box<dyn Chardevs>,
    pub(super) nics: Nics,
    pub(super) vhost_users: VhostUsers,
    pub(super) af_xdps: AfXdps,
    pub(super) streams: Streams,
    pub(super) vdes: Vdes,
    pub(super) passts: Passts,
    pub(super) users: Users,
    pub(super) vdpas: Vdpas,
    pub(super) vhost_nets: VhostNets,
    pub(super) announcements: Announcements,
    pub(super) colos: Colos,
    pub(super) channels: Channels,
    pub(super) fds: Fds,
    pub(super) baseline: Baseline,
    /// Frames that filters still held when they went.
    pub(super) filter_gone: u64,
    /// Ids of objects that are being made.
    pub(super) new_objects: HashSet<String>,
    pub(super) pending: HashMap<Ticket, Pending>,
    /// Jobs that finish the command of an earlier one.
    pub(super) continued: HashMap<Ticket, Ticket>,
    /// Commands of the human monitor whose answer is text.
    pub(super) human: HashSet<Ticket>,
    /// Events that are told behind the reply of the command that caused them.
    pub(super) after_reply: Vec<Event>,
    /// Events of jobs that no command waits for.
    pub(super) of_jobs: Vec<Event>,
    /// Ids of netdevs that the human monitor added.
    pub(super) by_line: HashSet<String>,
    /// Replies that [`State::run`] met while it waited for its own.
    finished: Vec<(Ticket, Result<Value, QmpError>)>,
    quit: bool,
    /// `-name`.
    name: Option<String>,
}

impl State {
    /// A state with no netdev.
    ///
    /// # Errors
    /// The kernel has no descriptor for it.
    pub fn new(
        plane: Box<dyn DataPlane>,
        backends: Arc<dyn Backends>,
        chardevs: Box<dyn Chardevs>,
        reactor: Rc<Reactor>,
    ) -> io::Result<Self> {
        Ok(Self {
            net: Net::new(),
            binding: Binding::new(plane, backends)?,
            chardevs,
            nics: Nics::new(reactor.clone())?,
            af_xdps: AfXdps::new(&reactor)?,
            streams: Streams::new(reactor.clone())?,
            vdes: Vdes::new(reactor.clone())?,
            passts: Passts::new(reactor.clone())?,
            users: Users::new(reactor.clone())?,
            vdpas: Vdpas::new(reactor.clone())?,
            vhost_nets: VhostNets::new(reactor.clone()),
            announcements: Announcements::new(&reactor)?,
            colos: Colos::new(&reactor)?,
            channels: Channels::new(&reactor)?,
            vhost_users: VhostUsers::new(reactor)?,
            fds: Fds::default(),
            baseline: Baseline::default(),
            filter_gone: 0,
            new_objects: HashSet::new(),
            pending: HashMap::new(),
            continued: HashMap::new(),
            human: HashSet::new(),
            after_reply: Vec::new(),
            of_jobs: Vec::new(),
            by_line: HashSet::new(),
            finished: Vec::new(),
            quit: false,
            name: None,
        })
    }

    /// Runs a command whose name exists and whose arguments the schema has checked.
    pub fn execute(&mut self, cx: &mut Context<'_>, command: &str, args: Map<String, Value>) -> Outcome {
        match command {
            "device_add" => self.device_add(args, cx.events).into(),
            "device_del" => self.device_del(&args),
            "nic-set-netdev" => self.nic_set_netdev(&args, cx.events).into(),
            "netdev_add" => self.netdev_add(cx.monitor, args, cx.events),
            "netdev_del" => self.netdev_del(&args, cx.events),
            "announce-self" => Ok(self.announce_self(&args)).into(),
            "netdev-user-forward-add" => self.add_forward(&args),
            "netdev-user-forward-remove" => self.remove_forward(&args),
            "query-netdev-user" => self.query_users(&args),
            "set_link" => self.set_link(&args, cx.events).into(),
            "query-netdev" => self.query_netdev(&args).into(),
            "query-filter" => self.query_filter(&args).into(),
            "query-colo-compare" => Ok(self.query_colo_compare()).into(),
            "query-switch" => self.query_switch(&args).into(),
            "query-net-stats" => Ok(self.query_net_stats()).into(),
            "query-net-stats-reset" => Ok(self.reset_net_stats()).into(),
            "query-rx-filter" => self.query_rx_filter(&args).into(),
            "object-add" => self.object_add(&args),
            "object-del" => self.object_del(&args),
            "qom-list" => self.qom_list(&args).into(),
            "qom-list-get" => self.qom_list_get(&args).into(),
            "qom-get" => self.qom_get(&args).into(),
            "qom-set" => self.qom_set_expression(&args).unwrap_or_else(|| self.qom_set(&args).into()),
            "qom-list-types" => Ok(super::qom::list_types(&args)).into(),
            "qom-list-properties" => super::qom::list_properties(&args).into(),
            "chardev-add" => self.chardev_add(cx.monitor, &args),
            "chardev-remove" => self.chardev_remove(&args).into(),
            "query-chardev" => Ok(self.query_chardev()).into(),
            "getfd" => self.fds.getfd(cx.monitor, cx.received, &args).into(),
            "closefd" => self.fds.closefd(cx.monitor, &args).into(),
            "add-fd" => self.fds.add_fd(cx.received, &args).into(),
            "remove-fd" => self.fds.remove_fd(&args).into(),
            "query-fdsets" => Ok(self.fds.query()).into(),
            "query-version" => Ok(super::query::version()).into(),
            "query-name" => Ok(self.query_name()).into(),
            "query-status" => Ok(json!({"status": "running", "running": true})).into(),
            "query-commands" => Ok(Schema::get().query_commands().clone()).into(),
            "query-qmp-schema" => Ok(Schema::get().introspect().clone()).into(),
            "human-monitor-command" => self.human_monitor_command(cx, &args),
            "quit" => Ok(self.quit(cx.events)).into(),
            _ => Err(QmpError {
                class: ErrorClass::CommandNotFound,
                desc: format!("The command {command} has not been found"),
            })
            .into(),
        }
    }

    /// Runs a command to its end, waiting as long as it takes: for start-up, when nobody else waits.
    ///
    /// # Errors
    /// The command's.
    pub fn run(
        &mut self,
        cx: &mut Context<'_>,
        command: &str,
        args: Map<String, Value>,
    ) -> Result<Value, QmpError> {
        let mine = match self.execute(cx, command, args) {
            Outcome::Done(result) => return result,
            Outcome::Later(ticket) => ticket,
        };
        loop {
            let mut fds = [PollFd::new(self.completion_fd(), PollFlags::POLLIN)];
            // A signal ends the wait early; then there is simply nothing to finish yet.
            let _ = poll(&mut fds, PollTimeout::NONE);
            let mut found = None;
            for (ticket, result) in self.finish_jobs() {
                match ticket == mine {
                    true => found = Some(result),
                    false => self.finished.push((ticket, result)),
                }
            }
            if let Some(result) = found {
                return result;
            }
        }
    }

    /// Replies of commands that were [`Outcome::Later`]. Never blocks; call it when [`State::completion_fd`] is
    /// readable.
    pub fn completed(&mut self, events: &mut Vec<Event>) -> Vec<(Ticket, Result<Value, QmpError>)> {
        let mut replies = std::mem::take(&mut self.finished);
        replies.extend(self.finish_jobs());
        events.append(&mut self.of_jobs);
        replies
    }

    /// Readable when [`State::completed`] has something to say.
    #[must_use]
    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.binding.jobs.fd()
    }

    /// A monitor's connection ended: its named files are closed, and with the last one the sets, as in QEMU.
    pub fn monitor_closed(&mut self, monitor: u64, last: bool) {
        self.fds.forget(monitor, last);
    }

    /// The end of the daemon: scripts run, everything closes. Returns within two seconds.
    pub fn shutdown(&mut self) {
        self.net = Net::new();
        self.colos.end();
        self.stop_launches();
        self.users.end();
        self.binding.end();
    }

    /// Gives the daemon a name, which `query-name` tells.
    pub fn set_name(&mut self, name: &str) {
        self.name = Some(name.to_owned());
    }

    fn query_name(&self) -> Value {
        self.name.as_ref().map_or_else(empty, |name| json!({"name": name}))
    }

    /// Whether `quit` was executed.
    #[must_use]
    pub const fn quit_requested(&self) -> bool {
        self.quit
    }

    /// The network as it is, for whoever shows it.
    #[must_use]
    pub const fn net(&self) -> &Net {
        &self.net
    }

    pub(super) fn quit(&mut self, events: &mut Vec<Event>) -> Value {
        if !self.quit {
            self.quit = true;
            events.push(Event::shutdown("host-qmp-quit", timestamp()));
        }
        empty()
    }
}

/// Now, as events carry it: seconds and microseconds since the epoch, or -1 both.
pub(super) fn timestamp() -> (i64, i64) {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or((-1, -1), |now| (now.as_secs().cast_signed(), i64::from(now.subsec_micros())))
}
