//! Two TCP streams, compared by what they carry and not by how they are cut (QEMU `colo_compare_tcp`, `colo_mark_tcp_pkt`).

use super::connection::{Connection, Hands};
use super::packet::{Packet, after};

/// What a comparison of two segments came to.
enum Mark {
    /// Both are compared to their ends.
    Both,
    /// The primary's is; the secondary's may go on.
    Primary,
    /// The secondary's is; the primary's goes on.
    Secondary,
    /// They differ.
    Differs,
}

impl Connection {
    /// Releases what both sides sent. False: they differ.
    pub(super) fn compare_tcp(&mut self, hands: &mut Hands<'_>) -> bool {
        // Each side's newest acknowledgement: what the primary confirms must be confirmed by the secondary too, or that would never get it again.
        let confirmed = match self.acks {
            [a, b] if after(a, b) => b,
            [a, _] => a,
        };
        while let Some(mut ours) = self.primary.pop_front() {
            loop {
                let Some(mut theirs) = self.secondary.pop_front() else {
                    self.primary.push_front(ours);
                    return true;
                };
                if self.is_compared(&ours) {
                    hands.release(&ours);
                    self.secondary.push_front(theirs);
                    break;
                }
                if self.is_compared(&theirs) {
                    hands.forget(&theirs);
                    continue;
                }
                match mark(&mut ours, &mut theirs, self.compared, confirmed) {
                    Mark::Both => {
                        self.compared = ours.tcp.map(|tcp| tcp.end());
                        hands.release(&ours);
                        hands.forget(&theirs);
                        break;
                    }
                    Mark::Primary => {
                        self.compared = ours.tcp.map(|tcp| tcp.end());
                        hands.release(&ours);
                        self.secondary.push_front(theirs);
                        break;
                    }
                    Mark::Secondary => {
                        self.compared = theirs.tcp.map(|tcp| tcp.end());
                        hands.forget(&theirs);
                    }
                    Mark::Differs => {
                        self.primary.push_front(ours);
                        self.secondary.push_front(theirs);
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Whether nothing of it is left to compare.
    fn is_compared(&self, packet: &Packet) -> bool {
        packet.tcp.is_none_or(|tcp| {
            tcp.is_empty() || self.compared.is_some_and(|compared| !after(tcp.end(), compared))
        })
    }
}

/// Compares what the two have in common.
fn mark(ours: &mut Packet, theirs: &mut Packet, compared: Option<u32>, confirmed: u32) -> Mark {
    let same_payload = ours.payload() == theirs.payload();
    let (Some(p), Some(s)) = (&mut ours.tcp, &mut theirs.tcp) else { return Mark::Differs };
    if p.seq == s.seq && p.end() == s.end() && same_payload {
        return Mark::Both;
    }
    if let Some(compared) = compared {
        p.skip_to(compared);
        s.skip_to(compared);
    }
    if p.position() != s.position() {
        return Mark::Differs;
    }
    let (mine, other) = (ours.rest(), theirs.rest());
    let common = mine.len().min(other.len());
    if mine.get(..common) != other.get(..common) {
        return Mark::Differs;
    }
    let whole = mine.len() == common;
    let (Some(p), Some(s)) = (&mut ours.tcp, &mut theirs.tcp) else { return Mark::Differs };
    if !whole {
        p.done += common;
        return Mark::Secondary;
    }
    if after(p.ack, confirmed) {
        return Mark::Differs;
    }
    s.done += common;
    Mark::Primary
}
