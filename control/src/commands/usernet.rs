//! Forwards of `user` netdevs: structured commands of ours, and the human monitor's lines (QEMU `net/slirp.c`).

use super::args::Args;
use super::pending::Pending;
use super::state::empty;
use super::{Outcome, State};
use crate::apply::jobs::Product;
use crate::model::{ClientId, Kind};
use crate::qmp::error::QmpError;
use crate::user::forwarded::Forwarded;
use crate::user::{Change, add, rule, table};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use usernet::protocol::{Answer, Connection, Forward, Listen, Request, Transport};

/// Longest wait for the answers of all processes.
const LIMIT: Duration = Duration::from_secs(15);

const DEAD: &str = "the process has died and is started again";

/// A question that waits for its answers.
#[derive(Debug)]
pub(super) enum Asked {
    /// A forward was to be taken away. In the human monitor, its text.
    Remove(ClientId, Listen, Option<String>),
    /// `query-netdev-user`.
    List,
    /// `info usernet`.
    Table,
}

/// A forward as it was given: in a command, or as the human monitor's text.
#[derive(Debug)]
pub(super) enum Rule {
    /// In words of ours.
    Command(String),
    /// In the user's.
    Line(String),
}

/// The answers of processes, each with its netdev.
type Answers = Vec<(ClientId, Result<Answer, String>)>;

impl State {
    /// The `user` netdev of that name, or the newest.
    fn user_netdev(&self, name: Option<&str>) -> Result<ClientId, String> {
        let Some(name) = name else {
            let first = self.users.clients().next();
            return first.ok_or_else(|| "user mode network stack not in use".to_owned());
        };
        let Some(client) = self.net.netdev(name) else {
            return Err(format!("unrecognized netdev id '{name}'"));
        };
        if client.driver() != "user" {
            return Err("invalid device specified".to_owned());
        }
        Ok(client.id)
    }

    /// `netdev-user-forward-add`.
    pub(super) fn add_forward(&mut self, args: &Map<String, Value>) -> Outcome {
        let made = self.user_netdev(args.maybe("id")).and_then(|client| {
            let listen = listen(args)?;
            let port =
                args.uint("guest-port").and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            let port = port.ok_or("'guest-port' is no port")?;
            // What listens on IPv6 leads to IPv6, unless another address is given.
            let any = match &listen {
                Listen::Inet { address: SocketAddr::V6(_), .. } => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            };
            let guest = SocketAddr::new(address(args, "guest-addr", any)?, port);
            Ok((client, Forward { listen, guest }))
        });
        match made {
            Ok((client, forward)) => {
                let text = rule::text(&forward);
                self.forward(client, forward, Rule::Command(text))
            }
            Err(why) => Err(QmpError::generic(why)).into(),
        }
    }

    /// `netdev-user-forward-remove`.
    pub(super) fn remove_forward(&mut self, args: &Map<String, Value>) -> Outcome {
        let found = self.user_netdev(args.maybe("id")).and_then(|client| {
            let listen = listen(args)?;
            let there = self.users.forwards(client).iter().any(|held| held.forward.listen == listen);
            there.then_some((client, listen)).ok_or_else(|| "there is no such forward".to_owned())
        });
        match found {
            Ok((client, listen)) => {
                self.ask(client, &Request::Remove(listen.clone()), Asked::Remove(client, listen, None))
            }
            Err(why) => Err(QmpError::generic(why)).into(),
        }
    }

    /// `query-netdev-user`.
    pub(super) fn query_users(&mut self, args: &Map<String, Value>) -> Outcome {
        let clients = match args.maybe("id").map(|name| self.user_netdev(Some(name))) {
            Some(Err(why)) => return Err(QmpError::generic(why)).into(),
            Some(Ok(client)) => vec![client],
            None => self.users.clients().collect(),
        };
        self.ask_all(clients, &Request::State, Asked::List)
    }

    /// `info usernet`.
    pub(super) fn info_usernet(&mut self) -> Outcome {
        let clients: Vec<ClientId> = self.users.clients().collect();
        if clients.is_empty() {
            return Ok(Value::String(String::new())).into();
        }
        self.ask_all(clients, &Request::State, Asked::Table)
    }

