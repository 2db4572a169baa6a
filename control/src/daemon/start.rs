//! Start-up: everything that the command line asks for, in the order in which things need each other.

use super::Fatal;
use super::chardevs::Shared;
use super::executor::Commands;
use super::place::Placement;
use super::settings::Settings;
use crate::apply::{Backends, SystemBackends};
use crate::chardev::Registry;
use crate::commands::{Context, State};
use crate::options::{self, monitor};
use crate::qmp::{QmpError, Session};
use crate::reactor::Reactor;
use crate::schema::Schema;
use crate::server::Server;
use engine::uring::IoMode;
use engine::{Config, Engine};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// A daemon that is ready to serve.
pub(super) struct Daemon {
    pub(super) reactor: Rc<Reactor>,
    pub(super) registry: Rc<RefCell<Registry>>,
    pub(super) server: Server,
    pub(super) commands: Commands,
    /// What is not as it should be, though everything works.
    pub(super) warnings: Vec<String>,
}

/// Starts the engine and makes what the settings name.
pub(super) fn start(settings: &Settings) -> Result<Daemon, Fatal> {
    super::place::raise_file_limit()?;
    let placement = Placement::new(&settings.cores);
    let config = Config {
        cores: settings.cores.clone(),
        idle: settings.idle,
        yield_empty: placement.yield_empty,
        io: settings.batched.then_some(IoMode::Batched),
    };
    let engine = Engine::start(&config).map_err(|e| match settings.cores.is_empty() {
        true => Fatal::new(e.to_string()),
        false => {
            let list: Vec<String> = settings.cores.iter().map(ToString::to_string).collect();
            Fatal::option("cores", &list.join(","), e)
        }
    })?;
    placement.keep_off();
    // Told when all has started: an error of an option is to be the first thing that is read.
    let warnings: Vec<String> = engine.warnings();

    let system = |e: &dyn std::fmt::Display| Fatal::new(format!("cannot start: {e}"));
    let reactor = Rc::new(Reactor::new().map_err(|e| system(&e.desc()))?);
    let registry = Registry::new(reactor.clone()).map_err(|e| system(&e.desc()))?;
    let registry = Rc::new(RefCell::new(registry));
    let backends: Arc<dyn Backends> = Arc::new(SystemBackends::new(engine.arena(), engine.wakers()));
    let state = State::new(Box::new(engine), backends, Box::new(Shared(registry.clone())), reactor.clone())
        .map_err(|e| system(&e))?;
    let server = Server::new(reactor.clone());
    let mut daemon = Daemon { reactor, registry, server, commands: Commands(state), warnings };
    daemon.make(settings)?;
    Ok(daemon)
}

impl Daemon {
    fn make(&mut self, settings: &Settings) -> Result<(), Fatal> {
        if let Some(name) = &settings.name {
            let opts =
                options::opts::Opts::parse(name, "guest").map_err(|e| Fatal::option("name", name, e))?;
            self.commands.0.set_name(opts.get("guest").unwrap_or_default());
        }
        for text in &settings.chardevs {
            let chardev = options::chardev::from_cli(text).map_err(|e| Fatal::option("chardev", text, e))?;
            self.chardev("chardev", text, &chardev)?;
        }
        for text in &settings.netdevs {
            self.command("netdev", text, "netdev_add", options::from_cli("Netdev", text))?;
        }
        for text in &settings.devices {
            self.command("device", text, "device_add", options::device::from_cli(text))?;
        }
        for text in &settings.objects {
            self.command("object", text, "object-add", options::from_cli("ObjectOptions", text))?;
        }
        for path in &settings.configs {
            self.config(path)?;
        }
        for text in &settings.mons {
            let mon = monitor::from_mon(text).map_err(|e| Fatal::option("mon", text, e))?;
            if !mon.control {
                let why =
                    "netdevd has no human monitor of its own; use mode=control and human-monitor-command";
                return Err(Fatal::option("mon", text, why));
            }
            self.monitor("mon", text, &mon.chardev, mon.pretty)?;
        }
        for (number, (text, pretty)) in settings.qmps.iter().enumerate() {
            let label = format!("compat_monitor{number}");
            let (mon, chardev) =
                monitor::from_qmp(text, &label).map_err(|e| Fatal::option("qmp", text, e))?;
            if let Some(chardev) = chardev {
                self.chardev("qmp", text, &chardev)?;
            }
            self.monitor("qmp", text, &mon.chardev, *pretty || mon.pretty)?;
        }
        Ok(())
    }

