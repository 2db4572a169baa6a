//! The first two passes over a burst in a switch: what its frames say, and where they go.
//!
//! 1. *Classify*: the first bytes of each frame are copied, its VLAN is found, and the places of both addresses in the table begin to
//!    be loaded.
//! 2. *Look up*: receivers become bits in the masks of ports; senders are learned where they are not known.

use super::state::{Count, State};
use super::table::{Learned, Spread, Station, Table, Value, units};
use crate::burst::{BURST, Burst, Frame, HEAD, Head, Mask};
use crate::topology::plan::{PortPlan, SwitchPlan};
use crate::wire::eth;

/// What a frame says.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    source: Station,
    target: Station,
    /// Buckets where they lie as a rule.
    source_at: u32,
    target_at: u32,
}

/// Scratch of both passes.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) heads: [Head; BURST],
    looks: [Look; BURST],
}

impl Looks {
    pub(super) fn new() -> Self {
        Self { heads: [[0; HEAD]; BURST], looks: [Look::default(); BURST] }
    }
}

/// The frames of a burst by what is to become of them, as masks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sorted {
    /// They are switched.
    pub(super) good: u64,
    /// They came with a tag.
    pub(super) tagged: u64,
    /// The port does not carry their VLAN.
    pub(super) vlan: u64,
    /// Their headers are cut off.
    pub(super) malformed: u64,
    /// Their checksum would change what was decided on.
    pub(super) bad: u64,
    /// To everybody in their VLAN.
    pub(super) flood: u64,
    /// Back where they came from.
    pub(super) same: u64,
    /// From a private port to another.
    pub(super) private: u64,
}

/// Copies a frame's first bytes in the way that is not the usual one; false when it has no whole header. What a short frame lacks is 0.
#[cold]
fn gather(burst: &Burst, frame: &Frame, head: &mut Head) -> bool {
    *head = [0; HEAD];
    burst.copy_out(frame, 0, head) >= eth::HEADER
}

/// The two words of a frame's first bytes.
type Words = [u64; HEAD / 8];

#[inline]
const fn head_of([low, high]: Words) -> Head {
    (low as u128 | (high as u128) << 64).to_le_bytes()
}

#[inline]
const fn words_of(head: Head) -> Words {
    let word = u128::from_le_bytes(head);
    [word as u64, (word >> 64) as u64]
}

#[inline]
const fn is_tagged([_, high]: Words) -> bool {
    (high >> 32) as u16 == eth::VLAN.swap_bytes()
}

impl Look {
    #[inline]
    const fn new([low, high]: Words, vlan: u16, spread: Spread) -> Self {
        let (source, target) = (Station::new(low >> 48 | high << 16, vlan), Station::new(low, vlan));
        Self { source, target, source_at: spread.first(source), target_at: spread.first(target) }
    }
}

/// What is to be done about a sender that is not known, or was not heard in this unit of time.
#[inline(never)]
fn learn(look: &Look, (port, from): (u32, &PortPlan), state: &State, now: u64, worker: usize) {
    let (table, source) = (&state.table, look.source);
    let found = table.find_from(look.source_at, source);
    let same = |value: Value| value.port() == port && (value.time() == now || value.is_static());
    if !source.is_one() || found.is_some_and(|found| same(found.value)) {
        return;
    }
    let limits = (port, from.rules.limit);
    let what = match table.learn(table.place(source), source, found, limits, (now, state.ageing)) {
        Learned::Known => return,
        Learned::New => Count::Learned,
        Learned::Moved => Count::Moved,
        Learned::Static => Count::Static,
        Learned::Limit => Count::Limit,
        Learned::Full => Count::TableFull,
    };
    state.count(worker, what, 1);
}

impl Looks {
    /// The first pass.
    #[inline]
    pub(super) fn classify(&mut self, burst: &Burst, mask: Mask, from: &PortPlan, state: &State) -> Sorted {
        let mut sorted = Sorted::default();
        if !from.trunk && from.rules.untagged != 0 {
            sorted.good = self.untagged(burst, mask, from.rules.untagged, &state.table);
        }
        let rest = Mask(mask.0 & !sorted.good);
        if !rest.is_empty() {
            self.any(burst, rest, from, &state.table, &mut sorted);
        }
        if burst.has_offloads() {
            for i in Mask(sorted.good).iter() {
                let Some(frame) = burst.frames().get(i) else { break };
                let header = eth::HEADER + if Mask(sorted.tagged).has(i) { eth::TAG } else { 0 };
                if frame.hdr.needs_csum() && usize::from(frame.hdr.csum_start) < header {
                    sorted.bad |= 1 << i;
                }
            }
            sorted.good &= !sorted.bad;
        }
        sorted
    }

