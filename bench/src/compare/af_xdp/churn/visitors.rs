//! Netdevs that come, carry traffic for a moment and go: an `af-xdp` netdev of two queues and a nic, joined by a hub.

use super::super::lane::Lane;
use super::books::programs;
use crate::compare::lab::Lab;
use crate::compare::netns::preferred_in;
use crate::compare::process::run;
use crate::compare::vhost::duts::Netdevd;
use crate::failure::{Context, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a visitor's traffic lasts, and its frames a second, both ways.
const TRAFFIC: Duration = Duration::from_millis(200);
const RATE: u32 = 20_000;

/// Programs of the two that stay.
const STEADY: usize = 2;

/// One visit.
#[derive(Debug, Clone, Default)]
pub(super) struct Visit {
    /// Frames between the interface and the guest.
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) changed: u64,
    /// The longest of its commands.
    pub(super) longest: Duration,
    /// Programs that were there when it had gone, and should not.
    pub(super) programs_left: usize,
}

/// Who comes and goes.
#[derive(Debug)]
pub(super) struct Visitors {
    socket: PathBuf,
    _directory: TempDir,
}

impl Visitors {
    /// Nobody yet.
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        let directory = tempfile::tempdir_in(lab.run.path()).context("a directory")?;
        Ok(Self { socket: directory.path().join("n.sock"), _directory: directory })
    }

    /// They come; the longest of the commands.
    pub(super) fn arrive(&self, netdevd: &mut Netdevd) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for netdev in [
            json!({"type": "af-xdp", "id": "c", "ifname": "dc", "queues": 2}),
            json!({"type": "hubport", "id": "hc", "hubid": 1, "netdev": "c"}),
            json!({"type": "hubport", "id": "hn", "hubid": 1}),
            json!({"type": "nic", "id": "n", "netdev": "hn", "addr": self.socket.display().to_string()}),
        ] {
            longest = longest.max(timed(netdevd, "netdev_add", netdev)?);
        }
        // The kernel tells of a carrier up to a second after it is there.
        netdevd.await_ready("c")?;
        Ok(longest)
    }

    fn leave(netdevd: &mut Netdevd) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for id in ["n", "hn", "hc", "c"] {
            longest = longest.max(timed(netdevd, "netdev_del", json!({"id": id}))?);
        }
        Ok(longest)
    }

    /// They come, get traffic, and go while there still is some.
    pub(super) fn visit(&self, lab: &Lab, lane: &Lane, netdevd: &mut Netdevd) -> Result<Visit> {
        let came = self.arrive(netdevd)?;
        let mut command = preferred_in(Some(&lane.load), lab.tool("pktgen"));
        command.args([
            "--xdp",
            "gc",
            "--cpu",
            &lab.load_cpu.to_string(),
            "--verify",
            "--size",
            "64,1514,300",
        ]);
        command.args([
            "--rate",
            &RATE.to_string(),
            "--warm",
            "0.01",
            "--secs",
            &TRAFFIC.as_secs_f64().to_string(),
        ]);
        let said = run(command.arg(&self.socket))?;
        let report: Value = serde_json::from_str(said.trim()).context("pktgen's report")?;
        let number = |name: &str| report[name].as_u64().unwrap_or(0);
        let went = Self::leave(netdevd)?;
        Ok(Visit {
            sent: number("all-sent"),
            received: number("all-received"),
            changed: number("changed"),
            longest: came.max(went),
            programs_left: programs(&lane.dut)?.saturating_sub(STEADY),
        })
    }
}

fn timed(netdevd: &mut Netdevd, command: &str, arguments: Value) -> Result<Duration> {
    let start = Instant::now();
    netdevd.ask(command, arguments)?;
    Ok(start.elapsed())
}
