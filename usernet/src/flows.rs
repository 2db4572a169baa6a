//! The TCP connections that the stack has, as its frames tell of them: the size of segments that the guest takes, and
//! whether both sides have said that they are done.
//!
//! libslirp keeps a connection that the host closed first for ten more seconds (TIME-WAIT, `2 * TCPTV_MSL`), with its descriptor and
//! two buffers of 128 KiB, in a list that it walks from one end to the other for each new connection and in each turn. That is why
//! its connections get slower as closed ones pile up. The wait guards against segments that are still under way: between us and
//! the guest nothing is lost or overtaken, so it is ended at once.

use crate::accepted::Accepted;
use crate::ahead::{Line, TOTAL};
use crate::wire::{ACK, FIN, Packet, RST, SYN, Transport, long, word};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::RawFd;

/// Segments of a guest that does not say how large it takes them (RFC 9293 section 3.7.1).
const DEFAULT: [u16; 2] = [536, 1220];

/// A connection: the guest's end, and the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) guest: (IpAddr, u16),
    pub(crate) peer: (IpAddr, u16),
}

#[derive(Debug, Default)]
struct Flow {
    /// The host's socket, where it is known.
    socket: Option<RawFd>,
    /// What the guest said.
    mss: u16,
    /// What acknowledges the guest's FIN, and that of the stack.
    fins: [Option<u32>; 2],
    /// Whether each was acknowledged.
    done: [bool; 2],
    /// What the guest acknowledged last, and the stack.
    acknowledged: [u32; 2],
    /// What the stack said last of the room that it has.
    window: u16,
    /// What is on its way to the guest.
    line: Line,
}

/// Windows that are larger than this are not asked for again.
const SMALL: u16 = 32_768;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    flows: HashMap<Key, Flow>,
    sockets: HashMap<RawFd, Key>,
    finished: Vec<Key>,
    /// Those whose stack is to hear of what the guest has, and those that ticks are for.
    untold: Vec<Key>,
    ticking: Vec<Key>,
    /// Bytes that are on their way to the guest, or wait for it.
    held: usize,
    /// The smallest segment that the guest has asked for.
    smallest: Option<u16>,
}

impl Key {
    /// Of a frame that the guest sent.
    pub(crate) fn sent(packet: &Packet, frame: &[u8]) -> Key {
        let (source, destination) = packet.addresses(frame);
        Key { guest: (source, word(frame, packet.start)), peer: (destination, word(frame, packet.start + 2)) }
    }

    /// Of one that it gets.
    pub(crate) fn received(packet: &Packet, frame: &[u8]) -> Key {
        let Key { guest, peer } = Key::sent(packet, frame);
        Key { guest: peer, peer: guest }
    }
}

impl Flow {
    /// Does something with what is on its way, of which all flows together have `held` bytes.
    fn line<R>(&mut self, held: &mut usize, work: impl FnOnce(&mut Line, u16) -> R) -> R {
        let before = self.line.bytes();
        self.line.full = *held >= TOTAL;
        let done = work(&mut self.line, self.mss);
        *held = (*held + self.line.bytes()).saturating_sub(before);
        done
    }
}

/// Where the value of the MSS option of a SYN lies (RFC 9293 section 3.2).
pub(crate) fn mss_at(packet: &Packet, frame: &[u8]) -> Option<usize> {
    option_at(packet, frame, 2, 4)
}

/// Where the value of an option lies that has this kind and length.
pub(crate) fn option_at(packet: &Packet, frame: &[u8], kind: u8, length: usize) -> Option<usize> {
    let mut at = packet.start + 20;
    while at < packet.payload {
        match *frame.get(at)? {
            0 => return None,
            1 => at += 1,
            found => {
                let whole = usize::from(*frame.get(at + 1)?);
                if found == kind && whole == length && at + length <= packet.payload {
                    return Some(at + 2);
                }
                at += whole.max(2);
            }
        }
    }
    None
}

