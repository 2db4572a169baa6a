//! Bounded waiting: a condition that must come true, a child that must end.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest time for what should take milliseconds; generous, since test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks again every few milliseconds until `probe` has an answer or `limit` is over.
///
/// For conditions without an event to wait for, such as a socket that another process has yet to bind.
pub fn until<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(Duration::from_millis(3));
    }
}

/// The child's exit status, or `None` when it still runs after `limit`.
pub fn child(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    until(limit, || child.try_wait().ok().flatten())
}

/// Runs a command to its end with no input, at most `seconds` long, and returns what it printed.
///
/// # Panics
/// When the program cannot be started.
pub fn output(command: &Command, seconds: u32) -> Output {
    let mut bounded = bounded(command, seconds);
    bounded.stdin(Stdio::null());
    bounded.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Like [`output`], and the command must succeed; returns its standard output.
///
/// # Panics
/// When the command fails, with all that it printed.
pub fn success(command: &Command, seconds: u32) -> String {
    let output = output(command, seconds);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

/// The same command under `timeout`, which also dies with the test.
fn bounded(command: &Command, seconds: u32) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.args(["-k", "1", &seconds.to_string()]).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        bounded.current_dir(directory);
    }
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(key, value),
            None => bounded.env_remove(key),
        };
    }
    bounded
}

/// A command whose process is killed when the thread that starts it ends, however it ends.
#[must_use]
pub fn mortal(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
