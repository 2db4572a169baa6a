//! `colo-compare` objects: the comparison that the engine runs, and the chardevs that its thread reads and writes.
//!
//! A chardev's connection goes to the thread by itself; when it has ended, the thread wakes this one, and the chardev listens or connects again.

use crate::chardev::Stream;
use crate::reactor::{Interest, Part, Reactor, Token, Wake};
use engine::colo::{Compare, Role, Settings};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One comparison.
#[derive(Debug)]
pub struct Colo {
    compare: Compare,
    /// The chardev of each role; the last may be missing.
    chardevs: Vec<(Role, String)>,
}

/// All of them, by the number of their objects.
#[derive(Debug)]
pub struct Colos {
    all: BTreeMap<u32, Colo>,
    wake: Arc<OwnedFd>,
    /// Frames that a connection holds, of all comparisons: QEMU has one such number.
    queue: Arc<AtomicU32>,
}

impl Colos {
    /// None yet.
    ///
    /// # Errors
    /// The kernel has no descriptor for the wake-up.
    pub fn new(reactor: &Reactor) -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?.as_fd().try_clone_to_owned()?);
        reactor.watch(wake.as_fd(), Token::new(Part::Colo, 0, 0), Interest::READ)?;
        Ok(Self { all: BTreeMap::new(), wake, queue: Arc::new(AtomicU32::new(Settings::QUEUE)) })
    }

    /// Settings with the defaults, for a new comparison.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::new(self.queue.clone())
    }

    /// Frames that a connection holds.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue.load(Ordering::Relaxed)
    }

    /// Sets that number, for all.
    pub fn set_queue(&self, frames: u32) {
        self.queue.store(frames, Ordering::Relaxed);
    }

    /// Starts the comparison of the object of that number.
    ///
    /// # Errors
    /// No thread or no descriptor could be made.
    pub fn start(
        &mut self,
        number: u32,
        settings: Settings,
        vnet: bool,
        chardevs: Vec<(Role, String)>,
    ) -> io::Result<()> {
        let compare = Compare::start(Arc::new(settings), vnet, self.wake.clone())?;
        self.all.insert(number, Colo { compare, chardevs });
        Ok(())
    }

    /// A chardev of a comparison is connected.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn connected(&self, number: u32, role: Role, stream: &Stream) -> io::Result<()> {
        if let Some(colo) = self.all.get(&number) {
            colo.compare.connect(role, stream.as_fd().try_clone_to_owned()?);
        }
        Ok(())
    }

    /// The chardevs whose connection has ended since the last call.
    #[must_use]
    pub fn ended(&self) -> Vec<String> {
        // Only says that there is something.
        let _ = nix::unistd::read(self.wake.as_fd(), &mut [0; 8]);
        let of = |colo: &Colo| {
            let ended = colo.compare.take_ended();
            let named = move |(role, name): &(Role, String)| ended.contains(role).then(|| name.clone());
            colo.chardevs.iter().filter_map(named).collect::<Vec<_>>()
        };
        self.all.values().flat_map(of).collect()
    }

    /// The comparison of that number.
    #[must_use]
    pub fn compare(&self, number: u32) -> Option<&Compare> {
        self.all.get(&number).map(|colo| &colo.compare)
    }

    /// Takes a comparison out: what is to be ended (which may take half a second), and the chardevs that are free then.
    pub fn remove(&mut self, number: u32) -> Option<(Compare, Vec<String>)> {
        let Colo { compare, chardevs } = self.all.remove(&number)?;
        Some((compare, chardevs.into_iter().map(|(_, name)| name).collect()))
    }

    /// The end of the daemon: all comparisons end at once.
    pub fn end(&mut self) {
        let all = std::mem::take(&mut self.all);
        std::thread::scope(|scope| {
            for colo in all.values() {
                scope.spawn(|| colo.compare.finish());
            }
        });
    }
}
