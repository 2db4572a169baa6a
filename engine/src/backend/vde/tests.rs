//! Against a switch of our own, which does what `vde_switch` does.

use super::{VdeOptions, open};
use crate::backend::pair::QueuePair;
use crate::backend::testing::{World, frame};
use crate::burst::BURST;
use crate::mem::arena::{Arena, ArenaConfig};
use crate::port::Turn;
use crate::port::counters::DropReason;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a switch knows of a port.
struct Port {
    /// The stream, its frames, and the request.
    stream: UnixStream,
    data: UnixDatagram,
    request: Vec<u8>,
}

/// A switch that takes one port, or behaves otherwise.
struct Switch {
    directory: TempDir,
    listener: UnixListener,
}

impl Switch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("ctl")).unwrap();
        Self { directory, listener }
    }

    fn options(&self) -> VdeOptions {
        VdeOptions { sock: self.directory.path().to_str().unwrap().into(), ..VdeOptions::default() }
    }

    /// Takes the next port.
    fn take(&self) -> Port {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut request = vec![0; 256];
        let len = stream.read(&mut request).unwrap();
        request.truncate(len);
        let theirs: Vec<u8> = request[14..122].iter().copied().take_while(|byte| *byte != 0).collect();
        let theirs = String::from_utf8(theirs).unwrap();
        let path = self.directory.path().join("001.5");
        let data = UnixDatagram::bind(&path).unwrap();
        data.connect(theirs).unwrap();
        data.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(&address(&path)).unwrap();
        Port { stream, data, request }
    }

    /// Files in its directory beside its own.
    fn strangers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "ctl" && name != "001.5").collect()
    }
}

/// A `struct sockaddr_un`.
fn address(path: &Path) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(path.to_str().unwrap().as_bytes());
    address.resize(110, 0);
    address
}

fn arena() -> Arc<Arena> {
    Arena::new(&ArenaConfig { initial: 1 << 20, step: 1 << 20, hugepages: false }).unwrap()
}

fn start(world: &mut World, queue: &mut QueuePair) {
    let mut turn = Turn { now: 0, io: &mut world.io, pool: &mut world.pool };
    queue.rx.start(&mut turn);
    queue.tx.start(&mut turn);
}

#[test]
fn the_request_is_the_one_that_switches_know() {
    let switch = Switch::new();
    let options = VdeOptions { port: 0x1234, ..switch.options() };
    let port = thread::scope(|scope| {
        let port = scope.spawn(|| switch.take());
        drop(open(&options, &arena()).unwrap());
        port.join().unwrap()
    });
    let words: Vec<u32> =
        port.request[..12].chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words, [0xfeed_face, 3, 0x0012_3400]);
    assert_eq!(port.request[12..14], (libc::AF_UNIX as u16).to_ne_bytes());
    assert_eq!(&port.request[122..], format!("netdevd PID={}", std::process::id()).as_bytes());
}

#[test]
fn frames_are_datagrams_both_ways_and_no_file_stays() {
    let switch = Switch::new();
    let (mut opened, port) = thread::scope(|scope| {
        let port = scope.spawn(|| switch.take());
        (open(&switch.options(), &arena()).unwrap(), port.join().unwrap())
    });
    assert_eq!(switch.strangers(), Vec::<String>::new());
    let mode = switch.directory.path().join("001.5").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut world = World::new();
    start(&mut world, &mut opened.queue);
    let QueuePair { rx, tx, .. } = &mut opened.queue;
    for len in [14, 15, 60, 1514, 9000] {
        port.data.send(&frame(len, 3)).unwrap();
        let began = Instant::now();
        while world.hop(rx.as_mut(), tx.as_mut()).1 == 0 {
            assert!(began.elapsed() < Duration::from_secs(5), "{len} bytes do not come");
        }
        let mut back = vec![0; 10_000];
        let n = port.data.recv(&mut back).unwrap();
        assert!(back[..n] == frame(len, 3), "{len} bytes came back as {n}");
    }
    drop(port.stream);
}

