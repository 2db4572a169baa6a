//! From the socket: frames are lent where the kernel put them.

#![allow(unsafe_code)] // lends chunks of the UMEM

use super::held::Held;
use super::{PARTS, Place, RING, Transport};
use crate::backend::signal::Signal;
use crate::burst::{BURST, Burst, Seg};
use crate::mem::chunks::{Chunks, SharedUmem};
use crate::port::counters::DropReason;
use crate::port::pace::{Pace, Terms};
use crate::port::{Doze, RxQueue, Source, Turn};
use crate::prefetch;
use crate::wire::vnet_hdr::VnetHdr;
use af_xdp::{Desc, Fill, Rx};
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of the shortest frame that can be switched.
const ETH_HEADER: usize = 14;

/// Nanoseconds between looks of ours at a queue that had nothing, where we poll it ourselves. Each is a system call of 200 nanoseconds at least: more
/// often, and other ports of the worker pay; less often, and frames wait.
const LOOK: u64 = 2_000;

/// How long frames gather, as NICs moderate their interrupts: those of less than half a million a second never. One at a time they cost a turn each,
/// and a system call each to send them on. Measured with 0.63 million frames of 64 bytes a second over veth: 450 cycles a frame to receive them
/// without, 64 with it; 4,080 to forward them, 2,320 with it; TCP between two kernels 2.9 and 3.4 Gbit/s, ping the same.
const GATHER: Terms = Terms { enough: 12, patience: 24_000, window: 4_000 };

/// The receiving half of a queue.
pub(super) struct AfXdpRx<T> {
    fill: Fill,
    rx: Rx,
    /// Watched while the worker may sleep. Goes before the socket does.
    signal: Signal,
    link: Arc<T>,
    umem: Arc<SharedUmem>,
    at: Place,
    /// We take frames through the driver ourselves.
    polls: bool,
    next_look: u64,
    pace: Pace,
    /// Chunks that the fill ring should have and has not.
    owed: u32,
    /// Descriptors of each frame of the last burst.
    lent: [u8; BURST],
    frames: usize,
    malformed: u64,
    trouble: i32,
}

/// What stands at the front.
enum Next {
    /// A frame of so many descriptors, which is in the burst now.
    Frame(u32),
    /// So many descriptors that are no frame.
    Malformed(u32),
    /// A burst that is full, or a frame of which the rest is to come.
    Later,
}

impl<T: Transport> AfXdpRx<T> {
    /// Nothing is in the fill ring yet.
    pub(super) fn new(
        (fill, rx): (Fill, Rx),
        link: Arc<T>,
        umem: Arc<SharedUmem>,
        held: Arc<Held>,
        polls: bool,
        signal: Signal,
    ) -> Self {
        Self {
            fill,
            rx,
            signal,
            link,
            umem,
            at: Place::nowhere(held),
            polls,
            next_look: 0,
            pace: Pace::new(GATHER),
            owed: RING,
            lent: [0; BURST],
            frames: 0,
            malformed: 0,
            trouble: 0,
        }
    }

    /// Puts free chunks into the fill ring until it has what it should.
    #[inline]
    fn refill(&mut self, books: &mut Chunks) {
        while self.owed > 0 {
            let Some(chunk) = books.take_rx(self.at.member) else { break };
            if !self.fill.push(books.addr(chunk)) {
                books.untake(chunk);
                break;
            }
            self.owed -= 1;
        }
        self.at.held.receives(RING - self.owed);
    }

    /// Shows the fill ring to the kernel, which may have to be told.
    #[inline]
    fn show(&mut self) {
        if self.fill.publish() && self.fill.needs_wakeup() {
            self.look();
        }
    }

