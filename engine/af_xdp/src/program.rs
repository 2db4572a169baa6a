//! The XDP program that hands frames to sockets, the map that it looks in, and the link by which it is attached.
//!
//! The link is what keeps it attached: it goes with the last descriptor that refers to it, so nothing is left behind however the holder ends. A second
//! program that wants queues of the same interface joins: it holds the same link and puts its sockets into the same map.

use crate::asm::{self, PASS, REDIRECT};
use crate::bpf::{self, Name};
use crate::error::{Error, Step};
use crate::query;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// By this name and by its instructions a program is known as one of ours.
const NAME: Name = *b"af_xdp_redirect\0";
const MAP_NAME: Name = *b"af_xdp_sockets\0\0";

/// Which frames of a queue go to its socket; the kernel keeps the rest. All that is given must hold. A NIC that takes VLAN tags off
/// (`ethtool -K ... rxvlan on`) hides them from the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    /// Destination address.
    pub mac: Option<[u8; 6]>,
    /// EtherType, behind the tag if a VLAN is asked for.
    pub ethertype: Option<u16>,
    /// VLAN of the outermost tag (802.1Q or 802.1ad), 0 to 4095.
    pub vlan: Option<u16>,
}

/// Where in the kernel the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// Behind the driver, with any device (`skb` mode).
    Generic,
}

impl Mode {
    const fn flags(self) -> u32 {
        match self {
            Self::Generic => 1 << 1,
            Self::Native => 1 << 2,
        }
    }
}

/// A map from queues to sockets.
#[derive(Debug)]
pub struct XskMap {
    fd: OwnedFd,
    entries: u32,
}

impl XskMap {
    /// A new map for queues 0 to `entries` - 1.
    ///
    /// # Errors
    /// No permission.
    pub fn create(entries: u32) -> Result<Self, Error> {
        Ok(Self { fd: bpf::map_create(entries, MAP_NAME)?, entries })
    }

    /// A map that somebody pinned.
    ///
    /// # Errors
    /// No such path, no permission, or a map of another type (EINVAL).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = c_path(path)?;
        Self::from_fd(bpf::object_get(&path)?)
    }

    /// Pins it, so that others find it.
    ///
    /// # Errors
    /// No BPF file system there, or the name is taken.
    pub fn pin(&self, path: &Path) -> Result<(), Error> {
        bpf::object_pin(self.fd.as_fd(), &c_path(path)?)
    }

    fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let entries = bpf::map_entries(fd.as_fd())?.ok_or_else(|| Error::code(Step::Map, libc::EINVAL))?;
        Ok(Self { fd, entries })
    }

    /// Queues that it has places for.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    /// Frames of `queue` go to `socket` from now on. The entry goes with the socket.
    ///
    /// # Errors
    /// A queue beyond the map (E2BIG).
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        bpf::map_update(self.fd.as_fd(), queue, socket.as_raw_fd() as u32)
    }

    /// Frames of `queue` go to no socket.
    ///
    /// # Errors
    /// There was none.
    pub fn remove(&self, queue: u32) -> Result<(), Error> {
        bpf::map_delete(self.fd.as_fd(), queue)
    }
}

fn c_path(path: &Path) -> Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::code(Step::Map, libc::ENOENT))
}

/// The attached program. It stays so as long as this or another holder of its link lives.
#[derive(Debug)]
pub struct Program {
    _link: OwnedFd,
    map: XskMap,
    mode: Option<Mode>,
}

impl Program {
    /// Attaches a new program with a map of `queues` places; without a mode the native one is tried first. Where one of ours with the same
    /// filter is attached already, joins it ([`Program::mode`] is not known then).
    ///
    /// # Errors
    /// Another program is attached (EBUSY), no native XDP (EOPNOTSUPP) where it is asked for, no permission, no such interface.
    pub fn attach(ifindex: u32, mode: Option<Mode>, filter: &Filter, queues: u32) -> Result<Self, Error> {
        let map = XskMap::create(queues)?;
        let program = load(&map, filter)?;
        let wanted = mode.map_or(&[Mode::Native, Mode::Generic][..], |mode| match mode {
            Mode::Native => &[Mode::Native],
            Mode::Generic => &[Mode::Generic],
        });
        let mut failure = Error::code(Step::Attach, libc::EINVAL);
        for &mode in wanted {
            match bpf::link_create(program.as_fd(), ifindex, mode.flags()) {
                Ok(link) => return Ok(Self { _link: link, map, mode: Some(mode) }),
                Err(error) if matches!(error.errno(), libc::EBUSY | libc::EEXIST) => {
                    return join(ifindex, program.as_fd())?.ok_or(error);
                }
                // The first mode's answer says more.
                Err(error) if mode == wanted.first().copied().unwrap_or(mode) => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// The map of its sockets.
    #[must_use]
    pub const fn map(&self) -> &XskMap {
        &self.map
    }

    /// Where it runs; not known of one that was joined.
    #[must_use]
    pub const fn mode(&self) -> Option<Mode> {
        self.mode
    }
}

/// The number of the program that is attached to an interface, if any.
///
/// # Errors
/// No such interface.
pub fn attached(ifindex: u32) -> Result<Option<u32>, Error> {
    query::program(ifindex)
}

/// Joins the program that is attached to the interface, if it does the same as `like`.
fn join(ifindex: u32, like: BorrowedFd<'_>) -> Result<Option<Program>, Error> {
    let Some(id) = query::program(ifindex)? else { return Ok(None) };
    let (Ok(theirs), ours) = (bpf::program_by_id(id), bpf::program_info(like)?) else { return Ok(None) };
    let known = bpf::program_info(theirs.as_fd())?;
    if (known.name, known.tag) != (ours.name, ours.tag) {
        return Ok(None);
    }
    let Some(link) = bpf::link_of(id, ifindex)? else { return Ok(None) };
    let map = XskMap::from_fd(bpf::map_by_id(known.map)?)?;
    Ok(Some(Program { _link: link, map, mode: None }))
}

fn load(map: &XskMap, filter: &Filter) -> Result<OwnedFd, Error> {
    let code = asm::redirect(map.fd.as_raw_fd(), filter);
    // Kernels before 5.18 know no frames in several buffers.
    bpf::load(&code, bpf::HAS_FRAGS, NAME).or_else(|error| match error.errno() {
        libc::EINVAL => bpf::load(&code, 0, NAME),
        _ => Err(error),
    })
}

/// What the program does with a frame that comes by queue 0: true when it goes to the socket there (or would, were there one in the map).
///
/// # Errors
/// No permission, or a frame shorter than an Ethernet header.
pub fn would_redirect(map: &XskMap, filter: &Filter, frame: &[u8]) -> Result<bool, Error> {
    let program = load(map, filter)?;
    match bpf::test_run(program.as_fd(), frame)? {
        REDIRECT => Ok(true),
        PASS => Ok(false),
        _ => Err(Error::code(Step::Query, libc::EINVAL)),
    }
}
