//! The file I/O of one worker, in either mode.

use super::batch::Batch;
use super::buffers::Buffers;
use super::error::{IoError, IoMode, Refused};
use super::files::{self, FileId, Files};
use super::ring::Ring;
use super::sends::{Sends, Sent, Ticket};
use super::wake::Waker;
use crate::burst::Seg;
use crate::wire::vnet_hdr::VnetHdr;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// The file I/O of one worker. Made anywhere; from the first [`FdIo::register`] or [`FdIo::sleep`] on it belongs to the
/// thread that called it.
#[derive(Debug)]
pub struct FdIo {
    pub(super) files: Files,
    sends: Sends,
    pub(super) waker: Arc<Waker>,
    engine: Engine,
    reason: Option<String>,
    /// Something other than a send waits for the end of the turn.
    owed: bool,
}

#[derive(Debug)]
enum Engine {
    Ring(Box<Ring>),
    Batch(Box<Batch>),
}

impl FdIo {
    /// File I/O in `mode`; without one, io_uring where the kernel has all that is needed, else batched syscalls with
    /// [`FdIo::reason`] saying why.
    ///
    /// # Errors
    /// [`IoError::NoUring`] when io_uring is asked for and not usable; [`IoError::Setup`] when even an eventfd is refused.
    pub fn new(mode: Option<IoMode>) -> Result<(Self, Arc<Waker>), IoError> {
        let waker = Arc::new(Waker::new()?);
        let (engine, reason) = match mode {
            Some(IoMode::Batched) => (Engine::Batch(Batch::new(&waker)?.into()), None),
            wanted => match Ring::new(&waker) {
                Ok(ring) => (Engine::Ring(ring.into()), None),
                Err(why) if wanted == Some(IoMode::Uring) => return Err(IoError::NoUring(why)),
                Err(why) => (Engine::Batch(Batch::new(&waker)?.into()), Some(why)),
            },
        };
        let (files, sends) = (Files::new(), Sends::new());
        let io = Self { files, sends, waker: waker.clone(), engine, reason, owed: false };
        Ok((io, waker))
    }

    /// The mode in force.
    #[must_use]
    pub const fn mode(&self) -> IoMode {
        match self.engine {
            Engine::Ring(_) => IoMode::Uring,
            Engine::Batch(_) => IoMode::Batched,
        }
    }

    /// Why io_uring is not used although nobody forbade it; control warns by it once.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Takes a file in: its frames arrive in `buffers` (none: it only sends). The file must stay open until
    /// [`FdIo::close`] has returned.
    ///
    /// # Errors
    /// [`Refused`], with the buffers, when the kernel cannot watch the file.
    #[allow(clippy::result_large_err)] // once a file, and the buffers must come back
    pub fn register(&mut self, fd: BorrowedFd<'_>, buffers: Option<Buffers>) -> Result<FileId, Refused> {
        let Some(id) = self.files.vacant() else {
            return Err(Refused { error: IoError::TooMany(files::MAX_FILES), buffers });
        };
        match &mut self.engine {
            Engine::Ring(ring) => ring.register(&mut self.files, id, fd.as_raw_fd(), buffers)?,
            Engine::Batch(batch) => batch.register(&mut self.files, id, fd, buffers)?,
        }
        Ok(id)
    }

    /// Takes an eventfd in that wakes the worker when it is written to; nobody reads it. Or a socket, which wakes the worker when something
    /// arrives: once for all that lies there, so its owner reads until nothing is left. [`FdIo::take_ready`] names it. The file must
    /// stay open until [`FdIo::close`] has returned true.
    ///
    /// # Errors
    /// The kernel cannot watch the file.
    pub fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<FileId, IoError> {
        let id = self.files.vacant().ok_or(IoError::TooMany(files::MAX_FILES))?;
        match &mut self.engine {
            Engine::Ring(ring) => ring.watch(&mut self.files, id, fd.as_raw_fd()),
            Engine::Batch(batch) => batch.watch(&mut self.files, id, fd)?,
        }
        Ok(id)
    }

    /// Begins (first call) or goes on with closing: cancels the file's requests and reaps their completions. True when
    /// the kernel holds nothing of it any more; then [`FdIo::remove`] gives its buffers back.
    pub fn close(&mut self, id: FileId) -> bool {
        self.submit(); // nothing that names this file may stay queued
        match &mut self.engine {
            Engine::Ring(ring) => ring.close(&mut self.files, &mut self.sends, id),
            Engine::Batch(batch) => batch.close(&mut self.files, id),
        }
    }

    /// Forgets a closed file. Its buffers come back with the frames that nobody has taken; [`FdIo::register`] elsewhere
    /// goes on with them. `None` when the file had none, is unknown, or is not closed yet.
    pub fn remove(&mut self, id: FileId) -> Option<Buffers> {
        self.files.remove(id)
    }

    /// Performs everything queued, then takes in completions. After it every send of this turn has its result, and the
    /// turn's scratch is free from the next [`FdIo::send`] on.
    pub fn submit(&mut self) {
        self.flush();
        self.sends.submitted();
        self.owed = false;
    }

    /// A receiver has work for the end of the turn (a system call of its own): the worker comes to it soon.
    #[inline]
    pub fn owe(&mut self) {
        self.owed = true;
    }

