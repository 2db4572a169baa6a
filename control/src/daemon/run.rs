//! The daemon from its first instruction to its last.

use super::logs::Logs;
use super::metrics::Metrics;
use super::pidfile::Pidfile;
use super::settings::{Action, Settings, parse};
use super::start::{Daemon, start};
use super::{Fatal, detach};
use crate::chardev::User;
use crate::qmp::Event;
use crate::reactor::{Interest, Part, Ready, Signals, Token};
use nix::sys::signal::Signal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long clients may take to read their last replies.
const FAREWELL: Duration = Duration::from_millis(200);

/// Runs the daemon with these arguments (without the program's name).
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    match begin(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("netdevd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin(args: &[String]) -> Result<ExitCode, Fatal> {
    let settings = match parse(args.iter().cloned())? {
        Action::Print(text) => {
            print!("{text}");
            return Ok(ExitCode::SUCCESS);
        }
        Action::Run(settings) => settings,
    };
    if settings.daemonize && !detach::is_detached() {
        return detach::start(args);
    }
    if settings.daemonize {
        detach::leave()?;
    }
    run(&settings).map(|()| ExitCode::SUCCESS)
}

fn run(settings: &Settings) -> Result<(), Fatal> {
    let logs = Logs::start(settings.logfile.as_deref())?;
    // Before any thread: all of them inherit the mask.
    let wanted = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let mut signals = Signals::block(&wanted).map_err(|e| Fatal::new(format!("signals: {}", e.desc())))?;
    let pidfile = settings.pidfile.as_deref().map(Pidfile::write).transpose()?;
    let mut daemon = start(settings)?;
    let mut metrics = Metrics::start(&settings.metrics, daemon.reactor.clone())?;
    daemon.watch(&signals)?;
    let name = settings.name.as_deref().unwrap_or("netdevd");
    for warning in &daemon.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!("{name} {} is ready", env!("CARGO_PKG_VERSION"));
    if settings.daemonize {
        detach::ready()?;
    }
    // Without a service manager nobody listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    daemon.serve(&mut signals, &mut metrics, &logs);

    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("{name} ends");
    daemon.commands.0.shutdown();
    daemon.server.finish(FAREWELL);
    drop(metrics);
    drop(daemon);
    drop(pidfile);
    Ok(())
}

impl Daemon {
    fn watch(&self, signals: &Signals) -> Result<(), Fatal> {
        let failed = |e: nix::Error| Fatal::new(format!("cannot watch signals: {}", e.desc()));
        self.reactor.watch(signals, Token::new(Part::Signals, 0, 0), Interest::READ).map_err(failed)?;
        let done = self.commands.0.completion_fd();
        self.reactor.watch(done, Token::new(Part::Completion, 0, 0), Interest::READ).map_err(failed)
    }

    /// Serves until it is told to end.
    fn serve(&mut self, signals: &mut Signals, metrics: &mut Metrics, logs: &Logs) {
        let mut ready = Vec::new();
        while !self.commands.0.quit_requested() {
            let timeout = self.server.needs_turn().then_some(Duration::ZERO);
            if let Err(error) = self.reactor.wait(timeout, &mut ready) {
                tracing::error!("waiting for events failed: {}", error.desc());
                return;
            }
            for event in ready.drain(..) {
                match event.token.part {
                    Part::Signals => {
                        if self.signal(signals, logs) {
                            return;
                        }
                    }
                    Part::Metrics => metrics.ready(event, &self.commands.0),
                    _ => self.handle(event),
                }
            }
            if self.server.needs_turn() {
                self.server.turn(&self.registry, &mut self.commands);
            }
        }
    }

    fn handle(&mut self, event: Ready) {
        match event.token.part {
            Part::Completion => self.server.completed(&self.registry, &mut self.commands),
            Part::Monitor => self.server.ready(event, &self.registry, &mut self.commands),
            Part::Chardev => {
                let mut connected = Vec::new();
                self.registry.borrow_mut().ready(event, &mut connected);
                for one in connected {
                    let mut events = Vec::new();
                    match one.user {
                        User::Monitor(_) => self.server.connected(one, &self.registry, &mut self.commands),
                        User::Nic(nic) => self.commands.0.nic_connected(nic, one.stream, &mut events),
                        User::Netdev(netdev) => {
                            self.commands.0.vhost_user_connected(netdev, one.stream, &mut events);
                        }
                        User::Compare(number, role) => {
                            self.commands.0.compare_connected(number, role, &one.stream);
                        }
                        User::Forward(number) => {
                            self.commands.0.guest_forward_connected(number, one.stream);
                        }
                        User::Filter(number) => self.commands.0.filter_connected(number, one.stream),
                    }
                    self.server.tell(&events);
                }
            }
            Part::Nic => {
                let mut events = Vec::new();
                self.commands.0.nic_ready(event, &mut events);
                self.server.tell(&events);
            }
            Part::VhostUser => {
                let mut events = Vec::new();
                self.commands.0.vhost_user_ready(event, &mut events);
                self.server.tell(&events);
            }
            Part::Links => {
                let mut events = Vec::new();
                self.commands.0.links_changed(&mut events);
                self.server.tell(&events);
            }
            Part::Streams => {
                let mut events = Vec::new();
                self.commands.0.stream_ready(event, &mut events);
                self.server.tell(&events);
            }
            Part::Vde => {
                let mut events = Vec::new();
                self.commands.0.vde_ready(event, &mut events);
                self.server.tell(&events);
            }
            Part::Passt => {
                let mut events = Vec::new();
                self.commands.0.passt_ready(event, &mut events);
                self.server.tell(&events);
            }
            Part::User => {
                self.commands.0.user_ready(event);
            }
            Part::Vdpa => {
                let mut events = Vec::new();
                self.commands.0.vdpa_ready(event, &mut events);
                self.server.tell(&events);
            }
            Part::VhostNet => {
                let mut events = Vec::new();
                self.commands.0.vhost_net_ready(event, &mut events);
                self.server.tell(&events);
            }
            Part::Announce => self.commands.0.announcements_due(),
            Part::Colo => self.commands.0.colo_ready(),
            Part::Filters => self.commands.0.filters_ready(),
            Part::Signals | Part::Metrics => {}
        }
    }

    /// True: the daemon ends.
    fn signal(&mut self, signals: &mut Signals, logs: &Logs) -> bool {
        while let Some((signal, sender)) = signals.take() {
            if signal == Signal::SIGHUP {
                logs.reopen();
                continue;
            }
            tracing::info!("terminating on {signal} from process {sender}");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let timestamp = (now.as_secs().cast_signed(), i64::from(now.subsec_micros()));
            self.server.tell(&[Event::shutdown("host-signal", timestamp)]);
            return true;
        }
        false
    }
}
