//! What is no passt, or one that does not know what is asked of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::daemon::{Daemon, Program, directory, netdevd};
use tests::skip::ready;
use tests::wait;

use crate::NEEDS;
use crate::world::{World, becomes, ends, lives, passt};

/// Finds the file for its number, as passt does.
const PARSE: &str = "while [ $# -gt 0 ]; do case $1 in --pid) file=$2;; esac; shift; done";

fn program(directory: &Path, body: &str) -> String {
    let (new, path) = (directory.join("new"), directory.join("program"));
    tests::program::write(&new, &format!("#!/bin/sh\n{body}\n"));
    fs::rename(new, &path).expect("rename");
    path.to_string_lossy().into_owned()
}

fn refused(world: &mut World, options: &Value) -> String {
    let refused = world.lab.qmp.execute("netdev_add", passt(options)).expect_err("it is refused");
    refused.desc
}

#[test]
fn an_option_that_it_does_not_know_is_told_in_its_own_words() {
    if !ready("an_option_that_it_does_not_know_is_told_in_its_own_words", NEEDS) {
        return;
    }
    let mut world = World::without_passt();
    let words = [json!({"str": "--no-such-option"})];
    let desc = refused(&mut world, &json!({"param": words}));
    assert_eq!(desc, "Passt exited with code 1: passt: unrecognized option '--no-such-option'");
    let desc = refused(&mut world, &json!({"mtu": 70_000}));
    assert_eq!(desc, "Passt exited with code 1: Invalid MTU: 70000");
    // As root it becomes nobody, unless it is told otherwise, and then may not write its number down.
    let desc = refused(&mut world, &json!({"param": []}));
    assert!(desc.contains("PID file") || desc.contains("Permission denied"), "{desc}");
    if !crate::knows_rings() {
        let desc = refused(&mut world, &json!({"vhost-user": true}));
        assert_eq!(desc, "Passt exited with code 1: passt: unrecognized option '--vhost-user'");
    }
    assert_eq!(world.left(), Vec::<String>::new());
    world.lab.qmp.ok("netdev_add", passt(&json!({})));
}

/// A daemon with temporary files of its own, which needs no rights.
fn plain() -> (Daemon, tests::qmp::Qmp, tempfile::TempDir) {
    let files = directory();
    let temporary = files.path().join("tmp");
    fs::create_dir(&temporary).expect("a directory");
    let daemon = Daemon::of(Program::Netdevd).env("TMPDIR", &temporary).start();
    let client = daemon.client();
    (daemon, client, files)
}

fn left(files: &Path) -> usize {
    fs::read_dir(files.join("tmp")).expect("a directory").count()
}

#[test]
fn a_path_that_is_none_and_programs_that_end_at_once_are_told() {
    let (_daemon, mut client, files) = plain();
    let mut desc = |path: &str| {
        let args = json!({"type": "passt", "id": "p", "path": path});
        client.execute("netdev_add", args).expect_err("it is refused").desc
    };
    assert_eq!(
        desc("/nowhere/passt"),
        "Error creating daemon: Failed to execute child process “/nowhere/passt” (No such file or directory)"
    );
    assert_eq!(desc(&program(files.path(), "exit 4")), "Passt exited with code 4");
    assert_eq!(desc(&program(files.path(), "kill -9 $$")), "Passt killed with signal 9");
    let empty = desc(&program(files.path(), "exit 0"));
    assert!(empty.starts_with("File '") && empty.ends_with(".pid' did not contain a valid PID."), "{empty}");
    assert_eq!(left(files.path()), 0);
}

#[test]
fn one_that_hangs_holds_up_nobody_and_goes_with_the_daemon() {
    let (mut daemon, mut client, files) = plain();
    let pids = files.path().join("pids");
    let path = program(files.path(), &format!("sleep 1000 & echo $$ $! >{}; wait", pids.display()));
    let line =
        json!({"execute": "netdev_add", "arguments": {"type": "passt", "id": "p", "path": path}, "id": 1});
    client.send(format!("{line}\n").as_bytes()).expect("sent");
    let started = || fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n'));
    let started = wait::until(wait::PATIENCE, started).expect("it starts");
    let mut other = daemon.client();
    let before = Instant::now();
    other.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 0}));
    assert!(before.elapsed() < Duration::from_secs(5), "another client does not wait");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended(wait::PATIENCE).is_some(), "the daemon ends");
    for pid in started.split_whitespace() {
        ends(pid.parse().expect("a number"));
    }
    assert_eq!(left(files.path()), 0);
}

