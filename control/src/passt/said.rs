//! What passt says on its standard output and standard error.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes kept of what is said; the rest is the list of options, which passt prints where it does not know one.
const KEPT: usize = 16 << 10;
/// Lines told of it, the last ones: what went wrong is said last.
const LINES: usize = 3;
/// Characters of a line.
const LETTERS: usize = 200;

/// Our end of a pipe.
#[derive(Debug)]
pub(super) struct Said {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Said {
    /// Nothing yet, and the other end of the pipe.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { pipe: Some(ours), bytes: Vec::new() }, theirs))
    }

    /// Readable when something was said; nothing when no more can be.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(OwnedFd::as_fd)
    }

    /// Takes what was said.
    pub(super) fn listen(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        if take(pipe, |bytes| {
            let room = KEPT.saturating_sub(self.bytes.len()).min(bytes.len());
            self.bytes.extend_from_slice(&bytes[..room]);
        }) {
            self.pipe = None;
        }
    }

    /// Where more may be said.
    pub(super) fn rest(mut self) -> Option<OwnedFd> {
        self.listen();
        self.pipe
    }

    /// What it said, behind `lead`; nothing when that was nothing.
    pub(super) fn text(&self, lead: &str) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let all: Vec<&str> = lines(&text).take_while(|line| !line.starts_with("Usage:")).collect();
        let last = &all[all.len().saturating_sub(LINES)..];
        let short = |line: &&str| line.chars().take(LETTERS).collect::<String>();
        match last.is_empty() {
            true => String::new(),
            false => lead.to_owned() + &last.iter().map(short).collect::<Vec<_>>().join("; "),
        }
    }
}

/// Lines that say something, without passt's complaints that there is no system log.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let noise = |line: &str| line.starts_with("Failed to send") && line.ends_with("to syslog");
    text.lines().map(str::trim).filter(move |line| !line.is_empty() && !noise(line))
}

/// Reads what is there. True: no more will come.
pub(super) fn take(pipe: &OwnedFd, mut with: impl FnMut(&[u8])) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match nix::unistd::read(pipe, &mut bytes) {
            Ok(0) => return true,
            Ok(count) => with(bytes.get(..count).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return false,
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(said: &str) -> String {
        let (mut this, mouth) = Said::new().unwrap();
        nix::unistd::write(&mouth, said.as_bytes()).unwrap();
        drop(mouth);
        this.listen();
        assert!(this.fd().is_none(), "the end of the pipe was seen");
        this.text(": ")
    }

    #[test]
    fn the_last_words_before_the_list_of_options_are_told() {
        assert_eq!(text(""), "");
        assert_eq!(text("Failed to send 31 bytes to syslog\n\n"), "");
        let unknown = "passt: unrecognized option '--x'\nFailed to send 31 bytes to syslog\nUsage: passt [OPTION]...\n  -d\n";
        assert_eq!(text(unknown), ": passt: unrecognized option '--x'");
        assert_eq!(text("one\ntwo\nthree\nfour"), ": two; three; four");
        assert_eq!(text(&"é".repeat(300)), format!(": {}", "é".repeat(200)));
    }
}
