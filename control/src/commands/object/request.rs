//! The properties of each kind of filter: what the engine needs of them, and what is reported back.

use crate::apply::FilterKind;
use crate::commands::args::Args;
use engine::filter::limit::{Limits, QUEUE_LIMIT};
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
        "filter-replay" => Some(replay(args)),
        "filter-buffer" => Some(buffer(args)),
        "filter-limit" => Some(limit(args)),
        "filter-rewriter" => {
            // Frames here always have their header; the property is only reported.
            let vnet = args.flag("vnet_hdr_support").unwrap_or(false);
            let own = Map::from_iter([("vnet_hdr_support".into(), json!(vnet))]);
            Some(("filter-rewriter", FilterKind::Rewriter, own))
        }
        _ => None,
    }
}

fn buffer(args: &Map<String, Value>) -> (&'static str, FilterKind, Map<String, Value>) {
    let interval = args.uint("interval").and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
    let own = Map::from_iter([("interval".into(), json!(interval))]);
    ("filter-buffer", FilterKind::Buffer { interval }, own)
}

fn limit(args: &Map<String, Value>) -> (&'static str, FilterKind, Map<String, Value>) {
    let number = |name: &str, default| args.uint(name).unwrap_or(default);
    let limits = Limits {
        bps: number("bps", 0),
        fps: number("fps", 0),
        bps_burst: number("bps-burst", 0),
        fps_burst: number("fps-burst", 0),
        queue: number("queue-limit", QUEUE_LIMIT),
    };
    let own = [
        ("bps", limits.bps),
        ("fps", limits.fps),
        ("bps-burst", limits.bps_burst),
        ("fps-burst", limits.fps_burst),
        ("queue-limit", limits.queue),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    ("filter-limit", FilterKind::Limit(limits), own)
}

fn replay(args: &Map<String, Value>) -> (&'static str, FilterKind, Map<String, Value>) {
    let Some(file) = args.maybe("file") else {
        return ("filter-replay", FilterKind::Nothing, Map::new());
    };
    let paced = args.flag("pace").unwrap_or(true);
    let own = Map::from_iter([("file".into(), json!(file)), ("pace".into(), json!(paced))]);
    ("filter-replay", FilterKind::Replay { file: file.to_owned(), paced }, own)
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
