//! Our own session is the other side; a real back-end's handler drives it in `tests/vhost_backend.rs`.

use super::{Frontend, Heard};
use crate::backend::driver::{Opened, Shape, choose, open};
use crate::backend::nic::NetFeatures;
use crate::vhost::testing::{Bench, Noted, Told};
use crate::vhost::{Message, ProtocolError, Reader, Reply};
use crate::virtq::{F_RING_PACKED, F_VERSION_1, Position};
use nix::sys::eventfd::EventFd;
use std::sync::Arc;
use vhost::vhost_user::message::FrontendReq as Kind;

mod passt;

const OFFERS: u64 = F_VERSION_1 | F_RING_PACKED | NetFeatures::MRG_RXBUF | NetFeatures::MQ;

fn message(reader: &mut Reader, Reply { bytes, fd }: Reply) -> Message {
    reader.feed(&bytes, fd.into_iter().collect());
    reader.next().expect("a whole message").expect("of this protocol")
}

fn opened(features: u64, pairs: u16) -> Opened {
    let wake = Arc::new(EventFd::new().unwrap().into());
    open(&Shape::new(features, pairs), false, &wake, None).unwrap()
}

/// Says to the session what the front-end says, until something is heard or nothing is left to say.
fn talk(front: &mut Frontend, back: &mut Bench) -> Option<Heard> {
    let (mut requests, mut answers) = (Reader::new(), Reader::of_answers());
    while let Some(request) = front.request().unwrap() {
        let request = message(&mut requests, request);
        if let Some(answer) = back.raw(request).unwrap() {
            let heard = front.answer(&message(&mut answers, answer)).unwrap();
            if heard.is_some() {
                return heard;
            }
        }
    }
    None
}

#[test]
fn a_session_runs_all_rings_of_a_front_end() {
    for (pairs, packed) in [(1, false), (1, true), (3, false), (3, true)] {
        let offers = if packed { OFFERS } else { OFFERS & !F_RING_PACKED };
        let mut back = Bench::new(Noted::new(offers, 4));
        let mut front = Frontend::new();
        let Some(Heard::Offer { features, pairs: most }) = talk(&mut front, &mut back) else {
            panic!("an offer")
        };
        assert_eq!(most, 4);
        let features = choose(features, pairs);
        assert_eq!(features & F_RING_PACKED != 0, packed);
        let Opened { rings, region, file, .. } = opened(features, pairs);
        front.set_up(features, &region, file, &rings, None);
        assert_eq!(talk(&mut front, &mut back), Some(Heard::Ready));
        assert!(front.request().unwrap().is_none());
        assert_eq!(back.session.features(), Some(features));
        for (at, ring) in rings.iter().enumerate() {
            assert!(back.session.running(at));
            let theirs = &back.device.running[&at];
            assert_eq!((theirs.size, theirs.position), (ring.size, Position::START));
            assert_eq!(
                theirs.memory.guest_of(theirs.desc.as_ptr()),
                ring.memory.guest_of(ring.desc.as_ptr())
            );
            assert_eq!(
                theirs.memory.guest_of(theirs.used.as_ptr()),
                ring.memory.guest_of(ring.used.as_ptr())
            );
            assert!(theirs.kick.is_some() && theirs.call.is_some());
        }
        let started = back.device.news().into_iter().filter(|told| matches!(told, Told::Start(..)));
        assert_eq!(started.count(), 2 * usize::from(pairs));
    }
}

