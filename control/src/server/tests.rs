use super::*;
use crate::chardev::Registry;
use crate::qmp::{CommandInfo, CommandTable, Event, QmpError};
use crate::reactor::{Part, Reactor};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

/// Commands that show what the server does: `echo`, `big` (a long reply), `later`, `getfd`, `shout` (an event).
#[derive(Default)]
struct Fake {
    tickets: u64,
    done: Vec<(u64, Result<Value, QmpError>)>,
    fds: Vec<(String, OwnedFd)>,
    closed: Vec<u64>,
    executed: usize,
}

struct Table;

impl CommandTable for Table {
    fn find(&self, name: &str) -> Option<CommandInfo> {
        ["echo", "big", "later", "getfd", "shout", "urgent"]
            .contains(&name)
            .then_some(CommandInfo { allow_oob: name == "urgent" })
    }

    fn check(&self, _: &str, _: &Map<String, Value>) -> Result<(), QmpError> {
        Ok(())
    }
}

impl Executor for Fake {
    fn table(&self) -> &dyn CommandTable {
        &Table
    }

    fn version(&self) -> Value {
        json!({"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "test"})
    }

    fn execute(&mut self, origin: &mut Origin<'_>, command: &str, arguments: Map<String, Value>) -> Answer {
        self.executed += 1;
        match command {
            "big" => Answer::Now(Ok(json!("x".repeat(200_000)))),
            "later" => {
                self.tickets += 1;
                Answer::Later(self.tickets)
            }
            "getfd" => {
                let name = arguments["fdname"].as_str().unwrap().to_owned();
                let taken = origin.received.drain(..).next();
                Answer::Now(taken.map_or_else(
                    || Err(QmpError::generic("none")),
                    |fd| {
                        self.fds.push((name, fd));
                        Ok(json!({}))
                    },
                ))
            }
            "shout" => {
                let data = arguments.get("pad").cloned();
                origin.events.push(Event { name: "SHUTDOWN", data, timestamp: (1, 2) });
                Answer::Now(Ok(json!({})))
            }
            _ => Answer::Now(Ok(Value::Object(arguments))),
        }
    }

    fn completed(&mut self, _: &mut Vec<Event>) -> Vec<(u64, Result<Value, QmpError>)> {
        std::mem::take(&mut self.done)
    }

    fn monitor_closed(&mut self, monitor: u64, _last: bool) {
        self.closed.push(monitor);
    }
}

struct Bench {
    reactor: Rc<Reactor>,
    registry: RefCell<Registry>,
    server: Server,
    fake: Fake,
    directory: tempfile::TempDir,
    sockets: usize,
}

impl Bench {
    fn new() -> Self {
        let reactor = Rc::new(Reactor::new().unwrap());
        Self {
            registry: RefCell::new(Registry::new(Rc::clone(&reactor)).unwrap()),
            server: Server::new(Rc::clone(&reactor)),
            reactor,
            fake: Fake::default(),
            directory: tempfile::tempdir().unwrap(),
            sockets: 0,
        }
    }

    /// A monitor on a socket of its own.
    fn monitor(&mut self) -> String {
        let id = format!("m{}", self.sockets);
        self.sockets += 1;
        let path = self.directory.path().join(&id).to_str().unwrap().to_owned();
        let backend = json!({"type": "socket", "data":
            {"addr": {"type": "unix", "data": {"path": path}}, "server": true}});
        self.registry.borrow_mut().add(&id, &backend, &mut |_| Err(String::new())).unwrap();
        self.server.add_monitor(&id, false, &self.registry, &mut self.fake).unwrap();
        path
    }

    /// Handles events until there are none for a moment.
    fn run(&mut self) {
        loop {
            let mut ready = Vec::new();
            self.reactor.wait(Some(Duration::from_millis(1)), &mut ready).unwrap();
            if ready.is_empty() {
                return;
            }
            for event in ready {
                match event.token.part {
                    Part::Chardev => {
                        let mut connected = Vec::new();
                        self.registry.borrow_mut().ready(event, &mut connected);
                        for one in connected {
                            self.server.connected(one, &self.registry, &mut self.fake);
                        }
                    }
                    Part::Monitor => self.server.ready(event, &self.registry, &mut self.fake),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn client(&mut self, path: &str) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        self.run();
        let mut client = Client { reader: BufReader::new(stream) };
        assert_eq!(client.line()["QMP"]["version"]["package"], "test");
        client.send("{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
        self.run();
        assert_eq!(client.line(), json!({"return": {}}));
        client
    }

    fn finish_later(&mut self, ticket: u64, result: Value) {
        self.fake.done.push((ticket, Ok(result)));
        self.server.completed(&self.registry, &mut self.fake);
    }
}

struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn send_with(&mut self, text: &str, file: &std::fs::File) {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let numbers = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let fd = self.reader.get_ref().as_raw_fd();
        sendmsg::<()>(fd, &[IoSlice::new(text.as_bytes())], &rights, MsgFlags::empty(), None).unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "{line:?}");
        serde_json::from_str(&line).unwrap()
    }

    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let mut bench = Bench::new();
    let path = bench.monitor();
    let mut client = bench.client(&path);
    let all: String =
        (0..500).map(|i| format!("{{'execute':'echo','arguments':{{'n':{i}}},'id':{i}}}")).collect();
    client.send(&all);
    bench.run();
    for i in 0..500 {
        assert_eq!(client.line(), json!({"return": {"n": i}, "id": i}));
    }
}

#[test]
fn several_monitors_work_at_once_and_all_get_events() {
    let mut bench = Bench::new();
    let (first, second) = (bench.monitor(), bench.monitor());
    let (mut one, mut two) = (bench.client(&first), bench.client(&second));
    one.send("{'execute':'later','id':1}");
    bench.run();
    two.send("{'execute':'shout','id':2}");
    bench.run();
    let event = json!({"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN"});
    assert_eq!(two.line(), event);
    assert_eq!(two.line(), json!({"return": {}, "id": 2}));
    assert_eq!(one.line(), event);
    bench.finish_later(1, json!("done"));
    assert_eq!(one.line(), json!({"return": "done", "id": 1}));
}

#[test]
fn a_command_under_way_holds_up_its_client_only_but_for_oob() {
    let mut bench = Bench::new();
    let path = bench.monitor();
    let mut client = bench.client(&path);
    client.send("{'execute':'later','id':1}{'execute':'echo','id':2}{'exec-oob':'urgent','id':3}");
    bench.run();
    assert_eq!(client.line()["id"], 3);
    bench.finish_later(1, json!({}));
    assert_eq!(client.line()["id"], 1);
    assert_eq!(client.line()["id"], 2);
}

#[test]
fn each_command_gets_its_own_descriptor() {
    let mut bench = Bench::new();
    let path = bench.monitor();
    let mut client = bench.client(&path);
    let files: Vec<_> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
    client.send("{'execute':'later'}");
    bench.run();
    // The descriptors come while a command is under way, and are not mixed up by waiting.
    for (i, file) in files.iter().enumerate() {
        client.send_with(&format!("{{'execute':'getfd','arguments':{{'fdname':'f{i}'}}}}"), file);
    }
    client.send("{'execute':'getfd','arguments':{'fdname':'none'}}");
    bench.run();
    assert!(bench.fake.fds.is_empty());
    bench.finish_later(1, json!({}));
    bench.run();
    for _ in 0..4 {
        assert_eq!(client.line(), json!({"return": {}}));
    }
    assert_eq!(client.line()["error"]["desc"], "none");
    use std::os::unix::fs::MetadataExt;
    for (i, (name, fd)) in std::mem::take(&mut bench.fake.fds).into_iter().enumerate() {
        assert_eq!(name, format!("f{i}"));
        assert_eq!(std::fs::File::from(fd).metadata().unwrap().ino(), files[i].metadata().unwrap().ino());
    }
}

#[test]
fn a_client_that_does_not_read_is_bounded_and_disturbs_nobody() {
    let mut bench = Bench::new();
    let (first, second) = (bench.monitor(), bench.monitor());
    let (mut slow, mut other) = (bench.client(&first), bench.client(&second));
    for _ in 0..100 {
        slow.send("{'execute':'big'}");
    }
    bench.run();
    let executed = bench.fake.executed;
    assert!(executed < 20, "{executed} replies of 200 kB wait");
    other.send("{'execute':'echo','id':'quick'}");
    bench.run();
    assert_eq!(other.line()["id"], "quick");
    // A reply is more than a socket holds: both sides must be at work.
    let reader = std::thread::spawn(move || {
        for _ in 0..100 {
            assert_eq!(slow.line()["return"].as_str().unwrap().len(), 200_000);
        }
        slow
    });
    while !reader.is_finished() {
        bench.run();
    }
    drop(reader.join().unwrap());
    assert_eq!(bench.fake.executed, 101);
}

#[test]
fn a_client_that_does_not_read_its_events_is_cut_off() {
    let mut bench = Bench::new();
    let (first, second) = (bench.monitor(), bench.monitor());
    let (_deaf, mut other) = (bench.client(&first), bench.client(&second));
    let pad = "y".repeat(1 << 20);
    for _ in 0..20 {
        let shout = format!("{{'execute':'shout','arguments':{{'pad':'{pad}'}}}}");
        // More than a socket holds: both sides must be at work.
        let reader = std::thread::spawn(move || {
            other.send(&shout);
            assert_eq!(other.line()["event"], "SHUTDOWN");
            assert_eq!(other.line(), json!({"return": {}}));
            other
        });
        while !reader.is_finished() {
            bench.run();
        }
        other = reader.join().unwrap();
    }
    bench.run();
    assert_eq!(bench.server.clients(), 1);
}

#[test]
fn a_client_that_dies_makes_room_and_its_late_reply_goes_nowhere() {
    let mut bench = Bench::new();
    let path = bench.monitor();
    let mut client = bench.client(&path);
    client.send("{'execute':'later'}{'execute':'echo'}");
    bench.run();
    drop(client);
    bench.run();
    assert_eq!((bench.server.clients(), bench.fake.closed.len()), (0, 1));
    let mut next = bench.client(&path);
    bench.finish_later(1, json!("for nobody"));
    next.send("{'execute':'echo','id':5}");
    bench.run();
    assert_eq!(next.line(), json!({"return": {}, "id": 5}));
}

#[test]
fn a_monitor_serves_several_clients_at_once_each_with_its_own_negotiation() {
    let mut bench = Bench::new();
    let path = bench.monitor();
    let (mut first, mut second) = (bench.client(&path), bench.client(&path));
    for client in [&mut first, &mut second] {
        client.send("{'execute':'echo','id':7}");
    }
    bench.run();
    assert_eq!((first.line()["id"].clone(), second.line()["id"].clone()), (json!(7), json!(7)));
    drop(first);
    bench.run();
    assert_eq!(bench.server.clients(), 1);
    second.send("{'execute':'echo','id':8}");
    let third = bench.client(&path);
    assert_eq!(second.line()["id"], 8);
    drop((second, third));
    bench.run();
    assert_eq!(bench.server.clients(), 0);
}

#[test]
fn a_client_that_only_writes_gets_its_replies_before_the_end() {
    let mut bench = Bench::new();
    let path = bench.monitor();
    let mut client = bench.client(&path);
    client.send("{'execute':'later','id':1}{'execute':'echo','id':2}");
    client.reader.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    bench.run();
    bench.finish_later(1, json!({}));
    bench.run();
    assert_eq!((client.line()["id"].clone(), client.line()["id"].clone()), (json!(1), json!(2)));
    assert!(client.is_closed());
}

#[test]
fn the_last_replies_are_sent_at_the_end() {
    let mut bench = Bench::new();
    let path = bench.monitor();
    let mut client = bench.client(&path);
    client.send("{'execute':'big'}{'execute':'big'}{'execute':'big'}");
    bench.run();
    let reader = std::thread::spawn(move || {
        let lengths: Vec<_> = (0..3).map(|_| client.line()["return"].as_str().unwrap().len()).collect();
        (lengths, client.is_closed())
    });
    bench.server.finish(Duration::from_secs(5));
    assert_eq!(reader.join().unwrap(), (vec![200_000; 3], true));
}
