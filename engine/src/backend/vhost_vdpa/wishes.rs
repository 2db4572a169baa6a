//! What a device is to let in and to make, as the guest behind it asked: the next command that brings the one to the other.
//!
//! VLANs are left to the nic: a device that filters them begins with none, and a guest with all of them.

use super::commands::{ANSWER_AT, MAC_SET, OFFLOADS, TABLE};
use crate::backend::nic::{Asked, Mac, Mode, NetFeatures as Net, RxFilter};

/// What a device is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// Its hardware address; none leaves it to the device.
    pub mac: Option<Mac>,
    /// The frames that it lets in; none: all, since whose they are is decided behind it.
    pub filter: Option<RxFilter>,
    /// What it may leave to us of what was agreed on, as feature bits; none: all of that.
    pub offloads: Option<u64>,
}

impl Wishes {
    /// Those of the guest of a nic that it is joined to.
    #[must_use]
    pub fn of(asked: &Asked) -> Self {
        let filter = &asked.filter;
        Self {
            mac: Some(filter.mac),
            filter: (!filter.mode(Mode::Promiscuous)).then(|| filter.clone()),
            offloads: Some(asked.offloads),
        }
    }
}

/// Modes in the order of their commands.
const MODES: [Mode; 6] = [
    Mode::Promiscuous,
    Mode::AllMulticast,
    Mode::AllUnicast,
    Mode::NoMulticast,
    Mode::NoUnicast,
    Mode::NoBroadcast,
];
/// Those that every device with a filter has.
const PLAIN: usize = 2;

/// What a device was told.
#[derive(Debug)]
pub(super) struct Told {
    features: u64,
    mac: Option<Mac>,
    modes: [bool; MODES.len()],
    table: Vec<u8>,
    offloads: u64,
    /// It refused to filter: it lets everything in.
    open: bool,
}

/// A command, and what was asked for by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) number: [u8; 2],
    pub(super) data: Vec<u8>,
}

impl Told {
    /// A device after its reset (virtio 1.3, 5.1.6.5.1: promiscuous; 5.1.6.5.6.1: with all offloads).
    pub(super) fn new(features: u64) -> Self {
        let mut modes = [false; MODES.len()];
        if let Some(promiscuous) = modes.first_mut() {
            *promiscuous = true;
        }
        let offloads = features & Net::GUEST_OFFLOADS;
        // Not all devices begin as they should: they are told.
        Self { features, mac: None, modes, table: empty(), offloads, open: false }
    }

    /// The command that is next, which counts as told from now on.
    pub(super) fn next(&mut self, wishes: &Wishes) -> Option<Command> {
        let has = |feature| self.features & feature != 0;
        if let Some(mac) = wishes.mac.filter(|mac| has(Net::CTRL_MAC_ADDR) && self.mac != Some(*mac)) {
            self.mac = Some(mac);
            return Some(Command { number: MAC_SET, data: mac.into() });
        }
        let agreed = self.features & Net::GUEST_OFFLOADS;
        let offloads = wishes.offloads.map_or(agreed, |wanted| usable(wanted & agreed));
        if has(Net::CTRL_GUEST_OFFLOADS) && offloads != self.offloads {
            self.offloads = offloads;
            return Some(Command { number: OFFLOADS, data: offloads.to_le_bytes().into() });
        }
        if !has(Net::CTRL_RX) {
            return None;
        }
        let Some((modes, table)) = wishes.filter.as_ref().and_then(|filter| self.filter(filter)) else {
            return self.mode(0, true);
        };
        if self.table != table {
            let data = table.clone();
            self.table = table;
            return Some(Command { number: TABLE, data });
        }
        // The first mode, by which everything comes, ends last.
        (1..MODES.len()).chain([0]).find_map(|mode| self.mode(mode, modes.get(mode).copied()?))
    }

    /// The device did not do as it was told. False: it keeps its hardware address.
    pub(super) fn refused(&mut self, command: &Command) -> bool {
        let [class, _] = command.number;
        self.open |= class == 0 || command.number == TABLE;
        command.number != MAC_SET
    }

    fn mode(&mut self, mode: usize, on: bool) -> Option<Command> {
        let told = self.modes.get_mut(mode).filter(|told| **told != on)?;
        *told = on;
        Some(Command { number: [0, mode as u8], data: vec![on.into()] })
    }

    /// The modes and the table of a filter, if the device can have it.
    fn filter(&self, filter: &RxFilter) -> Option<([bool; MODES.len()], Vec<u8>)> {
        let mut modes = MODES.map(|mode| filter.mode(mode));
        let overflow = [filter.table.multicast_overflow, filter.table.unicast_overflow];
        for (on, more) in modes.iter_mut().skip(1).zip(overflow) {
            *on |= more;
        }
        if self.features & Net::CTRL_RX_EXTRA == 0 {
            // It cannot let all unicast frames in but with all others; what it lets in beyond that is kept from the guest behind it.
            if modes.get(PLAIN).is_some_and(|all| *all) {
                return None;
            }
            modes.iter_mut().skip(PLAIN).for_each(|on| *on = false);
        }
        let part = |part: &[Mac]| -> Vec<u8> {
            let count = (part.len() as u32).to_le_bytes();
            count.into_iter().chain(part.iter().flatten().copied()).collect()
        };
        let table = [part(filter.table.unicast()), part(filter.table.multicast())].concat();
        (!self.open && table.len() + 2 <= ANSWER_AT as usize).then_some((modes, table))
    }
}

/// A table without addresses.
fn empty() -> Vec<u8> {
    vec![0; 8]
}

/// What goes together: segments only with checksums.
const fn usable(offloads: u64) -> u64 {
    if offloads & Net::GUEST_CSUM == 0 { 0 } else { offloads }
}
