//! A socket as an end that only sends, a burst a system call: a packet socket past the queueing discipline of its interface, or a UDP socket
//! with single datagrams, of which each is a frame behind a head that is always the same, or a plug of a `vde_switch`.

use super::BURST;
use super::frame::{HEADER, Shape};
use super::payload::Payload;
use super::vde::{self, Plug};
use crate::failure::{Context, Failure, Result};
use crate::load::wire;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};
use std::io::IoSlice;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::str::FromStr;

/// A path of datagrams: `127.0.0.1:21001,127.0.0.1:21000` from and to, behind another comma the session of L2TPv3, and behind one more how many datagrams
/// are one message (UDP_SEGMENT), as a sender does that has several for one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The socket's own address.
    pub from: SocketAddrV4,
    /// Where to.
    pub to: SocketAddrV4,
    /// What stands before each frame.
    pub head: Vec<u8>,
    /// Datagrams of one message.
    pub segments: usize,
}

impl FromStr for Path {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split(',').collect();
        let (&[from, to] | &[from, to, _] | &[from, to, _, _]) = words.as_slice() else {
            return Err(Failure::new(format!("{text}: FROM,TO[,SESSION[,SEGMENTS]]")));
        };
        let segments = words.get(3).map_or(Ok(1), |count| count.parse()).context(text)?;
        if !(1..=BURST).contains(&segments) {
            return Err(Failure::new(format!("{text}: 1 to {BURST} segments")));
        }
        let mut head = Vec::new();
        if let Some(session) = words.get(2) {
            // RFC 3931 §4.1.2.1: a data message of version 3 over UDP.
            head.extend([0, 3, 0, 0]);
            head.extend(session.parse::<u32>().context(text)?.to_be_bytes());
        }
        Ok(Self { from: from.parse().context(text)?, to: to.parse().context(text)?, head, segments })
    }
}

/// A packet socket that is bound to an interface, or a socket for datagrams that is connected.
pub(super) struct Packet {
    socket: OwnedFd,
    /// Bytes before each frame.
    head: usize,
    /// So many that differ or stand in one burst, and the first ones of them once more, so that a burst can begin at each.
    frames: Vec<Vec<u8>>,
    count: usize,
    variants: usize,
    next: usize,
    /// Frames of one message at most; they are of one length.
    segments: usize,
    /// The kernel is done with a frame when the call returns.
    gone: usize,
    headers: MultiHeaders<SockaddrIn>,
    _plug: Option<Plug>,
}

impl Packet {
    /// Opens a socket on the interface `name`.
    ///
    /// # Errors
    /// No such interface, or no CAP_NET_RAW.
    pub(super) fn open(name: &str, shape: &Shape) -> Result<Self> {
        Ok(Self::on(wire::packet(name)?, &[], shape))
    }

    /// Opens a UDP socket on a path.
    ///
    /// # Errors
    /// The address is taken, or there is no way.
    pub(super) fn datagrams(path: &Path, shape: &Shape) -> Result<Self> {
        let socket = UdpSocket::bind(path.from).context(path.from)?;
        socket.connect(path.to).context(path.to)?;
        let mut end = Self::on(socket.into(), &path.head, shape);
        if path.segments > 1 {
            let length = end.frames.first().map_or(0, Vec::len);
            if end.frames.iter().any(|frame| frame.len() != length) {
                return Err(Failure::new("datagrams of one message are of one length"));
            }
            let size = i32::try_from(length).context("a frame's length")?;
            setsockopt(&end.socket, sockopt::UdpGsoSegment, &size).context("UDP_SEGMENT")?;
            end.segments = path.segments;
        }
        Ok(end)
    }

