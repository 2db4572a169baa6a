//! What a nic is made of: its properties, as `device_add` and `netdev_add type=nic` name them, and the features that follow.

use engine::backend::nic::NetFeatures as Net;
use engine::vhost::{MAX_RINGS, NetConfig};
use engine::virtq::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_RING_PACKED, F_VERSION_1};
use serde_json::{Map, Value};

/// `VIRTIO_F_ANY_LAYOUT`: header and frame may share a descriptor (legacy drivers).
const F_ANY_LAYOUT: u64 = 1 << 27;

/// Queue pairs of a nic at most: a kick names its ring with eight bits.
pub const MOST_PAIRS: u16 = (MAX_RINGS / 2) as u16;

/// Properties that switch features: QEMU's name, the bits, whether they are offered by default.
///
/// The defaults are QEMU's but for `mq`, `packed` and `in_order`: a VMM's own device decides what its guest sees, so what
/// is offered here and not asked for there does nothing.
const SWITCHES: &[(&str, u64, bool)] = &[
    ("csum", Net::CSUM, true),
    ("guest_csum", Net::GUEST_CSUM, true),
    ("guest_tso4", Net::GUEST_TSO4, true),
    ("guest_tso6", Net::GUEST_TSO6, true),
    ("guest_ecn", Net::GUEST_ECN, true),
    ("guest_ufo", Net::GUEST_UFO, true),
    ("host_tso4", Net::HOST_TSO4, true),
    ("host_tso6", Net::HOST_TSO6, true),
    ("host_ecn", Net::HOST_ECN, true),
    ("host_ufo", Net::HOST_UFO, true),
    ("guest_uso4", Net::GUEST_USO4, true),
    ("guest_uso6", Net::GUEST_USO6, true),
    ("host_uso", Net::HOST_USO, true),
    ("mrg_rxbuf", Net::MRG_RXBUF, true),
    ("status", Net::STATUS, true),
    ("ctrl_vq", Net::CTRL_VQ, true),
    ("ctrl_rx", Net::CTRL_RX, true),
    ("ctrl_vlan", Net::CTRL_VLAN, true),
    ("ctrl_rx_extra", Net::CTRL_RX_EXTRA, true),
    ("ctrl_mac_addr", Net::CTRL_MAC_ADDR, true),
    ("ctrl_guest_offloads", Net::CTRL_GUEST_OFFLOADS, true),
    ("guest_announce", Net::GUEST_ANNOUNCE, true),
    ("mq", Net::MQ, true),
    ("failover", Net::STANDBY, false),
    ("indirect_desc", F_INDIRECT_DESC, true),
    ("event_idx", F_EVENT_IDX, true),
    ("packed", F_RING_PACKED, true),
    ("in_order", F_IN_ORDER, true),
    ("any_layout", F_ANY_LAYOUT, true),
];

/// Features that mean nothing without a control queue (virtio 1.3, 5.1.3.1), but for MQ: a VMM may serve that by itself.
const NEED_CONTROL: u64 = Net::CTRL_RX
    | Net::CTRL_VLAN
    | Net::CTRL_RX_EXTRA
    | Net::CTRL_MAC_ADDR
    | Net::CTRL_GUEST_OFFLOADS
    | Net::GUEST_ANNOUNCE;

/// What a nic is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicProperties {
    /// Hardware address as it was given: the guest's is this again after a reset.
    pub mac: [u8; 6],
    /// Queue pairs.
    pub pairs: u16,
    /// Feature bits offered, before what the peer can do is looked at.
    pub features: u64,
    /// `host_mtu`; 0: none.
    pub mtu: u16,
    /// `speed`, Mbit/s; all ones: unknown.
    pub speed: u32,
    /// `duplex`: 0 half, 1 full, 255 unknown.
    pub duplex: u8,
    /// A link that is down closes the connection.
    pub disconnects: bool,
}

