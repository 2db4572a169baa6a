//! Begins to load cache lines that are needed a little later.

#![allow(unsafe_code)] // prefetch instructions

/// What is behind a reference, to read it.
#[inline]
pub(crate) fn read<T>(value: &T) {
    read_at(std::ptr::from_ref(value).cast());
}

/// As [`read`], the line at an address; any address will do.
#[inline]
pub(crate) fn read_at(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches, wherever it points.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// The line at an address, to write it: it is taken from whoever has it. Any address will do.
#[inline]
pub(crate) fn write_at(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect but on caches, wherever it points; a processor that lacks this one does nothing.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
