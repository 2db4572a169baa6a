//! stub
use crate::burst::{Burst, Frame, Mask};
use crate::port::Caps;
use crate::port::counters::DropReason;
/// s
pub struct Offload;
/// a
pub struct Adapted;
impl Adapted {
    /// d
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        std::iter::empty()
    }
}
impl Offload {
    /// n
    pub fn new() -> Self {
        Self
    }
    /// f
    pub fn fits(_f: &Frame, _c: &Caps) -> bool {
        true
    }
    /// r
    pub fn reset(&mut self) {}
    /// a
    pub fn adapt(&mut self, _b: &Burst, _m: Mask, _c: &Caps, _s: impl FnMut(&Burst) -> usize) -> Adapted {
        Adapted
    }
}
