//! The way without io_uring: readiness by edge-triggered epoll, frames by non-blocking `read` and `writev`.

use super::buffers::Buffers;
use super::files::{File, FileId, Files};
use super::{IoError, Refused, Waker};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Frames read from one file before the next one has its turn.
const BUDGET: usize = 32;
/// Names the waker among the events.
const WAKE: u64 = u64::MAX;

/// Epoll and plain calls of one worker.
#[derive(Debug)]
pub(super) struct Batch {
    epoll: Epoll,
    events: [EpollEvent; 64],
}

impl Batch {
    pub(super) fn new(waker: &Waker) -> Result<Self, IoError> {
        let setup = |what| move |errno| IoError::Setup { what, errno };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(setup("epoll_create1"))?;
        // Edge-triggered: every write is an event, and nobody has to read the eventfd.
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE);
        epoll.add(waker, event).map_err(setup("epoll_ctl"))?;
        Ok(Self { epoll, events: [EpollEvent::empty(); 64] })
    }

    #[allow(clippy::result_large_err)] // once a file, and the buffers must come back
    pub(super) fn register(
        &mut self,
        files: &mut Files,
        id: FileId,
        fd: BorrowedFd<'_>,
        buffers: Option<Buffers>,
    ) -> Result<(), Refused> {
        let data = u64::from(files.generation(id)) << 32 | u64::from(id.0);
        let fd_raw = fd.as_raw_fd();
        if let Err(errno) = self.epoll.add(fd, EpollEvent::new(interest(buffers.is_some(), false), data)) {
            return Err(Refused { error: IoError::Watch { fd: fd_raw, errno }, buffers });
        }
        let waiting = buffers.as_ref().is_some_and(|b| !b.is_empty());
        files.insert(id, File::new(fd_raw, buffers));
        files.list(id);
        if waiting {
            files.mark(id);
        }
        Ok(())
    }

    pub(super) fn watch(&mut self, files: &mut Files, id: FileId, fd: BorrowedFd<'_>) -> Result<(), IoError> {
        let data = u64::from(files.generation(id)) << 32 | u64::from(id.0);
        let watched = self.epoll.add(fd, EpollEvent::new(interest(true, false), data));
        watched.map_err(|errno| IoError::Watch { fd: fd.as_raw_fd(), errno })?;
        files.insert(id, File::watched(fd.as_raw_fd()));
        Ok(())
    }

    pub(super) fn close(&mut self, files: &mut Files, id: FileId) -> bool {
        let Some(file) = files.get_mut(id).filter(|f| !f.closed) else { return true };
        file.closing = true;
        file.closed = true;
        // An fd that was closed already left the set by itself.
        let _ = self.epoll.delete(borrow(file.fd));
        true
    }

    pub(super) fn want_writable(&mut self, files: &mut Files, id: FileId) {
        let data = u64::from(files.generation(id)) << 32 | u64::from(id.0);
        let Some(file) = files.get_mut(id).filter(|f| !f.polling_out && !f.closing) else { return };
        let mut event = EpollEvent::new(interest(reads(file), true), data);
        file.polling_out = self.epoll.modify(borrow(file.fd), &mut event).is_ok();
    }

    pub(super) fn recycle(&mut self, files: &mut Files, id: FileId, n: usize) {
        let Some(file) = files.get_mut(id) else { return };
        let Some(buffers) = &mut file.buffers else { return };
        for _ in 0..n {
            let Some(bid) = buffers.pop() else { break };
            buffers.put_free(bid);
        }
        if !file.armed && !file.closing && file.ended.is_none() && buffers.free() > 0 {
            files.list(id); // it ran out of buffers before the kernel ran out of frames
        }
    }

    pub(super) fn poll(&mut self, files: &mut Files) {
        self.wait(files, Some(0));
        read_listed(files);
    }

    pub(super) fn sleep(&mut self, files: &mut Files, timeout_ns: Option<u64>) {
        let busy = !files.work.is_empty() || files.has_ready();
        self.wait(files, if busy { Some(0) } else { timeout_ns });
        read_listed(files);
    }

    /// Takes in events, waiting at most `timeout_ns` for the first.
    fn wait(&mut self, files: &mut Files, timeout_ns: Option<u64>) {
        let n = epoll_wait(&self.epoll, &mut self.events, timeout_ns);
        for event in self.events.get(..n).unwrap_or_default() {
            if event.data() == WAKE {
                continue;
            }
            let (id, generation) = (FileId(event.data() as u32), (event.data() >> 32) as u32);
            let flags = event.events();
            let Some(file) = files.of_generation(id, generation).filter(|f| !f.closing) else { continue };
            let (watched, room) = (file.watched, file.polling_out);
            if room && flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR) {
                file.polling_out = false;
                let mut calm = EpollEvent::new(interest(reads(file), false), event.data());
                let _ = self.epoll.modify(borrow(file.fd), &mut calm);
                files.mark(id);
            }
            // Errors and the other end's close show in the read.
            if watched { files.mark(id) } else { files.list(id) }
        }
    }
}

