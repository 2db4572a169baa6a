//! Character devices: byte streams that have a name, which monitors and other users take as their transport.
//!
//! ```text
//! chardev-add / -chardev -> spec -> opening (bind or connect; any thread) -> registry
//!                                                     listener, reconnect timer  |  stream -> its user (a monitor)
//! ```
//!
//! Types: `null`, `socket` and, for the command line, `stdio`. A chardev has at most one user, and a server socket at
//! most one client, others wait in the kernel's backlog, as with QEMU; but a monitor serves any number at once. A chardev without a user accepts its client and
//! reads nothing from it. Words and forms are those of QEMU's `chardev/char-socket.c`, `util/qemu-sockets.c`.

pub mod address;
pub mod cli;
mod device;
mod error;
mod link;
mod opening;
mod registry;
mod resolve;
mod spec;
mod stream;

pub use error::ChardevError;
pub(crate) use link::{Client, Connector, Listener};
pub use opening::{Opened, Opening};
pub(crate) use opening::{connected, dial_inet, dial_unix, listen_fd, listen_inet, listen_unix};
pub use registry::{ChardevId, Connected, Registry, User};
pub(crate) use resolve::is_numeric;
pub use spec::{Backend, SocketSpec, Spec};
pub use stream::{Received, Stream};

#[cfg(test)]
mod tests;
