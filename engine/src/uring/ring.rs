//! The io_uring way: multishot reads into each file's provided buffers, writes with `RWF_NOWAIT`, one enter for all.

use super::buffers::Buffers;
use super::files::{File, FileId, Files};
use super::sends::{Sends, Ticket};
use super::{IoError, Refused, Waker};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, RawFd};

/// Submission entries: a burst to each port of a small hub. When it is full it is submitted in between.
const SQ: u32 = 1024;
/// Completion entries: all sends of a submission and the received frames of many ports. Beyond it the kernel keeps a list
/// (slow, never lost) and ends multishot receives, which are armed again.
const CQ: u32 = 16_384;
/// Sizes of the table of registered files to try: the kernel wants it below the process's limit of open files.
const SLOTS: [u32; 2] = [4096, 1024];
/// Fruitless receives in a row after which a file counts as broken.
const RETRIES: u8 = 8;

/// Flag of `io_uring_enter`: run deferred task work, and wait if asked to.
const IORING_ENTER_GETEVENTS: u32 = 1;

/// What a completion is about: the top byte of its user data. Then 24 bits generation, 32 bits slot or ticket.
const RECEIVE: u64 = 1 << 56;
const SEND: u64 = 2 << 56;
const WRITABLE: u64 = 3 << 56;
const WAKE: u64 = 4 << 56;
const CANCEL: u64 = 5 << 56;
const EVENT: u64 = 6 << 56;
const KIND: u64 = 0xff << 56;

