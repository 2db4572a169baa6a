//! The features of a guest's driver.

use super::super::frame::{Kind, Shape};
use crate::failure::{Context, Failure, Result};
use engine::backend::nic::NetFeatures;
use engine::virtq::{F_IN_ORDER, F_RING_PACKED, F_VERSION_1};
use vhost::VhostBackend;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};

/// The features that `shape` asks for.
pub(super) fn wanted(shape: &Shape) -> u64 {
    let csum = NetFeatures::CSUM | NetFeatures::GUEST_CSUM;
    let tso = csum | NetFeatures::HOST_TSO4 | NetFeatures::GUEST_TSO4;
    let bits = [
        (true, F_VERSION_1),
        (shape.packed, F_RING_PACKED),
        (shape.mergeable, NetFeatures::MRG_RXBUF),
        (shape.in_order, F_IN_ORDER),
        (shape.kind == Kind::Udp, csum),
        (shape.kind == Kind::Tso, tso),
    ];
    bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bits)| all | bits)
}

/// Agrees on features: those that `shape` asks for, all of which the back-end must have.
pub(super) fn negotiate(frontend: &mut Frontend, shape: &Shape) -> Result<u64> {
    let offered = frontend.get_features().context("GET_FEATURES")?;
    let wanted = wanted(shape) | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    if wanted & !offered != 0 {
        return Err(Failure::new(format!("the back-end does not offer features {:#x}", wanted & !offered)));
    }
    let protocol = frontend.get_protocol_features().context("GET_PROTOCOL_FEATURES")?;
    let protocol = protocol & VhostUserProtocolFeatures::MQ;
    frontend.set_protocol_features(protocol).context("SET_PROTOCOL_FEATURES")?;
    frontend.set_owner().context("SET_OWNER")?;
    frontend.set_features(wanted).context("SET_FEATURES")?;
    Ok(wanted)
}
