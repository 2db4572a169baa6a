//! A ring whose buffers stay where they are. A device that keeps the order gives them back in the order in which they stand in the ring, so
//! nothing but an index or the flags has to be written to send them again. That it did is checked for each of them; from the first
//! that comes out of turn on, the ring is written anew for every buffer, as an ordinary driver does.

mod format;
mod packed;
mod split;

pub(super) use format::{Format, Memory, Place};
pub(super) use packed::Packed;
pub(super) use split::Split;

use crate::failure::{self, Failure};
use engine::virtq::{F_IN_ORDER, RingConfig, RingFault};
use vmm_sys_util::eventfd::EventFd;

/// One ring with its buffers.
pub(super) struct Ring<F> {
    format: F,
    pub(super) memory: Memory,
    /// Which buffer stands in which slot.
    slots: Box<[u16]>,
    /// Where the next buffer comes back, and where the next one goes.
    back: Place,
    next: Place,
    under_way: u32,
    /// Buffers that are under way, where slots alone do not tell. Empty as long as they do.
    out: Vec<bool>,
    /// One used entry may stand for several buffers (`VIRTIO_F_IN_ORDER`); the last one of those that are being taken.
    batches: bool,
    batch: Option<(u16, u32)>,
    /// The device writes the buffers.
    writable: bool,
    /// Something was shown, and not yet asked whether the device sleeps.
    quiet: bool,
    kick: EventFd,
}

impl<F: Format> Ring<F> {
    /// A ring over `memory`, with everything still to be offered.
    ///
    /// # Errors
    /// A size that no ring has.
    pub(super) fn new(
        config: &RingConfig,
        memory: Memory,
        writable: bool,
        kick: EventFd,
    ) -> failure::Result<Self> {
        let count = memory.segs.len().max(1);
        let slots: Box<[u16]> = (0..usize::from(config.size)).map(|slot| (slot % count) as u16).collect();
        let start = Place { slot: 0, lap: 0 };
        let format = F::new(config).map_err(|fault| broken(&fault))?;
        let batches = config.features & F_IN_ORDER != 0;
        let tells = slots.len().is_multiple_of(count) && !batches;
        let mut this = Self {
            format,
            memory,
            slots,
            back: start,
            next: start,
            under_way: 0,
            out: if tells { Vec::new() } else { vec![false; count] },
            batches,
            batch: None,
            writable,
            quiet: false,
            kick,
        };
        for slot in 0..this.size() {
            this.write(slot);
        }
        Ok(this)
    }