/// io_uring of one worker.
pub(super) struct Ring {
    io: IoUring,
    waker: RawFd,
    /// Slots of the kernel's table of registered files; a file beyond them is named by its descriptor.
    slots: u32,
    /// The ring belongs to the thread that enabled it.
    enabled: bool,
    waker_armed: bool,
    /// A kick of the waker's was taken in.
    kicked: bool,
    /// The kernel refused the ring itself; nothing is submitted any more.
    broken: Option<Errno>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("enabled", &self.enabled)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring, not yet bound to a thread; or, in words, why there is none.
    pub(super) fn new(waker: &Waker) -> Result<Self, String> {
        let io: IoUring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(CQ)
            .build(SQ)
            .map_err(|e| why_not(e.raw_os_error().unwrap_or(0)))?;
        let params = io.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_fast_poll()) {
            return Err("this kernel's io_uring lacks needed features (Linux 6.7 has them)".into());
        }
        let mut probe = Probe::new();
        io.submitter().register_probe(&mut probe).map_err(|e| format!("probing io_uring: {e}"))?;
        let needed = [
            ("READ_MULTISHOT (Linux 6.7)", opcode::ReadMulti::CODE),
            ("WRITE", opcode::Write::CODE),
            ("WRITEV", opcode::Writev::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ];
        match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
            Some((name, _)) => Err(format!("this kernel's io_uring lacks {name}")),
            None => Ok(Self {
                io,
                waker: waker.as_raw_fd(),
                slots: 0,
                enabled: false,
                waker_armed: false,
                kicked: false,
                broken: None,
            }),
        }
    }

    /// Binds the ring to this thread, once.
    fn enable(&mut self) {
        if !self.enabled {
            self.enabled = true;
            if let Err(e) = self.io.submitter().register_enable_rings() {
                self.broken = Some(errno_of(&e));
            }
            self.slots = SLOTS
                .into_iter()
                .find(|&n| self.io.submitter().register_files_sparse(n).is_ok())
                .unwrap_or(0);
        }
    }

    #[allow(clippy::result_large_err)] // once a file, and the buffers must come back
    pub(super) fn register(
        &mut self,
        files: &mut Files,
        id: FileId,
        fd: RawFd,
        mut buffers: Option<Buffers>,
    ) -> Result<(), Refused> {
        self.enable();
        if let Some(b) = &mut buffers {
            b.reset_ring();
            // SAFETY: the ring lies in the buffers' part of the arena, which stays theirs until the group is unregistered:
            // the file keeps the buffers until then, and leaks them rather than drop them earlier.
            let done = unsafe {
                self.io.submitter().register_buf_ring_with_flags(b.ring(), b.count() as u16, id.0 as u16, 0)
            };
            if let Err(e) = done {
                return Err(Refused { error: IoError::Watch { fd, errno: errno_of(&e) }, buffers });
            }
            b.provide_free();
        }
        let waiting = buffers.as_ref().is_some_and(|b| !b.is_empty());
        let registered = id.0 < self.slots && self.io.submitter().register_files_update(id.0, &[fd]).is_ok();
        let mut file = File::new(fd, buffers);
        file.registered = registered;
        files.insert(id, file);
        files.list(id);
        if waiting {
            files.mark(id);
        }
        Ok(())
    }

    /// The event of a watched file is polled for from the next [`Ring::arm`] on.
    pub(super) fn watch(&mut self, files: &mut Files, id: FileId, fd: RawFd) {
        self.enable();
        files.insert(id, File::watched(fd));
        files.list(id);
    }

    pub(super) fn close(&mut self, files: &mut Files, sends: &mut Sends, id: FileId) -> bool {
        let generation = files.generation(id);
        let Some(file) = files.get_mut(id) else { return true };
        if file.closed {
            return true;
        }
        if !file.closing {
            file.closing = true;
            let (armed, polling) = (file.armed, file.polling_out);
            let received = if file.watched { EVENT } else { RECEIVE };
            for (there, kind) in [(armed, received), (polling, WRITABLE)] {
                if there {
                    let cancel = opcode::AsyncCancel::new(user_data(kind, generation, id.0)).build();
                    self.push(files, sends, &cancel.user_data(CANCEL));
                }
            }
        }
        self.enter(0);
        self.reap(files, sends);
        let Some(file) = files.get_mut(id).filter(|f| !f.armed && !f.polling_out) else { return false };
        // The table holds the file open: its owner's close must be the last.
        if file.registered && self.io.submitter().register_files_update(id.0, &[-1]).is_err() {
            return false;
        }
        file.registered = false;
        if let Some(buffers) = &mut file.buffers {
            if self.io.submitter().unregister_buf_ring(id.0 as u16).is_err() {
                return false;
            }
            buffers.take_back();
        }
        file.closed = true;
        true
    }

    pub(super) fn send(&mut self, files: &mut Files, sends: &mut Sends, id: FileId, ticket: Ticket) {
        let (Some(write), Some(file)) = (sends.write(ticket), files.get(id)) else { return };
        let (fd, flags) = name(file, id);
        let sqe = match write.run {
            Some(run) => opcode::Write::new(fd, run.iov_base.cast(), run.iov_len as u32)
                .rw_flags(libc::RWF_NOWAIT)
                .build(),
            None => opcode::Writev::new(fd, write.iovecs, u32::from(write.count))
                .rw_flags(libc::RWF_NOWAIT)
                .build(),
        };
        self.push(files, sends, &sqe.flags(flags).user_data(user_data(SEND, 0, ticket.0)));
    }

    pub(super) fn want_writable(&mut self, files: &mut Files, sends: &mut Sends, id: FileId) {
        let generation = files.generation(id);
        let Some(file) = files.get_mut(id).filter(|f| !f.polling_out && !f.closing) else { return };
        file.polling_out = true;
        let (fd, flags) = name(file, id);
        let sqe = opcode::PollAdd::new(fd, libc::POLLOUT as u32).build().flags(flags);
        self.push(files, sends, &sqe.user_data(user_data(WRITABLE, generation, id.0)));
    }

    pub(super) fn recycle(&mut self, files: &mut Files, id: FileId, n: usize) {
        let Some(file) = files.get_mut(id) else { return };
        let Some(buffers) = &mut file.buffers else { return };
        if buffers.provide_received(n) > 0 && !file.armed {
            files.list(id); // it ran out of buffers
        }
    }

    pub(super) fn submit(&mut self, files: &mut Files, sends: &mut Sends) {
        self.poll(files, sends);
        while sends.pending() > 0 {
            if let Some(errno) = self.broken {
                sends.fail(errno);
                return;
            }
            // Not reached with RWF_NOWAIT unless the kernel was short of memory: no send may outlive the call.
            let queued = self.io.submission().len();
            self.enter(usize::from(queued == 0));
            self.reap(files, sends);
        }
    }

    pub(super) fn poll(&mut self, files: &mut Files, sends: &mut Sends) {
        self.arm(files, sends);
        let due = {
            let sq = self.io.submission();
            !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
        };
        if due {
            self.enter(0);
        }
        self.reap(files, sends);
    }

    pub(super) fn sleep(&mut self, files: &mut Files, sends: &mut Sends, timeout_ns: Option<u64>) {
        self.enable();
        self.arm_waker(files, sends);
        self.kicked = false;
        self.poll(files, sends);
        // A kick that came since the announcement may have been taken in just now: nothing else would end the wait.
        if timeout_ns == Some(0) || self.kicked || files.has_ready() {
            return;
        }
        if self.broken.is_some() {
            rest(self.waker, timeout_ns);
            return;
        }
        match timeout_ns {
            None => self.enter(1),
            Some(ns) => {
                let time = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                let result = self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time));
                self.judge(&result);
            }
        }
        self.reap(files, sends);
    }

    /// Arms the receives of the listed files.
    fn arm(&mut self, files: &mut Files, sends: &mut Sends) {
        if !self.enabled {
            return;
        }
        for _ in 0..files.work.len() {
            let Some(id) = files.next_listed() else { return };
            let generation = files.generation(id);
            let Some(file) = files.get_mut(id) else { continue };
            if file.watched {
                if !(file.armed || file.closing) {
                    file.armed = true;
                    // Multishot polls report every write, so nobody has to read the eventfd.
                    let sqe = opcode::PollAdd::new(Fd(file.fd), libc::POLLIN as u32).multi(true).build();
                    self.push(files, sends, &sqe.user_data(user_data(EVENT, generation, id.0)));
                }
                continue;
            }
            let buffers = file.buffers.as_ref().map_or(0, Buffers::with_kernel);
            if file.armed || file.closing || file.ended.is_some() || buffers == 0 {
                continue;
            }
            file.armed = true;
            let (fd, flags) = name(file, id);
            let sqe = opcode::ReadMulti::new(fd, 0, id.0 as u16).offset(u64::MAX).build().flags(flags);
            self.push(files, sends, &sqe.user_data(user_data(RECEIVE, generation, id.0)));
        }
    }

    fn arm_waker(&mut self, files: &mut Files, sends: &mut Sends) {
        if !self.waker_armed {
            self.waker_armed = true;
            // Multishot polls report every write, so nobody has to read the eventfd.
            let sqe = opcode::PollAdd::new(Fd(self.waker), libc::POLLIN as u32).multi(true).build();
            self.push(files, sends, &sqe.user_data(WAKE));
        }
    }

    fn push(&mut self, files: &mut Files, sends: &mut Sends, sqe: &squeue::Entry) {
        // SAFETY: an entry names the turn's scratch and lent segments (sends: done before the submission returns), a
        // buffer group (kept until the request has ended), or nothing.
        while self.broken.is_none() && unsafe { self.io.submission().push(sqe) }.is_err() {
            self.enter(0);
            self.reap(files, sends);
        }
    }

    fn enter(&mut self, want: usize) {
        if self.enabled && self.broken.is_none() {
            let queued = self.io.submission().len();
            // Always with GETEVENTS: what a just armed receive finds waiting is taken in by the same call.
            // SAFETY: no argument structure is passed; the entries are sound by `push`.
            let result = unsafe {
                let flags = IORING_ENTER_GETEVENTS;
                self.io.submitter().enter::<libc::sigset_t>(queued as u32, want as u32, flags, None)
            };
            self.judge(&result);
        }
    }

    fn judge(&mut self, result: &std::io::Result<usize>) {
        let Err(e) = result else { return };
        match errno_of(e) {
            Errno::EINTR | Errno::ETIME => {}
            // The kernel is short of memory, or wants completions taken first: the caller reaps and tries again.
            Errno::EAGAIN | Errno::EBUSY => std::thread::yield_now(),
            errno => self.broken = Some(errno),
        }
    }

    /// Takes in all completions.
    fn reap(&mut self, files: &mut Files, sends: &mut Sends) {
        for cqe in self.io.completion() {
            let data = cqe.user_data();
            let (generation, low) = ((data >> 32) as u32 & 0x00ff_ffff, data as u32);
            match data & KIND {
                SEND => sends.complete(Ticket(low), cqe.result()),
                RECEIVE => received(files, FileId(low), generation, &cqe),
                WRITABLE => {
                    if let Some(file) = files.of_generation(FileId(low), generation) {
                        file.polling_out = false;
                        files.mark(FileId(low));
                    }
                }
                EVENT => {
                    if let Some(file) = files.of_generation(FileId(low), generation) {
                        file.armed = cqueue::more(cqe.flags());
                        if !file.armed && !file.closing {
                            files.list(FileId(low));
                        }
                        files.mark(FileId(low));
                    }
                }
                WAKE => {
                    self.kicked = true;
                    self.waker_armed &= cqueue::more(cqe.flags());
                }
                _ => {}
            }
        }
    }
}

