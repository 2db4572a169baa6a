use super::*;

const OWNER: u32 = 0x8000_0003;

type Burst = (u64, u16, u32, Vec<u16>);

fn push(to: &mut Sender, queue: u64, tag: u16, slots: std::ops::Range<u16>) -> bool {
    let len = slots.len();
    let mut slots = slots;
    let sent = to.push((queue, tag), &mut slots);
    assert!(sent == len || sent == 0 && slots.len() == len, "all or none are taken");
    sent == len
}

fn pop(from: &mut Receiver) -> Option<Burst> {
    let got = from.pop()?;
    let mut slots: Vec<_> = got.slots().flatten().collect();
    assert!(slots.drain(got.len()..).all(|slot| slot == 0), "zeros follow");
    Some((got.queue, got.tag, got.owner, slots))
}

fn burst(queue: u64, tag: u16, slots: std::ops::Range<u16>) -> Burst {
    (queue, tag, OWNER, slots.collect())
}

/// More bursts, of one line and of two, than the ring holds, so that lines are used again.
#[cfg(loom)]
#[test]
fn each_burst_arrives_once_and_whole() {
    const ALL: [(u64, u16, std::ops::Range<u16>); 6] =
        [(8, 1, 0..25), (9, 2, 5..6), (10, 3, 0..32), (11, 4, 7..32), (12, 5, 3..32), (13, 6, 1..3)];
    loom::model(|| {
        let (mut to, mut from) = ring(OWNER, 8);
        // The ring is at its end when the model begins, so that few steps take it round.
        for i in 0..3 {
            assert!(push(&mut to, i, 0, 0..32) && pop(&mut from).is_some());
        }
        let sender = loom::thread::spawn(move || {
            let mut taken = |(queue, tag, slots): &(u64, u16, std::ops::Range<u16>)| {
                push(&mut to, *queue, *tag, slots.clone())
            };
            ALL.iter().take_while(|burst| taken(burst)).count()
        });
        let mut got = Vec::new();
        got.extend(pop(&mut from));
        got.extend(pop(&mut from));
        let sent = sender.join().unwrap();
        got.extend(std::iter::from_fn(|| pop(&mut from)));
        assert!(sent >= 3);
        assert!(got.into_iter().eq(ALL.into_iter().take(sent).map(|(q, t, s)| burst(q, t, s))));
    });
}

#[cfg(not(loom))]
mod plain {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn a_full_ring_takes_nothing_until_a_quarter_is_read() {
        let (mut to, mut from) = ring(OWNER, 8);
        assert!(from.is_empty() && !to.is_full());
        for queue in 0..3 {
            assert!(push(&mut to, queue, 0, 0..32));
        }
        assert!(push(&mut to, 3, 0, 0..24), "24 fit into one line");
        assert!(to.is_full() && !push(&mut to, 4, 0, 0..1), "one line is not enough for any burst");
        assert_eq!(pop(&mut from), Some(burst(0, 0, 0..32)));
        assert!(!to.is_full() && push(&mut to, 4, 0, 0..1));
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut from)).map(|got| got.0).collect();
        assert_eq!(order, [1, 2, 3, 4]);
        assert!(from.is_empty());
    }

    #[test]
    fn no_more_than_a_burst_is_taken_and_nothing_of_nothing() {
        let (mut to, mut from) = ring(OWNER, 8);
        let mut slots = 0..40;
        assert_eq!((to.push((1, 2), &mut slots), slots.next()), (LINK_BURST, Some(32)));
        assert_eq!(to.push((1, 2), std::iter::empty()), 0);
        assert_eq!(pop(&mut from), Some((1, 2, OWNER, (0..32).collect())));
        assert_eq!(pop(&mut from), None);
    }

    /// Numbers in lines that were second lines of a lap before look like first words of the next.
    #[test]
    fn old_numbers_are_never_taken_for_a_burst() {
        for slot in [0, 1, 0x100, 0xffff] {
            let (mut to, mut from) = ring(OWNER, 8);
            for n in 0..100usize {
                let len = [32, 1, 25, 24][n % 4];
                assert_eq!(to.push((n as u64, slot), std::iter::repeat_n(slot, len)), len);
                let got = pop(&mut from).unwrap();
                assert_eq!((got.0, got.3), (n as u64, vec![slot; len]));
                assert!(from.is_empty());
            }
        }
    }

    proptest! {
        /// Bursts of all lengths come out as they went in, with the ring as full as may be.
        #[test]
        fn what_goes_in_comes_out(ops in proptest::collection::vec((0u16..33, 0u16..0xff00, any::<bool>()), 1..300)) {
            let (mut to, mut from) = ring(OWNER, 8);
            let mut waiting = VecDeque::new();
            for (n, (len, tag, take)) in ops.into_iter().enumerate() {
                let (n, all) = (n as u64, tag..tag + len);
                if push(&mut to, n, tag, all.clone()) && len != 0 {
                    waiting.push_back(burst(n, tag, all));
                }
                if take {
                    prop_assert_eq!(pop(&mut from), waiting.pop_front());
                }
            }
            prop_assert!(std::iter::from_fn(|| pop(&mut from)).eq(waiting));
        }
    }

    fn run(n: u16) -> std::ops::Range<u16> {
        n..n + 1 + n % 32
    }

    #[test]
    fn another_thread_sees_every_burst_whole_and_in_order() {
        let (mut to, mut from) = ring(OWNER, 8);
        let sender = std::thread::spawn(move || {
            for n in 0..20_000u16 {
                while !push(&mut to, n.into(), n, run(n)) {
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..20_000u16 {
            let got = loop {
                match pop(&mut from) {
                    Some(got) => break got,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(got, burst(n.into(), n, run(n)));
        }
        sender.join().unwrap();
    }
}
