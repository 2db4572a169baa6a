//! The stations of a switch: which port an address of a VLAN was heard at. Read and written by all workers, without a lock.
//!
//! A fixed table of buckets, each a cache line with four keys and four values. A station has two buckets and lies in the first as a rule, in
//! the emptier one where the first was nearly full; nothing is ever moved or thrown out for another one, so those who are known stay known
//! in a flood of new ones.
//!
//! | who | may do | how |
//! |---|---|---|
//! | anybody | look | value, key, value again: both values of one life of the place, then the key is that of the value |
//! | worker | enter a station | claims a free key, writes the value with the next life, then the key |
//! | worker | refresh, move | exchanges the value that it has seen; fails where the place has begun another life |
//! | anybody | take a station out | claims its key, begins the next life, frees the key |

use crate::sync::{AtomicU32, AtomicU64, Ordering, Padded};
use crate::topology::switch::{Mac, PORTS_MOST};

/// Places of a bucket.
const WAYS: usize = 4;
/// A key that is being written. No station's: those have the top bit set.
const CLAIMED: u64 = 1;
/// The low 48 bits: an address.
const ADDRESS: u64 = (1 << 48) - 1;

/// An address in a VLAN, as one word that is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Station(u64);

impl Station {
    /// `address` has the bytes of the address in its low 48 bits, first byte lowest.
    #[inline]
    #[must_use]
    pub const fn new(address: u64, vlan: u16) -> Self {
        Self(address & ADDRESS | (vlan as u64 & 0xfff) << 48 | 1 << 63)
    }

    /// Of an address as bytes.
    #[must_use]
    pub const fn of([a, b, c, d, e, f]: Mac, vlan: u16) -> Self {
        Self::new(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), vlan)
    }

    /// Whether it is the address of one station: neither a group's nor none.
    #[inline]
    #[must_use]
    pub const fn is_one(self) -> bool {
        self.0 & 1 == 0 && self.0 & ADDRESS != 0
    }

    /// The address.
    #[must_use]
    pub const fn mac(self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// The VLAN.
    #[must_use]
    pub const fn vlan(self) -> u16 {
        (self.0 >> 48) as u16 & 0xfff
    }
}

/// What is known of a station: port, time, whether it is static, and which life of the place this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(u64);

/// Bits of [`Value`]: 12 of the port, 35 of the time, one for static, 16 of the life.
const TIME: u32 = 12;
const STATIC: u64 = 1 << 47;
const LIFE: u64 = 1 << 48;
const TIMES: u64 = (STATIC - 1) >> TIME;
const _: () = assert!(PORTS_MOST == 1 << TIME);

impl Value {
    /// What is known of a station that was just heard at `port`.
    #[inline]
    #[must_use]
    pub const fn heard(port: u32, now: u64) -> Self {
        Self::new(port, now, false)
    }

    #[inline]
    const fn new(port: u32, now: u64, fixed: bool) -> Self {
        Self(port as u64 & ((1 << TIME) - 1) | (now & TIMES) << TIME | if fixed { STATIC } else { 0 })
    }

    /// The port's number.
    #[inline]
    #[must_use]
    pub const fn port(self) -> u32 {
        self.0 as u32 & ((1 << TIME) - 1)
    }

    /// When it was last heard, to the unit of [`units`].
    #[inline]
    #[must_use]
    pub const fn time(self) -> u64 {
        self.0 >> TIME & TIMES
    }

    /// Whether it stays where it is whatever is heard.
    #[inline]
    #[must_use]
    pub const fn is_static(self) -> bool {
        self.0 & STATIC != 0
    }

    /// Whether it was not heard for more than `ageing` units; never where that is 0.
    #[inline]
    #[must_use]
    pub const fn is_old(self, now: u64, ageing: u64) -> bool {
        // Nearly all are young: one comparison for them.
        now.wrapping_sub(self.0 >> TIME) & TIMES > ageing && ageing != 0 && !self.is_static()
    }

    #[inline]
    const fn life(self) -> u64 {
        self.0 / LIFE
    }

    const fn with_life(self, life: u64) -> Self {
        Self((self.0 % LIFE) | life.wrapping_mul(LIFE))
    }
}

/// Time as the table keeps it: nanoseconds in units of 2^30, a little more than a second, so that nothing is divided.
#[inline]
#[must_use]
pub const fn units(nanoseconds: u64) -> u64 {
    nanoseconds >> 30
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    keys: [AtomicU64; WAYS],
    values: [AtomicU64; WAYS],
}

