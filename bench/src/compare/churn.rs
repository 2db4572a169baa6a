//! `compare churn`: netdevs and filters come and go while another pair of taps carries traffic; nothing may be lost.

use crate::compare::account::Engine;
use crate::compare::lab::{Lab, progress, progress_done};
use crate::compare::netns;
use crate::compare::pair::{Counters, Pair};
use crate::compare::peer::{Daemon, Peer, interface};
use crate::compare::process::Process;
use crate::compare::table::Table;
use crate::failure::{Context, Failure, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Datagrams a second through the pair that must not notice.
const RATE: u32 = 50_000;

/// Traffic alone, before and after.
const LEAD: Duration = Duration::from_millis(300);

/// The longest time for one kind of object.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is added and removed.
#[derive(Debug, Clone, Copy)]
enum Object {
    Hubport,
    Tap,
    /// On the netdev that carries the traffic, where it costs most.
    Filter,
}

impl Object {
    const ALL: [Self; 3] = [Self::Hubport, Self::Tap, Self::Filter];

    const fn name(self) -> &'static str {
        match self {
            Self::Hubport => "hubports",
            Self::Tap => "taps",
            Self::Filter => "filter-dumps",
        }
    }

    /// The command that adds one, and the one that removes it.
    fn commands(self, tap: &str, directory: &Path) -> [(&'static str, Value); 2] {
        match self {
            Self::Hubport => [
                ("netdev_add", json!({ "type": "hubport", "id": "churn", "hubid": 7 })),
                ("netdev_del", json!({ "id": "churn" })),
            ],
            Self::Tap => [
                (
                    "netdev_add",
                    json!({ "type": "tap", "id": "churn", "ifname": tap, "script": "no", "downscript": "no" }),
                ),
                ("netdev_del", json!({ "id": "churn" })),
            ],
            Self::Filter => {
                let file = directory.join("churn.pcap").display().to_string();
                [
                    (
                        "object-add",
                        json!({ "qom-type": "filter-dump", "id": "churn", "netdev": "a", "file": file }),
                    ),
                    ("object-del", json!({ "id": "churn" })),
                ]
            }
        }
    }
}

/// What happened while one kind came and went.
#[derive(Debug)]
struct Phase {
    object: Object,
    pairs: u32,
    seconds: f64,
    /// Datagrams that the source sent.
    sent: u64,
    before: Counters,
    after: Counters,
}

impl Phase {
    fn read(&self) -> u64 {
        self.after.read - self.before.read
    }

    /// Datagrams, not frames: the peer may have joined several into one.
    fn arrived(&self) -> u64 {
        self.after.udp.arrived() - self.before.udp.arrived()
    }

    /// What netdevd says itself.
    fn engine(&self) -> Option<Engine> {
        Some(self.after.engine.as_ref()?.since(self.before.engine.as_ref()?))
    }

    fn named(&self) -> u64 {
        self.engine().map_or(0, |engine| engine.drops.values().sum())
    }

    /// Frames that the kernel saw go in, and that neither reached a socket nor were named by netdevd.
    fn lost(&self) -> i64 {
        self.read().cast_signed() - self.arrived().cast_signed() - self.named().cast_signed()
    }

    fn queue_drops(&self) -> u64 {
        self.after.queue_drops - self.before.queue_drops
    }

    fn summary(&self) -> Value {
        json!({
            "objects": self.object.name(), "pairs": self.pairs, "seconds": self.seconds, "sent": self.sent,
            "tap-queue-drops": self.queue_drops(), "in": self.read(), "out": self.arrived(), "named": self.named(),
            "lost": self.lost(),
            "netdevd": self.engine().map(|engine| engine.summary()),
        })
    }
}

/// Runs it and writes `churn.json`.
///
/// # Errors
/// When a command fails, or a frame is lost without a name.
pub fn run(lab: &Lab, peer: &str, pairs: u32, as_json: bool) -> Result<()> {
    netns::sweep();
    let daemon = if peer == "qemu" { Daemon::qemu(lab) } else { Daemon::netdevd(lab) };
    if let Some(why) = daemon.missing() {
        return Err(Failure::new(why));
    }
    let mut pair = Pair::join(lab, &daemon)?;
    let mut phases = Vec::new();
    for object in Object::ALL {
        let _lock = lab.hold()?;
        phases.push(phase(lab, &mut pair, object, pairs).context(object.name())?);
    }
    progress_done();
    pair.alive()?;
    drop(pair);
    let rows: Vec<Value> = phases.iter().map(Phase::summary).collect();
    let report = json!({ "what": "compare churn", "peer": daemon.name(), "rate": RATE, "rows": rows });
    let path = lab.reports.join("churn.json");
    let text = serde_json::to_string_pretty(&report).context("report")?;
    std::fs::write(&path, &text).context(path.display())?;
    if as_json {
        println!("{text}");
    } else {
        print!("{}", table(&phases));
        println!(
            "\n{} carries {RATE} frames/s from one tap to another meanwhile. in: frames read from",
            daemon.name()
        );
        println!(
            "the first tap; out: datagrams that reached a socket behind the second (both the kernel's counts)."
        );
        println!(
            "lost = in - out - named drops. queue: what the tap's own queue dropped before it could be read."
        );
        for phase in &phases {
            if let Some(engine) = phase.engine() {
                println!("{}'s own account of the {}: {}", daemon.name(), phase.object.name(), engine.line());
            }
        }
        println!("{}", path.display());
    }
    let lost: i64 = phases.iter().map(Phase::lost).sum();
    if lost == 0 { Ok(()) } else { Err(Failure::new(format!("{lost} frames lost without a name"))) }
}

fn phase(lab: &Lab, pair: &mut Pair, object: Object, pairs: u32) -> Result<Phase> {
    let tap = interface(pair.name, "t");
    let [(add, adding), (remove, removing)] = object.commands(&tap, lab.run.path());
    let before = pair.counters()?;
    let mut command = pair.a.pinned(lab.load_cpu, &lab.tool("udpload"));
    command.args([
        "send",
        "--to",
        &pair.sink_address().to_string(),
        "--rate",
        &RATE.to_string(),
        "--until-eof",
    ]);
    command.args(["--secs", &(PATIENCE.as_secs() + 10).to_string()]);
    let sender = Process::spawn(command, "udpload-churn", lab.run.path())?;
    std::thread::sleep(LEAD);
    let qmp = pair.qmp.as_mut().ok_or_else(|| Failure::new("no QMP socket"))?;
    let start = Instant::now();
    let mut done = 0;
    while done < pairs && start.elapsed() < PATIENCE {
        if done.is_multiple_of(100) {
            lab.go_on()?;
            progress(&format!("{}: {done} of {pairs}", object.name()));
        }
        qmp.execute(add, adding.clone())?;
        qmp.execute(remove, removing.clone())?;
        done += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(LEAD);
    let said = sender.finish(Duration::from_secs(10))?;
    let sent: Value = serde_json::from_str(said.trim()).context("udpload")?;
    // The last frames must be through before the counters are compared.
    std::thread::sleep(Duration::from_millis(100));
    let after = pair.counters()?;
    Ok(Phase { object, pairs: done, seconds, sent: sent["sent"].as_u64().unwrap_or(0), before, after })
}

fn table(phases: &[Phase]) -> Table {
    let mut table = Table::default();
    table.row(["added and removed", "pairs", "pairs/s", "sent", "queue", "in", "out", "named", "lost"]);
    for phase in phases {
        let rate = f64::from(phase.pairs) / phase.seconds;
        let counts = [phase.sent, phase.queue_drops(), phase.read(), phase.arrived(), phase.named()];
        let mut cells = vec![phase.object.name().to_string(), phase.pairs.to_string(), format!("{rate:.0}")];
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(phase.lost().to_string());
        table.row(cells);
    }
    table
}
