//! Bytes on their way to a socket that may not take them now.

use crate::wire::framing::{Lengths, RECORD_MAX};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes that wait at most: what a receiver has not read by then it loses.
pub(super) const ROOM: usize = 4 << 20;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Taken,
    Full,
}

/// Messages that wait, each with its length in front.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: VecDeque<u8>,
    /// Bytes of each message that were not sent yet.
    messages: VecDeque<usize>,
}

impl Outbox {
    /// Puts a message behind the others, with its length, and that of its virtio-net header where one is given.
    pub(super) fn put(&mut self, message: &[u8], vnet_len: Option<u32>) -> Put {
        let before = self.bytes.len();
        let room = before + message.len() + Lengths::MOST <= ROOM.max(RECORD_MAX + Lengths::MOST);
        if !room || !Lengths::append(message.len(), vnet_len, &mut self.bytes) {
            return Put::Full;
        }
        self.bytes.extend(message);
        self.messages.push_back(self.bytes.len() - before);
        Put::Taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends what the socket takes now.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub(super) fn send(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        while !self.bytes.is_empty() {
            let (first, _) = self.bytes.as_slices();
            match send(socket.as_raw_fd(), first, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => self.sent(sent),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sent(&mut self, mut count: usize) {
        self.bytes.drain(..count);
        while let Some(left) = self.messages.front_mut() {
            if *left > count {
                *left -= count;
                break;
            }
            count -= *left;
            self.messages.pop_front();
        }
    }

    /// Throws away what waits, a message that was sent in part too; says how many they were.
    pub(super) fn clear(&mut self) -> usize {
        self.bytes.clear();
        std::mem::take(&mut self.messages).len()
    }
}
