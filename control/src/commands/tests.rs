//! Every text here was given by QEMU 10.0.2 to the same command, unless a comment says otherwise.
#![allow(clippy::needless_pass_by_value)] // arguments are made for one call

mod datagrams;
mod files;
mod filters;
mod matching;
mod netdevs;
mod passt;
mod real;
mod streams;
mod switch;
mod user;
mod vde;
mod vhost_user;

use super::chardev::{Added, ChardevInfo, Chardevs, FdSource};
use super::{Context, Outcome, State, Ticket};
use crate::apply::fake::{FakeBackends, FakePlane, Log};
use crate::apply::{Backends, DataPlane};
use crate::chardev::{Stream, User};
use crate::qmp::error::{ErrorClass, QmpError};
use crate::qmp::events::Event;
use crate::reactor::Reactor;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Map, Value, json};
use std::any::Any;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

/// Chardevs that nobody ever connects to: those whose id begins with `s` are sockets, the others null.
#[derive(Default)]
struct FakeChardevs(Vec<String>, Vec<String>);

impl Chardevs for FakeChardevs {
    fn claim(&mut self, id: &str, _user: User) -> Result<Option<Stream>, QmpError> {
        let known = self.0.iter().any(|c| c == id);
        self.1.push(id.to_owned());
        known.then_some(None).ok_or_else(|| QmpError::generic(format!("Chardev '{id}' not found")))
    }

    fn disconnected(&mut self, _id: &str) {}

    fn release(&mut self, id: &str) {
        self.1.retain(|c| c != id);
    }

    fn add(&mut self, id: &str, _backend: &Value, _fds: &mut FdSource<'_>) -> Result<Added, QmpError> {
        self.0.push(id.to_owned());
        match id {
            "slow" => Ok(Added::Opening(Box::new(|| Box::new(7u32)))),
            _ => Ok(Added::Done(json!({}))),
        }
    }

    fn finish(&mut self, _id: &str, opened: Box<dyn Any + Send>) -> Result<Value, QmpError> {
        assert_eq!(opened.downcast_ref::<u32>(), Some(&7));
        Ok(json!({}))
    }

    fn abandon(&mut self, id: &str) {
        self.0.retain(|c| c != id);
    }

    fn remove(&mut self, id: &str) -> Result<(), QmpError> {
        let n = self.0.len();
        self.abandon(id);
        let missing = || QmpError::generic(format!("Chardev '{id}' not found"));
        (self.0.len() < n).then_some(()).ok_or_else(missing)
    }

    fn list(&self) -> Vec<ChardevInfo> {
        let info = |id: &String| ChardevInfo {
            label: id.clone(),
            filename: "null".into(),
            frontend_open: self.1.contains(id),
            driver: if id.starts_with('s') { "chardev-socket" } else { "chardev-null" },
            connected: None,
            addr: id.starts_with('s').then(|| json!({"type": "unix", "path": "/s"})),
            reconnects: false,
        };
        self.0.iter().map(info).collect()
    }
}

/// A state over fakes, and a client of it.
pub(super) struct Client {
    pub(super) state: State,
    pub(super) log: Arc<Log>,
    received: Vec<OwnedFd>,
    pub(super) events: Vec<Event>,
    reactor: Rc<Reactor>,
}

impl Client {
    pub(super) fn new() -> Self {
        let log = Arc::new(Log::default());
        let plane = Box::new(FakePlane::new(log.clone()));
        let backends = Arc::new(FakeBackends(log.clone()));
        Self::over(plane, backends, log)
    }

    fn over(plane: Box<dyn DataPlane>, backends: Arc<dyn Backends>, log: Arc<Log>) -> Self {
        let reactor = Rc::new(Reactor::new().unwrap());
        let state = State::new(plane, backends, Box::new(FakeChardevs::default()), reactor.clone()).unwrap();
        Self { state, log, received: Vec::new(), events: Vec::new(), reactor }
    }

    fn send(&mut self, command: &str, args: &Value) -> Outcome {
        let args: Map<String, Value> = args.as_object().cloned().unwrap_or_default();
        let mut cx = Context { monitor: 1, received: &mut self.received, events: &mut self.events };
        self.state.execute(&mut cx, command, args)
    }

    /// Waits for the reply of a ticket, at most five seconds.
    fn wait(&mut self, ticket: Ticket) -> Result<Value, QmpError> {
        loop {
            let mut fds = [PollFd::new(self.state.completion_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(5000u16)).unwrap(), 1, "no reply in time");
            let replies = self.state.completed(&mut self.events);
            if let Some((_, result)) = replies.into_iter().find(|(t, _)| *t == ticket) {
                return result;
            }
        }
    }

