//! What a test needs and this machine may lack.
//!
//! A test that cannot run is skipped with its reason, never silently: the line goes to standard error and to the file
//! that `NETDEVD_SKIPS` names, from which `scripts/test` counts. Under `CI=true` a skip is a failure, because there
//! everything is meant to be installed.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::{daemon, machine, wait};

/// Something outside the project that a test uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The real super-user.
    Root,
    /// A network namespace of our own, as root or by a user namespace.
    Namespaces,
    /// `/dev/net/tun`, and the right to make a tap in a namespace of our own.
    Tap,
    /// A program in the search path.
    Tool(&'static str),
    /// The reference QEMU 10.0 (`scripts/oracle`).
    Oracle,
    /// QEMU 10.0 and what it boots (`scripts/guest-image`).
    Guests,
    /// The right to mount a file system.
    Mount,
    /// A package index for Python, and `python3 -m venv`.
    Venv,
}

/// Whether everything is there. When something is missing, the skip of `test` is recorded.
///
/// # Panics
/// Under `CI=true`, when something is missing.
#[must_use]
pub fn ready(test: &str, needs: &[Need]) -> bool {
    for need in needs {
        if let Err(reason) = check(*need) {
            record(test, &reason);
            return false;
        }
    }
    true
}

/// Records that `test` is skipped for `reason`.
///
/// # Panics
/// Under `CI=true`.
pub fn record(test: &str, reason: &str) {
    record_beyond(test, reason);
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped under CI: {test}: {reason}");
}

/// Records that `test` is skipped for want of what no package of this system has, so that nothing can be installed for it.
///
/// # Panics
/// When it cannot be recorded.
pub fn record_beyond(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("NETDEVD_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()));
        assert!(written.is_ok(), "cannot record a skip in {path:?}");
    }
}

/// Whether `need` is there, without recording anything.
///
/// # Errors
/// Why it is not.
pub fn check_quietly(need: Need) -> Result<(), String> {
    check(need)
}

fn check(need: Need) -> Result<(), String> {
    let succeeds = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        on_path(program).is_some() && wait::output(&command, 10).status.success()
    };
    match need {
        Need::Root if nix::unistd::geteuid().is_root() => Ok(()),
        Need::Root => Err("needs root".into()),
        Need::Tool(tool) => on_path(tool).map(drop).ok_or_else(|| format!("needs {tool}")),
        Need::Oracle => daemon::oracle().map(drop),
        Need::Guests => daemon::oracle().and_then(|_| machine::image()).map(drop),
        Need::Namespaces if on_path("ip").is_none() => Err("needs iproute2".into()),
        Need::Namespaces
            if succeeds("unshare", &["-n", "true"]) || succeeds("unshare", &["-Urn", "true"]) =>
        {
            Ok(())
        }
        Need::Namespaces => Err("may not make network namespaces".into()),
        Need::Tap => {
            check(Need::Namespaces)?;
            let make = ["ip", "tuntap", "add", "dev", "probe0", "mode", "tap"];
            let made = [vec!["-n"], vec!["-Urn"]]
                .into_iter()
                .any(|way| succeeds("unshare", &[way, make.to_vec()].concat()));
            if made { Ok(()) } else { Err("may not make taps (/dev/net/tun)".into()) }
        }
        Need::Mount if succeeds("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]) => Ok(()),
        Need::Mount => Err("may not mount a tmpfs".into()),
        Need::Venv if succeeds("python3", &["-c", "import venv, ensurepip"]) => Ok(()),
        Need::Venv => Err("needs python3-venv".into()),
    }
}

/// Where a program is, searched also in the directories that only root has in its path.
#[must_use]
pub fn on_path(tool: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|directory| Path::new(directory).join(tool))
        .find(|at| at.is_file())
}
