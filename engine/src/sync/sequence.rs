//! Words that one thread replaces together and others read together: a sequence lock.
//!
//! A reader compares one word as often as it likes, and copies the rest when that has changed. Nobody waits: a copy that was torn is
//! thrown away, and its reader comes back later.

use super::{AtomicU64, Ordering};

/// `N` words that belong together.
#[derive(Debug)]
pub struct Sequence<const N: usize> {
    /// Odd while the words change.
    version: AtomicU64,
    words: [AtomicU64; N],
}

impl<const N: usize> Sequence<N> {
    /// With these words.
    #[must_use]
    pub fn new(words: [u64; N]) -> Self {
        Self { version: AtomicU64::new(0), words: words.map(AtomicU64::new) }
    }

    /// Replaces all words. One thread may call this.
    pub fn write(&self, words: &[u64; N]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Each store releases the odd version: who reads a new word sees that, too.
        for (word, value) in self.words.iter().zip(words) {
            word.store(*value, Ordering::Release);
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// What tells whether anything changed; never odd for words that [`Sequence::read`] gave.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// The words and their version; nothing while they change.
    pub fn read(&self) -> Option<(u64, [u64; N])> {
        let version = self.version.load(Ordering::Acquire);
        let mut words = [0; N];
        for (to, from) in words.iter_mut().zip(&self.words) {
            *to = from.load(Ordering::Acquire);
        }
        let stable = version.is_multiple_of(2) && self.version() == version;
        stable.then_some((version, words))
    }
}

#[cfg(test)]
mod tests;
