//! Handles of pool buffers: one frame, and up to [`BUNDLE`] buffers on their way home.

use crate::burst::Seg;
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;

/// Buffers in one bundle at most.
const BUNDLE: usize = 32;

/// What lies before the bytes of a frame in its buffer.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Head {
    hdr: VnetHdr,
    owner: u32,
    slot: u32, // of which 16 bits are used: a load of both numbers at once is not slowed by a narrow store
    len: u32,
    weight: u32,
    capacity: u32,
}

impl Head {
    /// Bytes from the start of a buffer to the frame.
    pub(super) const LEN: usize = size_of::<Self>();
}

/// A copy of a frame in a pool buffer. Not `Clone`; it must go back by [`Pool::give`](super::Pool::give) (any worker's
/// pool).
#[derive(Debug)]
#[repr(transparent)]
pub struct PoolFrame(NonNull<Head>);

// SAFETY: a pool frame is the only way to its buffer until it is given back.
unsafe impl Send for PoolFrame {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for PoolFrame {}

impl PoolFrame {
    /// A frame without offload state in a free buffer.
    ///
    /// # Safety
    /// `at` must be the buffer of slot `slot` of the pool `owner`, which nobody else holds, and have room for `capacity`
    /// bytes, of which the frame uses `len`.
    #[inline]
    pub(super) const unsafe fn new(
        at: NonNull<Head>,
        (owner, slot): (u32, u16),
        len: usize,
        capacity: usize,
    ) -> Self {
        let (len, capacity) = (len as u32, capacity as u32);
        // SAFETY: by contract the buffer is ours; buffers are aligned to cache lines.
        unsafe { at.write(Head { hdr: VnetHdr::NONE, owner, slot: slot as u32, len, weight: 1, capacity }) };
        Self(at)
    }

    /// The frame in a buffer.
    ///
    /// # Safety
    /// The buffer must hold a frame, and this must be the only handle of it.
    #[inline]
    pub(super) const unsafe fn known(at: NonNull<Head>) -> Self {
        Self(at)
    }

    #[inline]
    const fn head(&self) -> &Head {
        // SAFETY: the head was written when the buffer was taken and is reached by this handle only.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    const fn head_mut(&mut self) -> &mut Head {
        // SAFETY: as `head`; the exclusive borrow of the handle is one of its buffer.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    const fn data(&self) -> NonNull<u8> {
        // SAFETY: a buffer is `Head::LEN` and its size long.
        unsafe { self.0.cast::<u8>().add(Head::LEN) }
    }

    /// The pool that it came from, and its slot there.
    #[inline]
    pub(super) const fn name(&self) -> (u32, u16) {
        (self.head().owner, self.head().slot as u16)
    }

    /// Offload state of the frame.
    #[inline]
    #[must_use]
    pub const fn hdr(&self) -> VnetHdr {
        self.head().hdr
    }

    /// Sets the offload state.
    #[inline]
    pub const fn set_hdr(&mut self, hdr: VnetHdr) {
        self.head_mut().hdr = hdr;
    }

    /// Frames of the source that it stands for, as [`Frame::weight`](crate::burst::Frame::weight).
    #[inline]
    #[must_use]
    pub const fn weight(&self) -> u32 {
        self.head().weight
    }

    /// Sets the weight.
    #[inline]
    pub const fn set_weight(&mut self, weight: u32) {
        self.head_mut().weight = weight;
    }

    /// The bytes as a segment, valid until the frame is given back.
    #[inline]
    #[must_use]
    pub const fn seg(&self) -> Seg {
        // SAFETY: the buffer is at least `len` long and stays this frame's until `Pool::give`.
        unsafe { Seg::new(self.data(), self.head().len) }
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.head().len as usize
    }

    /// Whether it has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that fit into the buffer.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.head().capacity as usize
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8] {
        // SAFETY: pool memory is initialised (mapped zeroed), the first `len` bytes are this frame's alone.
        unsafe { std::slice::from_raw_parts(self.data().as_ptr(), self.len()) }
    }

    /// The bytes, open to change.
    #[inline]
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`; the exclusive borrow of the frame is one of its buffer.
        unsafe { std::slice::from_raw_parts_mut(self.data().as_ptr(), self.len()) }
    }

    /// Changes the length, at most to the capacity. Bytes that come into view hold old contents.
    pub fn set_len(&mut self, len: usize) {
        self.head_mut().len = len.min(self.capacity()) as u32;
    }
}

/// Up to [`BUNDLE`] buffers of one pool on their way back to it. Not `Clone`.
#[derive(Debug)]
pub(super) struct Bundle {
    len: u32,
    slots: [u16; BUNDLE],
}

impl Bundle {
    pub(super) const EMPTY: Self = Self { len: 0, slots: [0; BUNDLE] };

    /// Appends a buffer; does nothing when it is full.
    #[inline]
    pub(super) fn push(&mut self, slot: u16) {
        if let Some(place) = self.slots.get_mut(self.len as usize) {
            *place = slot;
            self.len += 1;
        }
    }

    /// The buffers in it.
    #[inline]
    pub(super) fn slots(&self) -> &[u16] {
        self.slots.get(..self.len as usize).unwrap_or_default()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it takes no more.
    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        self.len as usize == BUNDLE
    }
}
