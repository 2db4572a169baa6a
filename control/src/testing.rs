//! What unit tests of several places need.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a program, or another in its place. Another process does, since a child of another test would hold a descriptor of ours until it executes, and what somebody may write
/// to does not execute (`ETXTBSY`).
pub(crate) fn program(path: &Path, text: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().unwrap();
    install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success(), "{} was not written", path.display());
}
