//! Taps whose frames the kernel's vhost-net moves (`vhost=on`): rings of theirs that stop.

use crate::model::ClientId;
use crate::reactor::{Interest, Part, Reactor, Ready, Token};
use engine::backend::tap::Rings;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One tap.
struct Entry {
    name: String,
    client: ClientId,
    rings: Rings,
    /// The first ring that stopped for cause, and why.
    stopped: Option<(usize, String)>,
}

/// A ring that stopped: netdev, ring, reason.
pub type Stopped = (String, usize, String);

/// All of them, by numbers that are never used twice.
pub struct VhostNets {
    reactor: Rc<Reactor>,
    entries: BTreeMap<u32, Entry>,
    next: u32,
}

impl VhostNets {
    /// None yet; the reactor tells of [`Part::VhostNet`].
    #[must_use]
    pub const fn new(reactor: Rc<Reactor>) -> Self {
        Self { reactor, entries: BTreeMap::new(), next: 0 }
    }

    /// A tap is open.
    pub fn add(&mut self, name: &str, client: ClientId, rings: Rings) {
        let number = self.next;
        self.next += 1;
        for file in rings.files() {
            let watched = self.reactor.watch(file, Token::new(Part::VhostNet, number, 0), Interest::READ);
            if let Err(error) = watched {
                tracing::warn!("netdev '{name}': that a ring of it stops is not heard: {error}");
            }
        }
        self.entries.insert(number, Entry { name: name.to_owned(), client, rings, stopped: None });
    }

    /// A netdev goes.
    pub fn remove(&mut self, client: ClientId) {
        self.entries.retain(|_, entry| {
            let stays = entry.client != client;
            if !stays {
                // The kernel may hold them longer than we do.
                entry.rings.files().for_each(|file| self.reactor.forget(file));
            }
            stays
        });
    }

    /// Why a client's netdev gives nothing, if it does not.
    #[must_use]
    pub fn trouble(&self, client: ClientId) -> Option<String> {
        let entry = self.entries.values().find(|entry| entry.client == client)?;
        entry.stopped.as_ref().map(|(ring, why)| format!("ring {ring}: {why}"))
    }

    /// Handles what happened to a descriptor of [`Part::VhostNet`]: news, if there are some.
    pub fn ready(&mut self, event: Ready) -> Option<Stopped> {
        let entry = self.entries.get_mut(&event.token.object)?;
        let (ring, why) = entry.rings.look().filter(|_| entry.stopped.is_none())?;
        tracing::warn!("netdev '{}': ring {ring} stopped: {why}", entry.name);
        entry.stopped = Some((ring, why.clone()));
        Some((entry.name.clone(), ring, why))
    }
}
