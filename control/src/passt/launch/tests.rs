//! Programs in passt's place, of a few lines of the shell's each.

use super::*;
use engine::backend::child::pidfd_of;
use std::path::Path;

const LONG: Duration = Duration::from_secs(20);
/// Finds the file for its number, as passt does.
const PARSE: &str = "while [ $# -gt 0 ]; do case $1 in --pid) file=$2;; esac; shift; done";

fn program(body: &str) -> tempfile::TempPath {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    crate::testing::program(&path, &format!("#!/bin/sh\n{body}\n"));
    path
}

fn start(path: &str, limit: Duration) -> Result<Started, LaunchError> {
    let options = PasstOptions { path: Some(path.into()), ..PasstOptions::default() };
    launch(&options, limit, &Wake::new().unwrap())
}

fn refused(path: &str, limit: Duration) -> String {
    start(path, limit).map_or_else(|error| error.to_string(), |started| format!("{started:?}"))
}

fn run(body: &str) -> String {
    refused(program(body).to_str().unwrap(), LONG)
}

/// Whether a process is there and has not ended.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

/// Waits until a process that was killed has ended: a signal is sent at once, and a child of the one that was waited for may die after it.
fn ends(pid: u32) -> bool {
    let Ok(process) = pidfd_of(pid) else { return true };
    readable([process.as_fd()], Instant::now() + LONG).unwrap() == [true]
}

#[test]
fn what_ends_badly_is_told_with_its_words() {
    assert_eq!(
        run("echo 'passt: unrecognized option' >&2; exit 3"),
        "Passt exited with code 3: passt: unrecognized option"
    );
    assert_eq!(run("exit 1"), "Passt exited with code 1");
    assert_eq!(run("kill -9 $$"), "Passt killed with signal 9");
    let none =
        "Error creating daemon: Failed to execute child process “/nowhere/passt” (No such file or directory)";
    assert_eq!(refused("/nowhere/passt", LONG), none);
    let denied = "Error creating daemon: Failed to execute child process “/dev/null” (Permission denied)";
    assert_eq!(refused("/dev/null", LONG), denied);
}

#[test]
fn one_that_does_not_say_who_it_is_is_refused_and_its_file_goes() {
    for body in ["exit 0", &format!("{PARSE}; echo x >$file"), &format!("{PARSE}; echo 1 >$file")] {
        let text = run(body);
        let path =
            text.strip_prefix("File '").and_then(|rest| rest.strip_suffix("' did not contain a valid PID."));
        let path = path.unwrap_or_else(|| panic!("{text}"));
        assert!(path.contains("/passt-"), "{path}");
        assert!(!Path::new(path).exists(), "{path} is left");
    }
    let gone = run(&format!("{PARSE}; true & echo $! >$file; wait; echo gone"));
    assert!(gone.ends_with("did not contain a valid PID. gone"), "{gone}");
}

#[test]
fn one_that_hangs_is_killed_with_what_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let body = format!("sleep 100 & echo $! $$ >{}; wait", pids.display());
    let script = program(&body);
    let text = refused(script.to_str().unwrap(), Duration::from_secs(1));
    assert_eq!(text, "Passt has not started within 1 seconds; it was killed");
    for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
        assert!(ends(pid.parse().unwrap()), "{pid} lives");
    }
}

#[test]
fn a_launch_can_be_stopped() {
    let options = PasstOptions { path: Some("/bin/cat".into()), ..PasstOptions::default() };
    let script = program("exec sleep 100");
    let options = PasstOptions { path: script.to_str().map(str::to_owned), ..options };
    let stop = Wake::new().unwrap();
    stop.wake();
    let error = launch(&options, LONG, &stop).unwrap_err();
    assert_eq!(error.to_string(), "Passt was killed while it started, since netdevd ends");
}

/// Reads from descriptor 3 until its end, in the foreground or not.
fn serves(body: &str) {
    let script = program(body);
    let Started { socket, process, said: _said } = start(script.to_str().unwrap(), LONG).unwrap();
    assert!(lives(process.pid()));
    let mut bytes = [0; 5];
    nix::unistd::write(&socket, b"frame").unwrap();
    let mut got = 0;
    while got < bytes.len() {
        got += nix::unistd::read(&socket, &mut bytes[got..]).unwrap();
    }
    assert_eq!(&bytes, b"frame", "what came back by descriptor 3");
    let pid = process.pid();
    process.end();
    assert!(!lives(pid));
}

#[test]
fn one_in_the_background_is_passt() {
    serves(&format!("{PARSE}; exec >/dev/null 2>&1; setsid cat <&3 >&3 & echo $! >$file"));
}

#[test]
fn one_in_the_foreground_is_passt_and_still_says_something() {
    serves(&format!("{PARSE}; echo hello; echo $$ >$file; exec cat <&3 >&3"));
}

#[test]
fn one_that_does_not_want_to_end_is_killed() {
    serves(&format!("trap '' TERM; {PARSE}; echo $$ >$file; exec cat <&3 >&3"));
}
