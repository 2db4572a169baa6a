//! The files of one worker, and which of them have something to say.

use super::Buffers;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// Files that one worker can have (a slot is also the number of a provided-buffer group).
pub(super) const MAX_FILES: usize = 65_536;

/// Names a file registered with a worker's [`super::FdIo`]: a slot, used again after [`super::FdIo::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// One file.
#[derive(Debug)]
pub(super) struct File {
    pub fd: RawFd,
    pub buffers: Option<Buffers>,
    /// Why it receives no more; errno 0 is the end of the file.
    pub ended: Option<Errno>,
    /// It has a slot of its own number in the kernel's table of registered files (io_uring).
    pub registered: bool,
    /// A multishot read is with the kernel (io_uring); the kernel watches it (batched).
    pub armed: bool,
    /// It has no frames: its events only wake the worker.
    pub watched: bool,
    /// A poll for room to write is with the kernel.
    pub polling_out: bool,
    /// Requests of it are being cancelled.
    pub closing: bool,
    /// Nothing of it is with the kernel.
    pub closed: bool,
    /// It stands on the list of files to arm or to read.
    pub listed: bool,
    /// Fruitless receives in a row.
    pub retries: u8,
    ready: bool,
}

impl File {
    pub(super) const fn new(fd: RawFd, buffers: Option<Buffers>) -> Self {
        Self {
            fd,
            buffers,
            ended: None,
            registered: false,
            armed: false,
            watched: false,
            polling_out: false,
            closing: false,
            closed: false,
            listed: false,
            retries: 0,
            ready: false,
        }
    }
}

impl File {
    /// A file whose events only wake the worker.
    pub(super) const fn watched(fd: RawFd) -> Self {
        let mut file = Self::new(fd, None);
        file.watched = true;
        file
    }

    /// Whether what arrives is of interest.
    pub(super) const fn reads(&self) -> bool {
        self.buffers.is_some() || self.watched
    }
}

/// The table of files. Slots are used again; a slot's generation tells old completions from new ones.
#[derive(Debug)]
pub(super) struct Files {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    ready: VecDeque<u32>,
    /// Files to arm (io_uring) or to read (batched).
    pub work: VecDeque<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    file: Option<File>,
}

impl Files {
    pub(super) fn new() -> Self {
        const ROOM: usize = 1024; // grows when a queue is taken in, never in between
        Self {
            slots: Vec::with_capacity(ROOM),
            vacant: Vec::with_capacity(ROOM),
            ready: VecDeque::with_capacity(ROOM),
            work: VecDeque::with_capacity(ROOM),
        }
    }

    /// A slot for a new file.
    pub(super) fn vacant(&mut self) -> Option<FileId> {
        if let Some(&slot) = self.vacant.last() {
            return Some(FileId(slot));
        }
        let slot = self.slots.len();
        if slot >= MAX_FILES {
            return None;
        }
        self.slots.push(Slot { generation: 0, file: None });
        self.vacant.push(slot as u32);
        // Each file stands at most once on each list.
        self.ready.reserve(self.slots.len() - self.ready.len());
        self.work.reserve(self.slots.len() - self.work.len());
        self.vacant.reserve(self.slots.len() - self.vacant.len());
        Some(FileId(slot as u32))
    }

    /// Fills the slot that [`Files::vacant`] gave.
    pub(super) fn insert(&mut self, id: FileId, file: File) {
        if self.vacant.last() == Some(&id.0) {
            self.vacant.pop();
        }
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            slot.file = Some(file);
        }
    }

    #[inline]
    pub(super) fn get(&self, id: FileId) -> Option<&File> {
        self.slots.get(id.0 as usize)?.file.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.slots.get_mut(id.0 as usize)?.file.as_mut()
    }

    /// The slot's generation, 24 bits.
    pub(super) fn generation(&self, id: FileId) -> u32 {
        self.slots.get(id.0 as usize).map_or(0, |s| s.generation)
    }

    /// The file that a completion of that generation is for.
    #[inline]
    pub(super) fn of_generation(&mut self, id: FileId, generation: u32) -> Option<&mut File> {
        self.slots.get_mut(id.0 as usize).filter(|s| s.generation == generation)?.file.as_mut()
    }

    pub(super) fn all(&self) -> Vec<FileId> {
        (0..self.slots.len() as u32).map(FileId).filter(|&id| self.get(id).is_some()).collect()
    }

    pub(super) fn remove(&mut self, id: FileId) -> Option<Buffers> {
        if !self.get(id)?.closed {
            return None;
        }
        self.seize(id)?.buffers
    }

    /// Takes a file out, whatever its state.
    pub(super) fn seize(&mut self, id: FileId) -> Option<File> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        let file = slot.file.take()?;
        slot.generation = (slot.generation + 1) & 0x00ff_ffff;
        self.vacant.push(id.0);
        if file.ready {
            self.ready.retain(|&s| s != id.0);
        }
        if file.listed {
            self.work.retain(|&s| s != id.0);
        }
        Some(file)
    }

    /// The file has something to say.
    #[inline]
    pub(super) fn mark(&mut self, id: FileId) {
        if let Some(file) = self.get_mut(id)
            && !file.ready
        {
            file.ready = true;
            self.ready.push_back(id.0);
        }
    }

    /// The file is to be armed or read.
    #[inline]
    pub(super) fn list(&mut self, id: FileId) {
        if let Some(file) = self.get_mut(id)
            && !file.listed
        {
            file.listed = true;
            self.work.push_back(id.0);
        }
    }

    /// The next file to arm or read.
    #[inline]
    pub(super) fn next_listed(&mut self) -> Option<FileId> {
        let id = FileId(self.work.pop_front()?);
        if let Some(file) = self.get_mut(id) {
            file.listed = false;
        }
        Some(id)
    }

    #[inline]
    pub(super) fn take_ready(&mut self) -> Option<FileId> {
        let id = FileId(self.ready.pop_front()?);
        if let Some(file) = self.get_mut(id) {
            file.ready = false;
        }
        Some(id)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}
