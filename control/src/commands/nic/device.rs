//! `device_add`, `device_del` (QEMU `system/qdev-monitor.c`): nics by the names that devices have there.

use super::{MODEL, NewNic, mac};
use crate::commands::args::Args;
use crate::commands::pending::{Leaving, Pending};
use crate::commands::state::{empty, timestamp};
use crate::commands::{Outcome, State};
use crate::model::ClientId;
use crate::nic::{MOST_PAIRS, Made, Nic};
use crate::options::device::{check_properties, is_driver};
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use serde_json::{Map, Value, json};

/// Queue sizes that QEMU takes; of no consequence here.
const QUEUE_SIZES: std::ops::RangeInclusive<u64> = 256..=1024;

/// Checks `queues`.
pub(super) fn check_queues(args: &Map<String, Value>) -> Result<(), QmpError> {
    if args.uint("queues").is_some_and(|n| n == 0 || n > u64::from(MOST_PAIRS)) {
        let range = format!("vhost-user number of queues must be in range [1, {MOST_PAIRS}]");
        return Err(QmpError::generic(range));
    }
    Ok(())
}

/// What QEMU checks when a device is realized, in its order.
fn check_values(args: &Map<String, Value>) -> Result<(), QmpError> {
    if args.maybe("duplex").is_some_and(|duplex| !matches!(duplex, "half" | "full")) {
        return Err(QmpError::generic("'duplex' must be 'half' or 'full'"));
    }
    if args.int("speed").is_some_and(|speed| speed < -1) {
        return Err(QmpError::generic("'speed' must be between 0 and INT_MAX"));
    }
    for (name, end) in [("rx_queue_size", "."), ("tx_queue_size", "")] {
        if let Some(size) = args.uint(name)
            && !(QUEUE_SIZES.contains(&size) && size.is_power_of_two())
        {
            let (least, most) = QUEUE_SIZES.into_inner();
            let desc =
                format!("Invalid {name} (= {size}), must be a power of 2 between {least} and {most}{end}");
            return Err(QmpError::generic(desc));
        }
    }
    check_queues(args)
}

fn deleted(device: Option<&str>, path: &str) -> Event {
    let mut data = json!({"path": path});
    if let Some(device) = device {
        data["device"] = device.into();
    }
    Event { name: "DEVICE_DELETED", data: Some(data), timestamp: timestamp() }
}

