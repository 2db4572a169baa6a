//! Starting a process and telling it its network: a job's work, again whenever it died.

use super::conversation::Conversation;
use super::forwarded::Forwarded;
use super::network::Wanted;
use super::resolver;
use super::rule::{GuestTarget, refused};
use super::service::{CommandServer, Plug, Private, check_smb, smb};
use crate::apply::{Backends, Launched, Opened};
use crate::chardev::cli::{Short, short};
use crate::chardev::{Backend, Spec, connected};
use crate::qmp::error::QmpError;
use engine::backend::user::Process;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use usernet::protocol::{Answer, Network, Request, Server, Service};

/// What every start of a netdev's process has in common.
#[derive(Debug)]
pub struct Setup {
    /// The netdev's name.
    pub name: String,
    network: Network,
    /// The sockets behind which commands run; they outlive the process.
    _servers: Vec<CommandServer>,
    /// Streams of chardevs, in the order of the services that name them.
    streams: Mutex<Vec<OwnedFd>>,
    /// Goes last.
    _private: Option<Private>,
}

/// A process that has its network.
pub struct Started {
    /// The netdev's queue.
    pub opened: Opened,
    /// The process.
    pub process: Process,
    /// How it is spoken to.
    pub conversation: Arc<Conversation>,
    /// What it was started from.
    pub setup: Arc<Setup>,
    /// Its forwards.
    pub forwards: Vec<Forwarded>,
}

impl Setup {
    /// Prepares the services. `streams` are those of the chardevs that rules name, in the order of the rules that lead to a chardev; nothing for one that
    /// is described and not named. That is opened here, which may wait.
    ///
    /// # Errors
    /// QEMU's words; nothing is left behind.
    pub fn new(name: &str, wanted: Wanted, streams: Vec<Option<OwnedFd>>) -> Result<Self, QmpError> {
        let Wanted { mut network, guest_forwards, smb: share, .. } = wanted;
        let mut commands = Vec::new();
        let (mut named, mut streams) = (streams.into_iter(), Vec::new());
        for forward in guest_forwards {
            let address = forward.server.unwrap_or(Ipv4Addr::UNSPECIFIED);
            match forward.to {
                GuestTarget::Command(line) => commands.push((address, forward.port, line, Plug::Unix)),
                GuestTarget::Device(device) => {
                    streams.push(match named.next().flatten() {
                        Some(stream) => stream,
                        None => described(&device, forward.port)?,
                    });
                    network.services.push(Service { address, port: forward.port, to: Server::Stream });
                }
            }
        }
        if let Some((directory, _)) = &share {
            check_smb(directory)?;
        }
        let private = match (commands.is_empty(), &share) {
            (true, None) => None,
            (_, share) => Some(Private::new().map_err(|errno| match share {
                Some(_) => QmpError::generic("Could not create samba server dir"),
                None => QmpError::generic(format!("user: no private directory: {}", errno.desc())),
            })?),
        };
        if let (Some((directory, address)), Some(private)) = (&share, &private) {
            if address.is_unspecified() {
                return Err(QmpError::generic("Conflicting/invalid smbserver address"));
            }
            let line = smb(private.path(), directory)?;
            commands.extend([139, 445].map(|port| (*address, port, line.clone(), Plug::Inet)));
        }
        let mut servers = Vec::new();
        for (address, port, line, plug) in commands {
            let Some(private) = &private else { continue };
            let path = private.path().join(format!("{address}.{port}"));
            let server = CommandServer::new(name, path.clone(), &line, plug)
                .map_err(|error| QmpError::generic(format!("user: no socket for '{line}': {error}")))?;
            servers.push(server);
            network.services.push(Service { address, port, to: Server::Unix { path } });
        }
        Ok(Self {
            name: name.to_owned(),
            network,
            _servers: servers,
            streams: Mutex::new(streams),
            _private: private,
        })
    }
}

impl Setup {
    /// Another stream takes the place of one.
    pub(super) fn replace_stream(&self, index: usize, stream: OwnedFd) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = streams.get_mut(index) {
            *place = stream;
        }
    }

    /// Copies of all streams, so that nobody waits for a start.
    fn copies(&self) -> std::io::Result<Vec<OwnedFd>> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().map(OwnedFd::try_clone).collect()
    }
}

/// Starts a process with these forwards.
///
/// # Errors
/// What failed; nothing is left behind.
pub fn start(
    backends: &dyn Backends,
    setup: Arc<Setup>,
    forwards: Vec<Forwarded>,
) -> Result<Started, QmpError> {
    let Launched { opened, process, control } = backends.open_user()?;
    let failed = |what: String| QmpError::generic(format!("user: {what}"));
    let conversation = Conversation::new(&setup.name, control).map_err(|error| failed(error.to_string()))?;
    let network = Request::Start(Box::new(setup.network.clone()));
    let resolver = resolver::serve().map_err(|error| failed(error.to_string()))?;
    let streams = setup.copies().map_err(|error| failed(error.to_string()))?;
    let files: Vec<_> = [&resolver].into_iter().chain(&streams).map(AsRawFd::as_raw_fd).collect();
    if let Answer::Failed(failure) = conversation.ask(&network, &files).map_err(failed)? {
        return Err(failed(failure.text));
    }
    for forwarded in &forwards {
        add(&conversation, forwarded).map_err(|_| refused(&super::rule::text(&forwarded.forward)))?;
    }
    Ok(Started { opened, process, conversation: Arc::new(conversation), setup, forwards })
}

/// Opens a chardev that is described as `-chardev` was once: what connects, and `null`. One that listens would have to wait for its other end.
fn described(device: &str, port: u16) -> Result<OwnedFd, QmpError> {
    let open = || -> Result<OwnedFd, String> {
        let Short::New(backend) = short(device)? else { return Err("it has a name".to_owned()) };
        match Spec::from_value("", &backend)?.backend {
            Backend::Socket(socket) if !socket.server && socket.reconnect.is_none() => {
                let stream = connected(&socket, None)?;
                stream.as_fd().try_clone_to_owned().map_err(|error| error.to_string())
            }
            Backend::Null => File::open("/dev/null").map(OwnedFd::from).map_err(|error| error.to_string()),
            _ => Err("only what connects and null are possible here; name another by chardev:ID".to_owned()),
        }
    };
    open().map_err(|why| {
        tracing::warn!("guestfwd '{device}': {why}");
        QmpError::generic(format!("Could not open guest forwarding device 'guestfwd.tcp.{port}'"))
    })
}

/// Tells a process of a forward.
///
/// # Errors
/// Why it does not forward.
pub fn add(conversation: &Conversation, forwarded: &Forwarded) -> Result<(), String> {
    match conversation.ask(&Request::Add(forwarded.forward.clone()), &[forwarded.socket()])? {
        Answer::Failed(failure) => Err(failure.text),
        _ => Ok(()),
    }
}
