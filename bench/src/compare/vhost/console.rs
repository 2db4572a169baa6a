//! `dpdk-testpmd` with a prompt: commands and their answers over pipes. `stdbuf` makes it flush each line; a pseudo-terminal would
//! do that too, but needs a kernel thread for every answer, which gets no CPU while both are polled.

use crate::compare::netns::{Namespace, preferred_in};
use crate::compare::process::reap;
use crate::failure::{Context, Failure, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const PROMPT: &str = "testpmd> ";
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A testpmd that is up. Dropping it ends it.
#[derive(Debug)]
pub struct Console {
    name: String,
    child: Child,
    input: ChildStdin,
    said: Arc<Said>,
}

/// What was printed so far.
#[derive(Debug, Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

/// What a testpmd is for.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Its name in messages and for its files.
    pub name: &'a str,
    /// The CPU of its prompt (asleep) and of its forwarding core.
    pub cpu: usize,
    /// The namespace that it runs in, where it is not the usual one.
    pub inside: Option<&'a Namespace>,
    /// MiB of hugepages.
    pub memory: usize,
    /// Devices.
    pub vdevs: Vec<String>,
    /// Options behind `--`.
    pub options: Vec<String>,
}

impl Console {
    /// Starts it and waits for the prompt.
    ///
    /// # Errors
    /// With what it printed last.
    pub fn start(setup: &Setup<'_>) -> Result<Self> {
        let mut command = preferred_in(setup.inside, "stdbuf");
        command.args(["-oL", "dpdk-testpmd", "--no-pci", "--in-memory", "--single-file-segments"]);
        command.args(["--lcores", &format!("0@{0},1@{0}", setup.cpu), "-m", &setup.memory.to_string()]);
        command.args(["--file-prefix", &format!("nd{}{}", std::process::id(), setup.name)]);
        for vdev in &setup.vdevs {
            command.args(["--vdev", vdev]);
        }
        command.args(["--", "-i", "--record-core-cycles", "--nb-cores=1", "--forward-mode=io"]);
        command.args(&setup.options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("dpdk-testpmd (Debian's package dpdk-dev)")?;
        let (Some(input), Some(mut from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("dpdk-testpmd has no input or output"));
        };
        let said = Arc::new(Said::default());
        let to = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                let mut text = to.text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&bytes[..n]));
                to.more.notify_all();
            }
        });
        let mut this = Self { name: setup.name.to_owned(), child, input, said };
        this.wait(0)?;
        Ok(this)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command; what it printed.
    ///
    /// # Errors
    /// When it has ended, or does not answer within half a minute.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let at = self.said.text.lock().unwrap_or_else(PoisonError::into_inner).len();
        writeln!(self.input, "{line}").context(&self.name)?;
        // The line is echoed, behind nothing or behind a prompt.
        self.wait(at + line.len())
    }

    /// Waits for a prompt behind `at`; what stands in front of it.
    fn wait(&mut self, at: usize) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let gone = self.child.try_wait().context(&self.name)?.is_some();
            let text = self.said.text.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = text.get(at..).unwrap_or_default();
            if let Some(end) = rest.find(PROMPT) {
                return Ok(rest[..end].to_owned());
            }
            if gone || Instant::now() > until {
                let start = text.len().saturating_sub(400);
                let tail = text.get(start..).unwrap_or(&text).replace(['\r', '\n'], " ");
                return Err(Failure::new(format!("{}: no answer: {tail}", self.name)));
            }
            let _ = self.said.more.wait_timeout(text, Duration::from_millis(100));
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGCONT);
        let _ = kill(pid, Signal::SIGTERM);
        reap(&mut self.child, Duration::from_secs(5));
    }
}

/// What `show fwd stats all` tells of all cores together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Forwarded {
    /// TSC cycles of polls that returned frames.
    pub cycles: f64,
    /// Frames received.
    pub frames: f64,
    /// Frames that it had to drop, since the other ring was full.
    pub dropped: f64,
}

impl Forwarded {
    /// Reads the answer.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| -> Option<f64> {
            let text = text.trim_start();
            text.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?.parse().ok()
        };
        let (_, cycles) = text.split_once("(total cycles=")?;
        let (_, frames) = cycles.split_once("packets=")?;
        let dropped = text.rsplit("TX-dropped:").next().and_then(number).unwrap_or(0.0);
        Some(Self { cycles: number(cycles)?, frames: number(frames)?, dropped })
    }
}

/// The sum of a counter over all ports in `show port stats all`.
#[must_use]
pub fn port_sum(text: &str, counter: &str) -> f64 {
    let values = text.split(counter).skip(1);
    values.filter_map(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_statistics_are_read() {
        let text = "  TX-packets: 1 TX-dropped: 5 TX-total: 6\n +++ Accumulated\n  TX-packets: 9 TX-dropped: 7             TX-total: 16\n\
                    \n  CPU cycles/packet=162.37 (total cycles=3247 / total RX packets=20) at 2596 MHz Clock\n";
        assert_eq!(Forwarded::parse(text), Some(Forwarded { cycles: 3247.0, frames: 20.0, dropped: 7.0 }));
        assert_eq!(Forwarded::parse("nothing"), None);
    }

    #[test]
    fn port_counters_are_added_up() {
        let text = "NIC statistics for port 0\n RX-packets: 10 RX-missed: 0\nNIC statistics for port 1\n RX-packets: 32  RX-m";
        assert_eq!(port_sum(text, "RX-packets:"), 42.0);
    }
}
