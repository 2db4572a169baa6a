//! Frame and burst: what moves through the engine.
//!
//! A [`Burst`] holds up to [`BURST`] frames that are *lent*: their bytes still lie where they arrived (a provided
//! buffer, a UMEM frame, a guest's memory, a pool buffer). The transmitting side copies or names them once; then the
//! receiving queue takes its buffers back. Nothing here owns memory.

#![allow(unsafe_code)] // lent memory is (pointer, length), never a slice: a guest may write it while we read

mod pad;

pub use pad::SHORTEST;

use crate::prefetch;
use crate::wire::checksum::Sum;
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;

/// Frames in one burst at most. A `u64` selects any subset of them.
pub const BURST: usize = 64;

/// Segments in one burst at most: every frame has one, GSO frames of a chained receiver have more.
pub const SEGMENTS: usize = 2048;

/// The longest frame, virtio-net header excluded, that the engine moves (QEMU's `NET_BUFSIZE`).
pub const MAX_FRAME: usize = crate::wire::framing::RECORD_MAX;

/// Bytes of a frame that decide where it goes: two addresses, the type, a VLAN tag.
pub const HEAD: usize = 16;

/// A frame's first bytes as they were copied and decided on. They go out, and not what the sender made of them since.
pub type Head = [u8; HEAD];

/// A run of lent bytes: pointer and validated length.
#[derive(Debug, Clone, Copy)]
pub struct Seg {
    ptr: NonNull<u8>,
    len: u32,
    /// Bytes in front of `ptr` that are lent as well and that nobody changes.
    front: u32,
}

impl Seg {
    /// Names no byte.
    pub const EMPTY: Self = Self { ptr: NonNull::dangling(), len: 0, front: 0 };

    /// Names `len` bytes at `ptr`.
    ///
    /// # Safety
    /// `ptr..ptr+len` must be mapped and readable until the burst that holds this segment is given back. The bytes
    /// may be changed by others meanwhile; every access is therefore a raw copy.
    #[inline]
    pub const unsafe fn new(ptr: NonNull<u8>, len: u32) -> Self {
        Self { ptr, len, front: 0 }
    }

    /// The part behind the first `n` bytes, a header, which [`Seg::with_front`] can bring back. Not for a guest's
    /// memory: who compares the header and then sends it must send what it compared.
    #[must_use]
    pub fn behind(&self, n: usize) -> Self {
        let rest = self.slice(n, self.len());
        Self { front: (self.len() - rest.len()) as u32, ..rest }
    }

    /// The same run with the `n` bytes in front of it, if it came from [`Seg::behind`] and has that many there.
    #[must_use]
    pub fn with_front(&self, n: usize) -> Option<Self> {
        if n > self.front as usize {
            return None;
        }
        // SAFETY: `behind` moved `ptr` by at least `n` bytes within the run.
        Some(Self { ptr: unsafe { self.ptr.sub(n) }, len: self.len + n as u32, front: self.front - n as u32 })
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the segment names no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Start of the bytes; for iovecs and ring descriptors.
    #[must_use]
    pub const fn ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// The part from `from` on, at most `len` bytes; empty when `from` lies behind the end.
    #[must_use]
    #[inline]
    pub fn slice(&self, from: usize, len: usize) -> Self {
        let from = from.min(self.len());
        let len = len.min(self.len() - from) as u32;
        // SAFETY: from <= self.len, so the sum stays inside (or one past the end of) the validated run.
        let ptr = unsafe { self.ptr.add(from) };
        Self { ptr, len, front: if from == 0 { self.front } else { 0 } }
    }

    /// What comes behind the first `n` bytes, if there are as many.
    #[inline]
    #[must_use]
    pub const fn after(&self, n: u32) -> Option<Self> {
        if n > self.len {
            return None;
        }
        // SAFETY: n <= self.len, so the sum stays inside (or one past the end of) the validated run.
        Some(Self { ptr: unsafe { self.ptr.add(n as usize) }, len: self.len - n, front: 0 })
    }

    /// Copies bytes from offset `from` into `to`; returns how many there were.
    pub fn copy_to(&self, from: usize, to: &mut [u8]) -> usize {
        let part = self.slice(from, to.len());
        // SAFETY: `part` lies inside the run that the constructor's contract keeps readable; `to` is ours and cannot
        // overlap lent memory, which no reference ever points to.
        unsafe { std::ptr::copy_nonoverlapping(part.ptr(), to.as_mut_ptr(), part.len()) };
        part.len()
    }

    /// Copies the first `N` bytes, if there are as many. `N` is constant, so these are a few wide moves.
    #[inline]
    pub const fn copy_first<const N: usize>(&self, to: &mut [u8; N]) -> bool {
        if N > self.len() {
            return false;
        }
        // SAFETY: as `copy_to`; the run has that many bytes.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr(), to.as_mut_ptr(), N) };
        true
    }

    /// Copies the first 16 bytes, if there are as many, as two little-endian words.
    #[inline]
    #[must_use]
    pub const fn first_words(&self) -> Option<[u64; 2]> {
        if self.len < 16 {
            return None;
        }
        let words = self.ptr.as_ptr().cast::<u64>();
        // SAFETY: as `copy_to`; the run has that many bytes. In two loads, since bytes in an array would pass through the stack.
        let [low, high] = unsafe { [words.read_unaligned(), words.add(1).read_unaligned()] };
        Some([u64::from_le(low), u64::from_le(high)])
    }

    /// Begins to load the first `bytes` bytes into the cache.
    #[inline]
    pub fn prefetch(&self, bytes: usize) {
        for at in (0..bytes).step_by(64) {
            prefetch::read_at(self.ptr().wrapping_add(at));
        }
    }

    /// Adds the bytes to a checksum, where they lie.
    pub fn sum(&self, sum: &mut Sum) {
        // SAFETY: the constructor's contract keeps the run readable.
        unsafe { sum.add_raw(self.ptr(), self.len()) }
    }
}

/// One frame of a burst: its virtio-net header and where its bytes are.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Checksum and segmentation state that travels with the frame.
    pub hdr: VnetHdr,
    /// Bytes of the Ethernet frame (header without FCS).
    pub len: u32,
    /// How many frames of the source this one stands for: more than 1 when coalesced, 0 for all but the last
    /// segment of a segmented one (one whose rest was lost did not arrive). Counters add this.
    pub weight: u32,
    /// Index of the first segment in [`Burst::segs`].
    first: u32,
    /// Number of segments.
    count: u32,
}

