//! Frames and texts in, frames and notifications out.

use super::connection::Hands;
use super::counters::{Count, Counters};
use super::packet::{Packet, Unfit};
use super::settings::Settings;
use super::table::Table;
use std::sync::Arc;

/// Bytes that all connections hold at most.
pub(super) const HELD: usize = 256 << 20;

/// Sent to `notify_dev`: the machines differ, or one is too late.
pub(super) const DO_CHECKPOINT: &str = "DO_CHECKPOINT";
/// The answer to [`INIT`].
pub(super) const INIT_ANSWER: &str = "COLO_COMPARE_GET_XEN_INIT";
/// From `notify_dev`: is anybody there?
const INIT: &[u8] = b"COLO_USERSPACE_PROXY_INIT";
/// From `notify_dev`: the machines have been made the same.
const CHECKPOINT: &[u8] = b"COLO_CHECKPOINT";

/// Whose frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The machine whose frames go out.
    Primary,
    /// The machine that does the same.
    Secondary,
}

/// Where frames and notifications go.
pub trait Sink {
    /// A frame of the primary may go out; its first `vnet_len` bytes are a virtio-net header.
    fn release(&mut self, frame: &[u8], vnet_len: u32);
    /// Whoever makes checkpoints is to get this text.
    fn notify(&mut self, text: &'static str);
}

/// All that is held of both sides.
#[derive(Debug)]
pub struct Comparer {
    table: Table,
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    held: usize,
}

impl Comparer {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>, counters: Arc<Counters>) -> Self {
        Self { table: Table::default(), settings, counters, held: 0 }
    }

    /// Bytes held, with what it takes to hold them.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Takes a frame whose first `vnet_len` bytes are a virtio-net header. `now` is in milliseconds.
    pub fn frame(&mut self, side: Side, frame: &[u8], vnet_len: u32, now: u64, sink: &mut dyn Sink) {
        let primary = side == Side::Primary;
        self.counters.add(if primary { Count::Primary } else { Count::Secondary }, 1);
        let (key, packet) = match Packet::parse(frame, vnet_len, now) {
            Ok(parsed) => parsed,
            Err(unfit) => return self.unfit(side, unfit, frame, vnet_len, sink),
        };
        if self.held + frame.len() > HELD {
            return self.counters.add(Count::MemoryFull, 1);
        }
        let mut hands = Hands { sink, counters: &self.counters, held: &mut self.held };
        if let Some(gone) = self.table.make_room(&key) {
            self.counters.add(Count::TableFull, (gone.primary.len() + gone.secondary.len()) as u64);
            gone.primary.iter().chain(&gone.secondary).for_each(|packet| hands.forget(packet));
        }
        let connection = self.table.of(key);
        let queue = if primary { &connection.primary } else { &connection.secondary };
        // One more than the limit says, as in QEMU.
        if queue.len() > self.settings.queue() as usize {
            return self.counters.add(Count::QueueFull, 1);
        }
        let same = match side {
            Side::Primary => connection.take_primary(packet, &mut hands),
            Side::Secondary => connection.take_secondary(packet, &mut hands),
        };
        if !same {
            self.counters.add(Count::Mismatch, 1);
            sink.notify(DO_CHECKPOINT);
        }
    }

    /// A frame that is not compared: the primary's goes out at once, the secondary's nowhere.
    fn unfit(&self, side: Side, unfit: Unfit, frame: &[u8], vnet_len: u32, sink: &mut dyn Sink) {
        if unfit == Unfit::Malformed {
            self.counters.add(Count::Malformed, 1);
        }
        match side {
            Side::Primary if !frame.is_empty() => {
                self.counters.add(Count::Passed, 1);
                self.counters.add(Count::Released, 1);
                sink.release(frame, vnet_len);
            }
            _ => self.counters.add(Count::Ignored, 1),
        }
    }

    /// Takes a text from `notify_dev`.
    pub fn instruction(&mut self, text: &[u8], sink: &mut dyn Sink) {
        match text {
            INIT => sink.notify(INIT_ANSWER),
            CHECKPOINT => self.checkpoint(sink),
            _ => self.counters.add(Count::Unknown, 1),
        }
    }

    /// Both machines are the same: what is held of the primary goes out, what is held of the secondary is forgotten.
    pub fn checkpoint(&mut self, sink: &mut dyn Sink) {
        self.counters.add(Count::Checkpoint, 1);
        self.flush(sink);
    }

    /// Lets go of all, as a checkpoint does.
    pub(super) fn flush(&mut self, sink: &mut dyn Sink) {
        let mut hands = Hands { sink, counters: &self.counters, held: &mut self.held };
        self.table.iter_mut().for_each(|connection| connection.flush(&mut hands));
    }

    /// Asks for one checkpoint if any frame has waited too long. `now` is in milliseconds.
    pub fn scan(&mut self, now: u64, sink: &mut dyn Sink) {
        let limit = now.saturating_sub(self.settings.timeout());
        if self.table.iter().any(|connection| connection.holds_older(limit)) {
            self.counters.add(Count::Timeout, 1);
            sink.notify(DO_CHECKPOINT);
        }
    }
}