    fn run(&mut self, command: &str, args: Value) -> Result<Value, QmpError> {
        match self.send(command, &args) {
            Outcome::Done(result) => result,
            Outcome::Later(ticket) => self.wait(ticket),
        }
    }

    #[track_caller]
    pub(super) fn ok(&mut self, command: &str, args: Value) -> Value {
        self.run(command, args).unwrap_or_else(|e| panic!("{command}: {e}"))
    }

    /// The command is refused with `GenericError` and this text.
    #[track_caller]
    pub(super) fn refused(&mut self, command: &str, args: Value, desc: &str) {
        let error = self.run(command, args.clone()).expect_err(&format!("{command} {args}"));
        assert_eq!((error.class, error.desc.as_str()), (ErrorClass::GenericError, desc), "{command} {args}");
    }

    /// The command is refused with `DeviceNotFound` and this text.
    #[track_caller]
    pub(super) fn missing(&mut self, command: &str, args: Value, desc: &str) {
        let error = self.run(command, args.clone()).expect_err(&format!("{command} {args}"));
        assert_eq!(
            (error.class, error.desc.as_str()),
            (ErrorClass::DeviceNotFound, desc),
            "{command} {args}"
        );
    }

    /// The text that a line of the human monitor gives.
    #[track_caller]
    pub(super) fn line(&mut self, line: &str) -> String {
        self.ok("human-monitor-command", json!({"command-line": line})).as_str().unwrap().to_owned()
    }

    pub(super) fn port(&mut self, id: &str, hub: i32) {
        self.ok("netdev_add", json!({"type": "hubport", "id": id, "hubid": hub}));
    }

    pub(super) fn tap(&mut self, id: &str) {
        self.ok(
            "netdev_add",
            json!({"type": "tap", "id": id, "ifname": id, "script": "no", "downscript": "no"}),
        );
    }
}

#[test]
fn the_daemon_tells_qemus_version_and_its_own() {
    let mut c = Client::new();
    let version = c.ok("query-version", json!({}));
    assert_eq!(version["qemu"], json!({"major": 10, "minor": 0, "micro": 2}));
    assert!(version["package"].as_str().unwrap().starts_with("netdevd "));
    assert_eq!(c.ok("query-name", json!({})), json!({}));
    assert_eq!(c.ok("query-status", json!({})), json!({"status": "running", "running": true}));
    let error = c.run("nosuch", json!({})).unwrap_err();
    assert_eq!(error.class, ErrorClass::CommandNotFound);
    assert_eq!(error.desc, "The command nosuch has not been found");
}

#[test]
fn quit_says_so_once() {
    let mut c = Client::new();
    assert!(!c.state.quit_requested());
    assert_eq!(c.ok("quit", json!({})), json!({}));
    assert_eq!(c.line("quit"), "");
    assert!(c.state.quit_requested());
    assert_eq!(c.events.len(), 1);
    assert_eq!(c.events[0].name, "SHUTDOWN");
    assert_eq!(c.events[0].data, Some(json!({"guest": false, "reason": "host-qmp-quit"})));
}

#[test]
fn a_chardev_may_open_off_the_control_thread() {
    let mut c = Client::new();
    c.ok("chardev-add", json!({"id": "c0", "backend": {"type": "null", "data": {}}}));
    c.ok("chardev-add", json!({"id": "slow", "backend": {"type": "null", "data": {}}}));
    let all = c.ok("query-chardev", json!({}));
    assert_eq!(all[0], json!({"label": "c0", "filename": "null", "frontend-open": false}));
    assert_eq!(c.line("info chardev"), "c0: filename=null\r\nslow: filename=null\r\n");
    c.ok("chardev-remove", json!({"id": "slow"}));
    c.refused("chardev-remove", json!({"id": "slow"}), "Chardev 'slow' not found");
    assert_eq!(c.line("chardev-remove slow"), "Error: Chardev 'slow' not found\r\n");
}

#[test]
fn start_up_waits_for_its_own_command_and_keeps_other_replies() {
    let mut c = Client::new();
    let Outcome::Later(other) = c.send("netdev_add", &json!({"type": "tap", "id": "a"})) else { panic!() };
    let args = json!({"type": "tap", "id": "b"}).as_object().cloned().unwrap();
    let mut cx = Context { monitor: 0, received: &mut Vec::new(), events: &mut Vec::new() };
    c.state.run(&mut cx, "netdev_add", args).unwrap();
    let replies = c.state.completed(&mut Vec::new());
    if !replies.iter().any(|(t, _)| *t == other) {
        c.wait(other).unwrap();
    }
}
