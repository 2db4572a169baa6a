//! All connections, of which there are not more than so many.

use super::connection::Connection;
use super::packet::Key;
use std::collections::{BTreeMap, HashMap};

/// Connections at most (QEMU `HASHTABLE_MAX_SIZE`, beyond which it forgets all).
pub(super) const CONNECTIONS: usize = 16384;

#[derive(Debug)]
struct Entry {
    key: Key,
    used: u64,
    connection: Connection,
}

/// All connections, by their number: in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Table {
    numbers: HashMap<Key, u64>,
    entries: BTreeMap<u64, Entry>,
    /// When each was used: the one that was idle longest comes first.
    idle: BTreeMap<u64, u64>,
    clock: u64,
}

impl Table {
    /// Makes sure that the connection exists; gives the one that had to go for it.
    pub(super) fn make_room(&mut self, key: &Key) -> Option<Connection> {
        if self.numbers.contains_key(key) || self.entries.len() < CONNECTIONS {
            return None;
        }
        let (_, number) = self.idle.pop_first()?;
        let entry = self.entries.remove(&number)?;
        self.numbers.remove(&entry.key);
        Some(entry.connection)
    }

    /// The connection of that key, a new one if there is none.
    pub(super) fn of(&mut self, key: Key) -> &mut Connection {
        self.clock += 1;
        let now = self.clock;
        let number = *self.numbers.entry(key).or_insert(now);
        let entry = self.entries.entry(number).or_insert_with(|| Entry {
            key,
            used: now,
            connection: Connection::default(),
        });
        self.idle.remove(&entry.used);
        entry.used = now;
        self.idle.insert(now, number);
        &mut entry.connection
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.entries.values().map(|entry| &entry.connection)
    }

    /// All of them, open to change, oldest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.entries.values_mut().map(|entry| &mut entry.connection)
    }
}
