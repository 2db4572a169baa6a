//! The first two passes over a burst in a switch: what its frames say, and where they go.
//!
//! 1. *Classify*: the first bytes of each frame are copied, its VLAN is found, and the places of both addresses in the table begin to
//!    be loaded.
//! 2. *Look up*: senders are learned where they are not known, receivers become bits in the masks of ports.

use super::state::{Count, State};
use super::table::{Buckets, Learned, Station, units};
use crate::burst::{BURST, Burst, Frame, Mask};
use crate::topology::plan::{PortPlan, SwitchPlan};
use crate::wire::eth;

/// Bytes of a frame that decide: two addresses, the type, a VLAN tag.
pub(super) const HEAD: usize = 16;

/// A frame's first bytes as they were decided on. They go out, and not what the sender made of them since.
pub(super) type Head = [u8; HEAD];

/// What a frame says.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    source: Station,
    target: Station,
    source_at: Buckets,
    target_at: Buckets,
}

/// Scratch of both passes.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) heads: [Head; BURST],
    looks: [Look; BURST],
    pub(super) vlans: [u16; BURST],
}

impl Looks {
    pub(super) fn new() -> Self {
        Self { heads: [[0; HEAD]; BURST], looks: [Look::default(); BURST], vlans: [0; BURST] }
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

/// Copies a frame's first bytes in the way that is not the usual one; false when it has no whole header. What a short frame lacks stays.
#[cold]
fn gather(burst: &Burst, frame: &Frame, head: &mut Head) -> bool {
    burst.copy_out(frame, 0, head) >= eth::HEADER
}

impl Looks {
    /// The first pass.
    #[inline]
    pub(super) fn classify(&mut self, burst: &Burst, mask: Mask, from: &PortPlan, state: &State) -> Sorted {
        let Self { heads, looks, vlans } = self;
        let table = &state.table;
        let (offloads, untagged) = (burst.has_offloads(), from.rules.untagged);
        // What changes for each frame is kept outside of the result, or it would pass through memory.
        let (mut good, mut sorted) = (0, Sorted::default());
        for i in mask.iter() {
            let (Some(frame), Some(head)) = (burst.frames().get(i), heads.get_mut(i)) else { break };
            let (Some(look), Some(place)) = (looks.get_mut(i), vlans.get_mut(i)) else { break };
            let bit = 1 << i;
            let mut bytes = [0; HEAD];
            if !burst.copy_first(frame, &mut bytes) && !gather(burst, frame, &mut bytes) {
                sorted.malformed |= bit;
                continue;
            }
            *head = bytes;
            let word = u128::from_le_bytes(bytes);
            let (low, high) = (word as u64, (word >> 64) as u64);
            let mut vlan = untagged;
            let mut header = eth::HEADER;
            if (high >> 32) as u16 == eth::VLAN.swap_bytes() {
                header += eth::TAG;
                if frame.len() < header {
                    sorted.malformed |= bit;
                    continue;
                }
                sorted.tagged |= bit;
                vlan = tag(head, (high >> 48) as u16, from);
            }
            *place = vlan;
            if vlan == 0 {
                sorted.vlan |= bit;
                continue;
            }
            if offloads && frame.hdr.needs_csum() && usize::from(frame.hdr.csum_start) < header {
                sorted.bad |= bit;
                continue;
            }
            let source = Station::new(low >> 48 | high << 16, vlan);
            let target = Station::new(low, vlan);
            let (source_at, target_at) = (table.place(source), table.place(target));
            table.prefetch(source_at);
            table.prefetch(target_at);
            *look = Look { source, target, source_at, target_at };
            good |= bit;
        }
        Sorted { good, ..sorted }
    }

    /// The second pass, for senders.
    #[inline]
    pub(super) fn learn(
        &self,
        good: u64,
        (port, from): (u32, &PortPlan),
        state: &State,
        now: u64,
        worker: usize,
    ) {
        let now = units(now);
        let mut last = Station::default();
        for look in Mask(good).iter().filter_map(|i| self.looks.get(i)) {
            if look.source == last || !look.source.is_one() {
                continue;
            }
            last = look.source;
            let found = state.table.find(look.source_at, look.source);
            if found.is_some_and(|f| f.value.port() == port && (f.value.time() == now || f.value.is_static()))
            {
                continue;
            }
            let times = (now, state.ageing);
            let learned =
                state.table.learn(look.source_at, look.source, found, (port, from.rules.limit), times);
            let what = match learned {
                Learned::Known => continue,
                Learned::New => Count::Learned,
                Learned::Moved => Count::Moved,
                Learned::Static => Count::Static,
                Learned::Limit => Count::Limit,
                Learned::Full => Count::TableFull,
            };
            state.count(worker, what, 1);
        }
    }

    /// The second pass, for receivers: frames become bits of `to`.
    #[inline]
    pub(super) fn find(
        &self,
        sorted: &mut Sorted,
        (port, from): (u32, &PortPlan),
        plan: &SwitchPlan,
        state: &State,
        now: u64,
        to: &mut Ports,
    ) {
        let now = units(now);
        let (mut target, mut way, mut flood) = (Station::default(), None, 0);
        for i in Mask(sorted.good).iter() {
            let Some(look) = self.looks.get(i) else { break };
            if look.target != target {
                target = look.target;
                let known = target.is_one().then(|| state.table.find(look.target_at, target)).flatten();
                let known = known.filter(|found| !found.value.is_old(now, state.ageing));
                way = known.map(|found| found.value.port());
            }
            let bit = 1 << i;
            // What the port is, is asked once a burst: a branch on it for each frame would be foreseen wrongly half of the time.
            match way {
                Some(port) if to.has(port) => to.add(port, bit),
                _ => flood |= bit,
            }
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
            let vlan = self.vlans.get(left.trailing_zeros() as usize).copied().unwrap_or_default();
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

    /// Those of `mask` whose VLAN is as `which` says.
    pub(super) fn of_vlan(&self, mask: u64, which: impl Fn(u16) -> bool) -> u64 {
        let vlans = Mask(mask).iter().filter(|i| self.vlans.get(*i).is_some_and(|vlan| which(*vlan)));
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

    #[inline]
    pub(super) fn add_both(&mut self, port: u32, frames: [u64; 2]) {
        let Some(masks) = self.masks.get_mut(port as usize) else { return };
        if *masks == [0; 2] && frames != [0; 2] && self.touched.len() < self.touched.capacity() {
            self.touched.push(port);
        }
        masks[0] |= frames[0];
        masks[1] |= frames[1];
    }

    /// Whether it can be a port's number.
    #[inline]
    pub(super) const fn has(&self, port: u32) -> bool {
        (port as usize) < self.masks.len()
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
