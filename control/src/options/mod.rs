//! Options: the command line's forms of them, and the typed structs that checked options become.
//!
//! ```text
//! -netdev tap,id=t0,ifname=x   -> opts or keyval -> checked and typed JSON (as over QMP) -> netdev::Netdev
//! netdev_add {"type":"tap"...} -------------------> checked JSON ---------------------^
//! ```

pub mod address;
pub mod chardev;
mod cli;
pub mod device;
pub mod id;
mod json;
pub mod keyval;
pub mod monitor;
pub mod netdev;
pub mod object;
pub mod opts;
#[cfg(test)]
mod tests;
mod wrap;

pub use cli::{arguments, from_cli, help};

use crate::qmp::error::QmpError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A string wrapped in an object, as lists of options carry it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The string.
    pub str: String,
}

/// Checked arguments to a typed struct.
fn decode<T: DeserializeOwned>(args: Map<String, Value>) -> Result<T, QmpError> {
    // Cannot happen for checked arguments; tests decode every member of every type.
    serde_json::from_value(Value::Object(args))
        .map_err(|e| QmpError::generic(format!("Invalid arguments: {e}")))
}
