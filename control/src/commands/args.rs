//! Reading arguments whose types the schema has checked.

use serde_json::{Map, Value};

/// The arguments of a command.
pub(super) trait Args {
    /// A string; empty if it is missing, which the schema excludes for mandatory ones.
    fn text(&self, name: &str) -> &str;
    /// An optional string.
    fn maybe(&self, name: &str) -> Option<&str>;
    /// An optional boolean.
    fn flag(&self, name: &str) -> Option<bool>;
    /// An optional signed integer.
    fn int(&self, name: &str) -> Option<i64>;
    /// An optional unsigned integer.
    fn uint(&self, name: &str) -> Option<u64>;
}

impl Args for Map<String, Value> {
    fn text(&self, name: &str) -> &str {
        self.maybe(name).unwrap_or_default()
    }

    fn maybe(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_i64()
    }

    fn uint(&self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        // A negative number stands for the unsigned one of the same bits, as in QEMU.
        value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned))
    }
}