    #[inline]
    fn size(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Buffers that can be offered.
    #[inline]
    pub(super) fn free(&self) -> usize {
        self.memory.segs.len() - self.under_way as usize
    }

    /// The `n`th of the buffers that are offered next.
    #[inline]
    pub(super) fn upcoming(&self, n: usize) -> u16 {
        let slot = self.next.slot as usize + n;
        let slot = if slot < self.slots.len() { slot } else { slot - self.slots.len() };
        self.slots.get(slot).copied().unwrap_or(0)
    }

    /// Writes the buffer that stands in `slot` to the ring.
    fn write(&mut self, slot: u32) {
        let Some(&token) = self.slots.get(slot as usize) else { return };
        if let Some(&seg) = self.memory.segs.get(usize::from(token)) {
            self.format.place(slot, token, seg, self.writable);
        }
    }

    /// Gives the `n`th of the buffers that are offered next another length.
    pub(super) fn resize(&mut self, n: usize, len: u32) {
        let token = self.upcoming(n);
        if self.memory.len(token) == len {
            return;
        }
        if let Some(seg) = self.memory.segs.get_mut(usize::from(token)) {
            seg.len = len;
        }
        for slot in 0..self.size() {
            if self.slots.get(slot as usize) == Some(&token) {
                self.write(slot);
            }
        }
    }

    /// Offers `n` buffers, no more than are free, in the order in which they came back.
    #[inline]
    pub(super) fn offer(&mut self, n: usize) {
        let count = n.min(self.free()) as u32;
        if count == 0 {
            return;
        }
        if !self.out.is_empty() {
            (0..count as usize).for_each(|n| {
                let token = self.upcoming(n);
                self.out[usize::from(token)] = true;
            });
        }
        let first = count.min(self.size() - self.next.slot);
        self.format.offer(self.next, first);
        self.next = self.next.plus(first, self.size());
        if first < count {
            self.format.offer(self.next, count - first);
            self.next = self.next.plus(count - first, self.size());
        }
        self.under_way += count;
        self.format.show();
        self.quiet = true;
    }

    /// Wakes the device if it sleeps on what was shown. To be called when nothing comes back: asking costs a fence and a line of the
    /// device's, and one that works need not be asked.
    #[inline]
    pub(super) fn nudge(&mut self) {
        if std::mem::take(&mut self.quiet) && self.format.asks() {
            let _ = self.kick.write(1);
        }
    }

    /// Takes up to `most` buffers that came back: how many. `back` is told each one and the bytes written to it, which are no more than
    /// it has.
    ///
    /// # Errors
    /// The device used what it does not have.
    #[inline]
    pub(super) fn take(
        &mut self,
        most: usize,
        mut back: impl FnMut(&Memory, u16, u32),
    ) -> failure::Result<usize> {
        let mut taken = 0;
        while self.out.is_empty() {
            let left = (most - taken).min(self.under_way as usize);
            let from = self.back.slot as usize;
            let end = self.slots.len().min(from + left);
            let expected = self.slots.get(from..end).unwrap_or_default();
            let memory = &self.memory;
            let told = |token, len: u32| back(memory, token, len.min(memory.len(token)));
            let run = self.format.run(self.back, expected, self.under_way, told);
            let run = run.map_err(|fault| broken(&fault))?;
            let whole = run == expected.len();
            self.back = self.back.plus(run as u32, self.slots.len() as u32);
            self.under_way -= run as u32;
            taken += run;
            if whole && run == left {
                return Ok(taken);
            }
            if !whole {
                let entry = self.format.entry(self.back, self.under_way).map_err(|fault| broken(&fault))?;
                if entry.is_none() {
                    return Ok(taken);
                }
                self.lose_order();
            }
        }
        Ok(taken + self.any(most - taken, &mut back)?)
    }

    /// From now on it is noted which buffers are under way.
    #[cold]
    fn lose_order(&mut self) {
        self.out = vec![false; self.memory.segs.len()];
        let mut at = self.back;
        for _ in 0..self.under_way {
            let token = self.slots.get(at.slot as usize).copied().unwrap_or(0);
            self.out[usize::from(token)] = true;
            at = at.plus(1, self.size());
        }
    }

    /// As [`Ring::take`], of buffers in any order.
    #[inline(never)]
    fn any(&mut self, most: usize, back: &mut impl FnMut(&Memory, u16, u32)) -> failure::Result<usize> {
        let mut taken = 0;
        while taken < most && self.under_way > 0 {
            let Some((token, len)) = self.one().map_err(|fault| broken(&fault))? else { break };
            back(&self.memory, token, len.min(self.memory.len(token)));
            if let Some(out) = self.out.get_mut(usize::from(token)) {
                *out = false;
            }
            // It is offered again behind those that are free, or under way, now.
            let to = self.back.plus(self.memory.segs.len() as u32, self.size()).slot;
            if let Some(place) = self.slots.get_mut(to as usize)
                && *place != token
            {
                *place = token;
                self.write(to);
            }
            self.back = self.back.plus(1, self.size());
            self.under_way -= 1;
            taken += 1;
        }
        Ok(taken)
    }

    /// The next buffer that came back.
    fn one(&mut self) -> Result<Option<(u16, u32)>, RingFault> {
        let (last, len) = match self.batch {
            Some(batch) => batch,
            None => {
                let Some((id, len)) = self.format.entry(self.back, self.under_way)? else { return Ok(None) };
                if !self.out.get(id as usize).is_some_and(|out| *out) {
                    return Err(RingFault::NotUnderWay(id));
                }
                (id as u16, len)
            }
        };
        if !self.batches {
            return Ok(Some((last, len)));
        }
        let token = self.slots.get(self.back.slot as usize).copied().unwrap_or(0);
        self.batch = (token != last).then_some((last, len));
        // A buffer without an entry of its own was filled.
        Ok(Some((token, if token == last { len } else { self.memory.len(token) })))
    }
}

#[cold]
fn broken(fault: &RingFault) -> Failure {
    Failure::new(format!("a ring: {fault}"))
}

#[cfg(test)]
mod tests;
