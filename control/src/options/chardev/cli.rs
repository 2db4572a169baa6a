//! `-chardev socket,id=c,path=/x,server=on,wait=off` and the old `-qmp unix:/x,server=on` (QEMU `chardev/char.c`,
//! `chardev/char-socket.c`).

use super::{Backend, Chardev, NullOptions, SocketOptions, StdioOptions};
use crate::options::address::{FdAddress, InetAddress, SocketAddress, UnixAddress};
use crate::options::opts::Opts;
use crate::qmp::QmpError;
use crate::schema::{boolean, unsigned};

/// Options that QEMU knows for chardevs of any kind; those that a kind does not use are taken and ignored.
const BOOLS: [&str; 17] = [
    "append",
    "clipboard",
    "delay",
    "ipv4",
    "ipv6",
    "logappend",
    "mouse",
    "mux",
    "nodelay",
    "server",
    "signal",
    "telnet",
    "tight",
    "tn3270",
    "wait",
    "websocket",
    "abstract",
];
const NUMBERS: [&str; 9] =
    ["cols", "debug", "height", "reconnect", "reconnect-ms", "rows", "size", "to", "width"];
const STRINGS: [&str; 17] = [
    "backend",
    "chardev",
    "chardevs.0",
    "chardevs.1",
    "chardevs.2",
    "chardevs.3",
    "fd",
    "host",
    "id",
    "input-path",
    "localaddr",
    "localport",
    "logfile",
    "name",
    "path",
    "port",
    "tls-creds",
];

/// Reads `-chardev`.
///
/// # Errors
/// As QEMU words them.
pub fn from_cli(text: &str) -> Result<Chardev, QmpError> {
    if text.starts_with('{') {
        let args = crate::options::json::object(text)?;
        crate::schema::Schema::get().check_type("chardev-add-members", &args.clone().into())?;
        return Chardev::decode(args);
    }
    let opts = Opts::parse(text, "backend")?;
    let id = opts.id().map(str::to_owned);
    check(&opts)?;
    let id = id.ok_or_else(|| QmpError::generic("chardev: no id specified"))?;
    let missing = || QmpError::generic(format!("chardev: \"{id}\" missing backend"));
    let kind = opts.get("backend").ok_or_else(missing)?;
    let backend = backend(kind, &opts)?;
    Ok(Chardev { id, backend })
}

/// Reads the old form of a chardev, `unix:PATH,...`, `tcp:HOST:PORT,...`, `stdio` or `null`, to be named `label`.
///
/// # Errors
/// As QEMU words them.
pub fn from_compat(text: &str, label: &str) -> Result<Chardev, QmpError> {
    let mut opts;
    let kind;
    if let Some(path) = text.strip_prefix("unix:") {
        opts = Opts::parse(path, "path")?;
        kind = "socket";
    } else if let Some((protocol, rest)) = protocol(text) {
        let (place, more) = rest.split_once(',').unwrap_or((rest, ""));
        let failed = || QmpError::generic(format!("parse error: {text}"));
        let (host, port) = place.split_once(':').filter(|(_, port)| !port.is_empty()).ok_or_else(failed)?;
        opts = Opts::parse(more, "")?;
        opts.pairs.insert(0, ("host".to_owned(), host.to_owned()));
        opts.pairs.insert(1, ("port".to_owned(), port.to_owned()));
        if protocol != "tcp" {
            opts.pairs.push((protocol.to_owned(), "on".to_owned()));
        }
        kind = "socket";
    } else {
        opts = Opts::default();
        kind = text;
        if !matches!(kind, "null" | "stdio") {
            return Err(QmpError::generic(format!("'{kind}' is not a valid char driver")));
        }
    }
    check(&opts)?;
    Ok(Chardev { id: label.to_owned(), backend: backend(kind, &opts)? })
}

fn protocol(text: &str) -> Option<(&'static str, &str)> {
    ["tcp", "telnet", "tn3270", "websocket"]
        .into_iter()
        .find_map(|p| Some((p, text.strip_prefix(p)?.strip_prefix(':')?)))
}

