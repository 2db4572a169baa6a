//! Queries about the daemon itself.

use serde_json::{Value, json};

/// The version that `query-version` and the greeting tell: the QEMU release whose protocol this is, and ours.
#[must_use]
pub fn version() -> Value {
    json!({
        "qemu": {"micro": 2, "minor": 0, "major": 10},
        "package": concat!("netdevd ", env!("CARGO_PKG_VERSION")),
    })
}
