//! For the tests of filters: an instance alone, with frames of plain vectors and a clock of the test's own.

use super::{Direction, Filter};
use crate::burst::{BURST, Burst, Seg};
use crate::mem::arena::{Arena, ArenaConfig};
use crate::mem::pool::Pool;
use crate::port::Turn;
use crate::uring::FdIo;
use crate::wire::vnet_hdr::VnetHdr;
use std::ptr::NonNull;
use std::sync::Arc;

/// A frame.
pub(super) type Bytes = (VnetHdr, Vec<u8>);

/// What a turn needs.
pub(super) struct Bench {
    io: FdIo,
    pool: Pool,
    /// Memory.
    pub(super) arena: Arc<Arena>,
    /// The time.
    pub(super) now: u64,
}

impl Bench {
    /// At the beginning of time.
    pub(super) fn new() -> Self {
        let arena = Arena::new(&ArenaConfig { initial: 4 << 20, step: 4 << 20, hugepages: false }).unwrap();
        let pool = Pool::set(1, &arena).unwrap().remove(0);
        let (io, _) = FdIo::new(None).unwrap();
        Self { io, pool, arena, now: 0 }
    }

    /// Shows frames to a filter, in bursts; those that go on at once.
    pub(super) fn show(
        &mut self,
        filter: &mut dyn Filter,
        direction: Direction,
        frames: &[Bytes],
    ) -> Vec<Bytes> {
        let mut on = Vec::new();
        for part in frames.chunks(BURST) {
            let mut burst = Burst::new();
            for (hdr, bytes) in part {
                #[allow(unsafe_code)]
                // SAFETY: the vector outlives the burst.
                let seg = unsafe { Seg::new(NonNull::from(bytes.as_slice()).cast(), bytes.len() as u32) };
                assert!(burst.push(*hdr, &[seg]));
            }
            let mut turn = Turn { now: self.now, io: &mut self.io, pool: &mut self.pool };
            let kept = filter.frames(&mut turn, direction, &burst, burst.all());
            let lost = filter.lost((part.len() - kept.count()) as u64);
            assert!(lost as usize <= part.len() - kept.count());
            on.extend(kept.iter().map(|i| part[i].clone()));
        }
        on
    }

    /// Takes what the filter puts in now, at most `room` frames.
    pub(super) fn take(
        &mut self,
        filter: &mut dyn Filter,
        direction: Direction,
        mut room: usize,
    ) -> Vec<Bytes> {
        let mut all = Vec::new();
        while room != 0 {
            let due = filter.due(self.now, direction);
            let mut burst = Burst::new();
            let mut turn = Turn { now: self.now, io: &mut self.io, pool: &mut self.pool };
            if due == 0 {
                break;
            }
            filter.lend(&mut turn, direction, due.min(room).min(BURST), &mut burst);
            assert!(!burst.is_empty(), "what is due is there");
            for frame in burst.frames() {
                let mut bytes = vec![0; frame.len()];
                burst.copy_out(frame, 0, &mut bytes);
                all.push((frame.hdr, bytes));
            }
            room -= burst.len();
            filter.took(direction, burst.len());
            filter.gone(&mut turn, direction, burst.len());
        }
        all
    }
}

/// A numbered frame of `len` bytes.
pub(super) fn frame(n: u32, len: usize) -> Bytes {
    let mut bytes = vec![0xff; len];
    bytes[14..18].copy_from_slice(&n.to_be_bytes());
    (VnetHdr::NONE, bytes)
}

/// The numbers of frames.
pub(super) fn numbers(frames: &[Bytes]) -> Vec<u32> {
    frames.iter().map(|(_, b)| u32::from_be_bytes(b[14..18].try_into().unwrap())).collect()
}
