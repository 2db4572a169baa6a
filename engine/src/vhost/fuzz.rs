//! A session fed with anything.

use super::testing::{Noted, addresses, entry, longs, memory, table, words};
use super::{Reader, Session};
use crate::mem::guest::Region;
use crate::virtq::{F_EVENT_IDX, F_RING_PACKED, F_VERSION_1};
use nix::sys::eventfd::EventFd;
use nix::unistd::pipe;
use std::os::fd::OwnedFd;
use vhost::vhost_user::message::FrontendReq;

/// What the device of such a session offers.
const OFFERS: u64 = F_VERSION_1 | F_RING_PACKED | F_EVENT_IDX;
/// Guest and user address, and bytes, of the memory that well-formed messages describe.
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;
const BYTES: u64 = 0x1_0000;
/// Messages of one run at most.
const MESSAGES: usize = 64;

/// Bytes that run out: then they are zero.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let byte = self.0.first().copied().unwrap_or_default();
        self.0 = self.0.get(1..).unwrap_or_default();
        byte
    }

    fn word(&mut self) -> u32 {
        u32::from_ne_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }
}

/// Drives a session with messages made from `data`: whole and right ones, damaged ones, in any order, in any pieces. Memory
/// that it shares is named `name`.
///
/// # Panics
/// The session told its device to do what makes no sense, or left a ring running.
pub(super) fn fuzz_named(data: &[u8], name: &str) {
    let mut data = Bytes(data);
    let mut device = Noted::new(OFFERS, 2);
    device.steps = u16::from(data.byte() % 3);
    device.broken = Some(usize::from(data.byte())).filter(|ring| *ring < 2);
    let mut session = Session::new(&device);
    let mut reader = Reader::new();
    for _ in 0..MESSAGES {
        if data.0.is_empty() || session.ended() {
            break;
        }
        let (bytes, mut fds) = stream(&mut data, name);
        let pieces = bytes.chunks(1 + usize::from(data.byte()));
        for piece in pieces {
            let want = reader.want();
            reader.feed(piece, std::mem::take(&mut fds));
            assert!(want > 0, "a whole message was left behind");
            while let Some(message) = reader.next() {
                let Ok(message) = message else { break };
                // Refused or not: the device checks what it is told.
                let _ = session.handle(message, &mut device);
                assert_eq!(device.running.len(), (0..4).filter(|ring| session.running(*ring)).count());
            }
        }
    }
    session.end(&mut device);
    assert!(device.running.is_empty(), "rings run on: {:?}", device.running.keys());
    assert!(session.memory().is_none() && session.channel().is_none());
}

/// Drives a session with messages made from `data`.
///
/// # Panics
/// The session told its device to do what makes no sense, or left a ring running.
pub fn fuzz_session(data: &[u8]) {
    fuzz_named(data, "fuzz");
}

/// One message as bytes and files, most often a right one.
fn stream(data: &mut Bytes<'_>, name: &str) -> (Vec<u8>, Vec<OwnedFd>) {
    let request = u32::from(data.byte() % 46);
    let shape = data.byte();
    let (mut payload, mut fds) = body(request, data, name);
    // Most ask for an answer: without one the first error is the end.
    let mut flags = if shape >> 5 == 0 { 1 } else { 9 };
    match shape & 31 {
        0 => payload.truncate(usize::from(data.byte())),
        1 => payload.extend_from_slice(&data.word().to_ne_bytes()),
        2 => fds.clear(),
        3 => fds.extend(pipe().into_iter().map(|(_, write)| write)),
        4 => fds.extend((0..data.byte() % 12).filter_map(|_| pipe().ok()).map(|(_, write)| write)),
        5 => flags = data.word(),
        6..=11 => {
            let at = usize::from(data.byte());
            let with = data.byte();
            payload.get_mut(at).into_iter().for_each(|byte| *byte ^= with);
        }
        _ => {}
    }
    let mut size = payload.len() as u32;
    if shape == 0xff {
        size = data.word();
    }
    ([words(&[request, flags, size]), payload].concat(), fds)
}

