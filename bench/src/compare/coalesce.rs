//! `compare coalesce`: single UDP datagrams of one flow from a guest into a tap, beside what the same tap takes one write a
//! datagram: from netdevd where it may not coalesce (`vnet_hdr=off`), and from a plain loop of writes.
//!
//! Counted are datagrams that reach a socket in the tap's namespace, with all that the kernel does for them; the writer pays
//! for that, on the device's CPU.

use crate::compare::lab::{Lab, progress_done};
use crate::compare::netns::{self, Namespace};
use crate::compare::peer::interface;
use crate::compare::process::{Process, preferred};
use crate::compare::vhost::duts::{Account, Dut};
use crate::compare::vhost::load::{Pktgen, Want};
use crate::compare::vhost::quads::{LEG, Plan, Side, before_others, interleave};
use crate::compare::vhost::report::{Row, json, tables};
use crate::failure::{Context, Failure, Result};
use crate::proc;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// What a quad takes with everything around its legs.
const QUAD: Duration = Duration::from_millis(1800);
/// The canary's.
const TICK: Duration = Duration::from_millis(5);
/// Bytes of UDP payload.
const PAYLOAD: usize = 1400;
/// How many times as many datagrams are wanted.
const WANT: f64 = 3.0;

/// How datagrams get into the tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A guest, a hub, a tap with offloads.
    Coalescing,
    /// A guest, a hub, a tap without a virtio-net header.
    Single,
    /// A loop of writes.
    Loop,
}

/// A tap in a namespace of its own with a socket behind it, and what writes to it.
struct Tapped {
    way: Way,
    sink: Process,
    netdevd: Option<Process>,
    sockets: Vec<PathBuf>,
    arrived: u64,
    _namespace: Namespace,
}

impl Tapped {
    fn start(lab: &Lab, way: Way) -> Result<Side<Pktgen>> {
        let word = match way {
            Way::Coalescing => "coalescing",
            Way::Single => "single",
            Way::Loop => "loop",
        };
        let namespace = Namespace::create(word)?;
        let tap = interface(word, "t");
        let mut words: Vec<String> = ["--udp", "--to", "10.77.0.2:20000", "--to-mac", "02:00:00:77:00:02"]
            .into_iter()
            .map(str::to_owned)
            .collect();
        words.extend(["--size".into(), (PAYLOAD + 42).to_string()]);
        let (mut netdevd, mut sockets) = (None, Vec::new());
        let load = if way == Way::Loop {
            words.extend(["--tap".into(), tap.clone()]);
            // It is the device under test, so it gets that CPU.
            Pktgen::on(lab, lab.dut_cpu, &words, &[])?
        } else {
            let socket = lab.run.path().join(format!("{word}.sock"));
            let vnet_hdr = if way == Way::Single { ",vnet_hdr=off" } else { "" };
            let mut command = preferred(lab.binaries.join("netdevd"));
            command.args(["-cores", &lab.dut_cpu.to_string(), "-idle", "poll"]);
            command.args(["-netdev", &format!("tap,id=t,ifname={tap},script=no,downscript=no{vnet_hdr}")]);
            command.args(["-netdev", "hubport,id=ht,hubid=0,netdev=t", "-netdev", "hubport,id=hn,hubid=0"]);
            command.args(["-netdev", &format!("nic,id=n,netdev=hn,addr={}", socket.display())]);
            netdevd = Some(Process::spawn(command, &format!("netdevd-{word}"), lab.run.path())?);
            sockets.push(socket);
            Pktgen::start(lab, &words, &sockets)?
        };
        namespace.adopt(&tap, 2)?;
        let mut command = namespace.pinned(lab.load_cpu, &lab.tool("udpload"));
        command.args(["sink", "--at", "0.0.0.0:20000", "--flows", "1"]);
        let mut sink = Process::spawn(command, &format!("{word}-sink"), lab.run.path())?;
        sink.wait_for("ready")?;
        Side::new(Self { way, sink, netdevd, sockets, arrived: 0, _namespace: namespace }, load)
    }

    fn arrived(&self) -> Result<u64> {
        proc::udp(self.sink.pid()).map(|udp| udp.arrived())
    }
}

impl Dut for Tapped {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Coalescing | Way::Single => "netdevd",
            Way::Loop => "loop",
        }
    }

    fn pid(&self) -> u32 {
        self.netdevd.as_ref().map_or_else(|| self.sink.pid(), Process::pid)
    }

    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn begin(&mut self) -> Result<()> {
        self.arrived = self.arrived()?;
        Ok(())
    }

    /// `frames` are the datagrams that arrived.
    fn end(&mut self) -> Result<Account> {
        Ok(Account { frames: (self.arrived()? - self.arrived) as f64, ..Account::default() })
    }
}

/// Runs it and writes `coalesce.json`.
///
/// # Errors
/// When a side fails, and with `check` when the target is missed.
pub fn run(lab: &Lab, quick: bool, as_json: bool, check: bool) -> Result<()> {
    netns::sweep();
    let plan = Plan::new(quick, QUAD, TICK);
    eprintln!("at most {:.0} min", (plan.budget * 2).as_secs_f64() / 60.0);
    before_others();
    let mut rows = Vec::new();
    for (way, case, want) in [
        (Way::Loop, "beside a loop of writes", Some(WANT)),
        (Way::Single, "beside netdevd, vnet_hdr=off", None),
    ] {
        let mut sides = [Tapped::start(lab, Way::Coalescing)?, Tapped::start(lab, way)?];
        let quads = interleave(lab, &plan, case, &mut sides, |side| {
            side.dut.begin()?;
            let want = Want { rate: None, length: LEG, stamps: false, verify: false };
            let got = side.load.forward(&want)?;
            let arrived = side.dut.end()?.frames;
            if arrived == 0.0 {
                return Err(Failure::new(format!("{}: no datagram reached the socket", side.dut.name())));
            }
            Ok((arrived / got.all_secs / 1e6, got.busy))
        })?;
        let rate = |sample: &(f64, f64)| sample.0;
        let gbits = quads.side(0, |sample| sample.0 * PAYLOAD as f64 * 8.0 / 1e3);
        rows.push(Row {
            part: "coalesce",
            case: case.into(),
            unit: "M datagrams/s",
            less: false,
            ours: quads.side(0, rate),
            theirs: quads.side(1, rate),
            better: quads.ratio(rate),
            far: quads.far_ratio(rate),
            want,
            samples: quads.near.len(),
            least: quads.least,
            note: format!("{:.1} Gbit/s", gbits.map_or(f64::NAN, |gbits| gbits.median)),
        });
    }
    progress_done();
    let value = json!({"what": "compare coalesce", "payload": PAYLOAD, "rows": json(&rows)});
    let path = lab.reports.join("coalesce.json");
    let text = serde_json::to_string_pretty(&value).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        print!("{}", tables(&rows));
        println!(
            "UDP datagrams of {PAYLOAD} bytes of one flow that reached a socket behind the tap.\n{}",
            path.display()
        );
    }
    match check && rows.iter().any(Row::missed) {
        true => Err(Failure::new("the target is missed")),
        false => Ok(()),
    }
}
