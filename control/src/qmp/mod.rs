//! QMP as QEMU speaks it: parser, sessions, errors, events.

pub mod error;
