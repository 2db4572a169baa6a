//! The order in which QEMU speaks, and what is agreed on.

use super::*;
use crate::vhost::F_LOG_ALL;

#[test]
fn a_vmm_connects_starts_its_guest_stops_it_and_goes() {
    let mut bench = Bench::new(Noted::new(F_VERSION_1, 1));
    // QEMU, when its socket connects: the monitor waits for these answers.
    assert_eq!(bench.ask(Kind::GET_FEATURES), F_VERSION_1 | F_PROTOCOL_FEATURES | F_LOG_ALL);
    assert_eq!(bench.ask(Kind::GET_PROTOCOL_FEATURES), PROTOCOL_FEATURES);
    bench.number(Kind::SET_PROTOCOL_FEATURES, PROTOCOL_FEATURES).unwrap();
    assert_eq!(bench.ask(Kind::GET_QUEUE_NUM), 1);
    bench.say(Kind::SET_BACKEND_REQ_FD, &[], vec![event()]).unwrap();
    assert!(bench.session.hears_of_config());
    assert_eq!(bench.ask(Kind::GET_MAX_MEM_SLOTS), 509);
    bench.say(Kind::SET_OWNER, &[], vec![]).unwrap();
    bench.ask(Kind::GET_FEATURES);
    for at in 0..2 {
        bench.file(Kind::SET_VRING_CALL, at);
        bench.file(Kind::SET_VRING_ERR, at);
    }
    bench.enable(0);
    bench.enable(1);
    assert_eq!(bench.device.news(), []);
    // The guest's driver is ready.
    bench.number(Kind::SET_FEATURES, F_VERSION_1 | F_PROTOCOL_FEATURES).unwrap();
    assert_eq!(bench.session.features(), Some(F_VERSION_1));
    assert_eq!(bench.acknowledged(Kind::SET_MEM_TABLE, &table(&[region()]), vec![memory("guest", BYTES)]), 0);
    for at in 0..2 {
        bench.ring(Kind::SET_VRING_NUM, at, 16).unwrap();
        bench.ring(Kind::SET_VRING_BASE, at, 0).unwrap();
        bench.say(Kind::SET_VRING_ADDR, &addresses(at, 0, parts(at), 0), vec![]).unwrap();
        bench.file(Kind::SET_VRING_KICK, at);
        bench.file(Kind::SET_VRING_CALL, at);
    }
    assert_eq!(bench.ask(Kind::GET_STATUS), 0);
    bench.number(Kind::SET_STATUS, 15).unwrap();
    assert_eq!(bench.ask(Kind::GET_STATUS), 15);
    let start = |at| [Told::Start(at, START), Told::Stop(at), Told::Start(at, START)];
    let mut told = vec![Told::Features(F_VERSION_1)];
    told.extend(start(0).into_iter().chain(start(1)));
    told.push(Told::Status(15));
    assert_eq!(bench.device.news(), told);
    assert!(bench.session.running(0) && bench.session.running(1));
    let config = &bench.device.running[&1];
    assert!(config.size == 16 && config.features == F_VERSION_1 && config.used_log.is_none());
    assert!(config.kick.is_some() && config.call.is_some() && config.err.is_some());
    // The guest stops, and later the VMM goes.
    bench.device.steps = 9;
    assert_eq!((bench.base(0), bench.base(1)), (9, 9));
    bench.number(Kind::SET_STATUS, 0).unwrap();
    assert_eq!(bench.device.news(), [Told::Stop(0), Told::Stop(1), Told::Status(0)]);
    bench.session.end(&mut bench.device);
    assert_eq!(bench.device.news(), []);
}

#[test]
fn a_vmm_that_goes_without_a_word_leaves_no_ring_running() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    bench.kick(2);
    bench.enable(2);
    bench.device.news();
    let memory = std::sync::Arc::downgrade(bench.session.memory().unwrap());
    bench.session.end(&mut bench.device);
    assert_eq!(bench.device.news(), [Told::Stop(0), Told::Stop(2)]);
    assert!(memory.upgrade().is_none(), "its memory is still mapped");
    assert!(bench.session.ended());
    assert_eq!(bench.say(Kind::GET_FEATURES, &[], vec![]).unwrap_err(), ProtocolError::Ended);
}

#[test]
fn only_what_was_offered_can_be_accepted() {
    let mut bench = Bench::new(Noted::new(F_VERSION_1, 1));
    let error = bench.number(Kind::SET_FEATURES, F_VERSION_1 | 1 << 5).unwrap_err();
    assert_eq!(error, ProtocolError::Features(1 << 5));
    assert!(bench.session.ended());
    let mut bench = Bench::new(Noted::new(F_VERSION_1, 1));
    let error = bench.number(Kind::SET_PROTOCOL_FEATURES, 1 << 8 | 1).unwrap_err();
    assert_eq!(error, ProtocolError::ProtocolFeatures(1 << 8));
}