#[test]
fn frames_for_a_switch_that_is_gone_are_dropped_by_name() {
    let switch = Switch::new();
    let (mut opened, port) = thread::scope(|scope| {
        let port = scope.spawn(|| switch.take());
        (open(&switch.options(), &arena()).unwrap(), port.join().unwrap())
    });
    let mut world = World::new();
    start(&mut world, &mut opened.queue);
    let QueuePair { rx, tx, .. } = &mut opened.queue;
    port.data.send(&frame(64, 1)).unwrap();
    drop(port);
    let began = Instant::now();
    // A child that another test starts has the switch's socket as well, until it becomes its program.
    let path = switch.directory.path().join("001.5");
    while UnixDatagram::unbound().unwrap().connect(&path).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5), "the switch's socket stays");
        thread::yield_now();
    }
    while world.hop(rx.as_mut(), tx.as_mut()).1 == 0 {
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    // What the tally holds is written at the next turn at the latest.
    let mut turn = Turn { now: 1, io: &mut world.io, pool: &mut world.pool };
    assert!(tx.room(&mut turn, BURST) > 0, "it would never be empty: no back-pressure");
    tx.settle(&mut turn, &world.counters);
    assert_eq!(world.counters.dropped(DropReason::NotConnected), 1);
    let mut end = [0];
    let mut stream = UnixStream::from(opened.plug);
    stream.set_nonblocking(false).unwrap();
    assert_eq!(stream.read(&mut end).unwrap(), 0);
}

#[test]
fn switches_that_are_not_there_or_refuse_are_told_apart() {
    let said = |options: &VdeOptions| open(options, &arena()).err().map(|error| error.to_string());
    let nowhere = VdeOptions { sock: "/nonexistent".into(), ..VdeOptions::default() };
    assert_eq!(said(&nowhere).as_deref(), Some("Could not open vde: No such file or directory"));
    let Switch { directory, listener } = Switch::new();
    let here = VdeOptions { sock: directory.path().to_str().unwrap().into(), ..VdeOptions::default() };
    let no_group = VdeOptions { group: Some("no such group".into()), ..here.clone() };
    assert_eq!(said(&no_group).as_deref(), Some("Could not open vde: there is no group 'no such group'"));
    // The two that connected, then one that is hung up on.
    let refuse = thread::spawn(move || {
        drop(listener.accept().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 256]);
        drop(stream);
        let (stream, _) = listener.accept().unwrap();
        (listener, stream)
    });
    assert_eq!(said(&here).as_deref(), Some("Could not open vde: the switch refuses the port"));
    let began = Instant::now();
    assert_eq!(said(&here).as_deref(), Some("Could not open vde: the switch does not answer"));
    assert!(began.elapsed() >= Duration::from_secs(3));
    drop(refuse.join().unwrap());
    assert_eq!(said(&here).as_deref(), Some("Could not open vde: Connection refused"));
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["ctl"], "sockets stay behind");
}

#[test]
fn answers_that_make_no_sense_harm_nothing() {
    let switch = Switch::new();
    let file = switch.directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let before = file.metadata().unwrap().permissions().mode();
    for answer in [vec![0; 110], vec![0xff; 110], vec![1; 30], address(&file)] {
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = switch.listener.accept().unwrap();
                let _ = stream.read(&mut [0; 256]);
                stream.write_all(&answer).unwrap();
            });
            assert!(open(&switch.options(), &arena()).is_err());
        });
    }
    assert_eq!(file.metadata().unwrap().permissions().mode(), before, "a file that is no socket");
    assert_eq!(switch.strangers(), ["file"]);
}

#[test]
fn modes_and_groups_are_those_asked_for() {
    let switch = Switch::new();
    let gid = nix::unistd::getegid();
    let options = VdeOptions { mode: 0o750, group: Some(gid.to_string()), ..switch.options() };
    thread::scope(|scope| {
        let port = scope.spawn(|| switch.take());
        drop(open(&options, &arena()).unwrap());
        drop(port.join().unwrap());
    });
    let mode = switch.directory.path().join("001.5").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
}
