//! The counters for monitoring systems: OpenMetrics text, and the HTTP response that carries it.
//!
//! ```text
//! State::metrics -> openmetrics -> respond -> the daemon writes it
//! ```
//!
//! Nothing here does I/O. Counters are those of the engine since its start: `query-net-stats-reset` does not touch
//! them, since a counter that goes back looks like a restart.

mod http;
mod openmetrics;
#[cfg(test)]
mod tests;

pub use http::{LONGEST_REQUEST, is_complete, respond};
pub use openmetrics::{FilterCounters, Port, openmetrics};
