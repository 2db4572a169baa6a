//! Between two nics, without and with a capture of whole frames.

use super::{CYCLES_MOST, Options, memory};
use crate::compare::lab::Lab;
use crate::compare::stats::{Estimate, Spread};
use crate::compare::vhost::cases::Case;
use crate::compare::vhost::duts::{Account, Dut, Home, Netdevd, NetdevdSetup};
use crate::compare::vhost::load::{Got, Pktgen, Want};
use crate::compare::vhost::quads::{LEG, Plan, Quads, Side, interleave, moves};
use crate::compare::vhost::report::Row;
use crate::failure::{Context, Result};
use crate::proc;
use engine::worker::clock::Clock;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// What a quad takes with everything around its legs.
const QUAD: Duration = Duration::from_millis(2200);
/// The canary's.
const TICK: Duration = Duration::from_millis(5);
/// A worker that waited longer for its CPU makes its quad void.
const MOST_WAITED: f64 = 0.02;
/// Entries of the rings: what is sent by the clock has to outlast the writing of a chunk.
const RING: u16 = 1024;
/// Header of a file, and of a record.
const HEADERS: [f64; 2] = [24.0, 16.0];

/// What the other parts compare with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ours {
    /// Thousand frames a second in the file.
    pub(super) captured: Spread,
    /// Nanoseconds that a captured frame costs the worker.
    pub(super) added_ns: Estimate,
}

/// What a leg gave.
#[derive(Debug, Clone, Copy)]
struct Sample {
    account: Account,
    got: Got,
    /// Records in the file.
    captured: f64,
    /// Share of a CPU that the writer used.
    writer: f64,
    /// Share of the time that the worker waited for its CPU.
    waited: f64,
}

impl Sample {
    fn seconds(&self) -> f64 {
        self.got.all_secs
    }
}

/// A leg, with a capture into `file` where there is one.
fn leg(side: &mut Side<Pktgen>, netdevd: &mut Capture, rate: Option<f64>) -> Result<Sample> {
    netdevd.begin()?;
    side.dut.begin()?;
    let want = Want { rate, length: LEG, stamps: false, verify: false };
    let waited = |side: &Side<Pktgen>| proc::waited_ns(side.dut.pid(), moves).unwrap_or(0);
    let before = waited(side);
    let got = side.load.forward(&want)?;
    let waited = waited(side).saturating_sub(before) as f64 / 1e9 / got.all_secs;
    let account = side.dut.end()?;
    let (captured, writer) = netdevd.end(side.dut.pid(), &got)?;
    Ok(Sample { account, got, captured, writer, waited })
}

/// A `filter-dump` that comes for each leg; nothing without a monitor.
struct Capture {
    qmp: Option<crate::qmp::Qmp>,
    file: std::path::PathBuf,
}

impl Capture {
    fn begin(&mut self) -> Result<()> {
        let Some(qmp) = &mut self.qmp else { return Ok(()) };
        let add = json!({"qom-type": "filter-dump", "id": "d", "netdev": "h0", "file": self.file});
        qmp.execute("object-add", add).map(drop)
    }

    /// Records in the file, and the writer's share of a CPU.
    fn end(&mut self, pid: u32, got: &Got) -> Result<(f64, f64)> {
        let Some(qmp) = &mut self.qmp else { return Ok((0.0, 0.0)) };
        let (_, ns) = proc::thread(pid, |name| name == "netdevd-dump")?;
        qmp.execute("object-del", json!({"id": "d"}))?;
        let bytes = std::fs::metadata(&self.file).context("the capture")?.len() as f64;
        let one = record(&self.file)?;
        std::fs::remove_file(&self.file).context("the capture")?;
        Ok(((bytes - HEADERS[0]) / one, ns as f64 / 1e9 / got.all_secs))
    }
}

