//! What a driver remembers of its buffers. All of it lies in memory of its own, since the device can write to the ring's.

use super::{DriverSeg, RingFault};

/// A buffer that is under way, or (split) a further descriptor of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffer {
    /// Its owner's name for it.
    pub(super) token: u32,
    /// Descriptors that it takes; 0 when it is not under way.
    pub(super) count: u16,
    /// Split: its next descriptor.
    next: u16,
}

/// Numbers of buffers: descriptors (split) or buffer ids (packed). Free ones are taken in the order in which they came back, so
/// that a device that keeps the order sees them in ring order (virtio 1.3, 2.7.9).
#[derive(Debug)]
pub(super) struct Ids {
    buffers: Box<[Buffer]>,
    free: Fifo,
    /// Where the device keeps the order.
    order: Option<Order>,
}

/// The device's promise to keep the order, by which one used element may stand for all before it.
#[derive(Debug)]
struct Order {
    under_way: Fifo,
    /// Bytes that the device may write, by buffer: what it has written to a buffer that has no element of its own.
    writable: Box<[u32]>,
    /// The element that is being worked off: its buffer and length.
    batch: Option<(u16, u32)>,
}

/// A queue of numbers that never holds more than it was made for.
#[derive(Debug)]
struct Fifo {
    ring: Box<[u16]>,
    head: usize,
    tail: usize,
}

impl Fifo {
    fn new(size: u16) -> Self {
        Self { ring: (0..size).collect(), head: 0, tail: 0 }
    }

    #[inline]
    fn pop(&mut self) -> u16 {
        let id = self.ring.get(self.head).copied().unwrap_or(0);
        self.head += 1;
        if self.head >= self.ring.len() {
            self.head = 0;
        }
        id
    }

    #[inline]
    fn push(&mut self, id: u16) {
        if let Some(place) = self.ring.get_mut(self.tail) {
            *place = id;
        }
        self.tail += 1;
        if self.tail >= self.ring.len() {
            self.tail = 0;
        }
    }
}

impl Ids {
    /// All of `size` free.
    pub(super) fn new(size: u16, in_order: bool) -> Self {
        let none = Buffer { token: 0, count: 0, next: 0 };
        let order = in_order.then(|| Order {
            under_way: Fifo::new(size),
            writable: vec![0; usize::from(size)].into_boxed_slice(),
            batch: None,
        });
        Self { buffers: vec![none; usize::from(size)].into_boxed_slice(), free: Fifo::new(size), order }
    }

    /// Takes a number for a buffer of `count` descriptors. Only where one is free.
    #[inline]
    pub(super) fn begin(&mut self, token: u32, count: u16, writable: impl FnOnce() -> u32) -> u16 {
        let id = self.free.pop();
        if let Some(buffer) = self.buffers.get_mut(usize::from(id)) {
            *buffer = Buffer { token, count, next: 0 };
        }
        if let Some(order) = &mut self.order {
            order.under_way.push(id);
            if let Some(place) = order.writable.get_mut(usize::from(id)) {
                *place = writable();
            }
        }
        id
    }

    /// Takes a number for the descriptor after `before` in the same buffer (split).
    pub(super) fn extend(&mut self, before: u16) -> u16 {
        let id = self.free.pop();
        if let Some(buffer) = self.buffers.get_mut(usize::from(before)) {
            buffer.next = id;
        }
        id
    }

    /// Whether the device keeps the order.
    #[inline]
    pub(super) const fn in_order(&self) -> bool {
        self.order.is_some()
    }

    /// Ends buffer `id`; `all` of its descriptors have numbers of their own (split) or only the first has.
    ///
    /// # Errors
    /// It is not under way.
    #[inline]
    pub(super) fn end(&mut self, id: u32, all: bool) -> Result<Buffer, RingFault> {
        let buffer = match self.buffers.get_mut(id as usize) {
            Some(buffer) if buffer.count > 0 => buffer,
            _ => return Err(RingFault::NotUnderWay(id)),
        };
        let ended = *buffer;
        buffer.count = 0;
        self.free.push(id as u16);
        if all && ended.count > 1 {
            self.free_rest(ended);
        }
        Ok(ended)
    }

    #[inline(never)]
    fn free_rest(&mut self, buffer: Buffer) {
        let mut id = buffer.next;
        for _ in 1..buffer.count {
            self.free.push(id);
            id = self.buffers.get(usize::from(id)).map_or(0, |b| b.next);
        }
    }

    /// Whether buffers of a batch are still to be ended.
    pub(super) fn in_batch(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.batch.is_some())
    }

    /// Begins the batch whose last buffer is `id`, written with `len` bytes.
    ///
    /// # Errors
    /// It is not under way.
    pub(super) fn begin_batch(&mut self, id: u32, len: u32) -> Result<(), RingFault> {
        if self.buffers.get(id as usize).is_none_or(|b| b.count == 0) {
            return Err(RingFault::NotUnderWay(id));
        }
        if let Some(order) = &mut self.order {
            order.batch = Some((id as u16, len));
        }
        Ok(())
    }

    /// Ends the oldest buffer of the batch: what it was, and the bytes written.
    ///
    /// # Errors
    /// There is no batch.
    pub(super) fn end_oldest(&mut self, all: bool) -> Result<(Buffer, u32), RingFault> {
        let Some((order, (last, len))) = self.order.as_mut().and_then(|o| o.batch.map(|b| (o, b))) else {
            return Err(RingFault::NotUnderWay(0));
        };
        let id = order.under_way.pop();
        let len = if id == last {
            order.batch = None;
            len
        } else {
            order.writable.get(usize::from(id)).copied().unwrap_or(0)
        };
        self.end(u32::from(id), all).map(|buffer| (buffer, len))
    }
}

/// Bytes that the device may write.
pub(super) fn writable(segs: &[DriverSeg], readable: usize) -> u32 {
    segs.iter().skip(readable).fold(0, |sum, seg| sum.saturating_add(seg.len))
}
