//! Which frames a guest takes: reception modes, hardware addresses, VLANs (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3; the rules where
//! virtio leaves them open are those of QEMU's `hw/net/virtio-net.c`).

use crate::burst::{Burst, Frame, HEAD};
use crate::wire::eth::VLAN;

/// Addresses of the table, unicast and multicast together.
const ADDRESSES: usize = 64;
/// VLANs that there are.
const VLANS: u16 = 4096;

/// A hardware address.
pub type Mac = [u8; 6];

/// A reception mode, by its command of class CTRL_RX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every frame.
    Promiscuous,
    /// Every multicast frame.
    AllMulticast,
    /// Every unicast frame.
    AllUnicast,
    /// No multicast frame but broadcast.
    NoMulticast,
    /// No unicast frame.
    NoUnicast,
    /// No broadcast.
    NoBroadcast,
}

/// A set of reception modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modes(pub(super) u8);

impl Modes {
    const fn has(self, mode: Mode) -> bool {
        self.0 >> mode as u8 & 1 != 0
    }

    const fn set(&mut self, mode: Mode, on: bool) {
        let bit = 1 << mode as u8;
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }
}

/// The table of addresses that a driver sets at once, its unicast part first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacTable {
    all: [Mac; ADDRESSES],
    unicast: usize,
    used: usize,
    /// The driver named more unicast addresses than the table holds: none are kept, and all are taken.
    pub unicast_overflow: bool,
    /// The driver named more multicast addresses than there was room for: none are kept, and all are taken.
    pub multicast_overflow: bool,
}

impl MacTable {
    /// No address.
    pub const EMPTY: Self = Self {
        all: [[0; 6]; ADDRESSES],
        unicast: 0,
        used: 0,
        unicast_overflow: false,
        multicast_overflow: false,
    };

    /// A table of these parts, of `count` addresses each; `copy` fills addresses in, from the given one of the part on. QEMU's
    /// rule: more than 64 unicast addresses overflow and leave all room to the multicast ones.
    pub(crate) fn fill(counts: [u64; 2], mut copy: impl FnMut(usize, &mut [Mac]) -> bool) -> Option<Self> {
        let mut table = Self::EMPTY;
        for (part, count) in counts.into_iter().enumerate() {
            let room = table.all.get_mut(table.used..).unwrap_or_default();
            match usize::try_from(count).ok().and_then(|count| room.get_mut(..count)) {
                Some(place) => {
                    table.used += place.len();
                    copy(part, place).then_some(())?;
                }
                None if part == 0 => table.unicast_overflow = true,
                None => table.multicast_overflow = true,
            }
            if part == 0 {
                table.unicast = table.used;
            }
        }
        Some(table)
    }

    /// Unicast addresses, in the driver's order.
    #[must_use]
    pub fn unicast(&self) -> &[Mac] {
        self.all.get(..self.unicast).unwrap_or_default()
    }

    /// Multicast addresses, in the driver's order.
    #[must_use]
    pub fn multicast(&self) -> &[Mac] {
        self.all.get(self.unicast..self.used).unwrap_or_default()
    }
}

/// Words of a filter as it is published: modes and counts, the main address, the table, the VLANs.
pub(super) const WORDS: usize = 2 + ADDRESSES + VLANS as usize / 64;

/// A guest's filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RxFilter {
    pub(super) modes: Modes,
    /// The nic's own address.
    pub mac: Mac,
    /// Further addresses.
    pub table: MacTable,
    vlans: [u64; VLANS as usize / 64],
}

impl RxFilter {
    /// The filter after a reset: promiscuous, no address but the nic's own, and every VLAN until the driver refuses it (as QEMU 10.0
    /// does, whether or not VLANs were agreed on).
    #[must_use]
    pub const fn new(mac: Mac) -> Self {
        Self {
            modes: Modes(1 << Mode::Promiscuous as u8),
            mac,
            table: MacTable::EMPTY,
            vlans: [u64::MAX; 64],
        }
    }

    /// Whether a mode is on.
    #[must_use]
    pub const fn mode(&self, mode: Mode) -> bool {
        self.modes.has(mode)
    }

