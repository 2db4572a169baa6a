//! The daemon as a process: start, options, configuration file, daemonize, signals, end.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::daemon::{Daemon, Program, directory, netdevd};
use tests::lab::Lab;
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait;

/// Runs `netdevd` to its end.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(netdevd());
    command.args(arguments);
    wait::output(&command, 10)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Kills the process in a pid file when the test ends in whatever way: `cat` ends when our end of its input closes.
struct Undertaker {
    guard: Child,
    pidfile: PathBuf,
}

impl Undertaker {
    fn new(pidfile: &Path) -> Self {
        let script = "cat; pid=$(cat \"$0\" 2>/dev/null) && kill -9 \"$pid\" 2>/dev/null; true";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(pidfile).stdin(Stdio::piped());
        Self { guard: command.spawn().expect("sh starts"), pidfile: pidfile.into() }
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(&self.pidfile).expect("a pid file");
        Pid::from_raw(text.trim().parse().expect("a process id"))
    }
}

impl Drop for Undertaker {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn gone(pid: Pid, limit: Duration) -> bool {
    wait::until(limit, || kill(pid, None).is_err().then_some(())).is_some()
}

#[test]
fn version_and_help_are_worth_reading() {
    for form in ["-version", "--version"] {
        let output = run(&[form]);
        assert!(output.status.success() && text(&output.stdout).contains("netdevd"), "{output:?}");
    }
    for form in ["-help", "--help", "-h"] {
        let output = run(&[form]);
        let help = text(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        for option in
            ["-netdev", "-object", "-chardev", "-qmp", "-mon", "-cores", "-idle", "-config", "-daemonize"]
        {
            assert!(help.contains(option), "{option} is missing from the help");
        }
    }
    let output = run(&["-netdev", "help"]);
    assert!(output.status.success());
    for kind in ["tap", "hubport"] {
        assert!(text(&output.stdout).lines().any(|line| line.trim() == kind), "{output:?}");
    }
}

#[test]
fn it_runs_with_no_netdev_and_is_ready_within_a_second() {
    let begun = Instant::now();
    let (_daemon, mut qmp) = Daemon::netdevd(&[]);
    assert!(begun.elapsed() < Duration::from_secs(1), "ready after {:?}", begun.elapsed());
    assert_eq!(qmp.ok("query-netdev", json!({})), json!([]));
    assert_eq!(qmp.ok("query-status", json!({}))["status"], "running");
}

#[test]
fn readiness_is_told_to_the_service_manager() {
    let place = directory();
    let socket = UnixDatagram::bind(place.path().join("notify")).expect("a socket");
    socket.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    let path = place.path().join("notify");
    let _daemon = Daemon::of(Program::Netdevd).env("NOTIFY_SOCKET", path).start();
    let mut message = [0; 256];
    let length = socket.recv(&mut message).expect("a message");
    assert!(text(&message[..length]).contains("READY=1"), "{}", text(&message[..length]));
}

#[test]
fn a_wrong_start_fails_with_a_clear_error() {
    for (arguments, words) in [
        (vec!["-cores", "9999"], "9999"),
        (vec!["-cores", "x"], "cores"),
        (vec!["-idle", "sometimes"], "idle"),
        (vec!["-sandbox", "on"], "sandbox"),
        (vec!["-config", "/nowhere/config"], "/nowhere/config"),
        (vec!["-netdev", "tap,id=t,fd=9x"], "9x"),
        (vec!["-qmp", "unix:/nowhere/sock,server=on,wait=off"], "/nowhere/sock"),
        (vec!["-pidfile", "/nowhere/pid"], "/nowhere/pid"),
        (vec!["-bogus"], "bogus"),
    ] {
        let output = run(&arguments);
        assert!(!output.status.success(), "{arguments:?} should fail");
        let said = text(&output.stderr);
        assert!(said.contains(words) && !said.contains("panicked"), "{arguments:?} says {said:?}");
    }
}

#[test]
fn a_configuration_file_is_commands_a_line_and_the_last_needs_no_line_end() {
    let place = directory();
    let file = place.path().join("config");
    let lines = [
        r#"{"execute":"netdev_add","arguments":{"type":"hubport","id":"a","hubid":1}}"#,
        "",
        r#"{"execute":"netdev_add","arguments":{"type":"hubport","id":"b","hubid":1}}"#,
    ];
    fs::write(&file, lines.join("\n")).expect("a file");
    let (_daemon, mut qmp) = Daemon::netdevd(&["-config", &file.to_string_lossy()]);
    let netdevs = qmp.ok("query-netdev", json!({}));
    let mut ids: Vec<_> =
        netdevs.as_array().expect("a list").iter().map(|netdev| netdev["id"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [Some("a"), Some("b")]);
}

#[test]
fn a_configuration_file_with_an_error_names_its_line() {
    let place = directory();
    let file = place.path().join("config");
    for (second, words) in [
        (
            r#"{"execute":"netdev_add","arguments":{"type":"hubport","id":"b"}}"#,
            "Parameter 'hubid' is missing",
        ),
        ("{\"execute\":", ""),
    ] {
        let first = r#"{"execute":"netdev_add","arguments":{"type":"hubport","id":"a","hubid":1}}"#;
        fs::write(&file, format!("{first}\n{second}")).expect("a file");
        let output = run(&["-config", &file.to_string_lossy()]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(words) && said.contains('2'), "{said}");
    }
}

#[test]
fn daemonize_returns_when_ready_and_writes_the_pid_file() {
    let place = directory();
    let (pidfile, socket) = (place.path().join("pid"), place.path().join("qmp"));
    let undertaker = Undertaker::new(&pidfile);
    let qmp = format!("unix:{},server=on,wait=off", socket.display());
    let output = run(&["-daemonize", "-pidfile", &pidfile.to_string_lossy(), "-qmp", &qmp]);
    assert!(output.status.success(), "{output:?}");
    let mut client = Qmp::connect(&socket, Duration::ZERO).expect("ready when the parent has returned");
    client.negotiate();
    let pid = undertaker.pid();
    client.ok("quit", json!({}));
    assert!(gone(pid, Duration::from_secs(2)), "quit ends it");
    assert!(!pidfile.exists() && !socket.exists(), "nothing is left");
}

#[test]
fn daemonize_passes_on_the_error_of_the_child() {
    let place = directory();
    let pidfile = place.path().join("pid");
    let _undertaker = Undertaker::new(&pidfile);
    let output = run(&["-daemonize", "-pidfile", &pidfile.to_string_lossy(), "-netdev", "hubport,id=x"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("Parameter 'hubid' is missing"), "{output:?}");
    assert!(!pidfile.exists(), "no pid file of a daemon that did not start");
}

#[test]
fn a_pid_file_in_use_is_refused() {
    let place = directory();
    let pidfile = place.path().join("pid");
    let (_daemon, _qmp) = Daemon::netdevd(&["-pidfile", &pidfile.to_string_lossy()]);
    assert!(pidfile.exists());
    let output = run(&["-pidfile", &pidfile.to_string_lossy()]);
    assert!(!output.status.success(), "{output:?}");
    assert!(pidfile.exists(), "the first one's file is not touched");
}

#[test]
fn sigterm_and_sigint_end_cleanly_within_two_seconds() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = directory();
        let pidfile = place.path().join("pid");
        let (mut daemon, mut qmp) = Daemon::netdevd(&["-pidfile", &pidfile.to_string_lossy()]);
        let socket = daemon.socket(0);
        qmp.ok("netdev_add", json!({"type": "hubport", "id": "a", "hubid": 1}));
        daemon.signal(signal);
        let status = daemon.ended(Duration::from_secs(2)).expect("ends within two seconds");
        assert_eq!(status.code(), Some(0), "{signal}");
        let event = qmp.event("SHUTDOWN", wait::PATIENCE).expect("clients are told");
        assert_eq!(event["data"]["reason"], "host-signal");
        assert!(!socket.exists() && !pidfile.exists(), "sockets and files are unlinked");
        let left: Vec<_> = fs::read_dir(daemon.directory()).expect("its directory").flatten().collect();
        let left: Vec<_> = left.iter().map(fs::DirEntry::file_name).filter(|name| name != "stderr").collect();
        assert!(left.is_empty(), "no lock or temporary file is left: {left:?}");
    }
}

#[test]
fn sigterm_releases_taps_and_runs_downscripts() {
    if !ready("sigterm_releases_taps_and_runs_downscripts", &[Need::Root, Need::Tap]) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let script = lab.daemon.directory().join("down.sh");
    let record = lab.daemon.directory().join("down.txt");
    fs::write(&script, format!("#!/bin/sh\necho \"$@\" >>{}\n", record.display())).expect("a script");
    let mut command = Command::new("chmod");
    wait::success(command.arg("+x").arg(&script), 5);
    lab.tap("t", &json!({"downscript": script}));
    lab.daemon.signal(Signal::SIGTERM);
    lab.daemon.ended(Duration::from_secs(2)).expect("ends within two seconds");
    assert_eq!(fs::read_to_string(&record).expect("the downscript has run"), "t\n");
    assert_eq!(lab.home.links(), Vec::<String>::new());
}

#[test]
fn after_sigkill_it_starts_again_in_the_same_place() {
    let place = directory();
    let pidfile = place.path().join("pid").to_string_lossy().into_owned();
    let (first, _qmp) = Daemon::netdevd(&["-pidfile", &pidfile]);
    let left = first.kill();
    let second = Daemon::of(Program::Netdevd).args(["-pidfile", &pidfile]).directory(left).start();
    let mut qmp = second.client();
    qmp.ok("query-status", json!({}));
    assert_eq!(fs::read_to_string(&pidfile).expect("a pid file").trim(), second.pid().to_string());
}

#[test]
fn sighup_reopens_logs_and_changes_nothing_else() {
    let (mut daemon, mut qmp) = Daemon::netdevd(&[]);
    daemon.signal(Signal::SIGHUP);
    qmp.ok("query-status", json!({}));
    assert!(daemon.ended(Duration::from_millis(100)).is_none(), "it goes on");
}

#[test]
fn qmp_is_served_on_stdio() {
    let mut command = wait::mortal(netdevd());
    command.args(["-qmp", "stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("netdevd starts");
    let lines =
        "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-name\",\"id\":1}{\"execute\":\"quit\"}";
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, lines.as_bytes()).expect("a write");
    let status = wait::child(&mut child, wait::PATIENCE);
    if status.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().expect("its output");
    let said = text(&output.stdout);
    assert!(status.is_some_and(|status| status.success()), "quit ends it: {said}");
    assert!(said.starts_with("{\"QMP\"") && said.contains("\"id\": 1"), "{said}");
    assert!(
        said.lines().all(|line| !line.is_empty()) && said.matches("\r\n").count() == said.lines().count()
    );
}

#[test]
fn options_take_one_dash_or_two_and_two_commas_are_one() {
    let (_daemon, mut qmp) = Daemon::netdevd(&["--netdev", "hubport,id=a,hubid=1", "-name", "guest=a,,b"]);
    assert_eq!(qmp.ok("query-name", json!({}))["name"], "a,b");
    assert_eq!(qmp.ok("query-netdev", json!({}))[0]["id"], "a");
}

#[test]
fn cores_outside_the_mask_are_refused_and_the_mask_is_kept() {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(netdevd()).args(["-cores", "1"]);
    let output = wait::output(&command, 10);
    assert!(!output.status.success(), "core 1 is outside the mask");
    let daemon = Daemon::of(Program::Netdevd).under(["taskset", "-c", "0"]).start();
    daemon.client().ok("query-status", json!({}));
    for task in fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("tasks").flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
        assert_eq!(allowed.and_then(|line| line.split_whitespace().nth(1)), Some("0"), "{status}");
    }
}

#[test]
fn metrics_are_open_metrics() {
    let place = directory();
    let path = place.path().join("metrics");
    let argument = format!("unix:{}", path.display());
    let (_daemon, mut qmp) = Daemon::netdevd(&["-metrics", &argument]);
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "a", "hubid": 1}));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("the metrics socket");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
    std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    assert!(head.starts_with("HTTP/1.") && head.contains(" 200 "), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let mut families = Vec::new();
    for line in body.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            families.push(family.split(' ').next().expect("a name").to_string());
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(families.iter().any(|family| name.starts_with(family)), "no family of {line}");
            let closed = name.contains('{') == name.ends_with('}');
            assert!(closed, "{line}");
        }
    }
    assert!(body.contains("\"a\"") && !families.is_empty(), "{body}");
}