    /// Frames without a tag that lie in one piece, which are all of most bursts; the others are for [`Looks::any`]. A function of its own, as
    /// the loop needs all registers.
    #[inline(never)]
    fn untagged(&mut self, burst: &Burst, mask: Mask, vlan: u16, table: &Table) -> u64 {
        let (spread, mut good) = (table.spread(), 0);
        let Self { heads, looks } = self;
        for i in mask.iter() {
            let (Some(frame), Some(head), Some(look)) =
                (burst.frames().get(i), heads.get_mut(i), looks.get_mut(i))
            else {
                break;
            };
            let Some(words) = burst.first_words(frame) else { continue };
            if is_tagged(words) {
                continue;
            }
            *head = head_of(words);
            *look = Look::new(words, vlan, spread);
            table.prefetch(look.source_at);
            table.prefetch(look.target_at);
            good |= 1 << i;
        }
        good
    }

    /// Frames of any form.
    #[inline(never)]
    fn any(&mut self, burst: &Burst, mask: Mask, from: &PortPlan, table: &Table, sorted: &mut Sorted) {
        let (spread, mut all) = (table.spread(), *sorted);
        let Self { heads, looks } = self;
        for i in mask.iter() {
            let (Some(frame), Some(head), Some(look)) =
                (burst.frames().get(i), heads.get_mut(i), looks.get_mut(i))
            else {
                break;
            };
            let bit = 1 << i;
            match burst.first_words(frame) {
                Some(words) => *head = head_of(words),
                None if gather(burst, frame, head) => {}
                None => {
                    all.malformed |= bit;
                    continue;
                }
            }
            let words = words_of(*head);
            let mut vlan = from.rules.untagged;
            if is_tagged(words) {
                if frame.len() < eth::HEADER + eth::TAG {
                    all.malformed |= bit;
                    continue;
                }
                all.tagged |= bit;
                vlan = tag(head, (words[1] >> 48) as u16, from);
            }
            if vlan == 0 {
                all.vlan |= bit;
                continue;
            }
            *look = Look::new(words, vlan, spread);
            table.prefetch(look.source_at);
            table.prefetch(look.target_at);
            all.good |= bit;
        }
        *sorted = all;
    }

    /// The second pass: senders are learned, and frames become bits of `to`.
    #[inline]
    #[expect(
        clippy::too_many_arguments,
        reason = "what a switch has at hand, and nothing of it belongs together"
    )]
    pub(super) fn look_up(
        &self,
        sorted: &mut Sorted,
        (port, from): (u32, &PortPlan),
        plan: &SwitchPlan,
        state: &State,
        now: u64,
        worker: usize,
        to: &mut Ports,
    ) {
        let now = units(now);
        let (unknown, mut flood) = self.find(sorted.good, port, state, now, to);
        if unknown {
            self.learn(sorted.good, (port, from), state, now, worker);
            // Senders of this burst may be receivers of it.
            to.clear();
            flood = self.find(sorted.good, port, state, now, to).1;
        }
        to.sift(|to, frames| {
            match go(to, (port, from), plan) {
                Go::To => return true,
                Go::Flood => flood |= frames,
                Go::Same => sorted.same |= frames,
                Go::Private => sorted.private |= frames,
            }
            false
        });
        sorted.flood = flood;
    }

    /// Looks both stations of each frame up: whether there is a sender to be learned, and the frames whose receiver is not known; the others
    /// become bits of `to`. A function of its own, as the loop needs all registers.
    #[inline(never)]
    fn find(&self, good: u64, port: u32, state: &State, now: u64, to: &mut Ports) -> (bool, u64) {
        let (table, ageing, heard) = (&state.table, state.ageing, Value::heard(port, now));
        let (mut known, mut flood) = (true, 0);
        for i in Mask(good).iter() {
            let Some(look) = self.looks.get(i) else { break };
            known &= table.is_known(look.source_at, look.source, heard);
            // What the port is, is asked once a burst: a branch on it for each frame would be foreseen wrongly half of the time.
            match table.find_from(look.target_at, look.target) {
                Some(found) if !found.value.is_old(now, ageing) && to.mark(found.value.port(), 1 << i) => {}
                _ => flood |= 1 << i,
            }
        }
        (!known, flood)
    }

    /// Learns senders that are not known, or were not heard in this unit of time.
    #[inline(never)]
    fn learn(&self, good: u64, from: (u32, &PortPlan), state: &State, now: u64, worker: usize) {
        let heard = Value::heard(from.0, now);
        let mut last = Station::default();
        for look in Mask(good).iter().filter_map(|i| self.looks.get(i)) {
            let before = std::mem::replace(&mut last, look.source);
            if !state.table.is_known(look.source_at, look.source, heard) && look.source != before {
                learn(look, from, state, now, worker);
            }
        }
    }

    /// Makes bits of `to` of the frames that go to all ports of their VLAN; returns those that nobody gets.
    #[cold]
    pub(super) fn flood(
        &self,
        flood: u64,
        (port, from): (u32, &PortPlan),
        plan: &SwitchPlan,
        to: &mut Ports,
    ) -> u64 {
        let (mut left, mut nobody) = (flood, 0);
        while left != 0 {
            let vlan = self.vlan(left.trailing_zeros() as usize);
            let same = self.of_vlan(left, |other| other == vlan);
            left &= !same;
            let mut somebody = false;
            for (number, other) in (0..).zip(&plan.ports) {
                let Some(other) = other else { continue };
                let apart = number == port || (from.rules.private && other.rules.private);
                if !apart && other.rules.mirror.is_none() && other.rules.carries(vlan) {
                    to.add(number, same);
                    somebody = true;
                }
            }
            nobody |= if somebody { 0 } else { same };
        }
        nobody
    }

    /// The VLAN of a frame that is switched.
    pub(super) fn vlan(&self, index: usize) -> u16 {
        self.looks.get(index).map_or(0, |look| look.target.vlan())
    }

    /// Those of `mask` whose VLAN is as `which` says.
    pub(super) fn of_vlan(&self, mask: u64, which: impl Fn(u16) -> bool) -> u64 {
        let vlans = Mask(mask).iter().filter(|i| which(self.vlan(*i)));
        vlans.fold(0, |all, i| all | 1 << i)
    }
}

