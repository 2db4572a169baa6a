//! Scratch of a walk: what it has entered, what is still to be visited, and what each switch on the way needs.

use super::cross::Level;
use crate::burst::Mask;
use crate::topology::plan::MAX_HUBS;

/// What a walk's scratch can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Hubs and switches.
    pub places: usize,
    /// Switches behind each other.
    pub levels: usize,
    /// Ports of the largest switch.
    pub ports: usize,
}

impl Extent {
    /// What holds both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            places: self.places.max(other.places),
            levels: self.levels.max(other.levels),
            ports: self.ports.max(other.ports),
        }
    }
}

/// The scratch of one worker.
#[derive(Debug, Default)]
pub struct Walk {
    extent: Extent,
    pub(super) marks: Marks,
    pub(super) levels: Vec<Level>,
}

impl Walk {
    /// Scratch for plans of at most this extent; allocated here.
    #[must_use]
    pub fn new(extent: Extent) -> Self {
        let levels = (0..extent.levels.min(MAX_HUBS as usize)).map(|_| Level::new(extent.ports)).collect();
        let marks = Marks {
            entered: vec![Entered::default(); extent.places],
            serial: 0,
            // A frame of either form enters a place once.
            todo: Vec::with_capacity(2 * extent.places),
        };
        Self { extent, marks, levels }
    }

    /// What it can hold.
    #[must_use]
    pub const fn extent(&self) -> Extent {
        self.extent
    }
}

/// Which places the walk has entered, and which are still to be visited.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// By place, hubs first.
    entered: Vec<Entered>,
    serial: u64,
    todo: Vec<Visit>,
}

/// The frames that entered a place in the walk of that number.
#[derive(Debug, Clone, Copy, Default)]
struct Entered {
    serial: u64,
    mask: u64,
}

/// A hub to be flooded, or a switch to be crossed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    pub(super) way: Way,
    /// The node that led there, to which drops are charged.
    pub(super) at: u32,
    /// Hubs and switches crossed, this one among them.
    pub(super) crossed: u32,
    pub(super) mask: Mask,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Hub { hub: u32, except: u32 },
    Switch { switch: u32, port: u32 },
}

impl Marks {
    /// Another walk begins.
    pub(super) fn begin(&mut self) {
        self.serial += 1;
        self.todo.clear();
    }

    /// Notes a visit to `place` for the frames that have not been there; returns the others, and all where too many were crossed.
    pub(super) fn enter(&mut self, place: usize, visit: Visit) -> Mask {
        let Some(entered) = self.entered.get_mut(place) else { return visit.mask };
        if entered.serial != self.serial {
            *entered = Entered { serial: self.serial, mask: 0 };
        }
        let fresh = visit.mask.0 & !entered.mask;
        if fresh == 0 || visit.crossed > MAX_HUBS || self.todo.len() == self.todo.capacity() {
            return visit.mask;
        }
        entered.mask |= fresh;
        self.todo.push(Visit { mask: Mask(fresh), ..visit });
        Mask(visit.mask.0 & !fresh)
    }

    /// Visits noted so far.
    pub(super) const fn noted(&self) -> usize {
        self.todo.len()
    }

    pub(super) fn visit(&self, index: usize) -> Option<Visit> {
        self.todo.get(index).copied()
    }

    /// Forgets the visits from `index` on, which are made.
    pub(super) fn forget(&mut self, index: usize) {
        self.todo.truncate(index);
    }
}
