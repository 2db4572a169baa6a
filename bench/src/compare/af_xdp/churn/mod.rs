//! Two interfaces joined at full rate, every byte compared, while every second an `af-xdp` netdev of two queues and a nic come, carry traffic and go.
//!
//! At the end each frame has an owner: out = in minus named drops, and what the kernel dropped before and behind stands beside it. All chunks
//! of the worker's UMEM are free, in a ring, or known to be lost. Then the daemon is killed, and no XDP program may be left.

mod books;
mod report;
mod visitors;

use self::books::{Account, Memory, programs};
use self::report::{faults, show, summary};
use self::visitors::{Visit, Visitors};
use super::lane::Lane;
use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::netns::{self, ip_batch};
use crate::compare::vhost::duts::{Home, Netdevd, NetdevdSetup};
use crate::compare::vhost::load::{Got, Pktgen, Want};
use crate::failure::{Context, Failure, Result};
use std::time::{Duration, Instant};

/// Bytes of the steady frames.
const SIZES: &str = "64,256,1514,128,700";

/// One visit begins every so often.
const EVERY: Duration = Duration::from_secs(1);

/// How long frames may be under way, chunks on their way back, and programs of a daemon that was killed attached.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
struct Outcome {
    secs: f64,
    steady: Got,
    account: Account,
    /// Million frames a second that arrived, of each second.
    rates: Vec<f64>,
    visits: Vec<Visit>,
    memory: Vec<Memory>,
    /// Programs on interfaces of the device's, before and after the daemon was killed.
    programs: [usize; 2],
}

/// Runs it for `length` and writes `af-xdp-churn.json`.
///
/// # Errors
/// When a frame is lost without a name or changed, a chunk is missing, or a program is left.
pub fn run(lab: &Lab, length: Duration, as_json: bool) -> Result<()> {
    netns::sweep();
    super::before_others();
    eprintln!("{:.0} min", (length.as_secs_f64() / 60.0).ceil());
    let outcome = measure(lab, length)?;
    progress_done();
    let faults = faults(&outcome);
    let report = summary(&outcome, &faults);
    let path = lab.reports.join("af-xdp-churn.json");
    let text = serde_json::to_string_pretty(&report).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        show(&outcome);
        println!("{}", path.display());
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::new(faults.join("; "))) }
}

/// netdevd with two interfaces on a hub.
fn start(lab: &Lab, lane: &Lane) -> Result<Netdevd> {
    let netdevs = [
        "af-xdp,id=a,ifname=da",
        "hubport,id=ha,hubid=0,netdev=a",
        "af-xdp,id=b,ifname=db",
        "hubport,id=hb,hubid=0,netdev=b",
    ];
    let words: Vec<String> = netdevs.iter().flat_map(|netdev| ["-netdev".into(), (*netdev).into()]).collect();
    let setup = NetdevdSetup::polling(lab);
    let mut netdevd = Netdevd::launch(lab, &setup, Home::new(lab, 0)?, Some(&lane.dut), &words)?;
    netdevd.await_ready("a")?;
    netdevd.await_ready("b")?;
    Ok(netdevd)
}

fn measure(lab: &Lab, length: Duration) -> Result<Outcome> {
    let _lock = lab.hold()?;
    let lane = Lane::create("churn")?;
    let (here, there) = (lane.load.name(), lane.dut.name());
    let many = "numrxqueues 2 numtxqueues 2";
    ip_batch(
        None,
        &format!("link add gc netns {here} {many} type veth peer name dc netns {there} {many}\n"),
    )?;
    ip_batch(Some(&lane.load), "link set gc up\n")?;
    ip_batch(Some(&lane.dut), "link set dc up\n")?;
    let mut netdevd = start(lab, &lane)?;
    let words = ["--xdp", "ga", "--xdp", "gb", "--size", SIZES].map(str::to_owned);
    let mut pktgen = Pktgen::inside(lab, &lane.load, &words, &[])?;
    let visitors = Visitors::new(lab)?;
    let before = Account::read(&lane, &mut netdevd)?;
    let mut counters = lane.load.counters()?;
    let mut arrivals = || Ok::<u64, Failure>(counters.read("ga")?.rx_frames + counters.read("gb")?.rx_frames);
    let started = Instant::now();
    let (steady, visits, rates) = std::thread::scope(|scope| -> Result<_> {
        let want = Want { rate: None, length, stamps: false, verify: true };
        let steady = scope.spawn(move || pktgen.slice(&want).map(|got| (got, pktgen)));
        let (mut visits, mut rates) = (Vec::new(), Vec::new());
        let mut last = (Instant::now(), arrivals()?);
        while started.elapsed() + EVERY < length {
            lab.go_on()?;
            let next = Instant::now() + EVERY;
            visits.push(visitors.visit(lab, &lane, &mut netdevd)?);
            netdevd.check()?;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let now = (Instant::now(), arrivals()?);
            let rate = (now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64() / 1e6;
            rates.push(rate);
            last = now;
            progress(&format!(
                "{:.0} s, {rate:.2} Mpps, {} visits",
                started.elapsed().as_secs_f64(),
                visits.len()
            ));
        }
        let (steady, pktgen) = steady.join().map_err(|_| Failure::new("pktgen's thread"))??;
        // Its own programs go with it; the daemon's stay.
        drop(pktgen);
        Ok((steady, visits, rates))
    })?;
    let secs = started.elapsed().as_secs_f64();
    let account = Account::settled(&lane, &mut netdevd, &before, PATIENCE)?;
    let memory = Memory::settled(&mut netdevd, &["a", "b"], PATIENCE)?;
    // Killed with all that there can be: the visitor's program too.
    visitors.arrive(&mut netdevd)?;
    let there = programs(&lane.dut)?;
    netdevd.kill()?;
    let until = Instant::now() + PATIENCE;
    let left = loop {
        let left = programs(&lane.dut)?;
        if left == 0 || Instant::now() > until {
            break left;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok(Outcome { secs, steady, account, rates, visits, memory, programs: [there, left] })
}
