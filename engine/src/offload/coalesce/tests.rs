use super::super::testing::*;
use crate::port::Caps;
use crate::wire::l4::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
use crate::wire::vnet_hdr::{F_DATA_VALID, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr};
use proptest::prelude::*;

/// A frame as it came from a wire.
fn plain(frame: Vec<u8>) -> Lent {
    (VnetHdr::NONE, frame)
}

/// `n` consecutive frames of `len` bytes of payload each, ids and sequence numbers counting up from `start`.
fn run(flow: &Flow, start: u32, n: u32, len: usize) -> Vec<Lent> {
    let frame = |i| flow.frame(start + i * len as u32, (start + i) as u16, ACK, &bytes(len));
    (0..n).map(|i| plain(frame(i))).collect()
}

/// The number of source segments in each frame that comes out.
fn shape(frames: &[Lent]) -> Vec<usize> {
    let size = |(hdr, f): &Lent| match hdr.gso_size {
        0 => 1,
        size => (f.len() - usize::from(hdr.hdr_len)).div_ceil(size.into()),
    };
    adapted(frames, 1500, &LARGE).iter().map(size).collect()
}

/// Coalesced and segmented again, `frames` must be what they were, to the byte. Returns the coalesced ones.
fn round_trip(frames: &[Lent]) -> Vec<Lent> {
    let large = adapted(frames, 777, &LARGE);
    let mut again = apart(&large);
    let mut want = wire(frames.to_vec());
    again.sort();
    want.sort();
    assert_eq!(again, want);
    large
}

/// Large frames segmented again.
fn apart(large: &[Lent]) -> Vec<Vec<u8>> {
    large.chunks(2).flat_map(|some| wire(adapted(some, 4096, &Caps::NONE))).collect()
}

#[test]
fn consecutive_frames_become_one_with_the_header_that_the_kernel_expects() {
    for (flow, gso_type) in [
        (Flow::tcp4(), GSO_TCPV4),
        (Flow::tcp6(), GSO_TCPV6),
        (Flow::udp4(), GSO_UDP_L4),
        (Flow::udp6(), GSO_UDP_L4),
        (Flow { tags: vec![5], ..Flow::udp4() }, GSO_UDP_L4),
        (Flow { tags: vec![5, 6], ..Flow::tcp6() }, GSO_TCPV6),
    ] {
        let mut frames = run(&flow, 100, 5, 1000);
        frames.push(plain(flow.frame(5100, 105, ACK, &bytes(10))));
        let out = round_trip(&frames);
        let payload = [[&bytes(1000)[..]; 5].concat(), bytes(10)].concat();
        assert_eq!(out, [flow.large((gso_type, 1000), 100, 100, ACK, &payload)]);
    }
}

/// In one segment a frame may go the short way, by equal bytes; in several it never does.
#[test]
fn the_short_way_leads_where_the_long_one_does() {
    let tagged = Flow { tags: vec![5], ..Flow::tcp4() };
    for (flow, partial) in [
        (Flow::udp4(), true),
        (Flow::tcp4(), false),
        (Flow::tcp4(), true),
        (Flow::tcp6(), false),
        (tagged, false),
    ] {
        short_and_long(&flow, partial);
    }
}

fn short_and_long(flow: &Flow, partial: bool) {
    let run = |start, n, len| {
        let mut frames = run(flow, start, n, len);
        if partial {
            frames.iter_mut().for_each(|f| f.0 = flow.make_partial(&mut f.1));
        }
        frames
    };
    let frames = run(100, 6, 200);
    let both = |frames: &[Lent]| (adapted(frames, 60_000, &LARGE), adapted(frames, 20, &LARGE));
    let (short, long) = both(&frames);
    assert_eq!((short.len(), &short), (1, &long));
    for at in 0..flow.payload() {
        for bit in 0..8 {
            let mut bad = frames.clone();
            bad[3].1[at] ^= 1 << bit;
            let (short, long) = both(&bad);
            assert_eq!(short, long, "bit {bit} of byte {at}");
        }
    }
    let changes: [fn(&mut Lent); 7] = [
        |f| f.0 = VnetHdr::NONE,
        |f| f.0.csum_start += 1,
        |f| f.0.gso_size = 1,
        |f| f.0.flags = F_DATA_VALID,
        |f| f.1.push(0),
        |f| f.1.truncate(150),
        // Another identification, with the checksum that goes with it.
        |f| (f.1[19], f.1[25]) = (f.1[19].wrapping_add(1), f.1[25].wrapping_sub(1)),
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut bad = frames.clone();
        change(&mut bad[3]);
        let (short, long) = both(&bad);
        assert_eq!(short, long, "change {i}");
    }
    let many = run(0, 64, 1400);
    let (short, long) = (adapted(&many, 60_000, &LARGE), adapted(&many, 700, &LARGE));
    assert_eq!((short.len(), &short), (2, &long), "as many as fit one packet");
}

