//! The switch against a plain program that does the same with maps and vectors, a frame at a time.

use super::super::testing::{ALL, Sent, World, frame, mac};
use super::trunk;
use crate::topology::switch::{Switch, SwitchPort};
use proptest::prelude::*;
use std::collections::HashMap;

/// Stations, VLANs and ports that the frames are about; few, so that they meet.
const STATIONS: u8 = 6;
const VLANS: [u16; 3] = [1, 10, 20];

fn port() -> impl Strategy<Value = SwitchPort> {
    let vlan = || proptest::sample::select(vec![0, 1, 10, 20]);
    let tagged = proptest::collection::vec(proptest::sample::select(VLANS.to_vec()), 0..3);
    (vlan(), tagged, any::<bool>(), 1..4u32).prop_map(|(native, tagged, private, limit)| SwitchPort {
        private,
        limit,
        ..trunk(if tagged.is_empty() { native.max(1) } else { native }, &tagged)
    })
}

#[derive(Debug, Clone)]
struct Heard {
    to: Option<u8>,
    from: u8,
    tag: Option<u16>,
}

fn heard() -> impl Strategy<Value = Heard> {
    let to = proptest::option::weighted(0.8, 0..STATIONS);
    let tag = proptest::option::of((proptest::sample::select(vec![0u16, 1, 10, 20, 30]), 0..8u16));
    (to, 0..STATIONS, tag).prop_map(|(to, from, tag)| Heard { to, from, tag: tag.map(|(v, p)| v | p << 13) })
}

/// The plain program.
struct Oracle {
    ports: Vec<SwitchPort>,
    known: HashMap<(u8, u16), usize>,
}

impl Oracle {
    fn vlan(port: &SwitchPort, tag: Option<u16>) -> Option<u16> {
        let vlan = match tag.map(|tag| tag & 0xfff) {
            None | Some(0) => port.untagged,
            Some(vlan) => {
                let trunk = !port.tagged.is_empty();
                return (trunk && port.carries(vlan)).then_some(vlan);
            }
        };
        (vlan != 0).then_some(vlan)
    }

    /// What is heard is learned by the whole burst before any frame is sent.
    fn learn(&mut self, at: usize, frame: &Heard) {
        let Some(vlan) = Self::vlan(&self.ports[at], frame.tag) else { return };
        let key = (frame.from, vlan);
        let here = self.known.values().filter(|port| **port == at).count();
        if self.known.get(&key) != Some(&at) && here < self.ports[at].limit as usize {
            self.known.insert(key, at);
        }
    }

    fn send(&self, at: usize, heard: &Heard) -> Vec<(u32, Sent)> {
        let Some(vlan) = Self::vlan(&self.ports[at], heard.tag) else { return vec![] };
        let known = heard.to.and_then(|to| self.known.get(&(to, vlan)));
        let to: Vec<usize> = match known {
            Some(to) => vec![*to],
            None => (0..self.ports.len()).filter(|to| self.ports[*to].carries(vlan)).collect(),
        };
        let apart = |to: &usize| *to == at || (self.ports[at].private && self.ports[*to].private);
        let form = |to: usize| {
            let priority = heard.tag.map_or(0, |tag| tag & 0xe000);
            let tag = (self.ports[to].untagged != vlan).then_some(priority | vlan);
            frame(heard.to.map_or(ALL, mac), mac(heard.from), tag)
        };
        to.into_iter().filter(|to| !apart(to)).map(|to| (to as u32, form(to))).collect()
    }
}

/// Frames of each port, those without a tag first: only the order within a VLAN is kept.
fn by_port(all: impl IntoIterator<Item = (u32, Sent)>) -> HashMap<u32, Vec<Sent>> {
    let mut map: HashMap<u32, Vec<Sent>> = HashMap::new();
    for (port, sent) in all {
        map.entry(port).or_default().push(sent);
    }
    for frames in map.values_mut() {
        frames.sort_by_key(|(_, bytes)| bytes[12..14] == [0x81, 0]);
    }
    map
}

proptest! {
    #[test]
    fn the_switch_does_what_a_plain_program_does(
        ports in proptest::collection::vec(port(), 2..6),
        bursts in proptest::collection::vec((any::<usize>(), proptest::collection::vec(heard(), 1..20)), 1..30),
    ) {
        let mut w = World::new();
        w.settings(Switch { stations: 64, ..Switch::new(1) });
        for port in &ports {
            w.add(1, port.clone());
        }
        let mut oracle = Oracle { ports, known: HashMap::new() };
        for (at, burst) in bursts {
            let at = at % oracle.ports.len();
            burst.iter().for_each(|frame| oracle.learn(at, frame));
            let expected = by_port(burst.iter().flat_map(|frame| oracle.send(at, frame)));
            let sent: Vec<Sent> = burst
                .iter()
                .map(|h| frame(h.to.map_or(ALL, mac), mac(h.from), h.tag))
                .collect();
            let got = w.send(at, &sent);
            let got = by_port(got.into_iter().flat_map(|(port, all)| all.into_iter().map(move |s| (port, s))));
            prop_assert_eq!(got, expected);
        }
    }
}
