//! Frames on their way to a chardev.

use super::framing::{Format, append};
use super::link::{Link, Woke, writable};
use super::{BATCH, RING};
use crate::burst::{Burst, Mask};
use crate::mem::arena::Arena;
use crate::mem::records::{Reader, Writer, ring};
use nix::errno::Errno;
use nix::poll::PollFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long the thread of a filter that goes tries to get the last frames away.
const FAREWELL: Duration = Duration::from_millis(200);

/// What workers, the thread and control share.
#[derive(Debug)]
struct Shared {
    link: Link,
    /// Nobody will ever be there, and frames are swallowed (chardev `null`).
    swallows: bool,
    vnet: AtomicBool,
    always: AtomicBool,
    sent: AtomicU64,
    unconnected: AtomicU64,
    full: AtomicU64,
    cut: AtomicU64,
    long: AtomicU64,
}

/// A worker's end: copies frames for the thread.
#[derive(Debug)]
pub struct Outlet {
    shared: Arc<Shared>,
    writer: Writer,
}

impl Outlet {
    /// Copies the selected frames. It never waits: those for which there is no room are lost, by name.
    pub fn take(&mut self, burst: &Burst, mask: Mask) {
        let shared = &*self.shared;
        if !shared.link.is_connected() {
            let lost = if shared.swallows { &shared.sent } else { &shared.unconnected };
            lost.fetch_add(mask.count() as u64, Ordering::Relaxed);
            return;
        }
        let mut full = 0;
        for frame in mask.iter().filter_map(|i| burst.frames().get(i)) {
            full += u64::from(!self.writer.push(burst, frame));
        }
        if full != 0 {
            shared.full.fetch_add(full, Ordering::Relaxed);
        }
        self.writer.publish();
        shared.link.nudge();
    }
}

/// Control's hold on the thread.
#[derive(Debug)]
pub struct OutletThread {
    shared: Arc<Shared>,
}

impl OutletThread {
    /// Starts a thread, and makes an outlet for each worker. `swallows`: nobody will ever be there, and that is no loss.
    ///
    /// # Errors
    /// No memory, no descriptor, no thread.
    pub fn start(arena: &Arc<Arena>, workers: usize, swallows: bool) -> io::Result<(Self, Vec<Outlet>)> {
        let (this, outlets, readers, running) = Self::parts(arena, workers, swallows)?;
        let shared = this.shared.clone();
        thread::Builder::new().name("netdevd-chan".into()).spawn(move || {
            let run = Run { shared: &shared, readers, file: None, staged: Staged::default() };
            run.run();
            drop(running);
        })?;
        Ok((this, outlets))
    }

    /// An outlet whose frames the caller reads, for measurements: there is no thread.
    ///
    /// # Errors
    /// No memory, no descriptor.
    pub fn unread(arena: &Arc<Arena>) -> io::Result<(Self, Outlet, Reader)> {
        let (this, mut outlets, mut readers, _) = Self::parts(arena, 1, false)?;
        // As if somebody were there: any file does.
        this.shared.link.connect(std::fs::File::open("/dev/null")?.into());
        match (outlets.pop(), readers.pop()) {
            (Some(outlet), Some(reader)) => Ok((this, outlet, reader)),
            _ => Err(io::ErrorKind::Other.into()),
        }
    }

    #[allow(clippy::type_complexity)] // taken apart at once
    fn parts(
        arena: &Arc<Arena>,
        workers: usize,
        swallows: bool,
    ) -> io::Result<(Self, Vec<Outlet>, Vec<Reader>, std::sync::mpsc::Sender<()>)> {
        let (link, running) = Link::new().map_err(io::Error::other)?;
        let none = || AtomicU64::new(0);
        let shared = Arc::new(Shared {
            link,
            swallows,
            vnet: AtomicBool::new(false),
            always: AtomicBool::new(false),
            sent: none(),
            unconnected: none(),
            full: none(),
            cut: none(),
            long: none(),
        });
        let (mut outlets, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (writer, reader) = ring(arena, RING).map_err(io::Error::other)?;
            outlets.push(Outlet { shared: shared.clone(), writer });
            readers.push(reader);
        }
        Ok((Self { shared }, outlets, readers, running))
    }

    /// Control's end.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.shared.link
    }

    /// `vnet_hdr_support`: in force for the frames that are written from now on.
    pub fn set_vnet(&self, vnet: bool) {
        self.shared.vnet.store(vnet, Ordering::Relaxed);
    }

    /// Whether each frame of the netdev has a virtio-net header.
    pub fn set_always(&self, always: bool) {
        self.shared.always.store(always, Ordering::Relaxed);
    }

    /// Frames written, and those lost, by name.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let Shared { sent, unconnected, full, cut, long, .. } = &*self.shared;
        let all = [
            ("sent", sent),
            ("not-connected", unconnected),
            ("ring-full", full),
            ("cut", cut),
            ("too-long", long),
        ];
        all.map(|(name, count)| (name, count.load(Ordering::Relaxed))).into()
    }
}

