//! Descriptors of an indirect table.

#![allow(unsafe_code)] // reads guest memory that its caller checked

use std::ptr::NonNull;

/// A descriptor that need not be aligned.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Raw(u64, u64);

/// The two halves of the `i`th descriptor of an indirect table.
///
/// # Safety
/// The table must be mapped and have more than `i` descriptors; it need not be aligned.
#[inline]
pub(super) unsafe fn indirect(table: NonNull<u8>, i: u32) -> (u64, u64) {
    // SAFETY: by the caller. Volatile: what was checked is what is used.
    let Raw(addr, rest) = unsafe { table.cast::<Raw>().add(i as usize).as_ptr().read_volatile() };
    (addr, rest)
}