impl Bucket {
    /// In which place a station lies.
    #[inline]
    fn way(&self, station: Station) -> Option<usize> {
        // Nearly all are the first of their bucket. Of the others, all keys at once: which one it is is nothing that a processor could
        // foresee.
        if self.keys[0].load(Ordering::Relaxed) == station.0 {
            return Some(0);
        }
        let hits =
            self.keys.iter().enumerate().skip(1).fold(0u32, |hits, (way, key)| {
                hits | u32::from(key.load(Ordering::Relaxed) == station.0) << way
            });
        (hits != 0).then(|| hits.trailing_zeros() as usize)
    }
}

/// How stations are spread over buckets. A copy of it is at hand where a burst is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// Nobody outside knows them, so nobody can choose addresses that fall into one bucket.
    seed: u64,
    multiplier: u64,
    mask: u32,
}

impl Spread {
    #[inline]
    const fn mixed(self, station: Station) -> u64 {
        // Both halves of a product, as in wyhash; the shift, since addresses are often numbered, which a product alone keeps in order.
        let word = station.0 ^ self.seed;
        let wide = (word ^ word >> 25) as u128 * self.multiplier as u128;
        (wide >> 64) as u64 ^ wide as u64
    }

    /// The bucket where a station lies as a rule.
    #[inline]
    #[must_use]
    pub const fn first(self, station: Station) -> u32 {
        self.mixed(station) as u32 & self.mask
    }

    #[inline]
    const fn both(self, station: Station) -> Buckets {
        let mixed = self.mixed(station);
        let first = mixed as u32 & self.mask;
        Buckets { first, second: (first ^ ((mixed >> 32) as u32 | 1)) & self.mask }
    }
}

/// The two buckets of a station.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buckets {
    first: u32,
    second: u32,
}

/// A station that was found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    bucket: u32,
    way: u32,
    /// What is known of it.
    pub value: Value,
}

/// What became of an address that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It was known there.
    Known,
    /// It is new.
    New,
    /// It was known at another port.
    Moved,
    /// It is static at another port, and stays there.
    Static,
    /// Its port has as many stations as it may have.
    Limit,
    /// The table is full.
    Full,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    buckets: Box<[Bucket]>,
    spread: Spread,
    limit: u32,
    used: Padded<AtomicU32>,
    /// By port: its stations.
    ports: Box<[AtomicU32]>,
}

impl Table {
    /// An empty table for `stations` stations at ports numbered below `ports`; allocated here. It has four times as many places: then both
    /// buckets of a station are full in a full table only (of 8192 stations, one is refused in one of ten tables; with half of the
    /// places 30 in each would be).
    #[must_use]
    pub fn new(stations: u32, ports: u32, seed: u64) -> Self {
        let buckets = (stations as usize * 4 / WAYS).next_power_of_two().max(2);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            spread: Spread {
                seed,
                multiplier: seed.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
                mask: buckets as u32 - 1,
            },
            limit: stations,
            used: Padded(AtomicU32::new(0)),
            ports: (0..ports.min(PORTS_MOST)).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Stations that it holds at most.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Stations that it holds, those that are too old and not yet taken out among them.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.0.load(Ordering::Relaxed)
    }

    /// Buckets, for [`Table::sweep`].
    #[must_use]
    pub const fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Where a station may lie.
    #[inline]
    #[must_use]
    pub const fn place(&self, station: Station) -> Buckets {
        self.spread.both(station)
    }

    /// How stations are spread over the buckets.
    #[inline]
    #[must_use]
    pub const fn spread(&self) -> Spread {
        self.spread
    }

    /// Begins to load a bucket.
    #[inline]
    pub fn prefetch(&self, bucket: u32) {
        if let Some(bucket) = self.buckets.get(bucket as usize) {
            crate::prefetch::read(bucket);
        }
    }

    /// Looks a station up.
    #[inline]
    #[must_use]
    pub fn find(&self, at: Buckets, station: Station) -> Option<Found> {
        self.find_in(at.first, station).or_else(|| self.find_in(at.second, station))
    }

    /// Looks a station up whose bucket as a rule is `first`.
    #[inline]
    #[must_use]
    pub fn find_from(&self, first: u32, station: Station) -> Option<Found> {
        self.find_in(first, station).or_else(|| self.find_second(station))
    }

