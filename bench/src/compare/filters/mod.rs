//! `compare filters`: what a capture costs and how much of the traffic it gets.
//!
//! `dump`: 64 bytes between two nics on a hub, as many a second as `--rate` says, without and with a `filter-dump` that keeps whole frames in
//! a file in memory. Both sides take turns in quads ([`super::vhost`]). `tcpdump`: the frames a second that reach the file, beside tcpdump on
//! a veth pair. `qemu`: what QEMU's filter-dump adds to a frame, beside what ours adds. `limit`: what a `filter-limit` lets pass, beside its rate, from 1 Mbit/s to
//! 10 Gbit/s. `off`: what filters that are off add to a frame.
//!
//! On two CPUs the writer of the file shares one with the load, before which it goes: while it writes a chunk the load stands still, and what was
//! due meanwhile follows at once. Frames that the load was too slow for were not offered.

mod dump;
mod limit;
mod off;
mod qemu;
mod tcpdump;

use super::vhost::quads::before_others;
use super::vhost::report::{How, Made};
use crate::compare::lab::Lab;
use crate::compare::netns;
use crate::failure::{Failure, Result};
use std::path::Path;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer samples.
    pub quick: bool,
    /// Print JSON instead of the tables.
    pub json: bool,
    /// Fail when a target is missed or cannot be judged.
    pub check: bool,
    /// Only these parts (`dump`, `tcpdump`, `qemu`, `limit`, `off`); empty for all.
    pub parts: Vec<String>,
    /// Frames a second that are offered.
    pub rate: f64,
}

const PARTS: [&str; 5] = ["dump", "tcpdump", "qemu", "limit", "off"];

/// Cycles that a worker may pay for a captured frame.
const CYCLES_MOST: f64 = 40.0;
/// How many times the frames that tcpdump captures are wanted.
const TIMES_TCPDUMP: f64 = 5.0;

/// Captures go to memory, so that no disk is measured.
fn memory() -> Result<tempfile::TempDir> {
    let place = Path::new("/dev/shm");
    tempfile::Builder::new()
        .prefix("nd-compare-")
        .tempdir_in(place)
        .map_err(|error| Failure::new(format!("{}: {error}", place.display())))
}

/// Runs the comparison and writes `filters.json` and `filters.svg`.
///
/// # Errors
/// When a peer fails, and with `check` when a target is missed.
pub fn run(lab: &Lab, options: &Options) -> Result<()> {
    if lab.dut_cpu == lab.load_cpu {
        return Err(Failure::new("two CPUs are needed"));
    }
    if let Some(part) = options.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(Failure::new(format!("part {part}: {}", PARTS.join(", "))));
    }
    netns::sweep();
    before_others();
    let (quick, json, check) = (options.quick, options.json, options.check);
    Made::show(lab, &How { what: "filters", quick, json, check, legend: LEGEND }, |made| {
        fill(lab, options, made)
    })
}

/// Adds the rows of the parts that are wanted.
fn fill(lab: &Lab, options: &Options, made: &mut Made) -> Result<()> {
    let wanted = |part: &str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    let mut ours = None;
    // What the next two compare with.
    if ["dump", "tcpdump", "qemu"].into_iter().any(wanted) {
        let rows = dump::rows(lab, options).map(|(rows, got)| {
            ours = Some(got);
            rows
        });
        if wanted("dump") || rows.is_err() {
            made.add(lab, "dump", rows)?;
        }
    }
    if let Some(ours) = ours.filter(|_| wanted("tcpdump")) {
        made.add(lab, "tcpdump", tcpdump::rows(lab, options, &ours))?;
    }
    if let Some(ours) = ours.filter(|_| wanted("qemu")) {
        made.add(lab, "qemu", qemu::rows(lab, options, &ours))?;
    }
    if wanted("limit") {
        made.add(lab, "limit", limit::rows(lab, options))?;
    }
    if wanted("off") {
        made.add(lab, "off", off::rows(lab, options))?;
    }
    Ok(())
}

const LEGEND: &str = "better: median over n near quads (A B B A within seconds) with its 95 % interval. cycles: TSC, from a poll that found\n\
     frames to the end of their transmission; added: with the dump less without it. captured: records in the file, of the frames\n\
     that were delivered. The writer's CPU time is its thread's, beside the worker's; it shares the load's CPU.";