#[test]
fn one_that_hangs_is_killed_after_a_while() {
    let (_daemon, mut client, files) = plain();
    let path = program(files.path(), "exec sleep 1000");
    let line = json!({"execute": "netdev_add", "arguments": {"type": "passt", "id": "p", "path": path}});
    client.send(format!("{line}\n").as_bytes()).expect("sent");
    let reply = client.reply(Duration::from_secs(25)).expect("an answer");
    assert_eq!(reply["error"]["desc"], "Passt has not started within 10 seconds; it was killed");
    client.ok("netdev_add", json!({"type": "hubport", "id": "p", "hubid": 0}));
}

#[test]
fn one_that_dies_again_and_again_is_tried_less_and_less_often() {
    let (_daemon, mut client, files) = plain();
    let starts = files.path().join("starts");
    // The first one lives long enough to be taken for a passt.
    let body = format!(
        "{PARSE}; echo $$ >>{0}; [ $(wc -l <{0}) = 1 ] && first=yes; echo $$ >$file; [ $first ] && exec sleep 0.5; exec true",
        starts.display()
    );
    let path = program(files.path(), &body);
    client.ok("netdev_add", json!({"type": "passt", "id": "p", "path": path}));
    let count = || fs::read_to_string(&starts).map_or(0, |text| text.lines().count());
    // When the first has ended, at once, and after a quarter, a half and a whole second.
    let before = Instant::now();
    let reached = wait::until(wait::PATIENCE, || (count() >= 5).then(|| before.elapsed()));
    let took = reached.expect("it is started again");
    assert!(took >= Duration::from_millis(2200), "five starts within {took:?}");
    becomes(&mut client, "failed", "it is started again");
    client.ok("netdev_del", json!({"id": "p"}));
    // One may just be starting.
    let none = wait::until(wait::PATIENCE, || (left(files.path()) == 0).then_some(()));
    assert!(none.is_some(), "a file is left");
}

/// A netdevd in passt's place, whose nic serves the rings that ours has, and a `dgram` netdev behind it.
fn on_rings(files: &Path) -> String {
    let options = format!(
        "local.type=unix,local.path={0}/far.near,remote.type=unix,remote.path={0}/far",
        files.display()
    );
    let body = format!(
        "for word; do [ $word = --vhost-user ] && rings=yes; done; [ $rings ] || exit 9; {PARSE}; \
         exec {} -chardev socket,id=c,fd=3 -netdev dgram,id=d,{options} -device virtio-net,id=n,chardev=c,netdev=d -pidfile $file",
        netdevd().display()
    );
    program(files, &body)
}

#[test]
fn frames_pass_on_rings_and_again_after_its_death() {
    let (daemon, mut client, files) = plain();
    let path = on_rings(files.path());
    let bind = |name: &str| {
        let socket = std::os::unix::net::UnixDatagram::bind(files.path().join(name)).expect("a socket");
        socket.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
        socket
    };
    let (near, far) = (bind("near"), bind("far"));
    let local = |path: &str| json!({"type": "unix", "path": files.path().join(path)});
    client.ok(
        "netdev_add",
        json!({"type": "dgram", "id": "d", "local": local("near.near"), "remote": local("near")}),
    );
    client.ok("netdev_add", json!({"type": "passt", "id": "p", "path": path, "vhost-user": true}));
    for (port, netdev) in [("hd", "d"), ("hp", "p")] {
        client.ok("netdev_add", json!({"type": "hubport", "id": port, "hubid": 0, "netdev": netdev}));
    }
    let mut last = 0;
    for round in 0..2_u8 {
        let mut pid = 0;
        let joined = wait::until(wait::PATIENCE, || {
            let transport = becomes(&mut client, "ready", "");
            assert_eq!(transport["io"], "ring");
            let info = transport["info"].as_str().unwrap_or_default();
            pid = info.strip_prefix("vhost-user,connected to pid ")?.parse().ok()?;
            (pid != last).then_some(())
        });
        assert!(joined.is_some() && lives(pid), "a passt is joined: {}", daemon.stderr());
        last = pid;
        let mut bytes = [0; 2000];
        let frame = tests::packet::frame([0xff; 6], [2, 0, 0, 0, 0, 1], &[round + 1; 100]);
        near.send_to(&frame, files.path().join("near.near")).expect("sent");
        let length = far.recv(&mut bytes).expect("it comes out");
        assert!(bytes[..length] == frame);
        far.send_to(&frame, files.path().join("far.near")).expect("sent");
        let length = near.recv(&mut bytes).expect("it comes in");
        assert!(bytes[..length] == frame);
        if round == 0 {
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it was there");
            // The place where frames come to is taken over by the next one.
            let _ = fs::remove_file(files.path().join("far.near"));
        }
    }
    client.ok("netdev_del", json!({"id": "p"}));
    assert!(!lives(last), "it ends with its netdev");
    let events: Vec<Value> = std::iter::from_fn(|| client.receive(Duration::from_millis(50)).ok()).collect();
    assert!(events.iter().all(|event| event["event"] != "NETDEV_VHOST_USER_CONNECTED"), "{events:?}");
}
