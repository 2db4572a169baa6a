//! The C library's words for what the kernel refused, which is what QEMU shows.

use nix::errno::Errno;

/// The text of an errno.
pub(super) fn text(errno: Errno) -> String {
    words(&errno.into())
}

/// The text of an error, without the number that Rust adds.
pub(super) fn words(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    text
}
