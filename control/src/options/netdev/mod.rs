//! Typed options of netdevs, as `netdev_add` takes them.

mod host;
mod sockets;
mod user;

pub use host::{
    AfXdpMode, AfXdpOptions, BridgeOptions, HubportOptions, NetmapOptions, NicOptions, SwitchStation,
    SwitchportOptions, TapOptions, VhostUserOptions, VhostVdpaOptions,
};
pub use sockets::{DgramOptions, L2tpv3Options, SocketOptions, StreamOptions, VdeOptions, VxlanOptions};
pub use user::{PasstOptions, UserOptions};

use crate::qmp::error::QmpError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A netdev: what is common, and the options of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netdev {
    /// Its name.
    pub id: String,
    /// Whether the link is up from the start. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<bool>,
    /// Its kind and options.
    #[serde(flatten)]
    pub backend: Backend,
}

/// Options by kind of netdev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Backend {
    /// No backend; never made.
    None,
    /// A network card.
    Nic(NicOptions),
    /// A translated network of its own.
    User(UserOptions),
    /// A tap interface.
    Tap(TapOptions),
    /// An L2TPv3 tunnel.
    L2tpv3(L2tpv3Options),
    /// A socket, the old way.
    Socket(SocketOptions),
    /// A stream socket.
    Stream(StreamOptions),
    /// A datagram socket.
    Dgram(DgramOptions),
    /// A VDE switch.
    Vde(VdeOptions),
    /// A tap on a bridge.
    Bridge(BridgeOptions),
    /// A port of a hub.
    Hubport(HubportOptions),
    /// A netmap port.
    Netmap(NetmapOptions),
    /// Another program's rings.
    VhostUser(VhostUserOptions),
    /// A vhost-vdpa device.
    VhostVdpa(VhostVdpaOptions),
    /// AF_XDP sockets.
    AfXdp(AfXdpOptions),
    /// The passt program.
    Passt(PasstOptions),
    /// A port of a learning switch.
    Switchport(SwitchportOptions),
    /// A VXLAN tunnel.
    Vxlan(VxlanOptions),
}

impl Netdev {
    /// From arguments that were checked as `netdev_add` arguments.
    ///
    /// # Errors
    /// None for such arguments; anything else is said by a `GenericError`.
    pub fn decode(args: Map<String, Value>) -> Result<Self, QmpError> {
        super::decode(args)
    }
}

impl Backend {
    /// The type's name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Nic(_) => "nic",
            Self::User(_) => "user",
            Self::Tap(_) => "tap",
            Self::L2tpv3(_) => "l2tpv3",
            Self::Socket(_) => "socket",
            Self::Stream(_) => "stream",
            Self::Dgram(_) => "dgram",
            Self::Vde(_) => "vde",
            Self::Bridge(_) => "bridge",
            Self::Hubport(_) => "hubport",
            Self::Netmap(_) => "netmap",
            Self::VhostUser(_) => "vhost-user",
            Self::VhostVdpa(_) => "vhost-vdpa",
            Self::AfXdp(_) => "af-xdp",
            Self::Passt(_) => "passt",
            Self::Switchport(_) => "switchport",
            Self::Vxlan(_) => "vxlan",
        }
    }
}
