//! Options of a socket chardev that exclude each other (QEMU `chardev/char-socket.c`).

use super::{Backend, Chardev, SocketAddress, SocketOptions};
use crate::qmp::QmpError;

impl Chardev {
    /// Checks the options against each other.
    ///
    /// # Errors
    /// In QEMU's words; `chardev-add` puts its own before them.
    pub fn validate(&self) -> Result<(), QmpError> {
        match &self.backend {
            Backend::Socket(socket) => socket.validate(),
            Backend::Null(_) | Backend::Stdio(_) => Ok(()),
        }
    }
}

impl SocketOptions {
    /// Whether it listens; a socket of `chardev-add` does unless told otherwise.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.server.unwrap_or(true)
    }

    /// Milliseconds between attempts to connect; 0 for none.
    #[must_use]
    pub fn reconnect_every(&self) -> i64 {
        self.reconnect_ms.or_else(|| self.reconnect.map(|s| s.saturating_mul(1000))).unwrap_or(0)
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// In QEMU's words; `chardev-add` puts its own before them.
    pub fn validate(&self) -> Result<(), QmpError> {
        let fault = |desc: &str| Err(QmpError::generic(desc));
        let reconnect = self.reconnect.is_some();
        let reconnect_ms = self.reconnect_ms.is_some();
        if let Some(id) = &self.tls_creds {
            // No object here is of that kind.
            return Err(QmpError::generic(format!("No TLS credentials with id '{id}'")));
        }
        if reconnect && matches!(self.addr, SocketAddress::Fd(_)) {
            return fault("'reconnect' option is incompatible with 'fd' address type");
        }
        if self.tls_authz.is_some() {
            return fault("'tls_authz' option requires 'tls_creds' option");
        }
        if self.is_server() {
            if reconnect {
                return fault("'reconnect' option is incompatible with socket in server listen mode");
            }
        } else {
            if self.websocket == Some(true) {
                return fault("Websocket client is not implemented");
            }
            if self.wait.is_some() {
                return fault("'wait' option is incompatible with socket in client connect mode");
            }
        }
        if reconnect && reconnect_ms {
            return fault("'reconnect' and 'reconnect-ms' are mutually exclusive");
        }
        Ok(())
    }
}
