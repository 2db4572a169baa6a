//! What loads the device under test: a UDP sender and sink, round trips, QMP commands; and a bare wire between taps.

pub mod ping;
pub mod qmp_rate;
pub mod send;
pub mod sink;
pub mod wire;
