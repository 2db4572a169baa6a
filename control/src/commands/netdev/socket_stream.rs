//! `netdev_add type=socket` with `listen=`, `connect=`, or `fd=` of a stream (QEMU `net/socket.c`).

use crate::commands::State;
use crate::commands::args::Args;
use crate::commands::stream::Legacy;
use crate::qmp::error::QmpError;
use serde_json::{Map, Value};
use std::net::{Ipv4Addr, SocketAddrV4};

impl State {
    pub(super) fn add_socket(&mut self, monitor: u64, args: Map<String, Value>) -> Result<Value, QmpError> {
        let what = match (args.maybe("fd"), args.maybe("listen"), args.maybe("connect")) {
            (Some(name), None, None) => {
                let (fd, number) = self.fds.named_or_numbered(monitor, args.text("id"), name)?;
                Legacy::Fd(fd, number)
            }
            (None, Some(address), None) => Legacy::Listen(host_and_port(address)?),
            (None, None, Some(address)) => Legacy::Connect(host_and_port(address)?),
            _ => {
                return Err(QmpError::generic(
                    "exactly one of listen=, connect=, mcast= or udp= is required",
                ));
            }
        };
        self.add_socket_stream(args, what)
    }
}

fn host_and_port(text: &str) -> Result<SocketAddrV4, QmpError> {
    let (host, port) = text.split_once(':').ok_or_else(|| {
        QmpError::generic(format!("host address '{text}' doesn't contain ':' separating host from port"))
    })?;
    let ip = match host {
        "" => Ipv4Addr::UNSPECIFIED,
        _ => host
            .parse()
            .map_err(|_| QmpError::generic(format!("host address '{host}' is not a valid IPv4 address")))?,
    };
    let port = port.parse().map_err(|_| QmpError::generic(format!("port number '{port}' is invalid")))?;
    Ok(SocketAddrV4::new(ip, port))
}
