//! Transmitting to a tap: one write a frame, all of a turn in one submission.

use super::Shared;
use crate::backend::account::Account;
use crate::burst::{BURST, Burst, Frame, Mask, Seg};
use crate::mem::pool::PoolFrame;
use crate::port::backlog::Backlog;
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Turn, TxQueue};
use crate::uring::{FileId, Sent, Ticket};
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use std::sync::Arc;

/// Runs of tickets that one turn may have: one for each source that sends here.
const RUNS: usize = 64;
/// Refused frames that are kept at most.
const KEPT_FRAMES: usize = 256;
/// Bytes of refused frames that are kept at most: a burst of 64 KiB frames.
const KEPT_BYTES: usize = 5 << 20;
/// Segments that are handed on when a refused frame is copied.
const SEGS: usize = 2 * crate::burst::BURST;

/// Nanoseconds after which a refused write is tried again although the file has not said that there is room: with a limit
/// of a few bytes the kernel never says so (`sock_writeable` asks for half of it to be free).
const PATIENCE: u64 = 5_000_000;

/// What a frame's write says about later ones.
enum Verdict {
    Wait,
    Drop(DropReason),
}

/// Wait or drop, by errno (tun.c `tun_get_user`, tap.c `tap_get_user`, net/core/sock.c `sock_alloc_send_pskb`).
fn verdict(errno: Errno, len: usize) -> Verdict {
    match errno {
        // The receiver's limit (sndbuf) is reached, or the kernel is short of memory.
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => Verdict::Wait,
        // The interface is down, or gone.
        Errno::EIO | Errno::ENETDOWN | Errno::EBADFD | Errno::EBADF | Errno::ENODEV | Errno::ENXIO => {
            Verdict::Drop(DropReason::NotConnected)
        }
        Errno::EINVAL if len < 14 => Verdict::Drop(DropReason::Malformed),
        Errno::EINVAL => Verdict::Drop(DropReason::BadOffload),
        Errno::EMSGSIZE => Verdict::Drop(DropReason::TooLong),
        _ => Verdict::Drop(DropReason::TxError),
    }
}

/// Transmitting half of a tap queue.
#[derive(Debug)]
pub(super) struct TapTx {
    shared: Arc<Shared>,
    caps: Caps,
    /// The user limits what may wait in the receiver. Then refusals are normal, and each frame is written by itself so
    /// that none overtakes a refused one. Without a limit a refusal means that the kernel has no memory.
    limited: bool,
    /// The file has been asked to say when it can be written to.
    waits: bool,
    /// When it was asked.
    since: u64,
    /// Tickets of this turn: first and number.
    runs: Vec<(u32, u32)>,
    backlog: Backlog,
    account: Account,
}

/// What accounting needs of a frame.
#[derive(Clone, Copy)]
struct Head {
    hdr: VnetHdr,
    weight: u32,
    len: usize,
}

impl From<&Frame> for Head {
    fn from(f: &Frame) -> Self {
        Self { hdr: f.hdr, weight: f.weight, len: f.len() }
    }
}

impl From<&PoolFrame> for Head {
    fn from(f: &PoolFrame) -> Self {
        Self { hdr: f.hdr(), weight: f.weight(), len: f.len() }
    }
}

impl TapTx {
    pub(super) fn new(shared: Arc<Shared>, caps: Caps, limited: bool) -> Self {
        Self {
            shared,
            caps,
            limited,
            waits: false,
            since: 0,
            runs: Vec::with_capacity(RUNS),
            backlog: Backlog::new(KEPT_FRAMES, KEPT_BYTES),
            account: Account::default(),
        }
    }

    /// Queues frames for the turn's submission; what its scratch has no room for is written at once, behind them.
    fn queue(&mut self, turn: &mut Turn<'_>, id: FileId, burst: &Burst, mask: Mask) -> usize {
        for (taken, i) in mask.iter().enumerate() {
            let Some(frame) = burst.frames().get(i) else { return taken };
            let Some(ticket) = self.send(turn, id, burst, frame) else {
                turn.io.flush();
                let rest = mask.iter().skip(taken).fold(0, |rest, i| rest | 1 << i);
                return taken + self.write_each(turn, id, burst, Mask(rest));
            };
            match self.runs.last_mut() {
                Some((first, count)) if *first + *count == ticket.0 => *count += 1,
                _ => self.runs.push((ticket.0, 1)),
            }
        }
        mask.count()
    }

    #[inline]
    fn send(&self, turn: &mut Turn<'_>, id: FileId, burst: &Burst, frame: &Frame) -> Option<Ticket> {
        if self.runs.len() >= RUNS {
            return None;
        }
        let hdr = self.shared.vnet_hdr.then_some(&frame.hdr);
        turn.io.send(id, hdr, frame.weight, burst.segs(frame))
    }