#[test]
fn the_link_state_is_read_at_first_and_when_the_back_end_says_that_it_changed() {
    let mut back = Bench::new(Noted::new(F_VERSION_1 | NetFeatures::STATUS, 1));
    let mut front = Frontend::new();
    let Some(Heard::Offer { features, .. }) = talk(&mut front, &mut back) else { panic!("an offer") };
    let features = choose(features, 1);
    let Opened { rings, region, file, .. } = opened(features, 1);
    let channel: std::os::fd::OwnedFd = EventFd::new().unwrap().into();
    front.set_up(features, &region, file, &rings, Some(channel));
    assert_eq!(talk(&mut front, &mut back), Some(Heard::Link(true)));
    assert_eq!(talk(&mut front, &mut back), Some(Heard::Ready));
    assert!(back.session.hears_of_config());
    let mut reader = Reader::new();
    reader.feed(&crate::vhost::config_changed(), vec![]);
    let change = reader.next().unwrap().unwrap();
    assert!(front.wish(&change).is_none());
    assert_eq!(talk(&mut front, &mut back), Some(Heard::Link(true)));
    // An answer is given where one is asked for, also to what is not known here.
    let asks = |request| Message { request, need_reply: true, payload: vec![], fds: vec![] };
    let said = |reply: Option<Reply>| reply.map(|reply| reply.bytes[12..].to_vec());
    assert_eq!(said(front.wish(&asks(2))), Some(0u64.to_ne_bytes().to_vec()));
    assert_eq!(said(front.wish(&asks(99))), Some(1u64.to_ne_bytes().to_vec()));
    // Down, and a back-end without the space.
    for (payload, up) in [(vec![0; 20], false), (vec![], true)] {
        front.request().unwrap().expect("GET_CONFIG");
        let answer = Message { request: Kind::GET_CONFIG.into(), need_reply: false, payload, fds: vec![] };
        assert_eq!(front.answer(&answer), Ok(Some(Heard::Link(up))));
        front.wish(&asks(2));
    }
}

/// The number of the request and its answer.
fn answer(kind: Kind, value: u64) -> Message {
    Message { request: kind.into(), need_reply: false, payload: value.to_ne_bytes().into(), fds: vec![] }
}

#[test]
fn a_back_end_without_protocol_features_is_told_of_its_rings_too() {
    let mut front = Frontend::new();
    assert!(front.request().unwrap().is_some());
    assert!(front.request().unwrap().is_none(), "one request at a time");
    let heard = front.answer(&answer(Kind::GET_FEATURES, F_VERSION_1)).unwrap();
    assert_eq!(heard, Some(Heard::Offer { features: F_VERSION_1, pairs: 1 }));
    let Opened { rings, region, file, .. } = opened(F_VERSION_1, 1);
    front.set_up(F_VERSION_1, &region, file, &rings, None);
    let mut said = Vec::new();
    while let Some(request) = front.request().unwrap() {
        let mut reader = Reader::new();
        said.push(message(&mut reader, request).request);
    }
    let ring = [
        Kind::SET_VRING_CALL,
        Kind::SET_VRING_NUM,
        Kind::SET_VRING_BASE,
        Kind::SET_VRING_ADDR,
        Kind::SET_VRING_KICK,
    ];
    let first = [Kind::SET_OWNER, Kind::SET_FEATURES, Kind::SET_MEM_TABLE];
    let all = first.into_iter().chain(ring).chain(ring).chain([Kind::GET_FEATURES]);
    assert_eq!(said, all.map(u32::from).collect::<Vec<_>>());
    assert_eq!(front.answer(&answer(Kind::GET_FEATURES, F_VERSION_1)).unwrap(), Some(Heard::Ready));
}

#[test]
fn answers_that_belong_to_no_question_or_say_no_end_the_connection() {
    let mut front = Frontend::new();
    assert_eq!(
        front.answer(&answer(Kind::GET_FEATURES, 0)),
        Err(ProtocolError::Unasked(1)),
        "before it was sent"
    );
    let mut front = Frontend::new();
    front.request().unwrap();
    assert_eq!(front.answer(&answer(Kind::GET_STATUS, 0)), Err(ProtocolError::Unasked(40)));
    let mut front = Frontend::new();
    front.request().unwrap();
    let short = Message { payload: vec![0; 4], ..answer(Kind::GET_FEATURES, 0) };
    let size = ProtocolError::Size { request: Kind::GET_FEATURES, size: 4, wanted: 8 };
    assert_eq!(front.answer(&short), Err(size));
    // A session that runs no ring of 256 entries says so.
    let mut back = Bench::new(Noted { broken: Some(1), ..Noted::new(OFFERS, 1) });
    let mut front = Frontend::new();
    assert!(talk(&mut front, &mut back).is_some());
    let Opened { rings, region, file, .. } = opened(F_VERSION_1, 1);
    front.set_up(F_VERSION_1, &region, file, &rings, None);
    let (mut requests, mut answers) = (Reader::new(), Reader::of_answers());
    let refused = loop {
        let Some(request) = front.request().unwrap() else { panic!("it is refused") };
        if let Some(reply) = back.raw(message(&mut requests, request)).unwrap()
            && let Err(error) = front.answer(&message(&mut answers, reply))
        {
            break error;
        }
    };
    assert_eq!(refused, ProtocolError::Refused(Kind::SET_VRING_ENABLE));
}
