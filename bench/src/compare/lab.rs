//! The place where everything is measured: CPUs, files, the lock, and slices that the host left alone.

use crate::canary::Canary;
use crate::failure::{Context, Failure, Result};
use crate::{placement, proc, sched};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by SIGINT and SIGTERM; the next step then fails and everything is torn down by its owners.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A slice is repeated when the host took a larger share than this from a CPU.
const MAX_LOST: f64 = 0.02;

/// A slice counts as disturbed when other programs use a larger share of a CPU than this right before or after it.
const MAX_OTHERS: f64 = 0.25;

/// Over this time the other programs are watched (`/proc/stat` counts hundredths of a second).
const OTHERS_WINDOW: Duration = Duration::from_millis(100);

/// A slice waits this long for other programs to rest.
const QUIET_WAIT: Duration = Duration::from_secs(3);

/// A slice is tried this often; then the least disturbed one is taken.
const TRIES: usize = 3;

/// Where and on which CPUs a comparison runs.
#[derive(Debug)]
pub struct Lab {
    /// CPU of the device under test.
    pub dut_cpu: usize,
    /// CPU of everything that makes or takes load.
    pub load_cpu: usize,
    /// The build directory (`target`).
    pub target: PathBuf,
    /// Reports (`target/compare`).
    pub reports: PathBuf,
    /// Logs and sockets of this run; short, since a unix socket's path is.
    pub run: tempfile::TempDir,
    /// The release or debug directory that this program runs from: netdevd and the tools lie beside it.
    pub binaries: PathBuf,
    /// Take the CPUs for near each other wherever they are: for machines on which they never are.
    pub any_placement: bool,
    lock: PathBuf,
}

/// One measurement and how disturbed it was.
#[derive(Debug, Clone)]
pub struct Slice<T> {
    /// What was measured.
    pub value: T,
    /// Largest share of a CPU that the host took away, when that could be seen.
    pub lost: Option<f64>,
    /// Largest share of a CPU that other programs used before or after it.
    pub others: f64,
    /// Cache-line round trip between the CPUs before and after, in nanoseconds.
    pub round_trip_ns: [Option<f64>; 2],
}

impl<T> Slice<T> {
    /// Whether the host left it alone: no time lost, CPUs not moved apart or together meanwhile.
    pub fn clean(&self) -> bool {
        let [before, after] =
            self.round_trip_ns.map(|trip| trip.is_some_and(|trip| trip > placement::FAR_NS));
        self.disturbance() <= 1.0 && before == after
    }

    /// How disturbed it was by the host and by other programs, as a multiple of what is allowed.
    fn disturbance(&self) -> f64 {
        f64::max(self.lost.unwrap_or(0.0) / MAX_LOST, self.others / MAX_OTHERS)
    }

    /// Whether the CPUs were far apart.
    pub fn far(&self) -> bool {
        self.round_trip_ns[0].is_some_and(|trip| trip > placement::FAR_NS)
    }
}

impl Lab {
    /// Finds the directories and takes the first two CPUs that this process may use.
    ///
    /// # Errors
    /// When the program does not run from a build directory.
    pub fn open(lock: Option<PathBuf>) -> Result<Self> {
        let program = std::env::current_exe().context("own path")?;
        let binaries = program.parent().map(Path::to_path_buf).unwrap_or_default();
        let target = binaries.parent().map(Path::to_path_buf).unwrap_or_default();
        let reports = target.join("compare");
        std::fs::create_dir_all(&reports).context(reports.display())?;
        let run = tempfile::Builder::new().prefix("nd-compare-").tempdir().context("temporary directory")?;
        let cpus = sched::allowed_cpus();
        let dut_cpu = cpus.first().copied().unwrap_or(0);
        let load_cpu = cpus.get(1).copied().unwrap_or(dut_cpu);
        let lock = lock.unwrap_or_else(|| target.join("measure.lock"));
        Ok(Self { dut_cpu, load_cpu, target, reports, run, binaries, any_placement: false, lock })
    }

    /// The path of a tool of this package.
    pub fn tool(&self, name: &str) -> String {
        self.binaries.join(name).to_string_lossy().into_owned()
    }

