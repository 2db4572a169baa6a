//! `passt` netdevs over a fake engine, with programs of the shell's in passt's place.

use super::Client;
use crate::reactor::Part;
use engine::backend::stream::End;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Finds the file for its number, says who it is, and holds its socket.
const SERVES: &str =
    "while [ $# -gt 0 ]; do case $1 in --pid) file=$2;; esac; shift; done; echo $$ >$file; exec cat <&3 >&3";

fn program(directory: &Path, body: &str) -> String {
    let path = directory.join("passt");
    let new = directory.join("new");
    crate::testing::program(&new, &format!("#!/bin/sh\n{body}\n"));
    std::fs::rename(new, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

impl Client {
    /// Handles what happens until the netdev stands like that.
    #[track_caller]
    fn passt_becomes(&mut self, state: &str, error: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let shown = self.ok("query-netdev", json!({"name": "p"}))[0].clone();
            let transport = &shown["transport"];
            let why = transport["error"].as_str().unwrap_or_default();
            if transport["state"] == state && why.contains(error) {
                return shown;
            }
            assert!(Instant::now() < end, "it stands otherwise: {shown}");
            let mut ready = Vec::new();
            self.reactor.wait(Some(Duration::from_millis(20)), &mut ready).unwrap();
            for ready in ready {
                match ready.token.part {
                    Part::Passt => self.state.passt_ready(ready, &mut self.events),
                    Part::Streams => self.state.stream_ready(ready, &mut self.events),
                    // The host's interfaces come and go beside the test.
                    Part::Links => self.state.links_changed(&mut self.events),
                    _ => {}
                }
            }
            self.state.completed(&mut self.events);
        }
    }

    fn passt_pid(&mut self) -> i32 {
        let line = self.line("info network");
        let pid = line.trim_end().strip_prefix("p: index=0,type=passt,stream,connected to pid ");
        pid.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }
}

fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_passt_is_started_again_when_it_dies_or_closes_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path(), SERVES);
    let mut c = Client::new();
    c.ok("netdev_add", json!({"type": "passt", "id": "p", "path": path}));
    let shown = c.passt_becomes("ready", "");
    assert_eq!((&shown["link"], &shown["path"]), (&json!(true), &json!(path)));
    let first = c.passt_pid();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let shown = c.passt_becomes("failed", "passt has ended; it is started again");
    assert_eq!(shown["link"], false);
    assert_eq!(c.line("info network"), "p: index=0,type=passt,launching passt\r\n");
    let shown = c.passt_becomes("ready", "");
    assert_eq!(shown["link"], true);
    let second = c.passt_pid();
    assert_ne!(first, second);
    // The worker says that the connection has ended, while the process lives on.
    let report = c.log.streams.lock().unwrap_or_else(PoisonError::into_inner).last().unwrap().clone();
    report.tell(End::Closed);
    c.passt_becomes("failed", "passt has closed its connection");
    c.passt_becomes("ready", "");
    let third = c.passt_pid();
    assert_ne!(second, third);
    c.ok("netdev_del", json!({"id": "p"}));
    assert!(!lives(third), "it has ended with the reply");
    let end = Instant::now() + Duration::from_secs(5);
    while lives(second) {
        assert!(Instant::now() < end, "one that was given up lives on");
        std::thread::yield_now();
    }
    assert_eq!(c.events.len(), 0, "nothing is told, as in QEMU");
}

#[test]
fn one_that_does_not_come_back_is_tried_again_and_goes_with_its_netdev() {
    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path(), SERVES);
    let mut c = Client::new();
    c.ok("netdev_add", json!({"type": "passt", "id": "p", "path": path, "link": false}));
    assert_eq!(c.passt_becomes("ready", "")["link"], false, "as it was asked for");
    program(directory.path(), "echo no more >&2; exit 7");
    kill(Pid::from_raw(c.passt_pid()), Signal::SIGKILL).unwrap();
    c.passt_becomes("failed", "Passt exited with code 7: no more; it is started again");
    program(directory.path(), SERVES);
    assert_eq!(c.passt_becomes("ready", "")["link"], false);
    let pid = c.passt_pid();
    c.state.shutdown();
    assert!(!lives(pid), "it ends with the daemon");
}

#[test]
fn one_that_does_not_start_leaves_the_id_free() {
    let mut c = Client::new();
    let none = json!({"type": "passt", "id": "p", "path": "/nowhere"});
    let desc =
        "Error creating daemon: Failed to execute child process “/nowhere” (No such file or directory)";
    for _ in 0..2 {
        c.refused("netdev_add", none.clone(), desc);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = program(directory.path(), "echo 'passt: unrecognized option' >&2; exit 1");
    let bad = json!({"type": "passt", "id": "p", "path": path});
    c.refused("netdev_add", bad, "Passt exited with code 1: passt: unrecognized option");
    program(directory.path(), SERVES);
    c.ok("netdev_add", json!({"type": "passt", "id": "p", "path": path}));
    c.ok("netdev_del", json!({"id": "p"}));
}
