//! Configuration space, announcements, in-flight regions.

use super::*;
use nix::sys::stat::fstat;

fn config(offset: u32, size: u32, flags: u32, bytes: &[u8]) -> Vec<u8> {
    [words(&[offset, size, flags]), bytes.into()].concat()
}

#[test]
fn the_configuration_space_is_read_in_any_part() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    let space = bench.device.config().bytes();
    let mut read = |offset, size: u32, room: usize| {
        bench.say(Kind::GET_CONFIG, &config(offset, size, 0, &vec![0; room]), vec![]).unwrap().unwrap()
    };
    assert_eq!(read(0, 24, 24), config(0, 24, 0, &space));
    assert_eq!(read(6, 4, 0), config(6, 4, 0, &space[6..10]));
    assert_eq!(read(20, 8, 8), config(20, 8, 0, &[&space[20..], &[0; 4]].concat()));
    assert_eq!(read(0, 256, 256).len(), 12 + 256);
    // No answer that says no; an empty one does.
    for (offset, size) in [(0, 257), (256, 1), (u32::MAX, u32::MAX), (4, 0)] {
        assert_eq!(read(offset, size, 0), []);
    }
}

#[test]
fn a_driver_writes_its_mac_address_and_nothing_else() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    let mut write = |bytes: &[u8]| bench.acknowledged(Kind::SET_CONFIG, bytes, vec![]);
    assert_eq!(write(&config(0, 6, 0, &[2, 1, 2, 3, 4, 5])), 0);
    assert_eq!(write(&config(4, 2, 0, &[8, 9])), 0);
    assert_eq!(write(&config(6, 2, 0, &[1, 0])), 1);
    assert_eq!(write(&config(5, 2, 0, &[1, 0])), 1);
    assert_eq!(write(&config(0, 6, 2, &[0; 6])), 1);
    assert_eq!(write(&config(u32::MAX, 6, 0, &[0; 6])), 1);
    assert_eq!(write(&config(0, 6, 0, &[0; 5])), 1);
    // After a migration the guest's knowledge is taken note of.
    assert_eq!(write(&config(0, 24, 1, &[0; 24])), 0);
    assert_eq!(bench.device.news(), [Told::Mac([2, 1, 2, 3, 4, 5]), Told::Mac([2, 0, 0, 0, 8, 9])]);
}

#[test]
fn mtu_and_announcements_reach_the_device() {
    let (mut bench, _file) = Bench::ready(F_VERSION_1);
    for mtu in [68, 65535] {
        assert_eq!(bench.acknowledged(Kind::NET_SET_MTU, &longs(&[mtu]), vec![]), 0);
    }
    for mtu in [0, 67, 65536, u64::MAX] {
        assert_eq!(bench.acknowledged(Kind::NET_SET_MTU, &longs(&[mtu]), vec![]), 1);
    }
    bench.say(Kind::SEND_RARP, &[2, 3, 4, 5, 6, 7, 0, 0], vec![]).unwrap();
    assert_eq!(bench.device.news(), [Told::Mtu(68), Told::Mtu(65535), Told::Rarp([2, 3, 4, 5, 6, 7])]);
}

#[test]
fn an_in_flight_region_is_made_and_taken_back() {
    for (features, bytes) in
        [(F_VERSION_1, 2 * (16 + 256 * 16_u64)), (F_VERSION_1 | F_RING_PACKED, 2 * (32 + 256 * 32))]
    {
        let (mut bench, _file) = Bench::ready(features);
        let ask = [longs(&[0, 0]), words(&[256 << 16 | 2, 0])].concat();
        let ask = crate::vhost::testing::message(Kind::GET_INFLIGHT_FD, &ask, vec![]);
        let reply = bench.raw(ask).unwrap().unwrap();
        let (body, fd) = (&reply.bytes[12..], reply.fd.unwrap());
        assert_eq!(body.len(), 24);
        let size = u64::from_ne_bytes(body[..8].try_into().unwrap());
        assert!(size >= bytes && size.is_multiple_of(64), "{size}");
        assert_eq!(fstat(&fd).unwrap().st_size as u64, size);
        bench.say(Kind::SET_INFLIGHT_FD, body, vec![fd.try_clone().unwrap()]).unwrap();
        let region = bench.session.inflight().unwrap();
        assert_eq!((region.rings, region.entries), (2, 256));
        // One that is too small, and one that is longer than its file.
        let mut small = body.to_vec();
        small[..8].copy_from_slice(&(size / 2).to_ne_bytes());
        assert_eq!(bench.acknowledged(Kind::SET_INFLIGHT_FD, &small, vec![fd.try_clone().unwrap()]), 1);
        let mut long = body.to_vec();
        long[8..16].copy_from_slice(&64_u64.to_ne_bytes());
        assert_eq!(bench.acknowledged(Kind::SET_INFLIGHT_FD, &long, vec![fd]), 1);
    }
}

#[test]
fn an_in_flight_region_for_rings_that_cannot_be_is_refused() {
    for (rings, entries) in [(0, 256), (5, 256), (2, 0), (2, 32769)] {
        let (mut bench, _file) = Bench::ready(F_VERSION_1);
        let ask = [longs(&[0, 0]), words(&[entries << 16 | rings, 0])].concat();
        let error = bench.say(Kind::GET_INFLIGHT_FD, &ask, vec![]).unwrap_err();
        assert!(matches!(error, ProtocolError::Inflight(_)), "{error}");
    }
}
