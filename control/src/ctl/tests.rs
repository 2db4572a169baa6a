//! netdevctl against a scripted daemon.

use super::stats::tests::sample;
use super::*;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{JoinHandle, spawn};

const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;
const DONE: &str = r#"{"return": {}}"#;

/// A daemon of one client. Joined, it gives what came.
struct Daemon<T> {
    directory: tempfile::TempDir,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Daemon<T> {
    /// Serves one connection.
    fn start(serve: impl FnOnce(UnixStream) -> T + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("qmp")).unwrap();
        let thread = spawn(move || serve(listener.accept().unwrap().0));
        Self { directory, thread }
    }

    /// What netdevctl printed, or why it failed, and what the daemon saw.
    fn run(self, words: &str) -> (Result<String, Failure>, T) {
        let socket = self.directory.path().join("qmp").to_str().unwrap().to_owned();
        let mut out = Vec::new();
        let words = words.split(' ').map(str::to_owned);
        let result = run(words, Some(socket), Screen::default(), &mut out);
        let text = String::from_utf8(out).unwrap();
        (result.map(|()| text), self.thread.join().unwrap())
    }
}

/// Greets, takes the negotiation, and answers each line as it is told; ends when it has no answer or the client goes.
/// Gives the lines after the negotiation.
fn answering(
    greeting: &'static str,
    mut answer: impl FnMut(&Value) -> Option<String> + Send + 'static,
) -> Daemon<Vec<Value>> {
    Daemon::start(move |mut stream| {
        // A client that dislikes the greeting goes at once.
        let _ = writeln!(stream, "{greeting}");
        let mut seen = Vec::new();
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap();
            let negotiation = line["execute"] == "qmp_capabilities";
            let reply = if negotiation { Some(DONE.to_owned()) } else { answer(&line) };
            if !negotiation {
                seen.push(line);
            }
            let Some(reply) = reply else { break };
            // The client may have seen enough.
            let _ = writeln!(stream, "{reply}");
        }
        seen
    })
}

fn returning(value: Value) -> Daemon<Vec<Value>> {
    answering(GREETING, move |_| Some(json!({ "return": value }).to_string()))
}

#[test]
fn commands_go_in_order_on_one_connection() {
    let (printed, seen) = returning(json!({})).run("set_link name=a up=off -- query-status");
    assert_eq!(printed.unwrap(), "");
    assert_eq!(
        seen,
        [
            json!({"execute": "set_link", "arguments": {"name": "a", "up": false}}),
            json!({"execute": "query-status"}),
        ]
    );
}

#[test]
fn replies_are_tables_or_json() {
    let list = json!([{"name": "t0", "up": true}]);
    assert_eq!(returning(list.clone()).run("query-x").0.unwrap(), "name  up\nt0    true\n");
    assert_eq!(returning(list.clone()).run("query-x --json").0.unwrap(), format!("{list}\n"));
    assert_eq!(returning(json!({})).run("--json quit").0.unwrap(), "{}\n");
}

#[test]
fn an_error_ends_with_status_1_and_its_class_and_words() {
    let error = r#"{"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}}"#;
    let daemon = answering(GREETING, |_| Some(error.to_owned()));
    let (printed, seen) = daemon.run("netdev_del id=x -- query-status");
    let failure = printed.unwrap_err();
    assert_eq!((failure.status(), failure.to_string().as_str()), (1, "DeviceNotFound: Device 'x' not found"));
    assert_eq!(seen.len(), 1, "the second command must not run");
}

#[test]
fn events_before_the_reply_are_passed_over() {
    let daemon = answering(GREETING, |_| Some("{\"event\": \"STOP\"}\n{\"return\": \"x\"}".to_owned()));
    assert_eq!(daemon.run("hmp x").0.unwrap(), "x\n");
}

#[test]
fn what_speaks_no_qmp_or_goes_away_ends_with_status_2() {
    let failure = answering("{\"hello\": 1}", |_| None).run("quit").0.unwrap_err();
    assert!(failure.to_string().ends_with("no QMP greeting came") && failure.status() == 2, "{failure}");
    let failure = answering("SSH-2.0-x", |_| None).run("quit").0.unwrap_err();
    assert!(failure.to_string().contains("sent no JSON") && failure.status() == 2, "{failure}");
    let failure = answering(GREETING, |_| None).run("quit").0.unwrap_err();
    assert!(failure.to_string().ends_with("closed before the reply came"), "{failure}");
    let failure = run(["quit".to_owned()], Some("/nowhere/x".into()), Screen::default(), &mut Vec::new());
    let failure = failure.unwrap_err();
    assert!(failure.to_string().contains("/nowhere/x: No such file") && failure.status() == 2, "{failure}");
}

