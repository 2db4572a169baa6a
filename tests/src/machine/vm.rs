//! A machine that runs, and the commands for its guest.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Boot, PASSES, PATIENCE, boot};
use crate::qmp::Qmp;

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    /// QEMU's monitor, negotiated.
    pub qmp: Qmp,
    pub(super) child: Child,
    pub(super) channel: UnixStream,
    pub(super) unread: Vec<u8>,
    pub(super) directory: TempDir,
    pub(super) number: u8,
}

impl Machine {
    /// Prepares a machine; its number tells its hardware addresses from those of others.
    #[must_use]
    pub fn prepare(number: u8) -> Boot {
        Boot::new(number)
    }

    /// Waits until the guest takes commands.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up(mut self) -> Self {
        assert_eq!(self.line(), "up", "the first word of a guest");
        self
    }

    /// The hardware address of nic `nic`.
    #[must_use]
    pub fn mac(&self, nic: usize) -> String {
        boot::mac(self.number, nic)
    }

    /// Sends a shell command of one line to the guest; [`answer`](Self::answer) fetches what comes of it.
    ///
    /// # Panics
    /// When the machine is gone.
    pub fn say(&mut self, command: &str) {
        assert!(!command.contains('\n'), "one line a command");
        self.channel.write_all(format!("{command}\n").as_bytes()).expect("the guest's port");
    }

    /// The exit status of the command said last, and what it printed on standard output and error.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn answer(&mut self) -> (i32, String) {
        let line = self.line();
        let numbers = line.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some((status, bytes)) = numbers else { panic!("no answer but {line:?}; {}", self.console()) };
        self.fetch(|unread| (unread.len() >= bytes).then_some(bytes));
        let rest = self.unread.split_off(bytes);
        let text = std::mem::replace(&mut self.unread, rest);
        (status, String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs a command and returns its exit status and what it printed.
    pub fn attempt(&mut self, command: &str) -> (i32, String) {
        self.say(command);
        self.answer()
    }

    /// Runs a command that must succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> String {
        let (status, text) = self.attempt(command);
        assert_eq!(status, 0, "guest {}: {command}\n{text}", self.number);
        text
    }

    /// Gives nic `nic` an address with a 24-bit prefix and turns it up.
    ///
    /// # Panics
    /// When the guest has no such nic.
    #[track_caller]
    pub fn address(&mut self, nic: usize, address: Ipv4Addr) {
        let dev = self.dev(nic);
        self.run(&format!("ip link set {dev} up && ip address replace {address}/24 dev {dev}"));
    }

    /// The guest's name of nic `nic`.
    ///
    /// # Panics
    /// When the guest has no such nic.
    #[track_caller]
    pub fn dev(&mut self, nic: usize) -> String {
        let mac = self.mac(nic);
        self.run(&format!("dev {mac}")).trim().to_owned()
    }

    /// The feature bits that nic `nic` and its driver agreed on.
    ///
    /// # Panics
    /// When the guest has no such nic.
    #[track_caller]
    pub fn features(&mut self, nic: usize) -> u64 {
        let mac = self.mac(nic);
        // Bit 0 first.
        let text = self.run(&format!("cat /sys/class/net/$(dev {mac})/device/features"));
        text.trim().bytes().rev().fold(0, |bits, bit| bits << 1 | u64::from(bit == b'1'))
    }

    /// Resets the machine and waits until its guest is up again.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn reboot(&mut self) {
        self.unread.clear();
        self.qmp.ok("system_reset", Value::Null);
        self.qmp.event("RESET", PATIENCE).expect("a reset");
        assert_eq!(self.line(), "up", "the first word of a guest");
    }

    /// Moves the guest to another machine, which was prepared with [`Boot::incoming`]. It is not stopped before memory was
    /// looked over several times, so that what is written meanwhile has to be noticed.
    ///
    /// # Panics
    /// When the migration fails.
    pub fn migrate(&mut self, to: &mut Self) {
        let uri = format!("unix:{}", to.directory.path().join("migration").display());
        // One millisecond: what is written meanwhile is never sent in so short a time.
        self.qmp.ok("migrate-set-parameters", json!({"downtime-limit": 1}));
        self.qmp.ok("migrate", json!({ "uri": uri }));
        let mut events: VecDeque<Value> = self.qmp.take_events().into();
        let status = loop {
            let next = events.pop_front().map_or_else(|| self.qmp.receive(PATIENCE), Ok);
            let event =
                next.unwrap_or_else(|error| panic!("no end of the migration: {error}; {}", self.console()));
            let data = &event["data"];
            if event["event"] == "MIGRATION_PASS" && data["pass"] == PASSES {
                self.qmp.ok("migrate-set-parameters", json!({"downtime-limit": 1000}));
                events.extend(self.qmp.take_events());
            } else if ["completed", "failed", "cancelled"].iter().any(|end| data["status"] == *end) {
                break data["status"].clone();
            }
        };
        assert_eq!(status, "completed", "{}{}", self.console(), to.console());
        to.qmp.event("RESUME", PATIENCE).expect("the guest goes on");
    }

    /// Kills it without warning.
    pub fn kill(self) {}

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the guest's kernel and QEMU printed.
    #[must_use]
    pub fn console(&self) -> String {
        let text = |name: &str| std::fs::read(self.directory.path().join(name)).unwrap_or_default();
        let [console, qemu] =
            ["console", "stderr"].map(|name| String::from_utf8_lossy(&text(name)).into_owned());
        format!("--- machine {}:\n{qemu}\n{console}---\n", self.number)
    }

    fn line(&mut self) -> String {
        let end = self.fetch(|unread| unread.iter().position(|byte| *byte == b'\n'));
        let rest = self.unread.split_off(end + 1);
        let line = std::mem::replace(&mut self.unread, rest);
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Reads until `enough` finds what it looks for.
    fn fetch(&mut self, enough: impl Fn(&[u8]) -> Option<usize>) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = enough(&self.unread) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.channel.set_read_timeout(Some(left)).expect("a timeout");
            let mut chunk = [0; 4096];
            match self.channel.read(&mut chunk) {
                Ok(0) => panic!("the machine has ended; {}", self.console()),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("the guest does not answer: {error}; {}", self.console()),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprint!("{}", self.console());
        }
    }
}
