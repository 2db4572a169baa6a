//! A token bucket that all workers charge: two words, each the time at which its debt is paid.
//!
//! A frame passes while the debt is no more than the burst, and is charged then: so the frame that crosses the border passes whole, and one
//! that is larger than the burst is not stuck for ever. Workers that look at the same time may each let one burst pass too
//! early; every frame is charged all the same, so the rate over time is exact.

use crate::burst::Frame;
use crate::sync::{AtomicU64, Ordering};
use crate::wire::vnet_hdr::VnetHdr;

/// Units of a nanosecond, so that a small frame at a high rate is charged to 0.1 percent; the clock reaches for nine years.
const FINE: u64 = 64;

/// Bits behind the point of the cost of one byte or frame.
const POINT: u32 = 16;

/// Debt that is always allowed, in nanoseconds: what a worker may come late without losing rate, as a sleeper on a busy machine does. Longer
/// lets more pass at once than was asked for.
const SLACK: u64 = 4_000_000;

/// A rate: units a second, and how many may come at once.
#[derive(Debug)]
pub struct Rate {
    rate: AtomicU64,
    burst: AtomicU64,
    /// Time of one unit, with [`POINT`] bits behind the point; 0 without a limit.
    each: AtomicU64,
    /// Debt that is allowed.
    slack: AtomicU64,
}

impl Rate {
    /// Of so many units a second, 0 for no limit.
    #[must_use]
    pub fn new(rate: u64, burst: u64) -> Self {
        let [a, b, c, d] = [rate, burst, 0, 0].map(AtomicU64::new);
        let all = Self { rate: a, burst: b, each: c, slack: d };
        all.work_out();
        all
    }

    /// Changes the rate.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
        self.work_out();
    }

    /// Changes the burst.
    pub fn set_burst(&self, burst: u64) {
        self.burst.store(burst, Ordering::Relaxed);
        self.work_out();
    }

    /// One thread of control's calls this.
    fn work_out(&self) {
        let second = (1_000_000_000 * FINE) << POINT;
        let each = match self.rate.load(Ordering::Relaxed) {
            0 => 0,
            rate => (second / rate).max(1),
        };
        let slack = time(each, self.burst.load(Ordering::Relaxed)).max(SLACK * FINE);
        self.slack.store(slack, Ordering::Relaxed);
        self.each.store(each, Ordering::Relaxed);
    }
}

/// The time of so many units; at most a year, as sums of it must not run over.
const fn time(each: u64, units: u64) -> u64 {
    const YEAR: u128 = (365 * 86_400 * 1_000_000_000u64) as u128 * FINE as u128;
    let all = (each as u128 * units as u128) >> POINT;
    if all > YEAR { YEAR as u64 } else { all as u64 }
}

/// The bucket of one direction.
#[derive(Debug, Default)]
pub struct Bucket {
    bytes: AtomicU64,
    frames: AtomicU64,
}

/// What frames cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Their bytes on a wire.
    pub bytes: u64,
    /// How many they are there.
    pub frames: u64,
}

impl Cost {
    /// That of one frame of `len` bytes.
    #[inline]
    #[must_use]
    pub fn of(hdr: &VnetHdr, len: usize) -> Self {
        let len = len as u64;
        if !hdr.is_gso() || hdr.gso_size == 0 {
            return Self { bytes: len, frames: 1 };
        }
        // A hint, but for what it could hide: no header is shorter than those of UDP over IPv4, or longer than what is looked at.
        let header = u64::from(hdr.hdr_len).clamp(42, 256).min(len);
        let frames = (len - header).div_ceil(u64::from(hdr.gso_size)).max(1);
        Self { bytes: len + (frames - 1) * header, frames }
    }

    /// That of a lent frame.
    #[inline]
    #[must_use]
    pub fn of_frame(frame: &Frame) -> Self {
        Self::of(&frame.hdr, frame.len())
    }

    /// Both.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, frames: self.frames + other.frames }
    }
}

/// A bucket as it is at one moment, and with what passes since.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    bytes: Part,
    frames: Part,
}

/// One of its words.
#[derive(Debug, Clone, Copy)]
struct Part {
    paid: u64,
    each: u64,
    slack: u64,
    now: u64,
}

impl Part {
    fn read(word: &AtomicU64, rate: &Rate, now: u64) -> Self {
        let [each, slack] = [&rate.each, &rate.slack].map(|word| word.load(Ordering::Relaxed));
        let now = now.saturating_mul(FINE);
        Self { paid: word.load(Ordering::Relaxed).max(now), each, slack, now }
    }

    #[inline]
    const fn is_open(&self) -> bool {
        self.each == 0 || self.paid <= self.now + self.slack
    }

    const fn opens(&self) -> u64 {
        if self.each == 0 { 0 } else { self.paid.saturating_sub(self.slack).div_ceil(FINE) }
    }
}

impl Level {
    /// Whether a frame may pass now.
    #[inline]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.bytes.is_open() && self.frames.is_open()
    }

    /// Lets one frame pass, if one may.
    #[inline]
    pub const fn pass(&mut self, cost: Cost) -> bool {
        if !self.is_open() {
            return false;
        }
        self.bytes.paid += time(self.bytes.each, cost.bytes);
        self.frames.paid += time(self.frames.each, cost.frames);
        true
    }

    /// When a frame may pass, in nanoseconds.
    #[must_use]
    pub const fn opens(&self) -> u64 {
        let [a, b] = [self.bytes.opens(), self.frames.opens()];
        if a > b { a } else { b }
    }
}

impl Bucket {
    /// As it is.
    #[inline]
    #[must_use]
    pub fn level(&self, now: u64, bytes: &Rate, frames: &Rate) -> Level {
        Level { bytes: Part::read(&self.bytes, bytes, now), frames: Part::read(&self.frames, frames, now) }
    }

    /// Charges what passes.
    #[inline]
    pub fn charge(&self, now: u64, bytes: &Rate, frames: &Rate, cost: Cost) {
        charge(&self.bytes, now, bytes, cost.bytes);
        charge(&self.frames, now, frames, cost.frames);
    }

    /// Forgets all debts.
    pub fn fill(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.frames.store(0, Ordering::Relaxed);
    }
}

fn charge(word: &AtomicU64, now: u64, rate: &Rate, units: u64) {
    let each = rate.each.load(Ordering::Relaxed);
    if each == 0 || units == 0 {
        return;
    }
    let (now, cost) = (now.saturating_mul(FINE), time(each, units));
    let add = |paid: u64| Some(paid.max(now).saturating_add(cost));
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::Arc;

    #[test]
    fn no_charge_is_lost_between_workers() {
        loom::model(|| {
            let (bucket, bytes) = (Arc::new(Bucket::default()), Arc::new(Rate::new(1_000_000, 0)));
            let frames = Arc::new(Rate::new(0, 0));
            let others: Vec<_> = (1..3u64)
                .map(|n| {
                    let (bucket, bytes, frames) = (bucket.clone(), bytes.clone(), frames.clone());
                    loom::thread::spawn(move || {
                        bucket.charge(1000, &bytes, &frames, Cost { bytes: n * 100, frames: 1 });
                    })
                })
                .collect();
            for other in others {
                other.join().unwrap();
            }
            // 300 bytes at a million a second, after 1000 nanoseconds.
            assert_eq!(bucket.bytes.load(Ordering::Relaxed), (1000 + 300_000) * FINE);
        });
    }
}