#[test]
fn wrong_words_are_found_before_anything_is_sent() {
    let words = ["quit", "--", "set_link", "up=off"].map(str::to_owned);
    let failure = run(words, Some("/nowhere/x".into()), Screen::default(), &mut Vec::new()).unwrap_err();
    assert!(failure.to_string().starts_with("set_link: Parameter 'name' is missing"), "{failure}");
}

#[test]
fn stats_are_tables_and_watching_gives_as_many_blocks_as_asked_for() {
    let text = returning(sample(1)).run("stats").0.unwrap();
    assert!(text.starts_with("worker  core  turns") && text.contains("leg-full"), "{text}");
    let mut looks = 0;
    let daemon = answering(GREETING, move |_| {
        looks += 1000;
        Some(json!({"return": sample(looks)}).to_string())
    });
    let (text, seen) = daemon.run("stats -w 0.02 -n 2");
    let text = text.unwrap();
    assert_eq!((text.matches("asleep%").count(), seen.len()), (2, 3), "{text}");
    let text = returning(sample(1)).run("stats -w 0.02 -n 2 --json").0.unwrap();
    assert_eq!(text, format!("{0}\n{0}\n", sample(1)));
}

/// Sends events right after the negotiation, then goes.
fn with_events(events: &'static [&'static str]) -> Daemon<()> {
    Daemon::start(move |mut stream| {
        writeln!(stream, "{GREETING}").unwrap();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
        writeln!(stream, "{DONE}").unwrap();
        for name in events {
            let event = json!({"timestamp": {"seconds": 0, "microseconds": 1}, "event": name});
            let _ = writeln!(stream, "{event}");
        }
    })
}

#[test]
fn events_are_printed_until_the_count_or_the_end() {
    let a = "1970-01-01T00:00:00.000001Z A\n";
    assert_eq!(with_events(&["A", "B"]).run("events -n 1").0.unwrap(), a);
    let ended = with_events(&["A", "SHUTDOWN"]).run("events").0.unwrap();
    assert_eq!(ended, format!("{a}{}", a.replace('A', "SHUTDOWN")));
    let json = with_events(&["SHUTDOWN"]).run("events --json").0.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["event"], "SHUTDOWN");
    assert_eq!(with_events(&["A"]).run("events").0.unwrap_err().status(), 2);
}

/// The file that comes with the next bytes.
fn receive(stream: &UnixStream) -> OwnedFd {
    let (mut bytes, mut control) = ([0; 256], nix::cmsg_space!([RawFd; 2]));
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
    let Some(ControlMessageOwned::ScmRights(files)) = message.cmsgs().unwrap().next() else {
        panic!("no file came");
    };
    crate::fds::inherited(files[0]).unwrap()
}

#[test]
fn a_file_goes_along_with_its_command() {
    let daemon = Daemon::start(|mut stream| {
        writeln!(stream, "{GREETING}").unwrap();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
        writeln!(stream, "{DONE}").unwrap();
        let file = receive(&stream);
        // In one piece: a client that has the reply goes, whether the end of the line has come or not.
        stream.write_all(format!("{DONE}\n").as_bytes()).unwrap();
        file
    });
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let (printed, passed) = daemon.run(&format!("--fd {} getfd fdname=x", writer.into_raw_fd()));
    printed.unwrap();
    nix::unistd::write(&passed, b"hello").unwrap();
    let mut bytes = [0; 8];
    assert_eq!(nix::unistd::read(&reader, &mut bytes).unwrap(), 5);
}

#[test]
fn a_file_that_is_not_open_is_named() {
    let words = ["--fd", "987654", "getfd", "fdname=x"].map(str::to_owned);
    let failure = run(words, Some("/nowhere/x".into()), Screen::default(), &mut Vec::new()).unwrap_err();
    assert_eq!(failure.to_string(), "--fd 987654: Bad file number");
}
