//! Whose bytes: the arena (hugepages or ordinary memory) and the pools of frame buffers cut from it.

pub mod pool;
