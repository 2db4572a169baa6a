use super::super::testing::*;
use super::*;
use crate::wire::l4::ACK;

/// Gives `frames` to a receiver that takes `room` frames; returns what it took and what is told of the rest.
fn limited(frames: &[Lent], caps: &Caps, mut room: usize) -> (Vec<Lent>, Adapted) {
    let mut out = Vec::new();
    let burst = lend(frames, 1000);
    let adapted = Offload::new().adapt(&burst, burst.all(), caps, |burst, mask| {
        let take = mask.count().min(room);
        room -= take;
        out.extend(collect(burst, mask).into_iter().take(take));
        take
    });
    (out, adapted)
}

fn plain(i: u16) -> Lent {
    let flow = Flow { ports: [i, i], ..Flow::tcp4() };
    (VnetHdr::NONE, flow.frame(0, i, ACK, &bytes(100)))
}

/// A frame of `n` segments.
fn large(n: usize) -> Lent {
    Flow::tcp4().large((GSO_TCPV4, 100), 0, 0, ACK, &bytes(100 * n))
}

#[test]
fn frames_that_fit_go_as_they_are_in_one_call() {
    let frames: Vec<Lent> = (0..5).map(plain).collect();
    let burst = lend(&frames, 1000);
    let mut calls = 0;
    let adapted = Offload::new().adapt(&burst, Mask(0b10110), &LARGE, |out, mask| {
        calls += 1;
        assert!(std::ptr::eq(out, &raw const *burst) && mask == Mask(0b10110));
        2
    });
    assert_eq!((calls, adapted.frames, adapted.left), (1, 2, Mask(0b10000)));
    assert_eq!(adapted.bytes, (frames[1].1.len() + frames[2].1.len()) as u64);
}

#[test]
fn nothing_selected_is_nothing_done() {
    let burst = Burst::new();
    let adapted = Offload::new().adapt(&burst, Mask(u64::MAX), &LARGE, |_, _| unreachable!());
    assert_eq!((adapted.frames, adapted.left), (0, Mask::NONE));
}

#[test]
fn what_a_full_receiver_did_not_take_is_left_and_a_torn_frame_is_dropped() {
    let frames = [plain(1), large(4), plain(2), plain(3)];
    let want = |room| {
        let (out, a) = limited(&frames, &Caps::NONE, room);
        assert_eq!(out.len(), room.min(7));
        (a.frames, a.drops[1], a.left)
    };
    let torn = |n| (DropReason::TxFull, n);
    assert_eq!(want(0), (0, torn(0), Mask(0b1111)));
    assert_eq!(want(1), (1, torn(0), Mask(0b1110)));
    assert_eq!(want(2), (1, torn(1), Mask(0b1100)));
    assert_eq!(want(4), (1, torn(1), Mask(0b1100)));
    assert_eq!(want(5), (2, torn(0), Mask(0b1100)));
    assert_eq!(want(7), (4, torn(0), Mask::NONE));
}

#[test]
fn a_full_receiver_stops_a_frame_of_many_bursts() {
    let (out, a) = limited(&[large(200), plain(1)], &Caps::NONE, 100);
    assert_eq!((out.len(), a.frames, a.drops[1].1, a.left), (100, 0, 1, Mask(0b10)));
    let (out, a) = limited(&[large(200), plain(1)], &Caps::NONE, 1000);
    assert_eq!((out.len(), a.frames, a.left), (201, 2, Mask::NONE));
}

#[test]
fn frames_of_a_coalesced_one_are_taken_or_left_together() {
    let flow = Flow::udp4();
    let of = |id| (VnetHdr::NONE, flow.frame(0, id, 0, &bytes(100)));
    let frames = [of(0), plain(1), of(1), of(2)];
    let (out, a) = limited(&frames, &LARGE, 1);
    assert_eq!((out.len(), a.frames, a.left), (1, 3, Mask(0b0010)));
    assert_eq!(a.bytes, 3 * frames[0].1.len() as u64);
    let (_, a) = limited(&frames, &LARGE, 0);
    assert_eq!((a.frames, a.left), (0, Mask(0b1111)));
}

