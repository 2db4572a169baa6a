//! stub
use std::sync::Arc;
/// s
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);
/// s
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// a
    Uring,
    /// b
    Batched,
}
/// s
#[derive(Debug)]
pub struct Waker;
impl Waker {
    /// s
    pub fn wake(&self) {}
    /// s
    pub fn nudge(&self) {}
}
/// s
#[derive(Debug)]
pub struct FdIo {}
impl FdIo {
    /// s
    pub fn new(_m: Option<IoMode>) -> Result<(Self, Arc<Waker>), std::io::Error> {
        Ok((Self {}, Arc::new(Waker)))
    }
    /// s
    pub fn mode(&self) -> IoMode {
        IoMode::Uring
    }
    /// s
    pub fn submit(&mut self) {}
    /// s
    pub fn poll(&mut self) {}
    /// s
    pub fn take_ready(&mut self) -> Option<FileId> {
        None
    }
    /// s
    pub fn announce(&self) {}
    /// s
    pub fn rise(&self) {}
    /// s
    pub fn sleep(&mut self, _t: Option<u64>) {
        std::thread::park_timeout(std::time::Duration::from_millis(1))
    }
    /// s
    pub fn send_room(&self) -> usize {
        256
    }
}
