use super::super::testing::*;
use super::*;
use crate::port::Caps;
use crate::wire::vnet_hdr::{F_DATA_VALID, F_NEEDS_CSUM};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_partial_checksum_becomes_the_one_on_the_wire(
        v6: bool, tcp: bool, len in 0usize..3000, cut in 1usize..3000, tags in prop::collection::vec(any::<u16>(), 0..3),
    ) {
        let flow = Flow { v6, tcp, tags, ..Flow::tcp4() };
        let whole = flow.frame(5, 6, 0x18, &bytes(len));
        let mut frame = whole.clone();
        let hdr = flow.make_partial(&mut frame);
        let cut = cut.max(frame.len().div_ceil(1000));
        prop_assert_eq!(wire(adapted(&[(hdr, frame)], cut, &Caps::NONE)), vec![whole]);
    }

    #[test]
    fn hostile_places_are_refused_or_stay_inside(start: u16, offset: u16, len in 1usize..600, cut in 1usize..600) {
        let frame = bytes(len);
        let (start, offset) = if start % 2 == 0 { (start % 300, offset % 300) } else { (start, offset) };
        let hdr = VnetHdr { flags: F_NEEDS_CSUM, csum_start: start, csum_offset: offset, ..VnetHdr::NONE };
        let frames = [(hdr, frame)];
        let burst = lend(&frames, cut);
        let (out, adapted) = adapt(&mut super::super::Offload::new(), &burst, &Caps::NONE);
        let end = usize::from(start) + usize::from(offset) + 2;
        if end > len.min(MAX_HEADERS) {
            prop_assert_eq!((adapted.drops[0].1, out.len()), (1, 0));
        } else {
            let frame = &frames[0].1;
            let want: Vec<u8> = frame[..end - 2].iter().chain(&out[0].1[end - 2..end]).chain(&frame[end..]).copied().collect();
            prop_assert_eq!(&out[0].1, &want);
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ones() {
    let flow = Flow::udp4();
    // The last word is chosen so that the sum comes to ffff.
    let mut payload = vec![0; 20];
    let whole = flow.frame(0, 0, 0, &payload);
    payload[18..].copy_from_slice(&whole[flow.l4() + 6..flow.l4() + 8]);
    let mut frame = flow.frame(0, 0, 0, &payload);
    assert_eq!(frame[flow.l4() + 6..flow.l4() + 8], [0xff, 0xff]);
    let hdr = flow.make_partial(&mut frame);
    assert_eq!(wire(adapted(&[(hdr, frame)], 11, &Caps::NONE)), [flow.frame(0, 0, 0, &payload)]);
}

#[test]
fn a_receiver_of_partial_checksums_gets_them() {
    let flow = Flow::udp6();
    let mut frame = flow.frame(0, 0, 0, &bytes(100));
    let hdr = flow.make_partial(&mut frame);
    let caps = Caps { csum: true, ..Caps::NONE };
    assert_eq!(adapted(&[(hdr, frame.clone())], 11, &caps), [(hdr, frame)]);
}

#[test]
fn a_verified_frame_is_no_work() {
    let hdr = VnetHdr { flags: F_DATA_VALID, ..VnetHdr::NONE };
    let frame = Flow::tcp4().frame(0, 0, 0, &bytes(100));
    assert_eq!(adapted(&[(hdr, frame.clone())], 64, &Caps::NONE), [(hdr, frame)]);
}
