//! The built netdevctl against QEMU 10.0, which speaks the same protocol.
//!
//! `$NETDEVD_ORACLE` names the program, else `qemu10` is looked for in the search path.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::spawn;
use std::time::Duration;

/// A QEMU without a machine.
struct Qemu {
    process: Child,
    _output: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<OsString> {
    std::env::var_os("NETDEVD_ORACLE").or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|directory| directory.join("qemu10"))
            .find(|p| p.is_file())
            .map(Into::into)
    })
}

impl Qemu {
    /// Starts it and waits for its socket; `None`, with a printed reason, where there is none.
    fn start(test: &str) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("SKIPPED {test}: needs QEMU 10.0 ($NETDEVD_ORACLE or qemu10)");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("qmp");
        let mut process = Command::new(program)
            .args(["-M", "none", "-display", "none", "-nodefaults"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            // Its greeting says that everything before it, the socket too, is ready.
            .args(["-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut greeting = String::new();
        output.read_line(&mut greeting).unwrap();
        assert!(greeting.contains("QMP"), "{greeting}");
        Some(Self { process, _output: output, directory })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("qmp")
    }

    /// A netdevctl that talks to it.
    fn ctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netdevctl"));
        command.arg("-s").arg(self.socket()).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.ctl(words).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn prints(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn words_and_json_and_lines_reach_qemu() {
    let Some(qemu) = Qemu::start("words_and_json_and_lines_reach_qemu") else { return };
    assert_eq!(qemu.prints(&["netdev_add", "type=hubport", "id=a", "hubid=0"]), "");
    let stream = ["netdev_add", "type=stream", "id=s", "server=on", "addr.type=unix", "addr.path=s1"];
    let mut command = qemu.ctl(&stream);
    assert!(command.current_dir(&qemu.directory).status().unwrap().success());
    assert_eq!(qemu.prints(&["netdev_add", "{'type': 'hubport', 'id': 'b', 'hubid': 0}"]), "");
    let network = qemu.prints(&["hmp", "info network"]);
    assert!(
        network.contains("hub 0\n") && network.contains("\\ b\n") && !network.contains('\r'),
        "{network}"
    );
    let status = qemu.prints(&["query-status"]);
    assert!(status.lines().any(|line| line.starts_with("running  ")), "{status}");
    let status = qemu.prints(&["--json", r#"{"execute": "query-status", "id": 7}"#]);
    assert!(status.starts_with('{') && status.lines().count() == 1, "{status}");
}

#[test]
fn qemus_errors_end_with_status_1_and_ours_with_2() {
    let Some(qemu) = Qemu::start("qemus_errors_end_with_status_1_and_ours_with_2") else { return };
    let output = qemu.run(&["netdev_del", "id=nope"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "netdevctl: DeviceNotFound: Device 'nope' not found\n"
    );
    assert_eq!(qemu.run(&["query-net-stats"]).status.code(), Some(1), "QEMU has no such command");
    assert_eq!(qemu.run(&["netdev_del"]).status.code(), Some(2));
    assert_eq!(qemu.run(&["--frob"]).status.code(), Some(2));
    let nobody = Command::new(env!("CARGO_BIN_EXE_netdevctl"))
        .env("NETDEVD_QMP", "/nowhere/qmp")
        .arg("query-status")
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("/nowhere/qmp"));
}

#[test]
fn a_file_is_handed_over_and_used_by_the_next_command() {
    let Some(qemu) = Qemu::start("a_file_is_handed_over_and_used_by_the_next_command") else { return };
    // Standard input as the file: any socket will do.
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let words = ["--fd", "0", "getfd", "fdname=f", "--"];
    let dgram = ["netdev_add", "type=dgram", "id=d", "local.type=fd", "local.str=f"];
    let mut command = qemu.ctl(&[words.as_slice(), dgram.as_slice()].concat());
    let status = command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).status().unwrap();
    assert!(status.success());
    ours.send(&[0; 60]).unwrap();
    assert!(qemu.prints(&["hmp", "info network"]).contains("d: "));
    let set = qemu.prints(&["--fd", "0", "add-fd", "fdset-id=3"]);
    assert!(set.contains("fdset-id  3\n"), "{set}");
}

#[test]
fn events_are_printed_until_the_daemon_ends() {
    let Some(mut qemu) = Qemu::start("events_are_printed_until_the_daemon_ends") else { return };
    let mut watcher = qemu.ctl(&["events"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (tell, told) = mpsc::channel();
    let reader = spawn(move || {
        let _ = tell.send(lines.next().unwrap());
        lines.last().unwrap()
    });
    // Its other monitor makes events until the watcher, which may not be connected yet, has seen one.
    let mut monitor = qemu.process.stdin.take().unwrap();
    monitor.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    let first = loop {
        monitor.write_all(b"{'execute': 'stop'} {'execute': 'cont'}").unwrap();
        if let Ok(line) = told.recv_timeout(Duration::from_millis(20)) {
            break line;
        }
    };
    assert!(first.ends_with("Z STOP") || first.ends_with("Z RESUME"), "{first}");
    monitor.write_all(b"{'execute': 'quit'}").unwrap();
    let last = reader.join().unwrap();
    assert!(last.contains("Z SHUTDOWN guest=false reason=host-qmp-quit"), "{last}");
    assert!(watcher.wait().unwrap().success());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netdevctl"));
    let mut process = command.arg("commands").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    let mut words = String::new();
    process.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!((process.wait().unwrap().code(), words.as_str()), (Some(0), ""));
}
