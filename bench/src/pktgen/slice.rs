//! One measurement: every end sends and takes for a while, then what is under way arrives, then the books are closed.

use super::BURST;
use super::end::End;
use super::frame::{Kind, Shape};
use super::payload::{Addresses, Idents, Numbers, Payload, Plain, Stamps};
use super::stations::Stations;
use crate::failure::Result;
use engine::worker::clock::{Clock, ticks};
use serde_json::{Value, json};
use std::time::Duration;

/// What the ends do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// All send and take.
    #[default]
    Both,
    /// The first sends, all take.
    Forward,
    /// All take.
    Sink,
    /// All send back what they take.
    Reflect,
}

/// What to do for how long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slice {
    /// What the ends do.
    pub role: Role,
    /// Frames a second, all sending ends together; nothing means as fast as they are taken.
    pub rate: Option<f64>,
    /// Before it counts.
    pub warm: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// Frames that are under way at most, where what is in between loses what comes too early; 0 leaves it to the rings.
    pub window: u64,
    /// It ends when so many were sent, too.
    pub frames: Option<u64>,
    /// Frames carry the time of sending, and latencies are counted.
    pub stamps: bool,
    /// Frames carry numbers and patterns, and every byte is compared.
    pub verify: bool,
}

impl Slice {
    /// Frames that may be sent now.
    #[inline]
    const fn allowed(&self, report: &Report) -> u64 {
        let most = match self.frames {
            Some(most) => most.saturating_sub(report.all_sent),
            None => u64::MAX,
        };
        if self.window == 0 {
            return most;
        }
        let room = self.window.saturating_sub(report.all_sent.saturating_sub(report.all_received));
        if room < most { room } else { most }
    }
}

/// What came of a slice. Frames unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Seconds that counted.
    pub secs: f64,
    /// Received while it counted.
    pub received: u64,
    /// Share of the counted time that this generator spent on frames.
    pub busy: f64,
    /// Ticks of the time stamp counter that it spent a frame, sent or received.
    pub cycles: f64,
    /// Sent from the first moment to the last.
    pub all_sent: u64,
    /// Received from the first moment until nothing came any more.
    pub all_received: u64,
    /// Due, but the ring had no room: the other side did not keep up.
    pub refused: u64,
    /// Due, but this generator was too slow; not offered.
    pub slow: u64,
    /// Times that it sent, and of these those that found no room for all it had.
    pub sends: [u64; 2],
    /// Seconds in which this generator did not run (its CPU was taken away); nothing was due then.
    pub stalled: f64,
    /// Longest time, in seconds, in which nothing came back from the other side while this generator ran.
    pub silent: f64,
    /// Of every eighth frame from sending to receiving, in nanoseconds: p50, p99, p99.9, longest. Only with stamps.
    pub latency_ns: Option<[f64; 4]>,
    /// Numbers that never came, and frames that came changed. Only with verification.
    pub damage: Option<[u64; 2]>,
}

impl Report {
    /// Frames that were due and did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        (self.all_sent + self.refused).saturating_sub(self.all_received)
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!({
            "secs": self.secs, "received": self.received, "mpps": self.received as f64 / self.secs.max(1e-9) / 1e6,
            "busy": self.busy, "cycles": self.cycles, "all-sent": self.all_sent, "all-received": self.all_received,
            "refused": self.refused, "slow": self.slow, "stalled": self.stalled, "silent": self.silent, "lost": self.lost(),
            "full": self.sends[1] as f64 / self.sends[0].max(1) as f64,
        });
        if let Some([p50, p99, p999, max]) = self.latency_ns {
            value["latency-ns"] = json!({"p50": p50, "p99": p99, "p999": p999, "max": max});
        }
        if let Some([missing, changed]) = self.damage {
            value["missing"] = missing.into();
            value["changed"] = changed.into();
        }
        value
    }
}

/// A pause of the loop this long means that the CPU was taken away. A turn of rings takes a few microseconds, one with system calls longer.
const STALL: Duration = Duration::from_micros(20);
const STALL_CALLS: Duration = Duration::from_micros(100);
/// The same where a call sends a burst.
const STALL_BURSTS: Duration = Duration::from_millis(1);
/// A generator that is this many frames behind with room in its ring is too slow.
const BEHIND: u64 = 8 * BURST as u64;
/// Nothing came for so long: nothing more will come. While frames are missing it is longer than hosts stop a CPU.
const SILENCE: Duration = Duration::from_millis(5);
const SILENCE_MISSING: Duration = Duration::from_millis(50);
/// Longest wait for what is under way.
const DRAIN: Duration = Duration::from_millis(200);

