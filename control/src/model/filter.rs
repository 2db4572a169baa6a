//! Filters: what each is and where it sits in its client's chain (QEMU `net/filter.c`).

use super::{ClientId, FilterId, Net, NetError};
use serde_json::{Map, Value};

/// Which frames a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both.
    All,
    /// Frames sent to the client.
    Rx,
    /// Frames that the client sends.
    Tx,
}

impl Direction {
    /// Whether frames sent to the client are among them.
    #[must_use]
    pub const fn rx(self) -> bool {
        matches!(self, Self::All | Self::Rx)
    }

    /// Whether frames that the client sends are among them.
    #[must_use]
    pub const fn tx(self) -> bool {
        matches!(self, Self::All | Self::Tx)
    }

    /// The name in the schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }

    /// From the name in the schema.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::All, Self::Rx, Self::Tx].into_iter().find(|d| d.name() == name)
    }
}

/// On which side of the filter that `position=id=` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Nearer the head.
    Before,
    /// Nearer the tail.
    Behind,
}

impl Insert {
    /// The name in the schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Behind => "behind",
        }
    }

    /// From the name in the schema.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Before, Self::Behind].into_iter().find(|i| i.name() == name)
    }
}

/// A place in a chain, checked: what it names exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose chain.
    pub client: ClientId,
    /// Index in it.
    pub index: usize,
}

/// The properties that every filter has, as the user gave or set them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterOptions {
    /// Id of the netdev.
    pub netdev: String,
    /// Which frames.
    pub queue: Direction,
    /// False: frames pass it by.
    pub on: bool,
    /// `head`, `tail` or `id=FILTER`.
    pub position: String,
    /// Used with `id=` only.
    pub insert: Insert,
}

/// A filter in place.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Its number for life.
    pub id: FilterId,
    /// The object's id.
    pub name: String,
    /// The object type, for example `filter-dump`.
    pub driver: &'static str,
    /// Whose chain it sits in; a later change of the `netdev` property does not move it, as in QEMU.
    pub client: ClientId,
    /// The common properties.
    pub options: FilterOptions,
    /// The type's own properties, in QEMU's order.
    pub own: Map<String, Value>,
}

impl Filter {
    /// Whether it may hold frames. Then it stays in its chain while it is off, or what comes would overtake what it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        let replays = self.driver == "filter-replay" && self.own.contains_key("file");
        replays
            || matches!(
                self.driver,
                "filter-buffer" | "filter-limit" | "filter-redirector" | "filter-rewriter"
            )
    }
}

impl Net {
    /// The filter of that object id.
    #[must_use]
    pub fn filter_named(&self, name: &str) -> Option<&Filter> {
        self.filters.get(self.filter_names.get(name)?)
    }

    /// The filter's entry, open to change. Its place does not follow.
    pub fn filter_mut(&mut self, name: &str) -> Option<&mut Filter> {
        self.filters.get_mut(self.filter_names.get(name)?)
    }

    /// The filter of that number.
    #[must_use]
    pub fn filter(&self, id: FilterId) -> Option<&Filter> {
        self.filters.get(&id)
    }

    /// All filters, oldest first.
    pub fn filters(&self) -> impl Iterator<Item = &Filter> {
        self.filters.values()
    }

    /// Finds where a filter with these options would go.
    ///
    /// # Errors
    /// QEMU's texts and order (`netfilter_complete`): the netdev, the position. A position that names no
    /// filter is `filter 'x' not found`, whatever else has that id (QEMU aborts there). Nics and netdevs of several queues, which QEMU refuses, are
    /// as good as others.
    pub fn place(&self, options: &FilterOptions) -> Result<Place, NetError> {
        let named = || self.named(&options.netdev);
        let client = named()
            .find(|c| !c.is_nic())
            .or_else(|| named().next())
            .ok_or_else(|| NetError::Generic("Parameter 'netdev' expects a network backend id".into()))?;
        let index = match options.position.as_str() {
            "head" => 0,
            "tail" => client.filters.len(),
            position => {
                let name = position.strip_prefix("id=").ok_or_else(|| {
                    NetError::Generic("Parameter 'position' expects 'head', 'tail' or 'id=<id>'".into())
                })?;
                let other = self
                    .filter_named(name)
                    .ok_or_else(|| NetError::Generic(format!("filter '{name}' not found")))?;
                let at = client.filters.iter().position(|f| *f == other.id).ok_or_else(|| {
                    NetError::Generic(format!("filter '{name}' belongs to a different netdev"))
                })?;
                at + usize::from(options.insert == Insert::Behind)
            }
        };
        Ok(Place { client: client.id, index })
    }

    /// Whether each frame of a netdev has a virtio-net header, in QEMU's eyes: a tap's that is joined to a nic has (`qemu_set_vnet_hdr_len`).
    #[must_use]
    pub fn has_headers(&self, client: ClientId) -> bool {
        let Some(client) = self.client(client) else { return false };
        let asked = client.options.get("vnet_hdr").and_then(Value::as_bool) != Some(false);
        let peer = client.peer.and_then(|peer| self.client(peer));
        asked && matches!(client.driver(), "tap" | "bridge") && peer.is_some_and(super::Client::is_nic)
    }

    /// Puts a filter at a place that [`Net::place`] found since the last change.
    pub fn insert_filter(
        &mut self,
        name: &str,
        driver: &'static str,
        place: Place,
        options: FilterOptions,
        own: Map<String, Value>,
    ) -> Option<FilterId> {
        let client = self.clients.get_mut(&place.client)?;
        self.last_filter += 1;
        let id = FilterId(self.last_filter);
        client.filters.insert(place.index.min(client.filters.len()), id);
        self.filter_names.insert(name.to_owned(), id);
        self.filters
            .insert(id, Filter { id, name: name.to_owned(), driver, client: place.client, options, own });
        Some(id)
    }

    /// Takes a filter out of its chain.
    pub fn remove_filter(&mut self, name: &str) -> Option<Filter> {
        let filter = self.filters.remove(&self.filter_names.remove(name)?)?;
        if let Some(client) = self.clients.get_mut(&filter.client) {
            client.filters.retain(|f| *f != filter.id);
        }
        Some(filter)
    }
}