impl Flows {
    /// A TCP frame of the guest's. A SYN begins a connection or agrees to one. Whether the stack is to see it; what it makes room for at the guest
    /// is emitted, with the size of its segments. `whole` says that its checksum is, and not left to be completed.
    pub(crate) fn sent(
        &mut self,
        packet: &Packet,
        frame: &mut [u8],
        whole: bool,
        mut emit: impl FnMut(&[u8], u16),
    ) -> bool {
        let key = Key::sent(packet, frame);
        if packet.flags(frame) & SYN != 0 {
            let said = mss_at(packet, frame).map(|at| word(frame, at)).filter(|&mss| mss != 0);
            let mss = said.unwrap_or(DEFAULT[usize::from(packet.six)]);
            if said.is_some() {
                self.smallest = Some(self.smallest.map_or(mss, |smallest| smallest.min(mss)));
            }
            let flow = self.flows.entry(key).or_default();
            flow.line(&mut self.held, |line, _| line.guest_begins(packet, frame));
            *flow =
                Flow { socket: flow.socket, mss, line: std::mem::take(&mut flow.line), ..Flow::default() };
            return true;
        }
        self.step(key, 0, packet, frame);
        let Some(flow) = self.flows.get_mut(&key) else { return true };
        let passes = flow.line(&mut self.held, |line, mss| {
            line.guest_sends(packet, frame, whole, mss, &mut |frame| emit(frame, mss))
        });
        if flow.line.untold() {
            self.untold.push(key);
        }
        passes
    }

    /// A TCP frame of the stack's; what may go to the guest is emitted, with the size of its segments. `accepted` are the sockets whose connections
    /// it has yet to ask for.
    pub(crate) fn received(
        &mut self,
        packet: &Packet,
        frame: &[u8],
        accepted: &mut Accepted,
        mut emit: impl FnMut(&[u8], u16),
    ) {
        let key = Key::received(packet, frame);
        let asks = packet.flags(frame) & (SYN | ACK) == SYN;
        let socket = if asks { accepted.take(&key) } else { None };
        if asks && (socket.is_some() || !self.flows.contains_key(&key)) {
            self.forget(&key);
            self.flows.insert(key, Flow { mss: DEFAULT[usize::from(packet.six)], ..Flow::default() });
            if let Some(socket) = socket {
                self.bind(key, socket);
            }
        } else {
            self.step(key, 1, packet, frame);
        }
        let Some(flow) = self.flows.get_mut(&key) else {
            return emit(frame, self.smallest.unwrap_or(DEFAULT[usize::from(packet.six)]));
        };
        flow.line(&mut self.held, |line, mss| {
            line.stack_sends(packet, frame, mss, &mut |frame| emit(frame, mss));
        });
        if flow.line.untold() {
            self.untold.push(key);
        }
        if flow.line.waits() && !flow.line.ticks {
            flow.line.ticks = true;
            self.ticking.push(key);
        }
    }

    /// Takes note of what ends a connection.
    fn step(&mut self, key: Key, from: usize, packet: &Packet, frame: &[u8]) {
        let flags = packet.flags(frame);
        // Most frames of most connections say nothing of an end.
        let Some(flow) = self.flows.get_mut(&key) else { return };
        if flags & RST != 0 && flow.socket.is_none() {
            return self.forget(&key);
        }
        if flags & ACK != 0 {
            flow.acknowledged[from] = long(frame, packet.start + 8);
            if from == 1 {
                flow.window = word(frame, packet.start + 14);
            }
        }
        if flags & FIN != 0 {
            let length = u32::try_from(packet.bytes()).unwrap_or_default();
            flow.fins[from] = Some(long(frame, packet.start + 4).wrapping_add(length).wrapping_add(1));
        }
        let to = 1 - from;
        if flags & ACK != 0 && flow.fins[to] == Some(long(frame, packet.start + 8)) && !flow.done[to] {
            flow.done[to] = true;
            if flow.done == [true; 2] {
                self.finished.push(key);
            }
        }
    }

    /// What the stack is to hear, each time as an acknowledgement in the guest's name: the number that it awaits, what is acknowledged, the window.
    pub(crate) fn tell(&mut self) -> Vec<(Key, (u32, u32, u16))> {
        let untold = std::mem::take(&mut self.untold);
        let held = &mut self.held;
        let tell = |key: Key| Some((key, self.flows.get_mut(&key)?.line(held, |line, _| line.tell())?));
        untold.into_iter().filter_map(tell).collect()
    }

