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

/// The header of a record: when (nanoseconds since 1970), bytes kept, bytes of the frame.
#[must_use]
pub fn record_header(when: u64, kept: u32, len: u32) -> [u8; RECORD_HEADER] {
    let mut h = [0; RECORD_HEADER];
    h[0..4].copy_from_slice(&((when / 1_000_000_000) as u32).to_ne_bytes());
    h[4..8].copy_from_slice(&((when % 1_000_000_000 / 1000) as u32).to_ne_bytes());
    h[8..12].copy_from_slice(&kept.to_ne_bytes());
    h[12..16].copy_from_slice(&len.to_ne_bytes());
    h
}
