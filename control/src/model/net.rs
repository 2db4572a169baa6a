//! The clients, their names, the hubs, and who peers whom.

use super::filter::Filter;
use super::switch::Switch;
use super::{Client, ClientId, FilterId, Kind, Netdev};
use crate::qmp::error::QmpError;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// No client has the name; QMP class `DeviceNotFound`.
    #[error("Device '{0}' not found")]
    NotFound(String),
    /// Anything else, in QEMU's words.
    #[error("{0}")]
    Generic(String),
}

impl From<NetError> for QmpError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::NotFound(name) => Self::device_not_found(&name),
            NetError::Generic(desc) => Self::generic(desc),
        }
    }
}

/// Whether the engine has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// Frames may go another way, or be counted at another place: a new plan is needed.
    Plan,
    /// No frame could tell the difference; the next plan will have it.
    Nothing,
}

/// A hub: made by its first port, never removed (QEMU `net/hub.c`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Its number.
    pub number: i32,
    /// Its ports, oldest first.
    pub ports: Vec<ClientId>,
    /// How many of them have a peer.
    joined: usize,
}

impl Hub {
    /// How many of its ports have a peer.
    #[must_use]
    pub const fn joined(&self) -> usize {
        self.joined
    }
}

/// What left the model with a client.
#[derive(Debug, PartialEq)]
pub struct Removed {
    /// The client.
    pub client: Client,
    /// Its filters, head first.
    pub filters: Vec<Filter>,
    /// Whether the engine has to be told.
    pub change: Change,
}

/// The network.
#[derive(Debug, Default)]
pub struct Net {
    pub(super) clients: BTreeMap<ClientId, Client>,
    /// Objects that are no filters, oldest first.
    pub(super) plain: Vec<super::Plain>,
    pub(super) last_plain: u32,
    /// Every client of a name, oldest first: a netdev and a nic may share one.
    pub(super) names: HashMap<String, Vec<ClientId>>,
    /// Names that a command which has not ended yet will use.
    reserved: HashSet<String>,
    hubs: Vec<Hub>,
    hub_index: HashMap<i32, usize>,
    /// By number.
    pub(super) switches: BTreeMap<i32, Switch>,
    pub(super) filters: BTreeMap<FilterId, Filter>,
    pub(super) filter_names: HashMap<String, FilterId>,
    last_client: u64,
    pub(super) last_filter: u64,
}

