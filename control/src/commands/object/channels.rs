//! The chardevs of filters: `filter-mirror` and `filter-redirector` (QEMU `net/filter-mirror.c`).

use super::NewFilter;
use crate::apply::FilterKind;
use crate::chardev::{Stream, User};
use crate::commands::State;
use crate::commands::args::Args;
use crate::model::{FilterId, FilterOptions};
use crate::qmp::error::QmpError;
use crate::reactor::{Interest, Part, Reactor, Token, Wake};
use engine::filter::Handle;
use engine::filter::mirror::Outdev;
use engine::topology::model::ClientKind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a filter that held frames may take to end, when all of them have gone.
const END: Duration = Duration::from_millis(50);

/// One chardev in use.
struct Channel {
    /// The filter's id.
    object: String,
    /// Which of its properties names the chardev.
    property: &'static str,
    chardev: String,
    /// The connection, whose file the filter's thread shares; it ends when both are closed.
    stream: Option<Stream>,
    /// The filter in force; none while it is being made.
    filter: Option<(FilterId, Arc<dyn Handle>)>,
    /// It has been told that what came made no sense.
    detached: bool,
}

/// All chardevs that filters use.
pub(in crate::commands) struct Channels {
    /// Written to by threads when a connection ends.
    wake: Arc<OwnedFd>,
    all: BTreeMap<u32, Channel>,
    next: u32,
}

impl Channels {
    /// None yet; the reactor tells of [`Part::Filters`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub(in crate::commands) fn new(reactor: &Reactor) -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?.as_fd().try_clone_to_owned()?);
        reactor.watch(wake.as_fd(), Token::new(Part::Filters, 0, 0), Interest::READ)?;
        Ok(Self { wake, all: BTreeMap::new(), next: 0 })
    }
}

impl Channel {
    /// Gives the filter's thread its file of the connection, if both are there.
    fn join(&self) {
        let (Some(stream), Some((_, handle))) = (&self.stream, &self.filter) else { return };
        let Some(link) = handle.link(self.property) else { return };
        let file = if self.property == "indev" { stream.as_fd() } else { stream.output() };
        match file.try_clone_to_owned() {
            Ok(file) => link.connect(file),
            Err(error) => tracing::warn!("filter '{}': chardev '{}': {error}", self.object, self.chardev),
        }
    }
}

impl State {
    /// Makes the new filter the user of the chardevs that it names, in QEMU's order of checks.
    pub(super) fn claim_chardevs(
        &mut self,
        name: &str,
        driver: &str,
        args: &Map<String, Value>,
    ) -> Result<(), QmpError> {
        let (indev, outdev) = (args.maybe("indev"), args.maybe("outdev"));
        match driver {
            "filter-mirror" => self.claim_chardev(name, "outdev", "", outdev),
            "filter-redirector" => {
                if indev.is_none() && outdev.is_none() {
                    let desc = "filter redirector needs 'indev' or 'outdev' at least one property set";
                    return Err(QmpError::generic(desc));
                }
                if indev == outdev {
                    let desc = "'indev' and 'outdev' could not be same for filter redirector";
                    return Err(QmpError::generic(desc));
                }
                self.claim_chardev(name, "indev", "IN ", indev)?;
                let claimed = self.claim_chardev(name, "outdev", "OUT ", outdev);
                claimed.inspect_err(|_| self.forget_chardevs(name))
            }
            _ => Ok(()),
        }
    }

    fn claim_chardev(
        &mut self,
        object: &str,
        property: &'static str,
        prefix: &str,
        id: Option<&str>,
    ) -> Result<(), QmpError> {
        let Some(id) = id else { return Ok(()) };
        if !self.chardevs.list().iter().any(|chardev| chardev.label == id) {
            let mut error = QmpError::device_not_found(id);
            error.desc.insert_str(0, prefix);
            return Err(error);
        }
        let number = self.channels.next;
        let stream = self.chardevs.claim(id, User::Filter(number))?;
        self.channels.next += 1;
        let (object, chardev) = (object.to_owned(), id.to_owned());
        let channel = Channel { object, property, chardev, stream, filter: None, detached: false };
        self.channels.all.insert(number, channel);
        Ok(())
    }

    /// What the engine needs to know of a mirror or redirector, and its own properties in QEMU's order.
    pub(super) fn read_mirror(
        &self,
        driver: &str,
        args: &Map<String, Value>,
    ) -> Option<(&'static str, FilterKind, Map<String, Value>)> {
        let (driver, steals) = match driver {
            "filter-mirror" => ("filter-mirror", false),
            "filter-redirector" => ("filter-redirector", true),
            _ => return None,
        };
        let vnet = args.flag("vnet_hdr_support").unwrap_or(false);
        let text = |name: &str| json!(args.maybe(name).unwrap_or_default());
        let mut own = Map::from_iter([("outdev".to_owned(), text("outdev"))]);
        if steals {
            own.insert("indev".into(), text("indev"));
        }
        own.insert("vnet_hdr_support".into(), vnet.into());
        let is_null =
            |id: &str| self.chardevs.list().iter().any(|c| c.label == id && c.driver == "chardev-null");
        let outdev = args.maybe("outdev").map(|id| if is_null(id) { Outdev::Null } else { Outdev::Stream });
        let indev = args.maybe("indev").is_some();
        Some((driver, FilterKind::Mirror { steals, indev, outdev, vnet }, own))
    }

