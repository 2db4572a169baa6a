//! A passt that is killed, and one that goes with its netdev or with the daemon.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::skip::ready;
use tests::wait;

use crate::NEEDS;
use crate::world::{FAR, World, ends, lives};

#[test]
fn one_that_is_killed_in_mid_transfer_is_started_again() {
    if !ready("one_that_is_killed_in_mid_transfer_is_started_again", NEEDS) {
        return;
    }
    let mut world = World::new(&json!({}));
    let received = AtomicU64::new(0);
    let listener = world.outside.inside(|| TcpListener::bind((FAR, 7100)).expect("a listener"));
    let first = world.pid();
    std::thread::scope(|scope| {
        let (listener, received) = (&listener, &received);
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut bytes = vec![0; 1 << 16];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                received.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        let mut stream = world.guest.inside(|| TcpStream::connect((FAR, 7100)).expect("a connection"));
        stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        // What goes on in mid-transfer ends in a reset or in silence: the connection was passt's, and is gone with it.
        let sender = scope.spawn(move || while stream.write_all(&[1; 1 << 16]).is_ok() {});
        let flows =
            wait::until(wait::PATIENCE, || (received.load(Ordering::Relaxed) > 1 << 16).then_some(()));
        assert!(flows.is_some(), "nothing is transferred");
        kill(Pid::from_raw(first), Signal::SIGKILL).expect("it was there");
        let second = wait::until(wait::PATIENCE, || Some(world.pid()).filter(|pid| *pid != first));
        assert!(second.is_some_and(lives), "another one runs");
        sender.join().expect("the sender");
    });
    let connect =
        || world.guest.inside(|| TcpStream::connect((FAR, 7100)).expect("a connection through the new one"));
    crate::transfer(&listener, connect, crate::AMOUNT);
    let shown = world.lab.qmp.ok("query-netdev", json!({"name": "p"}));
    assert_eq!(shown[0]["link"], true);
    assert_eq!(world.left(), Vec::<String>::new(), "no file is left of either");
}

#[test]
fn it_goes_with_its_netdev_and_leaves_nothing() {
    if !ready("it_goes_with_its_netdev_and_leaves_nothing", NEEDS) {
        return;
    }
    let mut world = World::new(&json!({}));
    let files = world.lab.daemon.open_files();
    for _ in 0..3 {
        let pid = world.pid();
        world.lab.qmp.ok("netdev_del", json!({"id": "p"}));
        assert!(!lives(pid), "it has ended with the reply");
        assert_eq!(world.left(), Vec::<String>::new());
        world.lab.qmp.ok("netdev_add", crate::world::passt(&json!({})));
    }
    world.pid();
    let same = wait::until(wait::PATIENCE, || (world.lab.daemon.open_files() <= files).then_some(()));
    assert!(same.is_some(), "{} files were open, {} are", files, world.lab.daemon.open_files());
}

#[test]
fn it_goes_with_the_daemon_however_that_ends() {
    if !ready("it_goes_with_the_daemon_however_that_ends", NEEDS) {
        return;
    }
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
        let mut world = World::new(&json!({}));
        let pid = world.pid();
        match signal {
            None => drop(world.lab.qmp.ok("quit", json!({}))),
            Some(signal) => world.lab.daemon.signal(signal),
        }
        assert!(world.lab.daemon.ended(wait::PATIENCE).is_some(), "the daemon ends");
        if signal == Some(Signal::SIGKILL) {
            ends(pid);
        }
        assert!(!lives(pid), "after {signal:?}");
        assert_eq!(world.left(), Vec::<String>::new(), "after {signal:?}");
    }
}