    /// `hostfwd_add`, `hostfwd_remove`: the netdev is named or not.
    pub(super) fn forward_line(&mut self, adds: bool, first: &str, second: &str) -> Outcome {
        let said = |text: String| Outcome::from(Ok(Value::String(text + "\n")));
        let (name, text) = if second.is_empty() { (None, first) } else { (Some(first), second) };
        let client = match self.user_netdev(name) {
            Ok(client) => client,
            Err(why) => return said(why),
        };
        if adds {
            let forward = match rule::host_forward(text) {
                Ok(forward) => forward,
                Err(error) => return said(error.desc),
            };
            return self.forward(client, forward, Rule::Line(text.to_owned()));
        }
        let Some(listen) = rule::listen(text) else { return said("invalid format".to_owned()) };
        if !self.users.forwards(client).iter().any(|held| held.forward.listen == listen) {
            return said(format!("host forwarding rule for {text} not found"));
        }
        let asked = Asked::Remove(client, listen.clone(), Some(text.to_owned()));
        self.ask(client, &Request::Remove(listen), asked)
    }

    /// Listens for a forward and tells its process, off this thread.
    fn forward(&mut self, client: ClientId, forward: Forward, rule: Rule) -> Outcome {
        let conversation = self.users.conversation(client);
        let job = move || {
            let made = || {
                let conversation = conversation.ok_or(DEAD)?;
                let made = Forwarded::new(forward).map_err(|errno| errno.desc().to_owned())?;
                add(&conversation, &made)?;
                Ok(made)
            };
            Product::Forwarded(made())
        };
        match self.binding.jobs.start(LIMIT, job) {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Forward(client, rule));
                Outcome::Later(ticket)
            }
            Err(error) => Err(QmpError::generic(format!("no thread to ask on: {error}"))).into(),
        }
    }

    /// A forward is there, or not.
    pub(super) fn forwarded(
        &mut self,
        client: ClientId,
        rule: &Rule,
        result: Result<Forwarded, String>,
    ) -> Result<Value, QmpError> {
        match (result, rule) {
            (Ok(forwarded), rule) => {
                self.users.changed(client, Change::Added(forwarded));
                Ok(if matches!(rule, Rule::Line(_)) { Value::String(String::new()) } else { empty() })
            }
            (Err(_), Rule::Line(text)) => Ok(Value::String(format!("{}\n", rule::refused(text).desc))),
            (Err(why), Rule::Command(text)) => {
                Err(QmpError::generic(format!("{}: {why}", rule::refused(text).desc)))
            }
        }
    }

    fn ask(&mut self, client: ClientId, request: &Request, asked: Asked) -> Outcome {
        self.ask_all(vec![client], request, asked)
    }

    /// Asks processes off this thread; the reply waits for their answers.
    fn ask_all(&mut self, clients: Vec<ClientId>, request: &Request, asked: Asked) -> Outcome {
        let all: Vec<_> =
            clients.into_iter().map(|client| (client, self.users.conversation(client))).collect();
        let request = request.clone();
        let job = move || {
            let ask = |(client, conversation): (ClientId, Option<std::sync::Arc<_>>)| {
                let none = || Err(DEAD.to_owned());
                let ask = |it: std::sync::Arc<crate::user::conversation::Conversation>| it.ask(&request, &[]);
                (client, conversation.map_or_else(none, ask))
            };
            Product::Answers(all.into_iter().map(ask).collect())
        };
        match self.binding.jobs.start(LIMIT, job) {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Asked(asked));
                Outcome::Later(ticket)
            }
            Err(error) => Err(QmpError::generic(format!("no thread to ask on: {error}"))).into(),
        }
    }

    /// The answers are there.
    pub(super) fn answered(&mut self, asked: Asked, answers: Answers) -> Result<Value, QmpError> {
        match asked {
            Asked::Remove(client, listen, text) => {
                let answer = answers.into_iter().next().map(|(_, answer)| answer);
                let why = match answer {
                    Some(Ok(Answer::Failed(failure))) => Some(failure.text),
                    Some(Ok(_)) => None,
                    Some(Err(why)) => Some(why),
                    None => Some("the netdev has gone".to_owned()),
                };
                self.forward_removed(client, listen, text, why.as_deref())
            }
            Asked::List => Ok(answers
                .into_iter()
                .filter_map(|(client, answer)| self.describe_user(client, answer))
                .collect()),
            Asked::Table => {
                let mut out = String::new();
                for (client, answer) in answers {
                    let Some(client) = self.net.client(client) else { continue };
                    let hub = client.peer.and_then(|peer| self.hub_of(peer)).unwrap_or(-1);
                    let _ =
                        write!(out, "Hub {hub} ({}):\n{}", client.name, table::connections(&told(answer)));
                }
                Ok(Value::String(out))
            }
        }
    }

    /// `why` it could not be done, if it could not.
    fn forward_removed(
        &mut self,
        client: ClientId,
        listen: Listen,
        text: Option<String>,
        why: Option<&str>,
    ) -> Result<Value, QmpError> {
        let reply = match (text, why) {
            (Some(text), why) => {
                let what = if why.is_none() { "removed" } else { "not found" };
                Ok(Value::String(format!("host forwarding rule for {text} {what}\n")))
            }
            (None, None) => Ok(empty()),
            (None, Some(why)) => {
                Err(QmpError::generic(format!("Could not remove host forwarding rule: {why}")))
            }
        };
        if why.is_none() {
            self.users.changed(client, Change::Removed(listen));
        }
        reply
    }

    /// The number of the hub that a port is of.
    fn hub_of(&self, port: ClientId) -> Option<i32> {
        match self.net.client(port)?.kind {
            Kind::HubPort { hub } => Some(hub),
            _ => None,
        }
    }

    fn describe_user(&self, client: ClientId, answer: Result<Answer, String>) -> Option<Value> {
        let name = self.net.client(client)?.name.clone();
        let forwards: Vec<Value> =
            self.users.forwards(client).iter().map(|held| describe_forward(&held.forward)).collect();
        let drops = match &answer {
            Ok(Answer::State { drops, .. }) => Some(json!(drops)),
            _ => None,
        };
        let connections: Vec<Value> = told(answer).iter().map(describe_connection).collect();
        let mut entry = Map::new();
        entry.insert("id".into(), name.into());
        if let Some(pid) = self.users.pid(client) {
            entry.insert("pid".into(), pid.into());
        }
        entry.insert("forwards".into(), forwards.into());
        entry.insert("connections".into(), connections.into());
        entry.extend(drops.map(|drops| ("drops".to_owned(), drops)));
        Some(Value::Object(entry))
    }
}