    /// Whether there is some.
    pub(crate) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether something is on its way to the guest.
    pub(crate) fn ticks(&self) -> bool {
        !self.ticking.is_empty()
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self, mut emit: impl FnMut(&[u8], u16)) {
        let (flows, held) = (&mut self.flows, &mut self.held);
        self.ticking.retain(|key| {
            let Some(flow) = flows.get_mut(key) else { return false };
            flow.line(held, |line, mss| line.tick(mss, &mut |frame| emit(frame, mss)));
            flow.line.ticks = flow.line.waits();
            flow.line.ticks
        });
    }

    /// The largest packet that the guest is known to take; Ethernet's unless it said otherwise.
    pub(crate) fn mtu(&self, six: bool) -> usize {
        let (headers, least) = if six { (60, 1280) } else { (40, 576) };
        self.smallest.map_or(1500, |mss| (usize::from(mss) + headers).max(least))
    }

    /// The stack made this socket for the connection.
    pub(crate) fn bind(&mut self, key: Key, socket: RawFd) {
        if let Some(flow) = self.flows.get_mut(&key) {
            if let Some(before) = flow.socket.replace(socket) {
                self.sockets.remove(&before);
            }
            self.sockets.insert(socket, key);
        }
    }

    /// The stack closes this socket.
    pub(crate) fn closed(&mut self, socket: RawFd) {
        if let Some(key) = self.sockets.get(&socket).copied() {
            self.forget(&key);
        }
    }

    /// The connection of a socket, if the guest was told of a small window last, with what the stack awaits and what the guest acknowledged.
    pub(crate) fn shut(&self, socket: RawFd) -> Option<(Key, [u32; 2])> {
        let key = self.sockets.get(&socket)?;
        let flow = self.flows.get(key)?;
        let &Flow { acknowledged: [guest, stack], window, fins: [None, _], .. } = flow else { return None };
        (window < SMALL && stack != 0).then_some((*key, [stack, guest]))
    }

    /// Whether the stack made a socket for the connection.
    pub(crate) fn has_socket(&self, key: &Key) -> bool {
        self.flows.get(key).is_some_and(|flow| flow.socket.is_some())
    }

    /// Forgets a connection.
    pub(crate) fn forget(&mut self, key: &Key) {
        let Some(flow) = self.flows.remove(key) else { return };
        self.held = self.held.saturating_sub(flow.line.bytes());
        if let Some(socket) = flow.socket {
            self.sockets.remove(&socket);
        }
    }

    /// The connection of a socket.
    pub(crate) fn of_socket(&self, socket: RawFd) -> Option<&Key> {
        self.sockets.get(&socket)
    }

    /// Connections that both sides have ended, each with its socket and the sequence number that the stack awaits of the guest, unless
    /// `busy` says that its socket has yet to take what the guest sent; those are asked about again.
    pub(crate) fn ended(&mut self, busy: impl Fn(RawFd) -> bool) -> Vec<(Key, u32)> {
        let mut ended = Vec::new();
        let flows = &self.flows;
        self.finished.retain(|key| {
            let Some(Flow { socket, fins: [Some(next), _], done: [true, true], .. }) = flows.get(key) else {
                return false;
            };
            if socket.is_some_and(&busy) {
                return true;
            }
            ended.push((*key, *next));
            false
        });
        ended
    }

    /// Connections to `peer` that the guest has ended, with the sequence number that the stack awaits. A stream does not end them from its side.
    pub(crate) fn left(&self, peer: (IpAddr, u16)) -> Vec<(Key, u32)> {
        let left = |(key, flow): (&Key, &Flow)| (key.peer == peer).then_some((*key, flow.fins[0]?));
        self.flows.iter().filter_map(left).collect()
    }

    /// Whether some are to be asked about.
    pub(crate) fn has_ended(&self) -> bool {
        !self.finished.is_empty()
    }
}

/// Whether a frame belongs to a TCP connection.
pub(crate) fn is_tcp(packet: &Packet) -> bool {
    packet.transport == Transport::Tcp
}
