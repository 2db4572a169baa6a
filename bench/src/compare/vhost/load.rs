//! Who sends and takes: pktgen, the light guest, or a testpmd with two virtio-user ports.

use super::cases::Case;
use super::console::{Console, Forwarded, Setup, port_sum};
use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, preferred_in};
use crate::compare::process::reap;
use crate::failure::{Context, Failure, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// A generator.
pub trait Load {
    /// Its process.
    fn pid(&self) -> u32;

    /// Whether it runs by itself, and has to be stopped while the other one is measured.
    fn spins(&self) -> bool;
}

/// One slice of pktgen: what was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// Frames a second, both ways together.
    pub rate: Option<f64>,
    /// How long it counts.
    pub length: Duration,
    /// Count latencies.
    pub stamps: bool,
    /// Compare every byte.
    pub verify: bool,
}

/// What pktgen answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Got {
    /// Seconds that were sent in.
    pub all_secs: f64,
    /// Million frames a second received.
    pub mpps: f64,
    /// Frames sent, or due and refused.
    pub offered: f64,
    /// Frames sent, and frames received, from the first moment until nothing came any more.
    pub sent: f64,
    /// See above.
    pub received: f64,
    /// Frames that were offered and did not arrive.
    pub lost: f64,
    /// Frames that pktgen itself was too slow for.
    pub slow: f64,
    /// Seconds that pktgen did not run.
    pub stalled: f64,
    /// Longest time, in seconds, in which the device gave nothing back.
    pub silent: f64,
    /// Busy share of pktgen.
    pub busy: f64,
    /// Share of its sends that found no room for all.
    pub full: f64,
    /// p50, p99, p99.9 in microseconds; NaN without stamps.
    pub latency_us: [f64; 3],
    /// Numbers that never came, and frames that came changed; 0 without verification.
    pub damage: [f64; 2],
}

/// pktgen, waiting for slices.
#[derive(Debug)]
pub struct Pktgen {
    child: Child,
    answers: BufReader<ChildStdout>,
}

/// How long it may take to connect, and longer than a slice to answer.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long a slice runs before it counts.
const WARM: Duration = Duration::from_millis(10);

impl Pktgen {
    /// Connects it to `sockets`.
    ///
    /// # Errors
    /// Features refused, no back-end.
    pub fn start(lab: &Lab, words: &[String], sockets: &[PathBuf]) -> Result<Self> {
        Self::on(lab, lab.load_cpu, words, sockets)
    }

    /// As [`Pktgen::start`], in a namespace.
    ///
    /// # Errors
    /// The same.
    pub fn inside(lab: &Lab, namespace: &Namespace, words: &[String], sockets: &[PathBuf]) -> Result<Self> {
        Self::spawn(lab, Some(namespace), lab.load_cpu, words, sockets)
    }

    /// As [`Pktgen::start`], on another CPU than the load's.
    ///
    /// # Errors
    /// The same.
    pub fn on(lab: &Lab, cpu: usize, words: &[String], sockets: &[PathBuf]) -> Result<Self> {
        Self::spawn(lab, None, cpu, words, sockets)
    }

    fn spawn(
        lab: &Lab,
        inside: Option<&Namespace>,
        cpu: usize,
        words: &[String],
        sockets: &[PathBuf],
    ) -> Result<Self> {
        let mut command = preferred_in(inside, lab.tool("pktgen"));
        command.args(["--serve", "--cpu", &cpu.to_string()]);
        command.args(words).args(sockets).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("pktgen")?;
        let answers = child.stdout.take().ok_or_else(|| Failure::new("pktgen has no output"))?;
        let mut this = Self { child, answers: BufReader::new(answers) };
        this.answer(PATIENCE)?;
        Ok(this)
    }

    /// Waits for a line, no longer than `patience`.
    fn answer(&mut self, patience: Duration) -> Result<Value> {
        let mut line = String::new();
        let output = self.answers.get_ref().as_fd();
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let heard = poll(&mut [PollFd::new(output, PollFlags::POLLIN)], timeout).context("pktgen")?;
        if heard == 0 {
            return Err(Failure::new("pktgen does not answer"));
        }
        self.answers.read_line(&mut line).context("pktgen")?;
        if line.is_empty() {
            return Err(Failure::new("pktgen ended"));
        }
        serde_json::from_str(&line).context("pktgen's report")
    }

    /// Runs a slice.
    ///
    /// # Errors
    /// When it ends.
    pub fn slice(&mut self, want: &Want) -> Result<Got> {
        self.ask(want, "both")
    }

    /// Runs a slice in which only the first end sends.
    ///
    /// # Errors
    /// When it ends.
    pub fn forward(&mut self, want: &Want) -> Result<Got> {
        self.ask(want, "forward")
    }

    fn ask(&mut self, want: &Want, role: &str) -> Result<Got> {
        self.begin(want, role)?;
        self.end(want)
    }

