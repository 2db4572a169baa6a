//! `netdev_add type=switchport`: a port of a learning switch.

use crate::commands::State;
use crate::commands::args::Args;
use crate::commands::nic::mac;
use crate::commands::state::empty;
use crate::model::NewSwitchPort;
use crate::qmp::error::QmpError;
use engine::Attachments;
use engine::topology::switch::{Mac, Mirror, STATIONS_MOST, SwitchPort, VLAN_MOST, VlanSet};
use serde_json::{Map, Value};

impl State {
    /// Makes a port of a switch.
    pub(super) fn add_switchport(&mut self, args: Map<String, Value>) -> Result<Value, QmpError> {
        let switch = args.int("switchid").and_then(|id| i32::try_from(id).ok());
        let switch = switch.ok_or_else(|| QmpError::generic("Parameter 'switchid' expects int32_t"))?;
        let mut port = vlans(&args)?;
        port.private = args.flag("private").unwrap_or_default();
        port.stations = stations(&args, &port)?;
        port.mirror = self.mirror(switch, &args)?;
        let new = NewSwitchPort {
            switch,
            ageing: number(&args, "ageing-time", 0, u32::MAX)?,
            stations: number(&args, "table-size", 1, STATIONS_MOST)?,
            limit: number(&args, "mac-limit", 0, STATIONS_MOST)?,
            port,
            name: args.text("id").to_owned(),
            netdev: args.maybe("netdev").map(str::to_owned),
            link_up: args.flag("link").unwrap_or(true),
            options: args,
        };
        let id = self.net.add_switchport(new)?;
        if let Err(error) = self.binding.commit(&self.net, Attachments::default()) {
            self.net.remove_client(id);
            return Err(error);
        }
        Ok(empty())
    }

    /// Whose frames the port gets.
    fn mirror(&self, switch: i32, args: &Map<String, Value>) -> Result<Option<Mirror>, QmpError> {
        let Some(of) = args.maybe("mirror") else {
            return match args.contains_key("mirror-frames") {
                true => Err(QmpError::generic("'mirror-frames' requires 'mirror'")),
                false => Ok(None),
            };
        };
        for name in ["vlan", "trunk", "native-vlan", "private", "mac-limit", "static-macs"] {
            if args.contains_key(name) {
                let desc = format!("'mirror' and '{name}' are mutually exclusive: a mirror only gets copies");
                return Err(QmpError::generic(desc));
            }
        }
        let Some(id) = self.net.switch_port(switch, of) else {
            let desc = format!("Parameter 'mirror' expects another port of switch {switch}, not '{of}'");
            return Err(QmpError::generic(desc));
        };
        let frames = args.maybe("mirror-frames").unwrap_or("both");
        Ok(Some(Mirror { of: id, rx: frames != "tx", tx: frames != "rx" }))
    }
}

/// The VLANs that the port carries.
fn vlans(args: &Map<String, Value>) -> Result<SwitchPort, QmpError> {
    let untagged = vlan(args, "vlan")?;
    let native = vlan(args, "native-vlan")?;
    let Some(text) = args.maybe("trunk") else {
        if native.is_some() {
            return Err(QmpError::generic("'native-vlan' requires 'trunk'; an access port has 'vlan'"));
        }
        return Ok(SwitchPort::access(untagged.unwrap_or(1)));
    };
    if untagged.is_some() {
        return Err(QmpError::generic(
            "'vlan' and 'trunk' are mutually exclusive; a trunk has 'native-vlan'",
        ));
    }
    let mut port = SwitchPort::access(native.unwrap_or_default());
    port.tagged = list(text).ok_or_else(|| {
        let desc = format!("Parameter 'trunk' expects VLANs from 1 to {VLAN_MOST}, as '10:20-29', or 'all'");
        QmpError::generic(desc)
    })?;
    Ok(port)
}

/// A VLAN, where one is given.
fn vlan(args: &Map<String, Value>, name: &str) -> Result<Option<u16>, QmpError> {
    args.get(name).is_some().then(|| args.uint(name)).map(|given| checked_vlan(given, name)).transpose()
}

fn checked_vlan(given: Option<u64>, name: &str) -> Result<u16, QmpError> {
    let vlan = given.and_then(|vlan| u16::try_from(vlan).ok()).filter(|v| (1..=VLAN_MOST).contains(v));
    let desc = || format!("Parameter '{name}' expects a VLAN from 1 to {VLAN_MOST}");
    vlan.ok_or_else(|| QmpError::generic(desc()))
}

/// `10:20-29`, with colons or commas between, or `all`.
fn list(text: &str) -> Option<VlanSet> {
    let text = if text == "all" { "1-4094" } else { text };
    let mut set = VlanSet::NONE;
    for part in text.split([':', ',']) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| -> Option<u16> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().filter(|vlan| (1..=VLAN_MOST).contains(vlan))
        };
        let (from, to) = (number(from)?, number(to)?);
        if from > to {
            return None;
        }
        (from..=to).for_each(|vlan| set.add(vlan));
    }
    Some(set)
}

/// The static stations, each in a VLAN that the port carries.
fn stations(args: &Map<String, Value>, port: &SwitchPort) -> Result<Vec<(Mac, u16)>, QmpError> {
    let mut all: Vec<(Mac, u16)> = Vec::new();
    let given = args.get("static-macs").and_then(Value::as_array).into_iter().flatten();
    for (at, station) in given.filter_map(Value::as_object).enumerate() {
        let text = station.text("mac");
        let address = mac(text, true).filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
        let desc =
            || format!("Parameter 'static-macs[{at}].mac' expects the hardware address of one station");
        let address = address.ok_or_else(|| QmpError::generic(desc()))?;
        let name = format!("static-macs[{at}].vlan");
        let vlan = match station.contains_key("vlan") {
            true => checked_vlan(station.uint("vlan"), &name)?,
            false => port.untagged,
        };
        if !port.carries(vlan) {
            let desc = match vlan {
                0 => format!("Parameter '{name}' is missing: the trunk has no native VLAN"),
                _ => format!("Parameter '{name}' expects a VLAN that the port carries, not {vlan}"),
            };
            return Err(QmpError::generic(desc));
        }
        if all.contains(&(address, vlan)) {
            return Err(QmpError::generic(format!("Parameter 'static-macs': {text} is there twice")));
        }
        all.push((address, vlan));
    }
    Ok(all)
}

/// A number within bounds, where one is given.
fn number(args: &Map<String, Value>, name: &str, least: u32, most: u32) -> Result<Option<u32>, QmpError> {
    let Some(given) = args.uint(name) else { return Ok(None) };
    match u32::try_from(given) {
        Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => {
            let desc = format!("Parameter '{name}' expects a value from {least} to {most}");
            Err(QmpError::generic(desc))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_vlans_are_numbers_and_ranges() {
        let vlans = |text: &str| list(text).map(|set| set.iter().collect::<Vec<_>>());
        assert_eq!(vlans("10:20-22"), Some(vec![10, 20, 21, 22]));
        assert_eq!(vlans("7,9"), Some(vec![7, 9]));
        assert_eq!(vlans("all").map(|all| all.len()), Some(4094));
        for bad in ["", ":", "0", "4095", "5-", "-5", "9-5", "+5", "x", "1:", " 1", "70000"] {
            assert_eq!(vlans(bad), None, "{bad}");
        }
    }
}
