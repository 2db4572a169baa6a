//! What is sent through a stack, and what is read off.

use super::stacks::{CONNECTS, HOST, Host, SINK, Site};
use crate::compare::lab::Lab;
use crate::compare::process::{Process, run};
use crate::compare::workload::{Metric, Observation, json_of};
use crate::failure::{Failure, Result};
use std::process::Command;
use std::time::{Duration, Instant};

/// MTU of Ethernet, and the largest that libslirp and passt know.
pub(super) const MTUS: [usize; 2] = [1500, 65_520];

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    /// Its name in files; what stands before its first `-` is its part.
    pub(super) id: &'static str,
    pub(super) mtu: usize,
    pub(super) kind: Kind,
    pub(super) metrics: &'static [Metric],
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// iperf3, one connection; `back` from the host to the guest.
    Tcp { back: bool },
    /// Single datagrams of so many bytes from the guest, as many as one CPU can send.
    Udp { size: usize },
    /// Short connections one after the other, which the server closes first.
    Connect,
}

const fn more(label: &'static str, unit: &'static str, want: f64) -> Metric {
    Metric { label, unit, less: false, want }
}

/// All of them. What leaves a stack busy for a while comes last.
pub(super) const ALL: [Workload; 7] = [
    Workload {
        id: "tcp-1500-out",
        mtu: 1500,
        kind: Kind::Tcp { back: false },
        metrics: &[more("TCP out, MTU 1500", "Gbit/s", 3.0)],
    },
    Workload {
        id: "tcp-1500-in",
        mtu: 1500,
        kind: Kind::Tcp { back: true },
        metrics: &[more("TCP in, MTU 1500", "Gbit/s", 3.0)],
    },
    Workload {
        id: "tcp-65520-out",
        mtu: 65_520,
        kind: Kind::Tcp { back: false },
        metrics: &[more("TCP out, MTU 65520", "Gbit/s", 1.0)],
    },
    Workload {
        id: "tcp-65520-in",
        mtu: 65_520,
        kind: Kind::Tcp { back: true },
        metrics: &[more("TCP in, MTU 65520", "Gbit/s", 1.0)],
    },
    Workload {
        id: "udp-64",
        mtu: 1500,
        kind: Kind::Udp { size: 64 },
        metrics: &[more("UDP out, 64 B", "kpps", 1.0)],
    },
    Workload {
        id: "udp-1400",
        mtu: 1500,
        kind: Kind::Udp { size: 1400 },
        metrics: &[more("UDP out, 1400 B", "kpps", 1.0)],
    },
    Workload {
        id: "connect",
        mtu: 1500,
        kind: Kind::Connect,
        metrics: &[
            more("connections", "1/s", 1.0),
            more("the last thousand over the first", "ratio", 1.0),
            Metric { label: "descriptors left right after", unit: "number", less: true, want: 0.0 },
        ],
    },
];

/// Where the rate of the last connections over that of the first ones stands among a workload's values.
pub(super) const FLAT: usize = 1;
/// Time that a source of datagrams runs before and after what is counted.
const LEAD: Duration = Duration::from_millis(150);

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amount {
    /// Length of what has one.
    pub(super) slice: Duration,
    /// Connections.
    pub(super) connections: usize,
}

