//! Messages about one ring, and which rings run.

use super::Session;
use crate::vhost::device::Device;
use crate::vhost::error::ProtocolError;
use crate::vhost::message::{F_PROTOCOL_FEATURES, Message};
use crate::vhost::reply::Reply;
use crate::vhost::ring::{Addresses, Ring};
use nix::fcntl::{FcntlArg, OFlag, fcntl, readlink};
use nix::sys::stat::fstat;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use vhost::vhost_user::message::{FrontendReq, VhostUserVringAddr, VhostUserVringState};

/// In the number that comes with a ring's file: which ring, and that there is no file.
const RING: u64 = 0xff;
const NO_FILE: u64 = 0x100;

impl Session {
    /// Stops a ring, if it runs, and notes where.
    fn pause(&mut self, at: usize, device: &mut dyn Device) {
        let Some(ring) = self.rings.get_mut(at) else { return };
        ring.lost = false;
        if std::mem::take(&mut ring.running) {
            ring.position = device.stop(at).or(ring.position);
        }
    }

    /// Stops every ring.
    pub(super) fn pause_all(&mut self, device: &mut dyn Device) {
        if self.rings.iter().any(|ring| ring.running) {
            device.stop_all();
        }
        (0..self.rings.len()).for_each(|at| self.pause(at, device));
    }

    /// Starts the rings that may run and do not. One that lies outside of memory waits for memory, and a packed one whose
    /// position is lost for a reset.
    pub(super) fn settle(&mut self, device: &mut dyn Device) -> Result<(), ProtocolError> {
        let mut result = Ok(());
        for at in 0..self.rings.len() {
            let started = self.start(at, device);
            result = result.and(started);
        }
        result
    }

    fn start(&mut self, at: usize, device: &mut dyn Device) -> Result<(), ProtocolError> {
        let always = !self.accepted(F_PROTOCOL_FEATURES);
        let (Some(features), Some(table)) = (self.features(), self.table.clone()) else { return Ok(()) };
        let Some(ring) = self.rings.get_mut(at) else { return Ok(()) };
        if ring.running || ring.lost || !ring.started || !(always || ring.enabled) {
            return Ok(());
        }
        let inflight = self.inflight.as_ref().and_then(|region| region.ring(at, ring.size, features));
        let config = match ring.config(at, features, &table, inflight.as_ref()) {
            Ok(Some(config)) => config,
            Ok(None) | Err(ProtocolError::Outside { .. }) => return Ok(()),
            Err(ProtocolError::InUse { .. }) => {
                ring.lost = true;
                return Ok(());
            }
            Err(error) => {
                ring.started = false;
                return Err(error);
            }
        };
        if let Some(inflight) = inflight {
            inflight.begin(config.size, config.position);
        }
        // If the device cannot say where it stopped, it stopped here.
        ring.position = Some(config.position);
        match device.start(at, config) {
            Ok(()) => (ring.running, ring.ran) = (true, true),
            Err(reason) => {
                ring.started = false;
                return Err(ProtocolError::Start { ring: at, reason });
            }
        }
        Ok(())
    }

    /// Judges a ring that the front-end takes to be whole. Before SET_VRING_KICK its parts come in any order, and some
    /// may still be those of a guest that has gone.
    fn judge(&self, at: usize) -> Result<(), ProtocolError> {
        match self.inspect(at) {
            Err(ProtocolError::InUse { .. }) => Ok(()),
            result => result,
        }
    }

