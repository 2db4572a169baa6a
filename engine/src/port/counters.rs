//! Counters and drop reasons: plain words of one writer each, read by control without stopping anybody.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// A counter that one worker adds to and anybody reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call this: load and store, no locked instruction.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a frame was dropped. Every counter surface shows these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum DropReason {
    /// The sending port has no peer.
    NoPeer,
    /// The link of the sender or receiver is down.
    LinkDown,
    /// The receiver is not connected, or its interface is down.
    NotConnected,
    /// A hub leg's backlog is full.
    LegFull,
    /// The receiver stayed full for the whole turn (switches, and remainders of a segmented frame).
    TxFull,
    /// The frame crossed too many hubs and switches, or would enter one twice.
    Loop,
    /// The receiver was removed while the frame was under way between workers.
    PortGone,
    /// Longer than the receiver, its MTU or its ring can ever take.
    TooLong,
    /// Shorter than an Ethernet header, or headers that contradict the length.
    Malformed,
    /// A virtio-net header that makes no sense or cannot be honoured in software.
    BadOffload,
    /// The kernel or peer refused the frame for good.
    TxError,
    /// A filter dropped or kept the frame.
    Filter,
    /// No pool buffer was free for a frame that had to be copied.
    NoBuffer,
    /// Cut by the receive buffer.
    Truncated,
    /// The guest does not take such frames: its MAC and VLAN tables.
    RxFilter,
    /// The receiver is at the port of the switch where the frame came in.
    SamePort,
    /// The port of the switch does not carry the frame's VLAN.
    Vlan,
    /// From one private port of a switch to another.
    Private,
    /// Sent by a port that only gets copies (`mirror=`).
    MirrorPort,
    /// A datagram that is not longer than the header of the tunnel.
    ShortHeader,
    /// A datagram of another session than the tunnel's.
    WrongSession,
    /// A datagram with another cookie than the tunnel's.
    WrongCookie,
    /// A datagram of another VXLAN network, or of none.
    WrongVni,
}

impl DropReason {
    /// All reasons, in counter order.
    pub const ALL: [Self; 23] = [
        Self::NoPeer,
        Self::LinkDown,
        Self::NotConnected,
        Self::LegFull,
        Self::TxFull,
        Self::Loop,
        Self::PortGone,
        Self::TooLong,
        Self::Malformed,
        Self::BadOffload,
        Self::TxError,
        Self::Filter,
        Self::NoBuffer,
        Self::Truncated,
        Self::RxFilter,
        Self::SamePort,
        Self::Vlan,
        Self::Private,
        Self::MirrorPort,
        Self::ShortHeader,
        Self::WrongSession,
        Self::WrongCookie,
        Self::WrongVni,
    ];

    /// The name that counter surfaces show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoPeer => "no-peer",
            Self::LinkDown => "link-down",
            Self::NotConnected => "not-connected",
            Self::LegFull => "leg-full",
            Self::TxFull => "tx-full",
            Self::Loop => "loop",
            Self::PortGone => "port-gone",
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::BadOffload => "bad-offload",
            Self::TxError => "tx-error",
            Self::Filter => "filter",
            Self::NoBuffer => "no-buffer",
            Self::Truncated => "truncated",
            Self::RxFilter => "rx-filter",
            Self::SamePort => "same-port",
            Self::Vlan => "vlan",
            Self::Private => "private",
            Self::MirrorPort => "mirror-port",
            Self::ShortHeader => "short-header",
            Self::WrongSession => "wrong-session",
            Self::WrongCookie => "wrong-cookie",
            Self::WrongVni => "wrong-vni",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NoPeer => "The sending port has no peer.",
            Self::LinkDown => "The link of the sender or of the receiver is down.",
            Self::NotConnected => "The receiver is not connected, or its interface is down.",
            Self::LegFull => "The backlog of this hub leg was full (hub-backlog=).",
            Self::TxFull => "The receiver stayed full for the whole turn.",
            Self::Loop => "The frame would have crossed more than 8 hubs and switches, or entered one twice.",
            Self::PortGone => "The receiver was removed while the frame was under way.",
            Self::TooLong => "The frame is longer than the receiver can ever take.",
            Self::Malformed => "The frame's headers contradict its length.",
            Self::BadOffload => "The virtio-net header asks for what cannot be done.",
            Self::TxError => "The kernel or the peer refused the frame for good.",
            Self::Filter => "A filter dropped the frame.",
            Self::NoBuffer => "No pool buffer was free for a frame that had to be copied.",
            Self::Truncated => "The frame was longer than the receive buffer.",
            Self::RxFilter => "The guest does not take frames of this address or VLAN (query-rx-filter).",
            Self::SamePort => "The receiver is at the port of the switch where the frame came in.",
            Self::Vlan => "The port of the switch does not carry the frame's VLAN.",
            Self::Private => "From one private port of a switch to another.",
            Self::MirrorPort => "Sent to a switch by a port that only gets copies (mirror=).",
            Self::ShortHeader => "A datagram was not longer than the header of the tunnel.",
            Self::WrongSession => "A datagram was of another session than the tunnel's (rxsession=).",
            Self::WrongCookie => "A datagram had another cookie than the tunnel's (rxcookie=).",
            Self::WrongVni => "A datagram was of another VXLAN network than the tunnel's (vni=), or of none.",
        }
    }
}

/// Counters of one queue. The receiving worker writes `rx` and `drops`; it also owns the transmitting half.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Written for frames read from the port.
    pub rx: CachePadded<Traffic>,
    /// Written for frames given to the port.
    pub tx: CachePadded<Traffic>,
    /// Frames dropped, charged to the port that should have transmitted them, or to the source where there is none.
    drops: CachePadded<[Counter; DropReason::ALL.len()]>,
    /// Why the transport gives nothing any more, as an errno; 0 while it works.
    pub trouble: AtomicI32,
    /// Why nothing can be sent, as an errno; 0 while it can.
    pub tx_trouble: AtomicI32,
}

/// Frames and bytes in one direction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames; a GSO frame counts once, each frame that went into a coalesced one counts.
    pub frames: Counter,
    /// Bytes of Ethernet frames without virtio-net header.
    pub bytes: Counter,
}

impl PortCounters {
    /// Counts `n` dropped frames.
    pub fn count_drop(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }

    /// Frames dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }
}