    #[inline(never)]
    fn find_second(&self, station: Station) -> Option<Found> {
        self.find_in(self.place(station).second, station)
    }

    /// Whether `value` is what is known of a station whose bucket as a rule is `first`, so that there is nothing to learn. What is false
    /// may be so all the same; what is true was so a moment ago.
    #[inline]
    #[must_use]
    pub fn is_known(&self, first: u32, station: Station, value: Value) -> bool {
        let Some(bucket) = self.buckets.get(first as usize) else { return false };
        let Some(place) = bucket.way(station).and_then(|way| bucket.values.get(way)) else { return false };
        // A place that begins another life between these two loads is that of a station that was known until then.
        place.load(Ordering::Relaxed) % LIFE == value.0
    }

    #[inline]
    fn find_in(&self, index: u32, station: Station) -> Option<Found> {
        let bucket = self.buckets.get(index as usize)?;
        let way = bucket.way(station)?;
        let (key, value) = (bucket.keys.get(way)?, bucket.values.get(way)?);
        // A value, the key, the value again. Who reads a value of a life sees that its place was claimed for it, and who reads a
        // key sees the value that was written before it: so this is the key of that life.
        let seen = Value(value.load(Ordering::Acquire));
        let same = key.load(Ordering::Acquire) == station.0;
        let again = Value(value.load(Ordering::Relaxed));
        (same && again.life() == seen.life()).then_some(Found { bucket: index, way: way as u32, value: seen })
    }

    /// A station was heard at `port`, which may have `most` of them. `found` is what [`Table::find`] said.
    #[cold]
    pub fn learn(
        &self,
        at: Buckets,
        station: Station,
        found: Option<Found>,
        (port, most): (u32, u32),
        (now, ageing): (u64, u64),
    ) -> Learned {
        let Some(found) = found else { return self.enter(at, station, (port, most), (now, ageing)) };
        let Found { value, .. } = found;
        if value.port() == port {
            if !value.is_static() {
                self.exchange(found, Value::new(port, now, false));
            }
            return Learned::Known;
        }
        if value.is_static() {
            return Learned::Static;
        }
        if !self.admit(port, most) {
            return Learned::Limit;
        }
        if self.exchange(found, Value::new(port, now, false)) {
            self.leave(value.port());
            return Learned::Moved;
        }
        // Somebody else was faster; its next frame will tell.
        self.leave(port);
        Learned::Known
    }