impl Net {
    /// An empty network.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All clients, oldest first.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// The client of that number.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&Client> {
        self.clients.get(&id)
    }

    /// The client's entry, open to change of what is its own (options, info); never its peer or filters.
    pub fn client_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(&id)
    }

    /// Every client of that name, oldest first.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Client> {
        self.names.get(name).into_iter().flatten().filter_map(|id| self.clients.get(id))
    }

    /// The netdev or port of that name.
    #[must_use]
    pub fn netdev(&self, name: &str) -> Option<&Client> {
        self.named(name).find(|c| !c.is_nic())
    }

    /// All hubs, newest first, as `info network` lists them.
    pub fn hubs(&self) -> impl Iterator<Item = &Hub> {
        self.hubs.iter().rev()
    }

    /// The hub of that number.
    #[must_use]
    pub fn hub(&self, number: i32) -> Option<&Hub> {
        self.hubs.get(*self.hub_index.get(&number)?)
    }

    /// Whether a netdev of that name exists, or soon will.
    ///
    /// # Errors
    /// `Duplicate ID 'x'` when it does.
    pub fn check_free(&self, name: &str) -> Result<(), NetError> {
        if self.reserved.contains(name) || self.netdev(name).is_some() {
            return Err(NetError::Generic(format!("Duplicate ID '{name}'")));
        }
        Ok(())
    }

    /// Keeps a name for a netdev that is being opened.
    ///
    /// # Errors
    /// As [`Net::check_free`].
    pub fn reserve(&mut self, name: &str) -> Result<(), NetError> {
        self.check_free(name)?;
        self.reserved.insert(name.to_owned());
        Ok(())
    }

    /// Gives a reserved name back.
    pub fn unreserve(&mut self, name: &str) {
        self.reserved.remove(name);
    }

    /// Adds a netdev without a peer; a reservation of its name ends.
    ///
    /// # Errors
    /// `Duplicate ID 'x'`.
    pub fn add_netdev(
        &mut self,
        name: &str,
        dev: Netdev,
        link_up: bool,
        options: Map<String, Value>,
    ) -> Result<ClientId, NetError> {
        self.reserved.remove(name);
        self.check_free(name)?;
        Ok(self.add(name, Kind::Netdev(dev), link_up, None, options))
    }

    /// Adds a nic, joined to the netdev of that name if one is given.
    ///
    /// # Errors
    /// The netdev is unknown or in use.
    pub fn add_nic(
        &mut self,
        name: &str,
        dev: Netdev,
        netdev: Option<&str>,
        options: Map<String, Value>,
    ) -> Result<ClientId, NetError> {
        let peer = netdev.map(|netdev| self.check_peer(netdev)).transpose()?;
        Ok(self.add(name, Kind::Nic(dev), true, peer, options))
    }

    /// Adds a port to a hub, which is made if it is new, and joins it to the netdev of that name if one is given.
    ///
    /// # Errors
    /// `Duplicate ID 'x'`; `netdev 'x' not found`; `netdev 'x' is already in use` (QEMU aborts there).
    pub fn add_hubport(
        &mut self,
        name: &str,
        hub: i32,
        netdev: Option<&str>,
        link_up: bool,
        options: Map<String, Value>,
    ) -> Result<(ClientId, Change), NetError> {
        self.check_free(name)?;
        let peer = netdev.map(|netdev| self.check_peer(netdev)).transpose()?;
        let id = self.add(name, Kind::HubPort { hub }, link_up, peer, options);
        let index = *self.hub_index.entry(hub).or_insert_with(|| {
            self.hubs.push(Hub { number: hub, ports: Vec::new(), joined: 0 });
            self.hubs.len() - 1
        });
        let hub = &mut self.hubs[index];
        hub.ports.push(id);
        hub.joined += usize::from(peer.is_some());
        // A leg without a peer matters as soon as frames can enter the hub: they are counted at it.
        let change = if hub.joined > 0 { Change::Plan } else { Change::Nothing };
        Ok((id, change))
    }

    /// Removes a netdev or port; its peer stays, without one, and a nic's link goes down.
    ///
    /// # Errors
    /// No netdev has that name.
    pub fn remove(&mut self, name: &str) -> Result<Removed, NetError> {
        let id = self.netdev(name).map(|c| c.id).ok_or_else(|| NetError::NotFound(name.to_owned()))?;
        self.remove_client(id).ok_or_else(|| NetError::NotFound(name.to_owned()))
    }

    /// Removes any client by its number.
    pub fn remove_client(&mut self, id: ClientId) -> Option<Removed> {
        let client = self.clients.remove(&id)?;
        if let Some(ids) = self.names.get_mut(&client.name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.names.remove(&client.name);
            }
        }
        let mut change = Change::Plan;
        if let Kind::HubPort { hub } = client.kind
            && let Some(index) = self.hub_index.get(&hub)
        {
            let hub = &mut self.hubs[*index];
            if hub.joined == 0 {
                change = Change::Nothing;
            }
            hub.ports.retain(|port| *port != id);
            hub.joined -= usize::from(client.peer.is_some());
        }
        if let Kind::SwitchPort { switch, .. } = client.kind {
            self.leave_switch(switch, id);
        }
        if let Some(peer) = client.peer {
            self.note_joined(peer, false);
            if let Some(peer) = self.clients.get_mut(&peer) {
                peer.peer = None;
                if peer.is_nic() {
                    peer.link_up = false;
                }
            }
        }
        let filters: Vec<Filter> = client.filters.iter().filter_map(|id| self.filters.remove(id)).collect();
        for filter in &filters {
            self.filter_names.remove(&filter.name);
        }
        Some(Removed { client, filters, change })
    }

    /// Joins a nic to the netdev of that name, or to nothing. Its link is up then, if it was only down for want of a peer.
    ///
    /// # Errors
    /// The netdev is unknown or in use.
    pub fn set_peer(&mut self, nic: ClientId, netdev: Option<&str>) -> Result<(), NetError> {
        let before = self.clients.get(&nic).and_then(|client| client.peer);
        let named = netdev.and_then(|name| self.netdev(name)).map(|client| client.id);
        let peer = match netdev {
            Some(_) if named.is_some() && named == before => return Ok(()),
            Some(name) => Some(self.check_peer(name)?),
            None => None,
        };
        self.join(nic, peer);
        if before.is_none()
            && peer.is_some()
            && let Some(client) = self.clients.get_mut(&nic)
        {
            client.link_up = true;
        }
        Ok(())
    }

    /// Joins a client to another one without a peer, or to none; its peer so far is left alone.
    pub fn join(&mut self, id: ClientId, peer: Option<ClientId>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let before = std::mem::replace(&mut client.peer, peer);
        for (other, peer) in [(before, None), (peer, Some(id))] {
            let Some(other) = other else { continue };
            self.note_joined(other, peer.is_some());
            if let Some(other) = self.clients.get_mut(&other) {
                other.peer = peer;
            }
        }
    }

    /// The netdev of that name, if it has no peer yet.
    pub(super) fn check_peer(&self, name: &str) -> Result<ClientId, NetError> {
        let client =
            self.netdev(name).ok_or_else(|| NetError::Generic(format!("netdev '{name}' not found")))?;
        if client.peer.is_some() {
            return Err(NetError::Generic(format!("netdev '{name}' is already in use")));
        }
        Ok(client.id)
    }

    pub(super) fn add(
        &mut self,
        name: &str,
        kind: Kind,
        link_up: bool,
        peer: Option<ClientId>,
        options: Map<String, Value>,
    ) -> ClientId {
        self.last_client += 1;
        let id = ClientId(self.last_client);
        if let Some(peer) = peer {
            self.note_joined(peer, true);
            if let Some(peer) = self.clients.get_mut(&peer) {
                peer.peer = Some(id);
            }
        }
        self.names.entry(name.to_owned()).or_default().push(id);
        let (name, filters) = (name.to_owned(), Vec::new());
        let client = Client { id, name, kind, link_up, peer, filters, options, carries: None };
        self.clients.insert(id, client);
        id
    }

    /// Keeps the count of joined ports of the hub that `peer` is a port of, if it is one.
    fn note_joined(&mut self, peer: ClientId, joined: bool) {
        if let Some(Client { kind: Kind::HubPort { hub }, .. }) = self.clients.get(&peer)
            && let Some(index) = self.hub_index.get(hub)
        {
            let count = &mut self.hubs[*index].joined;
            if joined {
                *count += 1;
            } else {
                *count -= 1;
            }
        }
    }
}