/// Names and scalar types, in the order given.
fn check(opts: &Opts) -> Result<(), QmpError> {
    for (name, value) in &opts.pairs {
        let name = name.as_str();
        if BOOLS.contains(&name) {
            boolean(value)
                .map(|_| ())
                .ok_or_else(|| QmpError::generic(format!("Parameter '{name}' expects 'on' or 'off'")))?;
        } else if NUMBERS.contains(&name) {
            unsigned(value)
                .map(|_| ())
                .ok_or_else(|| QmpError::generic(format!("Parameter '{name}' expects a number")))?;
        } else if !STRINGS.contains(&name) && name != "tls-authz" {
            return Err(QmpError::generic(format!("Invalid parameter '{name}'")));
        }
    }
    Ok(())
}

fn flag(opts: &Opts, name: &str) -> Option<bool> {
    opts.get(name).and_then(boolean)
}

fn text(opts: &Opts, name: &str) -> Option<String> {
    opts.get(name).map(str::to_owned)
}

fn number(opts: &Opts, name: &str) -> Option<i64> {
    opts.get(name).and_then(unsigned).map(u64::cast_signed)
}

fn backend(kind: &str, opts: &Opts) -> Result<Backend, QmpError> {
    let (logfile, logappend) = (text(opts, "logfile"), flag(opts, "logappend"));
    match kind {
        "null" => Ok(Backend::Null(NullOptions { logfile, logappend })),
        "stdio" => Ok(Backend::Stdio(StdioOptions { logfile, logappend, signal: flag(opts, "signal") })),
        "socket" => socket(opts).map(Backend::Socket),
        _ => Err(QmpError::generic(format!("'{kind}' is not a valid char driver name"))),
    }
}

fn socket(opts: &Opts) -> Result<SocketOptions, QmpError> {
    let addr = address(opts)?;
    // Unlike `chardev-add`, a command line means a client unless it says otherwise, and a server that waits.
    let server = flag(opts, "server").unwrap_or(false);
    let wait = flag(opts, "wait").or(server.then_some(true));
    Ok(SocketOptions {
        logfile: text(opts, "logfile"),
        logappend: flag(opts, "logappend"),
        addr,
        tls_creds: text(opts, "tls-creds"),
        tls_authz: text(opts, "tls-authz"),
        server: Some(server),
        wait,
        nodelay: Some(
            flag(opts, "nodelay").unwrap_or_else(|| flag(opts, "delay").is_some_and(|delay| !delay)),
        ),
        telnet: flag(opts, "telnet"),
        tn3270: flag(opts, "tn3270"),
        websocket: flag(opts, "websocket"),
        reconnect: number(opts, "reconnect"),
        reconnect_ms: number(opts, "reconnect-ms"),
    })
}

fn address(opts: &Opts) -> Result<SocketAddress, QmpError> {
    let (path, fd, host) = (text(opts, "path"), text(opts, "fd"), text(opts, "host"));
    let given = [&path, &fd, &host].into_iter().filter(|o| o.is_some()).count();
    if given > 1 {
        return Err(QmpError::generic("None or one of 'path', 'fd' or 'host' option required."));
    }
    if let Some(path) = path {
        let (r#abstract, tight) = (flag(opts, "abstract"), flag(opts, "tight"));
        return Ok(SocketAddress::Unix(UnixAddress { path, r#abstract, tight }));
    }
    if let Some(host) = host {
        let port = text(opts, "port").ok_or_else(|| QmpError::generic("chardev: socket: no port given"))?;
        return Ok(SocketAddress::Inet(InetAddress {
            host,
            port,
            to: opts.get("to").and_then(unsigned).and_then(|to| u16::try_from(to).ok()),
            ipv4: flag(opts, "ipv4"),
            ipv6: flag(opts, "ipv6"),
            ..InetAddress::default()
        }));
    }
    // Without any of them QEMU goes on to an empty descriptor, and fails there.
    Ok(SocketAddress::Fd(FdAddress {
        str: fd.ok_or_else(|| QmpError::generic("Unable to parse FD number "))?,
    }))
}