    fn chardev(
        &mut self,
        option: &str,
        text: &str,
        chardev: &options::chardev::Chardev,
    ) -> Result<(), Fatal> {
        let value = serde_json::to_value(chardev).map_err(|e| Fatal::option(option, text, e))?;
        let id = value["id"].as_str().unwrap_or_default().to_owned();
        let mut given = inherited_socket;
        let added = self.registry.borrow_mut().add(&id, &value["backend"], &mut given);
        added.map(drop).map_err(|e| Fatal::option(option, text, e.on_command_line()))
    }

    fn monitor(&mut self, option: &str, text: &str, chardev: &str, pretty: bool) -> Result<(), Fatal> {
        let added = self.server.add_monitor(chardev, pretty, &self.registry, &mut self.commands);
        added.map_err(|e| Fatal::option(option, text, e.on_command_line()))
    }

    fn command(
        &mut self,
        option: &str,
        text: &str,
        command: &str,
        args: Result<Map<String, Value>, QmpError>,
    ) -> Result<(), Fatal> {
        let run = args.and_then(|args| self.run(command, args));
        run.map_err(|e| Fatal::option(option, text, e))
    }

    fn run(&mut self, command: &str, args: Map<String, Value>) -> Result<(), QmpError> {
        let (mut received, mut events) = (Vec::new(), Vec::new());
        let mut cx = Context { monitor: u64::MAX, received: &mut received, events: &mut events };
        self.commands.0.run(&mut cx, command, args).map(drop)
    }

    /// Runs a file of QMP commands, a JSON object a line; blank lines and those that begin with `#` are passed over.
    fn config(&mut self, path: &Path) -> Result<(), Fatal> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Fatal::option("config", &shown, e))?;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let at = |why: &dyn std::fmt::Display| {
                Fatal::option("config", &shown, format_args!("line {}: {why}", number + 1))
            };
            let mut session = Session::new(false);
            let request = read_command(&mut session, line).map_err(|e| at(&e))?;
            let Some(request) = request else { return Err(at(&"not one whole QMP command")) };
            self.run(&request.command, request.arguments).map_err(|e| at(&e))?;
        }
        Ok(())
    }
}

/// A socket that the daemon was started with, by its number (QEMU `util/qemu-sockets.c`, `socket_get_fd`): no monitor has given names yet.
fn inherited_socket(number: &str) -> Result<OwnedFd, String> {
    let parsed = number.parse().map_err(|_| format!("Unable to parse FD number {number}"))?;
    crate::fds::inherited(parsed).map_err(|_| format!("File descriptor '{number}' is not a socket"))
}

/// The command of one line, checked; a session does it, as it would on a socket.
fn read_command(session: &mut Session, line: &str) -> Result<Option<crate::qmp::Request>, QmpError> {
    let table = Schema::get();
    session.feed(b"{\"execute\": \"qmp_capabilities\"}\n");
    // Negotiation is answered inside.
    let none = session.next(table);
    debug_assert!(none.is_none());
    session.output().clear();
    session.feed(line.as_bytes());
    session.feed(b"\n");
    let request = session.next(table);
    let reply: Value = serde_json::from_slice(session.output()).unwrap_or_else(|_| json!({}));
    match (request, reply["error"]["desc"].as_str()) {
        (None, Some(desc)) => Err(QmpError::generic(desc)),
        (request, _) => Ok(request),
    }
}
