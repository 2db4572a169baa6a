//! The Internet checksum: RFC 1071 sums, pseudo headers, RFC 1624 updates.
//!
//! Words are added as the machine reads them: the sum of byte-swapped words is the byte-swapped sum (RFC 1071,
//! section 2 (B)), so only [`Sum::fold`] turns the bytes.

#![allow(unsafe_code)] // lent memory is summed where it lies, by raw reads, never through a slice

/// A running one's complement sum over bytes that may come in pieces of any length.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    /// Sum of 16-bit words in machine order, carries above bit 15; each addend is below 2^33.
    acc: u64,
    /// An odd number of bytes was added: the next piece starts in the middle of a word.
    odd: bool,
}

impl Sum {
    /// The sum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(bytes);
        sum
    }

    /// Adds the bytes that follow.
    pub fn add(&mut self, bytes: &[u8]) {
        // SAFETY: a slice is readable for its length.
        unsafe { self.add_raw(bytes.as_ptr(), bytes.len()) }
    }

    /// Adds the `len` bytes at `ptr`.
    ///
    /// # Safety
    /// `ptr..ptr+len` must be readable. The bytes may be changed by others meanwhile; the sum is then of some mix of
    /// old and new ones.
    pub unsafe fn add_raw(&mut self, ptr: *const u8, len: usize) {
        // SAFETY: as this function's contract.
        let part = unsafe { sum(ptr, len) };
        // In the middle of a word, high and low byte change places (RFC 1071, section 2 (B)).
        self.acc += if self.odd { u64::from(fold(part).swap_bytes()) } else { part };
        self.odd ^= len & 1 == 1;
    }

    /// Adds a 16-bit field; only between pieces of even length.
    pub fn add16(&mut self, field: u16) {
        debug_assert!(!self.odd);
        self.acc += u64::from(field.to_be());
    }

    /// Adds a 32-bit field; only between pieces of even length.
    pub fn add32(&mut self, field: u32) {
        debug_assert!(!self.odd);
        self.acc += u64::from(field.to_be());
    }

    /// The 16-bit sum, to be stored big-endian. This is what a partial checksum field holds.
    #[must_use]
    pub const fn fold(self) -> u16 {
        u16::from_be(fold(self.acc))
    }

    /// The checksum: the complement of the sum.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum as UDP stores it: 0 would mean none, so it is sent as ffff (RFC 768).
    #[must_use]
    pub const fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            c => c,
        }
    }
}

/// The pseudo header of IPv4 (RFC 9293, section 3.1): `addrs` are source and destination, `len` the bytes of the
/// transport's header and payload.
#[must_use]
pub fn pseudo_v4(addrs: &[u8; 8], protocol: u8, len: u16) -> Sum {
    let mut sum = Sum::of(addrs);
    sum.add16(u16::from(protocol));
    sum.add16(len);
    sum
}

/// The pseudo header of IPv6 (RFC 8200, section 8.1): `addrs` are source and destination, `len` the bytes of the
/// transport's header and payload.
#[must_use]
pub fn pseudo_v6(addrs: &[u8; 32], protocol: u8, len: u32) -> Sum {
    let mut sum = Sum::of(addrs);
    sum.add32(len);
    sum.add16(u16::from(protocol));
    sum
}

/// The checksum `check` after a covered 16-bit field changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub const fn update16(check: u16, old: u16, new: u16) -> u16 {
    !fold(!check as u64 + !old as u64 + new as u64)
}

/// The checksum `check` after a covered, 16-bit aligned 32-bit field changed from `old` to `new`.
#[must_use]
pub const fn update32(check: u16, old: u32, new: u32) -> u16 {
    !fold(!check as u64 + !old as u64 + new as u64)
}

/// Adds the carries of a sum back in until 16 bits are left.
const fn fold(acc: u64) -> u16 {
    let acc = (acc >> 32) + (acc & 0xffff_ffff);
    let acc = (acc >> 32) + (acc & 0xffff_ffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    ((acc >> 16) + (acc & 0xffff)) as u16
}

/// Bytes that one step of the wide loop adds.
const BLOCK: usize = 64;

/// Below this the wide loop costs more to enter than it saves; bench `checksum`.
const WIDE: usize = 128;

/// Sum of `len` bytes as words in machine order, below 2^33.
///
/// # Safety
/// `ptr..ptr+len` must be readable.
#[inline]
unsafe fn sum(ptr: *const u8, len: usize) -> u64 {
    if len < WIDE {
        // SAFETY: as this function's contract.
        return unsafe { tail(ptr, len) };
    }
    let whole = len - len % BLOCK;
    // SAFETY: `whole <= len`, so both parts lie inside the readable run; AVX2 is used only where the CPU has it.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        let wide = if std::is_x86_feature_detected!("avx2") {
            blocks_avx2(ptr, whole / BLOCK)
        } else {
            blocks(ptr, whole / BLOCK)
        };
        #[cfg(not(target_arch = "x86_64"))]
        let wide = blocks(ptr, whole / BLOCK);
        u64::from(fold(wide)) + tail(ptr.add(whole), len - whole)
    }
}

/// Sum of fewer than [`BLOCK`] + [`WIDE`] bytes.
///
/// # Safety
/// `ptr..ptr+len` must be readable.
#[inline]
unsafe fn tail(mut ptr: *const u8, mut len: usize) -> u64 {
    let mut acc = 0;
    // SAFETY: every step reads what `len` says is left, and moves on by as much.
    unsafe {
        while len >= 4 {
            acc += u64::from(ptr.cast::<u32>().read_unaligned());
            ptr = ptr.add(4);
            len -= 4;
        }
        if len >= 2 {
            acc += u64::from(ptr.cast::<u16>().read_unaligned());
            ptr = ptr.add(2);
            len -= 2;
        }
        if len == 1 {
            acc += u64::from(u16::from_ne_bytes([ptr.read(), 0]));
        }
    }
    (acc >> 32) + (acc & 0xffff_ffff)
}

/// Sum of `n` blocks: 32-bit words into independent 64-bit lanes, which cannot overflow and become vector additions.
///
/// # Safety
/// `n * BLOCK` bytes at `ptr` must be readable.
#[inline(always)]
unsafe fn blocks(ptr: *const u8, n: usize) -> u64 {
    let mut lanes = [0_u64; BLOCK / 4];
    for i in 0..n {
        // SAFETY: block i < n lies inside the readable run.
        let words = unsafe { ptr.add(i * BLOCK).cast::<[u32; BLOCK / 4]>().read_unaligned() };
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(word);
        }
    }
    // A lane is below 2^32 times the number of blocks, far from overflow even summed.
    lanes.iter().sum()
}

/// [`blocks`], compiled for AVX2.
///
/// # Safety
/// As [`blocks`], on a CPU with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn blocks_avx2(ptr: *const u8, n: usize) -> u64 {
    // SAFETY: the caller's contract is the same.
    unsafe { blocks(ptr, n) }
}

#[cfg(test)]
mod tests;
