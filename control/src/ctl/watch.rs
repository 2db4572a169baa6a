//! `netdevctl stats -w`: rates between two looks at the counters.

use super::layout::Table;
use super::number::{mean, percent, short};
use super::stats::{Port, Stats, Ticks, core, drops};
use super::{Client, Failure, Screen};
use std::collections::HashMap;
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Moves to the top left.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line; of the screen.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// Prints rates every so often, `count` times or for ever: in place on a terminal, one block after the other
/// elsewhere. As JSON it prints the counters themselves, a look a line.
///
/// # Errors
/// The daemon's, the connection's or the output's.
pub(super) fn watch(
    client: &mut Client,
    every: Duration,
    count: Option<u64>,
    json: bool,
    screen: Screen,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let look = |client: &mut Client| client.execute(r#"{"execute": "query-net-stats"}"#, None);
    let mut before = Stats::read(&look(client)?)?;
    let mut then = Instant::now();
    let mut next = then + every;
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        sleep(next.saturating_duration_since(Instant::now()));
        // A look that came late does not make the following ones hurry.
        next = (next + every).max(Instant::now());
        let reply = look(client)?;
        let (stats, now) = (Stats::read(&reply)?, Instant::now());
        if json {
            writeln!(out, "{reply}")?;
        } else {
            let text = rates(&before, &stats, now - then, screen.columns);
            show(&text, shown == 0, screen, out)?;
        }
        out.flush()?;
        (before, then) = (stats, now);
        shown += 1;
    }
    Ok(())
}

/// Writes a block: over the one before on a terminal, below it elsewhere.
fn show(text: &str, first: bool, screen: Screen, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(rows) = screen.rows else {
        let gap = if first { "" } else { "\n" };
        return Ok(write!(out, "{gap}{text}")?);
    };
    let start = if first { "\x1b[2J" } else { "" };
    let lines: Vec<&str> = text.lines().collect();
    let fits = lines.len() < rows;
    let room = if fits { lines.len() } else { rows.saturating_sub(2) };
    let mut block = format!("{start}{HOME}");
    for line in &lines[..room] {
        block.push_str(&format!("{line}{CLEAR_LINE}\n"));
    }
    if !fits {
        block.push_str(&format!("... {} more lines{CLEAR_LINE}\n", lines.len() - room));
    }
    Ok(write!(out, "{block}{CLEAR_REST}")?)
}

/// What was counted in between, by the second.
pub(super) fn rates(before: &Stats, after: &Stats, elapsed: Duration, columns: Option<usize>) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let rate = |now: u64, then: u64| grown(now, then) as f64 / seconds;
    let mut text = workers(before, after, seconds).text(columns);
    if after.ports.is_empty() {
        return text;
    }
    let older: HashMap<(&str, i64), &Port> =
        before.ports.iter().map(|p| ((p.name.as_str(), p.queue), p)).collect();
    let nothing = Port::default();
    let old = |p: &Port| older.get(&(p.name.as_str(), p.queue)).copied().unwrap_or(&nothing);
    let titles = ["port", "queue", "rx frames/s", "rx bit/s", "tx frames/s", "tx bit/s", "drops/s"];
    let mut table = Table::new(titles);
    for p in &after.ports {
        let then = old(p);
        table.row([
            p.name.clone(),
            p.queue.to_string(),
            short(rate(p.rx_frames, then.rx_frames)),
            short(rate(p.rx_bytes, then.rx_bytes) * 8.0),
            short(rate(p.tx_frames, then.tx_frames)),
            short(rate(p.tx_bytes, then.tx_bytes) * 8.0),
            short(rate(p.dropped(), then.dropped())),
        ]);
    }
    text.push('\n');
    text.push_str(&table.text(columns));
    let dropped = |p: &Port| {
        let then = old(p);
        let since = |reason: &String, n: &u64| grown(*n, then.drops.get(reason).copied().unwrap_or(0));
        p.drops
            .iter()
            .map(|(reason, n)| (reason.clone(), since(reason, n) as f64 / seconds))
            .filter(|(_, rate)| *rate > 0.0)
            .collect()
    };
    text + &drops("drops/s", &after.ports, dropped, short, columns)
}

/// Shares are of the time between the looks; what is missing to the whole, the worker slept.
fn workers(before: &Stats, after: &Stats, seconds: f64) -> Table {
    let titles =
        ["worker", "core", "frames/s", "busy%", "empty%", "blocked%", "upkeep%", "asleep%", "cycles/frame"];
    let mut table = Table::new(titles);
    for w in &after.workers {
        let then = before.workers.iter().find(|then| then.worker == w.worker).cloned().unwrap_or_default();
        let ticks = Ticks {
            busy: grown(w.ticks.busy, then.ticks.busy),
            empty: grown(w.ticks.empty, then.ticks.empty),
            back_pressured: grown(w.ticks.back_pressured, then.ticks.back_pressured),
            housekeeping: grown(w.ticks.housekeeping, then.ticks.housekeeping),
        };
        // The worker counts at its own moments: a little more than the interval may have come in.
        let whole = (seconds * after.tsc_hz as f64).max(ticks.sum());
        let frames = grown(w.frames, then.frames) as f64;
        let share = |ticks: u64| percent(ticks as f64, whole);
        table.row([
            w.worker.to_string(),
            core(w.core),
            short(frames / seconds),
            share(ticks.busy),
            share(ticks.empty),
            share(ticks.back_pressured),
            share(ticks.housekeeping),
            percent(whole - ticks.sum(), whole),
            mean(ticks.busy as f64, frames),
        ]);
    }
    table
}

/// What a counter gained; after a reset it began at zero.
const fn grown(now: u64, then: u64) -> u64 {
    if now >= then { now - then } else { now }
}

#[cfg(test)]
mod tests {
    use super::super::stats::tests::sample;
    use super::*;

    fn stats(n: u64) -> Stats {
        Stats::read(&sample(n)).unwrap()
    }

    #[test]
    fn rates_are_by_the_second_and_shares_of_the_interval() {
        let text = rates(&stats(0), &stats(250_000), Duration::from_secs(2), None);
        assert_eq!(
            text,
            "\
worker  core  frames/s  busy%  empty%  blocked%  upkeep%  asleep%  cycles/frame
     0     2      500k   12.5    31.2       0.0      6.2     50.0           250
     1     -         0    0.0     0.0       0.0      0.0    100.0             -

port  queue  rx frames/s  rx bit/s  tx frames/s  tx bit/s  drops/s
t0        0         500k      400M         125k     60.0M     250k
h0        0            0         0            0         0        0

port  queue  drops/s  reason    why
t0        0     250k  leg-full  The backlog of this hub leg was full (hub-backlog=).
"
        );
        assert!(text.lines().take(6).all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn a_reset_in_between_gives_no_giant_rates() {
        let text = rates(&stats(1_000_000), &stats(1), Duration::from_secs(1), None);
        assert!(text.contains("\nt0        0            4      3200"), "{text}");
    }

    #[test]
    fn on_a_terminal_a_long_block_is_cut_to_its_rows() {
        let mut out = Vec::new();
        let screen = Screen { columns: Some(80), rows: Some(4) };
        show("1\n2\n3\n4\n5\n", true, screen, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\x1b[2J\x1b[H1\x1b[K\n2\x1b[K\n... 3 more lines\x1b[K\n\x1b[J");
    }
}
