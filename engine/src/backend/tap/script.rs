//! The network scripts of a tap: `script` after opening, `downscript` before closing.

use super::TapError;
use crate::backend::child::{inherit_only, pidfd, readable};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Raw wait status of a program that exits with 1: what QEMU reports when a script cannot be run at all.
const CANNOT_RUN: i32 = 256;

/// Runs `path` with the interface's name as its only argument and waits for it, at most `limit`; then it is killed. It
/// inherits descriptors 0 to 2 and nothing else.
///
/// Blocks: control calls it off its own thread.
///
/// # Errors
/// [`TapError::Script`] when it does not exit with 0, with the raw wait status.
pub fn run_script(path: &str, ifname: &str, limit: Duration) -> Result<(), TapError> {
    let failed = |status| TapError::Script { path: path.into(), status };
    let mut command = Command::new(path);
    command.arg(ifname);
    inherit_only(&mut command, None);
    let child = command.spawn().map_err(|_| failed(CANNOT_RUN))?;
    let status = wait(child, limit).map_err(|_| failed(CANNOT_RUN))?;
    if status.success() { Ok(()) } else { Err(failed(status.into_raw())) }
}

fn wait(mut child: Child, limit: Duration) -> std::io::Result<ExitStatus> {
    let end = Instant::now() + limit;
    let ended = pidfd(&child)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            return child.wait();
        }
        readable([ended.as_fd()], end)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::child::testing::script;

    const LONG: Duration = Duration::from_secs(20);

    fn status(result: Result<(), TapError>) -> i32 {
        match result {
            Ok(()) => 0,
            Err(TapError::Script { status, .. }) => status,
            Err(other) => unreachable!("{other}"),
        }
    }

    #[test]
    fn the_script_gets_the_name_and_no_descriptor_beyond_the_standard_ones() {
        let held = std::fs::File::open("/dev/null").unwrap();
        let out = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let path = script(&format!("echo $1 $# > {0}; ls /proc/self/fd | wc -l >> {0}", out.display()));
        run_script(path.to_str().unwrap(), "tap7", LONG).unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        let fds: u32 = text.lines().nth(1).unwrap().trim().parse().unwrap();
        assert!(text.starts_with("tap7 1\n"), "{text}");
        assert!(fds <= 4, "0 to 2 and the directory that ls reads: {text}");
        drop(held);
    }

    #[test]
    fn failures_show_the_raw_wait_status_as_qemu_does() {
        let path = script("exit 3");
        let error = run_script(path.to_str().unwrap(), "t", LONG).unwrap_err();
        assert_eq!(error.to_string(), format!("network script {} failed with status 768", path.display()));
        assert_eq!(status(run_script("/nonexistent", "t", LONG)), 256);
        assert_eq!(status(run_script(script("kill -9 $$").to_str().unwrap(), "t", LONG)), 9);
    }

    #[test]
    fn a_script_that_hangs_is_killed() {
        let path = script("sleep 100 & wait");
        let start = Instant::now();
        assert_eq!(status(run_script(path.to_str().unwrap(), "t", Duration::from_millis(50))), 9);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