    /// Plugs into the `vde_switch` whose control directory is `at`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn vde(at: &std::path::Path, shape: &Shape) -> Result<Self> {
        let (socket, plug) = vde::plug(at)?;
        Ok(Self { _plug: Some(plug), ..Self::on(socket.into(), &[], shape) })
    }

    fn on(socket: OwnedFd, head: &[u8], shape: &Shape) -> Self {
        let variants = shape.variants();
        let count = variants * BURST.div_ceil(variants);
        let frame = |n: usize| shape.build(n % variants, false).split_off(HEADER);
        let frames = (0..count + BURST).map(|n| [head, &frame(n)].concat()).collect();
        let headers = MultiHeaders::preallocate(BURST, None);
        let segments = 1;
        Self {
            socket,
            head: head.len(),
            frames,
            count,
            variants,
            next: 0,
            segments,
            gone: 0,
            headers,
            _plug: None,
        }
    }

    pub(super) fn reclaim(&mut self) -> usize {
        std::mem::take(&mut self.gone)
    }

    /// Sends up to `n` frames: how many the kernel took. What the other side has no room for counts as taken, as on a wire.
    pub(super) fn send<P: Payload>(&mut self, n: usize, payload: &mut P) -> Result<usize> {
        let n = n.min(BURST);
        let Some(frames) = self.frames.get_mut(self.next..self.next + n) else { return Ok(0) };
        if P::TOUCH {
            payload.burst();
            for (at, frame) in frames.iter_mut().enumerate() {
                let variant = ((self.next + at) % self.variants) as u32;
                let frame = frame.get_mut(self.head..).unwrap_or_default();
                // SAFETY: all that stands behind the head.
                #[allow(unsafe_code)]
                unsafe {
                    payload.mark(frame.as_mut_ptr(), frame.len(), variant);
                }
            }
        }
        let slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let messages: Vec<&[IoSlice<'_>]> = slices.chunks(self.segments).collect();
        let to = [const { None }; BURST];
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            &messages,
            to.get(..messages.len()).unwrap_or_default(),
            [],
            MsgFlags::empty(),
        );
        let sent = match sent {
            Ok(results) => (results.count() * self.segments).min(n),
            // A UDP socket is told so that nobody listened when it sent before.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => 0,
            Err(errno) => return Err(errno).context("socket"),
        };
        self.next = (self.next + sent) % self.count;
        self.gone += sent;
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Plain;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_path_names_both_ends_and_perhaps_a_session() {
        let path: Path = "127.0.0.1:21001,127.0.0.1:21000,7".parse().unwrap();
        assert_eq!((path.from.port(), path.to.port()), (21001, 21000));
        assert_eq!(path.head, [0, 3, 0, 0, 0, 0, 0, 7]);
        assert_eq!(path.segments, 1);
        assert!("127.0.0.1:1,127.0.0.1:2".parse::<Path>().unwrap().head.is_empty());
        assert_eq!("127.0.0.1:1,127.0.0.1:2,7,16".parse::<Path>().unwrap().segments, 16);
        for text in
            ["127.0.0.1:1", "a,b", "127.0.0.1:1,127.0.0.1:2,x", "1,2,3,4", "127.0.0.1:1,127.0.0.1:2,7,0"]
        {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_datagram_is_a_frame_behind_its_head() {
        for segments in [1, 2] {
            datagrams_of(segments);
        }
    }

    fn datagrams_of(segments: usize) {
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        sink.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = sink.local_addr().unwrap();
        let path = format!("127.0.0.1:0,{to},7,{segments}").parse().unwrap();
        let shape = Shape::default();
        let mut end = Packet::datagrams(&path, &shape).unwrap();
        let sent = end.send(3, &mut Plain).unwrap();
        assert_eq!((sent, end.reclaim(), end.reclaim()), (3, 3, 0));
        let mut buffer = [0; 2048];
        for _ in 0..sent {
            let len = sink.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..8], [0, 3, 0, 0, 0, 0, 0, 7]);
            assert_eq!(buffer[8..len], shape.build(0, false)[HEADER..]);
        }
    }
}
