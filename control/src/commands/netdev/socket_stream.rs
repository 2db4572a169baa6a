//! `netdev_add type=socket` with `listen=`, `connect=`, or `fd=` of a stream (QEMU `net/socket.c`).

use crate::commands::State;
use crate::commands::args::Args;
use crate::commands::stream::Legacy;
use crate::qmp::error::QmpError;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use serde_json::{Map, Value};
use std::net::{Ipv4Addr, SocketAddrV4};

impl State {
    pub(super) fn add_socket(&mut self, monitor: u64, args: Map<String, Value>) -> Result<Value, QmpError> {
        let has = |name: &&&str| args.contains_key(**name);
        let modes = ["fd", "listen", "connect"].iter().filter(has).count();
        let other = ["mcast", "udp", "localaddr"].iter().any(|name| has(&name));
        let not_built = || QmpError::generic("network backend 'socket' is not compiled into this binary");
        if modes != 1 || other {
            return Err(not_built());
        }
        let what = if let Some(name) = args.maybe("fd") {
            let (fd, number) = self.fds.named_or_numbered(monitor, args.text("id"), name)?;
            match getsockopt(&fd, sockopt::SockType) {
                Ok(SockType::Stream) => Legacy::Fd(fd, number),
                Ok(_) => return Err(not_built()),
                Err(_) => return Err(QmpError::generic("can't get socket option SO_TYPE")),
            }
        } else if let Some(address) = args.maybe("listen") {
            Legacy::Listen(host_and_port(address)?)
        } else {
            Legacy::Connect(host_and_port(args.text("connect"))?)
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
