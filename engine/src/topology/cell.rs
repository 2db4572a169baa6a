//! The only meeting point of control and workers: publish, adopt, acknowledge, retire.
//!
//! Quiescent-state RCU with one word a worker. Control stores a new value and then its generation; a worker looks at
//! the generation once a turn (one acquire load), takes the value when it changed, and acknowledges when nothing it
//! does refers to the old one. Control keeps every value until all workers have passed it, so that a destructor
//! never runs on a worker.
//!
//! | who | may do | must have done |
//! |---|---|---|
//! | control | publish g | put what g needs into the inboxes |
//! | worker | adopt g | finished the turn that read g-1 |
//! | worker | acknowledge g | nothing of its own or in the kernel touches what g removed |
//! | worker | sleep | announced it, then looked at the generation once more |
//! | control | count a sleeper as passed | published g before it read the sleeper's flag |

use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Padded, fence};

/// What control publishes and workers read.
#[derive(Debug)]
pub struct Cell<T> {
    generation: Padded<AtomicU64>,
    current: Mutex<Arc<T>>,
    words: Box<[Padded<Word>]>,
}

/// One worker's word to control; the worker is its only writer.
#[derive(Debug, Default)]
struct Word {
    acknowledged: AtomicU64,
    asleep: AtomicBool,
}

/// Control's end of the cell.
#[derive(Debug)]
pub struct Publisher<T> {
    cell: Arc<Cell<T>>,
    generation: u64,
    /// Values that a worker may still hold, each with the generation that replaced it.
    retired: Vec<(u64, Arc<T>)>,
    newest: Arc<T>,
}

/// A worker's end of the cell.
#[derive(Debug)]
pub struct Reader<T> {
    cell: Arc<Cell<T>>,
    worker: usize,
    seen: u64,
    held: Arc<T>,
}

/// Makes a cell for `workers` workers that starts with `first` as generation 0.
#[must_use]
pub fn new<T>(first: T, workers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let newest = Arc::new(first);
    let cell = Arc::new(Cell {
        generation: Padded(AtomicU64::new(0)),
        current: Mutex::new(newest.clone()),
        words: (0..workers).map(|_| Padded::default()).collect(),
    });
    let readers = (0..workers)
        .map(|worker| Reader { cell: cell.clone(), worker, seen: 0, held: newest.clone() })
        .collect();
    (Publisher { cell, generation: 0, retired: Vec::new(), newest }, readers)
}

impl<T> Publisher<T> {
    /// The generation that the next [`Publisher::publish`] will have.
    #[must_use]
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// Puts `value` in force and returns its generation. Workers see it at their next turn.
    pub fn publish(&mut self, value: T) -> u64 {
        let value = Arc::new(value);
        if let Ok(mut current) = self.cell.current.lock() {
            *current = value.clone();
        }
        self.generation += 1;
        let old = std::mem::replace(&mut self.newest, value);
        self.retired.push((self.generation, old));
        self.cell.generation.0.store(self.generation, Ordering::Release);
        // Against the sleeper's store-then-load in `Reader::sleep` and `wake`: either control sees it awake, or it
        // sees the new generation (Dekker).
        fence(Ordering::SeqCst);
        self.generation
    }

    /// Whether `worker` has acknowledged `generation`.
    #[must_use]
    pub fn acknowledged(&self, worker: usize, generation: u64) -> bool {
        self.cell.words[worker].0.acknowledged.load(Ordering::Acquire) >= generation
    }

    /// Whether `worker` sleeps: it will look at the generation before it touches anything.
    #[must_use]
    pub fn asleep(&self, worker: usize) -> bool {
        self.cell.words[worker].0.asleep.load(Ordering::Acquire)
    }

    /// Drops the values that every worker has passed; returns how many are still kept.
    pub fn retire(&mut self) -> usize {
        let passed = self
            .cell
            .words
            .iter()
            .map(|w| w.0.acknowledged.load(Ordering::Acquire))
            .min()
            .unwrap_or(u64::MAX);
        self.retired.retain(|(replaced_by, _)| *replaced_by > passed);
        self.retired.len()
    }
}

impl<T> Reader<T> {
    /// The value that this worker runs.
    #[must_use]
    pub fn held(&self) -> &Arc<T> {
        &self.held
    }

    /// The generation that this worker runs.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.seen
    }

    /// Whether control published something newer. One acquire load.
    #[inline]
    #[must_use]
    pub fn changed(&self) -> bool {
        self.cell.generation.0.load(Ordering::Acquire) != self.seen
    }

    /// Takes the newest value and returns its generation. Control still holds the old one.
    pub fn adopt(&mut self) -> u64 {
        let generation = self.cell.generation.0.load(Ordering::Acquire);
        if generation != self.seen
            && let Ok(current) = self.cell.current.lock()
        {
            // The value may be newer than `generation`; that generation is then seen again at the next turn.
            self.held = current.clone();
            self.seen = generation;
        }
        self.seen
    }

    /// Says that nothing refers to what was before the adopted generation.
    pub fn acknowledge(&self) {
        self.cell.words[self.worker].0.acknowledged.store(self.seen, Ordering::Release);
    }

    /// Announces sleep. True: go to sleep. False: something was published meanwhile, and sleep is called off.
    #[must_use]
    pub fn sleep(&self) -> bool {
        let word = &self.cell.words[self.worker].0;
        word.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.changed() {
            self.wake();
            return false;
        }
        true
    }

    /// Ends sleep. The next turn begins with [`Reader::changed`], so a value published meanwhile is adopted first.
    pub fn wake(&self) {
        self.cell.words[self.worker].0.asleep.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