    fn inspect(&self, at: usize) -> Result<(), ProtocolError> {
        match (self.features(), &self.table, self.rings.get(at)) {
            (Some(features), Some(table), Some(ring)) if ring.started => {
                ring.config(at, features, table, None).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Why a ring that was started does not run.
    #[must_use]
    pub fn waiting(&self, ring: usize) -> Option<ProtocolError> {
        let known = self.rings.get(ring)?;
        match known.lost {
            true => Some(ProtocolError::InUse { ring }),
            false if known.started && !self.running(ring) => self.inspect(ring).err(),
            false => None,
        }
    }

    /// The first ring whose position is lost, and the words for it.
    #[must_use]
    pub fn lost_position(&self) -> Option<(usize, ProtocolError)> {
        let ring = self.rings.iter().position(|ring| ring.lost)?;
        Some((ring, ProtocolError::InUse { ring }))
    }

    /// The ring that a message names.
    fn ring(&self, kind: FrontendReq, ring: u64) -> Result<usize, ProtocolError> {
        let rings = self.rings.len();
        let found = usize::try_from(ring).ok().filter(|at| *at < rings);
        found.ok_or(ProtocolError::NoRing { request: kind, ring, rings })
    }

    fn state(&self, message: &Message) -> Result<(usize, u32), ProtocolError> {
        let VhostUserVringState { index, num } = message.body()?;
        Ok((self.ring(message.kind()?, index.into())?, num))
    }

    /// Stops a ring, changes it, and judges what came of it: a bad change is taken back.
    fn change(
        &mut self,
        at: usize,
        device: &mut dyn Device,
        change: impl FnOnce(&mut Ring) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        self.pause(at, device);
        let Some(ring) = self.rings.get_mut(at) else { return Ok(()) };
        let before = (ring.size, ring.addresses, ring.base, ring.position, ring.started);
        let result = change(ring).and_then(|()| self.judge(at));
        if result.is_err()
            && let Some(ring) = self.rings.get_mut(at)
        {
            (ring.size, ring.addresses, ring.base, ring.position, ring.started) = before;
        }
        result
    }

    pub(super) fn set_vring_num(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let (at, size) = self.state(message)?;
        let packed = self.packed();
        self.change(at, device, |ring| ring.resize(at, size, packed))
    }

    pub(super) fn set_vring_addr(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let addresses: VhostUserVringAddr = message.body()?;
        let at = self.ring(message.kind()?, { addresses.index }.into())?;
        if addresses.flags & !1 != 0 {
            return Err(message.bad_value({ addresses.flags }.into()));
        }
        self.change(at, device, |ring| {
            ring.addresses = Some(Addresses::of(addresses));
            Ok(())
        })
    }

    pub(super) fn set_vring_base(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let (at, base) = self.state(message)?;
        self.change(at, device, |ring| {
            (ring.base, ring.position) = (Some(base), None);
            Ok(())
        })
    }

    /// Stops a ring for good: it needs a SET_VRING_KICK to start again.
    pub(super) fn get_vring_base(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<Reply, ProtocolError> {
        let (at, _) = self.state(message)?;
        self.pause(at, device);
        let packed = self.packed().unwrap_or_default();
        let base = self.rings.get_mut(at).map_or(0, |ring| {
            (ring.started, ring.kick) = (false, None);
            ring.base_now(packed)
        });
        let state = [at as u32, base];
        Ok(Reply::new(message, &state.map(u32::to_ne_bytes).concat()))
    }

    pub(super) fn set_vring_file(
        &mut self,
        kind: FrontendReq,
        message: &mut Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let value = message.number()?;
        if value & !(RING | NO_FILE) != 0 {
            return Err(message.bad_value(value));
        }
        let at = self.ring(kind, value & RING)?;
        let file = if value & NO_FILE == 0 {
            Some(event(kind, message.file()?)?)
        } else {
            message.files(0)?;
            None
        };
        if kind == FrontendReq::SET_VRING_KICK {
            return self.change(at, device, |ring| {
                (ring.kick, ring.started) = (file, true);
                Ok(())
            });
        }
        self.pause(at, device);
        if let Some(ring) = self.rings.get_mut(at) {
            let place = if kind == FrontendReq::SET_VRING_CALL { &mut ring.call } else { &mut ring.err };
            *place = file;
        }
        Ok(())
    }

    pub(super) fn set_vring_enable(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let (at, on) = self.state(message)?;
        let enabled = match on {
            0 => false,
            1 => true,
            other => return Err(message.bad_value(other.into())),
        };
        if !enabled && self.accepted(F_PROTOCOL_FEATURES) {
            self.pause(at, device);
        }
        if let Some(ring) = self.rings.get_mut(at) {
            ring.enabled = enabled;
        }
        Ok(())
    }
}

/// A ring's file. It must be an eventfd, as for vhost in the kernel: of other files even a look may wait for somebody (a pipe's lock, a file
/// system in user space).
fn event(kind: FrontendReq, fd: OwnedFd) -> Result<Arc<OwnedFd>, ProtocolError> {
    // Where /proc is missing, an inode without a type of its own is as much as can be seen.
    let bare = || fstat(&fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == 0);
    let name = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str());
    if !name.map_or_else(|_| bare(), |name| name == "anon_inode:[eventfd]") {
        return Err(ProtocolError::NoEvent(kind));
    }
    if let Ok(flags) = fcntl(&fd, FcntlArg::F_GETFL) {
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        let _ = fcntl(&fd, FcntlArg::F_SETFL(flags));
    }
    Ok(Arc::new(fd))
}
