//! Learning switches: made by their first port, gone with their last.

use super::{ClientId, Kind, Net, NetError};
use engine::topology::switch as settings;
use engine::topology::switch::{AGEING, PORTS_MOST, STATIONS, SwitchPort};
use serde_json::{Map, Value};

/// A switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// What holds for all of it.
    pub settings: settings::Switch,
    /// Its ports, oldest first.
    pub ports: Vec<ClientId>,
}

/// A port to be added to a switch.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSwitchPort {
    /// Number of the switch.
    pub switch: i32,
    /// Seconds after which a station is forgotten, where that was given.
    pub ageing: Option<u32>,
    /// Stations that the switch learns, where that was given.
    pub stations: Option<u32>,
    /// Stations that are learned at the port at most, where that was given.
    pub limit: Option<u32>,
    /// How it treats frames; the limit in it is not looked at.
    pub port: SwitchPort,
    /// The port's id.
    pub name: String,
    /// A netdev to join.
    pub netdev: Option<String>,
    /// Whether the link is up.
    pub link_up: bool,
    /// The options as given.
    pub options: Map<String, Value>,
}

impl Net {
    /// All switches, lowest number first.
    pub fn switches(&self) -> impl Iterator<Item = &Switch> {
        self.switches.values()
    }

    /// The switch of that number.
    #[must_use]
    pub fn switch(&self, number: i32) -> Option<&Switch> {
        self.switches.get(&number)
    }

    /// The port of a switch that has that name.
    #[must_use]
    pub fn switch_port(&self, switch: i32, name: &str) -> Option<ClientId> {
        let port = self.netdev(name)?;
        matches!(port.kind, Kind::SwitchPort { switch: of, .. } if of == switch).then_some(port.id)
    }

    /// Adds a port to a switch, which is made if it is new, and joins it to the netdev of that name if one is given.
    ///
    /// # Errors
    /// `Duplicate ID 'x'`; the netdev is unknown or in use; what holds for the whole switch is not as before; no room for the port or its
    /// static stations.
    pub fn add_switchport(&mut self, new: NewSwitchPort) -> Result<ClientId, NetError> {
        let NewSwitchPort {
            switch: number,
            ageing,
            stations,
            limit,
            mut port,
            name,
            netdev,
            link_up,
            options,
        } = new;
        self.check_free(&name)?;
        let peer = netdev.map(|netdev| self.check_peer(&netdev)).transpose()?;
        let known = self.switches.get(&number);
        let of = known.map_or(
            settings::Switch {
                number,
                ageing: ageing.unwrap_or(AGEING),
                stations: stations.unwrap_or(STATIONS),
            },
            |known| known.settings,
        );
        let agree = |what: &str, asked: Option<u32>, is: u32| match asked {
            Some(asked) if asked != is => Err(NetError::Generic(format!(
                "Parameter '{what}' expects {is}, which holds for all ports of switch {number}"
            ))),
            _ => Ok(()),
        };
        agree("ageing-time", ageing, of.ageing)?;
        agree("table-size", stations, of.stations)?;
        let ports = known.map_or(&[][..], |known| &known.ports);
        if ports.len() >= PORTS_MOST as usize {
            return Err(NetError::Generic(format!(
                "switch {number} has {PORTS_MOST} ports and takes no more"
            )));
        }
        self.check_stations(ports, &port, of.stations)?;
        port.limit = limit.unwrap_or(of.stations.div_ceil(2));
        let kind = Kind::SwitchPort { switch: number, port: Box::new(port) };
        let id = self.add(&name, kind, link_up, peer, options);
        let switch =
            self.switches.entry(number).or_insert_with(|| Switch { settings: of, ports: Vec::new() });
        switch.ports.push(id);
        Ok(id)
    }

    /// Static stations are at one port, and leave room for others.
    fn check_stations(&self, ports: &[ClientId], port: &SwitchPort, most: u32) -> Result<(), NetError> {
        let mut count = 0;
        for other in ports.iter().filter_map(|id| self.client(*id)) {
            let Kind::SwitchPort { port: has, .. } = &other.kind else { continue };
            count += has.stations.len();
            if let Some((mac, vlan)) = port.stations.iter().find(|station| has.stations.contains(station)) {
                let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
                let at = &other.name;
                return Err(NetError::Generic(format!(
                    "Parameter 'static-macs': {mac} of VLAN {vlan} is static at port '{at}' already"
                )));
            }
        }
        if (count + port.stations.len()) as u64 * 2 > u64::from(most) {
            let half = most / 2;
            return Err(NetError::Generic(format!(
                "Parameter 'static-macs': more than {half} static stations, half of the switch's table"
            )));
        }
        Ok(())
    }

    /// A port goes, and with the last one the switch.
    pub(super) fn leave_switch(&mut self, number: i32, port: ClientId) {
        if let Some(switch) = self.switches.get_mut(&number) {
            switch.ports.retain(|other| *other != port);
            if switch.ports.is_empty() {
                self.switches.remove(&number);
            }
        }
    }
}
