//! UMEM: memory that frames lie in, cut into chunks of equal size, which several sockets may share.

#![allow(unsafe_code)] // the contract of lent memory

use crate::error::{Error, Step};
use crate::sys;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Memory that a UMEM is made of.
///
/// # Safety
/// `start..start+len` is mapped, readable and writable, aligned to pages, and stays so until the value is dropped. No reference points into it: the
/// kernel writes there.
pub unsafe trait Area: Send + Sync {
    /// First byte.
    fn start(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a UMEM is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UmemConfig {
    /// Bytes of a chunk: 2048 or 4096 (up to a page, a power of two).
    pub chunk: u32,
    /// Bytes that the kernel leaves free before a received frame, beyond its own 256.
    pub headroom: u32,
    /// Whether metadata ([`Metadata`]) may lie before a frame to be sent; quietly off where the kernel knows of none.
    pub metadata: bool,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self { chunk: 4096, headroom: 0, metadata: true }
    }
}

/// What the kernel shall do to a frame that it sends (`struct xsk_tx_metadata`; `Documentation/networking/xsk-tx-metadata.rst` of Linux). It lies
/// right before the frame's first byte, and [`crate::Desc::METADATA`] says so.
///
/// A stamp of the time of sending comes back in the same place when the frame is in the completion ring, where the driver offers it
/// (`tx-timestamp` of the netdev family's `xsk-features`): NICs that stamp in hardware do, veth and others without a clock of their own do not, and leave the
/// request as it was, which [`Metadata::stamp`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Metadata {
    flags: u64,
    start: u16,
    offset: u16,
    reserved: u32,
    launch: u64,
}

impl Metadata {
    /// Bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Completes a checksum: the sum of all bytes from `start` on goes to `start + offset` (`XDP_TXMD_FLAGS_CHECKSUM`).
    #[must_use]
    pub const fn checksum(start: u16, offset: u16) -> Self {
        Self { flags: libc::XDP_TXMD_FLAGS_CHECKSUM as u64, start, offset, reserved: 0, launch: 0 }
    }

    /// Asks for a stamp of the time of sending and for nothing else (`XDP_TXMD_FLAGS_TIMESTAMP`).
    #[must_use]
    pub const fn timestamp() -> Self {
        Self { flags: libc::XDP_TXMD_FLAGS_TIMESTAMP as u64, start: 0, offset: 0, reserved: 0, launch: 0 }
    }

    /// Asks for a stamp of the time of sending as well.
    #[must_use]
    pub const fn and_timestamp(mut self) -> Self {
        self.flags |= libc::XDP_TXMD_FLAGS_TIMESTAMP as u64;
        self
    }

    /// The stamp of a frame that was sent with this request, in nanoseconds of the NIC's clock; nothing where none was asked for, or none was made. It
    /// lies where the request for a checksum was (`struct xsk_tx_metadata`, `completion.tx_timestamp`), so a stamp that is equal to it is taken for none.
    ///
    /// # Safety
    /// The request was written before `frame` ([`Metadata::write_before`]), the frame was in the completion ring, and its chunk was not used again.
    #[must_use]
    pub const unsafe fn stamp(&self, frame: NonNull<u8>) -> Option<u64> {
        // SAFETY: the caller's word.
        let now = unsafe { frame.sub(Self::LEN).cast::<Self>().read_unaligned() };
        let asked = self.flags & libc::XDP_TXMD_FLAGS_TIMESTAMP as u64 != 0;
        if asked && now.completion() != self.completion() { Some(now.completion()) } else { None }
    }