    /// Whether the end of the turn has nothing to do: no send since the last [`FdIo::submit`], so that lent bytes are named nowhere, and nothing
    /// is owed.
    #[inline]
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        self.sends.is_clear() && !self.owed
    }

    /// Performs everything queued, in the middle of a turn: results stay, and the scratch is as full as before.
    pub fn flush(&mut self) {
        match &mut self.engine {
            Engine::Ring(ring) => ring.submit(&mut self.files, &mut self.sends),
            Engine::Batch(_) => self.sends.write_all(),
        }
    }

    /// Takes in what has arrived; costs two loads when nothing has (io_uring).
    pub fn poll(&mut self) {
        match &mut self.engine {
            Engine::Ring(ring) => ring.poll(&mut self.files, &mut self.sends),
            Engine::Batch(batch) => batch.poll(&mut self.files),
        }
    }

    /// The next file that has received frames, became writable after [`FdIo::want_writable`] or came to an end since it
    /// was last returned here.
    pub fn take_ready(&mut self) -> Option<FileId> {
        self.files.take_ready()
    }

    /// Announces that the worker is about to sleep: from now on [`Waker::nudge`] wakes it. The worker then looks at every
    /// source once more and calls [`FdIo::sleep`], or [`FdIo::rise`] when it found something.
    pub fn announce(&self) {
        self.waker.announce();
    }

    /// Takes the announcement back.
    pub fn rise(&self) {
        self.waker.rise();
    }

    /// Waits until a completion, a wake, or `timeout_ns` nanoseconds have passed; returns at once when files are ready or
    /// a wake came before. Takes in what has arrived.
    pub fn sleep(&mut self, timeout_ns: Option<u64>) {
        let stay = !self.waker.announce() || self.files.has_ready();
        let timeout_ns = if stay { Some(0) } else { timeout_ns };
        match &mut self.engine {
            Engine::Ring(ring) => ring.sleep(&mut self.files, &mut self.sends, timeout_ns),
            Engine::Batch(batch) => batch.sleep(&mut self.files, timeout_ns),
        }
        self.waker.rise();
    }

    /// The `i`th oldest frame received and not yet recycled, `i` from 0.
    #[inline]
    #[must_use]
    pub fn received(&self, id: FileId, i: usize) -> Option<Seg> {
        self.files.get(id)?.buffers.as_ref()?.received(i)
    }

    /// Frames received and not yet recycled.
    #[inline]
    #[must_use]
    pub fn backlog(&self, id: FileId) -> usize {
        self.files.get(id).and_then(|f| f.buffers.as_ref()).map_or(0, Buffers::len)
    }

    /// Gives the buffers of the `n` oldest received frames back to the kernel.
    pub fn recycle(&mut self, id: FileId, n: usize) {
        match &mut self.engine {
            Engine::Ring(ring) => ring.recycle(&mut self.files, id, n),
            Engine::Batch(batch) => batch.recycle(&mut self.files, id, n),
        }
    }

    /// Why the file receives no more: the errno, 0 for the end of the file. `None` while it is well.
    #[must_use]
    pub fn ended(&self, id: FileId) -> Option<Errno> {
        self.files.get(id)?.ended
    }

    /// Sends that [`FdIo::send`] would still take before the next [`FdIo::submit`].
    #[inline]
    #[must_use]
    pub fn send_room(&self) -> usize {
        self.sends.room()
    }

    /// Queues one frame: the ten-byte header if there is one, then the segments, in one write. The segments must stay
    /// lent until [`FdIo::submit`]; `weight` comes back with the result. `None` when the turn's scratch is full (then
    /// [`FdIo::flush`] and [`FdIo::write_now`]) or the file is unknown.
    #[inline]
    pub fn send(&mut self, id: FileId, hdr: Option<&VnetHdr>, weight: u32, segs: &[Seg]) -> Option<Ticket> {
        let fd = self.files.get(id)?.fd;
        let ticket = self.sends.push(fd, hdr, weight, segs)?;
        if let Engine::Ring(ring) = &mut self.engine {
            ring.send(&mut self.files, &mut self.sends, id, ticket);
        }
        Some(ticket)
    }

    /// The result of a send, until the first [`FdIo::send`] after [`FdIo::submit`].
    #[inline]
    #[must_use]
    pub fn sent(&self, ticket: Ticket) -> Option<Sent> {
        self.sends.result(ticket)
    }

    /// Calls `each` with the segments of a send (without the header); as long as its result.
    pub fn sent_segs(&self, ticket: Ticket, each: impl FnMut(Seg)) {
        self.sends.segs(ticket, each);
    }

    /// Writes one frame now, by a plain system call: for retries, and where a refusal must stop all later frames.
    ///
    /// # Errors
    /// The kernel's errno; [`Errno::EBADF`] for an unknown file.
    pub fn write_now(&mut self, id: FileId, hdr: Option<&VnetHdr>, segs: &[Seg]) -> Result<usize, Errno> {
        let fd = self.files.get(id).ok_or(Errno::EBADF)?.fd;
        self.sends.write_now(fd, hdr, segs)
    }

    /// Whether [`FdIo::want_writable`] has been asked and there is no room yet.
    #[must_use]
    pub fn waits_writable(&self, id: FileId) -> bool {
        self.files.get(id).is_some_and(|f| f.polling_out)
    }

    /// Makes the file ready once ([`FdIo::take_ready`]) when it can be written to again.
    pub fn want_writable(&mut self, id: FileId) {
        match &mut self.engine {
            Engine::Ring(ring) => ring.want_writable(&mut self.files, &mut self.sends, id),
            Engine::Batch(batch) => batch.want_writable(&mut self.files, id),
        }
    }
}

impl Drop for FdIo {
    fn drop(&mut self) {
        // The kernel must be done with the buffers before they go; what it will not let go of is leaked instead.
        for id in self.files.all() {
            let mut tries = 0;
            while !self.close(id) && tries < 1000 {
                tries += 1;
                std::thread::yield_now();
            }
            match self.remove(id) {
                Some(buffers) => drop(buffers),
                None => std::mem::forget(self.files.seize(id)),
            }
        }
    }
}
