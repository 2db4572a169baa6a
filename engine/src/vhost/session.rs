//! One front-end's session: what it has said so far, and which rings run.

mod features;
mod inflight;
mod memory;
mod rings;
mod wishes;

use super::device::Device;
use super::error::ProtocolError;
use super::message::{Message, answered};
use super::reply::Reply;
use super::ring::Ring;
use crate::mem::dirty::DirtyLog;
use crate::mem::guest::GuestMemory;
pub use inflight::Inflight;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::FrontendReq;

/// Rings at most: SET_VRING_KICK, _CALL and _ERR name a ring in bits 0 to 7 of their payload (QEMU's "Vhost-user Protocol").
pub const MAX_RINGS: usize = 256;

/// A session. Its end is [`Session::end`]: a session that is only dropped leaves its rings running at the device.
#[derive(Debug)]
pub struct Session {
    /// Feature bits shown so far; what is offered may change while the front-end makes up its mind.
    shown: u64,
    /// Feature bits accepted, with those of vhost-user itself. None before SET_FEATURES.
    accepted: Option<u64>,
    protocol: u64,
    status: u8,
    /// The table as the front-end described it.
    memory: Option<Arc<GuestMemory>>,
    /// The same, logging while it should: what rings get.
    table: Option<Arc<GuestMemory>>,
    log: Option<Arc<DirtyLog>>,
    log_event: Option<Arc<OwnedFd>>,
    rings: Vec<Ring>,
    channel: Option<Arc<OwnedFd>>,
    inflight: Option<Inflight>,
    refused: Option<ProtocolError>,
    ended: bool,
}

impl Session {
    /// A session on a new connection, with as many rings as the device has (no more than [`MAX_RINGS`]).
    #[must_use]
    pub fn new(device: &dyn Device) -> Self {
        let rings = device.rings().min(MAX_RINGS);
        Self {
            shown: 0,
            accepted: None,
            protocol: 0,
            status: 0,
            memory: None,
            table: None,
            log: None,
            log_event: None,
            rings: std::iter::repeat_with(Ring::default).take(rings).collect(),
            channel: None,
            inflight: None,
            refused: None,
            ended: false,
        }
    }

    /// Does what a message says, then starts whatever may run now. The reply, if there is one, is to be sent before the
    /// next message is handled.
    ///
    /// # Errors
    /// The front-end got something wrong, or the device could not do it, and no answer was asked for: rings are stopped and
    /// the connection is to be closed. If an answer was asked for, it says no, and [`Session::refused`] has the reason.
    pub fn handle(
        &mut self,
        mut message: Message,
        device: &mut dyn Device,
    ) -> Result<Option<Reply>, ProtocolError> {
        if self.ended {
            return Err(ProtocolError::Ended);
        }
        let mut done = message.kind().and_then(|kind| self.dispatch(kind, &mut message, device));
        let acknowledged = message.need_reply && self.agreed(Protocol::REPLY_ACK);
        let can_say_no = acknowledged && !answered(message.request);
        if done.is_ok() || can_say_no {
            // Also after a refusal: what was paused for it goes on.
            let settled = self.settle(device);
            done = done.and_then(|reply| settled.map(|()| reply));
        }
        match done {
            Ok(None) if acknowledged => Ok(Some(Reply::number(&message, 0))),
            Ok(reply) => Ok(reply),
            Err(error) if can_say_no => {
                self.refused = Some(error);
                Ok(Some(Reply::number(&message, 1)))
            }
            Err(error) => {
                self.end(device);
                Err(error)
            }
        }
    }

