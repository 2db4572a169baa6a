//! The virtio-net header before each frame.

use super::options::{CAPS, HEADER, LONGEST};
use crate::backend::datagram::framing::Framing;
use crate::port::Caps;
use crate::port::counters::DropReason;
use crate::wire::vnet_hdr::VnetHdr;

/// Bytes of an Ethernet header.
const ETH_HEADER: usize = 14;

/// Reads and writes the header; holds that of the frame that was stripped last.
#[derive(Debug, Clone, Default)]
pub(super) struct Header(VnetHdr);

impl Framing for Header {
    const OFFLOADS: bool = true;
    const ENDS: bool = true;
    const LONGEST: usize = LONGEST;
    const CAPS: Caps = CAPS;

    fn len(&self) -> usize {
        HEADER
    }

    fn head(&mut self, to: &mut [u8]) {
        to.fill(0);
    }

    fn head_of(&mut self, hdr: &VnetHdr, to: &mut [u8]) {
        if let Some((short, buffers)) = to.split_at_mut_checked(VnetHdr::LEN) {
            short.copy_from_slice(&hdr.encode());
            buffers.fill(0);
        }
    }

    fn strip(&mut self, front: &[u8], total: usize) -> Result<usize, DropReason> {
        let short = front.first_chunk().ok_or(DropReason::Malformed)?;
        if total < HEADER + ETH_HEADER {
            return Err(DropReason::Malformed);
        }
        self.0 = VnetHdr::decode(short);
        Ok(HEADER)
    }

    fn offload(&self, _front: &[u8], _len: usize, _segment: usize) -> VnetHdr {
        self.0
    }
}