/// The payload that a message should have, and its files.
fn body(request: u32, data: &mut Bytes<'_>, name: &str) -> (Vec<u8>, Vec<OwnedFd>) {
    type Kind = FrontendReq;
    let ring = u32::from(data.byte() % 5);
    let region =
        |at: u64| Region { guest: GUEST + at * BYTES, user: USER + at * BYTES, size: BYTES, offset: 0 };
    let file = || vec![memory(name, BYTES)];
    let event = || EventFd::new().into_iter().map(OwnedFd::from).collect();
    let payload = match FrontendReq::try_from(request) {
        Ok(Kind::SET_FEATURES) => {
            let all = [1 << 30, 1 << 30 | OFFERS, OFFERS, 1 << 26 | 1 << 30, F_VERSION_1, 0];
            longs(&[all.get(usize::from(data.byte())).copied().unwrap_or(1 << 30 | F_VERSION_1)])
        }
        Ok(Kind::SET_PROTOCOL_FEATURES) => longs(&[super::PROTOCOL_FEATURES]),
        Ok(Kind::SET_MEM_TABLE) => {
            let count = u64::from(data.byte() % 4);
            let regions: Vec<_> = (0..count).map(region).collect();
            return (table(&regions), regions.iter().flat_map(|_| file()).collect());
        }
        Ok(Kind::ADD_MEM_REG) => {
            return ([longs(&[0]), entry(&region(u64::from(data.byte() % 4)))].concat(), file());
        }
        Ok(Kind::REM_MEM_REG) => [longs(&[0]), entry(&region(u64::from(data.byte() % 4)))].concat(),
        Ok(Kind::SET_LOG_BASE) => return (longs(&[64, 0]), file()),
        Ok(Kind::SET_VRING_NUM) => words(&[ring, 1 << (data.byte() % 17)]),
        Ok(Kind::SET_VRING_ADDR) => {
            let from = USER + u64::from(data.byte() % 32) * 0x1000;
            addresses(ring, u32::from(data.byte() & 1), [from, from + 0x400, from + 0x800], GUEST + 0x800)
        }
        Ok(Kind::SET_VRING_BASE) => words(&[ring, data.word() & 0x800f_800f]),
        Ok(Kind::GET_VRING_BASE) => words(&[ring, 0]),
        Ok(Kind::SET_VRING_ENABLE) => words(&[ring, u32::from(data.byte() & 3 != 0)]),
        Ok(Kind::SET_VRING_KICK | Kind::SET_VRING_CALL | Kind::SET_VRING_ERR) => {
            let poll = data.byte() & 7 == 0;
            let value = u64::from(ring) | if poll { 0x100 } else { 0 };
            return (longs(&[value]), if poll { vec![] } else { event() });
        }
        Ok(Kind::SET_BACKEND_REQ_FD | Kind::SET_LOG_FD) => return (vec![], event()),
        Ok(Kind::SEND_RARP) => longs(&[data.word().into()]),
        Ok(Kind::NET_SET_MTU) => longs(&[(data.word() >> 12).into()]),
        Ok(Kind::SET_STATUS) => longs(&[(data.byte() & 15).into()]),
        Ok(Kind::GET_CONFIG | Kind::SET_CONFIG) => {
            let size = u32::from(data.byte() % 32);
            [words(&[u32::from(data.byte() % 32), size, u32::from(data.byte() % 3)]), vec![7; size as usize]]
                .concat()
        }
        Ok(Kind::GET_INFLIGHT_FD) => [longs(&[0, 0]), words(&[0x0100_0002, 0])].concat(),
        Ok(Kind::SET_INFLIGHT_FD) => {
            return ([longs(&[BYTES, 0]), words(&[0x0100_0002, 0])].concat(), file());
        }
        _ => vec![],
    };
    (payload, vec![])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Whether some file or mapping of this process has a name.
    fn open(name: &str) -> bool {
        let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = files.filter_map(|file| fs::read_link(file.path()).ok());
        let mapped = fs::read_to_string("/proc/self/maps").unwrap();
        links.into_iter().any(|link| link.to_string_lossy().contains(name)) || mapped.contains(name)
    }

    /// What a right front-end says to the end of the handshake, as fuzzer's input.
    const RIGHT: &[&[u8]] = &[
        &[16, 0xfe, 0, 40],
        &[2, 0xfe, 0, 1, 40],
        &[5, 0xfe, 0, 2, 90],
        &[8, 0xfe, 0, 4, 40],
        &[9, 0xfe, 0, 0, 0, 40],
        &[12, 0xfe, 0, 1, 40],
        &[18, 0xfe, 0, 1, 40],
    ];

    #[test]
    fn the_right_messages_start_a_ring() {
        let mut data = vec![0, 9];
        data.extend(RIGHT.concat());
        let mut rest = Bytes(data.get(2..).unwrap());
        let mut device = Noted::new(OFFERS, 2);
        let (mut session, mut reader) = (Session::new(&device), Reader::new());
        while !rest.0.is_empty() {
            let (bytes, fds) = stream(&mut rest, "right");
            rest.byte();
            reader.feed(&bytes, fds);
            session.handle(reader.next().unwrap().unwrap(), &mut device).unwrap();
        }
        assert!(session.running(0));
        session.end(&mut device);
        fuzz_session(&data);
    }

    #[test]
    fn whatever_comes_nothing_is_left_behind() {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let right = prop::sample::select(RIGHT).prop_map(<[u8]>::to_vec);
        let message = prop_oneof![4 => right, 3 => prop::collection::vec(any::<u8>(), 1..12)];
        let messages = prop::collection::vec(message, 0..60).prop_map(|all| all.concat());
        let input = (prop::bool::ANY, any::<[u8; 2]>(), messages).prop_map(|(handshake, head, tail)| {
            let begin = if handshake { RIGHT.concat() } else { vec![] };
            [&head[..], &begin, &tail].concat()
        });
        proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(data in input)| {
            let name = format!("fuzz-{}-end", RUN.fetch_add(1, Ordering::Relaxed));
            fuzz_named(&data, &name);
            prop_assert!(!open(&name), "memory of {name} is still there");
        });
    }
}
