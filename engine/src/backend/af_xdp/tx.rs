//! To the socket: a frame of the same UMEM moves, every other is copied once into a chunk of ours.

#![allow(unsafe_code)] // writes chunks of the UMEM

use super::held::Held;
use super::standing::Standing;
use super::{PARTS, Place, RING, Transport};
use crate::backend::copy::copy;
use crate::backend::tally::Tally;
use crate::burst::{BURST, Burst, Frame, Mask, Seg};
use crate::mem::chunks::{Chunks, SharedUmem};
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Doze, Turn, TxQueue};
use af_xdp::umem::Metadata;
use af_xdp::{Completion, Desc, Tx};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a copied frame begins in its chunk: metadata has room before it, and it begins on a cache line.
const FRONT: usize = 64;

/// Calls in one turn that make the kernel go on sending. In copy mode one moves 32 frames before Linux 6.17, so a full burst needs two; more than a few
/// would hold all other ports up for milliseconds, as a frame costs the kernel a microsecond.
const KICKS: u32 = 4;

/// How often the kernel is asked whether it sends again, in nanoseconds: seldom enough that other ports of the worker do not pay for a system call in
/// every turn.
pub(super) const RETRY: u64 = 1_000_000;

/// How long a queue that is to go waits for its last frames, in nanoseconds.
pub(super) const LINGER: u64 = 100_000_000;

/// The transmitting half of a queue.
pub(super) struct AfXdpTx<T> {
    tx: Tx,
    completion: Completion,
    link: Arc<T>,
    umem: Arc<SharedUmem>,
    at: Place,
    caps: Caps,
    /// A frame may lie in several chunks.
    multi_buffer: bool,
    /// Bytes of the longest frame that the interface takes now; control writes it.
    limit: Arc<AtomicU32>,
    /// Chunks that are under way.
    out: u32,
    /// Frames that are not counted as sent, because they may never be.
    standing: Standing,
    tally: Tally,
    /// Frames whose checksum lies outside of them.
    bad: u64,
    /// The kernel left frames in the ring.
    unsent: bool,
    trouble: i32,
    /// When to ask again, while it refuses.
    next_try: u64,
    deadline: Option<u64>,
}

/// What became of a frame.
enum Put {
    Done,
    /// No chunk, or no entry in the ring.
    Full,
    /// No number of chunks can hold it.
    Never,
    /// Its checksum lies outside of it.
    Bad,
}

impl<T: Transport> AfXdpTx<T> {
    pub(super) fn new(
        (tx, completion): (Tx, Completion),
        link: Arc<T>,
        umem: Arc<SharedUmem>,
        held: Arc<Held>,
        multi_buffer: bool,
        limit: Arc<AtomicU32>,
    ) -> Self {
        let caps = Caps { csum: umem.umem().has_metadata(), ..Caps::NONE };
        Self {
            tx,
            completion,
            link,
            umem,
            at: Place::nowhere(held),
            caps,
            multi_buffer,
            limit,
            out: 0,
            standing: Standing::new(),
            tally: Tally::default(),
            bad: 0,
            unsent: false,
            trouble: 0,
            next_try: 0,
            deadline: None,
        }
    }

    /// Takes back chunks of what was sent.
    #[inline]
    fn reap(&mut self, books: &mut Chunks) {
        let n = self.completion.available(RING);
        for i in 0..n {
            // An address that was never sent changes nothing.
            if books.sent(self.completion.get(i), self.at.member) {
                self.out = self.out.saturating_sub(1);
            }
        }
        self.completion.release(n);
        self.at.held.sends(self.out);
    }

    /// Counts what the kernel took.
    #[inline]
    fn count(&mut self) {
        if !self.standing.is_empty() {
            let pending = self.tx.pending();
            let (frames, bytes) = self.standing.taken(&self.tx, pending);
            self.tally.frames += frames;
            self.tally.bytes += bytes;
        }
    }

