//! The Ethernet header with its VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use super::bytes::get16;
use super::headers::HeaderError;

/// Bytes of an untagged header: two addresses and the type.
pub const HEADER: usize = 14;
/// Bytes that one VLAN tag adds.
pub const TAG: usize = 4;
/// VLAN tags that are looked through: a service tag and a customer tag (QinQ).
pub const MAX_TAGS: usize = 2;

/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// Ethertype of RARP.
pub const RARP: u16 = 0x8035;
/// Ethertype of a customer VLAN tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// Ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Ethertype of a service VLAN tag (802.1ad).
pub const QINQ: u16 = 0x88a8;

/// A decoded Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eth {
    /// Destination address.
    pub dst: [u8; 6],
    /// Source address.
    pub src: [u8; 6],
    /// Tag control information (priority, DEI, VLAN id) of each tag, outermost first.
    pub tags: [Option<u16>; MAX_TAGS],
    /// What follows the header: the ethertype behind the tags, or a length below 0x600 (802.3).
    pub ethertype: u16,
    /// Bytes of the header with its tags.
    pub len: usize,
}

impl Eth {
    /// Decodes the header at the start of `b`. A third tag is left as the ethertype.
    ///
    /// # Errors
    /// [`HeaderError::Short`] when `b` ends inside the header or a tag.
    pub fn parse(b: &[u8]) -> Result<Self, HeaderError> {
        let short = HeaderError::Short("Ethernet");
        let (dst, rest) = b.split_first_chunk().ok_or(short)?;
        let src = rest.first_chunk().ok_or(short)?;
        let (mut len, mut tags) = (HEADER, [None; MAX_TAGS]);
        let mut ethertype = get16(b, 12).ok_or(short)?;
        for tag in &mut tags {
            if ethertype != VLAN && ethertype != QINQ {
                break;
            }
            *tag = Some(get16(b, len).ok_or(short)?);
            ethertype = get16(b, len + 2).ok_or(short)?;
            len += TAG;
        }
        Ok(Self { dst: *dst, src: *src, tags, ethertype, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(types: &[u16]) -> Vec<u8> {
        let mut f = vec![1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
        for w in types {
            f.extend(w.to_be_bytes());
        }
        f
    }

    #[test]
    fn tags_are_looked_through_up_to_two() {
        let plain = Eth::parse(&frame(&[IPV4])).unwrap();
        assert_eq!((plain.dst, plain.src, plain.ethertype, plain.len), ([1; 6], [2; 6], IPV4, 14));
        let one = Eth::parse(&frame(&[VLAN, 0x6005, IPV6])).unwrap();
        assert_eq!((one.tags, one.ethertype, one.len), ([Some(0x6005), None], IPV6, 18));
        let two = Eth::parse(&frame(&[QINQ, 7, VLAN, 8, ARP])).unwrap();
        assert_eq!((two.tags, two.ethertype, two.len), ([Some(7), Some(8)], ARP, 22));
        let three = Eth::parse(&frame(&[QINQ, 7, VLAN, 8, VLAN, 9, IPV4])).unwrap();
        assert_eq!((three.ethertype, three.len), (VLAN, 22));
    }

    #[test]
    fn a_cut_header_is_short() {
        let f = frame(&[QINQ, 7, VLAN, 8, ARP]);
        for n in 0..f.len() {
            assert_eq!(Eth::parse(&f[..n]), Err(HeaderError::Short("Ethernet")), "{n} bytes");
        }
    }
}
