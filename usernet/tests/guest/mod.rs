//! A guest that speaks Ethernet, ARP, UDP and TCP by hand, over the sockets that the daemon would hold. The link loses nothing, so it never repeats.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt, socketpair,
    sockopt,
};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use usernet::protocol::{Answer, CONTROL, FRAMES, HEADER, LONGEST, LONGEST_MESSAGE, Network, Request, Said};

mod forward;
mod start;
mod tcp;
mod wire;

pub use tcp::{ACK, SYN, Tcp};
pub use wire::*;

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub const ME: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Guest {
    frames: OwnedFd,
    control: Option<OwnedFd>,
    pub child: Child,
    pub waiting: VecDeque<(Vec<u8>, Vec<u8>)>,
    pub warnings: Vec<String>,
    port: u16,
}

impl Guest {
    /// Started, and known to the stack by its address.
    pub fn start(network: Network, files: &[RawFd]) -> Guest {
        let mut guest = Guest::spawn();
        assert_eq!(guest.begin(network, files, "/etc/resolv.conf".as_ref()), Answer::Done);
        guest.greet();
        guest
    }

    /// Asks for the network, and opens a file of name servers whenever the process wants it.
    pub fn begin(&mut self, network: Network, files: &[RawFd], servers: &Path) -> Answer {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let servers = servers.to_owned();
        std::thread::spawn(move || {
            while let Ok(1) = recv(ours.as_raw_fd(), &mut [0], MsgFlags::empty()) {
                let file = std::fs::File::open(&servers).expect("a file of name servers");
                let rights = [ControlMessage::ScmRights(&[file.as_raw_fd()])];
                let _ = sendmsg::<()>(
                    ours.as_raw_fd(),
                    &[IoSlice::new(&[0])],
                    &rights,
                    MsgFlags::MSG_NOSIGNAL,
                    None,
                );
            }
        });
        let files: Vec<RawFd> = [theirs.as_raw_fd()].into_iter().chain(files.iter().copied()).collect();
        self.request_with(&Request::Start(Box::new(network)), &files)
    }

    /// Makes our address known.
    pub fn greet(&mut self) {
        self.send(&arp(1, ME, HOST, [0xff; 6]));
        self.until(|frame| frame[12..14] == [8, 6] && frame[21] == 2);
    }

    pub fn request(&mut self, request: &Request) -> Answer {
        self.request_with(request, &[])
    }

    pub fn request_with(&mut self, request: &Request, files: &[RawFd]) -> Answer {
        let control = self.control.as_ref().expect("open").as_raw_fd();
        let text = serde_json::to_vec(request).unwrap();
        let rights = [ControlMessage::ScmRights(files)];
        let with = if files.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(control, &[IoSlice::new(&text)], with, MsgFlags::empty(), None).expect("sent");
        let mut buffer = vec![0; LONGEST_MESSAGE];
        loop {
            let length = recv(control, &mut buffer, MsgFlags::empty()).expect("an answer");
            match serde_json::from_slice(&buffer[..length]).expect("JSON") {
                Said::Answer(answer) => return answer,
                Said::Warning(text) => self.warnings.push(text),
            }
        }
    }

    pub fn hang_up(&mut self) {
        self.control = None;
    }

    pub fn send(&mut self, frame: &[u8]) {
        self.send_with(&[0; HEADER], frame);
    }

    pub fn send_with(&mut self, header: &[u8; HEADER], frame: &[u8]) {
        let slices = [IoSlice::new(header), IoSlice::new(frame)];
        sendmsg::<()>(self.frames.as_raw_fd(), &slices, &[], MsgFlags::MSG_NOSIGNAL, None).expect("sent");
    }

    /// Whether it was sent, or there is no room.
    pub fn try_send(&mut self, header: &[u8; HEADER], frame: &[u8]) -> bool {
        let slices = [IoSlice::new(header), IoSlice::new(frame)];
        sendmsg::<()>(
            self.frames.as_raw_fd(),
            &slices,
            &[],
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            None,
        )
        .is_ok()
    }

    /// The next message; what asks for our hardware address is answered.
    pub fn receive(&mut self, patience: Duration) -> Option<(Vec<u8>, Vec<u8>)> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut polled = [PollFd::new(self.frames.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left.as_millis()).unwrap();
            if poll(&mut polled, timeout).expect("poll") == 0 {
                return None;
            }
            let mut buffer = vec![0; LONGEST];
            let length =
                recv(self.frames.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).expect("a message");
            if length == 0 {
                return None;
            }
            buffer.truncate(length);
            let frame = buffer.split_off(HEADER);
            if frame[12..14] == [8, 6] && frame[21] == 1 && frame[38..42] == ME.octets() {
                let answer = arp(2, ME, HOST, MAC);
                self.send(&answer);
                continue;
            }
            return Some((buffer, frame));
        }
    }

    /// The next frame that is asked for; others are dropped.
    pub fn until(&mut self, wanted: impl Fn(&[u8]) -> bool) -> (Vec<u8>, Vec<u8>) {
        loop {
            let (header, frame) = self.receive(PATIENCE).expect("a frame");
            if wanted(&frame) {
                return (header, frame);
            }
        }
    }

    pub fn port(&mut self) -> u16 {
        self.port += 1;
        self.port
    }

    /// Sends a datagram.
    pub fn datagram(&mut self, from: u16, to: (Ipv4Addr, u16), bytes: &[u8]) {
        let frame = udp((ME, from), to, bytes);
        self.send(&frame);
    }

    /// The next datagram to a port: its source port and its bytes.
    pub fn datagram_to(&mut self, port: u16) -> (u16, Vec<u8>) {
        let (_, frame) =
            self.until(|frame| frame[12..14] == [8, 0] && frame[23] == 17 && word(frame, 36) == port);
        (word(&frame, 34), frame[42..].to_vec())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.control = None;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.child.try_wait().expect("a child").is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        panic!("netdevd-user outlives its control socket");
    }
}
