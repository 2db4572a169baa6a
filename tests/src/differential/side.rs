//! One program under comparison: started, fed with cases, restarted when it ends or hangs.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::case::{Case, Passed, Step};
use crate::daemon::{Daemon, Program, directory};
use crate::netns::NetNs;
use crate::qmp::Qmp;
use crate::{packet, wait};

/// What one step brought: replies in order, or why there are none.
pub type Outcome = Vec<Value>;

/// Everything that a case brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// One entry a step.
    pub steps: Vec<Outcome>,
    /// Events on the main connection, without their time.
    pub events: Vec<Value>,
}

/// A program and what it needs.
#[derive(Debug)]
pub struct Side {
    program: Program,
    namespace: NetNs,
    running: Option<(Daemon, Qmp)>,
    /// `$DIR`: the same length on both sides.
    files: TempDir,
    marks: u64,
}

/// The names under which programs report errors of their start.
const PROGRAMS: &[&str] = &["netdevd", "qemu-system-x86_64"];

/// Longest wait for one reply; the reference answers within milliseconds.
const REPLY: Duration = Duration::from_secs(5);

impl Side {
    /// A program that will start with the first case, in a network namespace of its own.
    #[must_use]
    pub fn new(program: Program) -> Self {
        Self { program, namespace: NetNs::new(), running: None, files: directory(), marks: 0 }
    }

    /// Runs a case and cleans up after it.
    pub fn run(&mut self, case: &Case) -> Outcomes {
        if case.flags.fresh {
            self.running = None;
        }
        if let Err(reason) = self.start(&case.flags.arguments) {
            return Outcomes { steps: vec![vec![json!(reason)]], events: Vec::new() };
        }
        let mut files = Vec::new();
        let mut steps = Vec::new();
        let mut raw = None;
        for step in &case.steps {
            let outcome = self.step(case, step, &mut files, &mut raw);
            steps.push(outcome.iter().map(|value| self.anonymous(value)).collect());
        }
        drop(raw);
        self.clean(case);
        let events = self.running.as_mut().map(|(_, client)| client.take_events()).unwrap_or_default();
        if case.flags.fresh {
            self.running = None;
        }
        let events = events.iter().map(|event| self.anonymous(event)).collect();
        Outcomes { steps, events }
    }

