//! `colo-compare`: holds what a primary machine sends until its secondary has sent the same (QEMU `net/colo-compare.c`).
//!
//! ```text
//!  primary_in ---> framing -> packet -> connection table -> compare --- same ---> outdev
//!  secondary_in -> framing -> packet ------^                   \--- differs, or too old ---> notify_dev: DO_CHECKPOINT
//!  notify_dev ---> COLO_CHECKPOINT: what is held of the primary goes out, what is held of the secondary is forgotten
//! ```
//!
//! It is no filter and touches no worker: a thread of its own reads and writes four sockets that control hands over as they are connected.
//! All but `thread.rs` is pure: bytes and the time come in, frames and notifications go to a [`Sink`].
//!
//! It differs from QEMU where that loses or reorders frames, or asks for a checkpoint that nobody needs: datagrams leave oldest first, and a late twin of the oldest
//! is found; the part of a TCP segment that was compared before is skipped; a secondary segment that was compared to its end is never too late; a new handshake forgets what was
//! compared before it; the padding of a short Ethernet frame is no TCP payload; a full table loses the connection that was idle longest, not all.

mod compare;
mod connection;
mod counters;
mod framing;
mod outbox;
mod packet;
mod settings;
mod table;
mod tcp;
mod thread;

pub use compare::{Comparer, Side, Sink};
pub use counters::Counters;
pub use framing::Reader;
pub use settings::Settings;
pub use thread::{Compare, Role};

#[cfg(test)]
mod tests;

/// Feeds framed bytes of both sides to a comparer, as a fuzzer makes them: the first byte of `data` says how it is set up, and of each further piece, whose it is and how long.
pub fn fuzz(data: &[u8]) {
    /// Nobody listens.
    struct Nowhere;
    impl Sink for Nowhere {
        fn release(&mut self, _frame: &[u8], _vnet_len: u32) {}
        fn notify(&mut self, _text: &'static str) {}
    }
    let (setup, mut rest) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let vnet = setup & 1 != 0;
    let settings = std::sync::Arc::new(Settings::default());
    let mut comparer = Comparer::new(settings, std::sync::Arc::default());
    let mut readers = [Reader::new(vnet), Reader::new(vnet)];
    let mut now = 0;
    while let Some((kind, tail)) = rest.split_first() {
        let (piece, tail) = tail.split_at(tail.len().min(usize::from(kind >> 1)));
        rest = tail;
        now += 7;
        let (side, reader) = match (kind & 1, &mut readers) {
            (0, [primary, _]) => (Side::Primary, primary),
            (_, [_, secondary]) => (Side::Secondary, secondary),
        };
        // An oversized frame ends a reader; here the stream simply begins anew.
        if reader.feed(piece, |frame, len| comparer.frame(side, frame, len, now, &mut Nowhere)).is_err() {
            *reader = Reader::new(vnet);
        }
        comparer.scan(now, &mut Nowhere);
    }
    comparer.checkpoint(&mut Nowhere);
    assert_eq!(comparer.held(), 0, "a checkpoint leaves nothing");
}
