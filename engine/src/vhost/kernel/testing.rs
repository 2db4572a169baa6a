//! A device of the kernel's that a test plays: it remembers what it was told, and its rings can be run by the device's side of ours.

use super::{Calls, Iotlb, status};
use crate::mem::guest::GuestMemory;
use crate::virtq::{DeviceRing, Found, Position, RingConfig};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a device knows.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) features: u64,
    pub(crate) accepted: u64,
    pub(crate) backend: u64,
    pub(crate) config: Vec<u8>,
    pub(crate) kind: u32,
    pub(crate) status: u8,
    pub(crate) largest: u16,
    pub(crate) rings_max: u32,
    pub(crate) range: (u64, u64),
    pub(crate) gone: bool,
    /// A step that the kernel refuses.
    pub(crate) refuses: Option<(&'static str, Errno)>,
    /// Guest address, size, address here.
    pub(crate) memory: Option<(u64, u64, u64)>,
    pub(crate) rings: BTreeMap<u32, Ring>,
    pub(crate) changed: Option<OwnedFd>,
    /// All calls that change something, in order.
    pub(crate) log: Vec<String>,
}

/// A ring, as it was described.
#[derive(Default)]
pub(crate) struct Ring {
    pub(crate) size: u32,
    pub(crate) parts: [u64; 3],
    pub(crate) kick: Option<Arc<OwnedFd>>,
    pub(crate) call: Option<Arc<OwnedFd>>,
    pub(crate) error: Option<Arc<OwnedFd>>,
}

/// The test's end of a device.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Told>>);

impl Fake {
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ring for the device's side of ours. `of_host`: it was described by addresses of this process, as vhost-net wants it.
    pub(crate) fn ring(&self, index: u32, of_host: bool) -> RingConfig {
        let told = self.told();
        let (guest, size, host) = told.memory.unwrap();
        let memory = Arc::new(GuestMemory::of_others(NonNull::new(host as *mut u8).unwrap(), guest, size));
        let ring = &told.rings[&index];
        let [desc, avail, used] = ring.parts.map(|at| match of_host {
            true => NonNull::new(at as *mut u8).unwrap(),
            false => memory.at(at, 16, &mut 0).unwrap(),
        });
        RingConfig {
            size: ring.size as u16,
            features: told.accepted,
            memory,
            desc,
            avail,
            used,
            used_log: None,
            inflight: None,
            position: Position::START,
            kick: ring.kick.clone(),
            call: ring.call.clone(),
            err: None,
        }
    }

    /// Answers one command of the control queue when it comes; its bytes.
    pub(crate) fn command<R: DeviceRing>(&self, ring: &mut R, answer: u8) -> Vec<u8> {
        let mut found = Found::new();
        while !ring.look_both(&mut found).unwrap() {
            std::thread::yield_now();
        }
        let (read, write) = found.both();
        let mut bytes = vec![0; read[0].len()];
        read[0].copy_to(0, &mut bytes);
        // SAFETY: the byte that the driver left for the answer.
        #[allow(unsafe_code)]
        unsafe {
            write[0].ptr().cast_mut().write_volatile(answer);
        }
        let chain = found.chains()[0];
        ring.give(&chain, 1);
        ring.publish();
        bytes
    }

    fn does(&self, step: &'static str, what: String) -> Result<MutexGuard<'_, Told>, Errno> {
        let mut told = self.told();
        told.log.push(what);
        match told.refuses {
            Some((refused, errno)) if refused == step => Err(errno),
            _ => Ok(told),
        }
    }
}

impl Calls for Fake {
    fn own(&self) -> Result<(), Errno> {
        self.does("own", "own".into()).map(drop)
    }

    fn features(&self) -> Result<u64, Errno> {
        Ok(self.told().features)
    }

    fn accept(&self, features: u64) -> Result<(), Errno> {
        self.does("accept", format!("accept {features:#x}"))?.accepted = features;
        Ok(())
    }

    fn backend_features(&self) -> Result<u64, Errno> {
        Ok(self.told().backend)
    }

