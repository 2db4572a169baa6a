//! What control says of a switch and of its ports: VLANs, limits, static stations, mirrors.

use super::model::ClientId;

/// Seconds after which a station that was not heard of is forgotten, where nothing else is asked for (IEEE 802.1Q, table 8-6).
pub const AGEING: u32 = 300;

/// Stations that a switch learns at most, where nothing else is asked for.
pub const STATIONS: u32 = 8192;

/// The most that may be asked for.
pub const STATIONS_MOST: u32 = 1 << 20;

/// Ports of a switch at most.
pub const PORTS_MOST: u32 = 4096;

/// The highest VLAN (0 and 4095 are reserved; IEEE 802.1Q, table 9-2).
pub const VLAN_MOST: u16 = 4094;

/// A hardware address.
pub type Mac = [u8; 6];

/// What holds for a whole switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// Its number.
    pub number: i32,
    /// Seconds after which a station that was not heard of is forgotten; 0: never.
    pub ageing: u32,
    /// Stations that it learns at most.
    pub stations: u32,
}

impl Switch {
    /// A switch as it is where nothing is asked for.
    #[must_use]
    pub const fn new(number: i32) -> Self {
        Self { number, ageing: AGEING, stations: STATIONS }
    }
}

/// How a port treats frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchPort {
    /// VLAN of frames without a tag; 0: there is none, and they are dropped.
    pub untagged: u16,
    /// VLANs whose frames carry a tag here; none on an access port.
    pub tagged: VlanSet,
    /// Exchanges no frame with another private port.
    pub private: bool,
    /// Stations that are learned here at most.
    pub limit: u32,
    /// Stations that are here whatever is heard, each with its VLAN.
    pub stations: Vec<(Mac, u16)>,
    /// It takes no part in the switching, and only gets copies of another port's frames.
    pub mirror: Option<Mirror>,
}

impl SwitchPort {
    /// An access port of `vlan`.
    #[must_use]
    pub const fn access(vlan: u16) -> Self {
        Self {
            untagged: vlan,
            tagged: VlanSet::NONE,
            private: false,
            limit: STATIONS / 2,
            stations: Vec::new(),
            mirror: None,
        }
    }

    /// Whether it carries frames of `vlan`.
    #[must_use]
    pub fn carries(&self, vlan: u16) -> bool {
        vlan != 0 && (vlan == self.untagged || self.tagged.has(vlan))
    }
}

/// Whose frames a mirror gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// The other port.
    pub of: ClientId,
    /// Frames that the other port receives from the outside.
    pub rx: bool,
    /// Frames that leave by the other port.
    pub tx: bool,
}

/// A set of VLANs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanSet([u64; 64]);

impl VlanSet {
    /// No VLAN.
    pub const NONE: Self = Self([0; 64]);

    /// Adds a VLAN; what is none is left out.
    pub fn add(&mut self, vlan: u16) {
        if (1..=VLAN_MOST).contains(&vlan)
            && let Some(word) = self.0.get_mut(usize::from(vlan / 64))
        {
            *word |= 1 << (vlan % 64);
        }
    }

    /// Whether it is in the set.
    #[inline]
    #[must_use]
    pub fn has(&self, vlan: u16) -> bool {
        self.0.get(usize::from(vlan / 64)).is_some_and(|word| word >> (vlan % 64) & 1 != 0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The VLANs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (1..=VLAN_MOST).filter(|vlan| self.has(*vlan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_are_vlans() {
        let mut set = VlanSet::NONE;
        assert!(set.is_empty());
        for vlan in [0, 1, 63, 64, 4094, 4095, 9999] {
            set.add(vlan);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 63, 64, 4094]);
        assert!(!set.has(0) && !set.has(4095) && !set.has(u16::MAX));
    }

    #[test]
    fn a_port_carries_its_untagged_and_its_tagged_vlans() {
        let mut port = SwitchPort::access(7);
        port.tagged.add(9);
        assert!(port.carries(7) && port.carries(9) && !port.carries(8));
        port.untagged = 0;
        assert!(!port.carries(0) && !port.carries(7));
    }
}
