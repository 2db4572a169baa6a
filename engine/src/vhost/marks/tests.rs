use super::{AVAIL, Marks, USED};
use crate::virtq::{DESC_NEXT, Position};
use proptest::prelude::*;
use std::collections::VecDeque;

/// A ring with its driver and its device, by the letter of virtio 1.3, 2.8.
struct Model {
    size: usize,
    flags: Vec<u16>,
    /// Slots that the driver has filled, and that the device has passed, since the start.
    filled: usize,
    passed: usize,
    /// Lengths of the chains that the device has not used.
    chains: VecDeque<usize>,
    in_order: bool,
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// The driver makes chains of these lengths available, and stops before it shows the first of them, if so told.
    Fill(Vec<usize>, bool),
    /// The device uses so many chains.
    Use(usize),
}

impl Model {
    fn new(size: usize, in_order: bool) -> Self {
        Self { size, flags: vec![0; size], filled: 0, passed: 0, chains: VecDeque::new(), in_order }
    }

    fn wrap(&self, at: usize) -> bool {
        (at / self.size).is_multiple_of(2)
    }

    fn position(&self, at: usize) -> Position {
        let (slot, wrap) = ((at % self.size) as u16, self.wrap(at));
        Position { avail: slot, used: slot, avail_wrap: wrap, used_wrap: wrap }
    }

    fn set(&mut self, at: usize, available: bool, used: bool, next: bool) {
        let flag = |on: bool, flag| if on { flag } else { 0 };
        let slot = at % self.size;
        self.flags[slot] = flag(available, AVAIL) | flag(used, USED) | flag(next, DESC_NEXT);
    }

    /// Fills slots for the chains that there is room for; `look` sees the ring before the first one shows.
    fn fill(&mut self, lengths: &[usize], look: impl Fn(&Self)) {
        let (from, mut to, mut chains) = (self.filled, self.filled, Vec::new());
        for &len in lengths {
            if to + len - self.passed > self.size {
                break;
            }
            chains.push(len);
            to += len;
        }
        let Some(first) = chains.first().copied() else { return };
        let mut at = from;
        for &len in &chains {
            for i in 0..len {
                let wrap = self.wrap(at);
                if at != from {
                    self.set(at, wrap, !wrap, i + 1 < len);
                }
                at += 1;
            }
        }
        look(self);
        let wrap = self.wrap(from);
        self.set(from, wrap, !wrap, first > 1);
        self.filled = to;
        self.chains.extend(chains);
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.chains.len());
        let mut mark = true;
        for len in self.chains.drain(..count).collect::<Vec<_>>() {
            let wrap = self.wrap(self.passed);
            if std::mem::replace(&mut mark, !self.in_order) {
                self.set(self.passed, wrap, wrap, false);
            }
            self.passed += len;
        }
    }

    fn marks(&self) -> Marks<impl Fn(u16) -> u16> {
        let flags = |slot| self.flags[usize::from(slot)];
        Marks { flags, size: self.size as u16, in_order: self.in_order }
    }

    /// Positions that the ring does not contradict, from the right one on.
    fn possible(&self) -> Vec<usize> {
        let laps = 2 * self.size;
        let fits = |by: &usize| !self.marks().contradict(self.position(self.passed + by));
        (0..laps).filter(fits).collect()
    }

    fn run(&mut self, steps: &[Step], longest: usize, check: impl Fn(&Self)) {
        for step in steps {
            match step {
                Step::Fill(lengths, torn) => {
                    let lengths: Vec<_> =
                        lengths.iter().map(|len| (*len).min(longest).min(self.size)).collect();
                    self.fill(&lengths, |torn_ring| {
                        if *torn {
                            check(torn_ring);
                        }
                    });
                }
                Step::Use(count) => self.consume(*count),
            }
            check(self);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = proptest::collection::vec(1usize..5, 1..8);
    let step = prop_oneof![
        (lengths, any::<bool>()).prop_map(|(lengths, torn)| Step::Fill(lengths, torn)),
        (1usize..8).prop_map(Step::Use),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever driver and device did, the ring does not contradict the place where the device stands.
    #[test]
    fn the_right_position_is_always_possible(size in 1usize..12, in_order: bool, steps in steps()) {
        let check = |ring: &Model| {
            let there = ring.position(ring.passed);
            // What looks like a start must be one where slots are left.
            let round = ring.passed > 0 && there == Position::START;
            assert!(round || !ring.marks().contradict(there), "{:x?} at {}", ring.flags, ring.passed);
        };
        Model::new(size, in_order).run(&steps, 4, check);
    }

    /// Where each buffer takes one slot the ring tells where it stands, and fits no place but its neighbours.
    #[test]
    fn a_ring_of_single_slots_tells_where_it_stands(size in 3usize..12, steps in steps()) {
        let check = |ring: &Model| {
            let last = 2 * size - 1;
            let mut others = ring.possible();
            others.retain(|by| *by != 0);
            assert!(others.iter().all(|by| [1, last].contains(by)), "{others:?} of {:x?} at {}", ring.flags, ring.passed);
            let available = ring.filled - ring.passed;
            if available == 0 {
                assert_eq!(others, [0; 0], "{:x?}", ring.flags);
            }
            assert_eq!(ring.marks().stands(), Some(ring.position(ring.passed)), "{:x?}", ring.flags);
        };
        Model::new(size, false).run(&steps, 1, check);
    }

    /// A back-end that dies while it shows what it used leaves a ring that fits no place.
    #[test]
    fn a_ring_that_was_torn_stands_nowhere(size in 3usize..12, before in steps(), count in 2usize..8) {
        let mut ring = Model::new(size, false);
        ring.run(&before, 1, |_| {});
        ring.fill(&vec![1; size], |_| {});
        let count = count.min(size);
        for at in ring.passed + 1..ring.passed + count {
            let wrap = ring.wrap(at);
            ring.set(at, wrap, wrap, false);
        }
        prop_assert_eq!(ring.marks().stands(), None, "{:x?} at {}", ring.flags, ring.passed);
    }
}

#[test]
fn a_new_ring_stands_at_its_start_only() {
    let ring = Model::new(5, false);
    assert_eq!(ring.possible(), [0]);
    assert_eq!(ring.marks().stands(), Some(Position::START));
}

#[test]
fn a_full_ring_that_went_on_by_a_lap_is_told() {
    // All available, as receive rings are: nothing is marked as used.
    let mut ring = Model::new(8, false);
    ring.fill(&[1; 8], |_| {});
    for round in 0..40 {
        let there = ring.position(ring.passed);
        let lap = ring.position(ring.passed + 8);
        assert!(ring.marks().contradict(lap), "round {round}");
        assert_eq!(ring.marks().stands(), Some(there));
        ring.consume(1);
        ring.fill(&[1], |_| {});
    }
}

#[test]
fn chains_hide_where_a_ring_stands() {
    let mut ring = Model::new(8, false);
    ring.fill(&[2, 2, 2], |_| {});
    ring.consume(2);
    assert_eq!(ring.marks().stands(), None, "no guess");
    assert!(!ring.marks().contradict(ring.position(4)));
    assert!(ring.marks().contradict(ring.position(2)), "used since");
    assert!(ring.marks().contradict(Position::START));
    assert!(ring.marks().contradict(ring.position(12)), "a lap later");
}
