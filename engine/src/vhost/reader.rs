//! Bytes and files to messages.

use super::error::ProtocolError;
use super::message::{HEADER, Header, MAX_FDS, Message, Sender};
use std::os::fd::OwnedFd;

/// Files that may wait for the rest of their messages, whatever was read at once.
const MAX_WAITING: usize = 4 * MAX_FDS;

/// Collects what a socket yields into whole messages; a part of one just waits.
///
/// The kernel ends a read behind the bytes that files came with, so files belong to the last message of which that read
/// had a byte. Reading at most [`Reader::want`] bytes at a time keeps each read inside of one message.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Files, each with how many bytes of `bytes` there were when it had come.
    fds: Vec<(usize, OwnedFd)>,
    broken: bool,
    from: Sender,
}

impl Reader {
    /// Of a front-end's requests, with nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a back-end's answers.
    #[must_use]
    pub fn of_answers() -> Self {
        Self { from: Sender::BackEnd, ..Self::default() }
    }

    /// Bytes to the end of the header, or of the message, that is being read.
    #[must_use]
    pub fn want(&self) -> usize {
        let whole = self.header().and_then(Result::ok).map_or(HEADER, |header| HEADER + header.size);
        whole.saturating_sub(self.bytes.len())
    }

    /// Takes what one read yielded.
    pub fn feed(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        if self.broken {
            return; // files close here
        }
        self.bytes.extend_from_slice(bytes);
        let read = self.bytes.len();
        self.fds.extend(fds.into_iter().map(|fd| (read, fd)));
    }

    /// The next message, if it is whole. After an error there is nothing more: the stream has lost its shape.
    ///
    /// # Errors
    /// No message of this protocol, one that is too long, one with too many files.
    #[allow(clippy::should_implement_trait)] // not an iterator: None says "not yet"
    pub fn next(&mut self) -> Option<Result<Message, ProtocolError>> {
        if self.broken {
            return None;
        }
        let message = self.take();
        if matches!(message, Some(Err(_))) {
            *self = Self { broken: true, ..Self::default() };
        }
        message
    }

    fn header(&self) -> Option<Result<Header, ProtocolError>> {
        self.bytes.first_chunk().map(|bytes| Header::parse(*bytes, self.from))
    }

    fn take(&mut self) -> Option<Result<Message, ProtocolError>> {
        if self.fds.len() > MAX_WAITING {
            return Some(Err(ProtocolError::ManyFiles(self.fds.len())));
        }
        let header = match self.header()? {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        let end = HEADER + header.size;
        let own = self.fds.iter().filter(|(read, _)| *read <= end).count();
        if own > MAX_FDS {
            return Some(Err(ProtocolError::ManyFiles(own)));
        }
        if self.bytes.len() < end {
            return None;
        }
        let payload = self.bytes.get(HEADER..end).unwrap_or_default().to_vec();
        self.bytes.drain(..end);
        let fds = self.fds.drain(..own).map(|(_, fd)| fd).collect();
        for (read, _) in &mut self.fds {
            *read -= end;
        }
        Some(Ok(Message { request: header.request, need_reply: header.need_reply, payload, fds }))
    }
}

#[cfg(test)]
mod tests;
