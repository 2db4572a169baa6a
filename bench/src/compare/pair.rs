//! Two namespaces joined by one peer, with what the workloads need running inside.

use crate::compare::account::Engine;
use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, address};
use crate::compare::peer::{Peer, Running};
use crate::compare::process::{Process, run};
use crate::failure::{Failure, Result};
use crate::proc::{self, Interface};
use crate::qmp::Qmp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// First port of the UDP sink; flow `n` arrives at this plus `n`.
pub const SINK_PORT: u16 = 20_000;

/// Flows that the sink takes.
pub const SINK_FLOWS: u16 = 1_000;

/// A joined pair. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Pair {
    /// The peer's name.
    pub name: &'static str,
    /// Unread UDP sockets in the second namespace.
    sink: Process,
    iperf: Process,
    /// The peer itself.
    pub running: Running,
    /// The connection to its QMP socket; a QMP socket serves one at a time.
    pub qmp: Option<Qmp>,
    pinglat: String,
    /// Host 1.
    pub a: Namespace,
    /// Host 2.
    pub b: Namespace,
}

/// What the kernel and netdevd count around a workload.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// UDP of host 2.
    pub udp: proc::Udp,
    /// Frames for which the device queue of host 1 or 2 had no room.
    pub queue_drops: u64,
    /// Frames that the peer read from host 1's interface, as the kernel counts them.
    pub read: u64,
    /// netdevd's own counters, where the peer is netdevd.
    pub engine: Option<Engine>,
}

impl Pair {
    /// Starts `peer`, moves its interfaces into two new namespaces, and starts the servers.
    ///
    /// # Errors
    /// When any of that fails; what was started is ended again.
    pub fn join(lab: &Lab, peer: &dyn Peer) -> Result<Self> {
        let name = peer.name();
        let (a, b) = (Namespace::create(&format!("{name}-a"))?, Namespace::create(&format!("{name}-b"))?);
        let running = peer.start(lab)?;
        let [port_a, port_b] = &running.ports;
        a.adopt(port_a, 1)?;
        b.adopt(port_b, 2)?;
        a.knows(port_a, 2)?;
        b.knows(port_b, 1)?;
        let mut server = b.pinned(lab.load_cpu, "iperf3");
        server.args(["-s", "--forceflush"]);
        let mut iperf = Process::spawn(server, &format!("{name}-iperf3"), lab.run.path())?;
        iperf.wait_for("listening")?;
        let mut command = b.pinned(lab.load_cpu, &lab.tool("udpload"));
        command.args(["sink", "--at", &format!("0.0.0.0:{SINK_PORT}"), "--flows", &SINK_FLOWS.to_string()]);
        let mut sink = Process::spawn(command, &format!("{name}-sink"), lab.run.path())?;
        sink.wait_for("ready")?;
        let patience = Duration::from_secs(5);
        let qmp = running.qmp.as_ref().map(|path| Qmp::connect(path, patience)).transpose()?;
        let mut pair = Self { name, sink, iperf, running, qmp, pinglat: lab.tool("pinglat"), a, b };
        pair.reach()?;
        pair.fill_sink(lab)?;
        Ok(pair)
    }

    /// Where the sink is.
    pub fn sink_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(address(2), SINK_PORT)
    }

    /// Pings host 2 from host 1 until it answers.
    fn reach(&mut self) -> Result<()> {
        for _ in 0..10 {
            let mut ping = self.a.command(&self.pinglat);
            ping.args(["icmp", "--to", &address(2).to_string(), "--secs", "0.02"]);
            let answered = run(&mut ping).ok().and_then(|line| serde_json::from_str::<Value>(&line).ok());
            if answered.is_some_and(|line| line["count"].as_u64() > Some(0)) {
                return Ok(());
            }
        }
        self.alive()?;
        Err(Failure::new(format!("{}: the two namespaces do not reach each other", self.name)))
    }

    /// Fills the queue of the sink's first socket: what lies in there unread is in none of the kernel's counts.
    fn fill_sink(&self, lab: &Lab) -> Result<()> {
        let mut sender = self.a.command(&lab.tool("udpload"));
        sender.args(["send", "--to", &self.sink_address().to_string(), "--rate", "2000", "--secs", "0.05"]);
        run(&mut sender).map(drop)
    }

    /// Fails when the peer or a server has ended.
    ///
    /// # Errors
    /// With the end of what it printed.
    pub fn alive(&mut self) -> Result<()> {
        if let Some(process) = &mut self.running.process {
            process.check()?;
        }
        self.sink.check()?;
        self.iperf.check()
    }

    /// Datagrams that have reached a socket of host 2.
    ///
    /// # Errors
    /// When the sink is gone.
    pub fn arrived(&self) -> Result<u64> {
        proc::udp(self.sink.pid()).map(|udp| udp.arrived())
    }

    /// Nanoseconds of CPU that the peer's process has used; 0 where it is none.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_ns(&self) -> Result<u64> {
        self.running.process.as_ref().map_or(Ok(0), |process| proc::cpu_ns(process.pid()))
    }

    /// The share of a CPU that the peer's process used since `start`, when it had used `cpu_ns`; NaN where it is none.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_share(&self, cpu_ns: u64, start: Instant) -> Result<f64> {
        let used = self.cpu_ns()?.saturating_sub(cpu_ns) as f64 / start.elapsed().as_nanos() as f64;
        Ok(if self.running.process.is_some() { used } else { f64::NAN })
    }

    /// All counters now.
    ///
    /// # Errors
    /// When a process is gone or netdevd does not answer.
    pub fn counters(&mut self) -> Result<Counters> {
        let [here, there] = [self.a.interfaces()?, self.b.interfaces()?];
        let counters =
            |of: &BTreeMap<String, Interface>, port: &str| of.get(port).copied().unwrap_or_default();
        let [a, b] = [counters(&here, &self.running.ports[0]), counters(&there, &self.running.ports[1])];
        let counting = self.qmp.as_mut().filter(|_| self.name.starts_with("netdevd"));
        let engine = counting.map(Engine::read).transpose()?;
        Ok(Counters {
            udp: proc::udp(self.sink.pid())?,
            queue_drops: a.tx_dropped + b.tx_dropped,
            read: a.tx_frames,
            engine,
        })
    }
}