impl Workload {
    /// Whether it belongs to a part, or is named.
    pub(super) fn is(&self, word: &str) -> bool {
        self.id.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// Runs it once.
    ///
    /// # Errors
    /// When a load tool, a server or the stack fails.
    pub(super) fn measure(
        &self,
        lab: &Lab,
        host: &mut Host,
        site: &mut Site,
        amount: Amount,
    ) -> Result<Observation> {
        site.check(host)?;
        let (cpu, start) = (site.cpu_ns()?, Instant::now());
        let mut observation = match self.kind {
            Kind::Tcp { back } => iperf(lab, site, amount.slice, back)?,
            Kind::Udp { size } => flood(lab, host, site, amount.slice, size)?,
            Kind::Connect => connect(lab, site, amount.connections)?,
        };
        if observation.cpu.is_nan() {
            observation.cpu = share(site, cpu, start)?;
        }
        site.check(host)?;
        Ok(observation)
    }
}

/// The share of a CPU that a stack has used.
fn share(site: &Site, before: u64, since: Instant) -> Result<f64> {
    Ok(site.cpu_ns()?.saturating_sub(before) as f64 / since.elapsed().as_nanos() as f64)
}

/// A load tool in the guest, on the load's CPU, with a bound on its time.
fn tool(lab: &Lab, site: &Site, program: &str, bound: Duration) -> Command {
    let mut command = site.guest.pinned(lab.load_cpu, "timeout");
    command.args(["-k", "1", &bound.as_secs().to_string(), program]);
    command
}

/// The command line of one run of iperf3.
pub(super) fn iperf_command(lab: &Lab, site: &Site, length: Duration, back: bool) -> Command {
    let mut command = tool(lab, site, "iperf3", length + Duration::from_secs(5));
    command.args(["-c", &HOST.to_string(), "-J", "-t", &length.as_secs_f64().ceil().to_string()]);
    command.args(back.then_some("-R"));
    command
}

/// Gbit/s that arrived, by what iperf3 printed.
pub(super) fn gbits(text: &str) -> Result<f64> {
    let report = json_of(text)?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.ok_or_else(|| Failure::new(format!("iperf3: {}", report["error"])))? / 1e9)
}

fn iperf(lab: &Lab, site: &Site, length: Duration, back: bool) -> Result<Observation> {
    let gbits = gbits(&run(&mut iperf_command(lab, site, length, back))?)?;
    Ok(Observation { values: vec![gbits], offered: None, cpu: f64::NAN })
}

fn connect(lab: &Lab, site: &Site, count: usize) -> Result<Observation> {
    let mut command = tool(lab, site, &lab.tool("connects"), Duration::from_secs(120));
    command.args(["run", "--to", &CONNECTS.to_string(), "--count", &count.to_string()]);
    let report = json_of(&run(&mut command)?)?;
    let left = site.left()? as f64;
    let value = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    let values = vec![value("rate"), value("last") / value("first"), left];
    Ok(Observation { values, offered: None, cpu: f64::NAN })
}

/// Sends as fast as it goes and counts what reaches the host's socket, between two points of the run.
fn flood(lab: &Lab, host: &Host, site: &Site, length: Duration, size: usize) -> Result<Observation> {
    let all = length + 2 * LEAD;
    let mut command = tool(lab, site, &lab.tool("udpload"), all + Duration::from_secs(15));
    command.args(["send", "--to", &SINK.to_string(), "--size", &size.to_string()]);
    command.args(["--secs", &all.as_secs_f64().to_string()]);
    let sender = Process::spawn(command, "udpload-send", lab.run.path())?;
    std::thread::sleep(LEAD);
    let (arrived, cpu, start) = (host.arrived()?, site.cpu_ns()?, Instant::now());
    std::thread::sleep(length);
    let (count, seconds) = (host.arrived()? - arrived, start.elapsed().as_secs_f64());
    let cpu = share(site, cpu, start)?;
    let sent = json_of(&sender.finish(all + Duration::from_secs(10))?)?;
    // What is still in the queues must not be charged to the next slice.
    std::thread::sleep(Duration::from_millis(50));
    let rate = |key: &str| sent[key].as_f64().unwrap_or(f64::NAN);
    let offered = rate("sent") / rate("seconds") / 1e3;
    Ok(Observation { values: vec![count as f64 / seconds / 1e3], offered: Some(offered), cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_named_by_their_parts() {
        let named = |word: &str| ALL.iter().filter(|workload| workload.is(word)).count();
        assert_eq!(["tcp", "tcp-1500", "tcp-1500-in", "udp", "connect", "tc"].map(named), [4, 2, 1, 2, 1, 0]);
        assert!(ALL.iter().all(|workload| MTUS.contains(&workload.mtu)));
    }

    #[test]
    fn what_arrived_counts_and_a_failure_is_told() {
        let text = "{\"end\": {\"sum_sent\": {\"bits_per_second\": 9e9}, \"sum_received\": {\"bits_per_second\": 5e9}}}";
        assert_eq!(gbits(text), Ok(5.0));
        let refused = gbits("{\"error\": \"unable to connect\", \"end\": {}}").unwrap_err().to_string();
        assert_eq!(refused, "iperf3: \"unable to connect\"");
    }
}
