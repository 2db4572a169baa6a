//! Chardevs that rules of `user` netdevs name (`guestfwd=...-chardev:ID`): who is at their other ends comes and goes, and each time the netdev's
//! process is handed the stream. Between two of them the guest's bytes are for nobody, and its connections stay, as in QEMU.

use crate::chardev::Stream;
use crate::reactor::{Part, Reactor, Token};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// The role of their descriptors among those of [`Part::User`].
pub const STREAM: u8 = 1;

/// A chardev in use.
#[derive(Debug)]
pub struct Claim {
    /// The netdev's name.
    pub netdev: String,
    /// The chardev's.
    pub chardev: String,
    /// Which stream of the process it is.
    pub index: usize,
    /// Nothing while nobody is at the other end.
    stream: Option<Stream>,
    /// The process has another stream, or none yet.
    pub news: bool,
}

/// All of them, by numbers that are never used twice.
#[derive(Debug)]
pub struct Claims {
    reactor: Rc<Reactor>,
    all: BTreeMap<u32, Claim>,
    last: u32,
}

/// A stream that has ended.
///
/// # Errors
/// The kernel's, when no descriptor is left.
pub fn nobody() -> io::Result<OwnedFd> {
    UnixStream::pair().map(|(end, _)| end.into())
}

impl Claim {
    /// A copy of the stream for the process; one that has ended while there is none.
    ///
    /// # Errors
    /// The kernel's, when no descriptor is left.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.stream.as_ref().map_or_else(nobody, |stream| stream.as_fd().try_clone_to_owned())
    }
}

impl Claims {
    /// None yet; the reactor tells of their ends as [`Part::User`], with the role [`STREAM`].
    pub(super) fn new(reactor: Rc<Reactor>) -> Self {
        Self { reactor, all: BTreeMap::new(), last: 0 }
    }

    /// One more; its number is for the chardev's registry.
    pub fn add(&mut self, netdev: &str, chardev: &str, index: usize) -> u32 {
        self.last += 1;
        let claim =
            Claim { netdev: netdev.into(), chardev: chardev.into(), index, stream: None, news: false };
        self.all.insert(self.last, claim);
        self.last
    }

    /// Somebody is at the other end.
    pub fn connected(&mut self, number: u32, stream: Stream) -> Option<&mut Claim> {
        let claim = self.all.get_mut(&number)?;
        // As in `ended`: the end of the one before would pass for the end of this one.
        claim.stream.iter().for_each(|before| self.reactor.forget(before));
        if let Err(error) = self.reactor.watch_end(&stream, Token::new(Part::User, number, STREAM)) {
            tracing::warn!("chardev '{}': its connection is not watched: {error}", claim.chardev);
        }
        claim.stream = Some(stream);
        claim.news = true;
        Some(claim)
    }

    /// Somebody has gone.
    pub fn ended(&mut self, number: u32) -> Option<&mut Claim> {
        let claim = self.all.get_mut(&number)?;
        let stream = claim.stream.take()?;
        // The process has a copy, so that closing is not enough.
        self.reactor.forget(&stream);
        Some(claim)
    }

    /// The claims of a netdev.
    pub fn of<'a>(&'a mut self, netdev: &'a str) -> impl Iterator<Item = &'a mut Claim> {
        self.all.values_mut().filter(move |claim| claim.netdev == netdev)
    }

    /// The number of the last.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Takes those away that are chosen by number and netdev; their chardevs' names.
    pub fn remove(&mut self, chosen: impl Fn(u32, &str) -> bool) -> Vec<String> {
        let reactor = &self.reactor;
        let gone = self.all.extract_if(.., |&number, claim| chosen(number, &claim.netdev));
        gone.map(|(_, claim)| {
            claim.stream.iter().for_each(|stream| reactor.forget(stream));
            claim.chardev
        })
        .collect()
    }
}
