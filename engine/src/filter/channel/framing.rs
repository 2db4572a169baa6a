//! Frames of netdevs on a chardev, where they lie: behind the lengths of [`crate::wire::framing`] a virtio-net header that is understood.

use crate::mem::records::Record;
use crate::wire::framing::{Lengths, RECORD_MAX};
use crate::wire::vnet_hdr::VnetHdr;
use std::ops::Range;

/// Bytes of the virtio-net header of a driver that knows virtio 1 or mergeable buffers.
pub const HEADER: usize = 12;

/// The longest record with its lengths.
pub const LONGEST: usize = Lengths::MOST + RECORD_MAX;

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
    let lengths = match Lengths::read(bytes, vnet) {
        Ok(Some(lengths)) => lengths,
        Ok(None) => return Parsed::More,
        Err(_oversized) => return Parsed::TooLong,
    };
    let begin = Lengths::size(vnet);
    let (len, header, end) = (lengths.record, lengths.header as usize, begin + lengths.record);
    if bytes.len() < end {
        return Parsed::More;
    }
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
    if !Lengths::append(header + record.bytes.len(), format.vnet.then_some(header as u32), to) {
        return false;
    }
    if header != 0 {
        // The number of buffers is for a receive ring, and not known here.
        to.extend_from_slice(&record.hdr.encode());
        to.extend_from_slice(&[0; HEADER - VnetHdr::LEN]);
    }
    to.extend_from_slice(record.bytes);
    true
}
