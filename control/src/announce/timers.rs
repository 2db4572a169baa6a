//! The schedule on the daemon's clock.

use super::{Parameters, Schedule};
use crate::reactor::{Interest, Part, Reactor, Timer, Token};
use std::io;
use std::time::Instant;

/// All announcements, and the timer for the next round.
#[derive(Debug)]
pub struct Announcements {
    schedule: Schedule,
    timer: Timer,
}

impl Announcements {
    /// None yet; the reactor tells of [`Part::Announce`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn new(reactor: &Reactor) -> io::Result<Self> {
        let timer = Timer::new()?;
        reactor.watch(&timer, Token::new(Part::Announce, 0, 0), Interest::READ)?;
        Ok(Self { schedule: Schedule::default(), timer })
    }

    /// Begins, replaces or ends the announcement of that id. True: its first round is due now.
    pub fn start(&mut self, id: &str, parameters: Parameters) -> bool {
        let first = self.schedule.start(id, parameters, Instant::now());
        self.arm();
        first
    }

    /// The rounds that are due, by the nics of each; call it when the timer fired.
    pub fn due(&mut self) -> Vec<Option<Vec<String>>> {
        self.timer.acknowledge();
        let due = self.schedule.due(Instant::now());
        self.arm();
        due
    }

    fn arm(&self) {
        let Some(next) = self.schedule.next() else { return };
        if let Err(error) = self.timer.set(next.saturating_duration_since(Instant::now())) {
            tracing::error!("announcements stop: {error}");
        }
    }
}
