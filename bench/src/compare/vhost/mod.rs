//! `compare vhost`: two nics on a hub of two ports beside DPDK's testpmd with two `net_vhost` ports, each on one core, the same
//! load on the other.
//!
//! What counts is the busy time a frame: from a poll that found frames to the end of their transmission, as testpmd's
//! `--record-core-cycles` and `query-net-stats` both count it. Both sides are up at once, and the one that is not measured is stopped, so that
//! they can take turns within a second ([`quads`]). A leg in which the machine took time away is measured again; only legs
//! with both CPUs in one cache make a result ([`watch`]).

pub mod cases;
pub mod console;
pub mod cycles;
pub mod duts;
pub mod foreign;
pub mod latency;
pub mod load;
pub mod quads;
pub mod report;
pub mod search;
pub mod watch;
pub mod workers;

use self::cases::Case;
use self::quads::{Plan, before_others};
use self::report::{How, Made};
use crate::compare::lab::Lab;
use crate::failure::{Failure, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Fewer samples, fewer rows.
    pub quick: bool,
    /// Print JSON instead of the tables.
    pub json: bool,
    /// Fail when a target is missed or cannot be judged.
    pub check: bool,
    /// Entries of the rings; nothing leaves it to the part.
    pub ring: Option<u16>,
    /// Only these parts (`cycles`, `zero-loss`, `latency`, `foreign`, `workers`); empty for all.
    pub parts: Vec<String>,
    /// Only these rows (`split-64`, `packed-1518-nomrg`, ...); empty for all.
    pub only: Vec<String>,
}

const PARTS: [&str; 5] = ["cycles", "zero-loss", "latency", "foreign", "workers"];

/// Rings for what is sent by the clock: a ring of 256 entries is full 20 microseconds after the host took the device's CPU away, and
/// the search would tell of the host.
const OPEN_LOOP_RING: u16 = 1024;

fn open_loop() -> Vec<Case> {
    Case::small().into_iter().map(|case| case.with_ring(OPEN_LOOP_RING)).collect()
}

/// Rows of a part, and the longest that one of them takes.
fn planned(part: &str, options: &Options) -> (Vec<Case>, Duration) {
    let quads = |quad| Plan::new(options.quick, quad, Duration::ZERO).budget;
    let quick = |case: &Case| !options.quick || case.mergeable;
    let (cases, longest) = match part {
        "cycles" => (Case::all().into_iter().filter(quick).collect(), quads(cycles::QUAD)),
        "zero-loss" => (open_loop(), search::budget(options.quick)),
        "latency" => (open_loop(), quads(latency::QUAD) * 3),
        "foreign" => (foreign::cases(), quads(foreign::QUAD)),
        _ => (Case::small(), workers::LONGEST),
    };
    let named = |case: &Case| options.only.is_empty() || options.only.contains(&case.id());
    let ring = |case: Case| case.with_ring(options.ring.unwrap_or(case.ring));
    (cases.into_iter().filter(named).map(ring).collect(), longest)
}

/// Runs the comparison and writes `vhost.json` and `vhost.svg`.
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
    let wanted = |part: &&str| options.parts.is_empty() || options.parts.iter().any(|name| name == part);
    let parts: Vec<&str> = PARTS.into_iter().filter(wanted).collect();
    let most: Duration = parts
        .iter()
        .map(|part| planned(part, options))
        .map(|(cases, longest)| (longest + Duration::from_secs(8)) * cases.len() as u32)
        .sum();
    eprintln!(
        "at most {:.0} min, a third of that on a quiet machine (--quick, --part and --only shorten it)",
        most.as_secs_f64() / 60.0
    );
    before_others();
    let how =
        How { what: "vhost", quick: options.quick, json: options.json, check: options.check, legend: LEGEND };
    let mut rates = BTreeMap::new();
    Made::show(lab, &how, |made| {
        for part in parts {
            for case in planned(part, options).0 {
                lab.go_on()?;
                let id = case.id();
                let rows = match part {
                    "cycles" => cycles::rows(lab, &case, options.quick),
                    "zero-loss" => search::rows(lab, &case, options.quick).map(|(rows, rate)| {
                        rate.map(|rate| rates.insert(id.clone(), rate));
                        rows
                    }),
                    "latency" => latency::rows(lab, &case, rates.get(&id).copied(), options.quick),
                    "foreign" => foreign::rows(lab, &case, options.quick),
                    _ => workers::rows(lab, &case, options.quick),
                };
                made.add(lab, &format!("{part} {id}"), rows)?;
            }
        }
        Ok(())
    })
}

/// What the table does not say itself.
const LEGEND: &str = "better: median over n near quads (A B B A within a second; zero-loss: over n searches) with its 95 % interval. Near:\n\
     both CPUs in one cache before and after each leg, and no time lost. Cycles: TSC, from a poll that found frames to the\n\
     end of their transmission. Where the load is busy all the time it bounds the rate.";
