//! What stands in a pcap file (libpcap `pcap-savefile(5)`), in either byte order and resolution.

use crate::burst::MAX_FRAME;
use crate::filter::dump::pcap::{FILE_HEADER, RECORD_HEADER};
use std::ops::Range;

/// Bytes of the file's header.
pub(super) const HEADER: usize = FILE_HEADER;

/// Bytes of the longest record with its header.
pub(super) const LONGEST: usize = RECORD_HEADER + MAX_FRAME;

/// Times in microseconds.
const MICROSECONDS: u32 = 0xa1b2_c3d4;
/// Times in nanoseconds.
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// What a pcapng file begins with, in any byte order.
const PCAPNG: u32 = 0x0a0d_0d0a;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;
/// The bits of the link type; those above tell of an FCS.
const LINK_TYPE: u32 = 0xffff;
/// Frames have their FCS, of a length that stands above.
const HAS_FCS: u32 = 1 << 26;

/// Why a file cannot be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPcap {
    /// Shorter than a header.
    #[error("it is no pcap file: it ends after {0} bytes, within its header")]
    Short(usize),
    /// Something else.
    #[error("it is no pcap file")]
    Magic,
    /// The other format.
    #[error(
        "it is a pcapng file: only the older format is read here (tshark -F pcap -r IN -w OUT converts it)"
    )]
    Pcapng,
    /// A format of before 1998, or of the future.
    #[error("it is a pcap file of version {0}.{1}: only version 2.4 is read here")]
    Version(u16, u16),
    /// Frames that are none of ours.
    #[error("its frames are of link type {0}, not Ethernet (1)")]
    LinkType(u32),
    /// Frames with what no frame here has.
    #[error("its frames have their FCS: only those without it can be sent")]
    Fcs,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Words are in the other byte order.
    swapped: bool,
    /// Nanoseconds in the smaller unit of a time.
    unit: u32,
}

/// What stands at the beginning of bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not a whole record yet.
    More,
    /// A frame of that time, in nanoseconds since 1970, at this place; the next record begins at its end.
    Frame(u64, Range<usize>),
    /// A record of which no frame can be made; the next one begins there.
    Skip(Fault, usize),
    /// A record longer than any frame: garbage, or what could not be sent.
    TooLong,
}

/// Why a record is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The frame was longer, and its end is not there.
    Cut,
    /// No frame in it.
    Empty,
}

/// The word at a place, in our byte order.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

impl Format {
    /// By the header of a file.
    pub(super) fn read(header: &[u8]) -> Result<Self, NoPcap> {
        let magic = word(header, 0).ok_or(NoPcap::Short(header.len()))?;
        let (swapped, unit) = match (magic, magic.swap_bytes()) {
            (MICROSECONDS, _) => (false, 1000),
            (NANOSECONDS, _) => (false, 1),
            (_, MICROSECONDS) => (true, 1000),
            (_, NANOSECONDS) => (true, 1),
            (PCAPNG, _) => return Err(NoPcap::Pcapng),
            _ => return Err(NoPcap::Magic),
        };
        let this = Self { swapped, unit };
        let (Some(version), Some(link)) = (header.get(4..8), this.word(header, 20)) else {
            return Err(NoPcap::Short(header.len()));
        };
        let half = |at: usize| {
            let half = version.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u16::from_ne_bytes);
            if swapped { half.swap_bytes() } else { half }
        };
        match (half(0), half(2)) {
            // Other than these the lengths of a record may stand the other way round.
            (2, 4) => {}
            (major, minor) => return Err(NoPcap::Version(major, minor)),
        }
        if link & LINK_TYPE != ETHERNET {
            return Err(NoPcap::LinkType(link & LINK_TYPE));
        }
        if link & HAS_FCS != 0 && link >> 28 != 0 {
            return Err(NoPcap::Fcs);
        }
        Ok(this)
    }

    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        word(bytes, at).map(|word| if self.swapped { word.swap_bytes() } else { word })
    }

    /// Looks at the record at the beginning of `bytes`.
    pub(super) fn parse(self, bytes: &[u8]) -> Parsed {
        let word = |at| self.word(bytes, at);
        let (Some(seconds), Some(rest), Some(kept), Some(len)) = (word(0), word(4), word(8), word(12)) else {
            return Parsed::More;
        };
        if kept as usize > MAX_FRAME {
            return Parsed::TooLong;
        }
        let end = RECORD_HEADER + kept as usize;
        if bytes.len() < end {
            return Parsed::More;
        }
        if kept < len {
            return Parsed::Skip(Fault::Cut, end);
        }
        if kept == 0 {
            return Parsed::Skip(Fault::Empty, end);
        }
        let when = u64::from(seconds) * 1_000_000_000 + u64::from(rest) * u64::from(self.unit);
        Parsed::Frame(when, RECORD_HEADER..end)
    }
}
