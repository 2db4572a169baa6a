//! Frames on a chardev, as QEMU's mirror, redirector and comparison write them (QEMU `net/filter-mirror.c` `filter_send`, `net/net.c`
//! `net_fill_rstate`).
//!
//! ```text
//!  length (4 bytes, big-endian) | with vnet_hdr_support: header length (4 bytes, big-endian) | virtio-net header | frame
//! ```
//! The length counts the virtio-net header and the frame.

use crate::burst::MAX_FRAME;
use crate::mem::records::Record;
use crate::wire::vnet_hdr::VnetHdr;
use std::ops::Range;

/// Bytes of a length.
const WORD: usize = 4;

/// Bytes of the virtio-net header of a driver that knows virtio 1 or mergeable buffers.
pub const HEADER: usize = 12;

/// The longest record: what QEMU has room for (`NET_BUFSIZE`), with both lengths.
pub const LONGEST: usize = 2 * WORD + MAX_FRAME;

/// What stands at the beginning of bytes that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Not a whole record yet.
    More,
    /// A frame, at this place; the next record begins at its end.
    Frame(VnetHdr, Range<usize>),
    /// A record without a frame that is of use; the next one begins there.
    Skip(Fault, usize),
    /// A record longer than any: what follows cannot be told from garbage.
    TooLong,
}

/// Why a record is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No frame in it.
    Empty,
    /// A virtio-net header of a length that there is not, or that does not fit its frame.
    Header,
}

/// Looks at the record at the beginning of `bytes`; `vnet`: it tells the length of a virtio-net header.
#[must_use]
pub fn parse(bytes: &[u8], vnet: bool) -> Parsed {
    let Some(len) = word(bytes, 0) else { return Parsed::More };
    if len > MAX_FRAME {
        return Parsed::TooLong;
    }
    let begin = if vnet { 2 * WORD } else { WORD };
    let end = begin + len;
    if bytes.len() < end {
        return Parsed::More;
    }
    let header = if vnet { word(bytes, WORD).unwrap_or(0) } else { 0 };
    let hdr = match header {
        0 => VnetHdr::NONE,
        VnetHdr::LEN | HEADER if header <= len => match bytes.get(begin..).and_then(<[u8]>::first_chunk) {
            Some(short) => VnetHdr::decode(short),
            None => return Parsed::Skip(Fault::Header, end),
        },
        _ => return Parsed::Skip(Fault::Header, end),
    };
    let frame = begin + header..end;
    let field = usize::from(hdr.csum_start) + usize::from(hdr.csum_offset) + 2;
    if frame.is_empty() {
        Parsed::Skip(Fault::Empty, end)
    } else if hdr.needs_csum() && field > frame.len() {
        Parsed::Skip(Fault::Header, end)
    } else {
        Parsed::Frame(hdr, frame)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk::<WORD>()?;
    Some(u32::from_be_bytes(*word) as usize)
}

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format {
    /// With the length of a virtio-net header (`vnet_hdr_support`).
    pub vnet: bool,
    /// Each frame has such a header then, since its netdev has one with each frame. Otherwise only frames that need it have one.
    pub always: bool,
}

/// Appends a frame to what is to be written. False, with nothing done, where it is longer than a reader takes.
pub fn append(record: &Record<'_>, format: Format, to: &mut Vec<u8>) -> bool {
    let header = if format.vnet && (format.always || record.hdr.has_work()) { HEADER } else { 0 };
    let len = header + record.bytes.len();
    let (true, Ok(length)) = (len <= MAX_FRAME, u32::try_from(len)) else { return false };
    to.extend_from_slice(&length.to_be_bytes());
    if format.vnet {
        to.extend_from_slice(&(header as u32).to_be_bytes());
    }
    if header != 0 {
        // The number of buffers is for a receive ring, and not known here.
        to.extend_from_slice(&record.hdr.encode());
        to.extend_from_slice(&[0; HEADER - VnetHdr::LEN]);
    }
    to.extend_from_slice(record.bytes);
    true
}