impl Frame {
    const EMPTY: Self = Self { hdr: VnetHdr::NONE, len: 0, weight: 1, first: 0, count: 0 };

    /// A frame outside any burst, without segments.
    #[must_use]
    pub const fn alone(hdr: VnetHdr, len: u32, weight: u32) -> Self {
        Self { hdr, len, weight, first: 0, count: 0 }
    }

    /// Length in bytes of the Ethernet frame.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the frame has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Up to [`BURST`] lent frames that move together. Allocated once a worker, refilled every time.
#[derive(Debug)]
pub struct Burst {
    frames: Box<[Frame; BURST]>,
    len: usize,
    segs: Box<[Seg; SEGMENTS]>,
    used: usize,
    /// Bytes of all frames.
    bytes: u64,
    /// Whether some frame has something for an offload to do.
    offloads: bool,
}

// SAFETY: a burst only names memory; who fills it answers for the memory's life, and it moves between threads only
// before the worker starts (empty).
unsafe impl Send for Burst {}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Burst {
    /// An empty burst; the only allocation it ever makes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            frames: Box::new([Frame::EMPTY; BURST]),
            len: 0,
            segs: Box::new([Seg::EMPTY; SEGMENTS]),
            used: 0,
            bytes: 0,
            offloads: false,
        }
    }

    /// Number of frames.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no frame.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a frame of `segs` more segments fits.
    #[must_use]
    pub const fn has_room(&self, segs: usize) -> bool {
        self.len < BURST && self.used + segs <= SEGMENTS
    }

    /// Forgets all frames.
    pub const fn clear(&mut self) {
        self.len = 0;
        self.used = 0;
        self.bytes = 0;
        self.offloads = false;
    }

    /// Bytes of the first `n` frames.
    #[inline]
    #[must_use]
    pub fn bytes(&self, n: usize) -> u64 {
        if n >= self.len {
            return self.bytes;
        }
        self.frames().iter().take(n).map(|frame| u64::from(frame.len)).sum()
    }

    /// Whether a frame came that leaves something to do to an offload: a checksum, or its segmentation.
    #[inline]
    #[must_use]
    pub const fn has_offloads(&self) -> bool {
        self.offloads
    }

    #[inline]
    const fn account(&mut self, hdr: &VnetHdr, len: u32) {
        self.bytes += len as u64;
        self.offloads |= hdr.has_work();
    }

    /// Appends a frame of these segments. Returns false, changing nothing, when it does not fit.
    #[inline]
    pub fn push(&mut self, hdr: VnetHdr, segs: &[Seg]) -> bool {
        if !self.has_room(segs.len()) {
            return false;
        }
        let first = self.used;
        let mut len = 0;
        for (slot, seg) in self.segs[first..].iter_mut().zip(segs) {
            *slot = *seg;
            len += seg.len;
        }
        self.used += segs.len();
        self.account(&hdr, len);
        self.frames[self.len] = Frame { hdr, len, weight: 1, first: first as u32, count: segs.len() as u32 };
        self.len += 1;
        true
    }

    /// As [`Burst::push`], of a frame of one segment.
    #[inline]
    pub fn push_one(&mut self, hdr: VnetHdr, seg: Seg) -> bool {
        let (Some(frame), Some(slot)) = (self.frames.get_mut(self.len), self.segs.get_mut(self.used)) else {
            return false;
        };
        let len = seg.len;
        *slot = seg;
        *frame = Frame { hdr, len, weight: 1, first: self.used as u32, count: 1 };
        self.used += 1;
        self.len += 1;
        self.account(&hdr, len);
        true
    }

    /// As [`Burst::push_one`] for a run of items: `each` makes the header and the segment of the next one, or ends the run. How many
    /// frames there were.
    #[inline]
    pub fn fill<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut each: impl FnMut(T) -> Option<(VnetHdr, Seg)>,
    ) -> usize {
        // What changes is kept outside of the burst, or every frame would wait for the stores of the one before.
        let (mut n, mut bytes, mut offloads, first) = (0, 0, false, self.used);
        let frames = self.frames.get_mut(self.len..).unwrap_or_default();
        let segs = self.segs.get_mut(first..).unwrap_or_default();
        for ((frame, slot), item) in frames.iter_mut().zip(segs).zip(items) {
            let Some((hdr, seg)) = each(item) else { break };
            *slot = seg;
            *frame = Frame { hdr, len: seg.len, weight: 1, first: (first + n) as u32, count: 1 };
            bytes += u64::from(seg.len);
            offloads |= hdr.has_work();
            n += 1;
        }
        self.len += n;
        self.used += n;
        self.bytes += bytes;
        self.offloads |= offloads;
        n
    }

    /// Makes this the frames of `from`, but with other first bytes: `N` of each lie side by side in `heads`. Frames in several pieces, shorter
    /// ones and those that `heads` has no bytes of have no byte here; they are returned, for [`Burst::place`].
    #[inline]
    pub fn rehead<const N: usize>(&mut self, from: &Self, heads: Seg) -> Mask {
        let mut left = Mask::NONE;
        let segs = self.segs.chunks_exact_mut(2);
        for (i, ((to, segs), frame)) in self.frames.iter_mut().zip(segs).zip(from.frames()).enumerate() {
            let head = heads.slice(i * N, N);
            let (&[part], [first, second]) = (from.segs(frame), segs) else {
                left.0 |= 1 << i;
                *to = Frame::EMPTY;
                continue;
            };
            if part.len() <= N || head.len() < N {
                left.0 |= 1 << i;
                *to = Frame::EMPTY;
                continue;
            }
            (*first, *second) = (head, part.slice(N, part.len()));
            *to = Frame { first: 2 * i as u32, count: 2, ..*frame };
        }
        (self.len, self.used) = (from.len, 2 * from.len);
        (self.bytes, self.offloads) = (from.bytes, from.offloads);
        left
    }

    /// Puts a frame at a place of a burst that [`Burst::rehead`] made: `head`, and behind it what `from` has of `frame` behind its first `skip` bytes. Returns
    /// false, changing nothing, when it does not fit.
    #[inline]
    pub fn place(
        &mut self,
        at: usize,
        hdr: VnetHdr,
        head: Seg,
        from: &Self,
        frame: &Frame,
        skip: usize,
    ) -> bool {
        let (first, parts) = (self.used, from.segs(frame));
        let (true, Some(place), Some(segs)) =
            (at < self.len, self.frames.get_mut(at), self.segs.get_mut(first..first + parts.len() + 1))
        else {
            return false;
        };
        let (mut skip, mut len, mut count) = (skip, head.len, 1);
        segs[0] = head;
        for part in parts {
            let rest = part.slice(skip, part.len());
            skip -= part.len() - rest.len();
            if !rest.is_empty() {
                segs[count] = rest;
                count += 1;
                len += rest.len;
            }
        }
        *place = Frame { hdr, len, weight: frame.weight, first: first as u32, count: count as u32 };
        self.used += count;
        self.account(&hdr, len);
        true
    }

    /// Sets the weight of the frame pushed last.
    pub fn weigh(&mut self, weight: u32) {
        if let Some(last) = self.len.checked_sub(1).and_then(|i| self.frames.get_mut(i)) {
            last.weight = weight;
        }
    }

    /// The frames, in order of arrival.
    #[must_use]
    #[inline]
    pub fn frames(&self) -> &[Frame] {
        &self.frames[..self.len]
    }

    /// The frames with their headers open to change (offload state only).
    pub fn frames_mut(&mut self) -> &mut [Frame] {
        &mut self.frames[..self.len]
    }

    /// The segments of one of this burst's frames.
    #[must_use]
    #[inline]
    pub fn segs(&self, frame: &Frame) -> &[Seg] {
        &self.segs[frame.first as usize..(frame.first + frame.count) as usize]
    }

    /// Copies the first 16 bytes of one of this burst's frames, if they lie in one piece, as two little-endian words.
    #[inline]
    #[must_use]
    pub fn first_words(&self, frame: &Frame) -> Option<[u64; 2]> {
        let part = self.segs.get(frame.first as usize)?;
        if frame.count == 0 { None } else { part.first_words() }
    }

    /// Copies bytes of `frame` from offset `from` into `to`; returns how many there were.
    pub fn copy_out(&self, frame: &Frame, mut from: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        for seg in self.segs(frame) {
            if from >= seg.len() {
                from -= seg.len();
                continue;
            }
            done += seg.copy_to(from, &mut to[done..]);
            from = 0;
            if done == to.len() {
                break;
            }
        }
        done
    }

    /// Calls `each` with the parts of `frame` that make up bytes `from..from+len`.
    pub fn parts(&self, frame: &Frame, mut from: usize, mut len: usize, mut each: impl FnMut(Seg)) {
        for seg in self.segs(frame) {
            if len == 0 {
                return;
            }
            if from >= seg.len() {
                from -= seg.len();
                continue;
            }
            let part = seg.slice(from, len);
            from = 0;
            len -= part.len();
            each(part);
        }
    }

    /// A mask of all frames.
    #[must_use]
    pub const fn all(&self) -> Mask {
        Mask::first(self.len)
    }
}

