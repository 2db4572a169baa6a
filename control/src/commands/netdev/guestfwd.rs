//! Chardevs behind addresses of a `user` netdev's network: who uses them, and what the netdev's process is told of them.

use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::chardev::{Stream, User};
use crate::commands::State;
use crate::commands::pending::Pending;
use crate::qmp::error::QmpError;
use std::os::fd::{AsRawFd, OwnedFd};
use usernet::protocol::Request;

impl State {
    /// The stream of a chardev that a rule names, `chardev:ID`; one that has ended if nobody is at its other end.
    pub(super) fn claim_guest_forward(
        &mut self,
        netdev: &str,
        port: u16,
        id: &str,
        index: usize,
    ) -> Result<OwnedFd, QmpError> {
        let failed =
            || QmpError::generic(format!("Could not open guest forwarding device 'guestfwd.tcp.{port}'"));
        let number = self.users.claims.add(netdev, id, index);
        let stream = self.chardevs.claim(id, User::Forward(number)).map_err(|_| {
            self.users.claims.remove(|one, _| one == number);
            failed()
        })?;
        let claim = match stream {
            Some(stream) if !stream.is_socket() => return Err(failed()),
            Some(stream) => self.users.claims.connected(number, stream),
            None => None,
        };
        let file = claim.map(|claim| {
            claim.news = false;
            claim.copy()
        });
        file.unwrap_or_else(crate::user::nobody).map_err(|_| failed())
    }

    /// The chardevs that were claimed after this number have no user any more.
    pub(super) fn release_guest_forwards(&mut self, before: u32) {
        let late = self.users.claims.remove(|number, _| number > before);
        late.iter().for_each(|id| self.chardevs.release(id));
    }

    /// The chardevs of a netdev have no user any more.
    pub(in crate::commands) fn forget_guest_forwards(&mut self, netdev: &str) {
        let of_it = self.users.claims.remove(|_, name| name == netdev);
        of_it.iter().for_each(|id| self.chardevs.release(id));
    }

    /// Somebody is at the other end of a chardev again.
    pub fn guest_forward_connected(&mut self, number: u32, stream: Stream) {
        let netdev = self.users.claims.connected(number, stream).map(|claim| claim.netdev.clone());
        netdev.inspect(|netdev| self.tell_guest_forwards(netdev));
    }

    /// The other end of a chardev has gone.
    pub(super) fn guest_forward_ended(&mut self, number: u32) {
        let Some(claim) = self.users.claims.ended(number) else { return };
        let (index, chardev) = (claim.index, claim.chardev.clone());
        match self.net.netdev(&claim.netdev).map(|client| client.id) {
            // Its process finds the end behind what it has yet to read.
            Some(client) => drop(claim.copy().map(|nobody| self.users.replace_stream(client, index, nobody))),
            None => claim.news = true,
        }
        self.chardevs.disconnected(&chardev);
    }

    /// Hands a netdev's process the streams that it has not. One that does not run gets them with its start, and once more then: that may be under way.
    pub(super) fn tell_guest_forwards(&mut self, netdev: &str) {
        let Some(client) = self.net.netdev(netdev).map(|client| client.id) else { return };
        let conversation = self.users.conversation(client);
        let mut told = Vec::new();
        for claim in self.users.claims.of(netdev).filter(|claim| claim.news) {
            match (claim.copy(), claim.copy()) {
                (Ok(kept), Ok(file)) => told.push((claim.index, kept, file)),
                _ => {
                    tracing::warn!(
                        "netdev '{netdev}': no descriptor is left for chardev '{}'",
                        claim.chardev
                    );
                }
            }
            claim.news = conversation.is_none();
        }
        let mut files = Vec::new();
        for (index, kept, file) in told {
            self.users.replace_stream(client, index, kept);
            files.push((index, file));
        }
        let Some(conversation) = conversation.filter(|_| !files.is_empty()) else { return };
        let job = move || {
            for (index, file) in files {
                // One that has died is started again with them.
                let _ = conversation.ask(&Request::Stream(index), &[file.as_raw_fd()]);
            }
            Product::Closed
        };
        match self.binding.jobs.start(OPEN_LIMIT, job) {
            Ok(ticket) => drop(self.pending.insert(ticket, Pending::Close)),
            Err(error) => tracing::warn!("netdev '{netdev}': no thread to tell it of a chardev: {error}"),
        }
    }
}