/// The VLAN of a frame with a tag; 0 where the port does not carry it. A tag without a VLAN gets that of the port, and keeps its priority
/// (IEEE 802.1Q, 6.9.1).
#[inline]
fn tag(head: &mut Head, raw: u16, from: &PortPlan) -> u16 {
    let control = raw.swap_bytes();
    let (vlan, untagged) = (control & 0xfff, from.rules.untagged);
    if vlan == 0 {
        let [.., high, low] = head;
        [*high, *low] = (control | untagged).to_be_bytes();
        return untagged;
    }
    if from.trunk && (vlan == untagged || from.rules.tagged.has(vlan)) { vlan } else { 0 }
}

/// Where frames for a receiver go.
#[derive(Debug, Clone, Copy)]
enum Go {
    To,
    Flood,
    Same,
    Private,
}

#[inline]
fn go(to: u32, (port, from): (u32, &PortPlan), plan: &SwitchPlan) -> Go {
    match plan.port(to) {
        _ if to == port => Go::Same,
        Some(other) if other.rules.mirror.is_some() => Go::Flood,
        Some(other) if from.rules.private && other.rules.private => Go::Private,
        Some(_) => Go::To,
        // Of a port that is gone, or of one that this worker does not know yet.
        None => Go::Flood,
    }
}

/// By port: the frames that leave there, without and with a tag.
#[derive(Debug)]
pub(super) struct Ports {
    masks: Box<[[u64; 2]]>,
    /// Ports with frames, in the order in which they got the first one.
    touched: Vec<u32>,
}

impl Ports {
    /// For ports numbered below `count`; allocated here.
    pub(super) fn new(count: usize) -> Self {
        Self { masks: vec![[0; 2]; count].into(), touched: Vec::with_capacity(count) }
    }

    #[inline]
    pub(super) fn add(&mut self, port: u32, frames: u64) {
        self.add_both(port, [frames, 0]);
    }

    /// As [`Ports::add`] while no frame has a form yet; false where it cannot be a port's number.
    #[inline]
    fn mark(&mut self, port: u32, frame: u64) -> bool {
        let Some([plain, _]) = self.masks.get_mut(port as usize) else { return false };
        if *plain == 0 && self.touched.len() < self.touched.capacity() {
            self.touched.push(port);
        }
        *plain |= frame;
        true
    }

    #[inline]
    pub(super) fn add_both(&mut self, port: u32, frames: [u64; 2]) {
        let Some(masks) = self.masks.get_mut(port as usize) else { return };
        if *masks == [0; 2] && frames != [0; 2] && self.touched.len() < self.touched.capacity() {
            self.touched.push(port);
        }
        masks[0] |= frames[0];
        masks[1] |= frames[1];
    }

    /// Keeps the frames of the ports for which `keep` says so.
    #[inline]
    pub(super) fn sift(&mut self, mut keep: impl FnMut(u32, u64) -> bool) {
        let masks = &mut self.masks;
        self.touched.retain(|port| {
            let Some(masks) = masks.get_mut(*port as usize) else { return false };
            let stays = keep(*port, masks[0]);
            if !stays {
                *masks = [0; 2];
            }
            stays
        });
    }

    /// Ports with frames.
    pub(super) const fn len(&self) -> usize {
        self.touched.len()
    }

    /// The `index`th port with frames, and these.
    #[inline]
    pub(super) fn nth(&self, index: usize) -> Option<(u32, [u64; 2])> {
        let port = *self.touched.get(index)?;
        Some((port, *self.masks.get(port as usize)?))
    }

    /// What leaves by a port.
    #[inline]
    pub(super) fn set(&mut self, port: u32, frames: [u64; 2]) {
        if let Some(masks) = self.masks.get_mut(port as usize) {
            *masks = frames;
        }
    }

    /// Nothing leaves by any port.
    #[inline]
    pub(super) fn clear(&mut self) {
        while let Some(port) = self.touched.pop() {
            self.set(port, [0; 2]);
        }
    }
}
