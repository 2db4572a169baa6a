//! What the user asked for, before anything is opened.

use super::address::Address;
use serde_json::Value;
use std::time::Duration;

/// A chardev to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name; any text, as in QEMU.
    pub id: String,
    /// Its type and options.
    pub backend: Backend,
}

/// A chardev's type and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Takes everything, gives nothing.
    Null,
    /// Standard input and output.
    Stdio,
    /// A socket.
    Socket(SocketSpec),
}

/// Options of a socket chardev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSpec {
    /// Where.
    pub address: Address,
    /// Listens rather than connects.
    pub server: bool,
    /// `TCP_NODELAY` on connections.
    pub nodelay: bool,
    /// Connects in the background, and again after this time whenever the other end is gone.
    pub reconnect: Option<Duration>,
}

impl Spec {
    /// From the arguments of `chardev-add`, which the schema has checked.
    ///
    /// # Errors
    /// What is not supported, or contradicts itself, in QEMU's words where it has them.
    pub fn from_value(id: &str, backend: &Value) -> Result<Self, String> {
        let kind = backend["type"].as_str().unwrap_or_default();
        let data = &backend["data"];
        if data.get("logfile").is_some() {
            return Err("'logfile' is not supported by netdevd: chardevs keep no log".to_owned());
        }
        let backend = match kind {
            "null" => Backend::Null,
            "stdio" => Backend::Stdio,
            "socket" => Backend::Socket(SocketSpec::from_value(data)?),
            other => return Err(format!("'{other}' is not a valid char driver name")),
        };
        Ok(Self { id: id.to_owned(), backend })
    }
}

impl SocketSpec {
    fn from_value(data: &Value) -> Result<Self, String> {
        let flag = |name: &str| data[name].as_bool().unwrap_or(false);
        let server = data["server"].as_bool().unwrap_or(true);
        if data.get("reconnect").is_some() && data.get("reconnect-ms").is_some() {
            return Err("'reconnect' and 'reconnect-ms' are mutually exclusive".to_owned());
        }
        // The order of these is QEMU's.
        if data.get("tls-creds").is_some() {
            return Err("'tls-creds' is not supported by netdevd: use a unix socket, or a tunnel".to_owned());
        }
        if data.get("tls-authz").is_some() {
            return Err("'tls_authz' option requires 'tls_creds' option".to_owned());
        }
        if !server && flag("websocket") {
            return Err("Websocket client is not implemented".to_owned());
        }
        if !server && data.get("wait").is_some() {
            return Err("'wait' option is incompatible with socket in client connect mode".to_owned());
        }
        for protocol in ["telnet", "tn3270", "websocket"] {
            if flag(protocol) {
                return Err(format!("'{protocol}' is not supported by netdevd: chardevs carry plain bytes"));
            }
        }
        let address = Address::from_value(&data["addr"]);
        match &address {
            Address::Other(kind) => {
                return Err(format!("'{kind}' addresses are not supported by netdevd: use inet, unix or fd"));
            }
            Address::Inet(inet) if inet.mptcp => {
                return Err("'mptcp' is not supported by netdevd".to_owned());
            }
            _ => {}
        }
        let millis = match (data["reconnect"].as_i64(), data["reconnect-ms"].as_i64()) {
            (Some(seconds), _) => seconds.saturating_mul(1000),
            (None, millis) => millis.unwrap_or(0),
        };
        let millis = u64::try_from(millis).unwrap_or(0);
        // A server has nothing to connect to; QEMU takes the option there and does nothing with it.
        let reconnect = (millis > 0 && !server).then(|| Duration::from_millis(millis));
        Ok(Self { address, server, nodelay: flag("nodelay"), reconnect })
    }
}
