//! Scripts of taps: their arguments, their failures, and that nobody waits for a slow one.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::lab::Lab;
use tests::program;
use tests::skip::{Need, ready};
use tests::wait;

const NEEDS: &[Need] = &[Need::Root, Need::Tap];

/// Writes a shell script into the daemon's directory.
fn script(lab: &Lab, name: &str, body: &str) -> PathBuf {
    let path = lab.daemon.directory().join(name);
    program::write(&path, &format!("#!/bin/sh\n{body}\n"));
    path
}

#[test]
fn scripts_get_the_interface_as_their_argument() {
    if !ready("scripts_get_the_interface_as_their_argument", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let record = lab.daemon.directory().join("record");
    let up = script(&lab, "up", &format!("echo up $# $1 >>{}", record.display()));
    let down = script(&lab, "down", &format!("echo down $# $1 >>{}", record.display()));
    lab.tap("t", &json!({"script": up, "downscript": down}));
    assert_eq!(fs::read_to_string(&record).expect("the script has run"), "up 1 t\n");
    lab.qmp.ok("netdev_del", json!({"id": "t"}));
    let ran =
        wait::until(wait::PATIENCE, || fs::read_to_string(&record).ok().filter(|text| text.contains("down")));
    assert_eq!(ran.expect("the downscript runs"), "up 1 t\ndown 1 t\n");
}

#[test]
fn a_script_that_fails_leaves_nothing() {
    if !ready("a_script_that_fails_leaves_nothing", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let fails = script(&lab, "fails", "exit 3");
    let before = lab.daemon.open_files();
    let options = json!({"type": "tap", "id": "t", "ifname": "t", "script": fails, "downscript": "no"});
    let said = lab.qmp.refused("netdev_add", options);
    assert_eq!(said, format!("network script {} failed with status 768", fails.display()));
    assert_eq!(lab.home.links(), Vec::<String>::new());
    let settled = wait::until(wait::PATIENCE, || (lab.daemon.open_files() <= before).then_some(()));
    assert!(settled.is_some(), "{before} files before, {} after", lab.daemon.open_files());
    lab.tap("t", &json!({}));
}

#[test]
fn a_slow_script_holds_up_its_own_client_only() {
    if !ready("a_slow_script_holds_up_its_own_client_only", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let gate = lab.daemon.directory().join("gate");
    let body = format!("while [ ! -e {} ]; do sleep 0.01; done", gate.display());
    let slow = script(&lab, "slow", &body);
    let command = json!({
        "execute": "netdev_add", "id": "slow",
        "arguments": {"type": "tap", "id": "t", "ifname": "t", "script": slow, "downscript": "no"},
    });
    lab.qmp.send(command.to_string().as_bytes()).expect("a write");
    lab.qmp.send(b"{\"execute\":\"query-name\",\"id\":\"next\"}").expect("a write");
    let mut other = lab.daemon.client();
    let begun = Instant::now();
    for _ in 0..20 {
        other.ok("query-status", json!({}));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "the other client waits for the script");
    let said = other.refused("netdev_add", json!({"type": "hubport", "id": "t", "hubid": 1}));
    assert_eq!(said, "Duplicate ID 't'", "the id is reserved meanwhile");
    fs::write(&gate, "").expect("the gate opens");
    let first = lab.qmp.reply(wait::PATIENCE).expect("a reply");
    let second = lab.qmp.reply(wait::PATIENCE).expect("a reply");
    assert_eq!((&first["id"], &second["id"]), (&json!("slow"), &json!("next")), "replies keep their order");
    assert!(first.get("return").is_some(), "{first}");
}

#[test]
fn a_script_inherits_only_the_standard_files_and_the_tap() {
    if !ready("a_script_inherits_only_the_standard_files_and_the_tap", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let record = lab.daemon.directory().join("record");
    // The shell holds its own script open too, on a high number, and ls its directory.
    let lists = script(
        &lab,
        "lists",
        &format!("for f in /proc/$$/fd/*; do readlink $f; done >{}; true", record.display()),
    );
    lab.tap("t", &json!({"script": lists}));
    let text = fs::read_to_string(&record).expect("the script has run");
    for foreign in
        ["socket:", "anon_inode:[eventpoll]", "anon_inode:[io_uring]", "memfd:", "anon_inode:[eventfd]"]
    {
        assert!(!text.contains(foreign), "the script inherits {foreign}: {text}");
    }
}
