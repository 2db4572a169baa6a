//! Transmitting: a buffer of the same region changes hands, everything else is copied once.

#![allow(unsafe_code)] // writes buffers of the region

use super::Shared;
use super::abi::{MAX_FRAGS, NS_MOREFRAG, NS_REPORT, Slot};
use super::driver::Way;
use super::exchange::{self, movable, swap};
use super::ring::Ring;
use crate::backend::account::Account;
use crate::backend::copy::copy;
use crate::burst::{BURST, Burst, Frame, Mask};
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Turn, TxQueue};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Nanoseconds after which a full ring is looked at although its file has not said that there is room.
const PATIENCE: u64 = 5_000_000;

/// How often the kernel is asked whether it takes frames again, in nanoseconds.
const RETRY: u64 = 1_000_000;

/// How long a queue that is to go waits for its last frames, in nanoseconds.
const LINGER: u64 = 100_000_000;

/// Bytes of the shortest frame to be segmented: Ethernet, IPv4 and UDP headers.
const LARGE: usize = 14 + 20 + 8;

/// The transmitting half of a queue: one ring of a file.
pub(super) struct NetmapTx {
    shared: Arc<Shared>,
    ring: Option<Ring>,
    /// Slots that are written, and that the kernel has not been shown.
    written: u32,
    /// Frames and bytes in them.
    standing: (u64, u64),
    /// Slots that the next frame needs.
    needs: u32,
    /// When the ring was found full.
    waits: Option<u64>,
    account: Account,
    trouble: i32,
    next_try: u64,
    deadline: Option<u64>,
}

/// What became of a frame.
enum Put {
    /// It took so many slots.
    Done(u32),
    /// There are fewer slots than it needs.
    Full(u32),
    /// It can never go.
    Never(DropReason),
}

impl NetmapTx {
    pub(super) fn new(shared: Arc<Shared>, ring: Option<Ring>) -> Self {
        Self {
            shared,
            ring,
            written: 0,
            standing: (0, 0),
            needs: 0,
            waits: None,
            account: Account::default(),
            trouble: 0,
            next_try: 0,
            deadline: None,
        }
    }

    /// Slots that can be written now.
    #[inline]
    fn free(&mut self) -> u32 {
        match self.ring.as_ref().map(Ring::ours) {
            Some(Some(ours)) => ours.saturating_sub(self.written),
            Some(None) => {
                // The kernel stands outside of the ring: nothing in it can be trusted, ever.
                (self.trouble, self.next_try) = (libc::EPROTO, u64::MAX);
                0
            }
            None => 0,
        }
    }

    /// Asks the kernel to send what it was shown, and to say what it has sent.
    #[inline]
    fn sync(&mut self, now: u64) {
        match self.shared.sync(Way::Tx) {
            Ok(()) => self.trouble = 0,
            Err(errno) => (self.trouble, self.next_try) = (errno as i32, now + RETRY),
        }
        if let Some(ring) = self.ring.as_mut().filter(|_| self.written == 0) {
            ring.resume();
        }
    }

    /// Shows the kernel what was written.
    #[inline]
    fn push(&mut self, now: u64) {
        let Some(ring) = &mut self.ring else { return };
        if self.written > 0 {
            // Its completion tells that all before it are sent, too.
            let Slot { buf_idx, len, flags, .. } = ring.slot(self.written - 1);
            ring.put(self.written - 1, buf_idx, len, flags | NS_REPORT);
            ring.advance(std::mem::take(&mut self.written));
        }
        ring.publish(self.waits.is_some());
        self.sync(now);
        let (frames, bytes) = std::mem::take(&mut self.standing);
        if self.trouble == 0 {
            self.account.sent(frames, bytes);
        } else {
            self.account.drop(DropReason::NotConnected, frames);
        }
    }

    /// Whether frames are refused by name: there is no ring, or the kernel takes nothing.
    #[inline]
    fn is_down(&self, now: u64) -> bool {
        self.ring.is_none() || self.shared.file.get().is_none() || (self.trouble != 0 && now < self.next_try)
    }

    /// Writes a frame behind those that are written; there are `free` slots.
    #[inline]
    fn put(&mut self, burst: &Burst, frame: &Frame, free: u32) -> Put {
        let header = self.shared.header;
        let (Some(ring), at) = (&mut self.ring, self.written) else {
            return Put::Never(DropReason::NotConnected);
        };
        if frame.is_empty() {
            return Put::Never(DropReason::Malformed);
        }
        if header > 0 && !makes_sense(frame) {
            return Put::Never(DropReason::BadOffload);
        }
        let (size, total) = (ring.buffer_size(), header + frame.len());
        if total > size {
            let moved = exchange::swap_all(ring, header, at, burst, frame, free);
            return moved.map_or_else(|| several(ring, header, at, burst, frame, free), Put::Done);
        }
        if free == 0 {
            return Put::Full(1);
        }
        if let Some(whole) = movable(header, burst, frame)
            && swap(ring, at, &whole)
        {
            return Put::Done(1);
        }
        let Slot { buf_idx, .. } = ring.slot(at);
        let Some(to) = ring.buffer(buf_idx) else { return Put::Never(DropReason::TxError) };
        let mut done = write_header(header, frame, to);
        for seg in burst.segs(frame) {
            let n = seg.len().min(total - done);
            // SAFETY: the buffer has room for `total` bytes; it is ours, and no lent run lies in it, as what is lent belongs to receive rings.
            unsafe { copy(seg.ptr(), to.as_ptr().add(done), n) };
            done += n;
        }
        ring.put(at, buf_idx, done as u16, 0);
        Put::Done(1)
    }

