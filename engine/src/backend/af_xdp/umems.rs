//! The UMEMs of all workers: made when a socket needs one, shared by the sockets of a worker, kept for the next.

use crate::mem::arena::{Arena, ArenaError};
use crate::mem::chunks::{Lent, SharedUmem};
use af_xdp::socket::Copying;
use af_xdp::{Umem, UmemConfig};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks of a UMEM: for four queues. More would be memory that is locked for nothing; fewer, and two interfaces with two queues on one worker
/// would copy between each other.
const CHUNKS: usize = 4 * 2 * super::RING as usize;

#[derive(Debug)]
struct Entry {
    worker: usize,
    /// Its sockets are all alike: who shares takes over the mode.
    copying: Copying,
    /// Queues that have a place in it. Only ever an estimate: a queue that goes is forgotten with its last chunk.
    places: Vec<std::sync::Weak<()>>,
    shared: Arc<SharedUmem>,
}

/// All UMEMs. Control has one of these.
#[derive(Debug, Default)]
pub struct UmemSets(Mutex<Vec<Entry>>);

/// A queue's place in a UMEM, for as long as it is kept.
pub(super) type Room = Arc<()>;

impl UmemSets {
    /// A UMEM with a place for one more queue of `worker`, and its number.
    ///
    /// # Errors
    /// No memory for a new one.
    pub(super) fn take(
        &self,
        arena: &Arc<Arena>,
        worker: usize,
        copying: Copying,
    ) -> Result<(usize, Arc<SharedUmem>, Room), ArenaError> {
        let mut entries = self.lock();
        let room = Arc::new(());
        let alike = |entry: &Entry| (entry.worker, entry.copying) == (worker, copying);
        for (number, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| alike(entry)) {
            entry.places.retain(|place| place.strong_count() > 0);
            if entry.places.len() < CHUNKS / (2 * super::RING as usize) {
                entry.places.push(Arc::downgrade(&room));
                return Ok((number, entry.shared.clone(), room));
            }
        }
        let config = UmemConfig::default();
        let part = arena.take(CHUNKS * config.chunk as usize, 4096)?;
        let umem = Umem::new(Box::new(Lent(part)), config)
            .map_err(|_| ArenaError::Size { bytes: CHUNKS * config.chunk as usize, align: 4096 })?;
        let shared = SharedUmem::new(umem);
        entries.push(Entry { worker, copying, places: vec![Arc::downgrade(&room)], shared: shared.clone() });
        Ok((entries.len() - 1, shared, room))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
