//! What of a device's time is its own code: user mode, system calls left out.
//!
//! A device that polls spends user time when there is nothing to do as well, and neither of the two tells it apart. So here it never has
//! nothing to do: every few milliseconds, a thread of the real-time class takes a large part of it away, and what arrives meanwhile waits in
//! the rings. Both devices are then limited by their CPU and not by the load, which also makes their rates comparable (frames a
//! second at equal CPU time), and what the kernel does for them in polls that find nothing counts for neither, since there are none. `perf record -e cpu-clock` says of the device's thread, twenty times a millisecond of its CPU time,
//! whether it is in user mode.

use super::cases::{Case, Work};
use super::lane::Veth;
use super::row;
use crate::compare::lab::Lab;
use crate::compare::process::{mortal, reap, run};
use crate::compare::stats::Estimate;
use crate::compare::vhost::quads::{Plan, Side, interleave, moves};
use crate::compare::vhost::report::Row;
use crate::failure::{Context, Failure, Result};
use crate::{proc, sched};
use engine::worker::clock::Clock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use nix::unistd::mkfifo;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Counted time of a leg.
const LEG: Duration = Duration::from_millis(250);
/// So long is left out at the beginning, until the rings hold what the device was not there for.
const LEAD: Duration = Duration::from_millis(50);
/// CPU time between two samples, in nanoseconds.
const SAMPLED: u64 = 50_000;
/// A device that lost less than this share of what was offered was not busy all the time.
const SATURATED: f64 = 0.03;

/// Cycles a frame that our own code may take.
const OWN: f64 = 100.0;

/// How often the CPU is taken away, and for how long: so long that what comes meanwhile, at half a million frames a second, is more than the
/// device can take in the rest, and so short that the rings hold it. What only receives needs a few dozen nanoseconds a frame, and would have to
/// be stopped for so long that cold caches are all that is measured.
fn taken(work: Work) -> [Duration; 2] {
    let micros = Duration::from_micros;
    match work {
        Work::Guest => [micros(1500), micros(1430)],
        _ => [micros(1000), micros(500)],
    }
}

/// What a leg gave.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// When it was measured.
    from: Duration,
    to: Duration,
    /// Cycles a frame, of which so many in user mode.
    all: f64,
    own: f64,
    mpps: f64,
    /// The share of the offered frames that was lost.
    lost: f64,
}

