//! `netdev_add type=nic`: a nic that listens on a socket of its own.

use super::{MODEL, NewNic, mac};
use crate::commands::State;
use crate::commands::args::Args;
use crate::commands::chardev::{Added, FdSource};
use crate::commands::state::empty;
use crate::model::ClientId;
use crate::nic::Made;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use serde_json::{Map, Value, json};

impl State {
    /// A nic with a listening socket at `addr`.
    pub(in crate::commands) fn add_nic(
        &mut self,
        monitor: u64,
        args: Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Result<Value, QmpError> {
        let name = args.text("id").to_owned();
        if self.nic_named(&name).is_some() {
            return Err(QmpError::generic(format!("Duplicate ID '{name}'")));
        }
        let model = args.maybe("model").unwrap_or("virtio");
        if !matches!(model, "virtio" | "virtio-net" | MODEL) {
            return Err(QmpError::generic(format!("Unsupported NIC model: {model}")));
        }
        let Some(path) = args.maybe("addr") else {
            return Err(QmpError::generic(
                "Parameter 'addr' is missing: the path of the nic's vhost-user socket",
            ));
        };
        let mac = match args.maybe("macaddr") {
            None => self.free_mac(),
            Some(text) => {
                mac(text, true).ok_or_else(|| QmpError::generic("invalid syntax for ethernet address"))?
            }
        };
        if mac[0] & 1 != 0 {
            return Err(QmpError::generic("NIC cannot have multicast MAC address (odd 1st byte)"));
        }
        super::device::check_queues(&args)?;
        let chardev = format!("#{name}");
        let backend = json!({"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": path}}, "server": true, "wait": false,
        }});
        let mut source = FdSource::new(&mut self.fds, monitor);
        match self.chardevs.add(&chardev, &backend, &mut source)? {
            Added::Done(_) => {}
            Added::Opening(job) => {
                let opened = job();
                self.chardevs.finish(&chardev, opened)?;
            }
        }
        let made =
            Made { id: Some(name.clone()), path: format!("/machine/peripheral/{name}"), by_netdev_add: true };
        let added = self.plug_nic(NewNic { name, chardev: chardev.clone(), made, mac, args }, events);
        if added.is_err() {
            let _ = self.chardevs.remove(&chardev);
        }
        added.map(|()| empty())
    }

    /// The client of a nic of that name that `netdev_add type=nic` made.
    pub(in crate::commands) fn listening_nic(&self, name: &str) -> Option<ClientId> {
        Some(self.nic_named(name).filter(|nic| nic.made.by_netdev_add)?.client)
    }

    /// `netdev_del` of what `netdev_add type=nic` made; none if nothing of that name was made so.
    pub(in crate::commands) fn del_nic(&mut self, name: &str) -> Option<Result<Value, QmpError>> {
        let client = self.listening_nic(name)?;
        Some(self.unplug_nic(client).map(|_| empty()))
    }
}