    /// The worker of the first queue of the client that a filter with these options sits on.
    pub(super) fn home(&self, options: &FilterOptions) -> usize {
        let Ok(place) = self.net.place(options) else { return 0 };
        let topology = self.net.topology();
        let kind =
            topology.clients.iter().find(|client| client.id == place.client).map(|client| &client.kind);
        match kind {
            Some(ClientKind::Port { queues }) => queues.first().map_or(0, |queue| queue.worker),
            _ => 0,
        }
    }

    /// A filter is about to be in force: it gets the connections that there are.
    pub(super) fn join_chardevs(&mut self, name: &str, filter: FilterId, handle: &Arc<dyn Handle>) {
        let Channels { all, wake, .. } = &mut self.channels;
        for channel in all.values_mut().filter(|channel| channel.object == name && channel.filter.is_none()) {
            if let Some(link) = handle.link(channel.property) {
                link.report_to(wake);
            }
            channel.filter = Some((filter, handle.clone()));
            channel.join();
        }
    }

    /// A filter was not made after all: its chardevs are free again, with their connections.
    pub(in crate::commands) fn forget_chardevs(&mut self, name: &str) {
        let unmade = |channel: &mut Channel| channel.object == name && channel.filter.is_none();
        for (_, channel) in self.channels.all.extract_if(.., |_, channel| unmade(channel)) {
            match channel.stream {
                Some(stream) => self.chardevs.give_back(&channel.chardev, stream),
                None => self.chardevs.release(&channel.chardev),
            }
        }
    }

    /// A filter has gone that held frames, all of which are on their way, or that never came into force.
    pub(super) fn end_chardevs(&mut self, name: &str) {
        let mine = self.channels.all.values().filter(|channel| channel.object == name);
        for (_, handle) in mine.filter_map(|channel| channel.filter.as_ref()) {
            handle.finish(END);
        }
        self.free_chardevs();
    }

    /// Frees the chardevs of filters that have gone and whose threads have ended. A connection that stands between two frames stays, for the next
    /// user, as in QEMU.
    pub(in crate::commands) fn free_chardevs(&mut self) {
        let Self { channels, net, chardevs, .. } = self;
        let gone = |channel: &mut Channel| {
            let Some((filter, handle)) = &channel.filter else { return false };
            net.filter(*filter).is_none() && handle.link(channel.property).is_none_or(|link| link.is_over())
        };
        for (_, mut channel) in channels.all.extract_if(.., |_, channel| gone(channel)) {
            let link = channel.filter.as_ref().and_then(|(_, handle)| handle.link(channel.property));
            let clean = link.is_some_and(|link| link.wait(Duration::ZERO) && !link.take_end());
            match channel.stream.take() {
                Some(stream) if clean => chardevs.give_back(&channel.chardev, stream),
                stream => {
                    drop(stream);
                    chardevs.release(&channel.chardev);
                }
            }
        }
    }

    /// Somebody is at the other end of a filter's chardev.
    pub fn filter_connected(&mut self, number: u32, stream: Stream) {
        if let Some(channel) = self.channels.all.get_mut(&number) {
            channel.stream = Some(stream);
            channel.join();
        }
    }

    /// Handles what happened to the descriptor of [`Part::Filters`]: connections ended, or threads.
    pub fn filters_ready(&mut self) {
        let _ = nix::unistd::read(self.channels.wake.as_fd(), &mut [0; 8]);
        let Self { channels, chardevs, .. } = self;
        for channel in channels.all.values_mut() {
            let Some((_, handle)) = &channel.filter else { continue };
            let Some(link) = handle.link(channel.property) else { continue };
            if link.take_end() {
                channel.stream = None;
                chardevs.disconnected(&channel.chardev);
            }
            if link.is_detached() && !std::mem::replace(&mut channel.detached, link.is_detached()) {
                tracing::warn!(
                    "filter '{}': oversized packet received from chardev '{}', which is read no more",
                    channel.object,
                    channel.chardev
                );
            }
            channel.detached = link.is_detached();
        }
        self.free_chardevs();
    }

    /// The opening of a filter failed: its id and chardevs are free again.
    pub(in crate::commands) fn filter_failed(&mut self, filter: &NewFilter) {
        self.new_objects.remove(&filter.name);
        self.forget_chardevs(&filter.name);
    }
}
