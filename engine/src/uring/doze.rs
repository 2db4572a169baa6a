//! Whether a worker sleeps, as those see it that may have work for it.

use crate::sync::{AtomicU32, Ordering, fence};

/// The worker runs; a nudge costs a load.
const AWAKE: u32 = 0;
/// It sleeps, or is about to.
const ASLEEP: u32 = 1;
/// Somebody woke it and it has not looked yet.
const WOKEN: u32 = 2;

/// The word of one worker. A producer makes its work visible and nudges; the worker announces sleep, then looks for work
/// once more. One of them sees the other, so no work waits for a sleeper.
#[derive(Debug)]
pub(super) struct Doze(AtomicU32);

impl Doze {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(AWAKE))
    }

    /// Makes the worker's next look at its word find a wake. True when it sleeps and must be kicked.
    pub(super) fn wake(&self) -> bool {
        self.0.swap(WOKEN, Ordering::SeqCst) == ASLEEP
    }

    /// Wakes the worker if it sleeps or has announced sleep; a fence and a load otherwise. True when it must be kicked.
    pub(super) fn nudge(&self) -> bool {
        // Pairs with the fence in `announce`: either this load sees ASLEEP, or the worker's look sees the work.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) == ASLEEP && self.wake()
    }

    /// From now on nudges wake. False when a wake has come already.
    pub(super) fn announce(&self) -> bool {
        let was = self.0.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        was.unwrap_or_else(|s| s) != WOKEN
    }

    /// The worker is awake.
    pub(super) fn rise(&self) {
        self.0.swap(AWAKE, Ordering::SeqCst);
    }

    /// 0 while the worker is awake.
    #[cfg(test)]
    pub(super) fn state(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use crate::sync::{Arc, Mutex};

    /// A link of one burst, and a producer: the worker finds the burst before it sleeps, or the producer kicks it.
    #[test]
    fn a_burst_on_a_link_never_waits_for_a_sleeper() {
        loom::model(|| {
            let doze = Arc::new(Doze::new());
            let link = Arc::new(Mutex::new(Vec::new()));
            let (theirs, to) = (doze.clone(), link.clone());
            let producer = loom::thread::spawn(move || {
                to.lock().unwrap().push(1);
                theirs.nudge()
            });
            let announced = doze.announce();
            let found = link.lock().unwrap().pop().is_some();
            let sleeps = announced && !found;
            if !sleeps {
                doze.rise();
            }
            let kicked = producer.join().unwrap();
            assert!(!sleeps || kicked, "the worker sleeps, the burst waits, and nobody kicked it");
        });
    }

    /// Two wakes and a sleeper: it is kicked exactly once, or finds the wake when it announces.
    #[test]
    fn a_wake_is_never_lost() {
        loom::model(|| {
            let doze = Arc::new(Doze::new());
            let wakers: Vec<_> = (0..2)
                .map(|_| {
                    let theirs = doze.clone();
                    loom::thread::spawn(move || theirs.wake())
                })
                .collect();
            let sleeps = doze.announce();
            let kicks = wakers.into_iter().filter(|_| true).map(|w| w.join().unwrap()).filter(|k| *k).count();
            assert_eq!(kicks, usize::from(sleeps));
        });
    }
}
