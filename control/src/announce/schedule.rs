//! The schedule: what is due when. It reads no clock and sends nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The shortest time between two rounds. QEMU's timers are no finer, and without a limit an endless announcement without a
/// delay would leave the control thread no time.
const SHORTEST: i64 = 1;
/// The longest: some hundred years, which clocks can still name.
const LONGEST: i64 = 1 << 42;

/// How an announcement is repeated. Times are milliseconds, and nothing is out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// Time from the first round to the second.
    pub initial: i64,
    /// Time between rounds at most.
    pub max: i64,
    /// Rounds; a negative number of them never ends.
    pub rounds: i64,
    /// How much longer each time is than the one before.
    pub step: i64,
    /// Names of nics; all nics without.
    pub interfaces: Option<Vec<String>>,
}

impl Default for Parameters {
    /// QEMU's, those of a migration.
    fn default() -> Self {
        Self { initial: 50, max: 550, rounds: 5, step: 100, interfaces: None }
    }
}

impl Parameters {
    /// Time from round `sent` (the first is 1) to the next, as `qemu_announce_timer_step` has it.
    fn delay(&self, sent: i64) -> Duration {
        let grown = self.initial.wrapping_add(sent.wrapping_sub(1).wrapping_mul(self.step));
        let delay = if grown < 0 || grown > self.max { self.max } else { grown };
        Duration::from_millis(delay.clamp(SHORTEST, LONGEST).cast_unsigned())
    }
}

/// One announcement under way.
#[derive(Debug)]
struct Running {
    parameters: Parameters,
    /// Rounds so far.
    sent: i64,
    due: Instant,
}

/// All announcements under way, one an id.
#[derive(Debug, Default)]
pub struct Schedule(BTreeMap<String, Running>);

impl Schedule {
    /// Begins an announcement, in place of the one of that id. True: its first round is due now. False: it has no rounds, and only ended
    /// what was under way.
    pub fn start(&mut self, id: &str, parameters: Parameters, now: Instant) -> bool {
        self.0.remove(id);
        let rounds = parameters.rounds;
        if rounds != 0 && rounds != 1 {
            let due = now + parameters.delay(1);
            self.0.insert(id.to_owned(), Running { parameters, sent: 1, due });
        }
        rounds != 0
    }

    /// The rounds that are due: the nics of each, all of them where none are named.
    pub fn due(&mut self, now: Instant) -> Vec<Option<Vec<String>>> {
        let mut rounds = Vec::new();
        self.0.retain(|_, running| {
            if running.due > now {
                return true;
            }
            rounds.push(running.parameters.interfaces.clone());
            running.sent = running.sent.wrapping_add(1);
            running.due = now + running.parameters.delay(running.sent);
            running.sent != running.parameters.rounds
        });
        rounds
    }

    /// When [`Schedule::due`] has something next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.0.values().map(|running| running.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(initial: i64, max: i64, rounds: i64, step: i64) -> Parameters {
        Parameters { initial, max, rounds, step, interfaces: None }
    }

    /// Milliseconds at which an announcement alone sends, at most `most` times; the clock stands still between them.
    fn times(parameters: Parameters, most: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let mut times = Vec::new();
        if schedule.start("", parameters, start) {
            times.push(0);
        }
        while let Some(next) = schedule.next().filter(|_| times.len() < most) {
            assert_eq!(schedule.due(next.checked_sub(Duration::from_nanos(1)).unwrap()).len(), 0, "early");
            assert_eq!(schedule.due(next).len(), 1);
            times.push(next.duration_since(start).as_millis());
        }
        times
    }

    #[test]
    fn rounds_are_where_qemu_has_them() {
        assert_eq!(times(parameters(50, 200, 6, 50), 99), [0, 50, 150, 300, 500, 700]);
        assert_eq!(times(Parameters::default(), 99), [0, 50, 200, 450, 800]);
        assert_eq!(times(parameters(20, 20, 3, 0), 99), [0, 20, 40]);
        assert_eq!(times(parameters(10, 100, 1, 10), 99), [0]);
    }

    #[test]
    fn a_time_that_is_negative_or_too_long_is_the_longest() {
        assert_eq!(times(parameters(-10, 70, 3, 5), 99), [0, 70, 140]);
        assert_eq!(times(parameters(500, 70, 3, 5), 99), [0, 70, 140]);
        assert_eq!(times(parameters(30, 70, 4, -20), 99), [0, 30, 40, 110]);
        assert_eq!(times(parameters(i64::MAX, 70, 3, i64::MAX), 99), [0, 70, 140]);
        // Nothing here is out of range: at least a millisecond, at most what a clock can name.
        assert_eq!(times(parameters(0, 0, 3, 0), 99), [0, 1, 2]);
        assert_eq!(times(parameters(-1, -1, 3, -1), 99), [0, 1, 2]);
        assert_eq!(times(parameters(i64::MIN, i64::MAX, 2, i64::MIN), 99), [0, 1 << 42]);
    }

    #[test]
    fn no_rounds_send_nothing_and_negative_ones_never_end() {
        assert_eq!(times(parameters(50, 200, 0, 50), 99), [0; 0]);
        let endless = times(parameters(1, 3, -1, 1), 50);
        assert_eq!(endless[..5], [0, 1, 3, 6, 9]);
        assert_eq!(endless.len(), 50);
        assert_eq!(times(parameters(1, 3, i64::MIN, 1), 50), endless);
    }

    #[test]
    fn an_id_has_one_announcement_and_others_have_their_own() {
        let at = |ms| Duration::from_millis(ms);
        let now = Instant::now();
        let mut schedule = Schedule::default();
        assert!(schedule.start("", parameters(100, 100, 3, 0), now));
        assert!(schedule.start("other", parameters(30, 30, 9, 0), now));
        assert_eq!(schedule.next(), Some(now + at(30)));
        // The first is replaced, and begins anew.
        assert!(schedule.start("", parameters(20, 20, 2, 0), now + at(5)));
        assert_eq!(schedule.due(now + at(25)).len(), 1);
        assert_eq!(schedule.due(now + at(29)).len(), 0);
        // No rounds end what is under way, and nothing else.
        assert!(schedule.start("third", parameters(1, 1, 9, 0), now + at(29)));
        assert!(!schedule.start("third", parameters(1, 1, 0, 0), now + at(29)));
        assert!(!schedule.start("unknown", parameters(1, 1, 0, 0), now + at(29)));
        assert_eq!(schedule.due(now + at(30)).len(), 1);
        assert_eq!(schedule.next(), Some(now + at(60)));
        assert!(!schedule.start("other", parameters(30, 30, 0, 0), now + at(31)));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_late_round_moves_those_behind_it() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        assert!(schedule.start("", parameters(10, 10, 3, 0), now));
        let late = now + Duration::from_millis(45);
        assert_eq!(schedule.due(late).len(), 1);
        assert_eq!(schedule.due(late).len(), 0);
        assert_eq!(schedule.next(), Some(late + Duration::from_millis(10)));
    }

    #[test]
    fn a_round_is_for_the_nics_that_its_announcement_names() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        for (id, interfaces) in [("a", None), ("b", Some(vec!["n0".to_owned()])), ("c", Some(Vec::new()))] {
            assert!(schedule.start(id, Parameters { interfaces, ..parameters(5, 5, 2, 0) }, now));
        }
        let due = schedule.due(now + Duration::from_millis(5));
        assert_eq!(due, [None, Some(vec!["n0".to_owned()]), Some(vec![])]);
        assert_eq!(schedule.next(), None);
    }
}
