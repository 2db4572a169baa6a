//! `-daemonize`: the program starts itself again in a session of its own and waits until that one is ready.

use super::Fatal;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};

/// Tells the second process that it is one. Its standard output is where it says that it is ready.
const MARK: &str = "NETDEVD_DAEMON";

/// The word that says so.
const READY: &[u8] = b"ready\n";

/// Whether this is the process that stays.
pub(super) fn is_detached() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts the process that stays and waits for its word. Its errors go to our standard error.
pub(super) fn start(args: &[String]) -> Result<ExitCode, Fatal> {
    let program = std::env::current_exe().map_err(|e| Fatal::new(format!("-daemonize: {e}")))?;
    let mut child = Command::new(program)
        .args(args)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Fatal::new(format!("-daemonize: {e}")))?;
    let mut word = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        let mut buffer = [0; READY.len()];
        while word.len() < READY.len() {
            match out.read(&mut buffer) {
                Ok(n) if n > 0 => word.extend_from_slice(&buffer[..n]),
                _ => break,
            }
        }
    }
    if word == READY {
        return Ok(ExitCode::SUCCESS);
    }
    // It has said why on standard error.
    let _ = child.wait();
    Ok(ExitCode::FAILURE)
}

/// Leaves the caller's session.
pub(super) fn leave() -> Result<(), Fatal> {
    // It fails only for the leader of a process group, which a process just started is not.
    let _ = setsid();
    Ok(())
}

/// Says that the daemon is ready and lets go of the caller's terminal and directory.
pub(super) fn ready() -> Result<(), Fatal> {
    let failed = |e: &dyn std::fmt::Display| Fatal::new(format!("-daemonize: {e}"));
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|e| failed(&e))?;
    std::env::set_current_dir("/").map_err(|e| failed(&e))?;
    let mut out = std::io::stdout();
    out.write_all(READY).and_then(|()| out.flush()).map_err(|e| failed(&e))?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .map_err(|e| failed(&e))
}
