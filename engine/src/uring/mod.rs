//! io_uring as the file-like ports of a worker share it, with batched plain syscalls where the kernel has none.

/// Names a file registered with a worker's [`FdIo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// The file I/O of one worker.
#[derive(Debug)]
pub struct FdIo {}
