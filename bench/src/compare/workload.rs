//! What is sent through a pair, and what is read off.

use crate::compare::lab::Lab;
use crate::compare::netns::address;
use crate::compare::pair::{Pair, SINK_FLOWS};
use crate::compare::process::{Process, run};
use crate::failure::{Context, Failure, Result};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Its name in files.
    pub id: &'static str,
    /// What is sent.
    pub kind: Kind,
    /// What is read off, in the order of [`Workload::measure`]'s values.
    pub metrics: &'static [Metric],
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// iperf3, bulk TCP.
    Tcp {
        /// Connections at once.
        streams: u32,
        /// From host 2 to host 1.
        reverse: bool,
    },
    /// As many UDP datagrams as one CPU can send.
    Udp {
        /// Payload of one in bytes.
        size: usize,
        /// Flows, one datagram of each in turn.
        flows: u16,
        /// Sent by `UDP_SEGMENT`: the kernel carries many as one frame where it can.
        uso: bool,
    },
    /// ICMP echo, the next one as soon as the answer is there.
    Ping,
}

/// One figure of a workload: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// What the row is called.
    pub label: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether less is better.
    pub less: bool,
    /// How many times better than QEMU netdevd must be.
    pub want: f64,
}

const fn more(label: &'static str, unit: &'static str, want: f64) -> Metric {
    Metric { label, unit, less: false, want }
}

const fn less(label: &'static str, unit: &'static str, want: f64) -> Metric {
    Metric { label, unit, less: true, want }
}

const fn tcp(id: &'static str, streams: u32, reverse: bool, metrics: &'static [Metric]) -> Workload {
    Workload { id, kind: Kind::Tcp { streams, reverse }, metrics }
}

const fn udp(id: &'static str, size: usize, flows: u16, uso: bool, metrics: &'static [Metric]) -> Workload {
    Workload { id, kind: Kind::Udp { size, flows, uso }, metrics }
}

/// All workloads of `compare tap`.
pub const ALL: [Workload; 11] = [
    tcp("tcp-1", 1, false, &[more("TCP 1 stream", "Gbit/s", 5.0)]),
    tcp("tcp-1-back", 1, true, &[more("TCP 1 stream, back", "Gbit/s", 5.0)]),
    tcp("tcp-4", 4, false, &[more("TCP 4 streams", "Gbit/s", 5.0)]),
    tcp("tcp-4-back", 4, true, &[more("TCP 4 streams, back", "Gbit/s", 5.0)]),
    udp("udp-64-uso", 64, 1, true, &[more("UDP 64 B, 1 flow, USO", "kpps", 3.0)]),
    udp("udp-1400-uso", 1400, 1, true, &[more("UDP 1400 B, 1 flow, USO", "kpps", 3.0)]),
    udp("udp-64-single", 64, 1, false, &[more("UDP 64 B, 1 flow", "kpps", 1.5)]),
    udp("udp-1400-single", 1400, 1, false, &[more("UDP 1400 B, 1 flow", "kpps", 1.5)]),
    udp("udp-64-flows", 64, SINK_FLOWS, false, &[more("UDP 64 B, 1,000 flows", "kpps", 1.4)]),
    udp("udp-1400-flows", 1400, SINK_FLOWS, false, &[more("UDP 1400 B, 1,000 flows", "kpps", 1.4)]),
    Workload {
        id: "ping",
        kind: Kind::Ping,
        metrics: &[less("ping p50", "µs", 1.0), less("ping p99", "µs", 1.0)],
    },
];

/// Time that a UDP source runs before and after what is counted.
const LEAD: Duration = Duration::from_millis(150);

/// What one slice of a workload gave.
#[derive(Debug, Clone)]
pub struct Observation {
    /// One value for each metric.
    pub values: Vec<f64>,
    /// Offered load in the unit of the first metric, where it is known.
    pub offered: Option<f64>,
    /// Share of one CPU that the peer's process used, NaN where it is none.
    pub cpu: f64,
}

