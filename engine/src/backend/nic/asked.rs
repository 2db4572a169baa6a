//! What a guest's driver has asked of its nic: a plain value, changed by commands (QEMU `hw/net/virtio-net.c`).

use super::command::Command;
use super::filter::{Mac, RxFilter};
use super::options::NetFeatures;

/// `VIRTIO_NET_F_RSC_EXT`: not offered here, and passed over in a set of offloads.
const RSC_EXT: u64 = 1 << 61;

/// What a driver has asked for, from its reset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The frames that it takes.
    pub filter: RxFilter,
    /// Queue pairs that it uses, of those that there are.
    pub pairs: u16,
    /// Offloads in force, as feature bits; all before features are agreed on.
    pub offloads: u64,
    /// It was asked to announce its guest, and has not said yet that it did.
    pub announce: bool,
    features: u64,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It cannot be: the driver gets an error, and nothing has changed.
    Refused,
    /// The filter was set, if only to what it was.
    Filter,
    /// As `Filter`: the nic has another address.
    Address,
    /// Other offloads are in force.
    Offloads,
    /// Other queue pairs are in use.
    Pairs,
    /// The guest has announced itself.
    Announced,
}

impl Asked {
    /// A nic of that address after a reset.
    #[must_use]
    pub const fn new(mac: Mac) -> Self {
        let filter = RxFilter::new(mac);
        Self { filter, pairs: 1, offloads: NetFeatures::GUEST_OFFLOADS, announce: false, features: 0 }
    }

    /// A driver has agreed to these features, after a reset.
    pub const fn agree(&mut self, features: u64) {
        self.features = features;
        self.offloads = features & NetFeatures::GUEST_OFFLOADS;
    }

    /// Whether a feature was agreed on.
    #[must_use]
    pub const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Forgets all commands: the nic has its given address again, and the features stay.
    pub const fn forget(&mut self, mac: Mac) {
        let features = self.features;
        *self = Self::new(mac);
        if features != 0 {
            self.agree(features);
        }
    }

    /// Asks the driver to announce its guest. False: it did not agree to such requests.
    pub const fn ask_announce(&mut self) -> bool {
        self.announce = self.has(NetFeatures::GUEST_ANNOUNCE) && self.has(NetFeatures::CTRL_VQ);
        self.announce
    }

    /// Does what a command says, on a nic of that many pairs.
    pub fn execute(&mut self, command: Command, pairs: u16) -> Outcome {
        match command {
            Command::Mode(mode, on) => self.filter.set_mode(mode, on),
            Command::Table(table) => self.filter.table = *table,
            Command::Vlan(vlan, on) => {
                if !self.filter.set_vlan(vlan, on) {
                    return Outcome::Refused;
                }
            }
            Command::Address(mac) => {
                self.filter.mac = mac;
                return Outcome::Address;
            }
            Command::Announced => {
                let asked = std::mem::take(&mut self.announce);
                return if asked { Outcome::Announced } else { Outcome::Refused };
            }
            Command::Pairs(wanted) => {
                if !self.has(NetFeatures::MQ) || !(1..=pairs).contains(&wanted) {
                    return Outcome::Refused;
                }
                self.pairs = wanted;
                return Outcome::Pairs;
            }
            Command::Offloads(wanted) => {
                let possible = self.features & NetFeatures::GUEST_OFFLOADS;
                if !self.has(NetFeatures::CTRL_GUEST_OFFLOADS) || wanted & !RSC_EXT & !possible != 0 {
                    return Outcome::Refused;
                }
                self.offloads = wanted & possible;
                return Outcome::Offloads;
            }
        }
        Outcome::Filter
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::{MacTable, Mode};
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];
    type Net = NetFeatures;

    fn asked(features: u64) -> Asked {
        let mut asked = Asked::new(MAC);
        asked.agree(features);
        asked
    }

    #[test]
    fn the_filter_is_set_by_commands_and_forgotten_at_a_reset() {
        let mut one = asked(Net::CTRL_VQ | Net::CTRL_VLAN);
        let fresh = one.clone();
        assert_eq!(one.filter.vlans().count(), 4096);
        assert_eq!(one.execute(Command::Mode(Mode::Promiscuous, false), 1), Outcome::Filter);
        assert_eq!(one.execute(Command::Table(Box::new(MacTable::EMPTY)), 1), Outcome::Filter);
        assert_eq!(one.execute(Command::Vlan(4095, false), 1), Outcome::Filter);
        assert_eq!(one.execute(Command::Vlan(4096, true), 1), Outcome::Refused);
        assert_eq!(one.execute(Command::Address(OTHER), 1), Outcome::Address);
        assert_eq!((one.filter.mac, one.filter.vlans().next()), (OTHER, Some(4094)));
        one.forget(MAC);
        assert_eq!(one, fresh);
    }

    #[test]
    fn pairs_are_one_to_all_and_need_their_feature() {
        let mut one = asked(Net::MQ);
        for (wanted, outcome) in
            [(0, Outcome::Refused), (5, Outcome::Refused), (4, Outcome::Pairs), (1, Outcome::Pairs)]
        {
            assert_eq!(one.execute(Command::Pairs(wanted), 4), outcome, "{wanted}");
        }
        assert_eq!(asked(0).execute(Command::Pairs(1), 4), Outcome::Refused);
    }

    #[test]
    fn offloads_are_some_of_those_agreed_on() {
        let all = Net::GUEST_CSUM | Net::GUEST_TSO4;
        let mut one = asked(Net::CTRL_GUEST_OFFLOADS | all);
        assert_eq!(one.offloads, all);
        assert_eq!(one.execute(Command::Offloads(Net::GUEST_CSUM), 1), Outcome::Offloads);
        assert_eq!(one.offloads, Net::GUEST_CSUM);
        for more in [Net::GUEST_TSO6, Net::CSUM, Net::CTRL_GUEST_OFFLOADS] {
            assert_eq!(one.execute(Command::Offloads(more), 1), Outcome::Refused);
        }
        assert_eq!(one.execute(Command::Offloads(RSC_EXT), 1), Outcome::Offloads);
        assert_eq!(one.offloads, 0);
        assert_eq!(asked(all).execute(Command::Offloads(0), 1), Outcome::Refused);
    }

    #[test]
    fn an_announcement_is_acknowledged_once() {
        let mut one = asked(Net::CTRL_VQ);
        assert!(!one.ask_announce());
        assert_eq!(one.execute(Command::Announced, 1), Outcome::Refused);
        let mut one = asked(Net::CTRL_VQ | Net::GUEST_ANNOUNCE);
        assert!(one.ask_announce() && one.announce);
        assert_eq!(one.execute(Command::Announced, 1), Outcome::Announced);
        assert_eq!(one.execute(Command::Announced, 1), Outcome::Refused);
        assert!(!asked(Net::GUEST_ANNOUNCE).ask_announce());
    }
}