impl NicProperties {
    /// The properties of these arguments; what is not named has its default.
    #[must_use]
    pub fn new(mac: [u8; 6], pairs: u16, args: &Map<String, Value>) -> Self {
        let mut features = F_VERSION_1 | Net::MAC;
        for (name, bits, default) in SWITCHES {
            if args.get(*name).and_then(Value::as_bool).unwrap_or(*default) {
                features |= bits;
            }
        }
        let pairs = pairs.clamp(1, MOST_PAIRS);
        if pairs == MOST_PAIRS {
            // Its ring would be the 257th, which no kick can name.
            features &= !Net::CTRL_VQ;
        }
        if features & Net::CTRL_VQ == 0 {
            features &= !NEED_CONTROL;
        }
        let text = |name: &str| args.get(name).and_then(Value::as_str);
        let mtu =
            args.get("host_mtu").and_then(Value::as_u64).and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(0);
        if mtu != 0 {
            features |= Net::MTU;
        }
        let speed = args.get("speed").and_then(Value::as_i64).and_then(|speed| u32::try_from(speed).ok());
        let duplex = match text("duplex") {
            Some("full") => 1,
            Some("half") => 0,
            _ => u8::MAX,
        };
        if speed.is_some() || duplex != u8::MAX {
            features |= Net::SPEED_DUPLEX;
        }
        Self {
            mac,
            pairs,
            features,
            mtu,
            speed: speed.unwrap_or(u32::MAX),
            duplex,
            disconnects: text("link-down") == Some("disconnect"),
        }
    }

    /// The configuration space.
    #[must_use]
    pub fn config(&self, link_up: bool) -> NetConfig {
        NetConfig {
            mac: self.mac,
            status: u16::from(link_up),
            max_virtqueue_pairs: self.pairs,
            mtu: if self.mtu == 0 { 1500 } else { self.mtu },
            speed: self.speed,
            duplex: self.duplex,
            ..NetConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(args: &Value) -> NicProperties {
        NicProperties::new([2, 0, 0, 0, 0, 1], 300, args.as_object().unwrap())
    }

    #[test]
    fn properties_switch_features() {
        let plain = made(&json!({}));
        assert_eq!(plain.pairs, 128);
        for bits in [Net::MQ, Net::MRG_RXBUF, Net::STATUS, F_RING_PACKED, F_VERSION_1, Net::HOST_UFO] {
            assert_ne!(plain.features & bits, 0, "{bits:#x}");
        }
        assert_eq!(plain.features & (Net::MTU | Net::STANDBY | Net::SPEED_DUPLEX), 0);
        let other = made(
            &json!({"mq": false, "packed": false, "mrg_rxbuf": false, "status": false, "failover": true,
            "host_mtu": 9000, "speed": 10000, "duplex": "full", "link-down": "disconnect"}),
        );
        assert_eq!(other.features & (Net::MQ | F_RING_PACKED | Net::MRG_RXBUF | Net::STATUS), 0);
        assert_eq!(other.features & Net::STANDBY, Net::STANDBY);
        assert!(other.disconnects && !plain.disconnects);
        let config = other.config(true);
        assert_eq!((config.status, config.mtu, config.speed, config.duplex), (1, 9000, 10000, 1));
        assert_eq!(made(&json!({})).config(false).status, 0);
    }

    #[test]
    fn what_needs_a_control_queue_is_offered_with_one() {
        let few =
            |args: &Value| NicProperties::new([2, 0, 0, 0, 0, 1], 127, args.as_object().unwrap()).features;
        let all = Net::CTRL_VQ | NEED_CONTROL;
        assert_eq!(few(&json!({})) & all, all);
        assert_eq!(
            few(&json!({"ctrl_rx": false, "guest_announce": false})) & all,
            all & !(Net::CTRL_RX | Net::GUEST_ANNOUNCE)
        );
        assert_eq!(few(&json!({"ctrl_vq": false})) & all, 0);
        // The ring of 128 pairs' control queue has no number.
        assert_eq!(made(&json!({})).features & all, 0);
    }
}