    /// Runs one command that must succeed, for comparisons of whole replies.
    ///
    /// # Panics
    /// When it fails, or the program does not start.
    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.start(&[]).unwrap_or_else(|reason| panic!("{reason}"));
        let (_, client) = self.running.as_mut().expect("just started");
        client.ok(command, arguments)
    }

    fn start(&mut self, arguments: &[String]) -> Result<(), String> {
        if self.running.is_none() {
            let arguments = arguments.iter().map(|argument| self.local(argument));
            let builder = Daemon::of(self.program).args(arguments).within(&self.namespace).sockets(2);
            let daemon = builder.try_start()?;
            let client = daemon.client();
            self.running = Some((daemon, client));
        }
        Ok(())
    }

    /// `text` with this side's own directory.
    fn local(&self, text: &str) -> String {
        text.replace("$DIR", &self.files.path().to_string_lossy())
    }

    /// `value` without what differs between any two runs: directories, descriptor numbers in texts, times.
    fn anonymous(&self, value: &Value) -> Value {
        let mut text = value.to_string().replace(&*self.files.path().to_string_lossy(), "$DIR");
        if let Some((daemon, _)) = &self.running {
            text = text.replace(&*daemon.directory().to_string_lossy(), "$RUN");
        }
        for marker in [" FD ", "type=tap,fd="] {
            text = without_numbers(&text, marker);
        }
        let mut value: Value = serde_json::from_str(&text).expect("still JSON");
        if let Some(object) = value.as_object_mut() {
            object.shift_remove("timestamp");
        }
        value
    }

    fn step(&mut self, case: &Case, step: &Step, files: &mut Vec<OwnedFd>, raw: &mut Option<Qmp>) -> Outcome {
        match step {
            Step::Files(kinds) => {
                files.extend(kinds.iter().map(|kind| self.open(*kind)));
                Vec::new()
            }
            Step::Command(name, arguments) => {
                let arguments: Value =
                    serde_json::from_str(&self.local(&arguments.to_string())).expect("JSON");
                let Some((_, client)) = self.running.as_mut() else { return vec![json!("not running")] };
                let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
                let reply = client.roundtrip(name, &arguments, &borrowed);
                files.clear();
                vec![reply.unwrap_or_else(|error| self.ended(&error))]
            }
            Step::Event(name) => {
                let Some((_, client)) = self.running.as_mut() else { return vec![json!("not running")] };
                vec![client.event(name, REPLY).unwrap_or_else(|error| json!(error.to_string()))]
            }
            Step::Ip(words) => {
                self.namespace.run("ip", &words.iter().map(String::as_str).collect::<Vec<_>>());
                Vec::new()
            }
            Step::Cli(words) => vec![json!({"cli": self.cli(words)})],
            Step::Raw(bytes) => self.raw(case, bytes, raw),
        }
    }

    /// Bytes on the second socket, and every reply to them. A byte 0xff then resets the parser, and a command with an
    /// id of ours marks the end.
    fn raw(&mut self, case: &Case, bytes: &[u8], connection: &mut Option<Qmp>) -> Outcome {
        let Some((daemon, _)) = self.running.as_ref() else { return vec![json!("not running")] };
        let client = connection.get_or_insert_with(|| {
            let mut client = daemon.connect(1);
            if !case.flags.greeted {
                client.negotiate();
            }
            client
        });
        self.marks += 1;
        let mark = json!(format!("mark {}", self.marks));
        let end = format!("{{\"execute\":\"no-such-mark\",\"id\":{mark}}}");
        if let Err(error) = client.send(&[bytes, b"\xff", end.as_bytes()].concat()) {
            return vec![json!(error.to_string())];
        }
        let mut replies = Vec::new();
        loop {
            // A reply that is no JSON (the reference writes `inf`) is compared as the text that it is.
            let reply = client.line(REPLY).map(|line| {
                serde_json::from_slice(&line)
                    .unwrap_or_else(|_| json!({"text": String::from_utf8_lossy(&line)}))
            });
            match reply {
                Ok(mut reply) if reply.get("id") == Some(&mark) => {
                    reply.as_object_mut().map(|reply| reply.shift_remove("id"));
                    replies.push(reply);
                    return replies;
                }
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    replies.push(self.ended(&error));
                    return replies;
                }
            }
        }
    }

    /// Starts the program once more with arguments of its own: it either comes up or says why not.
    fn cli(&self, words: &[String]) -> Value {
        let place = directory();
        let words: Vec<_> = words.iter().map(|word| self.local(word)).collect();
        let builder = Daemon::of(self.program).args(&words).within(&self.namespace);
        let socket = place.path().join("qmp0.sock");
        let mut command = builder.command(place.path());
        let log = File::create(place.path().join("log")).expect("a log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        // Only an answered command shows that the start is over: a greeting may come before a later option fails.
        let up = wait::until(wait::PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Some(json!({"exit": status.code()})),
            _ => (socket.exists() && answers(&socket)).then(|| json!("runs")),
        });
        let _ = child.kill();
        let _ = child.wait();
        if up == Some(json!("runs")) {
            // What it says beside running are warnings, such as that a hub port has no peer.
            return json!("runs");
        }
        let said = std::fs::read_to_string(place.path().join("log")).unwrap_or_default();
        // The first line under the program's name (log lines have none), without the option that it may repeat.
        let own = |line: &str| line.split_once(": ").filter(|(name, _)| PROGRAMS.contains(name)).is_some();
        let said = said.lines().find(|line| own(line)).and_then(|line| line.split_once(": "));
        let mut said = said.map_or("", |(_, text)| text);
        for pair in words.windows(2) {
            said = said.strip_prefix(&format!("{} {}: ", pair[0], pair[1])).unwrap_or(said);
        }
        json!({"outcome": up.unwrap_or_else(|| json!("neither answers nor ends")), "said": said})
    }

    /// Why there is no reply; the program starts anew with the next case.
    fn ended(&mut self, error: &std::io::Error) -> Value {
        let Some((mut daemon, _)) = self.running.take() else { return json!("not running") };
        if error.kind() == ErrorKind::TimedOut {
            return json!("hangs");
        }
        let status = daemon.ended(Duration::from_secs(1));
        json!(format!("ended: {error}, {status:?}"))
    }

    fn open(&self, kind: Passed) -> OwnedFd {
        let pair = |kind| {
            let none = SockFlag::SOCK_CLOEXEC;
            let (one, other) = socketpair(AddressFamily::Unix, kind, None, none).expect("a socket pair");
            // The other end stays open as long as this process: a closed one would be a different case.
            std::mem::forget(other);
            one
        };
        match kind {
            Passed::Null => File::open("/dev/null").expect("/dev/null").into(),
            Passed::Pipe => nix::unistd::pipe().expect("a pipe").0,
            Passed::Stream => pair(SockType::Stream),
            Passed::Dgram => pair(SockType::Datagram),
            Passed::Tap => self.namespace.inside(|| packet::tap(false)).expect("a tap"),
            Passed::TapVnet => self.namespace.inside(|| packet::tap(true)).expect("a tap"),
        }
    }

    /// Removes whatever the case's commands may have made, known by the ids in them.
    fn clean(&mut self, case: &Case) {
        let Some((_, client)) = self.running.as_mut() else { return };
        if case.flags.fresh {
            return;
        }
        let mut undo = Vec::new();
        for step in &case.steps {
            let Step::Command(name, arguments) = step else { continue };
            let named = |key: &str| arguments.get(key).filter(|value| value.is_string()).cloned();
            let (command, key, value) = match name.as_str() {
                "netdev_add" => ("netdev_del", "id", named("id")),
                "object-add" => ("object-del", "id", named("id")),
                "chardev-add" => ("chardev-remove", "id", named("id")),
                "getfd" => ("closefd", "fdname", named("fdname")),
                "human-monitor-command" => {
                    let id = named("command-line").and_then(|line| hmp_id(line.as_str()?));
                    ("netdev_del", "id", id)
                }
                _ => continue,
            };
            // Objects and filters first: a chardev or netdev that they use is busy.
            if let Some(value) = value {
                let rank =
                    ["object-del", "netdev_del", "chardev-remove"].iter().position(|this| *this == command);
                undo.push((rank, command, json!({key: value})));
            }
        }
        undo.sort_by_key(|(rank, ..)| *rank);
        for (_, command, arguments) in undo {
            if client.roundtrip(command, &arguments, &[]).is_err() {
                self.running = None;
                return;
            }
        }
        let sets = client.roundtrip("query-fdsets", &Value::Null, &[]).unwrap_or_default();
        for set in sets["return"].as_array().into_iter().flatten() {
            let _ = client.roundtrip("remove-fd", &json!({"fdset-id": set["fdset-id"]}), &[]);
        }
    }
}

/// `text` with an N for the number after each `marker`.
fn without_numbers(text: &str, marker: &str) -> String {
    let digit = |letter: char| letter.is_ascii_digit();
    let parts: Vec<_> = text.split(marker).collect();
    let rest = parts[1..].iter().map(|part| format!("{marker}N{}", part.trim_start_matches(digit)));
    parts[0].to_string() + &rest.collect::<String>()
}

/// Whether a whole command is answered at this socket.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<()> {
        let mut client = Qmp::connect(socket, Duration::ZERO)?;
        client.roundtrip("qmp_capabilities", &Value::Null, &[])?;
        client.roundtrip("query-status", &Value::Null, &[]).map(drop)
    };
    ask().is_ok()
}

/// The id in `netdev_add TYPE,id=ID,...`.
fn hmp_id(line: &str) -> Option<Value> {
    let id = line.strip_prefix("netdev_add ")?.split("id=").nth(1)?;
    Some(Value::from(id.split(',').next()?))
}
