//! Typed options of objects, as `object-add` takes them.

use super::wrap;
use crate::qmp::error::QmpError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An object: its id, and the properties of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its name.
    pub id: String,
    /// Its kind and properties.
    #[serde(flatten)]
    pub kind: Kind,
}

/// Properties by kind of object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "qom-type", rename_all = "kebab-case")]
pub enum Kind {
    /// Compares the frames of two machines.
    ColoCompare(ColoCompareOptions),
    /// Holds frames.
    FilterBuffer(FilterBufferOptions),
    /// Captures frames.
    FilterDump(FilterDumpOptions),
    /// Drops, passes or captures frames by an expression.
    FilterMatch(FilterMatchOptions),
    /// Lets frames pass at a rate.
    FilterLimit(FilterLimitOptions),
    /// Copies frames to a chardev.
    FilterMirror(FilterMirrorOptions),
    /// Takes frames to a chardev and from one.
    FilterRedirector(FilterRedirectorOptions),
    /// Passes frames, and puts those of a file in.
    FilterReplay(FilterReplayOptions),
    /// Rewrites TCP sequence numbers.
    FilterRewriter(FilterRewriterOptions),
    /// A thread by name.
    Iothread(IothreadOptions),
}

impl Object {
    /// From arguments that were checked as `object-add` arguments.
    ///
    /// # Errors
    /// None for such arguments; anything else is said by a `GenericError`.
    pub fn decode(args: Map<String, Value>) -> Result<Self, QmpError> {
        super::decode(args)
    }
}

impl Kind {
    /// The options that all filters have; none for objects that are no filters.
    #[must_use]
    pub const fn filter(&self) -> Option<&FilterOptions> {
        match self {
            Self::ColoCompare(_) | Self::Iothread(_) => None,
            Self::FilterBuffer(f) => Some(&f.common),
            Self::FilterDump(f) => Some(&f.common),
            Self::FilterMatch(f) => Some(&f.common),
            Self::FilterLimit(f) => Some(&f.common),
            Self::FilterMirror(f) => Some(&f.common),
            Self::FilterRedirector(f) => Some(&f.common),
            Self::FilterReplay(f) => Some(&f.common),
            Self::FilterRewriter(f) => Some(&f.common),
        }
    }
}

/// Which frames of a netdev a filter sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both directions.
    #[default]
    All,
    /// Frames sent to the netdev.
    Rx,
    /// Frames that the netdev sends.
    Tx,
}

/// On which side of another filter a filter is put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Insert {
    /// Nearer to the head.
    Before,
    /// Nearer to the tail.
    #[default]
    Behind,
}

/// Where a filter sits and what it sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterOptions {
    /// The netdev whose frames pass.
    pub netdev: String,
    /// Which of them. Default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Direction>,
    /// `off` lets frames pass by. Default on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `head`, `tail`, or `id=ID` for a place beside another filter. Default tail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Which side of that filter. Default behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insert: Option<Insert>,
}

/// Holds frames and lets them go together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterBufferOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// Microseconds between releases; above 0.
    pub interval: u32,
}

/// Writes a copy of each frame to a pcap file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterDumpOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// The file; what was in it is lost.
    pub file: String,
    /// Bytes kept of each frame; above 0. Default 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maxlen: Option<u32>,
    /// Only frames that match this pcap filter expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// What becomes of frames at a `filter-match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchAction {
    /// Frames that match are dropped.
    Drop,
    /// Frames that do not match are dropped.
    Pass,
    /// Frames that match are written to a file.
    Dump,
}

/// Drops, passes or captures frames by a pcap filter expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterMatchOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// The expression.
    #[serde(rename = "match")]
    pub expression: String,
    /// What becomes of frames.
    pub action: MatchAction,
    /// The pcap file of `action=dump`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Bytes kept of each frame in the file; above 0. Default 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maxlen: Option<u32>,
}

/// Lets frames pass at a rate; 0 is no limit, and no burst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FilterLimitOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// Bytes a second. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps: Option<u64>,
    /// Frames a second. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<u64>,
    /// Bytes that may pass at once after a pause. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bps_burst: Option<u64>,
    /// Frames that may pass at once after a pause. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps_burst: Option<u64>,
    /// Frames of a direction that each worker holds. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_limit: Option<u64>,
}

/// Sends a copy of each frame to a chardev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterMirrorOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// The chardev.
    pub outdev: String,
    /// Send each frame's virtio-net header length too. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnet_hdr_support: Option<bool>,
}

/// Takes frames away to a chardev, and puts frames from a chardev in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRedirectorOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// Chardev whose frames are put in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indev: Option<String>,
    /// Chardev that frames go to instead of on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outdev: Option<String>,
    /// Frames on the chardevs carry their virtio-net header length. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnet_hdr_support: Option<bool>,
}

/// Adjusts TCP sequence numbers on the secondary side of COLO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRewriterOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// Frames carry a virtio-net header. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnet_hdr_support: Option<bool>,
}

/// Lets all frames pass, and puts those of a file in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterReplayOptions {
    /// Where the filter sits and what it sees.
    #[serde(flatten)]
    pub common: FilterOptions,
    /// The pcap file whose frames are put in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// They keep the distances in which they were recorded. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<bool>,
}

/// Compares the frames of two machines that run the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColoCompareOptions {
    /// Chardev with the primary's frames.
    pub primary_in: String,
    /// Chardev with the secondary's frames.
    pub secondary_in: String,
    /// Chardev for frames released.
    pub outdev: String,
    /// Thread that compares.
    pub iothread: String,
    /// Chardev that is told of differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_dev: Option<String>,
    /// Milliseconds a frame waits for its twin. Default 3000.
    #[serde(default, deserialize_with = "wrap::optional", skip_serializing_if = "Option::is_none")]
    pub compare_timeout: Option<u64>,
    /// Milliseconds between looks for frames that waited too long. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired_scan_cycle: Option<u32>,
    /// Frames kept of each side. Default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_size: Option<u32>,
    /// Frames carry their virtio-net header length. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnet_hdr_support: Option<bool>,
}

/// A thread by name, with what QEMU lets one set of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IothreadOptions {
    /// Requests of a batch. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aio_max_batch: Option<i64>,
    /// Threads kept. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_pool_min: Option<i64>,
    /// Threads at most. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_pool_max: Option<i64>,
    /// Nanoseconds of polling. Default 32768.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_max_ns: Option<i64>,
    /// How that grows. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_grow: Option<i64>,
    /// How that shrinks. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll_shrink: Option<i64>,
}
