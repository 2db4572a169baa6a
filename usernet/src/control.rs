//! The control socket: requests with their descriptors, answers, warnings.

use crate::fds;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use std::io::IoSliceMut;
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Duration, Instant};
use usernet::protocol::{Answer, LONGEST_MESSAGE, Request, Said};

/// Descriptors of one message: a stream for each service.
const DESCRIPTORS: usize = 253;
/// Warnings a second; the rest is left out.
const WARNINGS: usize = 5;

/// What came.
#[derive(Debug)]
pub(crate) enum Came {
    /// The daemon has closed the socket.
    End,
    /// Nothing is there.
    Nothing,
    /// A request, and the descriptors that go with it.
    Request(Request, Vec<OwnedFd>),
    /// Something that is none.
    Nonsense(String),
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Control {
    socket: RawFd,
    buffer: Vec<u8>,
    since: Instant,
    warned: usize,
}

impl Control {
    pub(crate) fn new(socket: RawFd) -> Control {
        Control { socket, buffer: vec![0; LONGEST_MESSAGE], since: Instant::now(), warned: 0 }
    }

    /// Receives a message; `wait` for one.
    pub(crate) fn receive(&mut self, wait: bool) -> Came {
        let flags =
            MsgFlags::MSG_CMSG_CLOEXEC | if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let mut space = cmsg_space!([RawFd; DESCRIPTORS]);
        let mut files = Vec::new();
        let length = {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let message = match recvmsg::<()>(self.socket, &mut slices, Some(&mut space), flags) {
                Ok(message) => message,
                Err(Errno::EAGAIN | Errno::EINTR) => return Came::Nothing,
                Err(_) => return Came::End,
            };
            for control in message.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::ScmRights(numbers) = control {
                    files.extend(fds::received(numbers));
                }
            }
            message.bytes
        };
        if length == 0 {
            return Came::End;
        }
        match serde_json::from_slice(self.buffer.get(..length).unwrap_or_default()) {
            Ok(request) => Came::Request(request, files),
            Err(why) => Came::Nonsense(why.to_string()),
        }
    }

    fn say(&mut self, said: &Said) -> Result<(), Errno> {
        let text = serde_json::to_vec(said).map_err(|_| Errno::EINVAL)?;
        loop {
            match send(self.socket, &text, MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// Answers the oldest request. A list that is too long for a message is cut.
    pub(crate) fn answer(&mut self, mut answer: Answer) -> Result<(), Errno> {
        if let Answer::State { connections: list, .. } = &mut answer {
            let mut room = LONGEST_MESSAGE - 256;
            let mut fits = 0;
            for connection in list.iter() {
                let Some(rest) =
                    serde_json::to_vec(connection).ok().and_then(|text| room.checked_sub(text.len() + 1))
                else {
                    break;
                };
                room = rest;
                fits += 1;
            }
            if fits < list.len() {
                let text = format!("{} of {} connections are shown", fits, list.len());
                list.truncate(fits);
                self.warn(text)?;
            }
        }
        self.say(&Said::Answer(answer))
    }

    /// Says a line for the log, unless many were said in this second.
    pub(crate) fn warn(&mut self, text: String) -> Result<(), Errno> {
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.since, self.warned) = (Instant::now(), 0);
        }
        self.warned += 1;
        if self.warned > WARNINGS { Ok(()) } else { self.say(&Said::Warning(text)) }
    }
}
