//! TCP (RFC 9293) and UDP (RFC 768) headers as checked values.

use super::bytes::{get16, get32};
use super::headers::HeaderError;

/// Bytes of a TCP header without options.
pub const TCP_HEADER: usize = 20;
/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;

/// TCP: offset of the sequence number.
pub const TCP_SEQ: usize = 4;
/// TCP: offset of the acknowledgement number.
pub const TCP_ACK: usize = 8;
/// TCP: offset of data offset, reserved bits and flags, as one 16-bit field.
pub const TCP_FLAGS: usize = 12;
/// TCP: offset of the window.
pub const TCP_WINDOW: usize = 14;
/// TCP: offset of the checksum.
pub const TCP_CHECK: usize = 16;
/// TCP: offset of the urgent pointer.
pub const TCP_URGENT: usize = 18;
/// UDP: offset of the length.
pub const UDP_LEN: usize = 4;
/// UDP: offset of the checksum.
pub const UDP_CHECK: usize = 6;

/// TCP flag: no more data from the sender.
pub const FIN: u16 = 0x01;
/// TCP flag: synchronize sequence numbers.
pub const SYN: u16 = 0x02;
/// TCP flag: reset the connection.
pub const RST: u16 = 0x04;
/// TCP flag: push.
pub const PSH: u16 = 0x08;
/// TCP flag: the acknowledgement field counts.
pub const ACK: u16 = 0x10;
/// TCP flag: the urgent pointer counts.
pub const URG: u16 = 0x20;
/// TCP flag: ECN echo.
pub const ECE: u16 = 0x40;
/// TCP flag: congestion window reduced.
pub const CWR: u16 = 0x80;

/// A TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of the header with options, 20 to 60.
    pub header_len: usize,
    /// Data offset, reserved bits and flags, as they stand.
    pub flags: u16,
    /// Window, not scaled.
    pub window: u16,
    /// Checksum as it stands.
    pub check: u16,
}

impl Tcp {
    /// Decodes the header at the start of `b`; `room` is what the packet holds from there to its end.
    ///
    /// # Errors
    /// Too short, or a data offset that contradicts the packet.
    pub fn parse(b: &[u8], room: usize) -> Result<Self, HeaderError> {
        let short = HeaderError::Short("TCP");
        let flags = get16(b, TCP_FLAGS).ok_or(short)?;
        let header_len = usize::from(flags >> 12) * 4;
        if header_len < TCP_HEADER || header_len > room {
            return Err(HeaderError::Length("TCP"));
        }
        if header_len > b.len() {
            return Err(short);
        }
        Ok(Self {
            src: get16(b, 0).ok_or(short)?,
            dst: get16(b, 2).ok_or(short)?,
            seq: get32(b, TCP_SEQ).ok_or(short)?,
            ack: get32(b, TCP_ACK).ok_or(short)?,
            header_len,
            flags,
            window: get16(b, TCP_WINDOW).ok_or(short)?,
            check: get16(b, TCP_CHECK).ok_or(short)?,
        })
    }
}

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Bytes of the datagram with this header; never more than the packet holds.
    pub len: usize,
    /// Checksum as it stands; 0 is none.
    pub check: u16,
}

impl Udp {
    /// Decodes the header at the start of `b`; `room` is what the packet holds from there to its end.
    ///
    /// # Errors
    /// Too short, or a length that contradicts the packet.
    pub fn parse(b: &[u8], room: usize) -> Result<Self, HeaderError> {
        let short = HeaderError::Short("UDP");
        let len = usize::from(get16(b, UDP_LEN).ok_or(short)?);
        if len < UDP_HEADER || len > room {
            return Err(HeaderError::Length("UDP"));
        }
        let (src, dst) = (get16(b, 0).ok_or(short)?, get16(b, 2).ok_or(short)?);
        Ok(Self { src, dst, len, check: get16(b, UDP_CHECK).ok_or(short)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_fields_are_read_and_its_offset_checked() {
        let mut b = [0; 24];
        b[..4].copy_from_slice(&[0, 80, 1, 0]);
        b[4..8].copy_from_slice(&[1, 2, 3, 4]);
        b[12..16].copy_from_slice(&[0x60, 0x19, 0xff, 0xfe]);
        let t = Tcp::parse(&b, 24).unwrap();
        assert_eq!((t.src, t.dst, t.seq, t.header_len, t.window), (80, 256, 0x0102_0304, 24, 0xfffe));
        assert_eq!(t.flags & 0xff, ACK | PSH | FIN);
        assert_eq!(Tcp::parse(&b, 23), Err(HeaderError::Length("TCP")));
        assert_eq!(Tcp::parse(&b[..23], 24), Err(HeaderError::Short("TCP")));
        b[12] = 0x40;
        assert_eq!(Tcp::parse(&b, 24), Err(HeaderError::Length("TCP")));
        assert_eq!(Tcp::parse(&b[..11], 24), Err(HeaderError::Short("TCP")));
    }

    #[test]
    fn udp_length_must_agree() {
        let b = [0, 53, 0, 54, 0, 9, 0xab, 0xcd];
        assert_eq!(Udp::parse(&b, 9), Ok(Udp { src: 53, dst: 54, len: 9, check: 0xabcd }));
        assert_eq!(Udp::parse(&b, 8), Err(HeaderError::Length("UDP")));
        assert_eq!(Udp::parse(&b[..7], 9), Err(HeaderError::Short("UDP")));
        assert_eq!(Udp::parse(&[0; 8], 8), Err(HeaderError::Length("UDP")));
    }
}