    /// Makes the kernel send, as far as it does. What it refuses for another reason than that it cannot now is asked again for ever: the interface
    /// may be up again, and nobody tells a worker.
    #[inline]
    fn kick(&mut self, now: u64) {
        // Without frame memory nothing was ever given to it.
        if self.trouble != 0 && (now < self.next_try || self.at.umem == Place::NOWHERE) {
            return;
        }
        self.unsent = false;
        let mut before = self.tx.pending();
        for _ in 0..KICKS {
            // After a refusal the kernel is asked whatever is in the ring: nothing else tells that it is well again.
            if self.trouble == 0 && (before == 0 || !self.tx.needs_wakeup()) {
                return;
            }
            let answer = self.link.send();
            let left = self.tx.pending();
            match answer {
                Ok(()) => self.trouble = 0,
                // A batch was sent and there is more, or nothing can be sent now: progress tells.
                Err(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => {
                    self.trouble = 0;
                    if left == before {
                        break;
                    }
                }
                Err(errno) => {
                    self.trouble = errno;
                    self.next_try = now + RETRY;
                    break;
                }
            }
            before = left;
        }
        self.unsent = before > 0;
    }

    /// The chunk's bytes from [`FRONT`] on.
    #[inline]
    fn bytes(&self, books: &Chunks, chunk: u32) -> NonNull<u8> {
        // SAFETY: a chunk of the books lies inside the UMEM, and is longer than what stands in front.
        unsafe { self.umem.umem().start().add(books.addr(chunk) as usize + FRONT) }
    }

    /// Bytes of a frame that one chunk takes.
    #[inline]
    fn room_of_chunk(&self) -> usize {
        self.umem.umem().config().chunk as usize - FRONT
    }

    /// Moves the first of the selected frames, as far as each lies in a chunk that can change hands, as nearly all do between sockets: how many
    /// there were.
    #[inline]
    fn move_run(&mut self, books: &mut Chunks, burst: &Burst, mask: Mask, limit: usize) -> usize {
        // What changes is kept outside of self, or every frame would wait for the stores of the one before.
        let (member, mut n, mut bytes, mut weight) = (self.at.member, 0, 0, 0);
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            let &[seg] = burst.segs(frame) else { break };
            if frame.hdr.has_work() || frame.len() > limit {
                break;
            }
            let Some(addr) = books.lent(&seg) else { break };
            if !self.tx.push(Desc { addr, len: frame.len, options: 0 }) {
                break;
            }
            books.move_tx(addr, member);
            self.standing.weigh(frame.weight);
            n += 1;
            bytes += frame.len();
            weight += u64::from(frame.weight);
        }
        self.out += n;
        self.standing.add_run(n, bytes, weight);
        n as usize
    }

    /// Gives a frame to the ring.
    #[inline]
    fn put(&mut self, books: &mut Chunks, burst: &Burst, frame: &Frame) -> Put {
        if frame.hdr.needs_csum() && !self.has_checksum(frame) {
            return Put::Bad;
        }
        match burst.segs(frame) {
            _ if frame.hdr.has_work() => {}
            [seg] => {
                if let Some(addr) = books.lent(seg) {
                    if !self.tx.push(Desc { addr, len: frame.len, options: 0 }) {
                        return Put::Full;
                    }
                    books.move_tx(addr, self.at.member);
                    self.out += 1;
                    return Put::Done;
                }
            }
            segs if self.can_move(books, segs) => return self.move_several(books, segs),
            _ => {}
        }
        if frame.len() > self.room_of_chunk() {
            return self.put_several(books, burst, frame);
        }
        if self.tx.room(1) == 0 {
            return Put::Full;
        }
        let Some(chunk) = books.take_tx(self.at.member) else { return Put::Full };
        let to = self.bytes(books, chunk);
        let mut at = 0;
        for seg in burst.segs(frame) {
            let n = seg.len().min(frame.len() - at);
            // SAFETY: the chunk is ours and has room for the frame; the segments are lent and lie elsewhere, as nobody lends a chunk that is free.
            unsafe { copy(seg.ptr(), to.as_ptr().add(at), n) };
            at += n;
        }
        let options = self.metadata(frame, to);
        self.tx.push(Desc { addr: books.addr(chunk) + FRONT as u64, len: at as u32, options });
        self.out += 1;
        Put::Done
    }

    /// Whether a checksum that is left to the kernel lies in the frame's first chunk. The kernel refuses all others without taking them from the
    /// ring, so one of a guest that lies would be there for ever, and everybody's frames behind it.
    fn has_checksum(&self, frame: &Frame) -> bool {
        let end = usize::from(frame.hdr.csum_start) + usize::from(frame.hdr.csum_offset) + 2;
        end <= frame.len().min(self.room_of_chunk())
    }

    /// What the kernel shall do to a frame, written before it; the options of its descriptor.
    #[inline]
    fn metadata(&self, frame: &Frame, at: NonNull<u8>) -> u32 {
        if !(self.caps.csum && frame.hdr.needs_csum()) {
            return 0;
        }
        // SAFETY: what stands in front of a chunk's frame is ours, and longer than this.
        unsafe { Metadata::checksum(frame.hdr.csum_start, frame.hdr.csum_offset).write_before(at) };
        Desc::METADATA
    }

    /// Whether all parts of a frame lie in chunks that can change hands.
    fn can_move(&self, books: &Chunks, segs: &[Seg]) -> bool {
        let mut last = None;
        // Each in a chunk of its own, as sockets lend them: a chunk changes hands once.
        let apart = segs.iter().all(|seg| {
            let chunk = books.lent(seg).and_then(|addr| books.at(addr));
            chunk.is_some() && std::mem::replace(&mut last, chunk) != chunk
        });
        self.multi_buffer && segs.len() <= PARTS && apart
    }

