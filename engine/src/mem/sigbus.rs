//! Shared memory that is taken away: a file that its owner shortened under us raises SIGBUS where it is touched.
//!
//! The handler maps zero memory over the whole mapping and marks it, so the thread that touched it goes on (what it
//! reads is hostile anyway) and control can end the session. A fault anywhere else ends the process, as it would without
//! us.

#![allow(unsafe_code)] // a signal handler

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Once, OnceLock};

/// Mappings watched at a time, in the whole process: a VMM has about ten a nic, and 509 if it uses all that it may.
const SLOTS: usize = 16384;

static ONE: u64 = 1;

/// One mapping. `turn` is odd while the slot is written, so that the handler never acts on half of two mappings.
struct Slot {
    taken: AtomicBool,
    turn: AtomicUsize,
    base: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            base: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    fn write(&self, base: usize, len: usize) {
        self.turn.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.base.store(base, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.lost.store(false, Ordering::Relaxed);
        self.turn.fetch_add(1, Ordering::Release);
    }

    fn read(&self) -> Option<(usize, usize)> {
        let turn = self.turn.load(Ordering::Acquire);
        let found = (self.base.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn).then_some(found)
    }
}

/// Written to when memory was taken away.
static ALARM: OnceLock<OwnedFd> = OnceLock::new();

/// From now on the eventfd tells of memory that was taken away: somebody then asks each mapping. Only the first one given counts; it must
/// not block.
pub fn tell_losses(event: OwnedFd) {
    let _ = ALARM.set(event);
}

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// A mapping under watch, until this is dropped: before the mapping goes.
#[derive(Debug)]
pub(super) struct Watch(usize);

impl Watch {
    /// Watches `len` bytes at `base`, which the caller has mapped. None when the table is full.
    pub(super) fn new(base: usize, len: usize) -> Option<Self> {
        install();
        let free = |slot: &Slot| {
            let taken = &slot.taken;
            !taken.load(Ordering::Relaxed)
                && taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let at = TABLE.iter().position(free)?;
        TABLE.get(at)?.write(base, len);
        Some(Self(at))
    }

    /// Whether the memory was taken away and replaced.
    pub(super) fn lost(&self) -> bool {
        TABLE.get(self.0).is_some_and(|slot| slot.lost.load(Ordering::Acquire))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(slot) = TABLE.get(self.0) {
            slot.write(0, 0);
            slot.taken.store(false, Ordering::Release);
        }
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is a valid one (no flags, nothing masked); the handler has the three-argument
        // form that SA_SIGINFO asks for and only does what a handler may.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_sigbus as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    });
}

extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; its address field is read only for faults, whose codes are positive.
    // errno is the thread's own, and is put back since the interrupted code may be about to read it.
    unsafe {
        let errno = *libc::__errno_location();
        let covered = (*info).si_code > 0 && cover((*info).si_addr() as usize);
        *libc::__errno_location() = errno;
        if !covered {
            // Blocked until the handler returns, and then final.
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            libc::raise(libc::SIGBUS);
        }
    }
}

/// Puts zero memory where a watched mapping holds `address`. Runs in the handler: no lock, no allocation.
fn cover(address: usize) -> bool {
    for slot in &TABLE {
        let Some((base, len)) = slot.read() else { continue };
        if address.wrapping_sub(base) >= len {
            continue;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the range is a mapping that its owner, who is being interrupted in the midst of using it, has not
        // given up; on Linux mmap is a bare system call.
        let covered = unsafe { libc::mmap(base as *mut libc::c_void, len, protection, flags, -1, 0) };
        if covered != libc::MAP_FAILED {
            slot.lost.store(true, Ordering::Release);
            if let Some(alarm) = ALARM.get() {
                // SAFETY: eight bytes of our own to a file that is never closed.
                unsafe { libc::write(alarm.as_raw_fd(), (&raw const ONE).cast(), size_of::<u64>()) };
            }
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_while_it_is_watched_and_free_afterwards() {
        // Not mapped, and never touched: only the table is asked.
        let (base, len) = (0x7000_0000_0000, 0x1000);
        let holds = |base| TABLE.iter().any(|slot| slot.read().is_some_and(|found| found == (base, len)));
        let watch = Watch::new(base, len).unwrap();
        assert!(holds(base) && !watch.lost());
        drop(watch);
        assert!(!holds(base));
    }

    #[test]
    fn a_fault_elsewhere_still_ends_the_process() {
        let watch = Watch::new(0x7100_0000_0000, 0x1000).unwrap();
        // SAFETY: the child maps, touches and dies; it calls nothing that another thread could hold a lock for.
        let status = unsafe {
            match libc::fork() {
                0 => {
                    let fd = libc::memfd_create(c"short".as_ptr(), 0);
                    let flags = libc::MAP_SHARED;
                    let at = libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, flags, fd, 0);
                    let byte = at.cast::<u8>().read_volatile();
                    libc::_exit(i32::from(byte));
                }
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                    status
                }
            }
        };
        assert!(libc::WIFSIGNALED(status), "ended with {status:#x}");
        assert_eq!(libc::WTERMSIG(status), libc::SIGBUS);
        assert!(!watch.lost());
    }
}
