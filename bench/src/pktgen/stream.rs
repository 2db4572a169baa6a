//! A TCP connection as an end, with the framing of QEMU's `stream` and `socket` netdevs: the length of a frame in four bytes, then the frame.
//! A burst is one write. What arrives is counted and discarded within the kernel (`MSG_TRUNC`, tcp(7)).

use super::BURST;
use super::frame::{HEADER, Shape};
use crate::failure::{Context, Failure, Result};
use nix::sys::socket::{MsgFlags, recv};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long the other side may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes discarded by one call at most.
const DISCARDED: usize = 1 << 20;

/// A connection on which all frames are of one length, both ways.
pub(super) struct Stream {
    socket: TcpStream,
    /// A burst as it goes out.
    burst: Vec<u8>,
    /// Bytes of a frame with its length.
    frame: usize,
    /// Bytes of the frame that went out in part.
    begun: usize,
    gone: usize,
    /// Bytes of the frame that came in part.
    came: usize,
    /// Never written to: the kernel discards what it says that it put there.
    nowhere: Vec<u8>,
}

impl Stream {
    /// Connects, and waits for a listener if need be.
    ///
    /// # Errors
    /// Nobody listens.
    pub(super) fn connect(to: SocketAddrV4, shape: &Shape) -> Result<Self> {
        let until = Instant::now() + PATIENCE;
        let socket = loop {
            match TcpStream::connect(to) {
                Ok(socket) => break socket,
                Err(error) if Instant::now() > until => return Err(error).context(to),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        socket.set_nonblocking(true).context(to)?;
        socket.set_nodelay(true).context(to)?;
        let frame = shape.build(0, false).split_off(HEADER);
        let framed = [&(frame.len() as u32).to_be_bytes(), frame.as_slice()].concat();
        let (frame, burst) = (framed.len(), framed.repeat(BURST));
        Ok(Self { socket, burst, frame, begun: 0, gone: 0, came: 0, nowhere: vec![0; DISCARDED] })
    }

    /// Discards what arrived: how many frames ended in it.
    pub(super) fn receive(&mut self) -> Result<usize> {
        let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        match recv(self.socket.as_raw_fd(), &mut self.nowhere, flags) {
            Ok(0) => Err(Failure::new("the other side closed the connection")),
            Ok(len) => {
                let all = self.came + len;
                self.came = all % self.frame;
                Ok(all / self.frame)
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(0),
            Err(errno) => Err(errno).context("stream"),
        }
    }

    pub(super) fn reclaim(&mut self) -> usize {
        std::mem::take(&mut self.gone)
    }

    /// Sends up to `n` frames: how many are out as a whole.
    pub(super) fn send(&mut self, n: usize) -> Result<usize> {
        let end = n.min(BURST) * self.frame;
        match self.socket.write(self.burst.get(self.begun..end).unwrap_or_default()) {
            Ok(len) => {
                let all = self.begun + len;
                self.begun = all % self.frame;
                self.gone += all / self.frame;
                Ok(all / self.frame)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(error).context("stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener};

    /// An end, and the other side of its connection.
    fn pair(shape: &Shape) -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(at) = listener.local_addr().unwrap() else { unreachable!() };
        (Stream::connect(at, shape).unwrap(), listener.accept().unwrap().0)
    }

    #[test]
    fn frames_go_out_whole_however_the_writes_are_cut() {
        let shape = Shape { sizes: vec![1500], ..Shape::default() };
        let (mut stream, mut other) = pair(&shape);
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            other.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut sent = 0;
        // More than the buffers hold, so that some writes are short.
        while sent < 20_000 {
            sent += stream.send(BURST).unwrap();
        }
        while stream.begun > 0 {
            sent += stream.send(1).unwrap();
        }
        assert_eq!(stream.reclaim(), sent);
        drop(stream);
        let bytes = reader.join().unwrap();
        let frame = [&1500_u32.to_be_bytes(), &shape.build(0, false)[HEADER..]].concat();
        assert_eq!(bytes.len(), sent * frame.len());
        assert!(bytes.chunks(frame.len()).all(|chunk| chunk == frame));
    }

    #[test]
    fn what_arrives_counts_when_it_is_whole() {
        let (mut stream, mut other) = pair(&Shape::default());
        let frames = [0_u8; 68 * 2 + 30];
        other.write_all(&frames).unwrap();
        let mut count = |want: usize| {
            let (mut got, until) = (0, Instant::now() + PATIENCE);
            while got < want && Instant::now() < until {
                got += stream.receive().unwrap();
            }
            got
        };
        assert_eq!(count(2), 2);
        other.write_all(&frames[..38]).unwrap();
        assert_eq!(count(1), 1);
        drop(other);
        assert!(
            std::iter::repeat_with(|| stream.receive()).find(|got| !matches!(got, Ok(0))).unwrap().is_err()
        );
    }
}
