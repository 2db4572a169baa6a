//! Latency: round trips by UDP or ICMP, and the way of one frame between two namespaces.

use crate::failure::{Context, Failure, Result};
use crate::histogram::Histogram;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect,
    recv, recvmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};
use std::io::IoSliceMut;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A reply later than this counts as lost.
const LOST: Duration = Duration::from_millis(500);

/// What a run of pings showed.
#[derive(Debug, Clone, Default)]
pub struct Trips {
    /// Times of the answered ones.
    pub times: Histogram,
    /// Those without an answer.
    pub lost: u64,
}

impl Trips {
    /// One JSON line, as `pinglat` prints it.
    pub fn summary(&self) -> serde_json::Value {
        let mut summary = self.times.summary();
        summary["lost"] = self.lost.into();
        summary
    }
}

/// How often and how long to ping.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long.
    pub duration: Duration,
    /// Rest between an answer and the next ping; zero pings without rest.
    pub interval: Duration,
    /// UDP or ICMP payload in bytes, at least 8.
    pub size: usize,
}

/// Round trips to a UDP echo (`pinglat echo`) at `to`.
///
/// # Errors
/// When the socket cannot be made or a send fails.
pub fn udp(to: SocketAddrV4, pace: Pace) -> Result<Trips> {
    let fd = connected(SockProtocol::Udp, to)?;
    round_trips(&fd, pace, 0)
}

/// Round trips to the kernel's own ICMP echo at `to`, by an unprivileged ping socket.
///
/// # Errors
/// When `net.ipv4.ping_group_range` of this namespace leaves us out, or a send fails.
pub fn icmp(to: SocketAddrV4, pace: Pace) -> Result<Trips> {
    let fd = connected(SockProtocol::Icmp, to)?;
    round_trips(&fd, pace, ICMP_HEADER)
}

/// Type, code, checksum, id, sequence (RFC 792).
const ICMP_HEADER: usize = 8;

fn connected(protocol: SockProtocol, to: SocketAddrV4) -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)
        .context(format_args!("{protocol:?} socket"))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(to)).context(to)?;
    let timeout = TimeVal::milliseconds(LOST.as_millis() as i64);
    setsockopt(&fd, sockopt::ReceiveTimeout, &timeout).context("SO_RCVTIMEO")?;
    Ok(fd)
}

/// `header` bytes of ICMP (type 8, the kernel fills the rest), then a sequence number that the answer must carry.
fn round_trips(fd: &OwnedFd, pace: Pace, header: usize) -> Result<Trips> {
    let mut message = vec![0_u8; header + pace.size.max(8)];
    let mut answer = vec![0_u8; message.len()];
    if header > 0 {
        message[0] = 8; // echo request
    }
    let mut trips = Trips::default();
    let end = Instant::now() + pace.duration;
    let mut sequence = 0_u64;
    while Instant::now() < end {
        if !pace.interval.is_zero() {
            std::thread::sleep(pace.interval);
        }
        sequence += 1;
        message[header..header + 8].copy_from_slice(&sequence.to_be_bytes());
        let asked = Instant::now();
        send(fd.as_raw_fd(), &message, MsgFlags::empty()).context("ping")?;
        loop {
            match recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                // An answer to an earlier, lost ping may still come in.
                Ok(_) if answer[header..header + 8] != message[header..header + 8] => {}
                Ok(_) => break trips.times.add(asked.elapsed().as_nanos() as u64),
                Err(Errno::EAGAIN | Errno::ECONNREFUSED) => break trips.lost += 1,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("pong"),
            }
        }
    }
    Ok(trips)
}

/// Answers every datagram at `at` until one of zero bytes comes.
///
/// # Errors
/// When the port is taken.
pub fn echo(at: SocketAddrV4) -> Result<()> {
    let socket = UdpSocket::bind(at).context(at)?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("echo")?;
        if length == 0 {
            return Ok(());
        }
        let _ = socket.send_to(&buffer[..length], from);
    }
}

/// Moves the calling thread into the network namespace that `ip netns` knows as `name`.
///
/// # Errors
/// When there is none of that name, or without CAP_SYS_ADMIN.
pub fn enter(name: &str) -> Result<()> {
    let path = format!("/run/netns/{name}");
    let file = std::fs::File::open(&path).context(&path)?;
    setns(file, CloneFlags::CLONE_NEWNET).context(format_args!("cannot enter namespace {name}"))
}

/// Times single frames on their way from a socket in namespace `from` to `to` in namespace `there`: from just before
/// the send to the kernel's own receive stamp, so no wake-up of a receiver is in it. The calling thread ends up in
/// `there`.
///
/// # Errors
/// When a namespace or socket cannot be had.
pub fn one_way(from: &str, there: &str, to: SocketAddrV4, pace: Pace) -> Result<Trips> {
    enter(from)?;
    let out = connected(SockProtocol::Udp, to)?;
    enter(there)?;
    let inward = UdpSocket::bind(to).context(to)?;
    inward.set_read_timeout(Some(LOST)).context("SO_RCVTIMEO")?;
    setsockopt(&inward, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
    let mut trips = Trips::default();
    let (mut message, mut answer) = (vec![0_u8; pace.size.max(8)], vec![0_u8; 65_536]);
    let end = Instant::now() + pace.duration;
    let mut sequence = 0_u64;
    while Instant::now() < end {
        std::thread::sleep(pace.interval);
        sequence += 1;
        message[..8].copy_from_slice(&sequence.to_be_bytes());
        let sent = clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from).context("clock")?;
        send(out.as_raw_fd(), &message, MsgFlags::empty()).context("send")?;
        loop {
            match stamped(&inward, &mut answer) {
                Ok(_) if answer[..8] != message[..8] => {}
                Ok(at) => break trips.times.add(at.saturating_sub(sent).as_nanos() as u64),
                Err(Errno::EAGAIN) => break trips.lost += 1,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("receive"),
            }
        }
    }
    if trips.times.count() == 0 {
        return Err(Failure::new(format!("no frame came from {from} to {there}")));
    }
    Ok(trips)
}

/// Receives one datagram; when the kernel saw it (CLOCK_REALTIME).
fn stamped(socket: &UdpSocket, buffer: &mut [u8]) -> std::result::Result<Duration, Errno> {
    let mut control = cmsg_space!(nix::sys::time::TimeSpec);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    });
    stamp.ok_or(Errno::ENODATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_on_the_loopback_answers_every_ping() {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
        let server = std::thread::spawn(move || echo(at).unwrap());
        let pace = Pace { duration: Duration::from_millis(50), interval: Duration::ZERO, size: 16 };
        // The first pings may come before the echo is bound; a refused one counts as lost.
        let trips = udp(at, pace).unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], at).unwrap();
        server.join().unwrap();
        assert!(trips.times.count() > 10 && trips.times.quantile(0.5) > 0, "{}", trips.summary());
    }
}
