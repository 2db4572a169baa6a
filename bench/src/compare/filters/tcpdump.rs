//! tcpdump on a veth pair, whose sender goes as fast as it is asked to, or as it can.

use super::dump::Ours;
use super::{Options, TIMES_TCPDUMP, memory};
use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, address, ip};
use crate::compare::process::Process;
use crate::compare::stats::{Estimate, Spread};
use crate::compare::vhost::report::Row;
use crate::failure::{Context, Result};
use std::time::Duration;

/// How long it sends.
const SECS: f64 = 1.0;
/// Payload of 64 byte frames.
const PAYLOAD: usize = 22;
/// Bytes of the file's header, and of a record: its header and the frame.
const BYTES: [f64; 2] = [24.0, 16.0 + 64.0];

/// The row.
///
/// # Errors
/// Without tcpdump, or when it does not end.
pub(super) fn rows(lab: &Lab, options: &Options, ours: &Ours) -> Result<Vec<Row>> {
    let (from, to) = (Namespace::create("ff")?, Namespace::create("ft")?);
    ip("link add ndfa type veth peer name ndfb")?;
    from.adopt("ndfa", 1)?;
    to.adopt("ndfb", 2)?;
    from.knows("ndfa", 2)?;
    to.knows("ndfb", 1)?;
    let mut sink = to.pinned(lab.load_cpu, &lab.tool("udpload"));
    sink.args(["sink", "--at", &format!("{}:9", address(2))]);
    let mut sink = Process::spawn(sink, "udpload-sink", lab.run.path())?;
    sink.wait_for("ready")?;
    let place = memory()?;
    let rounds = if options.quick { 2 } else { 5 };
    let (mut captured, mut offered) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        lab.go_on()?;
        let slice =
            lab.slice(Duration::from_millis(5), || round(lab, options, [&from, &to], place.path()))?;
        captured.push(slice.value[0]);
        offered.push(slice.value[1]);
    }
    let times: Vec<f64> = captured.iter().map(|theirs| ours.captured.median / theirs).collect();
    let sent = Spread::of(&offered).map_or(f64::NAN, |spread| spread.median);
    Ok(vec![Row {
        part: "tcpdump",
        case: "64 bytes".into(),
        unit: "k frames/s captured",
        less: false,
        ours: Some(ours.captured),
        theirs: Spread::of(&captured),
        better: Estimate::of(&times),
        far: None,
        want: Some(TIMES_TCPDUMP),
        samples: captured.len(),
        least: 2,
        note: format!("over the veth pair went {sent:.0} k/s"),
    }])
}

/// Thousand frames a second in the file, and over the pair.
fn round(
    lab: &Lab,
    options: &Options,
    [from, to]: [&Namespace; 2],
    place: &std::path::Path,
) -> Result<[f64; 2]> {
    let file = place.join("tcpdump.pcap");
    let mut command = to.pinned(lab.dut_cpu, "tcpdump");
    command.args(["-i", "ndfb", "-s", "256", "-Z", "root", "-w"]).arg(&file);
    let mut tcpdump = Process::spawn(command, "tcpdump", lab.run.path())?;
    tcpdump.wait_for("listening")?;
    let before = to.interfaces()?.get("ndfb").map_or(0, |counters| counters.rx_frames);
    let mut send = from.pinned(lab.load_cpu, &lab.tool("udpload"));
    send.args(["send", "--to", &format!("{}:9", address(2)), "--size", &PAYLOAD.to_string()]);
    send.args(["--secs", &SECS.to_string(), "--rate", &options.rate.to_string()]);
    crate::compare::process::run(&mut send)?;
    let after = to.interfaces()?.get("ndfb").map_or(0, |counters| counters.rx_frames);
    tcpdump.terminate()?;
    tcpdump.finish(Duration::from_secs(10))?;
    let bytes = std::fs::metadata(&file).context("tcpdump's file")?.len() as f64;
    std::fs::remove_file(&file).context("tcpdump's file")?;
    Ok([(bytes - BYTES[0]) / BYTES[1] / SECS / 1e3, after.saturating_sub(before) as f64 / SECS / 1e3])
}