/// Bytes of the first record, and of all others, as all frames are of one length.
fn record(file: &Path) -> Result<f64> {
    use std::io::Read;
    let mut start = [0; 40];
    std::fs::File::open(file)
        .and_then(|mut file| file.read_exact(&mut start))
        .context("the capture is empty")?;
    let kept = u32::from_ne_bytes([start[32], start[33], start[34], start[35]]);
    Ok(HEADERS[1] + f64::from(kept))
}

/// The rows, and what the other parts need of them.
///
/// # Errors
/// When netdevd or the load fails.
pub(super) fn rows(lab: &Lab, options: &Options) -> Result<(Vec<Row>, Ours)> {
    let case = Case::small().remove(0).with_ring(RING);
    let place = memory()?;
    let mut sides = Vec::new();
    let mut captures = Vec::new();
    for with in [true, false] {
        let home = Home::new(lab, 2)?;
        let socket = home.path().join("capture.sock");
        let netdevd = start(lab, home, &socket)?;
        let load = Pktgen::start(lab, &case.pktgen(), netdevd.sockets())?;
        let qmp = if with { Some(crate::qmp::Qmp::connect(&socket, Duration::from_secs(5))?) } else { None };
        captures.push(Capture { qmp, file: place.path().join("capture.pcap") });
        sides.push(Side::new(netdevd, load)?);
    }
    let (Some(without), Some(with)) = (sides.pop(), sides.pop()) else { return Ok((Vec::new(), nothing())) };
    let mut sides = [with, without];
    // The writer shares the CPU of the load. Whether the worker waited is asked around the load alone: the capture's begin and end take a CPU, too.
    let plan = Plan { watched: 0, ..Plan::new(options.quick, QUAD, TICK) };
    let mut take = |label: &str, rate: Option<f64>, plan: &Plan| {
        let dumping = sides[0].dut.pid();
        let quads = interleave(lab, plan, label, &mut sides, |side| {
            let at = usize::from(side.dut.pid() != dumping);
            leg(side, &mut captures[at], rate)
        });
        quads.map(undisturbed)
    };
    let name = format!("{:.1} M/s offered", options.rate / 1e6);
    let quads = take(&format!("dump, {name}"), Some(options.rate), &plan)?;
    let beyond = Plan { watched: 0, ..Plan::new(true, QUAD, TICK) };
    let beyond = take("dump, as many as go", None, &beyond)?;
    let (mut rows, ours) = judged(&name, &quads);
    rows.extend(overload(&beyond));
    Ok((rows, ours))
}

/// Without the quads in which the worker waited for its CPU.
fn undisturbed(mut quads: Quads<Sample>) -> Quads<Sample> {
    quads.near.retain(|quad| quad.iter().flatten().all(|leg| leg.waited <= MOST_WAITED));
    quads
}

/// Two nics on a hub, and a second monitor.
pub(super) fn start(lab: &Lab, home: Home, monitor: &Path) -> Result<Netdevd> {
    let mut words = vec!["-qmp".to_owned(), format!("unix:{},server=on,wait=off", monitor.display())];
    for (number, socket) in home.sockets.iter().enumerate() {
        words.extend(["-netdev".to_owned(), format!("hubport,id=h{number},hubid=0")]);
        words.extend([
            "-netdev".to_owned(),
            format!("nic,id=n{number},netdev=h{number},addr={}", socket.display()),
        ]);
    }
    Netdevd::launch(lab, &NetdevdSetup::polling(lab), home, None, &words)
}

const fn nothing() -> Ours {
    let spread = Spread { median: f64::NAN, min: f64::NAN, max: f64::NAN };
    Ours { captured: spread, added_ns: Estimate { median: f64::NAN, low: f64::NAN, high: f64::NAN } }
}

fn row(case: &str, unit: &'static str, less: bool, quads: &Quads<Sample>) -> Row {
    Row::of("dump", case, (unit, less), quads)
}