#[test]
fn flows_that_take_turns_are_each_coalesced_at_their_first_place() {
    let flows: Vec<Flow> = (0..8).map(|p| Flow { ports: [p, 9], ..Flow::udp4() }).collect();
    let runs: Vec<Vec<Lent>> = flows.iter().map(|f| run(f, 7, 8, 100)).collect();
    let frames: Vec<Lent> = (0..8).flat_map(|i| runs.iter().map(move |r| r[i].clone())).collect();
    let out = round_trip(&frames);
    assert_eq!(shape(&frames), [8; 8]);
    for (out, run) in out.iter().zip(&runs) {
        assert_eq!(out.1[34..38], run[0].1[34..38], "in the order of first frames");
    }
}

#[test]
fn single_frames_of_many_flows_stay_what_they_are() {
    let frames: Vec<Lent> =
        (0..64).flat_map(|p| run(&Flow { ports: [p, 9], ..Flow::tcp4() }, 3, 1, 100)).collect();
    assert_eq!(adapted(&frames, 33, &LARGE), frames);
}

#[test]
fn what_differs_ends_the_run() {
    let base = Flow::tcp4();
    let frame = |flow: &Flow, i: u32| plain(flow.frame(i * 100, i as u16, ACK, &bytes(100)));
    let changes: [fn(&mut Flow); 7] = [
        |f| f.tos = 4,
        |f| f.ttl = 63,
        |f| f.frag = 0,
        |f| f.ack += 1,
        |f| f.window += 1,
        |f| f.tcp_options[11] += 1,
        |f| f.tcp_options.truncate(8),
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut other = base.clone();
        change(&mut other);
        let frames = [frame(&base, 0), frame(&base, 1), frame(&other, 2), frame(&other, 3)];
        round_trip(&frames);
        assert_eq!(shape(&frames), [2, 2], "change {i}");
    }
}

#[test]
fn gaps_and_repeats_end_the_run() {
    let flow = Flow::tcp4();
    let frame = |seq: u32, id| plain(flow.frame(seq, id, ACK, &bytes(100)));
    assert_eq!(shape(&[frame(0, 0), frame(100, 1), frame(300, 2), frame(400, 3)]), [2, 2], "a lost segment");
    assert_eq!(shape(&[frame(0, 0), frame(100, 1), frame(100, 2), frame(200, 3)]), [2, 2], "a repeated one");
    assert_eq!(shape(&[frame(0, 0), frame(100, 1), frame(200, 3), frame(300, 4)]), [2, 2], "an id left out");
    assert_eq!(shape(&[frame(0, 0), frame(100, 0)]), [1, 1], "one id for all");
    assert_eq!(shape(&[frame(u32::MAX - 49, u16::MAX), frame(50, 0)]), [2], "both counters wrap");
}

#[test]
fn a_shorter_frame_is_the_last_and_a_longer_one_starts_anew() {
    let flow = Flow::udp4();
    let frame = |id, len| plain(flow.frame(0, id, 0, &bytes(len)));
    let frames = [frame(0, 100), frame(1, 100), frame(2, 60), frame(3, 60), frame(4, 60), frame(5, 61)];
    round_trip(&frames);
    assert_eq!(shape(&frames), [3, 2, 1]);
}

#[test]
fn flags_end_the_run_as_in_gro() {
    let flow = Flow::tcp4();
    let frame = |i: u32, flags| plain(flow.frame(i * 100, i as u16, flags, &bytes(100)));
    let with = |flags: [u16; 4]| {
        let frames: Vec<Lent> = flags.iter().enumerate().map(|(i, f)| frame(i as u32, ACK | f)).collect();
        round_trip(&frames);
        shape(&frames)
    };
    assert_eq!(with([0, PSH, 0, 0]), [2, 2]);
    assert_eq!(with([0, FIN | PSH, 0, PSH]), [2, 2]);
    assert_eq!(with([0, 0, CWR, 0]), [2, 2]);
    assert_eq!(with([CWR, 0, CWR, 0]), [2, 2]);
    assert_eq!(with([ECE, ECE, ECE, 0]), [3, 1]);
    for flag in [SYN, RST, URG, CWR | PSH] {
        assert_eq!(with([0, 0, flag, 0]), [2, 1, 1], "{flag:#x}");
    }
    let out = adapted(&[frame(0, ACK | CWR), frame(1, ACK)], 99, &LARGE);
    assert_eq!(out[0].0.gso_type, GSO_TCPV4 | GSO_ECN);
    let no_ecn = Caps { ecn: false, ..LARGE };
    assert_eq!(adapted(&[frame(0, ACK | CWR), frame(1, ACK)], 99, &no_ecn).len(), 2);
}

