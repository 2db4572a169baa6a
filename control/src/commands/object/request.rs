//! The properties of each kind of filter: what the engine needs of them, and what is reported back.

use crate::apply::FilterKind;
use crate::commands::args::Args;
use serde_json::{Map, Value, json};

/// Bytes that filter-dump keeps of each frame by default.
pub(in crate::commands) const MAXLEN: u32 = 65536;

/// Reads arguments that have been checked: the kind's name, what is asked of the engine, and the kind's own properties in QEMU's order. Nothing for
/// a kind that this program does not have.
pub(super) fn read(
    driver: &str,
    args: &Map<String, Value>,
) -> Option<(&'static str, FilterKind, Map<String, Value>)> {
    match driver {
        "filter-dump" => Some(dump(args)),
        "filter-replay" => Some(("filter-replay", FilterKind::Replay, Map::new())),
        _ => None,
    }
}

fn dump(args: &Map<String, Value>) -> (&'static str, FilterKind, Map<String, Value>) {
    let maxlen = args.uint("maxlen").and_then(|n| u32::try_from(n).ok()).unwrap_or(MAXLEN);
    let file = args.text("file").to_owned();
    let mut own = Map::from_iter([("maxlen".into(), json!(maxlen)), ("file".into(), json!(file))]);
    let filter = args.maybe("filter");
    if let Some(filter) = filter {
        own.insert("filter".into(), json!(filter));
    }
    let filter = filter.unwrap_or_default().to_owned();
    ("filter-dump", FilterKind::Dump { file, maxlen, filter }, own)
}
