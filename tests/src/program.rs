//! Programs of a few lines that a test writes and a daemon runs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a program, or another in its place. Another process does, since a child of another test would hold a descriptor of ours until it executes, and what somebody may write
/// to does not execute (`ETXTBSY`).
///
/// # Panics
/// It cannot be written.
pub fn write(path: &Path, text: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().expect("install");
    install.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("a program");
    assert!(install.wait().expect("its end").success(), "{} was not written", path.display());
}

/// Copies a program, as [`write()`] writes one.
///
/// # Panics
/// It cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([from, to]).status().expect("install");
    assert!(status.success(), "{} was not copied", from.display());
}
