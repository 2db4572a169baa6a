use super::*;
use proptest::prelude::*;

fn udp4() -> Vec<u8> {
    let mut f = vec![0; 12];
    f.extend([8, 0]);
    f.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, ip::UDP, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    f.extend([0, 1, 0, 2, 0, 12, 0, 0, 9, 9, 9, 9]);
    f
}

#[test]
fn a_datagram_is_walked_to_its_payload() {
    let f = udp4();
    let h = Headers::parse(&f, f.len()).unwrap();
    assert_eq!((h.net, h.transport), (Net::V4, Transport::Udp));
    assert_eq!((h.l3, h.l4, h.payload, h.end), (14, 34, 42, 46));
    assert!(h.plain && !h.fragment && !h.routed);
}

#[test]
fn padding_lies_behind_the_end() {
    let mut f = udp4();
    f.resize(60, 0);
    assert_eq!(Headers::parse(&f, 60).unwrap().end, 46);
}

#[test]
fn a_fragment_has_no_transport() {
    let mut f = udp4();
    f[20] = 0x20;
    let h = Headers::parse(&f, f.len()).unwrap();
    assert_eq!((h.transport, h.fragment, h.l4, h.payload), (Transport::Other, true, 34, 34));
}

#[test]
fn what_is_not_ip_has_only_a_start() {
    let mut f = udp4();
    f[12..14].copy_from_slice(&[8, 6]);
    let h = Headers::parse(&f, f.len()).unwrap();
    assert_eq!((h.net, h.l3, h.l4, h.end), (Net::Other, 14, 14, 46));
}

#[test]
fn a_version_unlike_the_ethertype_is_refused() {
    let mut f = udp4();
    f[14] = 0x65;
    assert_eq!(Headers::parse(&f, f.len()), Err(HeaderError::Version));
}

#[test]
fn a_cut_frame_is_an_error_at_every_length() {
    let f = udp4();
    for n in 0..42 {
        assert!(Headers::parse(&f[..n], f.len()).is_err(), "{n} bytes");
        assert!(Headers::parse(&f[..n], n).is_err(), "{n} bytes");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_offsets_stay_inside(
        mut head in prop::collection::vec(any::<u8>(), 0..MAX_HEADERS), more in 0usize..70000, kind in 0..4,
    ) {
        if let (Some(t), true) = (head.get_mut(12..14), kind > 0) {
            t.copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0]][kind as usize - 1]);
        }
        if let (Some(v), true) = (head.get_mut(14), kind == 1 || kind == 2) {
            *v = if kind == 1 { 0x45 + (*v & 3) } else { 0x60 };
        }
        let len = head.len() + more;
        if let Ok(h) = Headers::parse(&head, len) {
            prop_assert!(h.l3 <= h.l4 && h.l4 <= h.payload && h.payload <= h.end && h.end <= len);
            prop_assert!(h.payload <= head.len());
        }
    }
}
