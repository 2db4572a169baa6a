//! Queries about the daemon itself, and `query-rx-filter`.

use super::State;
use super::args::Args;
use crate::qmp::error::QmpError;
use serde_json::{Map, Value, json};

/// The version that `query-version` and the greeting tell: the QEMU release whose protocol this is, and ours.
#[must_use]
pub fn version() -> Value {
    json!({
        "qemu": {"micro": 2, "minor": 0, "major": 10},
        "package": concat!("netdevd ", env!("CARGO_PKG_VERSION")),
    })
}

impl State {
    /// No nic reports a receive filter yet: the list is empty, and every name is refused as QEMU refuses it.
    pub(super) fn query_rx_filter(&self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let Some(name) = args.maybe("name") else { return Ok(json!([])) };
        match self.net.named(name).next() {
            None => Err(QmpError::generic(format!("invalid net client name: {name}"))),
            Some(client) if !client.is_nic() => {
                Err(QmpError::generic(format!("net client({name}) isn't a NIC")))
            }
            Some(_) => {
                Err(QmpError::generic(format!("net client({name}) doesn't support rx-filter querying")))
            }
        }
    }
}
