use super::super::testing::*;
use super::*;
use crate::port::Caps;
use crate::wire::l4::ACK;
use proptest::prelude::*;

/// What a network card makes of a large TCP frame, built segment by segment.
fn tcp_oracle(flow: &Flow, size: usize, seq: u32, id: u16, flags: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let chunks: Vec<&[u8]> = payload.chunks(size).collect();
    let each = |(i, chunk): (usize, &&[u8])| {
        let mut flags = flags;
        if i > 0 {
            flags &= !CWR;
        }
        if i + 1 < chunks.len() {
            flags &= !(FIN | PSH);
        }
        flow.frame(seq.wrapping_add((i * size) as u32), id.wrapping_add(i as u16), flags, chunk)
    };
    chunks.iter().enumerate().map(each).collect()
}

fn flows() -> impl Strategy<Value = Flow> {
    let tags = prop::collection::vec(0u16..4096, 0..3);
    (any::<bool>(), any::<bool>(), tags, 0usize..4, 0usize..4, any::<u8>()).prop_map(
        |(v6, tcp, tags, options, words, tos)| Flow {
            v6,
            tcp,
            tags,
            options: options * 8,
            tcp_options: vec![1; words * 4],
            tos,
            ..Flow::tcp4()
        },
    )
}

proptest! {
    #[test]
    fn any_large_frame_becomes_what_the_oracle_builds(
        flow in flows(), size in 1u16..2000, len in 0usize..9000, cut in 7usize..5000, seq: u32, id: u16, flags in 0u16..0x200,
    ) {
        prop_assume!(len.div_ceil(size.into()) <= MAX_SEGMENTS);
        let payload = bytes(len);
        let gso = match (flow.tcp, flow.v6) { (true, false) => GSO_TCPV4 | GSO_ECN, (true, true) => GSO_TCPV6, _ => GSO_UDP_L4 };
        let large = flow.large((gso, size), seq, id, flags, &payload);
        let mut want = tcp_oracle(&flow, size.into(), seq, id, flags, &payload);
        if len == 0 {
            want.push(flow.frame(seq, id, flags, &[]));
        }
        prop_assert_eq!(&wire(adapted(std::slice::from_ref(&large), cut, &Caps::NONE)), &want);

        // A receiver that completes checksums gets the same with the pseudo header's sum in the field.
        let csum = Caps { csum: true, ..Caps::NONE };
        let partial: Vec<Lent> = want.into_iter().map(|mut f| (flow.make_partial(&mut f), f)).collect();
        prop_assert_eq!(adapted(&[large], cut, &csum), partial);
    }

    #[test]
    fn a_large_datagram_becomes_its_fragments(
        options in 0usize..3, size in 8u16..3000, len in 0usize..9000, cut in 7usize..5000, id: u16,
    ) {
        prop_assume!((len + 8).div_ceil((size & !7).into()) <= MAX_SEGMENTS);
        let flow = Flow { options: options * 8, ..Flow::udp4() };
        let whole = flow.frame(0, id, 0, &bytes(len));
        let datagram = &whole[flow.l4()..];
        let size8 = usize::from(size & !7);
        let count = datagram.len().div_ceil(size8);
        let want: Vec<Vec<u8>> = datagram.chunks(size8).enumerate().map(|(i, chunk)| {
            let more = if i + 1 < count { 0x2000 } else { 0 };
            let mut f = flow.network(id, (i * size8 / 8) as u16 | more, chunk.len());
            f.extend(chunk);
            f
        }).collect();
        let large = flow.large((GSO_UDP, size), 0, id, 0, &bytes(len));
        let csum = Caps { csum: true, ..Caps::NONE };
        prop_assert_eq!(&wire(adapted(std::slice::from_ref(&large), cut, &csum)), &want);
        prop_assert_eq!(&wire(adapted(&[large], cut, &Caps::NONE)), &want);
    }

    #[test]
    fn hostile_headers_never_panic_and_lengths_stay_bounded(
        flow in flows(), size: u16, gso: u8, len in 0usize..3000, start: u16, offset in 0u16..32, flags: u8,
        flips in prop::collection::vec((0usize..120, any::<u8>()), 0..6), cut in 1usize..200, keep in 0usize..3000,
    ) {
        let gso = [gso, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_UDP][usize::from(gso % 5)];
        let (mut hdr, mut frame) = flow.large((gso, size), 1, 2, ACK, &bytes(len));
        if start % 2 == 0 {
            (hdr.csum_start, hdr.csum_offset) = (start, offset);
        }
        hdr.flags = flags;
        frame.truncate(keep.max(1));
        for (at, value) in flips {
            let at = at % frame.len();
            frame[at] ^= value;
        }
        let total = frame.len();
        let frames = [(hdr, frame)];
        let burst = lend(&frames, cut.max(total.div_ceil(2000)));
        for csum in [false, true] {
            let caps = Caps { csum, ..Caps::NONE };
            let (out, adapted) = adapt(&mut super::super::Offload::new(), &burst, &caps);
            prop_assert_eq!(adapted.frames + adapted.drops[0].1, 1);
            prop_assert!(out.len() <= MAX_SEGMENTS);
            prop_assert!(out.iter().all(|(_, f)| f.len() <= total));
        }
    }
}

