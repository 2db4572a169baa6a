//! Notices when the host takes a CPU away.
//!
//! Steal time often stays 0 in a guest whose vCPUs are throttled. So one SCHED_FIFO thread a CPU sleeps to absolute
//! ticks and adds up how late it wakes: nothing in this system may run before it, so lateness is the host's.

use crate::sched;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Wake-ups this late are no loss: an idle CPU of a virtual machine takes tens of microseconds to come back.
const TOLERATED: Duration = Duration::from_micros(200);

/// Watches CPUs until [`Canary::finish`].
#[derive(Debug)]
pub struct Canary {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Option<f64>>>,
}

impl Canary {
    /// Starts one thread on each of `cpus`. A short `tick` sees more, a long one disturbs latencies less.
    pub fn watch(cpus: &[usize], tick: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = cpus
            .iter()
            .map(|&cpu| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || lost_share(cpu, tick, &stop))
            })
            .collect();
        Self { stop, threads }
    }

    /// The largest share of its time (0 to 1) that one of the CPUs lost; `None` without the right to SCHED_FIFO.
    pub fn finish(self) -> Option<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut shares = self.threads.into_iter().map(|thread| thread.join().ok().flatten());
        shares.try_fold(0.0, |worst: f64, share| Some(worst.max(share?)))
    }
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

fn lost_share(cpu: usize, tick: Duration, stop: &AtomicBool) -> Option<f64> {
    sched::pin(cpu).ok()?;
    sched::real_time(50).ok()?;
    let start = now();
    let (mut lost, mut next) = (Duration::ZERO, start);
    while !stop.load(Ordering::Relaxed) {
        next += tick;
        let _ = clock_nanosleep(
            ClockId::CLOCK_MONOTONIC,
            ClockNanosleepFlags::TIMER_ABSTIME,
            &TimeSpec::from_duration(next),
        );
        let woken = now();
        let late = woken.saturating_sub(next);
        if late > TOLERATED {
            lost += late;
            next = woken;
        }
    }
    Some(lost.as_secs_f64() / (now() - start).as_secs_f64())
}