    /// Switches a mode.
    pub const fn set_mode(&mut self, mode: Mode, on: bool) {
        self.modes.set(mode, on);
    }

    /// Takes or refuses a VLAN. False: there is no such.
    pub fn set_vlan(&mut self, vlan: u16, on: bool) -> bool {
        let Some(word) = self.vlans.get_mut(usize::from(vlan / 64)) else { return false };
        let bit = 1 << (vlan % 64);
        *word = if on { *word | bit } else { *word & !bit };
        true
    }

    /// The VLANs taken, highest first.
    pub fn vlans(&self) -> impl Iterator<Item = u16> {
        (0..VLANS).rev().filter(|vlan| self.has_vlan(*vlan))
    }

    fn has_vlan(&self, vlan: u16) -> bool {
        self.vlans.get(usize::from(vlan / 64)).is_some_and(|word| word >> (vlan % 64) & 1 != 0)
    }

    /// Whether the guest takes a frame that begins with these bytes. A tag counts if it is the customer's (0x8100) and outermost.
    #[must_use]
    pub(super) fn takes(&self, head: [u8; HEAD]) -> bool {
        if self.mode(Mode::Promiscuous) {
            return true;
        }
        let [a, b, c, d, e, f, .., type0, type1, tag0, tag1] = head;
        let to = [a, b, c, d, e, f];
        if u16::from_be_bytes([type0, type1]) == VLAN
            && !self.has_vlan(u16::from_be_bytes([tag0, tag1]) & (VLANS - 1))
        {
            return false;
        }
        if to == [0xff; 6] {
            return !self.mode(Mode::NoBroadcast);
        }
        let MacTable { unicast_overflow, multicast_overflow, .. } = self.table;
        if a & 1 != 0 {
            !self.mode(Mode::NoMulticast)
                && (self.mode(Mode::AllMulticast)
                    || multicast_overflow
                    || self.table.multicast().contains(&to))
        } else {
            !self.mode(Mode::NoUnicast)
                && (self.mode(Mode::AllUnicast)
                    || unicast_overflow
                    || to == self.mac
                    || self.table.unicast().contains(&to))
        }
    }

    /// The filter as words.
    pub(super) fn words(&self) -> [u64; WORDS] {
        let MacTable { unicast, used, unicast_overflow, multicast_overflow, .. } = self.table;
        let overflow = u64::from(unicast_overflow) | u64::from(multicast_overflow) << 1;
        let first = u64::from(self.modes.0) | overflow << 8 | (unicast as u64) << 16 | (used as u64) << 32;
        let addresses = self.table.all.iter().copied().map(pack);
        let mut all = [0; WORDS];
        let values = [first, pack(self.mac)].into_iter().chain(addresses).chain(self.vlans);
        for (to, from) in all.iter_mut().zip(values) {
            *to = from;
        }
        all
    }

    /// The filter of such words.
    pub(super) fn of(words: &[u64; WORDS]) -> Self {
        let [first, mac, rest @ ..] = words;
        let mut this = Self::new(unpack(*mac));
        this.modes = Modes(*first as u8);
        this.table.unicast_overflow = first >> 8 & 1 != 0;
        this.table.multicast_overflow = first >> 9 & 1 != 0;
        this.table.unicast = usize::from((first >> 16) as u16);
        this.table.used = usize::from((first >> 32) as u16);
        let (addresses, vlans) = rest.split_at(ADDRESSES);
        for (to, from) in this.table.all.iter_mut().zip(addresses) {
            *to = unpack(*from);
        }
        for (to, from) in this.vlans.iter_mut().zip(vlans) {
            *to = *from;
        }
        this
    }
}

fn pack([a, b, c, d, e, f]: Mac) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn unpack(word: u64) -> Mac {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    [a, b, c, d, e, f]
}

/// The first bytes of a frame, copied once from where they lie; what a short frame lacks is 0.
pub(super) fn head(burst: &Burst, frame: &Frame) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    burst.copy_out(frame, 0, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