    fn dispatch(
        &mut self,
        kind: FrontendReq,
        message: &mut Message,
        device: &mut dyn Device,
    ) -> Result<Option<Reply>, ProtocolError> {
        type Kind = FrontendReq;
        self.check_agreed(kind)?;
        let bare = !matches!(
            kind,
            Kind::SET_MEM_TABLE
                | Kind::SET_LOG_BASE
                | Kind::SET_LOG_FD
                | Kind::SET_VRING_KICK
                | Kind::SET_VRING_CALL
                | Kind::SET_VRING_ERR
                | Kind::SET_BACKEND_REQ_FD
                | Kind::SET_INFLIGHT_FD
                | Kind::ADD_MEM_REG
                | Kind::REM_MEM_REG
        );
        if bare {
            message.files(0)?;
        }
        match kind {
            Kind::GET_FEATURES => return self.get_features(message, device).map(Some),
            Kind::SET_FEATURES => self.set_features(message, device)?,
            Kind::GET_PROTOCOL_FEATURES => return get_protocol_features(message).map(Some),
            Kind::SET_PROTOCOL_FEATURES => self.set_protocol_features(message)?,
            Kind::GET_QUEUE_NUM => return self.get_queue_num(message, device).map(Some),
            // A socket has one front-end, which owns the session from the start.
            Kind::SET_OWNER => message.empty()?,
            Kind::RESET_OWNER => self.reset_owner(message, device)?,
            Kind::RESET_DEVICE => self.reset_device(message, device)?,
            Kind::SET_STATUS => self.set_status(message, device)?,
            Kind::GET_STATUS => return self.get_status(message).map(Some),
            Kind::SET_MEM_TABLE => self.set_mem_table(message, device)?,
            Kind::GET_MAX_MEM_SLOTS => return max_mem_slots(message).map(Some),
            Kind::ADD_MEM_REG => self.add_mem_reg(message, device)?,
            Kind::REM_MEM_REG => self.rem_mem_reg(message, device)?,
            Kind::SET_LOG_BASE => return self.set_log_base(message, device).map(Some),
            Kind::SET_LOG_FD => self.log_event = Some(bodyless_file(message)?),
            Kind::SET_VRING_NUM => self.set_vring_num(message, device)?,
            Kind::SET_VRING_ADDR => self.set_vring_addr(message, device)?,
            Kind::SET_VRING_BASE => self.set_vring_base(message, device)?,
            Kind::GET_VRING_BASE => return self.get_vring_base(message, device).map(Some),
            Kind::SET_VRING_KICK | Kind::SET_VRING_CALL | Kind::SET_VRING_ERR => {
                self.set_vring_file(kind, message, device)?;
            }
            Kind::SET_VRING_ENABLE => self.set_vring_enable(message, device)?,
            Kind::SEND_RARP => send_rarp(message, device)?,
            Kind::NET_SET_MTU => set_mtu(message, device)?,
            Kind::SET_BACKEND_REQ_FD => self.channel = Some(bodyless_file(message)?),
            Kind::GET_CONFIG => return get_config(message, device).map(Some),
            Kind::SET_CONFIG => set_config(message, device)?,
            Kind::GET_INFLIGHT_FD => return self.get_inflight_fd(message).map(Some),
            Kind::SET_INFLIGHT_FD => self.set_inflight_fd(message, device)?,
            other => return Err(ProtocolError::NotOffered(other)),
        }
        Ok(None)
    }

    /// Stops every ring, in order, and lets go of memory and files. Nothing is handled any more.
    pub fn end(&mut self, device: &mut dyn Device) {
        self.pause_all(device);
        *self = Self { ended: true, shown: self.shown, refused: self.refused.take(), ..Self::new(device) };
        self.rings.clear();
    }

    /// Whether the session has ended.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Why the last message that was answered with a no was refused; once.
    pub const fn refused(&mut self) -> Option<ProtocolError> {
        self.refused.take()
    }

    /// The virtio features agreed on; None before.
    #[must_use]
    pub fn features(&self) -> Option<u64> {
        self.accepted.map(|bits| bits & !VHOST_BITS)
    }

    /// Whether a ring runs.
    #[must_use]
    pub fn running(&self, ring: usize) -> bool {
        self.rings.get(ring).is_some_and(|ring| ring.running)
    }

    /// The guest's memory, as rings get it.
    #[must_use]
    pub const fn memory(&self) -> Option<&Arc<GuestMemory>> {
        self.table.as_ref()
    }

    /// Whether memory that is in use was taken away: the guest is gone, whatever its front-end says.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.table.as_ref().is_some_and(|table| table.lost())
    }

    /// A socket for what we ask of the front-end: [`super::config_changed`]. Send without waiting; it may be full.
    #[must_use]
    pub const fn channel(&self) -> Option<&Arc<OwnedFd>> {
        self.channel.as_ref()
    }

    /// Whether the front-end wants to hear of a changed configuration space on [`Session::channel`].
    #[must_use]
    pub const fn hears_of_config(&self) -> bool {
        self.agreed(Protocol::CONFIG) && self.channel.is_some()
    }

    /// The in-flight region that the front-end gave us back.
    #[must_use]
    pub const fn inflight(&self) -> Option<&Inflight> {
        self.inflight.as_ref()
    }

    /// What tells the front-end that the dirty log grew (SET_LOG_FD).
    #[must_use]
    pub fn log_event(&self) -> Option<BorrowedFd<'_>> {
        self.log_event.as_deref().map(AsFd::as_fd)
    }
}

use features::{VHOST_BITS, get_protocol_features};
use memory::max_mem_slots;
use wishes::{bodyless_file, get_config, send_rarp, set_config, set_mtu};

#[cfg(test)]
mod tests;
