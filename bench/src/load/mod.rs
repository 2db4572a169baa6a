//! What loads the device under test: a UDP sender and sink, short connections, round trips, QMP commands; and a bare wire between taps.

pub mod connects;
pub mod ping;
pub mod qmp_rate;
pub mod send;
pub mod sink;
pub mod wire;