    /// Moves a frame of several chunks, all or none.
    #[inline(never)]
    fn move_several(&mut self, books: &mut Chunks, segs: &[Seg]) -> Put {
        if (self.tx.room(segs.len() as u32) as usize) < segs.len() {
            return Put::Full;
        }
        for (i, seg) in segs.iter().enumerate() {
            let Some(addr) = books.lent(seg) else { return Put::Never };
            let options = if i + 1 < segs.len() { Desc::CONTINUED } else { 0 };
            self.tx.push(Desc { addr, len: seg.len() as u32, options });
            books.move_tx(addr, self.at.member);
            self.out += 1;
        }
        Put::Done
    }

    /// A frame of several chunks, all or none.
    #[inline(never)]
    fn put_several(&mut self, books: &mut Chunks, burst: &Burst, frame: &Frame) -> Put {
        let room = self.room_of_chunk();
        let parts = frame.len().div_ceil(room);
        if !self.multi_buffer || parts > PARTS {
            return Put::Never;
        }
        if (self.tx.room(parts as u32) as usize) < parts || books.free() < parts {
            return Put::Full;
        }
        for part in 0..parts {
            let Some(chunk) = books.take_tx(self.at.member) else { return Put::Full };
            let to = self.bytes(books, chunk);
            let mut at = 0;
            burst.parts(frame, part * room, room, |seg| {
                // SAFETY: as `put`; `parts` gives at most `room` bytes.
                unsafe { copy(seg.ptr(), to.as_ptr().add(at), seg.len()) };
                at += seg.len();
            });
            let mut options = if part + 1 < parts { Desc::CONTINUED } else { 0 };
            if part == 0 {
                options |= self.metadata(frame, to);
            }
            self.tx.push(Desc { addr: books.addr(chunk) + FRONT as u64, len: at as u32, options });
            self.out += 1;
        }
        Put::Done
    }
}

impl<T: Transport> TxQueue for AfXdpTx<T> {
    fn start(&mut self, turn: &mut Turn<'_>) {
        match turn.pool.umems.adopt(&self.umem) {
            Some(number) => self.at.umem = number,
            None => self.trouble = libc::ENOMEM,
        }
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    #[inline]
    fn room(&mut self, turn: &mut Turn<'_>, want: usize) -> usize {
        let Some(books) = turn.pool.umems.get(self.at.umem) else { return usize::MAX };
        if self.trouble != 0 {
            return usize::MAX; // dropped by name
        }
        let want = want.min(BURST) as u32;
        if self.out + want > RING {
            self.reap(books);
        }
        self.tx.room(want).min(RING.saturating_sub(self.out)).min(books.free() as u32) as usize
    }

    fn tx(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        let Some(books) = turn.pool.umems.get(self.at.umem).filter(|_| self.trouble == 0) else {
            return self.tally.refuse(burst, mask);
        };
        let limit = self.limit.load(Ordering::Relaxed) as usize;
        let mut taken = self.move_run(books, burst, mask, limit);
        for frame in mask.iter().skip(taken).filter_map(|i| burst.frames().get(i)) {
            let before = self.out;
            let put = if frame.len() > limit { Put::Never } else { self.put(books, burst, frame) };
            match put {
                Put::Done => self.standing.add(self.out - before, frame.len(), frame.weight),
                Put::Full => break,
                Put::Never => self.tally.too_long += u64::from(frame.weight),
                Put::Bad => self.bad += u64::from(frame.weight),
            }
            taken += 1;
        }
        taken
    }

    /// Only shows the ring: a system call for each source would cost more than it gains.
    #[inline]
    fn flush(&mut self, turn: &mut Turn<'_>) {
        self.tx.publish();
        turn.io.owe();
    }

    fn notify(&mut self) {}

    fn settle(&mut self, turn: &mut Turn<'_>, counters: &PortCounters) {
        self.tx.publish();
        self.kick(turn.now);
        self.count();
        counters.tx_trouble.store(self.trouble, Ordering::Relaxed);
        if let Some(books) = turn.pool.umems.get(self.at.umem) {
            self.reap(books);
        }
        self.tally.settle(counters);
        if self.bad > 0 {
            counters.count_drop(DropReason::BadOffload, std::mem::take(&mut self.bad));
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        let deadline = *self.deadline.get_or_insert(turn.now + LINGER);
        self.kick(turn.now);
        if let Some(books) = turn.pool.umems.get(self.at.umem) {
            self.reap(books);
        }
        if self.out != 0 && self.trouble == 0 {
            if turn.now < deadline {
                return false;
            }
            self.link.abandon();
        }
        true
    }

    /// Where the NIC takes frames by itself it may take some yet, which are counted as dropped nevertheless.
    fn stopped(&mut self, counters: &PortCounters) {
        self.count();
        self.tally.settle(counters);
        counters.tx_trouble.store(0, Ordering::Relaxed);
        let reason = if self.trouble == 0 { DropReason::PortGone } else { DropReason::NotConnected };
        counters.count_drop(reason, self.standing.give_up());
    }

    fn doze(&mut self) -> Doze {
        Doze::Nap
    }

    /// Also while frames are not counted that the NIC takes by itself.
    fn blocked(&self) -> bool {
        self.unsent || !self.standing.is_empty()
    }
}
