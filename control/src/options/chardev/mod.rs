//! Typed options of chardevs, as `chardev-add` takes them, and the command line's forms of them.

mod cli;
mod validate;

pub use cli::{from_cli, from_compat};

use super::address::{Legacy, SocketAddress};
use crate::qmp::error::QmpError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A chardev: its id, and the options of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chardev {
    /// Its name; `chardev-add` takes any string.
    pub id: String,
    /// Its kind and options.
    pub backend: Backend,
}

/// Options by kind of chardev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
pub enum Backend {
    /// A stream socket.
    Socket(SocketOptions),
    /// Swallows everything.
    Null(NullOptions),
    /// Standard input and output.
    Stdio(StdioOptions),
}

impl Chardev {
    /// From arguments that were checked as `chardev-add` arguments.
    ///
    /// # Errors
    /// None for such arguments; anything else is said by a `GenericError`.
    pub fn decode(args: Map<String, Value>) -> Result<Self, QmpError> {
        super::decode(args)
    }
}

/// A stream socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SocketOptions {
    /// File that all output is copied to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logfile: Option<String>,
    /// Append to that file. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logappend: Option<bool>,
    /// Where to listen or connect.
    #[serde(with = "Legacy")]
    pub addr: SocketAddress,
    /// TLS credentials object; not supported here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_creds: Option<String>,
    /// TLS authorisation object; not supported here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_authz: Option<String>,
    /// Listen instead of connecting. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<bool>,
    /// Wait for the first client before going on; server only. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Send small packets at once (TCP_NODELAY). Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodelay: Option<bool>,
    /// Telnet protocol on top; not supported here. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telnet: Option<bool>,
    /// tn3270 protocol on top; not supported here. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tn3270: Option<bool>,
    /// Websocket protocol on top; not supported here. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<bool>,
    /// Seconds between attempts after a lost connection; client only. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<i64>,
    /// Milliseconds between attempts after a lost connection; client only. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect_ms: Option<i64>,
}

/// A chardev that swallows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NullOptions {
    /// File that all output is copied to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logfile: Option<String>,
    /// Append to that file. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logappend: Option<bool>,
}

/// Standard input and output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdioOptions {
    /// File that all output is copied to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logfile: Option<String>,
    /// Append to that file. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logappend: Option<bool>,
    /// Ctrl-C is a signal instead of a byte. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<bool>,
}
