//! A ring in shared memory. Each word is read once and checked; nothing of the kernel's is a reference of ours, and only slots from `head` up to `tail` are
//! touched.

#![allow(unsafe_code)] // memory that the kernel writes

use super::abi::{Interface, RingHeader, Slot};
use super::cursor::Cursor;
use super::driver::Way;
use super::region::{Pool, Region};
use std::mem::{offset_of, size_of};
use std::ptr::NonNull;
use std::sync::Arc;

/// Why a port cannot be used: its memory says what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The port lies outside of the memory.
    #[error("its description lies outside of the {0} bytes of its memory")]
    Interface(usize),
    /// There is no such ring.
    #[error("it has no ring that could be used")]
    NoRing,
    /// A ring lies outside of the memory.
    #[error("ring {0} lies outside of its memory")]
    Ring(u32),
    /// Places that the ring does not have.
    #[error("ring {0} stands where it has no slot")]
    Place(u32),
    /// Buffers that are none.
    #[error("the buffers of ring {0} lie outside of its memory")]
    Buffers(u32),
}

/// Reads the description of a port.
pub(super) fn interface(region: &Region, offset: u64) -> Result<Interface, Flaw> {
    let flaw = Flaw::Interface(region.len());
    let at = usize::try_from(offset).ok().and_then(|offset| region.at(offset, size_of::<Interface>(), 8));
    // SAFETY: the bytes lie in the region and are aligned; any are a value.
    at.map(|at| unsafe { at.cast::<Interface>().read_volatile() }).ok_or(flaw)
}

/// Which of a port's rings: of the NIC's, then of the host's.
fn slot_of(interface: &Interface, way: Way, number: u32) -> Option<u32> {
    let before = match way {
        Way::Tx => 0,
        Way::Rx => interface.tx_rings.checked_add(interface.host_tx_rings)?,
    };
    let (own, host) = match way {
        Way::Tx => (interface.tx_rings, interface.host_tx_rings),
        Way::Rx => (interface.rx_rings, interface.host_rx_rings),
    };
    (number < own.checked_add(host)?).then(|| before.checked_add(number))?
}

/// A ring of a registered port.
#[derive(Debug)]
pub(super) struct Ring {
    header: NonNull<RingHeader>,
    slots: NonNull<Slot>,
    region: Arc<Region>,
    pool: Pool,
    cursor: Cursor,
    exchanges: bool,
}

// SAFETY: a ring has one owner; its memory belongs to the process, and the region keeps it mapped.
unsafe impl Send for Ring {}

impl Ring {
    /// Finds a ring by its number, those of the host behind those of the NIC. None where this file has no such ring.
    pub(super) fn find(
        region: &Arc<Region>,
        offset: u64,
        interface: &Interface,
        way: Way,
        number: u32,
    ) -> Result<Option<Self>, Flaw> {
        let lost = Flaw::Ring(number);
        let Some(place) = slot_of(interface, way, number) else { return Ok(None) };
        let start = usize::try_from(offset).map_err(|_| lost)?;
        let entry = (place as usize).checked_mul(8).and_then(|at| at.checked_add(size_of::<Interface>()));
        let entry =
            entry.and_then(|at| at.checked_add(start)).and_then(|at| region.at(at, 8, 8)).ok_or(lost)?;
        // SAFETY: eight aligned bytes of the region.
        let distance = unsafe { entry.cast::<i64>().read_volatile() };
        if distance == 0 {
            return Ok(None);
        }
        let at = isize::try_from(distance).ok().and_then(|distance| start.checked_add_signed(distance));
        let at = at.ok_or(lost)?;
        Self::at(region, at, number).map(Some)
    }

    fn at(region: &Arc<Region>, at: usize, number: u32) -> Result<Self, Flaw> {
        let lost = Flaw::Ring(number);
        let header: NonNull<RingHeader> = region.at(at, size_of::<RingHeader>(), 8).ok_or(lost)?.cast();
        // SAFETY: the bytes lie in the region and are aligned; any are a value.
        let seen = unsafe { header.read_volatile() };
        let bytes = (seen.num_slots as usize).checked_mul(size_of::<Slot>()).ok_or(lost)?;
        let slots = region.at(at + size_of::<RingHeader>(), bytes, 8).ok_or(lost)?.cast();
        let cursor = Cursor::new(seen.num_slots, seen.head).ok_or(Flaw::Place(number))?;
        cursor.ours(seen.tail).ok_or(Flaw::Place(number))?;
        let start = isize::try_from(seen.buf_ofs).ok().and_then(|distance| at.checked_add_signed(distance));
        let start = start.filter(|start| *start < region.len()).ok_or(Flaw::Buffers(number))?;
        let count = (region.len() - start).checked_div(seen.buf_size as usize).unwrap_or(0);
        let pool = Pool { start, size: seen.buf_size, count: u32::try_from(count).unwrap_or(u32::MAX) };
        // A length is a word of 16 bits.
        if pool.count <= 2 || pool.size < 64 {
            return Err(Flaw::Buffers(number));
        }
        let exchanges = region.exchanges(&pool);
        Ok(Self { header, slots, region: region.clone(), pool, cursor, exchanges })
    }