#[test]
fn what_gro_leaves_alone_is_left_alone() {
    let alone = |flow: &Flow, len| {
        let frames = run(flow, 0, 3, len);
        assert_eq!(adapted(&frames, 50, &LARGE), frames);
    };
    alone(&Flow::tcp4(), 0); // pure acknowledgements
    alone(&Flow::udp4(), 0);
    for base in [Flow::tcp4(), Flow::udp4(), Flow::tcp6(), Flow::udp6()] {
        alone(&Flow { options: 8, ..base.clone() }, 100);
        alone(&Flow { tos: 3, ..base.clone() }, 100); // congestion experienced
        if !base.v6 {
            alone(&Flow { frag: 0x2000, ..base.clone() }, 100);
            alone(&Flow { frag: 0x0010, ..base.clone() }, 100);
        }
        let mut padded = run(&base, 0, 3, 100);
        padded.iter_mut().for_each(|f| f.1.push(0));
        assert_eq!(adapted(&padded, 50, &LARGE), padded);
    }
}

#[test]
fn a_wrong_checksum_is_passed_on_and_never_covered_up() {
    for flow in [Flow::tcp4(), Flow::udp4(), Flow::tcp6(), Flow::udp6()] {
        for bad in 0..4 {
            let mut frames = run(&flow, 0, 4, 100);
            frames[bad].1[flow.payload() + 3] ^= 1;
            round_trip(&frames);
        }
        let mut frames = run(&flow, 0, 4, 100);
        for f in &mut frames {
            f.1[flow.l4() + if flow.tcp { 16 } else { 6 }..][..2].fill(0);
        }
        assert_eq!(adapted(&frames, 50, &LARGE), frames, "checksum 0 is none, or wrong");
        if !flow.v6 {
            let mut frames = run(&flow, 0, 4, 100);
            frames[1].1[flow.l3() + 10] ^= 1;
            round_trip(&frames);
        }
    }
}

#[test]
fn partial_and_verified_checksums_count_as_right() {
    let flow = Flow::udp4();
    let mut frames = run(&flow, 0, 4, 100);
    for f in &mut frames {
        f.0 = flow.make_partial(&mut f.1);
    }
    assert_eq!(shape(&frames), [4]);
    frames[2].0.csum_start += 2;
    assert_eq!(shape(&frames), [2, 1, 1], "a checksum elsewhere");
    frames[2].0.csum_start -= 2;
    frames[2].1[flow.l4() + 7] ^= 1;
    assert_eq!(shape(&frames), [2, 1, 1], "not the pseudo header's sum");
    let mut frames = run(&flow, 0, 4, 100);
    frames.iter_mut().for_each(|f| f.0.flags = F_DATA_VALID);
    assert_eq!(shape(&frames), [4]);
}

#[test]
fn a_frame_never_passes_one_of_its_flow() {
    let flow = Flow::tcp4();
    let data = |i: u32| plain(flow.frame(i * 100, i as u16, ACK, &bytes(100)));
    let ack = plain(flow.frame(200, 9, ACK, &[]));
    let fragment = plain(Flow { frag: 0x2000, ..Flow::udp4() }.frame(0, 0, 0, &bytes(100)));
    let mut arp = data(0);
    arp.1[13] = 6;
    assert_eq!(shape(&[data(0), data(1), ack, data(2), data(3)]), [2, 1, 2]);
    assert_eq!(shape(&[data(0), data(1), fragment, data(2), data(3)]), [2, 1, 2]);
    assert_eq!(shape(&[data(0), data(1), arp, data(2), data(3)]), [4, 1], "outside of all flows");
    let large = flow.large((GSO_TCPV4, 100), 200, 2, ACK, &bytes(200));
    assert_eq!(shape(&[data(0), data(1), large, data(4), data(5)]), [2, 2, 2], "already large");
}