    /// Puts a static station in, or makes one of what was learned. A learned station makes room for it. False: there is no room.
    pub fn fix(&self, station: Station, port: u32, now: u64) -> bool {
        let at = self.place(station);
        for _ in 0..=2 * WAYS {
            match self.find(at, station) {
                Some(found) => {
                    if self.exchange(found, Value::new(port, now, true)) {
                        self.admit(port, u32::MAX);
                        self.leave(found.value.port());
                        return true;
                    }
                }
                None => {
                    let fixed = Value::new(port, now, true);
                    if self.claim(at, station, fixed) {
                        self.admit(port, u32::MAX);
                        self.used.0.fetch_add(1, Ordering::Relaxed);
                        return true;
                    }
                    let learned = |value: Value, _: Station| !value.is_static();
                    if self.clear(at.first, learned, 1) + self.clear(at.second, learned, 1) == 0 {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Takes all stations out that `which` names.
    pub fn remove(&self, which: impl Fn(Value, Station) -> bool + Copy) {
        for index in 0..self.buckets.len() {
            self.clear(index as u32, which, WAYS);
        }
    }

    /// Takes what is too old out of `count` buckets from `from` on; how many there were, and where to go on.
    pub fn sweep(&self, from: usize, count: usize, now: u64, ageing: u64) -> (usize, usize) {
        let to = (from + count).min(self.buckets.len());
        let old = |value: Value, _: Station| value.is_old(now, ageing);
        let gone = (from..to).map(|index| self.clear(index as u32, old, WAYS)).sum();
        (gone, if to == self.buckets.len() { 0 } else { to })
    }

    /// Every station with what is known of it. Those that come or go meanwhile may be missed.
    pub fn stations(&self) -> impl Iterator<Item = (Station, Value)> {
        let all = self.buckets.iter().flat_map(|bucket| bucket.keys.iter().zip(&bucket.values));
        all.filter_map(|(key, value)| {
            let station = Station(key.load(Ordering::Acquire));
            let seen = Value(value.load(Ordering::Acquire));
            let same = key.load(Ordering::Acquire) == station.0;
            let whole = same && Value(value.load(Ordering::Relaxed)).life() == seen.life();
            (whole && station.0 > CLAIMED).then_some((station, seen))
        })
    }

    fn enter(
        &self,
        at: Buckets,
        station: Station,
        (port, most): (u32, u32),
        (now, ageing): (u64, u64),
    ) -> Learned {
        if self.used.0.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.used.0.fetch_sub(1, Ordering::Relaxed);
            return Learned::Full;
        }
        if !self.admit(port, most) {
            self.used.0.fetch_sub(1, Ordering::Relaxed);
            return Learned::Limit;
        }
        let value = Value::new(port, now, false);
        if self.claim(at, station, value) {
            return Learned::New;
        }
        // What is too old there was not yet taken out.
        let old = |value: Value, _: Station| value.is_old(now, ageing);
        if self.clear(at.first, old, 1) + self.clear(at.second, old, 1) > 0 && self.claim(at, station, value)
        {
            return Learned::New;
        }
        self.leave(port);
        self.used.0.fetch_sub(1, Ordering::Relaxed);
        Learned::Full
    }

    /// Writes a station to a free place of its buckets.
    fn claim(&self, at: Buckets, station: Station, value: Value) -> bool {
        // Three of a bucket leave a place for one that finds no other.
        let taken = |index: u32| {
            let keys = self.buckets.get(index as usize).map_or(&[][..], |bucket| &bucket.keys);
            keys.iter().filter(|key| key.load(Ordering::Relaxed) != 0).count()
        };
        let (first, second) = (taken(at.first), taken(at.second));
        let order =
            if first < WAYS - 1 || first <= second { [at.first, at.second] } else { [at.second, at.first] };
        let buckets = order.into_iter().filter_map(|index| self.buckets.get(index as usize));
        for (key, place) in buckets.flat_map(|bucket| bucket.keys.iter().zip(&bucket.values)) {
            let free = key.load(Ordering::Relaxed) == 0
                && key.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if free {
                let life = Value(place.load(Ordering::Relaxed)).life() + 1;
                // Releases the claim: who reads this value finds no older key.
                place.store(value.with_life(life).0, Ordering::Release);
                key.store(station.0, Ordering::Release);
                return true;
            }
        }
        false
    }

    /// Writes another value over one that was seen, in the same life of the place.
    fn exchange(&self, found: Found, value: Value) -> bool {
        let place = self.buckets.get(found.bucket as usize).and_then(|b| b.values.get(found.way as usize));
        let value = value.with_life(found.value.life()).0;
        place.is_some_and(|place| {
            place.compare_exchange(found.value.0, value, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Takes at most `most` stations out of a bucket that `which` names; how many there were.
    fn clear(&self, index: u32, which: impl Fn(Value, Station) -> bool, most: usize) -> usize {
        let Some(bucket) = self.buckets.get(index as usize) else { return 0 };
        let mut gone = 0;
        for (key, place) in bucket.keys.iter().zip(&bucket.values) {
            let station = Station(key.load(Ordering::Acquire));
            if station.0 <= CLAIMED || gone == most {
                continue;
            }
            let named = which(Value(place.load(Ordering::Acquire)), station);
            let claim = || key.compare_exchange(station.0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed);
            if !named || claim().is_err() {
                continue;
            }
            // From here on nobody's exchange fits any more, so this is the last word on the station.
            let last = Value(place.fetch_add(LIFE, Ordering::AcqRel));
            if !which(last, station) {
                key.store(station.0, Ordering::Release);
                continue;
            }
            key.store(0, Ordering::Release);
            self.leave(last.port());
            self.used.0.fetch_sub(1, Ordering::Relaxed);
            gone += 1;
        }
        gone
    }

    /// Counts a station at a port, unless it has as many as it may have.
    fn admit(&self, port: u32, most: u32) -> bool {
        let Some(count) = self.ports.get(port as usize) else { return false };
        if count.fetch_add(1, Ordering::Relaxed) < most {
            return true;
        }
        count.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn leave(&self, port: u32) {
        if let Some(count) = self.ports.get(port as usize) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Stations at a port.
    #[must_use]
    pub fn at_port(&self, port: u32) -> u32 {
        self.ports.get(port as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
