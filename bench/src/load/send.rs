//! A UDP sender: single datagrams by `sendmmsg`, or `UDP_SEGMENT` sends that the kernel cuts as late as it can.

use crate::failure::{Context, Failure, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, connect, send, sendmmsg,
    setsockopt, socket, sockopt,
};
use std::io::IoSlice;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Datagrams in one `sendmmsg`.
const BATCH: usize = 64;

/// The largest UDP payload of one send.
const MAX_PAYLOAD: usize = 65_507;

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to; with several flows, flow `n` goes to this port plus `n`.
    pub to: SocketAddrV4,
    /// UDP payload of one datagram in bytes.
    pub size: usize,
    /// Number of flows, one datagram of each in turn.
    pub flows: u16,
    /// Datagrams in one `UDP_SEGMENT` send; 1 sends them singly.
    pub segments: usize,
    /// Datagrams a second at most.
    pub rate: Option<f64>,
    /// How long.
    pub duration: Duration,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Sends that failed (a full device queue; the first error of another kind ends the run).
    pub errors: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Sent {
    /// One JSON line, as `udpload send` prints it.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({ "sent": self.datagrams, "errors": self.errors, "seconds": self.seconds })
    }
}

/// As many datagrams of `size` bytes as one `UDP_SEGMENT` send may hold (64 in all kernels that know it).
pub fn most_segments(size: usize) -> usize {
    (MAX_PAYLOAD / size.max(1)).clamp(1, 64)
}

/// Sends until the time is over or `stop` is set.
///
/// # Errors
/// When the socket cannot be made, or a send fails for another reason than a full queue.
pub fn run(load: &Load, stop: &AtomicBool) -> Result<Sent> {
    let fd =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("socket")?;
    if load.segments > 1 {
        if load.flows != 1 || load.segments * load.size > MAX_PAYLOAD {
            return Err(Failure::new("UDP_SEGMENT sends hold one flow and at most 65507 bytes"));
        }
        connect(fd.as_raw_fd(), &SockaddrIn::from(load.to)).context(load.to)?;
        setsockopt(&fd, sockopt::UdpGsoSegment, &(load.size as libc::c_int)).context("UDP_SEGMENT")?;
        let payload = vec![0x5a; load.segments * load.size];
        let per_send = load.segments as u64;
        return paced(load, stop, per_send, |count| {
            let mut done = 0;
            while done < count {
                match send(fd.as_raw_fd(), &payload, MsgFlags::empty()) {
                    Ok(_) => done += per_send,
                    Err(errno) => return Err((done, errno)),
                }
            }
            Ok(done)
        });
    }
    singles(load, stop, &fd)
}

fn singles(load: &Load, stop: &AtomicBool, fd: &OwnedFd) -> Result<Sent> {
    let one_flow = load.flows <= 1;
    if one_flow {
        connect(fd.as_raw_fd(), &SockaddrIn::from(load.to)).context(load.to)?;
    }
    let payload = vec![0x5a; load.size];
    let slices = [[IoSlice::new(&payload)]; BATCH];
    let flows = if one_flow { BATCH } else { usize::from(load.flows) };
    let targets: Vec<Option<SockaddrIn>> = (0..flows)
        .map(|flow| {
            let port = load.to.port().wrapping_add(flow as u16);
            (!one_flow).then(|| SockaddrIn::from(SocketAddrV4::new(*load.to.ip(), port)))
        })
        .collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut flow = 0;
    paced(load, stop, 1, |count| {
        let batch = (count as usize).min(BATCH).min(flows - flow);
        let to = &targets[flow..flow + batch];
        match sendmmsg(fd.as_raw_fd(), &mut headers, &slices[..batch], to, [], MsgFlags::empty()) {
            Ok(results) => {
                let sent = results.count();
                flow = (flow + sent) % flows;
                Ok(sent as u64)
            }
            Err(errno) => Err((0, errno)),
        }
    })
}

/// Calls `step(most)` until the end, no faster than the load's rate. `step` gives the datagrams sent.
fn paced(load: &Load, stop: &AtomicBool, per_send: u64, mut step: impl FnMut(u64) -> Step) -> Result<Sent> {
    let start = Instant::now();
    let mut sent = Sent { datagrams: 0, errors: 0, seconds: 0.0 };
    loop {
        let elapsed = start.elapsed();
        if elapsed >= load.duration || stop.load(Ordering::Relaxed) {
            sent.seconds = elapsed.as_secs_f64();
            return Ok(sent);
        }
        let due = match load.rate {
            None => BATCH as u64 * per_send,
            Some(rate) => {
                let due = (elapsed.as_secs_f64() * rate) as u64;
                if due < sent.datagrams + per_send {
                    // Half a millisecond keeps bursts far below a device queue (25 datagrams at 50,000 a second).
                    std::thread::sleep(Duration::from_micros(500));
                    continue;
                }
                due - sent.datagrams
            }
        };
        match step(due) {
            Ok(count) => sent.datagrams += count,
            Err((count, errno)) => {
                sent.datagrams += count;
                sent.errors += 1;
                if !matches!(errno, Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED) {
                    return Err(errno).context(format_args!("send to {}", load.to));
                }
            }
        }
    }
}

/// Datagrams sent, and the error behind them.
type Step = std::result::Result<u64, (u64, Errno)>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::sink;

    fn received(load: &Load, gro: bool) -> (u64, u64) {
        let sink = sink::Reader::bind(load.to, gro).unwrap();
        let load = Load { to: sink.address().unwrap(), ..load.clone() };
        let sender = std::thread::spawn(move || run(&load, &AtomicBool::new(false)).unwrap());
        let read = sink.read_for(Duration::from_millis(200)).unwrap();
        (sender.join().unwrap().datagrams, read)
    }

    fn load(size: usize, segments: usize) -> Load {
        Load {
            to: SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0),
            size,
            flows: 1,
            segments,
            rate: Some(20_000.0),
            duration: Duration::from_millis(50),
        }
    }

    #[test]
    fn every_paced_datagram_arrives() {
        let (sent, read) = received(&load(64, 1), false);
        assert!(sent > 100 && sent == read, "{sent} sent, {read} read");
    }

    #[test]
    fn segmented_sends_arrive_as_single_datagrams_and_whole() {
        for gro in [false, true] {
            let (sent, read) = received(&load(1400, most_segments(1400)), gro);
            assert!(sent > 100 && sent == read, "{sent} sent, {read} read, gro {gro}");
        }
    }

    #[test]
    fn a_segmented_send_never_exceeds_a_datagram() {
        assert_eq!((most_segments(64), most_segments(1400), most_segments(65_507)), (64, 46, 1));
    }
}
