//! Sessions: the right order, every message right and wrong, and what rings do meanwhile.

mod bad;
mod handshake;
mod memory;
mod rings;
mod wishes;

use super::*;
use crate::mem::guest::Region;
use crate::vhost::testing::{Bench, Noted, Told, addresses, longs, memory, table, words};
use crate::vhost::{F_PROTOCOL_FEATURES, PROTOCOL_FEATURES};
use crate::virtq::{F_RING_PACKED, F_VERSION_1, Position};
use nix::sys::eventfd::EventFd;
use nix::sys::uio::pwrite;
use vhost::vhost_user::message::FrontendReq as Kind;

/// Where the guest's memory lies.
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f12_3456_0000;
const BYTES: u64 = 0x1_0000;
/// Where ring 0 lies in it; the next ones follow.
const DESC: u64 = USER + 0x1000;
const RING_STEP: u64 = 0x1000;
/// A ring that was never used.
const START: Position = Position::START;

fn event() -> OwnedFd {
    EventFd::new().unwrap().into()
}

fn region() -> Region {
    Region { guest: GUEST, user: USER, size: BYTES, offset: 0 }
}

/// Descriptors, available and used ring of ring `at`, of 16 entries.
fn parts(at: u32) -> [u64; 3] {
    let desc = DESC + u64::from(at) * RING_STEP;
    [desc, desc + 0x400, desc + 0x800]
}

fn stands(at: u16) -> Position {
    Position { avail: at, used: at, ..START }
}

impl Bench {
    /// A front-end that accepted `features` and every protocol feature, and shared memory, which is returned.
    fn ready(features: u64) -> (Self, OwnedFd) {
        let mut bench = Self::new(Noted::new(F_VERSION_1 | F_RING_PACKED, 2));
        bench.number(Kind::SET_PROTOCOL_FEATURES, PROTOCOL_FEATURES).unwrap();
        bench.number(Kind::SET_FEATURES, features | F_PROTOCOL_FEATURES).unwrap();
        let file = memory("guest", BYTES);
        bench.say(Kind::SET_MEM_TABLE, &table(&[region()]), vec![file.try_clone().unwrap()]).unwrap();
        bench.device.news();
        (bench, file)
    }

    /// Says all of a ring that there is to say, but for SET_VRING_ENABLE.
    fn kick(&mut self, at: u32) {
        self.ring(Kind::SET_VRING_NUM, at, 16).unwrap();
        self.say(Kind::SET_VRING_ADDR, &addresses(at, 0, parts(at), 0), vec![]).unwrap();
        self.file(Kind::SET_VRING_CALL, at);
        self.file(Kind::SET_VRING_KICK, at);
    }

    fn file(&mut self, kind: Kind, at: u32) {
        self.say(kind, &longs(&[at.into()]), vec![event()]).unwrap();
    }

    fn enable(&mut self, at: u32) {
        self.ring(Kind::SET_VRING_ENABLE, at, 1).unwrap();
    }

    /// A session with ring 0 running, and the guest's memory.
    fn running(features: u64) -> (Self, OwnedFd) {
        let (mut bench, file) = Self::ready(features);
        bench.kick(0);
        bench.enable(0);
        assert_eq!(bench.device.news(), [Told::Start(0, START)]);
        (bench, file)
    }

    /// Stops a ring and says where it stood.
    fn base(&mut self, at: u32) -> u32 {
        let answer = self.ring(Kind::GET_VRING_BASE, at, 0).unwrap().unwrap();
        assert_eq!(answer[..4], at.to_ne_bytes());
        u32::from_ne_bytes(answer[4..].try_into().unwrap())
    }
}