/// A file as requests name it.
fn name(file: &File, id: FileId) -> (Fd, squeue::Flags) {
    match file.registered {
        true => (Fd(id.0 as i32), squeue::Flags::FIXED_FILE),
        false => (Fd(file.fd), squeue::Flags::empty()),
    }
}

/// One completion of a multishot read.
fn received(files: &mut Files, id: FileId, generation: u32, cqe: &cqueue::Entry) {
    let Some(file) = files.of_generation(id, generation) else { return };
    let Some(buffers) = &mut file.buffers else { return };
    let bid = cqueue::buffer_select(cqe.flags());
    let more = cqueue::more(cqe.flags());
    let result = cqe.result();
    match (result, bid) {
        (1.., Some(bid)) => {
            file.retries = 0;
            if !buffers.push(bid, result as u32) {
                file.ended = Some(Errno::EPROTO);
            }
        }
        (_, Some(bid)) => buffers.provide_again(bid),
        _ => {}
    }
    match -result {
        0 => file.ended = Some(Errno::from_raw(0)),
        // Out of buffers: armed again when some return. Cancelled: by `close`.
        ..0 | libc::ENOBUFS | libc::ECANCELED => {}
        libc::EINTR | libc::EAGAIN if file.retries < RETRIES => file.retries += 1,
        errno => file.ended = Some(Errno::from_raw(errno)),
    }
    file.armed = more;
    let again = !more && file.ended.is_none() && !file.closing && buffers.with_kernel() > 0;
    let news = result > 0 || file.ended.is_some();
    if again {
        files.list(id);
    }
    if news {
        files.mark(id);
    }
}

/// Sleeps without the ring.
fn rest(waker: RawFd, timeout_ns: Option<u64>) {
    let ms = timeout_ns.map_or(-1, |ns| i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX));
    let mut poll = libc::pollfd { fd: waker, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd that lives across the call.
    unsafe { libc::poll(&raw mut poll, 1, ms) };
    let mut count = [0u8; 8];
    // SAFETY: eight bytes of our own; the eventfd is non-blocking.
    unsafe { libc::read(waker, count.as_mut_ptr().cast(), 8) };
}

const fn user_data(kind: u64, generation: u32, low: u32) -> u64 {
    kind | ((generation & 0x00ff_ffff) as u64) << 32 | low as u64
}

fn errno_of(e: &std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}

fn why_not(errno: i32) -> String {
    match errno {
        libc::ENOSYS => "this kernel has no io_uring".into(),
        libc::EPERM | libc::EACCES => {
            "it is forbidden here (kernel.io_uring_disabled or a seccomp filter)".into()
        }
        libc::EINVAL => "this kernel's io_uring is too old (Linux 6.7 is needed)".into(),
        libc::ENOMEM => "not enough locked memory is allowed (RLIMIT_MEMLOCK)".into(),
        other => Errno::from_raw(other).to_string(),
    }
}
