use super::*;
use crate::mem::arena::ArenaConfig;
use proptest::prelude::*;
use std::collections::VecDeque;

fn arena() -> std::sync::Arc<Arena> {
    Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap()
}

fn push(writer: &mut Writer, mark: u8, len: usize) -> bool {
    let hdr = VnetHdr { gso_size: u16::from(mark), ..VnetHdr::NONE };
    writer.push_with(hdr, u32::from(mark), len, |to| to.fill(mark))
}

#[derive(Debug, Clone)]
enum Op {
    Push(usize),
    Publish,
    Lend(usize),
    Done(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0usize..1600).prop_map(Op::Push),
        2 => Just(Op::Publish),
        2 => (0usize..9).prop_map(Op::Lend),
        2 => (0usize..9).prop_map(Op::Done),
    ]
}

proptest! {
    #[test]
    fn a_ring_is_a_queue_with_a_bound(ops in proptest::collection::vec(op(), 1..400)) {
        let (mut writer, mut reader) = ring(&arena(), 8192).unwrap();
        let (mut kept, mut hidden) = (VecDeque::new(), Vec::new());
        let mut mark = 0u8;
        for op in ops {
            match op {
                Op::Push(len) => {
                    mark = mark.wrapping_add(1);
                    let used = writer.in_use() as usize;
                    if push(&mut writer, mark, len) {
                        hidden.push((mark, len));
                    } else {
                        // At most one record's length is lost at the end of the memory.
                        prop_assert!(used + 2 * need(len) > 8192, "refused with {used} in use");
                    }
                }
                Op::Publish => {
                    writer.publish();
                    kept.extend(hidden.drain(..));
                }
                Op::Lend(want) => {
                    let mut burst = Burst::new();
                    reader.lend(want, &mut burst);
                    prop_assert_eq!(burst.len(), want.min(kept.len()));
                    for (frame, (mark, len)) in burst.frames().iter().zip(&kept) {
                        let mut bytes = vec![0; frame.len()];
                        burst.copy_out(frame, 0, &mut bytes);
                        prop_assert_eq!(&bytes, &vec![*mark; *len]);
                        prop_assert_eq!((frame.weight, frame.hdr.gso_size), (u32::from(*mark), u16::from(*mark)));
                    }
                }
                Op::Done(n) => {
                    let first = kept.len().min(n);
                    let mut burst = Burst::new();
                    reader.lend(first, &mut burst);
                    reader.took(first);
                    // What was taken lies there until it is done.
                    for (frame, (mark, len)) in burst.frames().iter().zip(&kept) {
                        let mut bytes = vec![0; frame.len()];
                        burst.copy_out(frame, 0, &mut bytes);
                        prop_assert_eq!(bytes, vec![*mark; *len]);
                    }
                    reader.done(first);
                    kept.drain(..n.min(kept.len()));
                    let first = reader.first().map(|r| (r.bytes.first().copied(), r.bytes.len()));
                    let want = kept.front().map(|(m, len)| ((*len > 0).then_some(*m), *len));
                    prop_assert_eq!(first, want);
                }
            }
        }
    }
}

#[test]
fn what_one_thread_writes_another_reads_in_order() {
    let (mut writer, mut reader) = ring(&arena(), 1 << 14).unwrap();
    const FRAMES: u32 = 200_000;
    let sender = std::thread::spawn(move || {
        let mut n = 0u32;
        while n < FRAMES {
            let len = 4 + (n % 1500) as usize;
            if writer.push_with(VnetHdr::NONE, 1, len, |to| {
                to.fill(n as u8);
                to[..4].copy_from_slice(&n.to_le_bytes());
            }) {
                n += 1;
                writer.publish();
            } else {
                std::hint::spin_loop();
            }
        }
    });
    let mut next = 0u32;
    while next < FRAMES {
        let Some(record) = reader.first() else {
            std::hint::spin_loop();
            continue;
        };
        assert_eq!(record.bytes[..4], next.to_le_bytes());
        assert_eq!(record.bytes.len(), 4 + (next % 1500) as usize);
        assert!(record.bytes[4..].iter().all(|b| *b == next as u8));
        reader.pop();
        next += 1;
    }
    sender.join().unwrap();
}

#[test]
fn a_frame_longer_than_half_of_the_ring_is_refused() {
    let (mut writer, mut reader) = ring(&arena(), 4096).unwrap();
    assert!(!push(&mut writer, 1, 2048));
    for _ in 0..9 {
        assert!(push(&mut writer, 2, 2000));
        writer.publish();
        assert_eq!(reader.first().map(|r| r.bytes.len()), Some(2000));
        reader.pop();
    }
}