/// Bytes that are to be written.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// How much has been written.
    sent: usize,
}

impl Staged {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.sent = 0;
    }

    const fn left(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Frames that have not been written to their end.
    fn frames_left(&self) -> u64 {
        self.ends.iter().filter(|end| **end > self.sent).count() as u64
    }
}

/// The thread.
struct Run<'s> {
    shared: &'s Shared,
    readers: Vec<Reader>,
    file: Option<OwnedFd>,
    staged: Staged,
}

impl Run<'_> {
    fn run(mut self) {
        while !self.shared.link.is_closing() {
            self.adopt();
            if self.file.is_none() {
                // What comes behind a connection that came just now is for that.
                if !self.shared.link.is_connected() {
                    self.discard();
                }
                self.rest(PollFlags::empty());
            } else if self.stage() {
                self.write();
            } else {
                self.rest(PollFlags::empty());
            }
        }
        self.farewell();
    }

    /// Takes the connection that came.
    fn adopt(&mut self) {
        if let Some(file) = self.shared.link.arrived() {
            self.file = Some(file);
        }
    }

    /// Waits for frames, or for the file.
    fn rest(&mut self, wanted: PollFlags) {
        let (readers, file) = (&mut self.readers, self.file.as_ref().map(AsFd::as_fd));
        let again = || wanted.is_empty() && readers.iter_mut().any(|reader| !reader.is_empty());
        if self.shared.link.rest(file, wanted, again) == Woke::Gone {
            self.end();
        }
    }

    /// Lays out frames that came, unless some are left; whether there is something to write.
    fn stage(&mut self) -> bool {
        if self.staged.left() != 0 {
            return true;
        }
        self.staged.clear();
        let Shared { vnet, always, .. } = self.shared;
        let format = Format { vnet: vnet.load(Ordering::Relaxed), always: always.load(Ordering::Relaxed) };
        let share = BATCH / self.readers.len().max(1);
        for reader in &mut self.readers {
            let until = self.staged.bytes.len() + share;
            while self.staged.bytes.len() < until {
                let Some(record) = reader.first() else { break };
                if append(&record, format, &mut self.staged.bytes) {
                    self.staged.ends.push(self.staged.bytes.len());
                } else {
                    self.shared.long.fetch_add(1, Ordering::Relaxed);
                }
                reader.pop();
            }
        }
        self.staged.left() != 0
    }

    /// Writes what the file takes; waits where that is nothing.
    fn write(&mut self) {
        match self.write_some() {
            Ok(true) => {}
            Ok(false) => self.rest(PollFlags::POLLOUT),
            Err(_gone) => self.end(),
        }
    }

    /// Whether anything was written.
    fn write_some(&mut self) -> nix::Result<bool> {
        let (Some(file), Some(bytes)) = (&self.file, self.staged.bytes.get(self.staged.sent..)) else {
            return Ok(false);
        };
        let n = match nix::unistd::write(file, bytes) {
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        let before = self.staged.frames_left();
        self.staged.sent += n;
        self.shared.sent.fetch_add(before - self.staged.frames_left(), Ordering::Relaxed);
        Ok(n != 0)
    }

    /// The connection is over: what was on its way is lost, the rest of a frame too, which nobody could make sense of.
    fn end(&mut self) {
        self.file = None;
        self.shared.cut.fetch_add(self.staged.frames_left(), Ordering::Relaxed);
        self.staged.clear();
        self.discard();
        self.shared.link.end();
    }

    /// Frames that came when nobody was there.
    fn discard(&mut self) {
        for reader in &mut self.readers {
            while !reader.is_empty() {
                reader.pop();
                self.shared.unconnected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The last frames, as far as they are taken soon.
    fn farewell(mut self) {
        // A filter may have come and gone before its thread ran for the first time.
        self.adopt();
        let until = Instant::now() + FAREWELL;
        while self.file.is_some() && self.stage() {
            match self.write_some() {
                Ok(true) => {}
                Ok(false) => {
                    if !self.file.as_ref().is_some_and(|file| writable(file.as_fd(), until)) {
                        break;
                    }
                }
                Err(_gone) => {
                    self.file = None;
                }
            }
        }
        let left = self.staged.frames_left();
        self.shared.cut.fetch_add(left, Ordering::Relaxed);
        self.discard();
        self.shared.link.over(left == 0 && self.file.is_some());
    }
}
