//! Frames for the tests, built field by field with a checksum of its own, so that it is an oracle for the real code.

#![allow(unsafe_code)] // lends test vectors as a burst

use super::{Adapted, Offload};
use crate::burst::{Burst, Mask, Seg};
use crate::port::Caps;
use crate::wire::vnet_hdr::VnetHdr;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// A receiver of everything, better off with large frames.
pub(super) const LARGE: Caps =
    Caps { csum: true, tso4: true, tso6: true, ecn: true, ufo: true, uso: true, coalesce: true };

/// RFC 1071 over words, the slow way.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// What all frames of a flow have in common.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) tags: Vec<u16>,
    pub(super) v6: bool,
    pub(super) tcp: bool,
    /// IPv4 options, or IPv6 destination options: multiples of 8 bytes.
    pub(super) options: usize,
    /// TCP options: a multiple of 4 bytes.
    pub(super) tcp_options: Vec<u8>,
    pub(super) ports: [u16; 2],
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) frag: u16,
    pub(super) ack: u32,
    pub(super) window: u16,
}

impl Flow {
    pub(super) fn tcp4() -> Self {
        Self {
            tags: vec![],
            v6: false,
            tcp: true,
            options: 0,
            tcp_options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            ports: [40000, 443],
            tos: 0,
            ttl: 64,
            frag: 0x4000,
            ack: 0x0a0b_0c0d,
            window: 501,
        }
    }

    pub(super) fn tcp6() -> Self {
        Self { v6: true, ..Self::tcp4() }
    }

    pub(super) fn udp4() -> Self {
        Self { tcp: false, ..Self::tcp4() }
    }

    pub(super) fn udp6() -> Self {
        Self { v6: true, tcp: false, ..Self::tcp4() }
    }

    pub(super) fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    pub(super) fn l4(&self) -> usize {
        self.l3() + if self.v6 { 40 } else { 20 } + self.options
    }

    pub(super) fn payload(&self) -> usize {
        self.l4() + if self.tcp { 20 + self.tcp_options.len() } else { 8 }
    }

    /// The pseudo header's sum for a frame whose transport is `len` bytes.
    pub(super) fn pseudo(&self, len: usize) -> u16 {
        let protocol = if self.tcp { 6 } else { 17 };
        let mut p = self.addresses();
        p.extend((len as u32).to_be_bytes());
        p.extend([0, 0, 0, protocol]);
        sum(&p)
    }

    fn addresses(&self) -> Vec<u8> {
        if self.v6 { (0..32).map(|i| i * 7 + 1).collect() } else { vec![10, 0, 0, 1, 10, 0, 0, 2] }
    }

    /// One frame as it goes on the wire, all checksums right.
    pub(super) fn frame(&self, seq: u32, id: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut t = Vec::new();
        t.extend(self.ports[0].to_be_bytes());
        t.extend(self.ports[1].to_be_bytes());
        if self.tcp {
            t.extend(seq.to_be_bytes());
            t.extend(self.ack.to_be_bytes());
            let offset = (20 + self.tcp_options.len() as u16) / 4;
            t.extend((offset << 12 | flags).to_be_bytes());
            t.extend(self.window.to_be_bytes());
            t.extend([0, 0, 0, 0]);
            t.extend(&self.tcp_options);
        } else {
            t.extend((8 + payload.len() as u16).to_be_bytes());
            t.extend([0, 0]);
        }
        t.extend(payload);
        let check =
            !sum(&[&t[..], if t.len() % 2 == 1 { &[0] } else { &[] }, &self.pseudo(t.len()).to_be_bytes()]
                .concat());
        let check = if check == 0 && !self.tcp { 0xffff } else { check };
        let at = if self.tcp { 16 } else { 6 };
        t[at..at + 2].copy_from_slice(&check.to_be_bytes());
        let mut f = self.network(id, self.frag, t.len());
        f.extend(t);
        f
    }

