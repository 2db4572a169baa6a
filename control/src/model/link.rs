//! `set_link` (QEMU `qmp_set_link`).

use super::{ClientId, Net, NetError};

impl Net {
    /// Sets the link of a netdev whose other end has come or gone; a nic that is its peer follows.
    pub fn set_link_of(&mut self, netdev: ClientId, up: bool) {
        let peer = self.clients.get(&netdev).and_then(|client| client.peer);
        let nic = peer.filter(|id| self.clients.get(id).is_some_and(super::Client::is_nic));
        for id in [Some(netdev), nic].into_iter().flatten() {
            if let Some(client) = self.clients.get_mut(&id) {
                client.link_up = up;
            }
        }
    }

    /// Sets the link of every client of that name. Returns whether anything changed.
    ///
    /// When the first of them has a nic as its peer, that nic follows; a netdev or hub port never follows its peer.
    ///
    /// # Errors
    /// No client has that name.
    pub fn set_link(&mut self, name: &str, up: bool) -> Result<bool, NetError> {
        let Some(all) = self.names.get(name).cloned() else {
            return Err(NetError::NotFound(name.to_owned()));
        };
        let peer = all.first().and_then(|id| self.clients.get(id)?.peer);
        let nic = peer.filter(|id| self.clients.get(id).is_some_and(super::Client::is_nic));
        let mut changed = false;
        for id in all.iter().chain(nic.as_ref()) {
            if let Some(client) = self.clients.get_mut(id) {
                changed |= client.link_up != up;
                client.link_up = up;
            }
        }
        Ok(changed)
    }
}