/// The rows of one case.
///
/// # Errors
/// When a side fails, or perf is not there.
pub(super) fn rows(
    lab: &Lab,
    plan: &Plan,
    part: &'static str,
    case: &Case,
    sides: &mut [Side<Veth>; 2],
) -> Result<Vec<Row>> {
    let hz = Clock::calibrate().hz() as f64;
    // The device waits for its CPU, which is what this is about.
    let plan = Plan { watched: 0, ..*plan };
    let perf = |pid| Perf::start(lab, proc::thread(pid, moves)?.0);
    let perfs = [perf(sides[0].dut.pid())?, perf(sides[1].dut.pid())?];
    let quads = interleave(lab, &plan, &format!("{part} {}", case.id()), sides, |side| {
        let pid = side.dut.pid();
        let taking = Taking::start(lab.dut_cpu, taken(case.work));
        side.dut.begin()?;
        side.load.begin()?;
        let (start, (_, ran)) = (now(), proc::thread(pid, moves)?);
        let sent = side.load.run(LEG)?;
        let (end, (_, run)) = (now(), proc::thread(pid, moves)?);
        let frames = side.dut.end()?.frames;
        let (mpps, offered) = side.load.end(sent, frames)?;
        drop(taking);
        let share = (run - ran) as f64 / (end - start).as_nanos() as f64;
        let all = share * hz / (mpps * 1e6);
        // Sending begins a little later and ends a little earlier than we ask and hear.
        let (from, to) = (start + LEAD, start + LEG);
        Ok(Sample { from, to, all, own: f64::NAN, mpps, lost: 1.0 - mpps / offered })
    })?;
    let [ours, theirs] = perfs;
    let samples = [ours.finish()?, theirs.finish()?];
    let quads = quads.map(|side, leg| {
        let [user, kernel] = count(&samples[side], leg.from, leg.to);
        let share = user as f64 / (user + kernel) as f64;
        Sample { own: share * leg.all, ..*leg }
    });
    let lost = |side| quads.side(side, |sample: &Sample| sample.lost).map_or(f64::NAN, |spread| spread.min);
    let idle = [lost(0), lost(1)].iter().any(|lost| lost.is_nan() || *lost < SATURATED);
    let note = format!("at least {:.0}/{:.0} % lost", 100.0 * lost(0), 100.0 * lost(1));
    let note = if idle { format!("not busy all the time: {note}") } else { note };
    let made = |unit: &'static str, pick: fn(&Sample) -> f64| {
        let row = row(part, case, unit, &quads);
        let less = row.less;
        let turned = |estimate: Estimate| if less { estimate.inverse() } else { estimate };
        Row {
            ours: quads.side(0, pick),
            theirs: quads.side(1, pick),
            better: quads.ratio(pick).filter(|_| !idle).map(turned),
            far: quads.far_ratio(pick).filter(|_| !idle).map(turned),
            note: note.clone(),
            ..row
        }
    };
    let own = made("own cycles/frame", |sample| sample.own);
    // So many times fewer than the peer's is that many at most.
    let times = own.theirs.map(|theirs| theirs.median / OWN);
    let [fewer, _] = case.wanted();
    Ok(vec![
        Row { want: times, note: format!("{OWN:.0} allowed; {note}"), ..own },
        Row { want: fewer, ..made("all cycles/frame", |sample| sample.all) },
        made("Mpps of this share", |sample| sample.mpps),
    ])
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// A thread that takes a part of a CPU away until it is dropped.
pub(in crate::compare) struct Taking {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Its priority: above what moves frames, below the canary.
const TAKES: i32 = 45;

impl Taking {
    /// Takes it away for `taken` of each `period`.
    pub(in crate::compare) fn start(cpu: usize, [period, taken]: [Duration; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            if sched::pin(cpu).and_then(|()| sched::real_time(TAKES)).is_err() {
                return;
            }
            let mut next = now();
            while !stopped.load(Ordering::Relaxed) {
                while now() < next + taken {
                    std::hint::spin_loop();
                }
                next = now().max(next + period);
                let time = TimeSpec::from_duration(next);
                let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &time);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// perf, sampling a thread. It takes commands on a pipe and acknowledges them on another.
struct Perf {
    child: Child,
    commands: File,
    answers: File,
    directory: TempDir,
}

/// How long perf may take for a command.
const PATIENCE: Duration = Duration::from_secs(10);

impl Perf {
    fn start(lab: &Lab, tid: u32) -> Result<Self> {
        let directory = tempfile::tempdir_in(lab.run.path()).context("a directory")?;
        let pipe = |name: &str| -> Result<(PathBuf, File)> {
            let path = directory.path().join(name);
            mkfifo(&path, Mode::S_IRWXU).context(path.display())?;
            // Open for both, so that neither side waits for the other.
            let file = File::options().read(true).write(true).open(&path).context(path.display())?;
            Ok((path, file))
        };
        let ((to, commands), (from, answers)) = (pipe("to")?, pipe("from")?);
        let log = File::create(directory.path().join("log")).context("perf's log")?;
        // As urgent as what asks: it has to be there at once, and does little.
        let mut command = Command::new("chrt");
        command.args(["--fifo", "3", "perf", "record", "-q", "-k", "CLOCK_MONOTONIC", "-D", "-1"]);
        command.args(["-e", "cpu-clock", "-c", &SAMPLED.to_string(), "-t", &tid.to_string(), "--control"]);
        command.arg(format!("fifo:{},{}", to.display(), from.display()));
        command.arg("-o").arg(directory.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = mortal(&mut command).spawn().context("perf (Debian's package linux-perf)")?;
        let mut this = Self { child, commands, answers, directory };
        this.tell("enable")?;
        Ok(this)
    }

    /// Gives a command and waits until it is done.
    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands, "{command}").context("perf")?;
        let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        let heard =
            poll(&mut [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)], timeout).context("perf")?;
        if heard == 0 {
            let said = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            return Err(Failure::new(format!("perf does not answer: {said}")));
        }
        let _ = self.answers.read(&mut [0; 64]).context("perf")?;
        Ok(())
    }

    /// Ends it; its samples, of which each has a time and whether it was in the kernel.
    fn finish(mut self) -> Result<Vec<(Duration, bool)>> {
        self.tell("disable")?;
        self.end();
        let mut script = Command::new("perf");
        script.args(["script", "--ns", "-F", "time,ip", "-i"]).arg(self.directory.path().join("data"));
        Ok(parse(&run(&mut script)?))
    }

    fn end(&mut self) {
        let _ = self.tell("stop");
        reap(&mut self.child, Duration::from_secs(5));
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Reads `perf script --ns -F time,ip`.
fn parse(text: &str) -> Vec<(Duration, bool)> {
    let sample = |line: &str| {
        let mut words = line.split_whitespace();
        let (seconds, nanos) = words.next()?.trim_end_matches(':').split_once('.')?;
        let time = Duration::new(seconds.parse().ok()?, nanos.parse().ok()?);
        let at = u64::from_str_radix(words.next()?, 16).ok()?;
        // The kernel has the upper half of the addresses.
        Some((time, at >> 63 == 1))
    };
    text.lines().filter_map(sample).collect()
}

/// Samples of user mode and of the kernel between two times.
fn count(samples: &[(Duration, bool)], from: Duration, to: Duration) -> [u64; 2] {
    let mut counts = [0, 0];
    let within = samples.iter().filter(|(time, _)| (from..to).contains(time));
    within.for_each(|(_, kernel)| counts[usize::from(*kernel)] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_apart_by_their_addresses_and_times() {
        let text = "  10.000000001:     55d0a1b2c3d4\n  10.500000000:  ffffffff81234567\n  11.000000000:  7f0012345678\n  junk\n";
        let samples = parse(text);
        assert_eq!(samples.len(), 3);
        let seconds = Duration::from_secs;
        assert_eq!(count(&samples, seconds(10), seconds(11)), [1, 1]);
        assert_eq!(count(&samples, seconds(11), seconds(12)), [1, 0]);
    }
}