/// The cycles that the dump adds, quad by quad.
fn added(quads: &Quads<Sample>) -> Vec<f64> {
    let mean = |legs: &[Sample; 2]| legs.iter().map(|leg| leg.account.cycles()).sum::<f64>() / 2.0;
    quads.near.iter().map(|[with, without]| mean(with) - mean(without)).collect()
}

fn judged(name: &str, quads: &Quads<Sample>) -> (Vec<Row>, Ours) {
    let hz = Clock::calibrate().hz() as f64;
    let added = added(quads);
    let cycles = |sample: &Sample| sample.account.cycles();
    let lost = |side: usize| {
        quads.near.iter().flat_map(|quad| &quad[side]).map(|leg| leg.got.sent - leg.got.received).sum::<f64>()
    };
    let refused: f64 =
        quads.near.iter().flat_map(|quad| &quad[0]).map(|leg| leg.got.offered - leg.got.sent).sum();
    let missing: f64 =
        quads.near.iter().flat_map(|quad| &quad[0]).map(|leg| (leg.got.sent - leg.captured).max(0.0)).sum();
    let writer = quads.side(0, |sample| sample.writer).map_or(f64::NAN, |spread| spread.median);
    let share = |sample: &Sample| sample.captured / sample.got.sent;
    let shares: Vec<f64> = quads.near.iter().flat_map(|quad| &quad[0]).map(share).collect();
    let kfps = |sample: &Sample| sample.captured / sample.seconds() / 1e3;
    let most: Vec<f64> = added.iter().map(|added| CYCLES_MOST / added.max(0.1)).collect();
    let slow = quads.side(0, |sample| sample.got.slow).map_or(0.0, |spread| spread.median);
    let rows = vec![
        Row {
            ours: quads.side(0, cycles),
            theirs: quads.side(1, cycles),
            better: quads.ratio(cycles).map(|estimate| estimate.inverse()),
            note: format!(
                "writer {:.0} % of the load's CPU; {slow:.0} frames a leg the load was too slow for",
                100.0 * writer
            ),
            ..row(name, "cycles/frame", true, quads)
        },
        Row {
            ours: Spread::of(&added),
            theirs: Spread::of(&[CYCLES_MOST]),
            better: Estimate::of(&most),
            want: Some(1.0),
            note: "added by the dump, beside what it may add".into(),
            ..row(name, "cycles added/frame", true, quads)
        },
        Row {
            ours: Spread::of(&shares),
            theirs: Spread::of(&[1.0]),
            better: Estimate::of(&shares),
            want: Some(1.0),
            note: format!(
                "lost in all: {:.0} by the path, {missing:.0} by the capture; {refused:.0} found the ring full after the load stood still ({:.0} lost without the dump)",
                lost(0),
                lost(1)
            ),
            ..row(name, "captured of sent", false, quads)
        },
    ];
    let ns: Vec<f64> = added.iter().map(|cycles| cycles / hz * 1e9).collect();
    let ours = quads.side(0, kfps).zip(Estimate::of(&ns));
    (rows, ours.map_or(nothing(), |(captured, added_ns)| Ours { captured, added_ns }))
}

/// More than can be captured: frames are lost to the file, with a count, and never to their receiver.
fn overload(quads: &Quads<Sample>) -> Option<Row> {
    let share = |sample: &Sample| sample.captured / sample.got.received;
    let delivered = |sample: &Sample| sample.got.mpps;
    let dropped: f64 = quads.near.iter().flatten().flatten().map(|leg| leg.account.dropped).sum();
    let shares: Vec<f64> = quads.near.iter().flat_map(|quad| &quad[0]).map(share).collect();
    let captured = Spread::of(&shares)?;
    Some(Row {
        ours: quads.side(0, delivered),
        theirs: quads.side(1, delivered),
        better: quads.ratio(delivered),
        note: format!("dropped {dropped:.0}, captured {:.1} %", 100.0 * captured.median),
        ..row("as many as go", "Mpps", false, quads)
    })
}
