//! QMP as QEMU speaks it: parser, sessions, errors, events.
//!
//! ```text
//! bytes in -> json::Parser -> Session (checks, ids, order) -> Request -> commands
//! bytes out <- emit::Writer <- Session::reply, Session::event
//! ```
//!
//! Nothing here does I/O or reads a clock. The reference is QEMU 10.0: texts, order of checks and
//! the printed form are the same byte for byte (`testdata/` holds its replies).

pub mod emit;
pub mod error;
pub mod events;
pub mod json;
pub mod order;
pub mod session;

pub use error::{ErrorClass, QmpError};
pub use events::Event;
pub use session::{CommandInfo, CommandTable, Request, Session};
