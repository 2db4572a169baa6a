//! Time: the TSC, read at the ends of a turn, and what it means in nanoseconds.

#![allow(unsafe_code)] // one instruction

use std::time::{Duration, Instant};

/// Reads the time-stamp counter (nanoseconds since an arbitrary point where there is none).
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: rdtsc has no precondition on x86-64.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Turns ticks into nanoseconds since the engine started. Copied to every worker.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
    hz: u64,
    /// Nanoseconds a tick, as a 32.32 fixed-point number.
    scale: u64,
}

impl Clock {
    /// Measures the counter against the system's clock for 10 ms.
    #[must_use]
    pub fn calibrate() -> Self {
        let (t0, c0) = (Instant::now(), ticks());
        while t0.elapsed() < Duration::from_millis(10) {
            std::hint::spin_loop();
        }
        let (ns, c) = (t0.elapsed().as_nanos() as u64, ticks() - c0);
        let hz = (u128::from(c) * 1_000_000_000 / u128::from(ns.max(1))) as u64;
        Self { start: c0, hz: hz.max(1), scale: ((1_000_000_000u128 << 32) / u128::from(hz.max(1))) as u64 }
    }

    /// Ticks a second.
    #[must_use]
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// Nanoseconds from the engine's start to `ticks`.
    #[inline]
    #[must_use]
    pub const fn nanoseconds(&self, ticks: u64) -> u64 {
        ((ticks.wrapping_sub(self.start) as u128 * self.scale as u128) >> 32) as u64
    }
}
