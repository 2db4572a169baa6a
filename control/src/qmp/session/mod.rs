//! One monitor connection as a pure state machine: bytes in, requests out, replies and events in,
//! bytes out (QEMU `monitor/qmp.c`).
//!
//! ```text
//! feed -> parse -> in-band queue -----------> next -> Request -> (executed) -> reply -> output
//!               \-> exec-oob: before the queue ^                               event --^
//! ```
//!
//! Without the `oob` capability one message is parsed at a time: the next one waits, unparsed,
//! until the reply to the one before. With it, up to eight messages wait parsed in the in-band
//! queue, so that an `exec-oob` behind them is seen and overtakes them.

mod check;
mod machine;

pub use machine::{CommandInfo, CommandTable, Request, Session};

#[cfg(test)]
mod tests;