/// A subset of a burst's frames: bit i is frame i.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mask(pub u64);

impl Mask {
    /// No frame.
    pub const NONE: Self = Self(0);

    /// The first `n` frames.
    #[must_use]
    pub const fn first(n: usize) -> Self {
        if n >= 64 { Self(u64::MAX) } else { Self((1 << n) - 1) }
    }

    /// Number of frames selected.
    #[must_use]
    pub const fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether none is selected.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether frame `i` is selected.
    #[must_use]
    pub const fn has(self, i: usize) -> bool {
        self.0 >> i & 1 == 1
    }

    /// The selected indices, lowest first.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            Some(i)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seg(bytes: &[u8]) -> Seg {
        // SAFETY: the bytes outlive the test's burst.
        unsafe { Seg::new(NonNull::from(bytes).cast(), bytes.len() as u32) }
    }

    #[test]
    fn a_filled_burst_is_as_one_that_was_pushed() {
        let bytes = [7u8; 100];
        let (mut filled, mut pushed) = (Burst::new(), Burst::new());
        let hdr = |i: &usize| VnetHdr { flags: (*i == 3).into(), ..VnetHdr::NONE };
        let items: Vec<_> = (0..100).collect();
        assert!(pushed.push(VnetHdr::NONE, &[seg(&bytes[..9]), seg(&bytes[..5])]));
        assert!(filled.push(VnetHdr::NONE, &[seg(&bytes[..9]), seg(&bytes[..5])]));
        let some = filled.fill(items.iter(), |i| (*i < 3).then(|| (hdr(i), seg(&bytes[*i..]))));
        assert_eq!((some, filled.has_offloads()), (3, false));
        let rest = filled.fill(items[3..].iter(), |i| Some((hdr(i), seg(&bytes[*i..]))));
        assert_eq!((rest, filled.has_offloads()), (BURST - 4, true), "the burst is full");
        assert!(
            items.iter().take_while(|i| pushed.push_one(hdr(i), seg(&bytes[**i..]))).count() == BURST - 1
        );
        for (a, b) in filled.frames().iter().zip(pushed.frames()) {
            assert_eq!((a.hdr, a.len, a.weight), (b.hdr, b.len, b.weight));
            assert!(
                filled
                    .segs(a)
                    .iter()
                    .map(|s| (s.ptr(), s.len()))
                    .eq(pushed.segs(b).iter().map(|s| (s.ptr(), s.len())))
            );
        }
        assert_eq!(filled.bytes(BURST), pushed.frames().iter().map(|f| u64::from(f.len)).sum::<u64>());
        assert_eq!(filled.bytes(2), 14 + 100);
    }

    #[test]
    fn what_comes_after_a_header_is_the_rest() {
        let bytes = [1u8, 2, 3];
        let one = seg(&bytes);
        assert_eq!(one.after(1).map(|s| (s.ptr(), s.len())), Some((bytes[1..].as_ptr(), 2)));
        assert_eq!(one.after(3).map(|s| s.len()), Some(0));
        assert!(one.after(4).is_none());
    }
}