    /// Bytes of a slot's buffer that can be used.
    #[inline]
    pub(super) fn buffer_size(&self) -> usize {
        (self.pool.size as usize).min(usize::from(u16::MAX))
    }

    /// Slots that can be ours at most: one is always the kernel's.
    #[inline]
    pub(super) const fn most(&self) -> u32 {
        self.cursor.slots() - 1
    }

    /// Slots that are ours. None where the kernel stands outside of the ring.
    #[inline]
    pub(super) fn ours(&self) -> Option<u32> {
        self.cursor.ours(self.word(offset_of!(RingHeader, tail)))
    }

    /// The kernel may have put us elsewhere, which it does when it finds a ring that makes no sense to it. Only while nothing of ours is unseen by it.
    #[inline]
    pub(super) fn resume(&mut self) {
        let head = self.word(offset_of!(RingHeader, head));
        if head != self.cursor.head()
            && let Some(cursor) = Cursor::new(self.cursor.slots(), head)
        {
            self.cursor = cursor;
        }
    }

    /// The `n`th slot of ours; `n` is below [`Ring::ours`].
    #[inline]
    pub(super) fn slot(&self, n: u32) -> Slot {
        // SAFETY: a place of the ring, whose slots all lie in the region.
        unsafe { self.place(n).read_volatile() }
    }

    /// Writes buffer, length and flags of the `n`th slot of ours.
    #[inline]
    pub(super) fn put(&mut self, n: u32, buf_idx: u32, len: u16, flags: u16) {
        let place = self.place(n).as_ptr();
        // SAFETY: as `slot`; what the slot says for indirect buffers stays.
        unsafe {
            (&raw mut (*place).buf_idx).write_volatile(buf_idx);
            (&raw mut (*place).len).write_volatile(len);
            (&raw mut (*place).flags).write_volatile(flags);
        }
    }

    /// The first `n` slots of ours are the kernel's, once it is told.
    #[inline]
    pub(super) const fn advance(&mut self, n: u32) {
        self.cursor.advance(n);
    }

    /// Shows the kernel where we stand. It wakes us when there is something behind `head`, or, with `more`, behind all that there is now.
    #[inline]
    pub(super) fn publish(&mut self, more: bool) {
        let (head, tail) = (self.cursor.head(), self.word(offset_of!(RingHeader, tail)));
        let cur = if more && self.cursor.ours(tail).is_some() { tail } else { head };
        self.set_word(offset_of!(RingHeader, cur), cur);
        self.set_word(offset_of!(RingHeader, head), head);
    }

    /// Where a buffer begins.
    #[inline]
    pub(super) fn buffer(&self, index: u32) -> Option<NonNull<u8>> {
        self.pool.offset(index).and_then(|offset| self.region.at(offset, self.pool.size as usize, 1))
    }

    /// The region, if buffers of this ring may change hands with others.
    #[inline]
    pub(super) fn exchange(&self) -> Option<&Region> {
        self.exchanges.then_some(&*self.region)
    }

    const fn place(&self, n: u32) -> NonNull<Slot> {
        // SAFETY: `nth` gives a number below that of the slots for `n` below it, and these lie in the region.
        unsafe { self.slots.add(self.cursor.nth(n) as usize) }
    }

    #[inline]
    fn word(&self, at: usize) -> u32 {
        // SAFETY: an aligned word of the header, which lies in the region.
        unsafe { self.header.byte_add(at).cast::<u32>().read_volatile() }
    }

    #[inline]
    fn set_word(&mut self, at: usize, value: u32) {
        // SAFETY: as `word`; `head` and `cur` are ours to write.
        unsafe { self.header.byte_add(at).cast::<u32>().write_volatile(value) };
    }
}