fn told(answer: Result<Answer, String>) -> Vec<Connection> {
    match answer {
        Ok(Answer::State { connections, .. }) => connections,
        _ => Vec::new(),
    }
}

fn describe_forward(forward: &Forward) -> Value {
    let mut entry = Map::new();
    match &forward.listen {
        Listen::Inet { transport, address } => {
            entry.insert("protocol".into(), transport_name(*transport).into());
            entry.insert("host-addr".into(), address.ip().to_string().into());
            entry.insert("host-port".into(), address.port().into());
        }
        Listen::Unix { path } => {
            entry.insert("protocol".into(), "tcp".into());
            entry.insert("host-path".into(), path.to_string_lossy().into());
        }
    }
    entry.insert("guest-addr".into(), forward.guest.ip().to_string().into());
    entry.insert("guest-port".into(), forward.guest.port().into());
    Value::Object(entry)
}

fn describe_connection(connection: &Connection) -> Value {
    let place = |(address, port): (Option<IpAddr>, u16)| match address {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None => format!("*:{port}"),
    };
    json!({
        "protocol": connection.protocol,
        "source": place(connection.source),
        "destination": place(connection.destination),
        "to-host": connection.queued[0],
        "to-guest": connection.queued[1],
    })
}

const fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

fn address(args: &Map<String, Value>, name: &str, any: IpAddr) -> Result<IpAddr, String> {
    args.maybe(name).map_or(Ok(any), |text| text.parse().map_err(|_| format!("'{name}' is no address")))
}

/// Where a forward listens.
fn listen(args: &Map<String, Value>) -> Result<Listen, String> {
    let transport = if args.text("protocol") == "udp" { Transport::Udp } else { Transport::Tcp };
    match (args.maybe("host-path"), args.uint("host-port")) {
        (Some(_), _) if args.maybe("host-addr").is_some() || args.uint("host-port").is_some() => {
            Err("'host-path' goes without 'host-addr' and 'host-port'".to_owned())
        }
        (Some(_), _) if transport == Transport::Udp => Err("'host-path' is for tcp".to_owned()),
        (Some(path), _) => {
            rule::check_path(path).map_err(|why| format!("'host-path': {why}"))?;
            Ok(Listen::Unix { path: path.into() })
        }
        (None, Some(port)) => {
            let port = u16::try_from(port).map_err(|_| "'host-port' is no port".to_owned())?;
            let address = address(args, "host-addr", IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
            Ok(Listen::Inet { transport, address: SocketAddr::new(address, port) })
        }
        (None, None) => Err("'host-port' or 'host-path' is needed".to_owned()),
    }
}
