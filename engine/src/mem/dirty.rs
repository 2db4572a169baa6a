//! The dirty log of a live migration: one bit for each 4 KiB page that we wrote, in memory that the VMM shares.

#![allow(unsafe_code)] // writes shared memory

use super::shared::{SharedError, SharedMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes that one bit stands for (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;

/// The log, from guest address 0 on.
#[derive(Debug)]
pub struct DirtyLog(SharedMap);

impl DirtyLog {
    /// Maps `size` bytes of log from `offset` of the file on.
    ///
    /// # Errors
    /// As [`SharedMap::new`].
    pub fn new(fd: &OwnedFd, offset: u64, size: u64) -> Result<Self, SharedError> {
        SharedMap::new(fd, offset, size).map(Self)
    }

    /// Marks the pages of a range of guest addresses, once its bytes are written. What lies behind the log's end is left
    /// out.
    pub fn mark(&self, guest: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = guest.saturating_add(len - 1) / PAGE;
        let mut page = guest / PAGE;
        while page <= last {
            let until = (page | 7).min(last);
            // The bits page % 8 to until % 8 of one byte.
            let bits = (0xff_u8 << (page % 8)) & (0xff_u8 >> (7 - until % 8));
            let byte = page / 8;
            if byte >= self.0.size() as u64 {
                return;
            }
            // SAFETY: the byte lies inside the mapping, which lives as long as self; the other side changes it atomically.
            let byte = unsafe { AtomicU8::from_ptr(self.0.start().add(byte as usize).as_ptr()) };
            // Never skipped when the bit is set already: the reader may just have cleared it and copied the page.
            byte.fetch_or(bits, Ordering::Release);
            page = until + 1;
        }
    }

    /// Whether its memory was taken away.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.0.lost()
    }
}
