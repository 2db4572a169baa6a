//! The order in which QEMU walks the members of an object.
//!
//! QEMU keeps members in a hash table of 512 buckets and walks it bucket by bucket, the newest
//! first within one (`qobject/qdict.c`). Clients must not rely on it, but it decides which of two
//! errors is told and how a reply prints, so replies are compared byte for byte with QEMU's.

use serde_json::{Map, Value};

/// The members of `map` in QEMU's order.
#[must_use]
pub fn members(map: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut members: Vec<_> = map.iter().rev().map(|(key, value)| (key.as_str(), value)).collect();
    // Stable: within a bucket the newest stays first.
    members.sort_by_cached_key(|(key, _)| bucket(key));
    members
}

/// The bucket of a key: the hash of Samba's tdb over its bytes, modulo 512.
fn bucket(key: &str) -> u32 {
    let seed = 0x238F_13AF_u32.wrapping_mul(key.len() as u32);
    let sum = key
        .bytes()
        .zip((0..).step_by(5))
        .fold(seed, |sum, (byte, shift): (u8, u32)| sum.wrapping_add(u32::from(byte) << (shift % 24)));
    sum.wrapping_mul(1_103_515_243).wrapping_add(12_345) % 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_come_in_the_order_that_qemu_prints() {
        // As in QEMU's greeting, events and error replies.
        for (value, order) in [
            (json!({"major": 10, "minor": 0, "micro": 2}), vec!["micro", "minor", "major"]),
            (json!({"event": "E", "data": {}, "timestamp": {}}), vec!["timestamp", "event", "data"]),
            (json!({"error": {}, "id": 1}), vec!["id", "error"]),
            (json!({"id": 1, "return": {}}), vec!["return", "id"]),
            (json!({"execute": 1, "exec-oob": 2}), vec!["exec-oob", "execute"]),
        ] {
            let map = value.as_object().unwrap();
            let keys: Vec<_> = members(map).into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, order);
        }
    }
}