/// Runs a slice over the ends.
///
/// # Errors
/// A back-end that breaks the rules of the ring, a tap that is gone.
pub fn run(ends: &mut [End], shape: &Shape, clock: &Clock, slice: &Slice) -> Result<Report> {
    if slice.verify {
        let mut all: Vec<Numbers> = ends.iter().map(|end| Numbers::new(shape, end.partial())).collect();
        let mut report = turn(ends, clock, slice, &mut all, |_| {})?;
        report.damage = Some(all.iter().fold([0, 0], |[m, c], n| [m + n.missing, c + n.changed]));
        Ok(report)
    } else if slice.stamps {
        let now = ticks();
        let mut all: Vec<Stamps> = ends.iter().map(|_| Stamps::new(shape, now)).collect();
        let mut report = turn(ends, clock, slice, &mut all, |stamps| stamps.reset(ticks()))?;
        let mut sum = crate::histogram::Histogram::default();
        all.iter().for_each(|stamps| sum.merge(&stamps.histogram));
        let ns = 1e9 / clock.hz() as f64;
        report.latency_ns = Some([0.5, 0.99, 0.999, 1.0].map(|share| sum.quantile(share) as f64 * ns));
        Ok(report)
    } else if let Some(stations) = shape.stations.filter(|_| shape.readdresses()) {
        let of = |here| Addresses::new(Stations { here, ..stations });
        let mut all: Vec<Addresses> = (0..ends.len() as u32).map(of).collect();
        turn(ends, clock, slice, &mut all, |_| {})
    } else if shape.kind == Kind::Udp {
        let mut all: Vec<Idents> = ends.iter().map(|_| Idents::new(shape)).collect();
        turn(ends, clock, slice, &mut all, |_| {})
    } else {
        let mut all: Vec<Plain> = ends.iter().map(|_| Plain).collect();
        turn(ends, clock, slice, &mut all, |_| {})
    }
}

/// What one end has to send by the clock.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Frames a tick; nothing where it sends as much as is taken.
    per_tick: Option<f64>,
    origin: u64,
    /// Frames that were due and have been sent, refused or skipped.
    done: u64,
    sends: bool,
}

impl Pace {
    /// Frames that are to be sent at `now`, without a window.
    #[inline]
    fn want(&self, now: u64) -> u64 {
        match self.per_tick {
            _ if !self.sends => 0,
            None => BURST as u64,
            Some(per_tick) => {
                ((now.wrapping_sub(self.origin) as f64 * per_tick) as u64).saturating_sub(self.done)
            }
        }
    }

    /// Books what became of `want` frames, of which `sent` were taken.
    #[inline]
    fn book(&mut self, want: u64, sent: u64, report: &mut Report) {
        report.all_sent += sent;
        report.sends[0] += 1;
        report.sends[1] += u64::from(sent < want.min(BURST as u64));
        if self.per_tick.is_none() {
            return;
        }
        self.done += sent;
        if sent < want.min(BURST as u64) {
            report.refused += want - sent;
            self.done += want - sent;
        } else if want > BEHIND {
            report.slow += want - sent;
            self.done += want - sent;
        }
    }
}

