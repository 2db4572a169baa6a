//! `compare user`: a namespace behind a tap whose network is netdevd's `user` netdev, beside QEMU's, slirp4netns and pasta.
//!
//! The stack has the device's CPU with all its processes, what makes and takes load has the other one. Servers are on the loopback of a
//! namespace of their own, in which the stack runs. Every stack is started twice, for Ethernet's MTU and for the largest.

mod load;
mod profile;
mod report;
mod stacks;

use self::load::{Amount, FLAT, Workload};
use self::stacks::{Host, Site, Stack};
use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::netns;
use crate::compare::rounds::{self, Record, Row};
use crate::failure::{Context, Failure, Result};
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each stack takes its turn.
    pub rounds: usize,
    /// Length of one slice.
    pub slice: Duration,
    /// Fewer connections.
    pub quick: bool,
    /// Print JSON instead of the table.
    pub json: bool,
    /// Fail when netdevd misses a target.
    pub check: bool,
    /// Only these parts (`tcp`, `udp`, `connect`, `profile`); empty for all.
    pub parts: Vec<String>,
    /// Only these workloads (`tcp-1500-in`, `udp-64`, ...); empty for all.
    pub only: Vec<String>,
    /// Only these peers beside netdevd; empty for all.
    pub peers: Vec<String>,
}

const PARTS: [&str; 4] = ["tcp", "udp", "connect", "profile"];

/// The rate of the last thousand connections over that of the first: below it, closed ones pile up.
const STILL_FLAT: f64 = 0.9;

/// Runs the comparison and writes `user.json` and `user.svg`.
///
/// # Errors
/// When a stack fails, and with `check` when a target is missed.
pub fn run(lab: &Lab, options: &Options) -> Result<()> {
    if let Some(part) = options.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(Failure::new(format!("part {part}: {}", PARTS.join(", "))));
    }
    let workloads: Vec<&Workload> = load::ALL.iter().filter(|workload| options.wants(workload)).collect();
    netns::sweep();
    let mut host = Host::new(lab)?;
    let mut missing = Vec::new();
    let mut sites = start_all(lab, options, &workloads, &host, &mut missing)?;
    let mut names: Vec<&'static str> = Vec::new();
    for site in &sites {
        if !names.contains(&site.stack.name()) {
            names.push(site.stack.name());
        }
    }
    let measured = workloads.iter().filter(|workload| options.wants_part(workload));
    let measured: Vec<&Workload> = measured.copied().collect();
    let mut records = Vec::new();
    let mut ended = measure(lab, options, &measured, &mut host, &mut sites, &mut records, &mut missing);
    let mut seen = Vec::new();
    if ended.is_ok() && options.part("profile") {
        ended = profile::all(lab, options.slice, &workloads, &sites, &mut seen);
    }
    progress_done();
    drop(sites);
    let metrics: Vec<_> = measured.iter().map(|workload| (workload.id, workload.metrics)).collect();
    let rows = rounds::rows(&metrics, &names, &records);
    // What is there is shown however it ended.
    report::report(lab, options, &names, &rows, &records, &seen, &missing)?;
    ended?;
    let mut missed: Vec<&str> = rows.iter().filter(|row| row.missed()).map(|row| row.metric.label).collect();
    missed.extend(rows.iter().filter(|row| falls(row)).map(|row| row.metric.label));
    match options.check && !missed.is_empty() {
        true => Err(Failure::new(format!("below target: {}", missed.join("; ")))),
        false => Ok(()),
    }
}

impl Options {
    fn part(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|name| name == part)
    }

    fn wants_part(&self, workload: &Workload) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| workload.is(part))
    }

    /// Whether a workload is measured or profiled.
    fn wants(&self, workload: &Workload) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|word| workload.is(word));
        named && (self.wants_part(workload) || self.part("profile") && workload.is("tcp"))
    }

    fn wants_stack(&self, stack: Stack) -> bool {
        stack == Stack::Netdevd || self.peers.is_empty() || self.peers.iter().any(|name| name == stack.name())
    }
}

/// Whether netdevd's connections get slower as closed ones pile up.
fn falls(row: &Row) -> bool {
    let flat = load::ALL
        .iter()
        .filter_map(|workload| workload.metrics.get(FLAT))
        .any(|metric| metric.label == row.metric.label);
    let ours = row.values.iter().find(|(name, _)| *name == Stack::Netdevd.name());
    flat && ours.is_some_and(|(_, ratio)| ratio.median < STILL_FLAT)
}

fn start_all(
    lab: &Lab,
    options: &Options,
    workloads: &[&Workload],
    host: &Host,
    missing: &mut Vec<String>,
) -> Result<Vec<Site>> {
    let mut sites = Vec::new();
    for stack in stacks::ALL.into_iter().filter(|stack| options.wants_stack(*stack)) {
        if let Some(why) = stack.missing(lab) {
            if stack == Stack::Netdevd {
                return Err(Failure::new(why));
            }
            missing.push(format!("without {}: {why}", stack.name()));
            continue;
        }
        for mtu in load::MTUS.into_iter().filter(|mtu| workloads.iter().any(|workload| workload.mtu == *mtu))
        {
            progress(&format!("starting {}, MTU {mtu}", stack.name()));
            sites.push(Site::start(lab, host, stack, mtu).context(stack.name())?);
        }
    }
    Ok(sites)
}

fn measure(
    lab: &Lab,
    options: &Options,
    workloads: &[&Workload],
    host: &mut Host,
    sites: &mut [Site],
    records: &mut Vec<Record>,
    missing: &mut Vec<String>,
) -> Result<()> {
    let amount = Amount { slice: options.slice, connections: if options.quick { 3_000 } else { 10_000 } };
    for round in 0..options.rounds {
        for workload in workloads {
            let mut turns: Vec<&mut Site> =
                sites.iter_mut().filter(|site| site.mtu == workload.mtu).collect();
            // Another stack begins in every round, so that none always follows the same one.
            let first = round % turns.len().max(1);
            turns.rotate_left(first);
            for site in turns {
                let peer = site.stack.name();
                progress(&format!("round {}/{}: {} through {peer}", round + 1, options.rounds, workload.id));
                let slice = lab.slice(Duration::from_millis(1), || {
                    let seen = workload.measure(lab, host, site, amount)?;
                    site.rest(lab)?;
                    Ok(seen)
                });
                match slice {
                    Ok(slice) => records.push(Record { round, workload: workload.id, peer, slice }),
                    // The others go on without one of its slices; without a slice of netdevd's there is nothing to compare.
                    Err(failure) if site.stack != Stack::Netdevd && lab.go_on().is_ok() => {
                        missing.push(format!("{peer}, {}, round {}: {failure}", workload.id, round + 1));
                    }
                    Err(failure) => return Err(failure).context(peer),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
