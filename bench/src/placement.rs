//! How far apart two CPUs are right now: the round trip of one cache line between them.
//!
//! A host may move vCPUs between caches at any time. The round trip then jumps between two levels (50 ns in one L3,
//! 300 ns across, on the machines used so far), and with it every figure that two cores make together.

use crate::sched;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Above this round trip (nanoseconds) the CPUs do not share a cache.
pub const FAR_NS: f64 = 100.0;

const TRIPS: u64 = 500;
const GIVE_UP: Duration = Duration::from_millis(100);

/// The round trip in nanoseconds, best of four runs (about one millisecond); `None` when the CPUs are the same or the
/// other thread never answered.
pub fn round_trip_ns(here: usize, there: usize) -> Option<f64> {
    if here == there {
        return None;
    }
    (0..4).filter_map(|_| once(here, there)).reduce(f64::min)
}

fn once(here: usize, there: usize) -> Option<f64> {
    let line = Arc::new(AtomicU64::new(0));
    let echo = {
        let line = Arc::clone(&line);
        std::thread::spawn(move || bounce(there, &line, 1))
    };
    let line = Arc::clone(&line);
    let ask = std::thread::spawn(move || bounce(here, &line, 0));
    echo.join().ok()?;
    ask.join().ok()?
}

/// Turns even values odd (`parity` 0) or odd ones even (1), [`TRIPS`] times; the time from the first answer on, a trip.
fn bounce(cpu: usize, line: &AtomicU64, parity: u64) -> Option<f64> {
    sched::pin(cpu).ok()?;
    let _ = sched::real_time(40); // without the right to it the figure is only noisier
    let begun = Instant::now();
    let mut first = None;
    for trip in 0..TRIPS {
        let want = trip * 2 + parity;
        let mut spins = 0_u32;
        while line.load(Ordering::Acquire) != want {
            std::hint::spin_loop();
            spins += 1;
            if spins.is_multiple_of(1024) && begun.elapsed() > GIVE_UP {
                return None;
            }
        }
        if trip == 1 {
            first = Some(Instant::now());
        }
        line.store(want + 1, Ordering::Release);
    }
    Some(first?.elapsed().as_secs_f64() * 1e9 / (TRIPS - 2) as f64)
}