impl Workload {
    /// The canary's tick: latencies see every wake-up on their CPU, so it comes rarely there.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(if matches!(self.kind, Kind::Ping) { 20 } else { 1 })
    }

    /// Runs it once for `duration`.
    ///
    /// # Errors
    /// When a load tool or the peer fails.
    pub fn measure(&self, lab: &Lab, pair: &mut Pair, duration: Duration) -> Result<Observation> {
        pair.alive()?;
        let cpu = pair.cpu_ns()?;
        let start = Instant::now();
        let mut observation = match self.kind {
            Kind::Tcp { streams, reverse } => iperf(lab, pair, duration, streams, reverse),
            Kind::Udp { size, flows, uso } => flood(lab, pair, duration, size, flows, uso),
            Kind::Ping => ping(lab, pair, duration),
        }?;
        if observation.cpu.is_nan() {
            observation.cpu = pair.cpu_share(cpu, start)?;
        }
        Ok(observation)
    }
}

/// Runs a load tool with a bound on its time, in host 1, on the load CPU.
fn tool(lab: &Lab, pair: &Pair, program: &str, duration: Duration, words: &[&str]) -> Command {
    let mut command = pair.a.pinned(lab.load_cpu, "timeout");
    command.arg((duration.as_secs() + 15).to_string()).arg(program).args(words);
    command
}

/// Reads a line of JSON that a tool printed.
pub(super) fn json_of(text: &str) -> Result<Value> {
    serde_json::from_str(text.trim()).context(format_args!("output {text:?}"))
}

fn iperf(lab: &Lab, pair: &Pair, duration: Duration, streams: u32, reverse: bool) -> Result<Observation> {
    let (host, streams) = (address(2).to_string(), streams.to_string());
    let seconds = duration.as_secs_f64().ceil().to_string();
    let mut words = vec!["-c", &host, "-J", "-t", &seconds, "-P", &streams];
    if reverse {
        words.push("-R");
    }
    let report = json_of(&run(&mut tool(lab, pair, "iperf3", duration, &words))?)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.ok_or_else(|| Failure::new(format!("iperf3: {}", report["error"])))?;
    Ok(Observation { values: vec![bits / 1e9], offered: None, cpu: f64::NAN })
}

fn ping(lab: &Lab, pair: &Pair, duration: Duration) -> Result<Observation> {
    let (host, seconds) = (address(2).to_string(), duration.as_secs_f64().to_string());
    let words = ["icmp", "--to", &host, "--secs", &seconds];
    let report = json_of(&run(&mut tool(lab, pair, &lab.tool("pinglat"), duration, &words))?)?;
    let value = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    Ok(Observation { values: vec![value("p50-us"), value("p99-us")], offered: None, cpu: f64::NAN })
}

/// Sends as fast as it goes and counts what reaches the sockets of host 2, between two points of the run.
fn flood(
    lab: &Lab,
    pair: &mut Pair,
    duration: Duration,
    size: usize,
    flows: u16,
    uso: bool,
) -> Result<Observation> {
    let all = duration + 2 * LEAD;
    let to = pair.sink_address().to_string();
    let (size, flows) = (size.to_string(), flows.to_string());
    let seconds = all.as_secs_f64().to_string();
    let mut words = vec!["send", "--to", &to, "--size", &size, "--flows", &flows, "--secs", &seconds];
    if uso {
        words.push("--uso");
    }
    let command = tool(lab, pair, &lab.tool("udpload"), all, &words);
    let sender = Process::spawn(command, "udpload-send", lab.run.path())?;
    std::thread::sleep(LEAD);
    let (arrived, cpu, start) = (pair.arrived()?, pair.cpu_ns()?, Instant::now());
    std::thread::sleep(duration);
    let (count, seconds) = (pair.arrived()? - arrived, start.elapsed().as_secs_f64());
    let cpu = pair.cpu_share(cpu, start)?;
    let sent = json_of(&sender.finish(all + Duration::from_secs(10))?)?;
    // What is still in the queues must not be charged to the next slice.
    std::thread::sleep(Duration::from_millis(20));
    let rate = |key: &str| sent[key].as_f64().unwrap_or(f64::NAN);
    let offered = rate("sent") / rate("seconds") / 1e3;
    Ok(Observation { values: vec![count as f64 / seconds / 1e3], offered: Some(offered), cpu })
}