    fn accept_backend(&self, features: u64) -> Result<(), Errno> {
        self.does("accept_backend", format!("backend {features:#x}")).map(drop)
    }

    fn memory(&self, guest: u64, size: u64, host: u64) -> Result<(), Errno> {
        self.does("memory", "memory".into())?.memory = Some((guest, size, host));
        Ok(())
    }

    fn iotlb(&self, kind: Iotlb, iova: u64, size: u64, host: u64) -> Result<(), Errno> {
        let mut told = self.does("iotlb", format!("iotlb {kind:?}"))?;
        match kind {
            Iotlb::Map => told.memory = Some((iova, size, host)),
            Iotlb::Unmap => told.memory = None,
            Iotlb::Begin | Iotlb::End => {}
        }
        Ok(())
    }

    fn ring_size(&self, ring: u32, size: u32) -> Result<(), Errno> {
        self.does("ring_size", format!("ring {ring} {size}"))?.rings.entry(ring).or_default().size = size;
        Ok(())
    }

    fn ring_base(&self, ring: u32, base: u32) -> Result<(), Errno> {
        self.does("ring_base", format!("base {ring} {base:#x}")).map(drop)
    }

    fn ring_at(&self, ring: u32, parts: [u64; 3]) -> Result<(), Errno> {
        self.does("ring_at", format!("at {ring}"))?.rings.entry(ring).or_default().parts = parts;
        Ok(())
    }

    fn kick(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno> {
        let event = Some(Arc::new(event.try_clone_to_owned().unwrap()));
        self.does("kick", format!("kick {ring}"))?.rings.entry(ring).or_default().kick = event;
        Ok(())
    }

    fn call(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno> {
        let event = Some(Arc::new(event.try_clone_to_owned().unwrap()));
        self.does("call", format!("call {ring}"))?.rings.entry(ring).or_default().call = event;
        Ok(())
    }

    fn error(&self, ring: u32, event: BorrowedFd<'_>) -> Result<(), Errno> {
        let event = Some(Arc::new(event.try_clone_to_owned().unwrap()));
        self.does("error", format!("error {ring}"))?.rings.entry(ring).or_default().error = event;
        Ok(())
    }

    fn busy(&self, ring: u32, microseconds: u32) -> Result<(), Errno> {
        self.does("busy", format!("busy {ring} {microseconds}")).map(drop)
    }

    fn backend(&self, ring: u32, tap: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        self.does("backend", format!("{} {ring}", if tap.is_some() { "tap" } else { "no tap" })).map(drop)
    }

    fn kind(&self) -> Result<u32, Errno> {
        Ok(self.told().kind)
    }

    fn status(&self) -> Result<u8, Errno> {
        Ok(self.told().status)
    }

    fn set_status(&self, status: u8) -> Result<(), Errno> {
        self.does("set_status", format!("status {status}"))?.status = status;
        Ok(())
    }

    fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), Errno> {
        let told = self.told();
        let from = told.config.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(Errno::E2BIG)?);
        Ok(())
    }

    fn largest_ring(&self) -> Result<u16, Errno> {
        Ok(self.told().largest)
    }

    fn rings(&self) -> Result<u32, Errno> {
        Ok(self.told().rings_max)
    }

    fn addresses(&self) -> Result<(u64, u64), Errno> {
        Ok(self.told().range)
    }

    fn suspend(&self) -> Result<(), Errno> {
        self.does("suspend", "suspend".into()).map(drop)
    }

    fn enable(&self, ring: u32) -> Result<(), Errno> {
        self.does("enable", format!("enable {ring}")).map(drop)
    }

    fn config_call(&self, event: BorrowedFd<'_>) -> Result<(), Errno> {
        self.does("config_call", "config call".into())?.changed = event.try_clone_to_owned().ok();
        Ok(())
    }

    fn has_gone(&self) -> bool {
        self.told().gone
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Whether the device runs.
pub(crate) fn runs(told: &Told) -> bool {
    told.status & status::DRIVER_OK != 0
}
