//! `qemu.qmp` from PyPI, an independent client, and its `qmp-shell`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::json;
use tests::daemon::Daemon;
use tests::skip::{self, Need, ready};
use tests::wait;

const PACKAGE: &str = "qemu.qmp==0.0.6";

/// One installation at a time.
static INSTALL: Mutex<()> = Mutex::new(());

/// The virtual environment below `target`, made with the first use.
fn environment(test: &str) -> Option<PathBuf> {
    if !ready(test, &[Need::Venv]) {
        return None;
    }
    let _one = INSTALL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv");
    if place.join("installed").exists() {
        return Some(place);
    }
    let mut make = Command::new("python3");
    wait::success(make.args(["-m", "venv", "--clear"]).arg(&place), 60);
    let mut install = Command::new(place.join("bin/pip"));
    let output = wait::output(install.args(["install", "-q", "--disable-pip-version-check", PACKAGE]), 120);
    if !output.status.success() {
        skip::record(test, &format!("{PACKAGE} cannot be installed"));
        return None;
    }
    std::fs::write(place.join("installed"), PACKAGE).expect("a mark");
    Some(place)
}

#[test]
fn qemu_qmp_connects_runs_and_survives_errors() {
    let Some(place) = environment("qemu_qmp_connects_runs_and_survives_errors") else { return };
    let (daemon, _qmp) = Daemon::netdevd(&[]);
    let mut command = Command::new(place.join("bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client.py")).arg(daemon.socket(0));
    assert_eq!(wait::success(&command, 90).trim(), "all well");
}

#[test]
fn qmp_shell_runs_commands_and_shows_events() {
    let Some(place) = environment("qmp_shell_runs_commands_and_shows_events") else { return };
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "60"]).arg(place.join("bin/qmp-shell")).arg(daemon.socket(0));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().expect("qmp-shell starts");
    let lines = "netdev_add type=hubport id=s hubid=3\nquery-status\nnetdev_del id=nope\nquit\n";
    let mut stdin = shell.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, lines.as_bytes()).expect("a write");
    drop(stdin);
    let output = shell.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stdout);
    for words in ["Welcome to the QMP", "\"running\"", "Device 'nope' not found"] {
        assert!(
            said.contains(words),
            "{words:?} is not in:\n{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let event = qmp.event("SHUTDOWN", wait::PATIENCE).expect("quit is told to the other client");
    assert_eq!(event["data"]["reason"], "host-qmp-quit");
}

#[test]
fn qmp_shell_speaks_to_the_human_monitor() {
    let Some(place) = environment("qmp_shell_speaks_to_the_human_monitor") else { return };
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "s", "hubid": 3}));
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "60"]).arg(place.join("bin/qmp-shell")).arg("-H").arg(daemon.socket(0));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().expect("qmp-shell starts");
    let mut stdin = shell.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, b"info network\n").expect("a write");
    drop(stdin);
    let output = shell.wait_with_output().expect("its output");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("hub 3"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
