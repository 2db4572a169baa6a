//! The switches of a plan.

use super::Slots;
use crate::topology::model::{Client, ClientId, ClientKind, Topology};
use crate::topology::switch::{Mirror, SwitchPort};
use std::collections::HashMap;
use std::sync::Arc;

/// Legs that a source of a switch counts with. A frame takes one of them as a rule, and a flood that finds no room for a send drops, so
/// these are few: fewer and bursts are cut short where taps are many, more and a flood to that many taps drops.
const LEGS: u32 = 16;

/// A switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchPlan {
    /// Its number, as the user gave it.
    pub number: i32,
    /// By port number; numbers of ports that are gone have none.
    pub ports: Vec<Option<PortPlan>>,
}

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPlan {
    /// Which client.
    pub client: ClientId,
    /// What leaves here goes there.
    pub node: u32,
    /// How it treats frames.
    pub rules: Arc<SwitchPort>,
    /// It carries VLANs with a tag.
    pub trunk: bool,
    /// Numbers of the ports that get a copy of what this one receives.
    pub copies_rx: Vec<u32>,
    /// Numbers of the ports that get a copy of what leaves here.
    pub copies_tx: Vec<u32>,
}

impl SwitchPlan {
    /// The port of a number.
    #[inline]
    #[must_use]
    pub fn port(&self, number: u32) -> Option<&PortPlan> {
        self.ports.get(number as usize)?.as_ref()
    }
}

/// Where a client enters its switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) switch: u32,
    pub(super) port: u32,
}

/// A switch's number and its ports, each with its number there.
type Ports<'a> = (i32, Vec<(&'a Client, u32, Arc<SwitchPort>)>);

/// The ports of all switches.
pub(super) struct Gates<'a> {
    switches: Vec<Ports<'a>>,
    by_client: HashMap<ClientId, Gate>,
}

impl<'a> Gates<'a> {
    pub(super) fn new(topology: &'a Topology, slots: &Slots) -> Self {
        let mut numbers: HashMap<i32, usize> = HashMap::new();
        let mut this = Self { switches: Vec::new(), by_client: HashMap::new() };
        for client in topology.clients.iter().rev() {
            let ClientKind::SwitchPort { switch: number, port: rules } = &client.kind else { continue };
            let Some(&port) = slots.switch_ports.get(&client.id) else { continue };
            let index = *numbers.entry(*number).or_insert_with(|| {
                this.switches.push((*number, Vec::new()));
                this.switches.len() - 1
            });
            this.switches[index].1.push((client, port, Arc::new((**rules).clone())));
            this.by_client.insert(client.id, Gate { switch: index as u32, port });
        }
        this
    }

    /// Where a client enters its switch, if it is a port of one.
    pub(super) fn of(&self, client: ClientId) -> Option<Gate> {
        self.by_client.get(&client).copied()
    }

    /// Legs of a switch that a source counts with; never 1, as a switch does not behave as a pair.
    pub(super) fn legs(&self, switch: u32) -> u32 {
        self.switches.get(switch as usize).map_or(2, |(_, ports)| (ports.len() as u32).clamp(2, LEGS))
    }

    /// The switches, whose legs get nodes by `node`.
    pub(super) fn plans(&self, mut node: impl FnMut(&'a Client) -> u32) -> Vec<SwitchPlan> {
        let plan = |(number, ports): &Ports<'a>| {
            let count = ports.iter().map(|(_, port, _)| *port as usize + 1).max().unwrap_or(0);
            let mut plan = SwitchPlan { number: *number, ports: vec![None; count] };
            for (client, port, rules) in ports {
                plan.ports[*port as usize] = Some(PortPlan {
                    client: client.id,
                    node: node(client),
                    rules: rules.clone(),
                    trunk: !rules.tagged.is_empty(),
                    copies_rx: Vec::new(),
                    copies_tx: Vec::new(),
                });
            }
            for (_, mirror, rules) in ports {
                let Some(Mirror { of, rx, tx }) = rules.mirror else { continue };
                let Some(other) = plan.ports.iter_mut().flatten().find(|port| port.client == of) else {
                    continue;
                };
                if rx {
                    other.copies_rx.push(*mirror);
                }
                if tx {
                    other.copies_tx.push(*mirror);
                }
            }
            plan
        };
        self.switches.iter().map(plan).collect()
    }
}