    /// Writes frames one by one; stops at the first that must wait.
    fn write_each(&mut self, turn: &mut Turn<'_>, id: FileId, burst: &Burst, mask: Mask) -> usize {
        for (taken, i) in mask.iter().enumerate() {
            let Some(frame) = burst.frames().get(i) else { return taken };
            if !self.write_one(turn, id, frame.into(), burst.segs(frame)) {
                return taken;
            }
        }
        mask.count()
    }

    /// Writes one frame now and accounts for it; false when it must wait.
    fn write_one(&mut self, turn: &mut Turn<'_>, id: FileId, head: Head, segs: &[Seg]) -> bool {
        let hdr = self.shared.vnet_hdr.then_some(&head.hdr);
        match turn.io.write_now(id, hdr, segs) {
            Ok(_) => self.account.sent(u64::from(head.weight), head.len as u64),
            Err(errno) => match verdict(errno, head.len) {
                Verdict::Wait => {
                    self.waits = true;
                    self.since = turn.now;
                    turn.io.want_writable(id);
                    return false;
                }
                Verdict::Drop(reason) => self.account.drop(reason, u64::from(head.weight)),
            },
        }
        true
    }

    /// Takes in one result.
    fn account(&mut self, turn: &mut Turn<'_>, ticket: Ticket) {
        let Some(sent) = turn.io.sent(ticket) else { return };
        match sent.result {
            Some(Ok(_)) => self.account.sent(u64::from(sent.weight), sent.len as u64),
            Some(Err(errno)) => match verdict(errno, sent.len) {
                Verdict::Wait => self.keep(turn, ticket, &sent),
                Verdict::Drop(reason) => self.account.drop(reason, u64::from(sent.weight)),
            },
            None => self.account.drop(DropReason::TxError, u64::from(sent.weight)), // settled before it was submitted: a fault of the caller
        }
    }

    /// Copies a refused frame to the backlog.
    fn keep(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sent: &Sent) {
        if !self.backlog.has_room(sent.len) {
            return self.account.drop(DropReason::TxFull, u64::from(sent.weight));
        }
        let mut segs = [const { None }; SEGS];
        let mut n = 0;
        turn.io.sent_segs(ticket, |seg| {
            if let Some(slot) = segs.get_mut(n) {
                *slot = Some(seg);
            }
            n += 1;
        });
        let copy =
            if n > SEGS { None } else { turn.pool.gather_from(sent.hdr, sent.len, segs.iter().flatten()) };
        let Some(mut copy) = copy else {
            return self.account.drop(DropReason::NoBuffer, u64::from(sent.weight));
        };
        copy.set_weight(sent.weight);
        if let Err((copy, reason)) = self.backlog.push_owned(copy) {
            turn.pool.give(copy);
            self.account.drop(reason, u64::from(sent.weight));
        }
    }

    /// Whether nothing can be written now. Tries kept frames again first, in order.
    fn is_blocked(&mut self, turn: &mut Turn<'_>, id: FileId) -> bool {
        if self.waits && turn.now.saturating_sub(self.since) < PATIENCE && turn.io.waits_writable(id) {
            return true;
        }
        self.waits = false;
        while let Some(frame) = self.backlog.front() {
            let (head, seg) = (frame.into(), frame.seg());
            if !self.write_one(turn, id, head, &[seg]) {
                return true;
            }
            self.backlog.done(turn.pool, 1);
        }
        false
    }
}

impl TxQueue for TapTx {
    fn start(&mut self, _turn: &mut Turn<'_>) {}

    fn caps(&self) -> Caps {
        self.caps
    }

    fn room(&mut self, turn: &mut Turn<'_>, _want: usize) -> usize {
        let Some(id) = self.shared.file.get() else { return BURST }; // dropped by name
        if self.is_blocked(turn, id) || self.runs.len() >= RUNS {
            return 0;
        }
        turn.io.send_room()
    }

    fn tx(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        let Some(id) = self.shared.file.get() else { return self.account.refuse(burst, mask) };
        if self.limited {
            return self.write_each(turn, id, burst, mask);
        }
        self.queue(turn, id, burst, mask)
    }

    fn flush(&mut self, _turn: &mut Turn<'_>) {}

    fn notify(&mut self) {}

    fn settle(&mut self, turn: &mut Turn<'_>, counters: &PortCounters) {
        for run in 0..self.runs.len() {
            let Some(&(first, count)) = self.runs.get(run) else { break };
            for ticket in first..first + count {
                self.account(turn, Ticket(ticket));
            }
        }
        self.runs.clear();
        if let Some(id) = self.shared.file.get() {
            self.is_blocked(turn, id);
        }
        self.account.settle(counters);
    }

    fn stop(&mut self, turn: &mut Turn<'_>) -> bool {
        self.runs.clear();
        self.waits = false;
        self.backlog.clear(turn.pool);
        true // the receiving half closes the file, poll for room included
    }

    fn blocked(&self) -> bool {
        self.waits || !self.backlog.is_empty()
    }
}
