//! Unsigned 64-bit members: a negative number counts down from 2^64, as QEMU reads it.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Number;

/// A member that may be absent.
pub(super) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let number = Number::deserialize(from)?;
    let wrapped = number.as_u64().or_else(|| number.as_i64().map(i64::cast_unsigned));
    wrapped.map(Some).ok_or_else(|| D::Error::custom("no integer"))
}