#[test]
fn bad_frames_are_dropped_and_the_others_go_on() {
    let mut bad = large(3);
    bad.0.gso_size = 0;
    let (out, a) = limited(&[plain(1), bad, plain(2)], &Caps::NONE, 99);
    assert_eq!((out, a.frames, a.left), (vec![plain(1), plain(2)], 2, Mask::NONE));
    assert_eq!(a.drops[0], (DropReason::BadOffload, 1));
}

#[test]
fn without_room_for_heads_frames_are_left_until_reset() {
    let frames = [plain(1), large(600), plain(2)];
    let burst = lend(&frames, 1 << 20);
    let mut offload = Offload::new();
    let mut turns = 0;
    loop {
        let (_, a) = adapt(&mut offload, &burst, &Caps::NONE);
        if a.out_of_heads {
            assert_eq!((a.frames, a.left), (1, Mask(0b110)));
            break;
        }
        assert_eq!(a.frames, 3);
        turns += 1;
    }
    assert!(turns >= HEADS / (600 * MAX_HEADERS));
    offload.reset();
    let (out, a) = adapt(&mut offload, &burst, &Caps::NONE);
    assert_eq!((out.len(), a.frames, a.out_of_heads), (602, 3, false));
}

#[test]
fn fits_says_whether_there_is_work() {
    let frames = [plain(1), large(3), plain(2)];
    let burst = lend(&frames, 1000);
    let [small, big] = [burst.frames()[0], burst.frames()[1]];
    let tso = Caps { csum: true, tso4: true, ..Caps::NONE };
    assert!(
        Offload::fits(&small, &Caps::NONE) && Offload::fits(&small, &tso) && !Offload::fits(&small, &LARGE)
    );
    assert!(!Offload::fits(&big, &Caps::NONE) && Offload::fits(&big, &tso) && Offload::fits(&big, &LARGE));
    assert!(
        !Offload::fits_all(&burst, burst.all(), &Caps::NONE) && Offload::fits_all(&burst, burst.all(), &tso)
    );
    assert!(!Offload::fits_all(&burst, burst.all(), &LARGE) && Offload::fits_all(&burst, Mask(0b11), &LARGE));
}

#[test]
fn a_receiver_is_given_only_what_it_said_it_takes() {
    let kinds = [
        (Flow::tcp4(), GSO_TCPV4, Caps { tso4: true, ..Caps::NONE }),
        (Flow::tcp6(), GSO_TCPV6, Caps { tso6: true, ..Caps::NONE }),
        (Flow::udp4(), GSO_UDP, Caps { ufo: true, ..Caps::NONE }),
        (Flow::udp6(), GSO_UDP_L4, Caps { uso: true, ..Caps::NONE }),
    ];
    for (flow, gso, caps) in &kinds {
        let frame = [flow.large((*gso, 104), 0, 0, ACK, &bytes(300))];
        for (_, other, other_caps) in &kinds {
            let caps = Caps { csum: true, ..*other_caps };
            assert_eq!(adapted(&frame, 100, &caps).len() == 1, gso == other);
        }
        assert!(adapted(&frame, 100, caps).len() > 1, "without checksums there is no segmentation offload");
    }
}

#[test]
fn weights_add_up_to_the_frames_that_came() {
    let flow = Flow::udp4();
    let of = |id| (VnetHdr::NONE, flow.frame(0, id, 0, &bytes(100)));
    let weights = |frames: &[Lent], caps: &Caps, source: &[u32]| {
        let mut lending = Burst::new();
        for (frame, weight) in lend(frames, 1 << 20).frames().iter().zip(source) {
            assert!(lending.push(frame.hdr, lend(frames, 1 << 20).segs(frame)));
            lending.weigh(*weight);
        }
        let mut out = Vec::new();
        let adapted = Offload::new().adapt(&lending, lending.all(), caps, |burst, mask| {
            out.extend(mask.iter().map(|i| burst.frames()[i].weight));
            mask.count()
        });
        assert_eq!(adapted.frames, u64::from(source.iter().sum::<u32>()));
        out
    };
    assert_eq!(weights(&[of(0), plain(1), of(1), of(2)], &LARGE, &[1, 1, 1, 1]), [3, 1]);
    assert_eq!(weights(&[large(3), plain(1)], &Caps::NONE, &[5, 1]), [0, 0, 5, 1]);
    assert_eq!(weights(&[large(3), plain(1)], &LARGE, &[5, 2]), [5, 2]);
}