/// Reads each listed file until it is empty, out of buffers, or has had its share.
fn read_listed(files: &mut Files) {
    for _ in 0..files.work.len() {
        let Some(id) = files.next_listed() else { return };
        let Some(file) = files.get_mut(id) else { continue };
        if file.closing || file.ended.is_some() {
            continue;
        }
        let Some(buffers) = &mut file.buffers else { continue };
        let (mut got, mut budget) = (false, BUDGET);
        file.armed = false;
        while budget > 0 {
            let Some((bid, ptr)) = buffers.take_free() else { break };
            // SAFETY: a free buffer of `size` bytes that nobody else holds.
            let n = unsafe { libc::read(file.fd, ptr.as_ptr().cast(), buffers.size()) };
            if n > 0 {
                got |= buffers.push(bid, n as u32);
                budget -= 1;
                continue;
            }
            let errno = if n == 0 { Errno::from_raw(0) } else { Errno::last() };
            buffers.put_free(bid);
            match errno {
                Errno::EINTR => continue,
                Errno::EAGAIN => file.armed = true, // the next frame is an event
                errno => file.ended = Some(errno),
            }
            break;
        }
        let (news, again) = (got || file.ended.is_some(), budget == 0);
        if again {
            files.list(id);
        }
        if news {
            files.mark(id);
        }
    }
}

/// Whether what arrives in a file is of interest: it has buffers for it, or somebody else reads it.
const fn reads(file: &File) -> bool {
    file.buffers.is_some() || file.watched
}

const fn interest(reads: bool, writes: bool) -> EpollFlags {
    let mut flags = EpollFlags::EPOLLET;
    if reads {
        flags = flags.union(EpollFlags::EPOLLIN);
    }
    if writes {
        flags = flags.union(EpollFlags::EPOLLOUT);
    }
    flags
}

/// The file behind a registered descriptor.
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: `FdIo::register` asks that the file stays open until it is closed here; used within one call only.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// `epoll_wait` with nanoseconds where the kernel has it (Linux 5.11).
fn epoll_wait(epoll: &Epoll, events: &mut [EpollEvent], timeout_ns: Option<u64>) -> usize {
    let Some(ns) = timeout_ns.filter(|&ns| ns > 0) else {
        let timeout = if timeout_ns.is_some() { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        return epoll.wait(events, timeout).unwrap_or(0); // EINTR: nothing yet
    };
    let time = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    // SAFETY: `EpollEvent` is a transparent `epoll_event`, the array has that many, and the time outlives the call.
    let n = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.0.as_raw_fd(),
            events.as_mut_ptr(),
            events.len() as i32,
            &raw const time,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    if n < 0 && Errno::last() == Errno::ENOSYS {
        let ms = u16::try_from(ns.div_ceil(1_000_000)).unwrap_or(u16::MAX);
        return epoll.wait(events, EpollTimeout::from(ms)).unwrap_or(0);
    }
    usize::try_from(n).unwrap_or(0)
}