    /// Begins to wait for `slots` free ones.
    #[inline(never)]
    fn wait(&mut self, turn: &mut Turn<'_>, slots: u32) -> usize {
        self.needs = slots;
        self.waits = Some(turn.now);
        if let Some(ring) = self.ring.as_mut().filter(|_| self.written == 0) {
            // Room is what comes behind all that there is now.
            ring.publish(true);
        }
        if let Some(id) = self.shared.file.get() {
            turn.io.want_writable(id);
        }
        0
    }
}

/// Whether a virtio-net header fits its frame: the kernel computes and segments by it.
#[inline]
fn makes_sense(frame: &Frame) -> bool {
    let hdr = &frame.hdr;
    if !hdr.has_work() {
        return true;
    }
    let end = usize::from(hdr.csum_start) + usize::from(hdr.csum_offset) + 2;
    (!hdr.needs_csum() || end <= frame.len()) && (!hdr.is_gso() || (hdr.gso_size > 0 && frame.len() > LARGE))
}

/// Writes the header of a frame, `header` bytes long.
#[inline]
fn write_header(header: usize, frame: &Frame, to: NonNull<u8>) -> usize {
    if header > 0 {
        let bytes = frame.hdr.encode();
        // SAFETY: a buffer has 64 bytes at least; the number of buffers behind the header is zero on the way in (virtio 1.3, section 5.1.6).
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len());
            to.as_ptr().add(bytes.len()).write_bytes(0, header.saturating_sub(bytes.len()));
        }
    }
    header
}

/// A frame of several slots, all or none.
#[inline(never)]
fn several(ring: &mut Ring, header: usize, at: u32, burst: &Burst, frame: &Frame, free: u32) -> Put {
    let (size, total) = (ring.buffer_size(), header + frame.len());
    let count = total.div_ceil(size);
    if count > MAX_FRAGS || count > ring.most() as usize {
        return Put::Never(DropReason::TooLong);
    }
    let count = count as u32;
    if free < count {
        return Put::Full(count);
    }
    let mut from = 0;
    for n in 0..count {
        let Slot { buf_idx, .. } = ring.slot(at + n);
        let Some(to) = ring.buffer(buf_idx) else { return Put::Never(DropReason::TxError) };
        let mut done = if n == 0 { write_header(header, frame, to) } else { 0 };
        let room = size - done;
        burst.parts(frame, from, room, |seg| {
            // SAFETY: as `put`; `parts` gives at most `room` bytes.
            unsafe { copy(seg.ptr(), to.as_ptr().add(done), seg.len()) };
            done += seg.len();
        });
        from += room;
        let flags = if n + 1 < count { NS_MOREFRAG } else { 0 };
        ring.put(at + n, buf_idx, done as u16, flags);
    }
    Put::Done(count)
}

impl TxQueue for NetmapTx {
    fn start(&mut self, _turn: &mut Turn<'_>) {}

    fn caps(&self) -> Caps {
        if self.shared.header == 0 {
            return Caps::NONE;
        }
        // What a VALE switch can segment for ports without headers (netmap_offloadings.c).
        Caps { csum: true, tso4: true, tso6: true, ecn: true, ufo: true, ..Caps::NONE }
    }

    #[inline]
    fn room(&mut self, turn: &mut Turn<'_>, want: usize) -> usize {
        if self.is_down(turn.now) {
            return BURST; // dropped by name
        }
        if let (Some(since), Some(id)) = (self.waits, self.shared.file.get()) {
            if turn.now.saturating_sub(since) < PATIENCE && turn.io.waits_writable(id) {
                return 0;
            }
            self.waits = None;
        }
        let want = (want.min(BURST) as u32).max(self.needs).max(1);
        let mut free = self.free();
        if free < want {
            self.sync(turn.now);
            free = self.free();
        }
        if self.trouble != 0 {
            return BURST;
        }
        if free < self.needs.max(1) {
            return self.wait(turn, self.needs.max(1));
        }
        self.needs = 0;
        free as usize
    }

    fn tx(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        if self.is_down(turn.now) {
            return self.account.refuse(burst, mask);
        }
        let (mut free, mut taken) = (self.free(), 0);
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            match self.put(burst, frame, free) {
                Put::Done(slots) => {
                    self.written += slots;
                    free -= slots;
                    self.standing.0 += u64::from(frame.weight);
                    self.standing.1 += frame.len() as u64;
                }
                Put::Full(slots) => {
                    self.needs = slots;
                    break;
                }
                Put::Never(reason) => self.account.drop(reason, u64::from(frame.weight)),
            }
            taken += 1;
        }
        taken
    }

    /// A system call for each source would cost more than it gains, and what is lent must not go before everybody has read it.
    #[inline]
    fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.written > 0 {
            turn.io.owe();
        }
    }

    fn notify(&mut self) {}

    fn settle(&mut self, turn: &mut Turn<'_>, counters: &PortCounters) {
        if self.written > 0 {
            self.push(turn.now);
        }
        self.account.settle(counters);
        counters.tx_trouble.store(self.trouble, Ordering::Relaxed);
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        let deadline = *self.deadline.get_or_insert(turn.now + LINGER);
        self.waits = None;
        self.push(turn.now);
        let all = self.ring.as_ref().is_none_or(|ring| ring.ours() == Some(ring.most()));
        all || self.trouble != 0 || turn.now >= deadline
    }

    fn stopped(&mut self, counters: &PortCounters) {
        self.account.settle(counters);
        counters.tx_trouble.store(0, Ordering::Relaxed);
    }

    fn blocked(&self) -> bool {
        self.waits.is_some()
    }
}
