//! Which of several unexpected members is named: the one that QEMU would name.
//!
//! QEMU puts an object's members into a GLib hash table, takes out those it knows, and names the first in table order.
//! So the order is that of GLib's open addressing (`glib/ghash.c`): djb2 hash, prime modulus, triangular probing,
//! tombstones, growth at 15/16. Members enter in the
//! order of QEMU's own dictionary.

use crate::qmp::order;
use serde_json::{Map, Value};

/// The first member of `map` in table order that is not in `known`; `known` is in the order of checking.
pub(super) fn first<'m>(map: &'m Map<String, Value>, known: &[&str]) -> &'m str {
    let mut table = Table::new();
    for (key, _) in order::members(map) {
        table.insert(key);
    }
    for name in known {
        table.remove(name);
    }
    table.slots.iter().find_map(Slot::key).unwrap_or_default()
}

/// GLib's string hash.
fn hash(key: &str) -> u32 {
    // Bytes are signed chars to it.
    key.bytes().fold(5381, |h: u32, byte| h.wrapping_mul(33).wrapping_add_signed(byte.cast_signed().into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot<'k> {
    Unused,
    Tombstone,
    Used(&'k str),
}

impl<'k> Slot<'k> {
    fn key(&self) -> Option<&'k str> {
        match self {
            Slot::Used(key) => Some(key),
            Slot::Unused | Slot::Tombstone => None,
        }
    }
}

struct Table<'k> {
    slots: Vec<Slot<'k>>,
    /// Slots in use.
    used: usize,
    /// Slots in use or with a tombstone.
    occupied: usize,
}

/// Moduli by table size: the largest primes below powers of two, from 2^3.
const PRIMES: [u32; 18] = [
    7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071, 262_139, 524_287,
    1_048_573,
];
const SMALLEST: usize = 8;

impl<'k> Table<'k> {
    fn new() -> Self {
        Self { slots: vec![Slot::Unused; SMALLEST], used: 0, occupied: 0 }
    }

    /// The slot where probing for `key` begins.
    fn start(&self, key: &str) -> usize {
        let size = (self.slots.len().ilog2() - SMALLEST.ilog2()) as usize;
        (hash(key).wrapping_mul(11) % PRIMES[size.min(PRIMES.len() - 1)]) as usize
    }

    /// The slot that holds `key`, or where it goes: the first tombstone met, else the unused slot that ends the probe.
    fn find(&self, key: &str) -> usize {
        let mut tombstone = None;
        let mut at = self.start(key);
        for step in 1.. {
            match self.slots[at] {
                Slot::Unused => break,
                Slot::Used(other) if other == key => return at,
                Slot::Used(_) => {}
                Slot::Tombstone => tombstone = tombstone.or(Some(at)),
            }
            at = (at + step) & (self.slots.len() - 1);
        }
        tombstone.unwrap_or(at)
    }

    fn insert(&mut self, key: &'k str) {
        let at = self.find(key);
        let old = std::mem::replace(&mut self.slots[at], Slot::Used(key));
        if old.key().is_none() {
            self.used += 1;
        }
        if old == Slot::Unused {
            self.occupied += 1;
            self.resize();
        }
    }

    fn remove(&mut self, key: &str) {
        let at = self.find(key);
        if self.slots[at].key().is_some() {
            self.slots[at] = Slot::Tombstone;
            self.used -= 1;
            self.resize();
        }
    }

    /// Grows a full table, shrinks an empty one, in place as GLib does: each key is put where its probe meets a slot
    /// not placed yet, and the key it drives out goes on.
    fn resize(&mut self) {
        let size = self.slots.len();
        let too_large = size > SMALLEST && size > self.used * 4;
        if !too_large && size > self.occupied + self.occupied / 16 {
            return;
        }
        let wanted = self.used * 1333 / 1000;
        let new = (wanted + 1).next_power_of_two().max(SMALLEST);
        self.slots.resize(new.max(size), Slot::Unused);
        let mut placed = vec![false; new];
        let mut old = std::mem::replace(&mut self.slots, vec![Slot::Unused; new]);
        for i in 0..size {
            if i < new && placed[i] {
                continue;
            }
            let Some(mut key) = old[i].key() else {
                old[i] = Slot::Unused;
                continue;
            };
            old[i] = Slot::Unused;
            loop {
                let mut at = self.start(key);
                let mut step = 0;
                while placed[at] {
                    step += 1;
                    at = (at + step) & (new - 1);
                }
                placed[at] = true;
                self.slots[at] = Slot::Used(key);
                match std::mem::replace(&mut old[at], Slot::Unused).key() {
                    Some(driven_out) => key = driven_out,
                    None => break,
                }
            }
        }
        self.occupied = self.used;
    }
}