#[test]
fn what_was_shown_can_be_accepted_after_the_offer_shrank() {
    let mut bench = Bench::new(Noted::new(F_VERSION_1 | 1, 1));
    bench.ask(Kind::GET_FEATURES);
    bench.device.offers = F_VERSION_1;
    bench.number(Kind::SET_FEATURES, F_VERSION_1 | 1).unwrap();
    assert_eq!(bench.device.news(), [Told::Features(F_VERSION_1 | 1)]);
}

#[test]
fn a_refusal_is_answered_where_an_answer_was_asked_for_and_the_session_goes_on() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    assert_eq!(bench.acknowledged(Kind::NET_SET_MTU, &longs(&[1500]), vec![]), 0);
    assert_eq!(bench.session.refused(), None);
    assert_eq!(bench.acknowledged(Kind::NET_SET_MTU, &longs(&[67]), vec![]), 1);
    let reason = ProtocolError::Value { request: Kind::NET_SET_MTU, value: 67 };
    assert_eq!((bench.session.refused(), bench.session.refused()), (Some(reason), None));
    // Neither number nor feature is known: still an answer.
    for kind in [Kind::POSTCOPY_LISTEN, Kind::IOTLB_MSG, Kind::SET_VRING_ENDIAN, Kind::VRING_KICK] {
        assert_eq!(bench.acknowledged(kind, &[], vec![]), 1);
        assert_eq!(bench.session.refused(), Some(ProtocolError::NotOffered(kind)));
    }
    let unknown = Message { request: 999, need_reply: true, payload: vec![], fds: vec![] };
    assert!(bench.raw(unknown).unwrap().is_some());
    assert_eq!(bench.session.refused(), Some(ProtocolError::Unknown(999)));
    assert_eq!(bench.device.news(), [Told::Mtu(1500)]);
    assert!(bench.session.running(0));
}

#[test]
fn an_answer_is_given_only_where_answers_were_agreed_on() {
    let mut bench = Bench::new(Noted::new(F_VERSION_1, 1));
    let ask = |kind, value: u64| Message {
        need_reply: true,
        ..crate::vhost::testing::message(kind, &longs(&[value]), vec![])
    };
    assert!(bench.raw(ask(Kind::SET_FEATURES, 0)).unwrap().is_none());
    // The message that agrees on answers is the first to be answered.
    assert!(bench.raw(ask(Kind::SET_PROTOCOL_FEATURES, PROTOCOL_FEATURES)).unwrap().is_some());
    assert!(bench.raw(ask(Kind::SET_FEATURES, 0)).unwrap().is_some());
    // One with an answer of its own has just that one, and no way to say no.
    let reply = bench
        .raw(Message { need_reply: true, ..crate::vhost::testing::message(Kind::GET_FEATURES, &[], vec![]) });
    assert_eq!(reply.unwrap().unwrap().bytes.len(), 20);
    let error = bench.raw(ask(Kind::GET_VRING_BASE, 77)).unwrap_err();
    assert!(matches!(error, ProtocolError::NoRing { ring: 77, rings: 2, .. }), "{error}");
}

#[test]
fn a_message_of_a_protocol_feature_needs_that_feature() {
    let gated = [
        Kind::SET_LOG_BASE,
        Kind::SEND_RARP,
        Kind::NET_SET_MTU,
        Kind::SET_BACKEND_REQ_FD,
        Kind::GET_CONFIG,
        Kind::SET_CONFIG,
        Kind::GET_INFLIGHT_FD,
        Kind::SET_INFLIGHT_FD,
        Kind::RESET_DEVICE,
        Kind::GET_MAX_MEM_SLOTS,
        Kind::ADD_MEM_REG,
        Kind::REM_MEM_REG,
        Kind::SET_STATUS,
        Kind::GET_STATUS,
    ];
    for kind in gated {
        let mut bench = Bench::new(Noted::new(F_VERSION_1, 1));
        bench.number(Kind::SET_PROTOCOL_FEATURES, 1).unwrap();
        assert_eq!(bench.say(kind, &[], vec![]).unwrap_err(), ProtocolError::NotAgreed(kind));
    }
}

#[test]
fn more_rings_than_messages_can_name_are_not_offered() {
    let mut bench = Bench::new(Noted::new(F_VERSION_1, 256));
    assert_eq!(bench.ask(Kind::GET_QUEUE_NUM), 128);
    bench.ring(Kind::SET_VRING_NUM, 255, 16).unwrap();
    let error = bench.ring(Kind::SET_VRING_NUM, 256, 16).unwrap_err();
    assert_eq!(error, ProtocolError::NoRing { request: Kind::SET_VRING_NUM, ring: 256, rings: 256 });
}
