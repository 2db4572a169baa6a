//! Source and sink around one daemon, in its own network namespace: nobody else's traffic is in its counts.

use super::cases::SINK;
use super::vde::{Console, Switch};
use crate::compare::lab::Lab;
use crate::compare::netns::{Counters, Namespace, ip, preferred_in};
use crate::compare::process::Process;
use crate::compare::vhost::load::{Got, Load, Pktgen, Want};
use crate::failure::{Failure, Result};
use crate::proc;
use std::time::{Duration, Instant};

/// Where frames end, at no cost of user time but for a stream.
#[derive(Debug)]
pub enum Sink {
    /// A UDP socket that nobody reads: the kernel counts what it drops.
    Unread(Process),
    /// A tap: the kernel counts what comes in, and has no use for it.
    Tap(Counters, &'static str),
    /// A `vde_switch` with no other port: it counts what it takes, and has nowhere to put it.
    Switch(Console),
    /// The source's own process, which discards it.
    Source,
}

impl Sink {
    /// A socket on the loopback of `inside`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn unread(lab: &Lab, inside: &Namespace) -> Result<Self> {
        let mut command = preferred_in(Some(inside), lab.tool("udpload"));
        command.args(["sink", "--at", &format!("127.0.0.1:{SINK}")]);
        let mut sink = Process::spawn(command, "udpload-sink", lab.run.path())?;
        sink.wait_for("ready")?;
        Ok(Self::Unread(sink))
    }

    /// The tap `name` in `inside`.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn tap(inside: &Namespace, name: &'static str) -> Result<Self> {
        Ok(Self::Tap(inside.counters()?, name))
    }

    fn arrived(&mut self) -> Result<Option<u64>> {
        match self {
            Self::Unread(sink) => proc::socket_drops(sink.pid(), SINK).map(Some),
            Self::Tap(counters, name) => counters.read(name).map(|counters| Some(counters.rx_frames)),
            Self::Switch(console) => console.taken().map(Some),
            Self::Source => Ok(None),
        }
    }
}

/// The load of one device. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Wire {
    pktgen: Pktgen,
    sink: Sink,
    _switch: Option<Switch>,
    _inside: Namespace,
}

/// Nobody waits for taps to come up longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings interfaces up, as soon as they are there.
///
/// # Errors
/// When one does not appear.
pub fn raise(inside: &Namespace, taps: &[&str]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for tap in taps {
        while let Err(failure) = ip(&format!("-n {} link set {tap} up", inside.name())) {
            if Instant::now() > until {
                return Err(failure);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// What arrived while one looked.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// Thousand frames a second.
    pub kfps: f64,
    /// The same of what was sent.
    pub offered: f64,
    /// Whether more was there than the device took: it was lost, or there was no room for it.
    pub more: bool,
}

/// As much as this, of frames or of the times that one sends, has to find no room where a device is said to be the limit.
const LOST: f64 = 0.03;
/// See above.
const FULL: f64 = 0.25;

/// Before it counts: until queues are as full as they get.
const LEAD: Duration = Duration::from_millis(30);

impl Wire {
    /// Starts the source with these words.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(
        lab: &Lab,
        inside: Namespace,
        words: &[String],
        sink: Sink,
        switch: Option<Switch>,
    ) -> Result<Self> {
        let pktgen = Pktgen::inside(lab, &inside, words, &[])?;
        Ok(Self { pktgen, sink, _switch: switch, _inside: inside })
    }

    /// Sends all the time while `look` is asked to begin and to end its account, `length` apart.
    ///
    /// # Errors
    /// When the source or the daemon ends.
    pub fn run(&mut self, length: Duration, mut look: impl FnMut(Look) -> Result<()>) -> Result<Arrived> {
        let want = Want { rate: None, length: length + 2 * LEAD, stamps: false, verify: false };
        self.pktgen.begin_forward(&want)?;
        std::thread::sleep(LEAD);
        look(Look::Begin)?;
        let (before, start) = (self.sink.arrived()?, Instant::now());
        std::thread::sleep(length);
        let (after, secs) = (self.sink.arrived()?, start.elapsed().as_secs_f64());
        look(Look::End)?;
        let Got { all_secs, mpps, sent, full, .. } = self.pktgen.end(&want)?;
        let kfps = match before.zip(after) {
            Some((before, after)) => after.saturating_sub(before) as f64 / secs / 1e3,
            None => mpps * 1e3,
        };
        let offered = sent / all_secs / 1e3;
        Ok(Arrived { kfps, offered, more: full >= FULL || kfps <= offered * (1.0 - LOST) })
    }

    /// Sends until something arrives.
    ///
    /// # Errors
    /// When nothing does.
    pub fn await_first(&mut self, lab: &Lab, name: &str) -> Result<()> {
        let until = Instant::now() + 2 * PATIENCE;
        while self.run(LEAD, |_| Ok(()))?.kfps <= 0.0 {
            lab.go_on()?;
            if Instant::now() > until {
                return Err(Failure::new(format!("{name}: no frame arrived")));
            }
        }
        Ok(())
    }
}

/// What is asked of who keeps an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// To begin.
    Begin,
    /// To end.
    End,
}

impl Load for Wire {
    fn pid(&self) -> u32 {
        self.pktgen.pid()
    }

    fn spins(&self) -> bool {
        false
    }
}
