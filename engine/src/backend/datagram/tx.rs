//! Transmitting: a burst in one system call, datagrams of one length in one message.

use super::Shared;
use super::framing::Framing;
use super::outlet::{Outlet, never};
use super::rx::is_answer;
use super::spread::Spread;
use crate::backend::account::Account;
use crate::burst::{BURST, Burst, Mask};
use crate::port::counters::{DropReason, PortCounters};
use crate::port::{Caps, Turn, TxQueue};
use crate::uring::FileId;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Nanoseconds after which a refused message is tried again although the socket has not said that there is room.
const PATIENCE: u64 = 5_000_000;

/// The first and the longest pause where the kernel tells nobody that there is room, in nanoseconds: the queue of a unix socket that we are not
/// connected to (10 datagrams, unless `net.unix.max_dgram_qlen` says otherwise), and memory. Shorter, and every turn costs a call in vain; longer, and
/// that queue is empty for a while.
const PAUSES: (u64, u64) = (4_000, 200_000);

/// Datagrams of this length may be parts of one message, until the kernel says otherwise.
const ANY: usize = 65_000;

/// The transmitting half.
pub(super) struct DatagramTx<F> {
    shared: Arc<Shared>,
    framing: F,
    outlet: Outlet,
    /// Where frames leave from, if not from the socket where others arrive.
    spread: Option<Spread>,
    /// Longest datagram that may share a message; 0 for none.
    limit: usize,
    /// The kernel says when there is room.
    told: bool,
    /// Something was refused, and when.
    waits: Option<u64>,
    /// How long to wait where nobody is told.
    pause: u64,
    /// Wait that long, whatever the socket says.
    blind: bool,
    account: Account,
    trouble: i32,
}

/// A socket that sends.
#[derive(Debug, Clone, Copy)]
struct Way {
    fd: RawFd,
    /// Its name on the worker, which tells when there is room.
    id: Option<FileId>,
}

/// What a refusal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Not now: the socket's buffer, or the receiver's, is full.
    Wait,
    /// Not now: memory is short.
    Short,
    /// It tells of an earlier datagram, or nobody is there.
    Answer,
    /// Never.
    Drop(DropReason),
}

/// Wait or drop, by errno (udp(7), unix(7), ip(7)).
const fn verdict(errno: Errno) -> Verdict {
    match errno {
        Errno::EAGAIN => Verdict::Wait,
        Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR => Verdict::Short,
        Errno::EMSGSIZE => Verdict::Drop(DropReason::TooLong),
        // No destination, or a socket that is none any more.
        Errno::EDESTADDRREQ | Errno::ENOTCONN | Errno::EPIPE | Errno::EBADF | Errno::ENOTSOCK => {
            Verdict::Drop(DropReason::NotConnected)
        }
        errno if is_answer(errno) => Verdict::Answer,
        _ => Verdict::Drop(DropReason::TxError),
    }
}

/// Whether this is how the kernel refuses a message of several datagrams that it might take one by one: longer than the path's MTU, a device without
/// checksums, a policy (net/ipv4/udp.c `udp_send_skb`).
const fn is_about_segments(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT)
}

impl<F: Framing> DatagramTx<F> {
    pub(super) fn new(shared: Arc<Shared>, framing: F, outlet: Outlet, segments: bool, told: bool) -> Self {
        Self {
            shared,
            framing,
            outlet,
            spread: None,
            limit: if segments { ANY } else { 0 },
            told,
            waits: None,
            pause: PAUSES.0,
            blind: false,
            account: Account::default(),
            trouble: 0,
        }
    }

    /// Sends by these sockets instead.
    pub(super) fn spread(mut self, spread: Option<Spread>) -> Self {
        self.spread = spread;
        self
    }

    /// Whether nothing can be sent now.
    fn is_blocked(&mut self, turn: &Turn<'_>, id: FileId) -> bool {
        let Some(since) = self.waits else { return false };
        let passed = turn.now.saturating_sub(since);
        let still =
            if self.blind { passed < self.pause } else { passed < PATIENCE && turn.io.waits_writable(id) };
        if !still {
            self.waits = None;
        }
        still
    }

    /// Notes a refusal.
    fn wait(&mut self, turn: &mut Turn<'_>, way: Way, verdict: Verdict) {
        self.waits = Some(turn.now);
        match way.id.filter(|_| self.told && verdict != Verdict::Short) {
            Some(id) => {
                self.blind = false;
                turn.io.want_writable(id);
            }
            None => (self.blind, self.pause) = (true, (self.pause * 2).min(PAUSES.1)),
        }
    }