    /// Begins a slice in which only the first end sends; [`Pktgen::end`] gives what came of it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn begin_forward(&mut self, want: &Want) -> Result<()> {
        self.begin(want, "forward")
    }

    fn begin(&mut self, want: &Want, role: &str) -> Result<()> {
        let request = json!({
            "role": role, "rate": want.rate, "warm": WARM.as_secs_f64(), "secs": want.length.as_secs_f64(),
            "stamps": want.stamps, "verify": want.verify,
        });
        let input = self.child.stdin.as_mut().ok_or_else(|| Failure::new("pktgen takes no slices"))?;
        writeln!(input, "{request}").context("pktgen")
    }

    /// Waits for the end of a slice that has begun.
    ///
    /// # Errors
    /// When it ends.
    pub fn end(&mut self, want: &Want) -> Result<Got> {
        let report = self.answer(want.length + PATIENCE)?;
        let number = |name: &str| report[name].as_f64().unwrap_or(0.0);
        let latency = |name: &str| report["latency-ns"][name].as_f64().map_or(f64::NAN, |ns| ns / 1e3);
        Ok(Got {
            all_secs: (WARM + want.length).as_secs_f64(),
            mpps: number("mpps"),
            offered: number("all-sent") + number("refused"),
            sent: number("all-sent"),
            received: number("all-received"),
            lost: number("lost"),
            slow: number("slow"),
            stalled: number("stalled"),
            silent: number("silent"),
            busy: number("busy"),
            full: number("full"),
            latency_us: [latency("p50"), latency("p99"), latency("p999")],
            damage: [number("missing"), number("changed")],
        })
    }
}

impl Load for Pktgen {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn spins(&self) -> bool {
        false
    }
}

impl Drop for Pktgen {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        reap(&mut self.child, Duration::from_secs(2));
    }
}

/// testpmd as two guests, or the back-ends of two netdevs, in a closed loop: frames go round, and each that is lost is missed for ever.
#[derive(Debug)]
pub struct VirtioUser {
    console: Console,
}

/// Frames that circulate for each port and queue: eight bursts of 32 fill a device without filling its caches.
pub const BURSTS: usize = 8;

impl VirtioUser {
    /// Connects to `sockets` and starts the loop.
    ///
    /// # Errors
    /// When it does not come up; it needs 256 MiB of hugepages.
    pub fn start(lab: &Lab, case: &Case, queues: usize, sockets: &[PathBuf]) -> Result<Self> {
        let vdev = |(number, socket): (usize, &PathBuf)| {
            format!(
                "net_virtio_user{number},path={},queues={queues},{}",
                socket.display(),
                case.virtio_user()
            )
        };
        let mut options = vec![format!("--txpkts={}", case.size), format!("--txd={}", case.ring)];
        options.push(format!("--rxd={}", case.ring));
        if queues > 1 {
            options.extend([format!("--rxq={queues}"), format!("--txq={queues}")]);
        }
        let setup = Setup {
            name: "guest",
            cpu: lab.load_cpu,
            inside: None,
            memory: 256,
            vdevs: sockets.iter().enumerate().map(vdev).collect(),
            options,
        };
        let mut console = Console::start(&setup)?;
        console.command(&format!("start tx_first {BURSTS}"))?;
        Ok(Self { console })
    }

    /// Listens on `sockets` as a back-end; [`VirtioUser::begin`] starts the loop.
    ///
    /// # Errors
    /// When it does not come up; it needs 256 MiB of hugepages.
    pub fn serve(lab: &Lab, sockets: &[PathBuf]) -> Result<Self> {
        let vdev = |(number, socket): (usize, &PathBuf)| {
            format!("net_vhost{number},iface={},queues=1", socket.display())
        };
        let setup = Setup {
            name: "back-end",
            cpu: lab.load_cpu,
            inside: None,
            memory: 256,
            vdevs: sockets.iter().enumerate().map(vdev).collect(),
            options: vec!["--txd=1024".into(), "--rxd=1024".into()],
        };
        Ok(Self { console: Console::start(&setup)? })
    }

    /// Starts the loop: what the other side does not take at once is offered again, for seconds.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn begin(&mut self) -> Result<()> {
        let start = format!("start tx_first {BURSTS}");
        for line in ["set fwd io retry", "set burst tx delay 1 retry 5000000", &start] {
            self.console.command(line)?;
        }
        Ok(())
    }

    /// Frames received, frames sent, and errors, of both ports.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn counters(&mut self) -> Result<[f64; 3]> {
        let text = self.console.command("show port stats all")?;
        let errors =
            ["RX-errors:", "RX-nombuf:", "TX-errors:"].map(|name| port_sum(&text, name)).iter().sum();
        Ok([port_sum(&text, "RX-packets:"), port_sum(&text, "TX-packets:"), errors])
    }

    /// Frames a second in millions, and the busy share, over `length`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn count(&mut self, length: Duration, hz: f64) -> Result<[f64; 2]> {
        self.console.command("clear fwd stats all")?;
        let cleared = Instant::now();
        let [before, ..] = self.counters()?;
        let start = Instant::now();
        std::thread::sleep(length);
        let [after, ..] = self.counters()?;
        let rate = (after - before) / start.elapsed().as_secs_f64() / 1e6;
        let text = self.console.command("show fwd stats all")?;
        let busy =
            Forwarded::parse(&text).map_or(f64::NAN, |f| f.cycles / hz / cleared.elapsed().as_secs_f64());
        Ok([rate, busy])
    }

    /// Ends the loop: nothing is sent on any more.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn stop(&mut self) -> Result<String> {
        self.console.command("stop")
    }
}

impl Load for VirtioUser {
    fn pid(&self) -> u32 {
        self.console.pid()
    }

    fn spins(&self) -> bool {
        true
    }
}
