//! One connection: what each side sent that has no twin yet.

use super::compare::Sink;
use super::counters::{Count, Counters};
use super::packet::{Packet, after};
use std::collections::VecDeque;

/// Bytes that a frame is reckoned to take beside its own.
pub(super) const OVERHEAD: usize = size_of::<Packet>();

/// Where frames go that leave a connection.
pub(super) struct Hands<'a> {
    pub(super) sink: &'a mut dyn Sink,
    pub(super) counters: &'a Counters,
    /// Bytes that all connections hold.
    pub(super) held: &'a mut usize,
}

impl Hands<'_> {
    pub(super) fn take(&mut self, packet: &Packet) {
        *self.held += OVERHEAD + packet.bytes.len();
    }

    pub(super) fn forget(&mut self, packet: &Packet) {
        *self.held = self.held.saturating_sub(OVERHEAD + packet.bytes.len());
    }

    pub(super) fn release(&mut self, packet: &Packet) {
        self.forget(packet);
        self.counters.add(Count::Released, 1);
        self.sink.release(&packet.bytes, packet.vnet_len);
    }
}

/// What each side sent that has no twin yet.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// TCP by sequence number, else oldest first.
    pub(super) primary: VecDeque<Packet>,
    pub(super) secondary: VecDeque<Packet>,
    /// TCP only: the newest acknowledgement of each side.
    pub(super) acks: [u32; 2],
    /// TCP only: up to which sequence number all was compared.
    pub(super) compared: Option<u32>,
}

impl Connection {
    /// Takes a frame of the primary. False: the two sides differ.
    pub(super) fn take_primary(&mut self, packet: Packet, hands: &mut Hands<'_>) -> bool {
        let Some(tcp) = packet.tcp else {
            match self.secondary.iter().position(|twin| twin.same(&packet)) {
                Some(at) => {
                    hands.take(&packet);
                    hands.release(&packet);
                    self.secondary.remove(at).iter().for_each(|twin| hands.forget(twin));
                }
                None => {
                    hands.take(&packet);
                    self.primary.push_back(packet);
                }
            }
            return self.primary.is_empty() || self.secondary.is_empty();
        };
        if tcp.syn {
            self.compared = None;
        }
        let [primary, _] = &mut self.acks;
        *primary = tcp.ack;
        hands.take(&packet);
        insert(&mut self.primary, packet);
        self.compare_tcp(hands)
    }

    /// Takes a frame of the secondary. False: the two sides differ.
    pub(super) fn take_secondary(&mut self, packet: Packet, hands: &mut Hands<'_>) -> bool {
        let Some(tcp) = packet.tcp else {
            match self.primary.iter().position(|twin| twin.same(&packet)) {
                Some(at) => self.primary.remove(at).iter().for_each(|twin| hands.release(twin)),
                None => {
                    hands.take(&packet);
                    self.secondary.push_back(packet);
                }
            }
            return self.primary.is_empty() || self.secondary.is_empty();
        };
        let [_, secondary] = &mut self.acks;
        *secondary = tcp.ack;
        hands.take(&packet);
        insert(&mut self.secondary, packet);
        self.compare_tcp(hands)
    }

    /// A checkpoint: both machines are the same now, and so is all that they sent.
    pub(super) fn flush(&mut self, hands: &mut Hands<'_>) {
        self.primary.drain(..).for_each(|packet| hands.release(&packet));
        self.secondary.drain(..).for_each(|packet| hands.forget(&packet));
    }

    /// Whether a frame came before `limit`.
    pub(super) fn holds_older(&self, limit: u64) -> bool {
        let waits = |packet: &&Packet| !packet.tcp.is_some_and(|tcp| tcp.is_done());
        self.primary.iter().chain(self.secondary.iter().filter(waits)).any(|packet| packet.at < limit)
    }
}

/// By sequence number; of the same, in the order in which they came.
fn insert(queue: &mut VecDeque<Packet>, packet: Packet) {
    let number = |packet: &Packet| packet.tcp.map_or(0, |tcp| tcp.seq);
    let seq = number(&packet);
    let behind = queue.iter().rev().take_while(|other| after(number(other), seq)).count();
    queue.insert(queue.len() - behind, packet);
}
