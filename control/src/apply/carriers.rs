//! Carriers of taps: the host sees the link of the netdev, and that of its peer.

use crate::model::{ClientId, Net};
use engine::backend::tap::Carrier;
use std::collections::BTreeMap;

/// One tap.
#[derive(Debug)]
struct Entry {
    carrier: Carrier,
    /// What the host was shown last; a tap begins with a carrier.
    shown: bool,
    /// It cannot be changed, and that was said.
    fixed: bool,
}

/// The carriers of all taps.
#[derive(Debug, Default)]
pub struct Carriers(BTreeMap<ClientId, Entry>);

impl Carriers {
    /// A tap enters the network; [`Carriers::settle`] comes before its command's answer.
    pub fn add(&mut self, tap: ClientId, carrier: Carrier) {
        self.0.insert(tap, Entry { carrier, shown: true, fixed: false });
    }

    /// Shows what the network says now, and forgets taps that have gone. One call to the kernel for each that changed.
    pub fn settle(&mut self, net: &Net) {
        self.0.retain(|tap, entry| {
            let Some(client) = net.client(*tap) else { return false };
            let up = client.link_up
                && client.peer.and_then(|peer| net.client(peer)).is_none_or(|peer| peer.link_up);
            if std::mem::replace(&mut entry.shown, up) != up
                && let Err(errno) = entry.carrier.set(up)
                && !std::mem::replace(&mut entry.fixed, true)
            {
                tracing::warn!("netdev '{}': its host does not see its link: {}", client.name, errno.desc());
            }
            true
        });
    }
}