fn turn<P: Payload>(
    ends: &mut [End],
    clock: &Clock,
    slice: &Slice,
    payloads: &mut [P],
    begin: impl Fn(&mut P),
) -> Result<Report> {
    let length = |duration: Duration| (duration.as_secs_f64() * clock.hz() as f64) as u64;
    let start = ticks();
    let (counts, end) = (start + length(slice.warm), start + length(slice.warm + slice.duration));
    let senders = match slice.role {
        Role::Both => ends.len(),
        Role::Forward => 1,
        Role::Sink | Role::Reflect => 0,
    };
    let per_tick = slice.rate.map(|rate| rate / senders.max(1) as f64 / clock.hz() as f64);
    let pace = |n| Pace { per_tick, origin: start, done: 0, sends: n < senders };
    let mut paces: Vec<Pace> = (0..ends.len()).map(pace).collect();
    let stall = length(match (ends.iter().all(End::partial), ends.iter().all(End::hears)) {
        (_, false) => STALL_BURSTS,
        (true, _) => STALL,
        (false, _) => STALL_CALLS,
    });
    let mut report = Report::default();
    let (mut busy, mut frames, mut stalled) = (0u64, 0u64, 0u64);
    let (mut last, mut worked, mut counting, mut from) = (start, false, false, start);
    let (mut heard, mut silent) = (start, 0);
    loop {
        let now = ticks();
        let passed = now.wrapping_sub(last);
        if passed > stall {
            stalled += passed;
            heard += passed;
            paces.iter_mut().for_each(|pace| pace.origin += passed);
        } else if worked {
            busy += passed;
        }
        last = now;
        if !counting && now >= counts {
            counting = true;
            (busy, frames, from) = (0, 0, now);
            report.received = 0;
            payloads.iter_mut().for_each(&begin);
        }
        if now >= end || slice.frames.is_some_and(|most| report.all_sent >= most) {
            break;
        }
        let (mut moved, mut back) = (0, 0);
        for ((end, pace), payload) in ends.iter_mut().zip(&mut paces).zip(payloads.iter_mut()) {
            if slice.role == Role::Reflect {
                let (came, went) = end.reflect()?;
                report.received += came as u64;
                report.all_received += came as u64;
                report.all_sent += went as u64;
                moved += went;
                back += came;
                continue;
            }
            let got = end.receive(payload)?;
            report.received += got as u64;
            report.all_received += got as u64;
            back += got + end.reclaim()?;
            let want = pace.want(now).min(slice.allowed(&report));
            if want > 0 {
                let sent = end.send(want.min(BURST as u64) as usize, payload)?;
                pace.book(want, sent as u64, &mut report);
                moved += sent;
            }
        }
        moved += back;
        if back > 0 {
            silent = silent.max(now.wrapping_sub(heard));
            heard = now;
        }
        worked = moved > 0;
        frames += moved as u64;
        if !worked && slice.window > 0 {
            // Everything is with the others, who may need this CPU.
            std::thread::yield_now();
        }
    }
    let counted = last.wrapping_sub(from).max(1);
    report.secs = counted as f64 / clock.hz() as f64;
    report.busy = busy as f64 / counted as f64;
    // A frame that is sent and comes back as used counts once, as one that is received.
    report.cycles = busy as f64 / (frames as f64 * 2.0 / 3.0).max(1.0);
    report.stalled = stalled as f64 / clock.hz() as f64;
    report.silent = silent.max(last.saturating_sub(heard)) as f64 / clock.hz() as f64;
    ends.iter_mut().for_each(End::nudge);
    if senders > 0 && ends.iter().any(End::hears) {
        drain(ends, payloads, &mut report, last, [SILENCE, SILENCE_MISSING].map(length), length(DRAIN))?;
    }
    Ok(report)
}

/// Takes what is still under way.
fn drain<P: Payload>(
    ends: &mut [End],
    payloads: &mut [P],
    report: &mut Report,
    start: u64,
    silence: [u64; 2],
    longest: u64,
) -> Result<()> {
    let mut heard = start;
    loop {
        let now = ticks();
        let mut moved = 0;
        for (end, payload) in ends.iter_mut().zip(payloads.iter_mut()) {
            let got = end.receive(payload)?;
            report.all_received += got as u64;
            moved += got + end.reclaim()?;
        }
        if moved > 0 {
            heard = now;
        }
        let silence = silence[usize::from(report.all_received < report.all_sent)];
        if now.wrapping_sub(heard) > silence || now.wrapping_sub(start) > longest {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_and_refused_is_lost() {
        let mut pace = Pace { per_tick: Some(0.5), origin: 100, done: 0, sends: true };
        let mut report = Report::default();
        assert_eq!(pace.want(140), 20);
        pace.book(20, 20, &mut report);
        assert_eq!(pace.want(141), 0);
        assert_eq!(pace.want(160), 10);
        pace.book(10, 4, &mut report);
        assert_eq!(pace.want(160), 0, "a frame that found no room is gone");
        report.all_received = 24;
        assert_eq!((report.refused, report.slow, report.lost()), (6, 0, 6));
        assert_eq!(report.sends, [2, 1]);
    }

    #[test]
    fn a_slow_generator_offers_less_and_says_so() {
        let mut pace = Pace { per_tick: Some(1.0), origin: 0, done: 0, sends: true };
        let mut report = Report::default();
        pace.book(pace.want(1000), BURST as u64, &mut report);
        assert_eq!((report.slow, report.refused, pace.want(1000)), (1000 - BURST as u64, 0, 0));
    }
}
