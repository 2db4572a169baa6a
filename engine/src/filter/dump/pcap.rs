//! The classic pcap format: one file header, then a record header before each frame
//! (libpcap `pcap-savefile(5)`), in host byte order as QEMU writes it.

/// Bytes of the file header.
pub const FILE_HEADER: usize = 24;
/// Bytes of a record header.
pub const RECORD_HEADER: usize = 16;

/// The file header for Ethernet frames cut to `snaplen` bytes.
#[must_use]
pub fn file_header(snaplen: u32) -> [u8; FILE_HEADER] {
    let mut h = [0; FILE_HEADER];
    h[0..4].copy_from_slice(&0xa1b2_c3d4u32.to_ne_bytes());
    h[4..6].copy_from_slice(&2u16.to_ne_bytes());
    h[6..8].copy_from_slice(&4u16.to_ne_bytes());
    h[16..20].copy_from_slice(&snaplen.to_ne_bytes());
    h[20..24].copy_from_slice(&1u32.to_ne_bytes());
    h
}

/// A time as records have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970; what is more than 32 bits is cut.
    seconds: u32,
    /// Microseconds of the second.
    micros: u32,
}

impl Time {
    /// Of nanoseconds since 1970.
    #[must_use]
    pub const fn of(nanoseconds: u64) -> Self {
        let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        Self { seconds: seconds as u32, micros: (rest / 1000) as u32 }
    }
}

/// The header of a record: when, bytes kept, bytes of the frame.
#[inline]
#[must_use]
pub fn record_header(when: Time, kept: u32, len: u32) -> [u8; RECORD_HEADER] {
    let mut header = [0; RECORD_HEADER];
    for (place, word) in header.chunks_exact_mut(4).zip([when.seconds, when.micros, kept, len]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    header
}