    /// Ethernet and IP header before `len` bytes of transport.
    pub(super) fn network(&self, id: u16, frag: u16, len: usize) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (i, tag) in self.tags.iter().enumerate() {
            f.extend(if i + 1 < self.tags.len() { [0x88, 0xa8] } else { [0x81, 0] });
            f.extend(tag.to_be_bytes());
        }
        let protocol = if self.tcp { 6 } else { 17 };
        if self.v6 {
            f.extend([0x86, 0xdd, 0x60 | self.tos >> 4, self.tos << 4 | 3, 0x12, 0x34]);
            f.extend(((len + self.options) as u16).to_be_bytes());
            f.extend([if self.options > 0 { 60 } else { protocol }, self.ttl]);
            f.extend(self.addresses());
            if self.options > 0 {
                f.extend([protocol, (self.options / 8 - 1) as u8, 1, (self.options - 4) as u8]);
                f.extend(vec![0; self.options - 4]);
            }
        } else {
            let header = 20 + self.options;
            f.extend([8, 0]);
            let mut h = vec![0x40 | (header / 4) as u8, self.tos];
            h.extend(((header + len) as u16).to_be_bytes());
            h.extend(id.to_be_bytes());
            h.extend(frag.to_be_bytes());
            h.extend([self.ttl, protocol, 0, 0]);
            h.extend(self.addresses());
            h.extend(vec![1; self.options]);
            let check = !sum(&h);
            h[10..12].copy_from_slice(&check.to_be_bytes());
            f.extend(h);
        }
        f
    }

    /// Leaves the checksum to the receiver: its field holds the pseudo header's sum. Returns the virtio-net header.
    pub(super) fn make_partial(&self, frame: &mut [u8]) -> VnetHdr {
        let (l4, offset) = (self.l4(), if self.tcp { 16 } else { 6 });
        let sum = self.pseudo(frame.len() - l4);
        frame[l4 + offset..l4 + offset + 2].copy_from_slice(&sum.to_be_bytes());
        VnetHdr { flags: 1, csum_start: l4 as u16, csum_offset: offset as u16, ..VnetHdr::NONE }
    }

    /// A large frame with its virtio-net header.
    pub(super) fn large(&self, gso: (u8, u16), seq: u32, id: u16, flags: u16, payload: &[u8]) -> Lent {
        let mut frame = self.frame(seq, id, flags, payload);
        let hdr = self.make_partial(&mut frame);
        (VnetHdr { gso_type: gso.0, gso_size: gso.1, hdr_len: self.payload() as u16, ..hdr }, frame)
    }
}

/// A frame with its virtio-net header.
pub(super) type Lent = (VnetHdr, Vec<u8>);

/// Bytes that are not all alike.
pub(super) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i / 7 + i) as u8).collect()
}

/// A burst of frames that are borrowed for as long.
pub(super) struct Lending<'f>(Burst, PhantomData<&'f [Lent]>);

impl Deref for Lending<'_> {
    type Target = Burst;

    fn deref(&self) -> &Burst {
        &self.0
    }
}

/// A burst that lends these frames, cut into segments of `cut` bytes.
pub(super) fn lend(frames: &[Lent], cut: usize) -> Lending<'_> {
    let mut burst = Burst::new();
    for (hdr, bytes) in frames {
        let segs: Vec<Seg> = bytes
            .chunks(cut)
            // SAFETY: `frames` is borrowed, thus unchanged, for the life of what is returned.
            .map(|c| unsafe { Seg::new(NonNull::from(c).cast(), c.len() as u32) })
            .collect();
        assert!(burst.push(*hdr, &segs));
    }
    Lending(burst, PhantomData)
}

/// The frames of `burst` that `mask` selects, as bytes.
pub(super) fn collect(burst: &Burst, mask: Mask) -> Vec<Lent> {
    let copy = |i| {
        let frame: &crate::burst::Frame = &burst.frames()[i];
        let mut bytes = vec![0; frame.len()];
        assert_eq!(burst.copy_out(frame, 0, &mut bytes), frame.len());
        (frame.hdr, bytes)
    };
    mask.iter().map(copy).collect()
}

/// Adapts all frames toward a receiver that takes everything it is given.
pub(super) fn adapt(offload: &mut Offload, burst: &Burst, caps: &Caps) -> (Vec<Lent>, Adapted) {
    let mut out = Vec::new();
    let adapted = offload.adapt(burst, burst.all(), caps, |burst, mask| {
        out.extend(collect(burst, mask));
        mask.count()
    });
    (out, adapted)
}

/// Adapts `frames`, cut into segments of `cut` bytes, with a stage of its own; every frame must be taken.
pub(super) fn adapted(frames: &[Lent], cut: usize, caps: &Caps) -> Vec<Lent> {
    let burst = lend(frames, cut);
    let (out, adapted) = adapt(&mut Offload::new(), &burst, caps);
    assert_eq!(adapted.frames, frames.len() as u64, "{adapted:?}");
    assert_eq!(adapted.bytes, frames.iter().map(|f| f.1.len() as u64).sum::<u64>());
    out
}

/// How many of `frames` are dropped as bad toward a receiver of plain frames.
pub(super) fn refused(frames: &[Lent]) -> u64 {
    let (out, adapted) = adapt(&mut Offload::new(), &lend(frames, 1 << 20), &Caps::NONE);
    assert_eq!((adapted.frames + adapted.drops[0].1, adapted.left), (frames.len() as u64, Mask::NONE));
    assert!(out.len() >= adapted.frames as usize);
    adapted.drops[0].1
}

/// The bytes alone; none may have offload state left.
pub(super) fn wire(frames: Vec<Lent>) -> Vec<Vec<u8>> {
    let plain = |(hdr, bytes)| {
        assert_eq!(hdr, VnetHdr::NONE);
        bytes
    };
    frames.into_iter().map(plain).collect()
}