impl State {
    /// Checks in QEMU's order: driver, bus, id, properties, and what they mean together.
    pub(in crate::commands) fn device_add(
        &mut self,
        mut args: Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Result<Value, QmpError> {
        let driver =
            args.maybe("driver").ok_or_else(|| QmpError::generic("Parameter 'driver' is missing"))?;
        if !is_driver(driver) {
            return Err(QmpError::generic(format!("'{driver}' is not a valid device model name")));
        }
        if let Some(bus) = args.maybe("bus").filter(|bus| !matches!(*bus, "pci.0" | "pcie.0")) {
            return Err(QmpError::generic(format!("Bus '{bus}' not found")));
        }
        let id = args.maybe("id").map(str::to_owned);
        if let Some(id) = &id
            && self.nics.all().any(|nic| nic.made.id.as_ref() == Some(id))
        {
            return Err(QmpError::generic(format!("Duplicate device ID '{id}'")));
        }
        check_properties(&args)?;
        self.check_netdev(&args)?;
        let bad_mac = |text: &str| {
            QmpError::generic(format!("Property 'virtio-net-device.mac' doesn't take value '{text}'"))
        };
        let mac = match args.maybe("mac") {
            Some(text) => mac(text, false).ok_or_else(|| bad_mac(text))?,
            None => self.free_mac(),
        };
        let chardev = self.check_chardev(&args)?;
        check_values(&args)?;
        let (name, path) = match &id {
            Some(id) => (id.clone(), format!("/machine/peripheral/{id}")),
            None => self.anonymous(),
        };
        for own in ["driver", "bus", "id"] {
            args.shift_remove(own);
        }
        let made = Made { id, path, by_netdev_add: false };
        self.plug_nic(NewNic { name, chardev, made, mac, args }, events).map(|()| empty())
    }

    fn check_netdev(&self, args: &Map<String, Value>) -> Result<(), QmpError> {
        let Some(name) = args.maybe("netdev") else { return Ok(()) };
        let desc = match self.net.netdev(name) {
            None => format!("Property 'virtio-net-device.netdev' can't find value '{name}'"),
            Some(netdev) if netdev.peer.is_some() => {
                format!("Property 'virtio-net-device.netdev' can't take value '{name}', it's in use")
            }
            Some(_) => return Ok(()),
        };
        Err(QmpError::generic(desc))
    }

    /// The chardev, which must pass descriptors.
    fn check_chardev(&self, args: &Map<String, Value>) -> Result<String, QmpError> {
        let Some(name) = args.maybe("chardev") else {
            let desc = "Parameter 'chardev' is missing: the socket chardev where the guest's VMM connects";
            return Err(QmpError::generic(desc));
        };
        let found = self.chardevs.list().into_iter().find(|chardev| chardev.label == name);
        let desc = match found {
            None => format!("Property '{MODEL}.chardev' can't find value '{name}'"),
            Some(chardev) if chardev.frontend_open => {
                format!("Property '{MODEL}.chardev' can't take value '{name}', it's in use")
            }
            Some(chardev) => {
                let kind = chardev.addr.as_ref().and_then(|addr| addr["type"].as_str());
                if chardev.driver == "chardev-socket" && matches!(kind, Some("unix" | "fd")) {
                    return Ok(name.to_owned());
                }
                format!("chardev \"{name}\" does not support FD passing")
            }
        };
        Err(QmpError::generic(desc))
    }

    /// Name and path of a nic without an id. QEMU's names count the nics that there are, and may repeat.
    fn anonymous(&self) -> (String, String) {
        let taken = |name: &str| self.net.named(name).next().is_some();
        let nics = self.nics.all().count();
        let name = (nics..).map(|n| format!("{MODEL}.{n}")).find(|name| !taken(name)).unwrap_or_default();
        let is_path = |path: &str| self.nics.all().any(|nic| nic.made.path == path);
        let paths = (0..).map(|n| format!("/machine/peripheral-anon/device[{n}]"));
        (name, paths.into_iter().find(|path| !is_path(path)).unwrap_or_default())
    }

    /// Removes a nic by its id or path, when its filters hold nothing any more. The events come behind the reply.
    pub(in crate::commands) fn device_del(&mut self, args: &Map<String, Value>) -> Outcome {
        match self.let_go(self.device(args.text("id"))) {
            Err(error) => Err(error).into(),
            Ok(Some(ticket)) => {
                self.pending.insert(ticket, Pending::Leave(Leaving::Device, args.clone()));
                Outcome::Later(ticket)
            }
            Ok(None) => self.device_leaves(args).into(),
        }
    }

    /// The nic of that id or path.
    fn device(&self, id: &str) -> Option<ClientId> {
        let is = |nic: &&Nic| match id.starts_with('/') {
            true => nic.made.path == id,
            false => nic.made.id.as_deref() == Some(id),
        };
        self.nics.all().find(is).map(|nic| nic.client)
    }

    /// `device_del`, when nothing is held any more.
    pub(in crate::commands) fn device_leaves(
        &mut self,
        args: &Map<String, Value>,
    ) -> Result<Value, QmpError> {
        let id = args.text("id");
        let Some(client) = self.device(id) else {
            // An empty id is the place of all devices.
            return Err(match id.is_empty() || (id.starts_with('/') && self.is_object(id)) {
                true => QmpError::generic(format!("{id} is not a device")),
                false => QmpError::device_not_found(id),
            });
        };
        if let Some(nic) = self.unplug_nic(client)? {
            let made = nic.made;
            self.after_reply.push(deleted(None, &format!("{}/virtio-backend", made.path)));
            self.after_reply.push(deleted(made.id.as_deref(), &made.path));
            self.nics.call_again();
        }
        Ok(empty())
    }
}
