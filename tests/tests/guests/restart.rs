//! Guests, VMMs and the daemon go and come back.

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::daemon::{Daemon, Program};
use tests::machine::{self, Machine, Socket};
use tests::skip::ready;
use tests::wait;

use crate::{GUEST_AND_TAP, GUESTS, PATIENCE, iperf, meet, nics, ping, socket, state, with_tap};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 6, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 6, 0, 2);

#[test]
fn a_guest_reboots_and_another_takes_its_place() {
    if !ready("a_guest_reboots_and_another_takes_its_place", GUEST_AND_TAP) {
        return;
    }
    let _turn = machine::turn();
    let (mut lab, _place) = with_tap(&["n0"], HOST);
    let prepare = |device: &str| {
        let socket = Socket::new(socket(&lab.daemon, "n0")).device(device);
        Machine::prepare(1).nic(socket).start()
    };
    let mut guest = prepare("packed=off").up();
    guest.address(0, GUEST);
    ping(&mut guest, HOST, 1400);
    guest.reboot();
    guest.address(0, GUEST);
    ping(&mut guest, HOST, 1400);
    // In the midst of traffic, and without a word.
    guest.say(&format!("ping -q -c 1000 -i 0.005 {HOST}"));
    guest.kill();
    let gone = lab.qmp.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE);
    assert_eq!(gone.expect("an event")["data"]["netdev-id"], "n0");
    let mut other = prepare("packed=on").up();
    other.address(0, GUEST);
    ping(&mut other, HOST, 1400);
    assert_eq!(state(&mut lab.qmp, "n0"), "ready");
}

/// The two nics of each guest.
const SPLIT: usize = 0;
const PACKED: usize = 1;

fn address(nic: usize, guest: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 5, u8::try_from(nic).expect("two"), guest)
}

#[test]
fn the_daemon_is_killed_and_guests_go_on() {
    if !ready("the_daemon_is_killed_and_guests_go_on", GUESTS) {
        return;
    }
    let _turn = machine::turn();
    let mut arguments = nics(0, &["split-a", "split-b"], "");
    arguments.extend(nics(1, &["packed-a", "packed-b"], ""));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (daemon, mut client) = Daemon::netdevd(&arguments);
    let machine = |number: u8, guest: &str| {
        let socket = |nic: &str| Socket::new(socket(&daemon, &format!("{nic}-{guest}")));
        let split = socket("split").device("packed=off");
        Machine::prepare(number).nic(split).nic(socket("packed").device("packed=on")).start()
    };
    let (a, b) = (machine(1, "a"), machine(2, "b"));
    let (mut a, mut b) = (a.up(), b.up());
    b.run("iperf3 -s -D");
    for nic in [SPLIT, PACKED] {
        a.address(nic, address(nic, 1));
        b.address(nic, address(nic, 2));
        ping(&mut a, address(nic, 2), 56);
        // Rings that have gone round.
        iperf(&mut a, address(nic, 2), "-n 4M");
    }

    // Killed in the midst of traffic: a split ring tells by itself where it stands.
    a.say(&format!("iperf3 -c {} -n 64M -i 0", address(SPLIT, 2)));
    let moved = wait::until(PATIENCE, || {
        (crate::counted(&mut client, "split-a", ["rx-frames"])[0] > 400).then_some(())
    });
    assert_eq!(moved, Some(()), "traffic before the daemon is killed");
    daemon.signal(Signal::SIGKILL);
    let daemon = Daemon::of(Program::Netdevd).args(&arguments).directory(daemon.kill()).start();
    let mut client = daemon.client();
    let (status, said) = a.answer();
    assert_eq!(status, 0, "TCP goes on over the new daemon\n{said}");
    ping(&mut b, address(SPLIT, 1), 1400);

    // So does a packed one whose buffers take one descriptor each, as Linux's do.
    connected(&mut client);
    meet(&mut a, address(PACKED, 2));
    iperf(&mut a, address(PACKED, 2), "-n 4M");

    // Stopped in order: the VMMs know where each ring stands, and say it to the next daemon.
    for guest in [&mut a, &mut b] {
        guest.qmp.ok("stop", Value::Null);
    }
    let again = Daemon::of(Program::Netdevd).args(&arguments).directory(daemon.kill()).start();
    let mut client = again.client();
    connected(&mut client);
    for guest in [&mut a, &mut b] {
        guest.qmp.ok("cont", Value::Null);
    }
    for nic in [SPLIT, PACKED] {
        ping(&mut a, address(nic, 2), 56);
        iperf(&mut a, address(nic, 2), "-n 4M -R");
    }
    for nic in ["split-a", "split-b", "packed-a", "packed-b"] {
        assert_eq!(state(&mut client, nic), "ready", "{nic}");
    }
}

/// Waits until every nic has its VMM again.
fn connected(client: &mut tests::qmp::Qmp) {
    for nic in ["split-a", "split-b", "packed-a", "packed-b"] {
        let there = wait::until(PATIENCE, || Some(state(client, nic)).filter(|state| state != "listening"));
        assert!(there.is_some(), "nobody comes back to {nic}");
    }
}