#[test]
fn a_tcp_frame_of_64_kib_is_cut_at_the_mss() {
    let flow = Flow::tcp4();
    let payload = bytes(65535 - 52);
    let large = flow.large((GSO_TCPV4, 1448), u32::MAX - 2000, u16::MAX, ACK | PSH | FIN | CWR, &payload);
    let out = wire(adapted(&[large], 4096, &Caps::NONE));
    assert_eq!(out.len(), 46);
    assert_eq!(out, tcp_oracle(&flow, 1448, u32::MAX - 2000, u16::MAX, ACK | PSH | FIN | CWR, &payload));
}

#[test]
fn what_cannot_be_segmented_is_refused() {
    let flow = Flow::tcp4();
    let good = flow.large((GSO_TCPV4, 100), 1, 1, ACK, &bytes(1000));
    let with = |change: &dyn Fn(&mut VnetHdr, &mut Vec<u8>)| {
        let (mut hdr, mut frame) = good.clone();
        change(&mut hdr, &mut frame);
        refused(&[(hdr, frame)])
    };
    assert_eq!(with(&|_, _| {}), 0);
    assert_eq!(with(&|h, _| h.gso_size = 0), 1, "no size");
    assert_eq!(with(&|h, _| h.gso_type = 2), 1, "no such kind");
    assert_eq!(with(&|h, _| h.gso_type = GSO_ECN), 1, "ECN of nothing");
    assert_eq!(with(&|h, _| h.gso_type = GSO_TCPV6), 1, "not IPv6");
    assert_eq!(with(&|h, _| h.gso_type = GSO_UDP_L4), 1, "not UDP");
    assert_eq!(with(&|h, _| h.gso_type = GSO_UDP), 1, "not UDP");
    assert_eq!(with(&|h, _| h.csum_start += 2), 1, "checksum elsewhere");
    assert_eq!(with(&|h, _| h.csum_offset = 6), 1, "checksum elsewhere");
    assert_eq!(with(&|_, f| f.truncate(60)), 1, "cut");
    assert_eq!(with(&|_, f| f.push(0)), 1, "longer than its IP packet");
    assert_eq!(with(&|_, f| f[14] = 0x4f), 1, "IP header length");
    assert_eq!(with(&|_, f| f[20] = 0x20), 1, "a fragment");
    assert_eq!(with(&|_, f| f[46] = 0xf0), 0, "60 bytes of TCP header are allowed");
    assert_eq!(with(&|_, f| f[46] = 0x40), 1, "TCP header length");
    assert_eq!(with(&|h, _| h.hdr_len = 9999), 0, "hdr_len is a hint");
}

#[test]
fn more_segments_than_the_bound_are_refused() {
    let flow = Flow::udp4();
    assert_eq!(refused(&[flow.large((GSO_UDP_L4, 1), 0, 0, 0, &bytes(MAX_SEGMENTS))]), 0);
    assert_eq!(refused(&[flow.large((GSO_UDP_L4, 1), 0, 0, 0, &bytes(MAX_SEGMENTS + 1))]), 1);
    assert_eq!(
        refused(&[flow.large((GSO_UDP, 7), 0, 0, 0, &bytes(100))]),
        1,
        "fragments are of 8 bytes at least"
    );
}

#[test]
fn a_datagram_length_that_lies_is_refused() {
    let flow = Flow::udp6();
    let (hdr, mut frame) = flow.large((GSO_UDP_L4, 100), 0, 0, 0, &bytes(1000));
    frame[flow.l4() + 5] -= 1;
    assert_eq!(refused(&[(hdr, frame)]), 1);
}

#[test]
fn tcp_joined_by_hardware_may_come_without_partial_checksum() {
    let flow = Flow::tcp6();
    let payload = bytes(3000);
    let mut frame = flow.frame(7, 0, ACK, &payload);
    frame[flow.l4() + 16] ^= 0x55; // whatever stands there is not used
    let hdr = VnetHdr { gso_type: GSO_TCPV6, gso_size: 1400, ..VnetHdr::NONE };
    assert_eq!(
        wire(adapted(&[(hdr, frame)], 999, &Caps::NONE)),
        tcp_oracle(&flow, 1400, 7, 0, ACK, &payload)
    );
}

#[test]
fn a_receiver_of_tso_without_ecn_gets_segments() {
    let flow = Flow::tcp4();
    let payload = bytes(300);
    let large = flow.large((GSO_TCPV4 | GSO_ECN, 100), 0, 0, ACK | CWR, &payload);
    let caps = Caps { csum: true, tso4: true, ..Caps::NONE };
    assert_eq!(adapted(std::slice::from_ref(&large), 64, &caps).len(), 3);
    let caps = Caps { ecn: true, ..caps };
    assert_eq!(adapted(std::slice::from_ref(&large), 64, &caps), [large]);
}
