//! `netdev_add type=stream` (QEMU `net/stream.c`), and what happens to such netdevs later.

use super::State;
use super::args::Args;
use super::state::{empty, timestamp};
use crate::model::{ClientId, Netdev};
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::reactor::Ready;
use crate::stream::{Asked, Happened, Place, Start, Style};
use engine::Attachments;
use serde_json::{Map, Value, json};
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

/// A `socket` netdev that is a stream.
#[derive(Debug)]
pub(super) enum Legacy {
    /// `listen=`.
    Listen(SocketAddrV4),
    /// `connect=`.
    Connect(SocketAddrV4),
    /// `fd=`, and its number.
    Fd(OwnedFd, RawFd),
}

impl State {
    /// Succeeds once the options make sense; everything later shows in `info network` and in events.
    pub(super) fn add_stream(&mut self, monitor: u64, args: Map<String, Value>) -> Result<Value, QmpError> {
        let server = args.flag("server").unwrap_or(false);
        let reconnect = reconnect(&args, server)?;
        let place = Place::from_value(args.get("addr").unwrap_or(&Value::Null));
        let given = match &place {
            Place::Fd(name) => Some(self.given(monitor, args.text("id"), name)),
            _ => None,
        };
        let (info, start) = match server {
            true => ("initializing", Start::Listen(place)),
            false => ("connecting", Start::Connect(place, reconnect)),
        };
        let raises_link = args.flag("link").unwrap_or(true);
        let name = args.text("id").to_owned();
        let client = self.add_streaming("stream", info.to_owned(), false, args)?;
        let asked = Asked { name, client, style: Style::Stream, start, given, raises_link };
        self.streams.add(asked, &mut self.net, &mut self.binding);
        Ok(empty())
    }

    /// Adds a `socket` netdev that is a stream; its options have been checked.
    pub(super) fn add_socket_stream(
        &mut self,
        args: Map<String, Value>,
        what: Legacy,
    ) -> Result<Value, QmpError> {
        let raises_link = args.flag("link").unwrap_or(true);
        let name = args.text("id").to_owned();
        let (info, start, up) = match what {
            Legacy::Listen(address) => (String::new(), Start::Listening(listen(address)?), false),
            // Up before it is connected, as in QEMU: until then frames are dropped as `not-connected`.
            Legacy::Connect(address) => {
                let place = json!({"type": "inet", "host": address.ip().to_string(), "port": address.port().to_string()});
                (
                    format!("socket: connect to {address}"),
                    Start::Connect(Place::from_value(&place), None),
                    raises_link,
                )
            }
            Legacy::Fd(socket, number) => {
                (format!("socket: fd={number}"), Start::Connected(socket), raises_link)
            }
        };
        let client = self.add_streaming("socket", info, up, args)?;
        let asked = Asked { name, client, style: Style::Socket, start, given: None, raises_link };
        self.streams.add(asked, &mut self.net, &mut self.binding);
        Ok(empty())
    }

    /// A netdev without a peer yet, in force.
    fn add_streaming(
        &mut self,
        driver: &'static str,
        info: String,
        link_up: bool,
        args: Map<String, Value>,
    ) -> Result<ClientId, QmpError> {
        let name = args.text("id").to_owned();
        let dev = Netdev { driver, queues: Vec::new(), info: vec![info], connected: false };
        let client = self.net.add_netdev(&name, dev, link_up, args)?;
        if let Err(error) = self.binding.commit(&self.net, Attachments::default()) {
            self.net.remove_client(client);
            return Err(error);
        }
        Ok(client)
    }

    /// The descriptor that an address names. What is wrong with it is told as other failures to connect are: later.
    fn given(&mut self, monitor: u64, id: &str, name: &str) -> Result<OwnedFd, String> {
        let numbered = name.starts_with(|c: char| c.is_ascii_digit());
        self.fds.named_or_numbered(monitor, id, name).map(|(fd, _)| fd).map_err(|error| match numbered {
            true => format!("File descriptor '{name}' is not a socket"),
            false => error.desc,
        })
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::Streams`].
    pub fn stream_ready(&mut self, ready: Ready, events: &mut Vec<Event>) {
        let happened = self.streams.ready(ready, &mut self.net, &mut self.binding);
        for happened in happened {
            match happened {
                Happened::PasstClosed(client) => self.passt_closed(client, events),
                happened => tell(happened, events),
            }
        }
    }

    /// How it stands: a word, and what went wrong.
    pub(super) fn stream_state(&self, client: ClientId) -> (&'static str, Option<String>) {
        self.streams.of(client).unwrap_or(("closed", None))
    }
}

fn tell(happened: Happened, events: &mut Vec<Event>) {
    let (name, data) = match happened {
        Happened::Connected(netdev, addr) => {
            ("NETDEV_STREAM_CONNECTED", json!({"netdev-id": netdev, "addr": addr}))
        }
        Happened::Disconnected(netdev) => ("NETDEV_STREAM_DISCONNECTED", json!({"netdev-id": netdev})),
        Happened::PasstClosed(_) => return,
    };
    events.push(Event { name, data: Some(data), timestamp: timestamp() });
}

/// The time between attempts, which has 32 bits in QEMU.
fn reconnect(args: &Map<String, Value>, server: bool) -> Result<Option<Duration>, QmpError> {
    let (seconds, millis) = (args.int("reconnect"), args.int("reconnect-ms"));
    if server {
        return match (seconds, millis) {
            (None, None) => Ok(None),
            _ => Err(QmpError::generic(
                "'reconnect' and 'reconnect-ms' options are incompatible with socket in server mode",
            )),
        };
    }
    let millis = match (seconds, millis) {
        (Some(_), Some(_)) => {
            return Err(QmpError::generic("'reconnect' and 'reconnect-ms' are mutually exclusive"));
        }
        (Some(seconds), None) => (seconds as u32).wrapping_mul(1000),
        (None, millis) => millis.unwrap_or(0) as u32,
    };
    Ok((millis > 0).then(|| Duration::from_millis(millis.into())))
}

/// Listens where `listen=` says; the standard library makes the address usable again at once, as QEMU does.
fn listen(address: SocketAddrV4) -> Result<TcpListener, QmpError> {
    TcpListener::bind(address).map_err(|error| {
        let why = crate::apply::backends::strerror(&error);
        QmpError::generic(format!("can't bind ip={} to socket: {why}", address.ip()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_the_reference_s_width_and_exclude_each_other() {
        let args = |value: Value| value.as_object().cloned().unwrap_or_default();
        let of = |value: Value| reconnect(&args(value), false).map_err(|error| error.desc);
        let millis = |n| Ok(Some(Duration::from_millis(n)));
        assert_eq!(of(json!({})), Ok(None));
        assert_eq!(of(json!({"reconnect-ms": 0})), Ok(None));
        assert_eq!(of(json!({"reconnect-ms": 250})), millis(250));
        assert_eq!(of(json!({"reconnect": 2})), millis(2000));
        assert_eq!(
            of(json!({"reconnect": 4_294_968})),
            millis(704),
            "seconds wrap in 32 bits of milliseconds"
        );
        assert!(of(json!({"reconnect": 1, "reconnect-ms": 1})).is_err());
        assert!(reconnect(&args(json!({"reconnect-ms": 0})), true).is_err());
    }
}