#[test]
fn the_result_is_no_longer_than_an_ip_packet() {
    for flow in [Flow::tcp4(), Flow::tcp6(), Flow::udp4(), Flow::udp6()] {
        let frames = run(&flow, 0, 64, 1400);
        let out = round_trip(&frames);
        assert!(out.len() == 2 && out.iter().all(|f| f.1.len() <= 65535 + 14));
    }
}

#[test]
fn only_kinds_that_the_receiver_takes_are_coalesced() {
    let frames: Vec<Lent> =
        [Flow::tcp4(), Flow::tcp6(), Flow::udp4()].iter().flat_map(|f| run(f, 0, 2, 100)).collect();
    let count = |caps| adapted(&frames, 99, &caps).len();
    assert_eq!(count(LARGE), 3);
    assert_eq!(count(Caps { tso4: false, ..LARGE }), 4);
    assert_eq!(count(Caps { tso6: false, ..LARGE }), 4);
    assert_eq!(count(Caps { uso: false, ..LARGE }), 4);
    assert_eq!(count(Caps { csum: false, ..LARGE }), 6);
    assert_eq!(count(Caps { coalesce: false, ..LARGE }), 6);
}

/// One step of a traffic generator: which flow, how its next frame differs.
type Step = (usize, u8, usize);

proptest! {
    #[test]
    fn segmenting_what_was_coalesced_gives_back_every_byte(
        steps in prop::collection::vec((0usize..6, 0u8..24, 1usize..300), 1..64), cut in 40usize..400,
    ) {
        let tagged = Flow { tags: vec![9], ..Flow::udp4() };
        let kinds = [Flow::tcp4(), Flow::tcp6(), Flow::udp4(), Flow::udp6(), tagged, Flow::tcp4()];
        let flows: Vec<Flow> =
            kinds.into_iter().zip(0xa001..).map(|(f, port)| Flow { ports: [port, 9], ..f }).collect();
        let mut at = [(0_u32, 0_u16); 6];
        let each = |&(which, kind, len): &Step| {
            let (flow, (seq, id)) = (&flows[which], &mut at[which]);
            let len = if kind < 14 { 100 } else { len };
            let flags = [PSH, FIN, CWR, ECE, RST, URG, 0, 0].get(usize::from(kind).wrapping_sub(14)).unwrap_or(&0);
            let mut frame = flow.frame(*seq, *id, ACK | flags, &bytes(len));
            *seq = seq.wrapping_add(len as u32);
            *id = id.wrapping_add(if kind == 21 { 2 } else { 1 });
            if kind == 22 {
                let last = frame.len() - 1;
                frame[last] ^= 0x10;
            }
            if kind == 23 {
                frame.extend([0; 4]);
            }
            plain(frame)
        };
        let frames: Vec<Lent> = steps.iter().map(each).collect();
        let again = apart(&adapted(&frames, cut, &LARGE));
        // Byte for byte, and in order within each flow.
        for flow in &flows {
            let of = |f: &&Vec<u8>| f.get(flow.l4()..flow.l4() + 2) == Some(&flow.ports[0].to_be_bytes()[..]);
            let want: Vec<&Vec<u8>> = frames.iter().map(|f| &f.1).filter(of).collect();
            let got: Vec<&Vec<u8>> = again.iter().filter(of).collect();
            prop_assert_eq!(got, want);
        }
        prop_assert_eq!(again.len(), frames.len());
    }

    #[test]
    fn hostile_frames_are_all_accounted_for(
        flips in prop::collection::vec((0usize..20, 0usize..80, any::<u8>()), 0..40), flags in prop::collection::vec(any::<u8>(), 20),
    ) {
        let mut frames = run(&Flow::tcp4(), 0, 10, 100);
        frames.extend(run(&Flow::udp6(), 0, 10, 100));
        for ((hdr, _), f) in frames.iter_mut().zip(flags) {
            hdr.flags = f & 3;
            hdr.gso_type = if f > 240 { f & 7 } else { 0 };
        }
        for (frame, at, value) in flips {
            frames[frame].1[at] ^= value;
        }
        let burst = lend(&frames, 60);
        let (out, adapted) = adapt(&mut super::super::Offload::new(), &burst, &LARGE);
        prop_assert_eq!(adapted.frames + adapted.drops[0].1, 20);
        prop_assert!(out.iter().all(|f| f.1.len() <= 65535 + 22));
    }
}