    /// The bytes that a stamp takes, as a number.
    const fn completion(&self) -> u64 {
        let ([a, b], [c, d], [e, f, g, h]) =
            (self.start.to_ne_bytes(), self.offset.to_ne_bytes(), self.reserved.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// Writes it before a frame.
    ///
    /// # Safety
    /// The [`Metadata::LEN`] bytes before `frame` are the caller's to write.
    pub const unsafe fn write_before(&self, frame: NonNull<u8>) {
        // SAFETY: the caller's word.
        unsafe { frame.sub(Self::LEN).cast::<Self>().write_unaligned(*self) }
    }
}

/// Number of an interface, and of a queue there.
pub(crate) type Queue = (u32, u32);

/// A UMEM. It is registered by the first socket that is bound with it; later ones share it through any that is still open.
pub struct Umem {
    area: Box<dyn Area>,
    config: UmemConfig,
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    bound: Vec<(Weak<OwnedFd>, Queue)>,
    /// The kernel knows metadata, as far as it was asked.
    metadata: Option<bool>,
    /// The sockets take frames in several chunks.
    multi_buffer: bool,
}

impl Umem {
    /// Cuts `area` into chunks. Nothing is registered yet.
    ///
    /// # Errors
    /// A chunk size that the kernel does not know, or an area without a whole chunk.
    pub fn new(area: Box<dyn Area>, config: UmemConfig) -> Result<Arc<Self>, Error> {
        let chunk = config.chunk as usize;
        let fits = (2048..=4096).contains(&chunk) && chunk.is_power_of_two() && area.len() >= chunk;
        if !fits || !(area.start().as_ptr() as usize).is_multiple_of(4096) {
            return Err(Error::code(Step::Umem, libc::EINVAL));
        }
        Ok(Arc::new(Self { area, config, sockets: Mutex::default() }))
    }

    /// First byte.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.area.start()
    }

    /// Bytes of all whole chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.area.len() / self.config.chunk as usize * self.config.chunk as usize
    }

    /// Whether there is no chunk (never, once made).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How it is cut.
    #[must_use]
    pub const fn config(&self) -> UmemConfig {
        self.config
    }

    /// Whether [`Metadata`] is understood; known once a socket was bound.
    #[must_use]
    pub fn has_metadata(&self) -> bool {
        self.lock().metadata == Some(true)
    }

    /// Whether frames may lie in several chunks; known once a socket was bound.
    #[must_use]
    pub fn multi_buffer(&self) -> bool {
        self.lock().multi_buffer
    }

    /// Gives the socket this memory, then binds it by `bind`, which is told of the socket to share with, if any, and says whether frames may lie in
    /// several chunks, where that is not for the other socket to say.
    pub(crate) fn join(
        &self,
        fd: &Arc<OwnedFd>,
        queue: Queue,
        bind: impl FnOnce(Option<BorrowedFd<'_>>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut sockets = self.lock();
        sockets.bound.retain(|(fd, _)| fd.strong_count() > 0);
        if sockets.bound.iter().any(|(_, taken)| *taken == queue) {
            // The kernel would take two sockets of one queue for a wish to share its rings.
            return Err(Error::code(Step::Bind, libc::EBUSY));
        }
        match sockets.bound.iter().find_map(|(fd, _)| fd.upgrade()) {
            Some(other) => {
                bind(Some(other.as_fd()))?;
            }
            None => {
                let known = self.config.metadata && sockets.metadata != Some(false);
                let with = known && self.register(fd.as_fd(), true).is_ok();
                if !with {
                    self.register(fd.as_fd(), false)?;
                }
                sockets.metadata = Some(with);
                sockets.multi_buffer = bind(None)?;
            }
        }
        sockets.bound.push((Arc::downgrade(fd), queue));
        Ok(())
    }

    fn register(&self, fd: BorrowedFd<'_>, metadata: bool) -> Result<(), Error> {
        let region = libc::xdp_umem_reg {
            addr: self.start().as_ptr() as u64,
            len: self.len() as u64,
            chunk_size: self.config.chunk,
            headroom: self.config.headroom,
            flags: if metadata { libc::XDP_UMEM_TX_METADATA_LEN } else { 0 },
            tx_metadata_len: if metadata { Metadata::LEN as u32 } else { 0 },
        };
        sys::set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &region, Step::Umem)
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fds: Vec<i32> =
            self.lock().bound.iter().filter_map(|(fd, _)| fd.upgrade()).map(|fd| fd.as_raw_fd()).collect();
        f.debug_struct("Umem")
            .field("len", &self.len())
            .field("config", &self.config)
            .field("sockets", &fds)
            .finish()
    }
}
