//! The loop: every guest transmits as fast as its ring takes frames, and gives back what it receives.

use super::guest::{Guest, Shape};
use crate::failure::{Context, Result};
use engine::virtq::DriverRing;
use engine::worker::clock::ticks;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Buffers taken from a ring in one go.
const BURST: usize = 32;

/// What to run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Sockets of the back-ends.
    pub sockets: Vec<PathBuf>,
    /// What the guests look like.
    pub shape: Shape,
    /// How long.
    pub duration: Duration,
    /// Before it counts.
    pub warm: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Seconds counted.
    pub secs: f64,
    /// Frames that the back-end took.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Share of the time that was spent on frames.
    pub busy: f64,
    /// Ticks of the time stamp counter spent a frame, sent or received.
    pub cycles: f64,
}

/// One ring's books.
struct Side<'g, R> {
    guest: &'g mut Guest<R>,
    free: Vec<u32>,
}

impl<R: DriverRing> Side<'_, R> {
    /// Takes received frames and gives their buffers back: how many.
    fn receive(&mut self) -> Result<usize> {
        let ring = &mut self.guest.receive;
        let mut n = 0;
        let mut tokens = [0u32; BURST];
        while n < BURST {
            let Some((token, _)) = ring.ring.used().context("receive ring")? else { break };
            tokens[n] = token;
            n += 1;
        }
        for &token in &tokens[..n] {
            ring.add(token, false);
        }
        if n > 0 {
            ring.ring.publish();
        }
        Ok(n)
    }

    /// Takes back what was sent and sends as much again: how many came back.
    fn transmit(&mut self) -> Result<usize> {
        let ring = &mut self.guest.transmit;
        let mut n = 0;
        while n < BURST {
            let Some((token, _)) = ring.ring.used().context("transmit ring")? else { break };
            self.free.push(token);
            n += 1;
        }
        let mut added = 0;
        while added < BURST && !self.free.is_empty() {
            let Some(&token) = self.free.last() else { break };
            if !ring.add(token, true) {
                break;
            }
            self.free.pop();
            added += 1;
        }
        if added > 0 {
            ring.ring.publish();
        }
        Ok(n)
    }
}

/// Runs the load.
///
/// # Errors
/// A back-end that is not there or breaks the rules of the ring.
pub fn run<R: DriverRing>(run: &Run) -> Result<Report> {
    let mut guests = Vec::new();
    for path in &run.sockets {
        guests.push(Guest::<R>::connect(path, &run.shape)?);
    }
    let tokens = || (0..u32::from(run.shape.ring)).collect();
    let mut sides: Vec<Side<'_, R>> = guests.iter_mut().map(|guest| Side { guest, free: tokens() }).collect();
    let start = Instant::now();
    let (mut counting, mut report, mut busy) = (false, Report::default(), 0u64);
    let (mut from, mut begun) = (Instant::now(), ticks());
    let mut rounds = 0u32;
    loop {
        let t = ticks();
        let (mut got, mut gone) = (0, 0);
        for side in &mut sides {
            got += side.receive()?;
            gone += side.transmit()?;
        }
        if got + gone > 0 {
            busy += ticks().wrapping_sub(t);
            report.received += got as u64;
            report.sent += gone as u64;
        }
        rounds = rounds.wrapping_add(1);
        if !rounds.is_multiple_of(256) {
            continue;
        }
        if !counting && start.elapsed() >= run.warm {
            counting = true;
            (report, busy) = (Report::default(), 0);
            (from, begun) = (Instant::now(), ticks());
        }
        if counting && from.elapsed() >= run.duration {
            break;
        }
    }
    let all = ticks().wrapping_sub(begun).max(1);
    report.secs = from.elapsed().as_secs_f64();
    report.busy = busy as f64 / all as f64;
    report.cycles = busy as f64 / (report.sent + report.received).max(1) as f64;
    Ok(report)
}
