//! The connections: a fixed table that all workers read and write without a lock.
//!
//! The client's frames pass one worker, the guest's perhaps another. Places come in sets; a new connection takes a free place of its set, or one of a connection
//! that is over, or the one that was unused for longest. A place is first claimed, so that no two take it; what a worker does with a connection whose place
//! is taken from it at that moment is lost, which nobody uses at that moment.

use super::conn::{Conn, Marks, Segment, State};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Connections, as many as QEMU's table has.
pub const MOST: usize = 16_384;

/// Places of a set.
const WAYS: usize = 8;

/// A place that is being taken: no address, since both ends would be that of a broadcast.
const CLAIMED: u64 = u64::MAX;

/// Which connection: the client's end and the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Address of the client, and of the guest.
    pub addrs: u64,
    /// Port of the client, and of the guest.
    pub ports: u32,
}

#[derive(Debug, Default)]
struct Place {
    /// 0 while it is free.
    addrs: AtomicU64,
    ports: AtomicU32,
    /// Seconds when it was used last.
    used: AtomicU32,
    conn: AtomicU64,
    marks: AtomicU64,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    places: Box<[Place]>,
    seeds: [u64; 2],
}

impl Table {
    /// An empty one. Which connections share a set depends on the seeds, so that nobody can choose.
    #[must_use]
    pub fn new(seeds: [u64; 2]) -> Self {
        Self { places: std::iter::repeat_with(Place::default).take(MOST).collect(), seeds }
    }

    fn set(&self, key: Key) -> &[Place] {
        let [a, b] = self.seeds;
        let mix = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y | 1);
            (product >> 64) as u64 ^ product as u64
        };
        let hash = mix(mix(key.addrs ^ a, b) ^ u64::from(key.ports), a ^ 0x9e37_79b9_7f4a_7c15);
        let at = (hash >> 32) as usize % (MOST / WAYS) * WAYS;
        self.places.get(at..at + WAYS).unwrap_or_default()
    }

    fn find(&self, key: Key) -> Option<&Place> {
        let fits = |place: &&Place| {
            place.addrs.load(Ordering::Acquire) == key.addrs
                && place.ports.load(Ordering::Relaxed) == key.ports
        };
        self.set(key).iter().find(fits)
    }

    /// Makes a place for a connection; nothing where another worker is just doing that.
    fn claim(&self, key: Key) -> Option<&Place> {
        let age = |place: &&Place| match place.addrs.load(Ordering::Relaxed) {
            0 => (0, 0),
            CLAIMED => (3, 0),
            _ => {
                let over = Conn::unpack(place.conn.load(Ordering::Relaxed)).state == State::Closed;
                (if over { 1 } else { 2 }, place.used.load(Ordering::Relaxed))
            }
        };
        let place = self.set(key).iter().min_by_key(age)?;
        let old = place.addrs.load(Ordering::Relaxed);
        if old == CLAIMED
            || place.addrs.compare_exchange(old, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return None;
        }
        place.conn.store(0, Ordering::Relaxed);
        place.marks.store(0, Ordering::Relaxed);
        place.ports.store(key.ports, Ordering::Relaxed);
        place.addrs.store(key.addrs, Ordering::Release);
        Some(place)
    }

    /// A frame of a connection passes; a SYN makes one if `track`. What its number must change by.
    pub fn pass(&self, key: Key, to_guest: bool, seg: Segment, now: u64, track: bool) -> u32 {
        let begins = seg.flags & (crate::wire::l4::SYN | crate::wire::l4::ACK) == crate::wire::l4::SYN;
        let Some(place) = self.find(key).or_else(|| if begins && track { self.claim(key) } else { None })
        else {
            return 0;
        };
        let seconds = (now / 1_000_000_000) as u32;
        if place.used.load(Ordering::Relaxed) != seconds {
            place.used.store(seconds, Ordering::Relaxed);
        }
        let mut word = place.conn.load(Ordering::Acquire);
        loop {
            let mut conn = Conn::unpack(word);
            let old = place.marks.load(Ordering::Relaxed);
            let mut marks = Marks { first: (old >> 32) as u32, fin: old as u32 };
            let change = if to_guest { conn.to_guest(marks, seg) } else { conn.from_guest(&mut marks, seg) };
            let new = u64::from(marks.first) << 32 | u64::from(marks.fin);
            if new != old {
                place.marks.store(new, Ordering::Relaxed);
            }
            let next = conn.pack();
            if next == word {
                return change;
            }
            match place.conn.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return change,
                Err(other) => word = other,
            }
        }
    }

    /// Connections that are followed, and those of them whose numbers differ. Control calls it.
    #[must_use]
    pub fn count(&self) -> (u64, u64) {
        let used = self.places.iter().filter(|place| place.addrs.load(Ordering::Relaxed) != 0);
        let conns = used.map(|place| Conn::unpack(place.conn.load(Ordering::Relaxed)));
        conns
            .filter(|conn| conn.state != State::Closed)
            .fold((0, 0), |(all, shifted), conn| (all + 1, shifted + u64::from(conn.offset() != 0)))
    }

    /// Both guests are the same again: no numbers differ any more. Control calls it.
    pub fn level(&self) {
        for place in &self.places {
            let _ = place.conn.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let conn = Conn::unpack(word);
                (conn.offset() != 0).then(|| Conn { value: 0, ..conn }.pack())
            });
        }
    }
}
