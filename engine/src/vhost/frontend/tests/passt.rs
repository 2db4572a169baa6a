//! passt as of January 2025 (passt.top, `vhost_user.c`), played after its rules: it ends the process where these are not kept.

use super::{answer, message, opened};
use crate::backend::driver::{Opened, choose};
use crate::backend::nic::NetFeatures;
use crate::vhost::frontend::{Frontend, Heard};
use crate::vhost::{Message, Reader};
use crate::virtq::F_VERSION_1;
use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::FrontendReq as Kind;

const F_PROTOCOL_FEATURES: u64 = 1 << 30;
const OFFERS: u64 = F_VERSION_1 | NetFeatures::MRG_RXBUF | F_PROTOCOL_FEATURES;

/// What passt knows of its two rings: the receiving one, and the transmitting one.
#[derive(Default)]
struct Passt {
    features: u64,
    memory: bool,
    sized: [bool; 2],
    addressed: [bool; 2],
    called: [bool; 2],
    kicked: [bool; 2],
    enabled: [bool; 2],
}

impl Passt {
    /// Handles a message; its answer, if it has one.
    fn handle(&mut self, said: &Message) -> Option<u64> {
        let word = |at: usize| u32::from_ne_bytes(said.payload[at..at + 4].try_into().unwrap());
        let number = || u64::from_ne_bytes(said.payload[..8].try_into().unwrap());
        let ring = || usize::try_from(word(0) & 0xff).unwrap();
        let kind = |kind: Kind| said.request == u32::from(kind);
        if kind(Kind::GET_FEATURES) {
            return Some(OFFERS);
        }
        if kind(Kind::GET_PROTOCOL_FEATURES) {
            return Some(Protocol::REPLY_ACK.bits());
        }
        if kind(Kind::SET_FEATURES) {
            self.features = number();
            assert_eq!(self.features & F_VERSION_1, F_VERSION_1, "legacy devices are not supported");
        } else if kind(Kind::SET_PROTOCOL_FEATURES) {
            assert_eq!(number(), Protocol::REPLY_ACK.bits());
        } else if kind(Kind::SET_MEM_TABLE) {
            assert!(said.fds.len() == 1 && word(0) == 1);
            self.memory = true;
        } else if kind(Kind::SET_VRING_NUM) {
            self.sized[ring()] = true;
        } else if kind(Kind::SET_VRING_BASE) {
            assert_eq!(word(4), 0);
        } else if kind(Kind::SET_VRING_ADDR) {
            // It looks the addresses up, and reads where the used ring stands.
            assert!(self.memory, "addresses before the memory are invalid");
            self.addressed[ring()] = true;
        } else if kind(Kind::SET_VRING_KICK) || kind(Kind::SET_VRING_CALL) {
            assert!(said.fds.len() == 1 && number() < 2, "a file for a ring that it has");
            let files = if kind(Kind::SET_VRING_KICK) { &mut self.kicked } else { &mut self.called };
            files[ring()] = true;
        } else if kind(Kind::SET_VRING_ENABLE) {
            self.enabled[ring()] = word(4) == 1;
        } else {
            assert!(kind(Kind::SET_OWNER), "unhandled request {}", said.request);
        }
        said.need_reply.then_some(0)
    }
}

#[test]
fn passt_is_asked_for_nothing_that_it_does_not_know_and_has_all_that_it_needs() {
    let (mut front, mut passt) = (Frontend::new(), Passt::default());
    let talk = |front: &mut Frontend, passt: &mut Passt| {
        let mut requests = Reader::new();
        while let Some(request) = front.request().unwrap() {
            let said = message(&mut requests, request);
            let Some(number) = passt.handle(&said) else { continue };
            let kind = Kind::try_from(said.request).unwrap();
            if let Some(heard) = front.answer(&answer(kind, number)).unwrap() {
                return Some(heard);
            }
        }
        None
    };
    let offer = Heard::Offer { features: F_VERSION_1 | NetFeatures::MRG_RXBUF, pairs: 1 };
    assert_eq!(talk(&mut front, &mut passt), Some(offer));
    // Among others no ring indices that ask for notifications: it waits for each kick.
    let features = choose(OFFERS & !F_PROTOCOL_FEATURES, 1);
    assert_eq!(features, F_VERSION_1 | NetFeatures::MRG_RXBUF);
    let Opened { rings, region, file, .. } = opened(features, 1);
    front.set_up(features, &region, file, &rings, None);
    assert_eq!(talk(&mut front, &mut passt), Some(Heard::Ready));
    assert_eq!(passt.features, OFFERS);
    let Passt { sized, addressed, called, kicked, enabled, .. } = passt;
    assert_eq!([sized, addressed, called, kicked, enabled], [[true; 2]; 5]);
}
