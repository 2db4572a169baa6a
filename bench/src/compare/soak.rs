//! `compare soak`: DPDK's guests and ours on netdevd at full rate for a long time; no frame may be lost or changed.
//!
//! DPDK's guests run a closed loop. Every frame that they sent must be in netdevd's books as received and given on. pktgen's
//! guests send numbered frames of several sizes and compare every byte of what arrives.

use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::table::{Table, figure};
use crate::compare::vhost::cases::{Case, LARGE, RING};
use crate::compare::vhost::duts::{Dut, Netdevd, NetdevdSetup, Testpmd};
use crate::compare::vhost::load::{Pktgen, VirtioUser, Want};
use crate::failure::{Context, Failure, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long frames may be under way.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// Who drives the two nics.
#[derive(Debug, Clone, Copy)]
enum Guests {
    /// testpmd's virtio-user, with so many queue pairs.
    Dpdk(usize),
    /// pktgen, with frames compared.
    Pktgen,
    /// None, but two `vhost-user` netdevs with testpmd's `net_vhost` as their back-ends.
    BackEnds,
    /// pktgen, and such a netdev behind each nic, so that frames pass netdevd twice.
    Behind,
}

/// What one run came to.
struct Outcome {
    name: String,
    frames: f64,
    mpps: f64,
    lost: f64,
    changed: f64,
    note: String,
}

fn all() -> Vec<(Guests, Case)> {
    let of = |packed, mergeable, in_order| Case { size: 64, packed, mergeable, in_order, ring: RING };
    let large = Case { size: LARGE, packed: false, mergeable: true, in_order: false, ring: RING };
    let mut all = Vec::new();
    for case in
        [of(false, true, false), of(true, true, false), of(true, false, true), of(false, false, false)]
    {
        all.push((Guests::Dpdk(1), case));
        all.push((Guests::Pktgen, case));
    }
    all.push((Guests::Dpdk(4), of(false, true, false)));
    all.push((Guests::Dpdk(4), of(true, true, false)));
    all.push((Guests::Pktgen, large));
    all.push((Guests::BackEnds, of(false, true, false)));
    all.push((Guests::Behind, of(false, true, false)));
    all
}

/// Runs each for `length` and writes `soak.json`.
///
/// # Errors
/// When a frame was lost or changed, or a side fails.
pub fn run(lab: &Lab, length: Duration, only: &[String], as_json: bool) -> Result<()> {
    let name = |guests: &Guests, case: &Case| match guests {
        Guests::Dpdk(1) => format!("dpdk-{}", case.id()),
        Guests::Dpdk(queues) => format!("dpdk-{}-{queues}q", case.id()),
        Guests::Pktgen => format!("pktgen-{}", case.id()),
        // The netdevs choose the form of the rings.
        Guests::BackEnds => "net-vhost".into(),
        Guests::Behind => format!("pktgen-net-vhost-{}", case.id()),
    };
    let chosen: Vec<_> = all()
        .into_iter()
        .map(|(guests, case)| (name(&guests, &case), guests, case))
        .filter(|(name, ..)| only.is_empty() || only.contains(name))
        .collect();
    eprintln!("{:.0} min", (chosen.len() as f64 * (length.as_secs_f64() + 3.0) / 60.0).ceil());
    let mut outcomes = Vec::new();
    for (name, guests, case) in chosen {
        let outcome = match guests {
            Guests::Dpdk(queues) => guests_of(lab, &name, &case, queues, length),
            Guests::BackEnds => back_ends(lab, &name, length),
            Guests::Pktgen => start(lab, 1).and_then(|netdevd| pktgen(lab, &name, &case, length, &netdevd)),
            Guests::Behind => behind(lab, &name, &case, length),
        };
        outcomes.push(outcome.context(&name)?);
    }
    progress_done();
    report(lab, &outcomes, length, as_json)
}

fn start(lab: &Lab, queues: usize) -> Result<Netdevd> {
    Netdevd::with(lab, &NetdevdSetup { cores: lab.dut_cpu.to_string(), idle: "poll", queues })
}

fn guests_of(lab: &Lab, name: &str, case: &Case, queues: usize, length: Duration) -> Result<Outcome> {
    let _lock = lab.hold()?;
    let netdevd = start(lab, queues)?;
    let guests = VirtioUser::start(lab, case, queues, netdevd.sockets())?;
    dpdk(lab, name, length, netdevd, guests)
}

fn back_ends(lab: &Lab, name: &str, length: Duration) -> Result<Outcome> {
    let _lock = lab.hold()?;
    let sockets = [0, 1].map(|number| lab.run.path().join(format!("vhost{number}.sock")));
    let mut back_ends = VirtioUser::serve(lab, &sockets)?;
    let setup = NetdevdSetup { cores: lab.dut_cpu.to_string(), idle: "poll", queues: 1 };
    let netdevd = Netdevd::before(lab, &setup, &sockets, false)?;
    back_ends.begin()?;
    dpdk(lab, name, length, netdevd, back_ends)
}

fn dpdk(
    lab: &Lab,
    name: &str,
    length: Duration,
    mut netdevd: Netdevd,
    mut guests: VirtioUser,
) -> Result<Outcome> {
    let started = Instant::now();
    let mut rates: Vec<f64> = Vec::new();
    let mut before = (started, guests.counters()?[0]);
    while started.elapsed() < length {
        std::thread::sleep(Duration::from_secs(1).min(length));
        lab.go_on()?;
        netdevd.check()?;
        let now = (Instant::now(), guests.counters()?[0]);
        rates.push((now.1 - before.1) / (now.0 - before.0).as_secs_f64() / 1e6);
        before = now;
        progress(&format!(
            "{name}: {:.0} s, {:.2} Mpps",
            started.elapsed().as_secs_f64(),
            rates.last().unwrap_or(&0.0)
        ));
    }
    let secs = started.elapsed().as_secs_f64();
    guests.stop()?;
    // What is under way reaches the receive rings, as soon as netdevd gets its CPU.
    let stopped = Instant::now();
    let (received, sent, errors, engine) = loop {
        let [received, sent, errors] = guests.counters()?;
        let (engine, _) = netdevd.counters()?;
        if engine.entered as f64 == sent || stopped.elapsed() > UNDER_WAY {
            break (received, sent, errors, engine);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let drops: u64 = engine.drops.values().sum();
    let (entered, left) = (engine.entered as f64, engine.left as f64);
    let lost = (sent - entered).abs() + (entered - left - drops as f64).abs();
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Outcome {
        name: name.into(),
        frames: received,
        mpps: received / secs / 1e6,
        lost: lost + drops as f64 + errors,
        changed: f64::NAN,
        note: format!("slowest second {slowest:.2} Mpps; {:.0} frames still go round", sent - received),
    })
}

fn behind(lab: &Lab, name: &str, case: &Case, length: Duration) -> Result<Outcome> {
    let mut testpmd = Testpmd::start(lab, case)?;
    testpmd.patient()?;
    // testpmd polls on the device's CPU, and pktgen on the other one: netdevd gets its share of both.
    let cores = format!("{},{}", lab.dut_cpu, lab.load_cpu);
    let setup = NetdevdSetup { cores, idle: "adaptive", queues: 1 };
    let mut netdevd = Netdevd::before(lab, &setup, testpmd.sockets(), true)?;
    let outcome = pktgen(lab, name, case, length, &netdevd)?;
    let (engine, _) = netdevd.counters()?;
    let dropped = testpmd.end()?.dropped;
    let note = format!("{}; dropped by netdevd {:?}, by testpmd {dropped:.0}", outcome.note, engine.drops);
    Ok(Outcome { note, ..outcome })
}

fn pktgen(lab: &Lab, name: &str, case: &Case, length: Duration, netdevd: &Netdevd) -> Result<Outcome> {
    let _lock = lab.hold()?;
    let mut words = case.pktgen();
    if case.size != LARGE {
        words.extend(["--size".to_owned(), "64,256,1518,128,700".to_owned()]);
        words.drain(..2);
    }
    let mut guests = Pktgen::start(lab, &words, netdevd.sockets())?;
    progress(&format!("{name}: {:.0} s", length.as_secs_f64()));
    let got = guests.slice(&Want { rate: None, length, stamps: false, verify: true })?;
    let [missing, changed] = got.damage;
    Ok(Outcome {
        name: name.into(),
        frames: got.offered - got.lost,
        mpps: got.mpps,
        lost: got.lost + missing,
        changed,
        note: "every byte compared".into(),
    })
}

fn report(lab: &Lab, outcomes: &[Outcome], length: Duration, as_json: bool) -> Result<()> {
    let mut table = Table::default();
    table.row(["guests", "M frames", "Mpps", "lost", "changed", ""]);
    for outcome in outcomes {
        table.row([
            outcome.name.clone(),
            figure(outcome.frames / 1e6),
            figure(outcome.mpps),
            format!("{:.0}", outcome.lost),
            if outcome.changed.is_nan() { "-".into() } else { format!("{:.0}", outcome.changed) },
            outcome.note.clone(),
        ]);
    }
    let rows: Value = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "guests": outcome.name, "frames": outcome.frames, "mpps": outcome.mpps, "lost": outcome.lost,
                "changed": outcome.changed, "note": outcome.note,
            })
        })
        .collect();
    let value = json!({"what": "compare soak", "seconds-each": length.as_secs_f64(), "rows": rows});
    let path = lab.reports.join("soak.json");
    let text = serde_json::to_string_pretty(&value).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        print!("{table}");
        println!("{}", path.display());
    }
    let bad = outcomes.iter().filter(|outcome| outcome.lost > 0.0 || outcome.changed > 0.0).count();
    match bad {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{bad} runs lost or changed frames"))),
    }
}
