//! What was agreed on: features, protocol features, device status, and taking it all back.

use super::Session;
use crate::vhost::device::Device;
use crate::vhost::error::ProtocolError;
use crate::vhost::message::{F_LOG_ALL, F_PROTOCOL_FEATURES, Message, PROTOCOL_FEATURES};
use crate::vhost::reply::Reply;
use crate::vhost::ring::Ring;
use crate::virtq::F_RING_PACKED;
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::FrontendReq;

/// Feature bits that are vhost-user's own, and no business of the device's.
pub(super) const VHOST_BITS: u64 = F_PROTOCOL_FEATURES | F_LOG_ALL;

/// The protocol feature that a message belongs to. GET_QUEUE_NUM is not among them: it may come when MQ was only offered.
const fn feature_of(kind: FrontendReq) -> Option<Protocol> {
    type Kind = FrontendReq;
    match kind {
        Kind::SET_LOG_BASE => Some(Protocol::LOG_SHMFD),
        Kind::SEND_RARP => Some(Protocol::RARP),
        Kind::NET_SET_MTU => Some(Protocol::MTU),
        Kind::SET_BACKEND_REQ_FD => Some(Protocol::BACKEND_REQ),
        Kind::GET_CONFIG | Kind::SET_CONFIG => Some(Protocol::CONFIG),
        Kind::GET_INFLIGHT_FD | Kind::SET_INFLIGHT_FD => Some(Protocol::INFLIGHT_SHMFD),
        Kind::RESET_DEVICE => Some(Protocol::RESET_DEVICE),
        Kind::GET_MAX_MEM_SLOTS | Kind::ADD_MEM_REG | Kind::REM_MEM_REG => {
            Some(Protocol::CONFIGURE_MEM_SLOTS)
        }
        Kind::SET_STATUS | Kind::GET_STATUS => Some(Protocol::STATUS),
        _ => None,
    }
}

pub(super) fn get_protocol_features(message: &Message) -> Result<Reply, ProtocolError> {
    message.empty()?;
    Ok(Reply::number(message, PROTOCOL_FEATURES))
}

impl Session {
    /// Whether a protocol feature was agreed on.
    pub(super) const fn agreed(&self, feature: Protocol) -> bool {
        self.protocol & feature.bits() != 0
    }

    pub(super) fn check_agreed(&self, kind: FrontendReq) -> Result<(), ProtocolError> {
        match feature_of(kind) {
            Some(feature) if !self.agreed(feature) => Err(ProtocolError::NotAgreed(kind)),
            _ => Ok(()),
        }
    }

    /// Whether rings are packed; None before SET_FEATURES.
    pub(super) fn packed(&self) -> Option<bool> {
        self.accepted.map(|bits| bits & F_RING_PACKED != 0)
    }

    /// Whether a feature was accepted.
    pub(super) fn accepted(&self, feature: u64) -> bool {
        self.accepted.is_some_and(|bits| bits & feature != 0)
    }

    pub(super) fn get_features(
        &mut self,
        message: &Message,
        device: &dyn Device,
    ) -> Result<Reply, ProtocolError> {
        message.empty()?;
        let features = device.features() | VHOST_BITS;
        self.shown |= features;
        Ok(Reply::number(message, features))
    }

    pub(super) fn set_features(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let bits = message.number()?;
        let foreign = bits & !(self.shown | device.features() | VHOST_BITS);
        if foreign != 0 {
            return Err(ProtocolError::Features(foreign));
        }
        let before = self.accepted.replace(bits);
        if before == Some(bits) {
            return Ok(()); // QEMU repeats itself for each queue pair, while the first ones run
        }
        self.pause_all(device);
        let changed = before.map(|before| before ^ bits);
        if changed.is_some_and(|changed| changed & F_RING_PACKED != 0) {
            // A position of the other format means nothing.
            for ring in &mut self.rings {
                (ring.base, ring.position) = (None, None);
            }
        }
        self.tabulate();
        if changed.is_none_or(|changed| changed & !VHOST_BITS != 0) {
            device.set_features(bits & !VHOST_BITS);
        }
        Ok(())
    }

    pub(super) fn set_protocol_features(&mut self, message: &Message) -> Result<(), ProtocolError> {
        let bits = message.number()?;
        if bits & !PROTOCOL_FEATURES != 0 {
            return Err(ProtocolError::ProtocolFeatures(bits & !PROTOCOL_FEATURES));
        }
        self.protocol = bits;
        Ok(())
    }

    pub(super) fn get_queue_num(
        &self,
        message: &Message,
        device: &dyn Device,
    ) -> Result<Reply, ProtocolError> {
        message.empty()?;
        let pairs = usize::from(device.queues()).min(self.rings.len() / 2);
        Ok(Reply::number(message, pairs as u64))
    }

    /// Stops every ring until it is set up again. The rest stays: front-ends that send this mean no more by it.
    pub(super) fn reset_owner(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        message.empty()?;
        self.pause_all(device);
        for ring in &mut self.rings {
            (ring.started, ring.enabled) = (false, false);
        }
        Ok(())
    }

    /// As new, but for the memory table, the log, the protocol features and the channel, which belong to the connection.
    pub(super) fn reset_device(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        message.empty()?;
        self.pause_all(device);
        for ring in &mut self.rings {
            // The VMM's own files, which it passed when it connected.
            let (call, err) = (ring.call.take(), ring.err.take());
            *ring = Ring { call, err, ..Ring::default() };
        }
        (self.accepted, self.status) = (None, 0);
        self.tabulate();
        device.reset();
        Ok(())
    }

    pub(super) fn set_status(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let value = message.number()?;
        let status = u8::try_from(value).map_err(|_| message.bad_value(value))?;
        if status == 0 {
            // A reset by the driver: it will have new rings.
            self.pause_all(device);
            for ring in &mut self.rings {
                (ring.started, ring.base, ring.position) = (false, None, None);
            }
        }
        self.status = status;
        device.set_status(status);
        Ok(())
    }

    pub(super) fn get_status(&self, message: &Message) -> Result<Reply, ProtocolError> {
        message.empty()?;
        Ok(Reply::number(message, self.status.into()))
    }
}
