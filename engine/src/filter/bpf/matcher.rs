//! A program in force on the workers, which control may exchange while frames pass.

use super::program::{HEAD_MOST, Program};
use super::run::Bytes;
use crate::burst::{Burst, Frame, Mask};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// The program to use; none lets every frame match.
type Wanted = Option<Arc<Program>>;

/// Between control and one worker. A worker gives back what it used, so that it never frees anything.
struct Passage {
    new: ArrayQueue<Wanted>,
    old: ArrayQueue<Wanted>,
}

/// Control's half.
pub struct Selection(Vec<Arc<Passage>>);

/// One worker's half.
pub struct Matcher {
    program: Wanted,
    passage: Arc<Passage>,
    /// The start of the frame that is looked at, copied once.
    head: [u8; HEAD_MOST],
}

/// The halves of a selection by `program` for so many workers.
#[must_use]
pub fn selection(program: Option<Program>, workers: usize) -> (Selection, Vec<Matcher>) {
    let program = program.map(Arc::new);
    // Two can come back between two changes: the one in use, and the one that came while control cleared up.
    let passage = |_| Arc::new(Passage { new: ArrayQueue::new(1), old: ArrayQueue::new(4) });
    let passages: Vec<Arc<Passage>> = (0..workers).map(passage).collect();
    let matcher = |passage: &Arc<Passage>| Matcher {
        program: program.clone(),
        passage: passage.clone(),
        head: [0; HEAD_MOST],
    };
    let matchers = passages.iter().map(matcher).collect();
    (Selection(passages), matchers)
}

impl Selection {
    /// Puts another program in force: every burst that a worker begins from now on is matched by it.
    pub fn set(&self, program: Option<Program>) {
        let program = program.map(Arc::new);
        for passage in &self.0 {
            while passage.old.pop().is_some() {}
            drop(passage.new.force_push(program.clone()));
        }
    }
}

impl Matcher {
    /// Takes over what control wants.
    #[inline]
    fn renew(&mut self) {
        if !self.passage.new.is_empty()
            && !self.passage.old.is_full()
            && let Some(new) = self.passage.new.pop()
        {
            let _ = self.passage.old.push(std::mem::replace(&mut self.program, new)); // it is not full
        }
    }

    /// Those of the selected frames that match.
    #[inline]
    pub fn select(&mut self, burst: &Burst, mask: Mask) -> Mask {
        self.renew();
        let Self { program: Some(program), head, .. } = self else { return mask };
        let mut matched = Mask::NONE;
        for i in mask.iter() {
            let Some(frame) = burst.frames().get(i) else { break };
            let have = copy_head(burst, frame, program.reach, head);
            let bytes = Lent { head: head.get(..have).unwrap_or_default(), burst, frame };
            matched.0 |= u64::from(program.run(&bytes) != 0) << i;
        }
        matched
    }
}

/// Copies the first `want` bytes of a frame, or some more; how many there are now.
#[inline]
fn copy_head(burst: &Burst, frame: &Frame, want: usize, head: &mut [u8; HEAD_MOST]) -> usize {
    // Constant lengths are a few wide moves.
    if let [whole] = burst.segs(frame) {
        if want <= 64
            && let Some(most) = head.first_chunk_mut::<64>()
            && whole.copy_first(most)
        {
            return 64;
        }
        if want <= 48
            && let Some(few) = head.first_chunk_mut::<48>()
            && whole.copy_first(few)
        {
            return 48;
        }
    }
    let room = head.get_mut(..want).unwrap_or_default();
    burst.copy_out(frame, 0, room)
}

/// A frame whose start was copied.
struct Lent<'a> {
    head: &'a [u8],
    burst: &'a Burst,
    frame: &'a Frame,
}

impl Bytes for Lent<'_> {
    #[inline]
    fn len(&self) -> u32 {
        self.frame.len
    }

    #[inline]
    fn get<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let at = at as usize;
        match self.head.get(at..at + N) {
            Some(bytes) => bytes.try_into().ok(),
            None => self.far(at),
        }
    }
}

impl Lent<'_> {
    /// Bytes that the copied start does not have.
    #[cold]
    fn far<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.burst.copy_out(self.frame, at, &mut bytes) == N).then_some(bytes)
    }
}
