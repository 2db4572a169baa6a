//! Windows that are told of in time: the stack's to the guest, and the guest's to the stack, which hears of what is on its way as if it had arrived
//! ([`crate::ahead`]).

use crate::network::Net;
use crate::segment;
use crate::stack::{Shared, now};

/// How often the stack is told in a turn: two or three times empty the buffer of a connection.
const ROUNDS: usize = 8;
/// Nanoseconds of a tick.
const TICK: i64 = 100_000_000;

/// Milliseconds that a turn may wait, of `asked` ones.
pub(crate) fn wait(shared: &Shared, full: bool, asked: u32) -> u32 {
    let flows = shared.flows.borrow();
    match (flows.has_untold() && !full, flows.ticks()) {
        (true, _) => 0,
        (false, true) => asked.min(100),
        (false, false) => asked,
    }
}

/// Ticks while something is on its way to a guest.
#[derive(Debug, Default)]
pub(crate) struct Ticks(i64);

impl Ticks {
    /// Lets one pass where it is time.
    pub(crate) fn pass(&mut self, shared: &Shared) {
        if !shared.flows.borrow().ticks() || shared.outbox.borrow().full() {
            return;
        }
        let now = now();
        if now - self.0 >= TICK {
            self.0 = now;
            shared.flows.borrow_mut().tick(|frame, mss| shared.outbox.borrow_mut().segment(frame, mss));
        }
    }
}

/// Tells the stack of what it has sent as if the guest had it.
pub(crate) fn tell(net: &mut Net, shared: &Shared) {
    for _ in 0..ROUNDS {
        if shared.outbox.borrow().full() {
            return;
        }
        let told = shared.flows.borrow_mut().tell();
        if told.is_empty() {
            return;
        }
        for (key, (sequence, acknowledged, window)) in told {
            net.stack.input(&segment::acknowledgement(&key, sequence, acknowledged, window), None);
        }
    }
}

/// Asks the stack for the windows of connections whose sockets have just taken something: libslirp 4.7 tells the guest of new room only when the
/// guest asks, and a guest asks ever more seldom.
pub(crate) fn open(net: &mut Net, shared: &Shared) {
    let probes: Vec<_> = {
        let (set, flows) = (shared.set.borrow(), shared.flows.borrow());
        set.written().filter_map(|socket| flows.shut(socket)).collect()
    };
    for (key, [sequence, acknowledged]) in probes {
        net.stack.input(&segment::probe(&key, sequence, acknowledged), None);
    }
}
