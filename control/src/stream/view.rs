//! A netdev as queries show it.

use super::netdev::Standing;
use super::netdevs::Streams;
use crate::model::ClientId;
use engine::port::counters::PortCounters;

impl Streams {
    /// How that of a client stands: a word, and what went wrong.
    #[must_use]
    pub fn of(&self, client: ClientId) -> Option<(&'static str, Option<String>)> {
        let netdev = self.netdev(client)?;
        let word = match &netdev.standing {
            Standing::Connected(_) => "ready",
            Standing::Listening => "listening",
            Standing::Trying => "connecting",
            Standing::Closed if netdev.error.is_some() => "failed",
            Standing::Closed => "closed",
        };
        Some((word, netdev.error.clone()))
    }

    /// The counters of each netdev, and whether it is connected.
    pub fn counters(&self) -> impl Iterator<Item = (ClientId, Vec<(&PortCounters, bool)>)> {
        self.all().map(|netdev| {
            let runs = matches!(netdev.standing, Standing::Connected(_));
            (netdev.client, vec![(&*netdev.counters, runs)])
        })
    }
}
