//! Many connections: one after the other, and at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::skip::{Need, ready};
use tests::wait::{PATIENCE, success, until};

use crate::world::{guest, has_process, pid};

/// Gives back what it is sent, on as many connections as come.
const ECHO: &str = r"
import selectors, socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=4096)
ready = selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)
print('ready', flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            ready.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        word = key.fileobj.recv(100)
        if word:
            key.fileobj.sendall(word)
        else:
            ready.unregister(key.fileobj)
            key.fileobj.close()
";

/// The server, a process of its own: its descriptors are not ours.
struct Echo(Child);

impl Echo {
    fn start(lab: &Lab, port: u16) -> Echo {
        let mut command = lab.home.command("python3");
        let child = command.args(["-c", ECHO, &port.to_string()]).stdout(Stdio::piped()).spawn();
        let mut echo = Echo(child.expect("python3"));
        let mut said = [0; 5];
        let out = echo.0.stdout.as_mut().expect("its output");
        out.read_exact(&mut said).expect("it listens");
        echo
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One after the other, and at once. All of it takes a few seconds; `NETDEVD_CONNECTIONS` asks for more.
const CONNECTIONS: (usize, usize) = (2000, 1000);
/// Descriptors that a process may have more than before.
const FEW: usize = 3;

fn connections() -> (usize, usize) {
    let more = std::env::var("NETDEVD_CONNECTIONS").ok().and_then(|text| text.parse().ok());
    more.map_or(CONNECTIONS, |more| (more, more))
}

/// Descriptors of the netdev's process.
fn open_files(process: i32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// The guest connects and says a word, the host answers it and closes first, or last.
fn one_after_the_other(listener: &TcpListener, place: &NetNs, to: SocketAddr, count: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..count {
                let mut stream = listener.accept().expect("a connection").0;
                let mut word = [0; 4];
                stream.read_exact(&mut word).expect("a word");
                stream.write_all(&word).expect("the answer");
                if at % 2 == 0 {
                    assert_eq!(stream.read(&mut word).expect("an end"), 0);
                }
            }
        });
        place.inside(|| {
            for at in 0..count {
                let mut stream = TcpStream::connect(to).expect("a connection");
                let mut word = [0; 4];
                stream.write_all(&(at as u32).to_be_bytes()).expect("a word goes");
                stream.read_exact(&mut word).expect("the answer");
                assert_eq!(word, (at as u32).to_be_bytes());
                if at % 2 == 1 {
                    assert_eq!(stream.read(&mut word).expect("an end"), 0);
                }
            }
        });
    });
}

#[test]
fn connections_that_have_closed_leave_nothing_and_many_are_served_at_once() {
    let test = "connections_that_have_closed_leave_nothing_and_many_are_served_at_once";
    if !has_process(test) || !ready(test, &[Need::Tool("python3")]) {
        return;
    }
    let (in_turn, at_once) = connections();
    // One end here, one at the server, and one in the process, which have the same limits.
    let limit = format!("--nofile={0}:{0}", (at_once + 1000).max(20_000));
    let mut command = Command::new("prlimit");
    success(command.args(["--pid", &std::process::id().to_string(), &limit]), 10);
    let (mut lab, place) = guest(&json!({}));
    let process = pid(&mut lab);
    // The ends of so many at once are more frames than a tap's queue holds, and what is lost of them comes again ever later.
    place.ip(&format!("link set guest txqueuelen {}", (4 * at_once).max(1000)));
    let listener = lab.home.inside(|| TcpListener::bind(("127.0.0.1", 8110)).expect("a port of the host"));
    let to = SocketAddr::from(([10, 0, 2, 2], 8110));
    one_after_the_other(&listener, &place, to, 10);
    let before = open_files(process);
    let rates: Vec<f64> = (0..10)
        .map(|_| {
            let began = Instant::now();
            one_after_the_other(&listener, &place, to, in_turn / 10);
            (in_turn / 10) as f64 / began.elapsed().as_secs_f64()
        })
        .collect();
    eprintln!("{in_turn} connections, one after the other, a second: {rates:.0?}");
    let left = until(PATIENCE, || Some(open_files(process)).filter(|left| *left <= before + FEW));
    assert!(left.is_some(), "{} descriptors, {before} before", open_files(process));
    let server = Echo::start(&lab, 8111);
    let to_server = SocketAddr::from(([10, 0, 2, 2], 8111));
    let began = Instant::now();
    let mut all = Vec::new();
    place.inside(|| {
        for at in 0..at_once {
            all.push(TcpStream::connect(to_server).expect("a connection"));
            if (at + 1) % (at_once / 5) == 0 {
                eprintln!("{} connections at once: {:?}", at + 1, began.elapsed());
            }
        }
    });
    assert!(open_files(process) >= at_once, "they are there");
    let began = Instant::now();
    for (at, mut guest) in all.iter().enumerate() {
        let mut word = [0; 4];
        guest.write_all(&(at as u32).to_be_bytes()).expect("a word goes");
        guest.read_exact(&mut word).expect("it comes back");
        assert_eq!(word, (at as u32).to_be_bytes());
    }
    eprintln!("a word there and back on each: {:?}", began.elapsed());
    let began = Instant::now();
    drop((all, server));
    // Each of the ends that come at once costs libslirp a walk along all connections.
    let patience = PATIENCE * u32::try_from(1 + at_once / 1000).expect("not that many");
    let left = until(patience, || Some(open_files(process)).filter(|left| *left <= before + FEW));
    assert!(left.is_some(), "{} descriptors, {before} before", open_files(process));
    eprintln!("all closed: {:?}", began.elapsed());
    one_after_the_other(&listener, &place, to, 10);
}
