//! The command line client.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tests::daemon::{Daemon, netdevctl};
use tests::wait;

fn run(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = Command::new(netdevctl());
    command.arg("-s").arg(daemon.socket(0)).args(arguments);
    wait::output(&command, 10)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn commands_take_key_value_or_json() {
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    let output = run(&daemon, &["netdev_add", "type=hubport", "id=a", "hubid=1"]);
    assert!(output.status.success(), "{output:?}");
    let output = run(&daemon, &["netdev_add", r#"{"type":"hubport","id":"b","hubid":1}"#]);
    assert!(output.status.success(), "{output:?}");
    let output = run(&daemon, &["set_link", "name=a", "up=off"]);
    assert!(output.status.success(), "{output:?}");
    let list = qmp.ok("query-netdev", json!({}));
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
}

#[test]
fn replies_are_a_table_or_json() {
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "port9", "hubid": 1}));
    let output = run(&daemon, &["--json", "query-netdev"]);
    assert!(output.status.success(), "{output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value, qmp.ok("query-netdev", json!({})));
    let output = run(&daemon, &["query-netdev"]);
    assert!(output.status.success() && text(&output.stdout).contains("port9"), "{output:?}");
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_err(), "a table is for people");
}

#[test]
fn an_error_goes_to_standard_error_and_the_exit_status() {
    let (daemon, _qmp) = Daemon::netdevd(&[]);
    let output = run(&daemon, &["netdev_del", "id=nope"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("Device 'nope' not found"), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn the_socket_may_come_from_the_environment() {
    let (daemon, _qmp) = Daemon::netdevd(&[]);
    let mut command = Command::new(netdevctl());
    command.arg("query-status").env("NETDEVD_QMP", daemon.socket(0));
    assert!(wait::success(&command, 10).contains("running"));
}

#[test]
fn no_daemon_is_a_clear_error() {
    let mut command = Command::new(netdevctl());
    command.args(["-s", "/nowhere/qmp.sock", "query-status"]);
    let output = wait::output(&command, 10);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/nowhere/qmp.sock"), "{output:?}");
}

#[test]
fn help_and_stats_are_there() {
    let mut command = Command::new(netdevctl());
    command.arg("--help");
    assert!(wait::success(&command, 10).contains("netdev_add"));
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "port9", "hubid": 1}));
    let output = run(&daemon, &["stats"]);
    assert!(output.status.success() && text(&output.stdout).contains("port9"), "{output:?}");
}
