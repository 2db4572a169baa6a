//! Starting a process and telling it its network: a job's work, again whenever it died.

use super::conversation::Conversation;
use super::network::Wanted;
use super::rule::{GuestTarget, make_way, refused};
use super::service::{CommandServer, Private, check_smb, smb};
use crate::apply::{Backends, Launched, Opened};
use crate::qmp::error::QmpError;
use engine::backend::user::Process;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use usernet::protocol::{Answer, Failure, Forward, Network, Request, Server, Service};

/// What every start of a netdev's process has in common.
#[derive(Debug)]
pub struct Setup {
    /// The netdev's name.
    pub name: String,
    network: Network,
    /// The sockets behind which commands run; they outlive the process.
    _servers: Vec<CommandServer>,
    /// Streams of chardevs, in the order of the services that name them.
    streams: Vec<OwnedFd>,
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
    pub forwards: Vec<Forward>,
}

impl Setup {
    /// Prepares the services. `streams` are those of the chardevs that rules name, in the order of the rules.
    ///
    /// # Errors
    /// QEMU's words; nothing is left behind.
    pub fn new(name: &str, wanted: Wanted, streams: Vec<OwnedFd>) -> Result<Self, QmpError> {
        let Wanted { mut network, guest_forwards, smb: share, .. } = wanted;
        let mut commands = Vec::new();
        for forward in guest_forwards {
            let address = forward.server.unwrap_or(Ipv4Addr::UNSPECIFIED);
            match forward.to {
                GuestTarget::Command(line) => commands.push((address, forward.port, line)),
                GuestTarget::Device(_) => {
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
            commands.extend([139, 445].map(|port| (*address, port, line.clone())));
        }
        let mut servers = Vec::new();
        for (address, port, line) in commands {
            let Some(private) = &private else { continue };
            let path = private.path().join(format!("{address}.{port}"));
            let server = CommandServer::new(name, path.clone(), &line)
                .map_err(|error| QmpError::generic(format!("user: no socket for '{line}': {error}")))?;
            servers.push(server);
            network.services.push(Service { address, port, to: Server::Unix { path } });
        }
        Ok(Self { name: name.to_owned(), network, _servers: servers, streams, _private: private })
    }

    /// What is forwarded at first.
    #[must_use]
    pub fn forwards(&self) -> &[Forward] {
        &self.network.forwards
    }
}

/// Starts a process with these forwards; `rules` are their texts, for messages.
///
/// # Errors
/// QEMU's words for a forward, else what failed; nothing is left behind.
pub fn start(
    backends: &dyn Backends,
    setup: Arc<Setup>,
    forwards: Vec<Forward>,
    rules: &[String],
) -> Result<Started, QmpError> {
    let Launched { opened, process, control } = backends.open_user()?;
    let failed = |what: String| QmpError::generic(format!("user: {what}"));
    let conversation = Conversation::new(&setup.name, control).map_err(|error| failed(error.to_string()))?;
    forwards.iter().for_each(make_way);
    let network = Network { forwards: forwards.clone(), ..setup.network.clone() };
    let streams: Vec<_> = setup.streams.iter().map(AsRawFd::as_raw_fd).collect();
    match conversation.ask(&Request::Start(Box::new(network)), &streams).map_err(failed)? {
        Answer::Failed(failure) => Err(why(&failure, &forwards, rules)),
        _ => Ok(Started { opened, process, conversation: Arc::new(conversation), setup, forwards }),
    }
}

/// The text for a start that failed: of a forward, if that was it.
fn why(failure: &Failure, forwards: &[Forward], rules: &[String]) -> QmpError {
    // The only one is it, where an error of the system's is told.
    let only = || (forwards.len() == 1 && failure.errno.is_some()).then_some(0);
    let at = failure.forward.or_else(only);
    match (at.and_then(|at| rules.get(at)), at.and_then(|at| forwards.get(at))) {
        (Some(rule), _) => refused(rule),
        (None, Some(forward)) => refused(&super::rule::text(forward)),
        (None, None) => QmpError::generic(format!("user: {}", failure.text)),
    }
}
