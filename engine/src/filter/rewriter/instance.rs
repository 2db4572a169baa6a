//! The worker's side of a rewriter.

use super::Shared;
use super::conn::Segment;
use super::table::Key;
use crate::burst::{Burst, Frame, Mask};
use crate::filter::hold::{Hold, side};
use crate::filter::{Direction, Filter};
use crate::port::Turn;
use crate::port::counters::Counter;
use crate::wire::bytes::{get16, get32, put16, put32};
use crate::wire::checksum::update32;
use crate::wire::eth;
use crate::wire::ip::{self, Ipv4};
use crate::wire::l4::{TCP_ACK, TCP_CHECK, TCP_SEQ, Tcp};
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Ethernet, and IPv4 and TCP with all options.
const HEADERS: usize = eth::HEADER + 60 + 60;

/// One worker's instance.
pub(super) struct Instance {
    shared: Arc<Shared>,
    holds: [Hold; 2],
    rewritten: Arc<CachePadded<Counter>>,
}

/// What is to be done to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Where the number lies.
    pub(super) at: usize,
    /// Where the checksum lies, if it covers the number.
    pub(super) check: Option<usize>,
    /// To be added.
    pub(super) add: u32,
}

impl Change {
    /// Does it.
    pub(super) fn apply(self, bytes: &mut [u8]) {
        let Some(old) = get32(bytes, self.at) else { return };
        let new = old.wrapping_add(self.add);
        put32(bytes, self.at, new);
        if let Some(at) = self.check
            && let Some(check) = get16(bytes, at)
        {
            put16(bytes, at, update32(check, old, new));
        }
    }
}

/// Which connection a frame belongs to, what it says, and where its TCP header lies; nothing for what is left alone.
fn read(head: &[u8], len: usize, to_guest: bool) -> Option<(Key, Segment, usize)> {
    if get16(head, 12)? != eth::IPV4 {
        return None;
    }
    let b = head.get(eth::HEADER..)?;
    let packet = Ipv4::parse(b, len - eth::HEADER).ok()?;
    if packet.protocol != ip::TCP || packet.is_fragment() {
        return None;
    }
    let at = eth::HEADER + packet.header_len;
    let room = packet.total_len - packet.header_len;
    let tcp = Tcp::parse(head.get(at..)?, room).ok()?;
    let [src, dst] = [get32(b, ip::V4_ADDRS)?, get32(b, ip::V4_ADDRS + 4)?];
    let [client, guest] =
        if to_guest { [(src, tcp.src), (dst, tcp.dst)] } else { [(dst, tcp.dst), (src, tcp.src)] };
    let key = Key {
        addrs: u64::from(client.0) << 32 | u64::from(guest.0),
        ports: u32::from(client.1) << 16 | u32::from(guest.1),
    };
    let data = (room - tcp.header_len) as u32;
    Some((key, Segment { flags: tcp.flags, seq: tcp.seq, ack: tcp.ack, len: data }, at))
}

impl Instance {
    pub(super) fn new(shared: Arc<Shared>, holds: [Hold; 2], rewritten: Arc<CachePadded<Counter>>) -> Self {
        Self { shared, holds, rewritten }
    }

    /// Follows the frame's connection; what is to be done to the frame.
    fn follow(&self, now: u64, direction: Direction, burst: &Burst, frame: &Frame) -> Option<Change> {
        let mut head = [0; HEADERS];
        let seen = burst.copy_out(frame, 0, &mut head);
        let to_guest = direction == Direction::Tx;
        let (key, segment, at) = read(head.get(..seen)?, frame.len(), to_guest)?;
        let track = !self.shared.alone.load(Ordering::Relaxed);
        let add = self.shared.table.pass(key, to_guest, segment, now, track);
        let check = (!frame.hdr.needs_csum()).then_some(at + TCP_CHECK);
        let (at, add) = if to_guest { (at + TCP_ACK, add) } else { (at + TCP_SEQ, add.wrapping_neg()) };
        (add != 0).then_some(Change { at, check, add })
    }
}

impl Filter for Instance {
    #[inline]
    fn frames(&mut self, turn: &mut Turn<'_>, direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        let on = self.shared.settings.sees(direction);
        let at = side(direction);
        if !on && self.holds[at].is_empty() {
            return mask;
        }
        let mut pass = Mask::NONE;
        for i in mask.iter() {
            let Some(frame) = burst.frames().get(i) else { break };
            let change = if on { self.follow(turn.now, direction, burst, frame) } else { None };
            let hold = &mut self.holds[at];
            match change {
                None if hold.is_empty() => pass.0 |= 1 << i,
                None => hold.keep(burst, Mask(1 << i), u64::MAX),
                Some(change) => {
                    self.rewritten.add(1);
                    hold.keep_changed(burst, frame, u64::MAX, |bytes| change.apply(bytes));
                }
            }
        }
        pass
    }

    fn tick(&mut self, _turn: &mut Turn<'_>) {}

    fn lost(&mut self, _kept: u64) -> u64 {
        self.holds.iter_mut().map(Hold::lost).sum()
    }

    fn injects(&self) -> bool {
        true
    }

    fn due(&mut self, _now: u64, direction: Direction) -> usize {
        self.holds[side(direction)].waiting() as usize
    }

    fn lend(&mut self, _turn: &mut Turn<'_>, direction: Direction, want: usize, burst: &mut Burst) {
        self.holds[side(direction)].lend(want, burst, |_| true);
    }

    fn took(&mut self, direction: Direction, n: usize) {
        self.holds[side(direction)].took(n);
    }

    fn gone(&mut self, _turn: &mut Turn<'_>, direction: Direction, n: usize) {
        self.holds[side(direction)].gone(n);
    }
}
