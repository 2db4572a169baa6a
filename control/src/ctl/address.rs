//! Where the daemon listens.

use super::Failure;
use std::fmt;
use std::path::PathBuf;

/// The socket when neither `-s` nor `$NETDEVD_QMP` names one.
pub(super) const DEFAULT: &str = "/run/netdevd/qmp.sock";

/// A QMP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A UNIX domain socket's path.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl Address {
    /// Reads `PATH`, `unix:PATH` or `tcp:HOST:PORT`.
    ///
    /// # Errors
    /// [`Failure::Usage`]: empty, or a TCP address without a port.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(address) = text.strip_prefix("tcp:") {
            return match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && !port.is_empty() => {
                    Ok(Self::Tcp(address.to_owned()))
                }
                _ => Err(Failure::Usage(format!("'{text}' is no address: tcp:HOST:PORT is"))),
            };
        }
        match text.strip_prefix("unix:").unwrap_or(text) {
            "" => Err(Failure::Usage("the path of the socket is empty".to_owned())),
            path => Ok(Self::Unix(path.into())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_tcp_addresses_are_told_apart() {
        let unix = |path: &str| Address::Unix(path.into());
        assert_eq!(Address::parse("/a:b").unwrap(), unix("/a:b"));
        assert_eq!(Address::parse("unix:a").unwrap(), unix("a"));
        assert_eq!(Address::parse("tcp:[::1]:44").unwrap(), Address::Tcp("[::1]:44".into()));
        for wrong in ["", "unix:", "tcp:", "tcp:host", "tcp::5", "tcp:host:"] {
            assert_eq!(Address::parse(wrong).unwrap_err().status(), 2, "{wrong}");
        }
    }
}
