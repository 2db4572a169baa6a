//! Guest memory that comes and goes, and the log.

use super::*;
use crate::mem::guest::MemoryError;
use crate::vhost::F_LOG_ALL;
use crate::vhost::ring::RingPart;
use crate::vhost::testing::entry;
use nix::sys::uio::pread;
use nix::unistd::ftruncate;

fn single(region: &Region) -> Vec<u8> {
    [longs(&[0]), entry(region)].concat()
}

#[test]
fn a_ring_waits_while_its_memory_is_away() {
    let (mut bench, file) = Bench::ready(F_VERSION_1);
    bench.kick(0);
    bench.enable(0);
    bench.device.news();
    bench.say(Kind::REM_MEM_REG, &single(&region()), vec![]).unwrap();
    assert_eq!(bench.device.news(), [Told::Stop(0)]);
    let waits = bench.session.waiting(0);
    assert!(
        matches!(waits, Some(ProtocolError::Outside { ring: 0, part: RingPart::Descriptors, .. })),
        "{waits:?}"
    );
    let larger = Region { size: BYTES - 4096, ..region() };
    bench.say(Kind::ADD_MEM_REG, &single(&larger), vec![file]).unwrap();
    assert_eq!(bench.device.news(), [Told::Start(0, START)]);
    assert_eq!(bench.session.waiting(0), None);
}

#[test]
fn memory_may_come_by_slots_alone() {
    let mut bench = Bench::new(Noted::new(F_VERSION_1, 1));
    bench.number(Kind::SET_PROTOCOL_FEATURES, PROTOCOL_FEATURES).unwrap();
    bench.number(Kind::SET_FEATURES, F_VERSION_1).unwrap();
    for n in 0..20 {
        let region = Region { guest: GUEST + n * BYTES, user: USER + n * BYTES, ..region() };
        bench.say(Kind::ADD_MEM_REG, &single(&region), vec![memory("slot", BYTES)]).unwrap();
    }
    bench.kick(0);
    assert_eq!(bench.device.running[&0].memory.regions().count(), 20);
}

#[test]
fn memory_that_cannot_be_is_refused_and_the_old_table_stays() {
    let (mut bench, file) = Bench::running(F_VERSION_1);
    let twice = table(&[region(), region()]);
    let files = || vec![file.try_clone().unwrap(), file.try_clone().unwrap()];
    assert_eq!(bench.acknowledged(Kind::SET_MEM_TABLE, &twice, files()), 1);
    let error = bench.session.refused();
    assert_eq!(error, Some(ProtocolError::Memory(MemoryError::Overlap(GUEST, GUEST))));
    assert_eq!(bench.acknowledged(Kind::SET_MEM_TABLE, &table(&[]), vec![]), 1);
    let error = bench.session.refused().unwrap().to_string();
    assert!(error.contains("memory-backend-memfd,share=on"), "{error}");
    let nine: Vec<Region> =
        (0..9).map(|n| Region { guest: n * BYTES, user: n * BYTES, ..region() }).collect();
    assert_eq!(bench.acknowledged(Kind::SET_MEM_TABLE, &table(&nine), files()), 1);
    assert_eq!(bench.session.refused(), Some(ProtocolError::Memory(MemoryError::Count(9))));
    let absent = single(&Region { size: 1, ..region() });
    assert_eq!(bench.acknowledged(Kind::REM_MEM_REG, &absent, vec![]), 1);
    assert_eq!(bench.acknowledged(Kind::ADD_MEM_REG, &single(&region()), vec![file]), 1);
    assert_eq!(bench.device.news(), [], "the ring ran on");
}

#[test]
fn writes_are_logged_while_features_say_so() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    let log = memory("log", 8192);
    let answer = bench.say(Kind::SET_LOG_BASE, &longs(&[4096, 4096]), vec![log.try_clone().unwrap()]);
    assert_eq!(answer.unwrap().unwrap(), longs(&[4096, 4096]));
    assert!(!bench.session.memory().unwrap().logs());
    let features = F_VERSION_1 | F_PROTOCOL_FEATURES;
    bench.number(Kind::SET_FEATURES, features | F_LOG_ALL).unwrap();
    let used = GUEST + 0x1800;
    bench.say(Kind::SET_VRING_ADDR, &addresses(0, 1, parts(0), used), vec![]).unwrap();
    bench.say(Kind::SET_LOG_FD, &[], vec![event()]).unwrap();
    assert!(bench.session.log_event().is_some());
    let config = &bench.device.running[&0];
    assert_eq!(config.used_log, Some(used));
    config.memory.mark(GUEST, 1);
    let mut byte = [0];
    pread(&log, &mut byte, 4096 + (GUEST / 4096 / 8) as i64).unwrap();
    assert_eq!(byte, [1]);
    bench.number(Kind::SET_FEATURES, features).unwrap();
    let config = &bench.device.running[&0];
    assert!(!config.memory.logs() && config.used_log.is_none());
}

#[test]
fn a_log_that_cannot_be_mapped_ends_the_session() {
    let (mut bench, _file) = Bench::running(F_VERSION_1);
    let error = bench.say(Kind::SET_LOG_BASE, &longs(&[4096, 4096]), vec![memory("log", 4096)]).unwrap_err();
    assert!(matches!(error, ProtocolError::Log(_)), "{error}");
    assert_eq!(bench.device.news(), [Told::Stop(0)]);
}

#[test]
fn memory_taken_away_is_noticed() {
    let (mut bench, file) = Bench::running(F_VERSION_1);
    assert!(!bench.session.lost());
    ftruncate(&file, 0).unwrap();
    // A ring starts by reading its used index.
    bench.ring(Kind::SET_VRING_BASE, 0, 0).unwrap();
    assert!(bench.session.lost() && bench.session.running(0));
}