    /// Sends what is laid out. How many frames are done with; whether it goes on with the next.
    fn send(&mut self, turn: &mut Turn<'_>, way: Way, messages: usize) -> (usize, bool) {
        let (mut next, mut frames, mut asked) = (0, 0, false);
        while next < messages {
            let errno = match self.outlet.send(way.fd, next, messages) {
                Ok(sent) => {
                    for message in next..next + sent {
                        let laid = self.outlet.laid(message);
                        self.account.sent(laid.weight, laid.bytes);
                        frames += laid.frames;
                    }
                    next += sent;
                    (asked, self.pause, self.trouble) = (false, PAUSES.0, 0);
                    if sent == 0 {
                        return (frames, false);
                    }
                    continue;
                }
                Err(errno) => errno,
            };
            let laid = self.outlet.laid(next);
            if laid.frames > 1 && is_about_segments(errno) {
                // Too long for the path: shorter ones may do. Anything else is so for good.
                let too_long = matches!(errno, Errno::EINVAL | Errno::EMSGSIZE);
                self.limit = if too_long { laid.each - 1 } else { 0 };
                return (frames, true);
            }
            match verdict(errno) {
                verdict @ (Verdict::Wait | Verdict::Short) => {
                    self.wait(turn, way, verdict);
                    return (frames, false);
                }
                // Once told it is forgotten. If it comes back, it is of this one: there is nobody, for the rest neither.
                Verdict::Answer if !asked => asked = true,
                Verdict::Answer => {
                    self.trouble = errno as i32;
                    for message in next..messages {
                        let laid = self.outlet.laid(message);
                        self.account.drop(DropReason::NotConnected, laid.weight);
                        frames += laid.frames;
                    }
                    next = messages;
                }
                Verdict::Drop(reason) => {
                    if reason != DropReason::TooLong {
                        self.trouble = errno as i32;
                    }
                    self.account.drop(reason, laid.weight);
                    frames += laid.frames;
                    next += 1;
                    asked = false;
                }
            }
        }
        (frames, true)
    }

    /// Drops the first of the selected frames if it can never be a datagram.
    fn drop_first(&mut self, burst: &Burst, mask: Mask) -> bool {
        let Some(frame) = mask.iter().next().and_then(|i| burst.frames().get(i)) else { return false };
        if !never::<F>(frame, burst.segs(frame)) {
            return false;
        }
        let reason = if frame.is_empty() { DropReason::Malformed } else { DropReason::TooLong };
        self.account.drop(reason, u64::from(frame.weight));
        true
    }

    /// Sends the selected frames by one socket; how many are done with.
    fn tx_by(&mut self, turn: &mut Turn<'_>, way: Way, burst: &Burst, mask: Mask) -> usize {
        let (mut left, mut taken) = (mask, 0);
        while !left.is_empty() && self.waits.is_none() {
            let (laid, messages) = self.outlet.lay(burst, left, &mut self.framing, self.limit);
            if laid == 0 {
                if !self.drop_first(burst, left) {
                    break;
                }
                (left, taken) = (behind(left, 1), taken + 1);
                continue;
            }
            let (gone, on) = self.send(turn, way, messages);
            if gone < laid {
                self.framing.undo(laid - gone);
            }
            (left, taken) = (behind(left, gone), taken + gone);
            if !on {
                break;
            }
        }
        taken
    }

    /// Sends the selected frames, those of each flow by its own socket; how many are done with.
    fn tx_by_flow(&mut self, turn: &mut Turn<'_>, spread: &mut Spread, burst: &Burst, mask: Mask) -> usize {
        let way = |fd| Way { fd, id: None };
        let (several, mut left, mut taken) = (spread.part(burst, mask) > 1, mask, 0);
        if several && spread.holds(burst) {
            let mut next = 0;
            while let Some((fd, part)) = spread.get(next) {
                let gone = self.tx_by(turn, way(fd), burst, part);
                // Memory was short, although the socket had room. Others that stand behind these have gone, so they cannot wait.
                let lost = behind(part, gone);
                self.account.drop(DropReason::TxFull, weight(burst, lost));
                (next, self.waits) = (next + 1, None);
            }
            return mask.count();
        }
        while let Some((fd, run)) = spread.run(left) {
            let gone = self.tx_by(turn, way(fd), burst, run);
            (left, taken) = (behind(left, gone), taken + gone);
            if gone < run.count() {
                break;
            }
        }
        taken
    }
}

/// The selection without its first `n` frames.
fn behind(mut mask: Mask, n: usize) -> Mask {
    for _ in 0..n {
        mask.0 &= mask.0.wrapping_sub(1);
    }
    mask
}

/// Frames that those of a selection stand for.
fn weight(burst: &Burst, mask: Mask) -> u64 {
    mask.iter().filter_map(|i| burst.frames().get(i)).map(|frame| u64::from(frame.weight)).sum()
}

impl<F: Framing> TxQueue for DatagramTx<F> {
    fn start(&mut self, _turn: &mut Turn<'_>) {}

    fn caps(&self) -> Caps {
        F::CAPS
    }

    fn room(&mut self, turn: &mut Turn<'_>, _want: usize) -> usize {
        match self.shared.file.get() {
            Some(id) if self.is_blocked(turn, id) => 0,
            _ => BURST, // without a file they are dropped by name
        }
    }

    fn tx(&mut self, turn: &mut Turn<'_>, burst: &Burst, mask: Mask) -> usize {
        let Some(id) = self.shared.file.get() else { return self.account.refuse(burst, mask) };
        if let Some(mut spread) = self.spread.take() {
            let taken = self.tx_by_flow(turn, &mut spread, burst, mask);
            self.spread = Some(spread);
            return taken;
        }
        self.tx_by(turn, Way { fd: self.shared.fd.as_raw_fd(), id: Some(id) }, burst, mask)
    }
    fn flush(&mut self, _turn: &mut Turn<'_>) {}

    fn notify(&mut self) {}

    fn settle(&mut self, _turn: &mut Turn<'_>, counters: &PortCounters) {
        self.account.settle(counters);
        counters.tx_trouble.store(self.trouble, Ordering::Relaxed);
    }

    fn stop(&mut self, _turn: &mut Turn<'_>) -> bool {
        self.waits = None;
        true // the receiving half closes the file, poll for room included
    }

    fn blocked(&self) -> bool {
        self.waits.is_some()
    }
}
