//! Commands of the control queue: bytes to values (virtio 1.3, 5.1.6.5). What QEMU answers with an error is no value.

use super::filter::{Mac, MacTable, Mode};
use crate::burst::Seg;

/// Bytes of a command's header: its class and its number.
pub(super) const HEADER: usize = 2;

/// What a driver asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Class 0: a reception mode.
    Mode(Mode, bool),
    /// Class 1: all further addresses.
    Table(Box<MacTable>),
    /// Class 1: the nic's own address.
    Address(Mac),
    /// Class 2: frames of a VLAN.
    Vlan(u16, bool),
    /// Class 3: the guest has announced itself.
    Announced,
    /// Class 4: queue pairs in use.
    Pairs(u16),
    /// Class 5: offloads in force, as feature bits.
    Offloads(u64),
}

/// The readable bytes of a chain, where they lie in guest memory. They are copied out, each at most once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'s> {
    segs: &'s [Seg],
    len: u64,
}

impl<'s> Bytes<'s> {
    pub(super) fn new(segs: &'s [Seg]) -> Self {
        Self { segs, len: segs.iter().map(|seg| seg.len() as u64).sum() }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Fills `to` with the bytes from `at` on; false when there are not as many.
    fn copy(&self, at: u64, to: &mut [u8]) -> bool {
        let (mut skip, mut done) = (at, 0);
        for seg in self.segs {
            let len = seg.len() as u64;
            match to.get_mut(done..) {
                Some(rest) if !rest.is_empty() && skip < len => done += seg.copy_to(skip as usize, rest),
                _ => {}
            }
            skip = skip.saturating_sub(len);
        }
        done == to.len()
    }

    fn array<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.copy(at, &mut bytes).then_some(bytes)
    }
}

impl Command {
    /// Reads a command. As in QEMU, bytes behind a value are not looked at, but for an address and the table, whose sizes must fit.
    pub(super) fn parse(bytes: Bytes<'_>) -> Option<Self> {
        let at = HEADER as u64;
        match bytes.array(0)? {
            [0, number] => {
                let [on] = bytes.array(at)?;
                let mode = match number {
                    0 => Mode::Promiscuous,
                    1 => Mode::AllMulticast,
                    2 => Mode::AllUnicast,
                    3 => Mode::NoMulticast,
                    4 => Mode::NoUnicast,
                    5 => Mode::NoBroadcast,
                    _ => return None,
                };
                Some(Self::Mode(mode, on != 0))
            }
            [1, 0] => table(bytes, at).map(|table| Self::Table(Box::new(table))),
            [1, 1] if bytes.len() == at + 6 => bytes.array(at).map(Self::Address),
            [2, number @ (0 | 1)] => Some(Self::Vlan(u16::from_le_bytes(bytes.array(at)?), number == 0)),
            [3, 0] => Some(Self::Announced),
            [4, 0] => bytes.array(at).map(u16::from_le_bytes).map(Self::Pairs),
            [5, 0] => bytes.array(at).map(u64::from_le_bytes).map(Self::Offloads),
            _ => None,
        }
    }
}

/// Two lists of addresses, each behind its length; nothing may follow them.
fn table(bytes: Bytes<'_>, at: u64) -> Option<MacTable> {
    let count = |at| bytes.array(at).map(|count| u64::from(u32::from_le_bytes(count)));
    let unicast = count(at)?;
    let second = at + 4 + 6 * unicast;
    let multicast = count(second)?;
    if second + 4 + 6 * multicast != bytes.len() {
        return None;
    }
    let starts = [at + 4, second + 4];
    MacTable::fill([unicast, multicast], |part, place| {
        let Some(start) = starts.get(part) else { return false };
        bytes.copy(*start, place.as_flattened_mut())
    })
}

#[cfg(test)]
mod tests;
