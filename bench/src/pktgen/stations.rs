//! Stations behind each end: what a switch has to learn.

use crate::failure::{Failure, Result};

/// To whom stations send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum To {
    /// One station behind every other end, in turn.
    #[default]
    All,
    /// One station behind the next end.
    Next,
    /// Stations that nobody has.
    Unknown,
    /// Everybody.
    Broadcast,
}

/// Stations of one end. Station `k` sends to the stations `k` of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stations {
    /// Behind each end.
    pub each: u32,
    /// How many ends there are.
    pub ends: u32,
    /// Which of them this is.
    pub here: u32,
    /// To whom they send.
    pub to: To,
}

/// Where nobody is.
const NOWHERE: u32 = 0xfe;

/// The address of station `station` behind end `end`: locally administered.
fn mac(end: u32, station: u32) -> [u8; 6] {
    let [_, _, _, end] = end.to_be_bytes();
    let [a, b, c, d] = station.to_be_bytes();
    [2, end, a, b, c, d]
}

impl Stations {
    /// Ends that each station sends to, one frame each.
    fn ways(&self) -> u32 {
        if self.to == To::All { self.ends.saturating_sub(1).max(1) } else { 1 }
    }

    /// Pairs of destination and source that differ.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.each.max(1) as usize * self.ways() as usize
    }

    /// Pair `n`: destination and source as they stand in a frame.
    pub(super) fn pair(&self, n: usize) -> [u8; 12] {
        let (n, ways) = ((n % self.pairs()) as u32, self.ways());
        self.of(n / ways, n % ways)
    }

    #[inline]
    fn of(&self, station: u32, way: u32) -> [u8; 12] {
        let to = match self.to {
            To::All | To::Next => mac((self.here + 1 + way) % self.ends.max(1), station),
            To::Unknown => mac(NOWHERE, station),
            To::Broadcast => [0xff; 6],
        };
        let mut both = [0; 12];
        both[..6].copy_from_slice(&to);
        both[6..].copy_from_slice(&mac(self.here, station));
        both
    }
}

/// All pairs of one end in turn, without end.
#[derive(Debug)]
pub(super) struct Pairs {
    stations: Stations,
    station: u32,
    way: u32,
}

impl Pairs {
    pub(super) fn new(stations: Stations) -> Self {
        Self { stations, station: 0, way: 0 }
    }

    /// The next one.
    #[inline]
    pub(super) fn next(&mut self) -> [u8; 12] {
        let pair = self.stations.of(self.station, self.way);
        self.way += 1;
        if self.way >= self.stations.ways() {
            self.way = 0;
            self.station += 1;
            if self.station >= self.stations.each {
                self.station = 0;
            }
        }
        pair
    }
}

impl std::str::FromStr for To {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "all" => Self::All,
            "next" => Self::Next,
            "unknown" => Self::Unknown,
            "broadcast" => Self::Broadcast,
            _ => return Err(Failure::new(format!("{name}: all, next, unknown or broadcast"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn stations(here: u32, to: To) -> Stations {
        Stations { each: 3, ends: 3, here, to }
    }

    #[test]
    fn every_station_hears_from_both_other_ends_and_answers_under_its_address() {
        let (mut sources, mut targets) = (BTreeSet::new(), BTreeSet::new());
        for here in 0..3 {
            let stations = stations(here, To::All);
            assert_eq!(stations.pairs(), 6);
            for n in 0..6 {
                let pair = stations.pair(n);
                assert_ne!(pair[1], pair[7], "no frame stays at its end");
                sources.insert(pair[6..].to_vec());
                targets.insert((pair[..6].to_vec(), here));
            }
        }
        assert_eq!((sources.len(), targets.len()), (9, 18));
        assert!(targets.iter().all(|(target, _)| sources.contains(target)));
    }

    #[test]
    fn unknown_stations_never_send_and_pairs_come_in_turn() {
        for to in [To::All, To::Next, To::Unknown, To::Broadcast] {
            let stations = stations(1, to);
            let mut pairs = Pairs::new(stations);
            for n in 0..2 * stations.pairs() {
                assert_eq!(pairs.next(), stations.pair(n));
            }
        }
        assert_eq!(stations(0, To::Unknown).pair(0)[1], 0xfe);
        assert_eq!(stations(2, To::Next).pair(0)[1], 0);
        assert_eq!(stations(0, To::Broadcast).pairs(), 3);
    }
}