    /// Measures under the lock until a slice is clean, three times at most; then the least disturbed one counts.
    /// `tick` is the canary's (long for latencies, which every wake-up disturbs).
    ///
    /// # Errors
    /// Those of `measure`, and an interrupt.
    pub fn slice<T>(&self, tick: Duration, mut measure: impl FnMut() -> Result<T>) -> Result<Slice<T>> {
        let mut best: Option<Slice<T>> = None;
        for _ in 0..TRIES {
            let slice = self.try_slice(tick, &mut measure)?;
            let clean = slice.clean();
            let better = best.as_ref().is_none_or(|best| slice.disturbance() < best.disturbance());
            if clean || better {
                best = Some(slice);
            }
            if clean {
                break;
            }
        }
        best.ok_or_else(|| Failure::new("no slice"))
    }

    fn try_slice<T>(&self, tick: Duration, measure: &mut impl FnMut() -> Result<T>) -> Result<Slice<T>> {
        let _lock = self.hold()?;
        self.go_on()?;
        let others = self.wait_for_quiet()?;
        let before = placement::round_trip_ns(self.dut_cpu, self.load_cpu);
        let canary = Canary::watch(&[self.dut_cpu, self.load_cpu], tick);
        let value = measure();
        let lost = canary.finish();
        self.go_on()?;
        let after = placement::round_trip_ns(self.dut_cpu, self.load_cpu);
        let others = others.max(self.others()?);
        Ok(Slice { value: value?, lost, others, round_trip_ns: [before, after] })
    }

    /// Waits until the CPUs are idle, for a few seconds at most; the share that others use then.
    fn wait_for_quiet(&self) -> Result<f64> {
        let deadline = Instant::now() + QUIET_WAIT;
        loop {
            let others = self.others()?;
            if others <= MAX_OTHERS || Instant::now() > deadline {
                return Ok(others);
            }
            self.go_on()?;
        }
    }

    /// The larger share of the two CPUs that is in use while we do nothing.
    fn others(&self) -> Result<f64> {
        let cpus = [self.dut_cpu, self.load_cpu];
        let mut busiest: f64 = 0.0;
        let before = cpus.map(proc::idle_ticks);
        let start = Instant::now();
        std::thread::sleep(OTHERS_WINDOW);
        let ticks = start.elapsed().as_secs_f64() * 100.0;
        for (cpu, before) in cpus.into_iter().zip(before) {
            let idle = proc::idle_ticks(cpu)?.saturating_sub(before?) as f64;
            busiest = busiest.max(1.0 - idle / ticks);
        }
        // One hundredth of a second may fall on either side of the window.
        Ok((busiest - 1.0 / ticks).max(0.0))
    }

    /// Takes the lock that keeps two measurements apart, waiting for whoever has it.
    ///
    /// # Errors
    /// When its file cannot be made, and on an interrupt.
    pub fn hold(&self) -> Result<Flock<File>> {
        let name = self.lock.display();
        let mut file = File::options().create(true).append(true).open(&self.lock).context(&name)?;
        let mut told = false;
        loop {
            // Signals only set a flag here, so a wait within flock itself could not be interrupted.
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
                Err((_, errno)) => return Err(errno).context(&name),
            };
            if !told {
                progress(&format!("waiting for {name}: another measurement runs"));
                told = true;
            }
            self.go_on()?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As [`Lab::hold`]; and how long that took, which no budget has to pay.
    ///
    /// # Errors
    /// The same.
    pub fn hold_timed(&self) -> Result<(Flock<File>, Duration)> {
        let start = Instant::now();
        Ok((self.hold()?, start.elapsed()))
    }

    /// Fails once the user has interrupted the run.
    ///
    /// # Errors
    /// See above.
    pub fn go_on(&self) -> Result<()> {
        if INTERRUPTED.load(Ordering::Relaxed) { Err(Failure::new("interrupted")) } else { Ok(()) }
    }
}

/// Lets SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process, so that owners can clean up. Call it
/// before any thread starts.
///
/// # Errors
/// Never in practice.
pub fn catch_signals() -> Result<()> {
    let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    set.thread_block().context("signal mask")?;
    std::thread::spawn(move || {
        while set.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Shows what goes on: one line that is overwritten on a terminal, a line each elsewhere.
pub fn progress(text: &str) {
    let mut error = std::io::stderr();
    let _ = if error.is_terminal() {
        write!(error, "\r\x1b[K{text}").and_then(|()| error.flush())
    } else {
        writeln!(error, "{text}")
    };
}

/// Ends the progress line of a terminal.
pub fn progress_done() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
