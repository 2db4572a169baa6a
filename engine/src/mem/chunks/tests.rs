//! Chunks come and go, and none gets lost.

use super::*;
use af_xdp::UmemConfig;
use af_xdp::testing::TestArea;
use proptest::prelude::*;

fn shared(chunks: usize) -> Arc<SharedUmem> {
    let area = TestArea::new(chunks * 4096).unwrap();
    SharedUmem::new(Umem::new(Box::new(area), UmemConfig::default()).unwrap())
}

#[test]
fn the_books_go_to_the_first_worker_and_stay() {
    let shared = shared(4);
    let (mut one, mut other) = (Umems::default(), Umems::default());
    assert_eq!((one.adopt(&shared), one.adopt(&shared), other.adopt(&shared)), (Some(0), Some(0), None));
}

#[test]
fn a_chunk_that_comes_back_is_used_again_in_the_next_turn() {
    let (shared, mut umems) = (shared(1), Umems::default());
    umems.adopt(&shared);
    let books = umems.get(0).unwrap();
    let chunk = books.take_tx(7).unwrap();
    assert!(!books.sent(books.addr(chunk), 8) && books.sent(books.addr(chunk) + 64, 7));
    assert!(!books.sent(books.addr(chunk), 7), "only once");
    assert_eq!(books.take_rx(7), None);
    umems.settle();
    assert_eq!(umems.get(0).unwrap().take_rx(7), Some(chunk));
}

#[test]
fn what_a_socket_held_comes_back_in_steps() {
    let (shared, mut umems) = (shared(3 * STEP), Umems::default());
    umems.adopt(&shared);
    let (one, other) = (shared.join(), shared.join());
    for _ in 0..3 * STEP / 2 {
        umems.get(0).unwrap().take_rx(one.member()).unwrap();
        umems.get(0).unwrap().take_tx(other.member()).unwrap();
    }
    drop((one, other));
    for step in 1..=6 {
        assert!(umems.is_ending());
        umems.settle();
        assert_eq!(umems.get(0).unwrap().free(), step * STEP / 2, "no turn does more");
    }
    assert!(!umems.is_ending());
}

#[test]
fn what_a_socket_held_comes_back_unless_it_lives_on() {
    let (shared, mut umems) = (shared(8), Umems::default());
    umems.adopt(&shared);
    let (one, mut other) = (shared.join(), shared.join());
    let books = umems.get(0).unwrap();
    books.take_rx(one.member()).unwrap();
    books.take_tx(one.member()).unwrap();
    books.take_rx(other.member()).unwrap();
    assert_eq!(books.census(), Census { free: 5, receiving: 2, sending: 1, lost: 0 });
    other.give_up();
    drop((one, other));
    umems.settle();
    umems.settle();
    let books = umems.get(0).unwrap();
    assert_eq!(books.census(), Census { free: 7, receiving: 0, sending: 0, lost: 1 });
    assert_eq!(books.free(), 7);
}

proptest! {
    /// Whatever sockets do, no chunk is held twice and none gets lost.
    #[test]
    fn chunks_are_conserved(ops in proptest::collection::vec((0u8..8, 0u32..3, any::<u32>()), 0..300)) {
        const CHUNKS: usize = 2 * STEP + 7;
        let (shared, mut umems) = (shared(CHUNKS), Umems::default());
        umems.adopt(&shared);
        let mut seats: Vec<Seat> = (0..3).map(|_| shared.join()).collect();
        let (mut rx, mut tx) = (Vec::<(u32, u32)>::new(), Vec::<(u32, u32)>::new());
        // What ended sockets hold that are not gone over yet, and what is lost when they are.
        let (mut ended, mut lost) = ([0, 0], [0, 0]);
        for (op, who, pick) in ops {
            let member = seats[who as usize].member();
            let books = umems.get(0).unwrap();
            match op {
                0 => rx.extend((0..pick % 200).filter_map(|_| Some((books.take_rx(member)?, member)))),
                1 => tx.extend((0..pick % 200).filter_map(|_| Some((books.take_tx(member)?, member)))),
                2 if !rx.is_empty() => {
                    let (chunk, from) = rx.swap_remove(pick as usize % rx.len());
                    prop_assert!(books.is_rx(chunk, from));
                    books.move_tx(books.addr(chunk), member);
                    prop_assert!(!books.is_rx(chunk, from));
                    tx.push((chunk, member));
                }
                3 if !tx.is_empty() => {
                    let (chunk, from) = tx.swap_remove(pick as usize % tx.len());
                    prop_assert!(books.sent(books.addr(chunk), from));
                }
                4 => umems.settle(),
                5 | 6 if pick % 4 == 0 => {
                    let mut seat = std::mem::replace(&mut seats[who as usize], shared.join());
                    let held = [&mut rx, &mut tx].map(|list| {
                        let before = list.len();
                        list.retain(|(_, m)| *m != member);
                        before - list.len()
                    });
                    if op == 6 {
                        seat.give_up();
                        lost = [lost[0] + held[0], lost[1] + held[1]];
                    }
                    ended = [ended[0] + held[0], ended[1] + held[1]];
                }
                7 => {
                    let mut turns = 0;
                    while umems.is_ending() {
                        umems.settle();
                        turns += 1;
                        prop_assert!(turns <= 300 * (1 + CHUNKS / STEP));
                    }
                    let gone = lost[0] + lost[1];
                    let want = Census { free: CHUNKS - rx.len() - tx.len() - gone, receiving: rx.len(), sending: tx.len(), lost: gone };
                    prop_assert_eq!(umems.get(0).unwrap().census(), want);
                    umems.settle();
                    prop_assert_eq!(shared.free() as usize, want.free);
                    ended = lost;
                }
                _ => {}
            }
            let books = umems.get(0).unwrap();
            let Census { free, receiving, sending, lost: gone } = books.census();
            prop_assert_eq!(shared.lost() as usize, gone);
            prop_assert_eq!(books.free.len() + books.later.len(), free);
            prop_assert_eq!(free + receiving + sending + gone, CHUNKS);
            prop_assert!((rx.len()..=rx.len() + ended[0]).contains(&receiving));
            prop_assert!((tx.len()..=tx.len() + ended[1]).contains(&sending));
            prop_assert!(gone <= lost[0] + lost[1]);
        }
    }
}
