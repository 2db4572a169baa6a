//! `netdev_add type=netmap` (QEMU 10.0 `net_init_netmap`).

use super::Opening;
use crate::apply::jobs::Product;
use crate::commands::args::Args;
use crate::commands::{Outcome, State};
use engine::backend::netmap::{DEVICE, NetmapOptions};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What to open. Nothing is checked before: the device, then the name, then the port.
fn options(args: &Map<String, Value>) -> NetmapOptions {
    NetmapOptions {
        ifname: args.text("ifname").to_owned(),
        device: args.maybe("devname").unwrap_or(DEVICE).to_owned(),
    }
}

impl State {
    /// A netmap port, by as many queues as it has ring pairs.
    pub(super) fn add_netmap(&mut self, args: Map<String, Value>) -> Outcome {
        let options = options(&args);
        let opening = Opening::new("netmap", args);
        let backends = Arc::clone(&self.binding.backends);
        self.open(opening, move || Product::Opened(backends.open_netmap(options)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_device_is_the_one_that_is_named() {
        let of = |value: Value| options(&value.as_object().cloned().unwrap());
        assert_eq!(of(json!({"ifname": "vale0:1"})).device, "/dev/netmap");
        let other = of(json!({"ifname": "eth0", "devname": "/dev/netmap2"}));
        assert_eq!((&*other.ifname, &*other.device), ("eth0", "/dev/netmap2"));
    }
}
