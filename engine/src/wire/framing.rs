//! What stands before a frame on a chardev, where mirrors, redirectors and comparisons write it (QEMU `net/net.c` `net_fill_rstate`,
//! `net/filter-mirror.c` `filter_send`).
//!
//! ```text
//!  length (4 bytes, big-endian) | with vnet_hdr_support: header length (4 bytes, big-endian) | virtio-net header | frame
//! ```
//! The length counts the virtio-net header and the frame, which together are a record here.

use super::bytes::get32;

/// The longest record: what QEMU has room for (`NET_BUFSIZE`).
pub const RECORD_MAX: usize = 4096 + 65536;

/// Bytes of a length.
const WORD: usize = 4;

/// A length above [`RECORD_MAX`]: where the next record begins is not to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes, at most {RECORD_MAX} are taken")]
pub struct Oversized(pub u32);

/// The lengths before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Bytes of the record.
    pub record: usize,
    /// Those of the virtio-net header at its beginning, as its sender said; 0 where it says nothing of them.
    pub header: u32,
}

impl Lengths {
    /// Bytes that they take at most.
    pub const MOST: usize = 2 * WORD;

    /// Bytes that they take; `vnet`: the length of a virtio-net header is one of them.
    #[must_use]
    pub const fn size(vnet: bool) -> usize {
        if vnet { Self::MOST } else { WORD }
    }

    /// Reads them at the beginning of `bytes`; nothing where they are not there to their end.
    ///
    /// # Errors
    /// A length that no record may have; told as soon as it is there.
    pub fn read(bytes: &[u8], vnet: bool) -> Result<Option<Self>, Oversized> {
        let Some(len) = get32(bytes, 0) else { return Ok(None) };
        let record = len as usize;
        if record > RECORD_MAX {
            return Err(Oversized(len));
        }
        let header = if vnet { get32(bytes, WORD) } else { Some(0) };
        Ok(header.map(|header| Self { record, header }))
    }

    /// Appends those of a record of `record` bytes, with the length of its virtio-net header where one is given. False, with nothing done, where the
    /// record is longer than a reader takes.
    pub fn append(record: usize, header: Option<u32>, to: &mut impl Extend<u8>) -> bool {
        let (true, Ok(len)) = (record <= RECORD_MAX, u32::try_from(record)) else { return false };
        to.extend(len.to_be_bytes());
        if let Some(header) = header {
            to.extend(header.to_be_bytes());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_they_were_written_and_never_from_a_part() {
        for (record, header) in [(0, None), (60, Some(0)), (1514, Some(12)), (RECORD_MAX, Some(u32::MAX))] {
            let mut bytes = Vec::new();
            assert!(Lengths::append(record, header, &mut bytes));
            let vnet = header.is_some();
            assert_eq!(bytes.len(), Lengths::size(vnet));
            for end in 0..bytes.len() {
                assert_eq!(Lengths::read(&bytes[..end], vnet), Ok(None));
            }
            let lengths = Lengths { record, header: header.unwrap_or(0) };
            assert_eq!(Lengths::read(&bytes, vnet), Ok(Some(lengths)));
        }
    }

    #[test]
    fn a_record_too_long_is_not_written_and_told_by_its_first_word() {
        let mut bytes = Vec::new();
        assert!(!Lengths::append(RECORD_MAX + 1, None, &mut bytes) && bytes.is_empty());
        let len = RECORD_MAX as u32 + 1;
        for vnet in [false, true] {
            assert_eq!(Lengths::read(&len.to_be_bytes(), vnet), Err(Oversized(len)));
        }
    }
}