    /// The kernel looks at the fill ring, and at the NIC's queue where that is on us.
    #[inline]
    fn look(&mut self) {
        self.trouble = match self.link.receive() {
            Ok(()) | Err(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => 0,
            Err(errno) => errno,
        };
    }

    /// A part of a frame, if its bytes lie in one chunk that this queue received into.
    #[inline]
    fn part(&self, books: &Chunks, desc: &Desc) -> Option<Seg> {
        let first = books.at(desc.addr)?;
        let last = books.at(desc.addr.checked_add(u64::from(desc.len.max(1)) - 1)?)?;
        if first != last || !books.is_rx(first, self.at.member) {
            return None;
        }
        // SAFETY: inside the UMEM, which lives as long as `umem`; the chunk is ours until it goes to the fill ring or to a transmit ring, and both
        // happen after the burst was given back or with it.
        unsafe {
            let bytes: NonNull<u8> = self.umem.umem().start().add(desc.addr as usize);
            Some(Seg::new(bytes, desc.len))
        }
    }

    /// Begins to load what is needed of the oldest `count` descriptors: who holds their chunks, and the first bytes, which another CPU wrote and the
    /// next receiver reads, be it the kernel. One after the other these loads would take longer than all else of ours.
    #[inline]
    fn prefetch(&self, books: &Chunks, count: u32) {
        let start = self.umem.umem().start().as_ptr();
        for i in 0..count {
            let addr = self.rx.get(i).addr;
            books.prefetch(addr);
            prefetch::read_at(start.wrapping_add(addr as usize));
        }
    }

    /// Appends the frame whose first descriptor is the `at`th of `there`.
    #[inline]
    fn next(&self, books: &Chunks, at: u32, there: u32, burst: &mut Burst) -> Next {
        let desc = self.rx.get(at);
        if desc.goes_on() {
            return self.several(books, at, there, burst);
        }
        match self.part(books, &desc) {
            Some(seg) if seg.len() >= ETH_HEADER => {
                if burst.push_one(VnetHdr::NONE, seg) {
                    Next::Frame(1)
                } else {
                    Next::Later
                }
            }
            _ => Next::Malformed(1),
        }
    }

    /// A frame of several chunks.
    #[inline(never)]
    fn several(&self, books: &Chunks, at: u32, there: u32, burst: &mut Burst) -> Next {
        let (mut segs, mut count, mut sane) = ([Seg::EMPTY; PARTS], 0, true);
        loop {
            if at + count >= there {
                // The kernel shows whole frames only; and a frame that fills the ring without an end is none.
                return if count < RING { Next::Later } else { Next::Malformed(count) };
            }
            let desc = self.rx.get(at + count);
            match (self.part(books, &desc), segs.get_mut(count as usize)) {
                (Some(seg), Some(place)) => *place = seg,
                _ => sane = false,
            }
            count += 1;
            if !desc.goes_on() {
                break;
            }
        }
        let parts = segs.get(..count as usize).filter(|_| sane).unwrap_or_default();
        if parts.iter().map(Seg::len).sum::<usize>() < ETH_HEADER {
            return Next::Malformed(count);
        }
        if burst.push(VnetHdr::NONE, parts) { Next::Frame(count) } else { Next::Later }
    }

    /// Gives the oldest `count` descriptors back, and their chunks to the fill ring unless they were moved.
    #[inline]
    fn recycle(&mut self, books: &mut Chunks, count: u32) {
        for i in 0..count {
            let desc = self.rx.get(i);
            let kept = books.at(desc.addr).filter(|chunk| books.is_rx(*chunk, self.at.member));
            match kept {
                Some(chunk) if self.fill.push(books.addr(chunk)) => {}
                // The kernel shows a frame a moment before the place in the fill ring that it used is free.
                Some(chunk) => {
                    books.give_back(chunk);
                    self.owed += 1;
                }
                None => self.owed += 1,
            }
        }
        self.rx.release(count);
        self.refill(books);
    }
}

impl<T: Transport> RxQueue for AfXdpRx<T> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        // A worker has more places than queues can have UMEMs; without one the queue gives nothing, and says so.
        let Some(number) = turn.pool.umems.adopt(&self.umem) else {
            self.trouble = libc::ENOMEM;
            return;
        };
        self.at.umem = number;
        if let Some(books) = turn.pool.umems.get(number) {
            self.refill(books);
        }
        self.show();
        if !self.polls {
            self.signal.start(turn.io);
        }
    }

    fn rx(&mut self, turn: &mut Turn<'_>, want: usize, burst: &mut Burst) {
        self.frames = 0;
        if self.pace.waits(turn.now) {
            return;
        }
        let want = want.min(BURST);
        let there = self.rx.available(want as u32);
        let Some(books) = turn.pool.umems.get(self.at.umem) else { return };
        if self.owed > 0 {
            self.refill(books);
            // With an empty ring no frame would come that shows it later.
            self.show();
        }
        if there == 0 {
            if turn.now >= self.next_look && (self.polls || self.fill.needs_wakeup()) {
                self.next_look = turn.now + LOOK;
                self.fill.publish();
                self.look();
            }
            return;
        }
        let most = there.min(want as u32);
        self.prefetch(books, most);
        self.frames = burst.fill(0..most, |at| {
            let desc = self.rx.get(at);
            let seg = self.part(books, &desc).filter(|seg| seg.len() >= ETH_HEADER && !desc.goes_on())?;
            Some((VnetHdr::NONE, seg))
        });
        self.lent.iter_mut().take(self.frames).for_each(|place| *place = 1);
        // What is not plain.
        let mut at = self.frames as u32;
        while self.frames < want && at < there {
            match self.next(books, at, there, burst) {
                Next::Frame(count) => {
                    if let Some(place) = self.lent.get_mut(self.frames) {
                        *place = count as u8;
                    }
                    self.frames += 1;
                    at += count;
                }
                // Only the oldest can be taken out: behind others it waits for the next burst.
                Next::Malformed(count) => {
                    if self.frames == 0 {
                        self.recycle(books, count);
                        self.malformed += 1;
                        self.show();
                    }
                    break;
                }
                Next::Later => break,
            }
        }
    }

    fn release(&mut self, turn: &mut Turn<'_>, taken: usize) {
        let lent = self.lent.get(..taken.min(self.frames)).unwrap_or_default();
        let (frames, count) = (lent.len() as u64, lent.iter().copied().map(u32::from).sum());
        self.frames = 0;
        if count == 0 {
            return;
        }
        // Frames, not descriptors, and those that a full receiver left only once.
        self.pace.took(turn.now, frames, || true);
        if let Some(books) = turn.pool.umems.get(self.at.umem) {
            self.recycle(books, count);
            self.show();
        }
    }

    fn notify(&mut self) {}

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        // What the kernel still has comes back when the socket is closed.
        self.signal.stop(turn.io)
    }

    fn source(&self) -> Source {
        Source::Polled
    }

    fn pending(&self) -> bool {
        false
    }

    fn doze(&mut self) -> Doze {
        if self.rx.available(1) > 0 { Doze::Stay } else { self.signal.doze() }
    }

    fn drops(&mut self) -> Option<(DropReason, u64)> {
        let n = std::mem::take(&mut self.malformed);
        (n > 0).then_some((DropReason::Malformed, n))
    }

    fn trouble(&self) -> i32 {
        self.trouble
    }
}
