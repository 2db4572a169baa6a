use super::*;
use crate::reactor::Reactor;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

struct Bench {
    reactor: Rc<Reactor>,
    registry: Registry,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let reactor = Rc::new(Reactor::new().unwrap());
        let registry = Registry::new(Rc::clone(&reactor)).unwrap();
        Self { reactor, registry, directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn add(&mut self, id: &str, backend: &Value) -> Result<Value, String> {
        self.registry.add(id, backend, &mut |_| Err("none".to_owned())).map_err(|error| error.to_string())
    }

    fn unix(&self, name: &str, server: bool) -> Value {
        json!({"type": "socket", "data":
            {"addr": {"type": "unix", "data": {"path": self.path(name)}}, "server": server}})
    }

    /// Handles events until `done`, for at most five seconds.
    fn until(&mut self, mut done: impl FnMut(&mut Self, Vec<Connected>) -> bool) {
        for _ in 0..100 {
            let mut ready = Vec::new();
            self.reactor.wait(Some(Duration::from_millis(50)), &mut ready).unwrap();
            let mut connected = Vec::new();
            for event in ready {
                self.registry.ready(event, &mut connected);
            }
            if done(self, connected) {
                return;
            }
        }
        panic!("it did not happen");
    }

    fn filename(&self, id: &str) -> String {
        let all = self.registry.query();
        let one = all.as_array().unwrap().iter().find(|one| one["label"] == id).unwrap();
        one["filename"].as_str().unwrap().to_owned()
    }
}

#[test]
fn names_are_unique_and_removal_knows_its_errors() {
    let mut bench = Bench::new();
    let null = json!({"type": "null", "data": {}});
    assert_eq!(bench.add("n", &null), Ok(json!({})));
    assert_eq!(bench.add("n", &null), Err("Chardev with id 'n' already exists".to_owned()));
    assert_eq!(bench.registry.remove("x").unwrap_err().to_string(), "Chardev 'x' not found");
    bench.registry.claim("n", User::Monitor(0)).unwrap();
    assert_eq!(bench.registry.remove("n").unwrap_err().to_string(), "Chardev 'n' is busy");
    let twice = bench.registry.claim("n", User::Monitor(1)).unwrap_err();
    assert_eq!(twice.to_string(), "chardev 'n' is already in use");
    assert_eq!(bench.registry.query(), json!([{"frontend-open": true, "filename": "null", "label": "n"}]));
}

#[test]
fn a_server_takes_one_client_after_the_other() {
    let mut bench = Bench::new();
    let backend = bench.unix("s", true);
    bench.add("s", &backend).unwrap();
    let path = bench.path("s");
    let (chardev, nobody) = bench.registry.claim("s", User::Monitor(7)).unwrap();
    assert!(nobody.is_none());
    assert_eq!(bench.filename("s"), format!("disconnected:unix:{path},server=on"));
    let mut first = UnixStream::connect(&path).unwrap();
    let mut second = UnixStream::connect(&path).unwrap();
    first.write_all(b"one").unwrap();
    second.write_all(b"two").unwrap();
    for expected in ["one", "two"] {
        let mut stream = None;
        bench.until(|_, connected| {
            stream = connected.into_iter().next().map(|connected| connected.stream);
            stream.is_some()
        });
        assert_eq!(bench.filename("s"), format!("unix:{path},server=on"));
        let mut buffer = [0; 8];
        let mut stream = stream.unwrap();
        assert_eq!(stream.receive(&mut buffer, &mut Vec::new()), Ok(Received::Bytes(3)));
        assert_eq!(&buffer[..3], expected.as_bytes());
        assert_eq!(stream.receive(&mut buffer, &mut Vec::new()), Ok(Received::Later));
        assert_eq!(stream.send(b"ok"), Ok(2));
        drop(stream);
        bench.registry.disconnected(chardev);
    }
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ok");
    bench.registry.release(chardev);
    bench.registry.remove("s").unwrap();
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn a_stale_socket_is_taken_over_and_other_files_stay() {
    let mut bench = Bench::new();
    let stale = bench.path("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let backend = bench.unix("stale", true);
    bench.add("a", &backend).unwrap();
    assert!(UnixStream::connect(&stale).is_ok());

    let file = bench.path("file");
    std::fs::write(&file, "precious").unwrap();
    let backend = bench.unix("file", true);
    let error = bench.add("b", &backend).unwrap_err();
    assert_eq!(
        error,
        format!("Failed to add chardev 'b': Failed to bind socket to {file}: Address already in use")
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_socket_that_somebody_else_bound_since_is_left_alone() {
    let mut bench = Bench::new();
    let backend = bench.unix("s", true);
    bench.add("old", &backend).unwrap();
    bench.add("new", &backend).unwrap();
    bench.registry.remove("old").unwrap();
    assert!(UnixStream::connect(bench.path("s")).is_ok());
}

#[test]
fn an_unused_chardev_notices_that_its_client_has_gone() {
    let mut bench = Bench::new();
    let backend = bench.unix("s", true);
    bench.add("s", &backend).unwrap();
    let path = bench.path("s");
    let client = UnixStream::connect(&path).unwrap();
    bench.until(|bench, _| bench.filename("s") == format!("unix:{path},server=on"));
    drop(client);
    bench.until(|bench, _| bench.filename("s").starts_with("disconnected:"));
}

#[test]
fn a_client_comes_back_when_it_may() {
    let mut bench = Bench::new();
    let mut backend = bench.unix("s", false);
    let missing = bench.path("s");
    assert_eq!(
        bench.add("once", &backend),
        Err(format!(
            "Failed to add chardev 'once': Failed to connect to '{missing}': No such file or directory"
        ))
    );
    backend["data"]["reconnect-ms"] = json!(5);
    bench.add("c", &backend).unwrap();
    assert_eq!(bench.filename("c"), format!("disconnected:unix:{missing}"));
    let (chardev, _) = bench.registry.claim("c", User::Monitor(0)).unwrap();
    let listener = UnixListener::bind(&missing).unwrap();
    for _ in 0..2 {
        let mut stream = None;
        bench.until(|_, connected| {
            stream = connected.into_iter().next();
            stream.is_some()
        });
        drop(listener.accept().unwrap());
        assert_eq!(bench.filename("c"), format!("unix:{missing}"));
        drop(stream);
        bench.registry.disconnected(chardev);
    }
}

#[test]
fn descriptors_arrive_with_their_bytes() {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut stream = Stream::unix(ours, false, None).unwrap();
    let file = tempfile::tempfile().unwrap();
    let numbers = [file.as_raw_fd()];
    for round in [b"a", b"b"] {
        sendmsg::<()>(
            theirs.as_raw_fd(),
            &[std::io::IoSlice::new(round)],
            &[ControlMessage::ScmRights(&numbers)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
    }
    for round in [b"a", b"b"] {
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        assert_eq!(stream.receive(&mut buffer, &mut fds), Ok(Received::Bytes(1)));
        assert_eq!((&buffer[..1], fds.len()), (&round[..], 1));
    }
    drop(theirs);
    assert_eq!(stream.receive(&mut [0; 4], &mut Vec::new()), Ok(Received::End));
}

#[test]
fn tcp_shows_both_ends_and_the_port_that_the_kernel_chose() {
    let mut bench = Bench::new();
    let backend = json!({"type": "socket", "data": {
        "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}, "wait": false}});
    bench.add("t", &backend).unwrap();
    let resting = bench.filename("t");
    let port =
        resting.strip_prefix("disconnected:tcp:127.0.0.1:").unwrap().strip_suffix(",server=on").unwrap();
    let client = std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    let peer = client.local_addr().unwrap();
    let expected = format!("tcp:127.0.0.1:{port},server=on <-> {peer}");
    bench.until(|bench, _| bench.filename("t") == expected);
    let taken = json!({"type": "socket", "data": {
        "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": port}}}});
    assert_eq!(
        bench.add("u", &taken),
        Err("Failed to add chardev 'u': Failed to find an available port: Address already in use".to_owned())
    );
}

#[test]
fn what_is_not_supported_is_refused_with_its_name() {
    let mut bench = Bench::new();
    for (option, value) in [("telnet", json!(true)), ("websocket", json!(true)), ("tls-creds", json!("t"))] {
        let mut backend = bench.unix("s", true);
        backend["data"][option] = value;
        let error = bench.add("x", &backend).unwrap_err();
        assert!(
            error.starts_with(&format!("Failed to add chardev 'x': '{option}' is not supported")),
            "{error}"
        );
    }
    let mut backend = bench.unix("s", false);
    backend["data"]["wait"] = json!(true);
    assert_eq!(
        bench.add("x", &backend),
        Err("Failed to add chardev 'x': 'wait' option is incompatible with socket in client connect mode"
            .to_owned())
    );
}
