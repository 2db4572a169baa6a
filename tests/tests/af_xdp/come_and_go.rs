//! Interfaces that go and come back, daemons that are killed.

use super::NEEDS;
use super::wire::{BROADCAST, SOURCE, Wire, add, has_program, options, state};
use af_xdp::{Filter, Program};
use serde_json::json;
use std::time::Duration;
use tests::daemon::Daemon;
use tests::lab::Lab;
use tests::packet::{PacketSocket, frame};
use tests::skip::ready;
use tests::wait;

#[test]
fn no_program_is_left_when_the_daemon_is_killed() {
    if !ready("no_program_is_left_when_the_daemon_is_killed", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    add(&mut lab, &wire, &json!({}));
    assert!(has_program(&lab.home, "one"));
    let Lab { daemon, home, .. } = lab;
    drop(daemon); // by SIGKILL
    let gone = wait::until(wait::PATIENCE, || (!has_program(&home, "one")).then_some(()));
    gone.expect("the program goes with its last holder");
}

#[test]
fn an_interface_that_goes_and_comes_back_is_served_again() {
    if !ready("an_interface_that_goes_and_comes_back_is_served_again", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let [one, two] = ["one", "two"].map(|name| Wire::new(&lab.home, name));
    add(&mut lab, &one, &json!({}));
    add(&mut lab, &two, &json!({}));
    lab.hub(0, &["one", "two"]);
    let mut socket = PacketSocket::open(&two.place, &two.far);
    for round in 0..3 {
        one.socket.send(&frame(BROADCAST, SOURCE, format!("round {round}").as_bytes()));
        assert_eq!(ours(&socket), 1, "round {round}");
        lab.home.ip("link del two");
        let gone = wait::until(wait::PATIENCE, || (standing(&mut lab, "two") == "failed").then_some(()));
        gone.expect("the netdev says that its interface is gone");
        one.socket.send(&frame(BROADCAST, SOURCE, b"nobody there"));
        let counted =
            wait::until(wait::PATIENCE, || (lab.port("two").2 + lab.port("one").2 > round).then_some(()));
        counted.expect("frames for it are dropped by name");
        let (place, far) = (&two.place, &two.far);
        lab.home.ip(&format!("link add two type veth peer name {far}"));
        lab.home.give(far, place);
        lab.home.silent("two");
        place.silent(far);
        lab.home.ip("link set two up");
        place.ip(&format!("link set {far} up"));
        let back = wait::until(wait::PATIENCE, || (standing(&mut lab, "two") == "ready").then_some(()));
        back.expect("it is opened again");
        socket = PacketSocket::open(place, far);
    }
    one.socket.send(&frame(BROADCAST, SOURCE, b"the last one"));
    assert_eq!(ours(&socket), 1);
}

#[test]
fn an_interface_that_could_not_be_opened_again_is_tried_once_more_without_news_of_it() {
    if !ready("an_interface_that_could_not_be_opened_again_is_tried_once_more_without_news_of_it", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let wire = Wire::new(&lab.home, "one");
    add(&mut lab, &wire, &json!({}));
    lab.home.ip("link del one");
    let gone = wait::until(wait::PATIENCE, || (standing(&mut lab, "one") == "failed").then_some(()));
    gone.expect("the netdev says that its interface is gone");
    lab.home.ip("link add one type veth peer name far");
    // Somebody else has the queue; the program, which all share, stays when he goes, so that the kernel has nothing to tell.
    let program = lab.home.inside(|| {
        let index = nix::net::if_::if_nametoindex("one").expect("the link is there");
        Program::attach(index, None, &Filter::default(), 4).expect("attaches")
    });
    let (other, mut qmp) = Daemon::netdevd_within(&lab.home, &[]);
    qmp.ok("netdev_add", options("other", "one", &json!({})));
    lab.home.ip("link set far up");
    lab.home.ip("link set one up");
    let refused = || lab.daemon.stderr().contains("Device or resource busy").then_some(());
    wait::until(wait::PATIENCE, refused).expect("it is tried as soon as the interface is up");
    assert_eq!(standing(&mut lab, "one"), "failed");
    drop(other);
    let back = wait::until(wait::PATIENCE, || (standing(&mut lab, "one") == "ready").then_some(()));
    back.expect("it is tried again");
    drop(program);
}

/// Test frames that came.
fn ours(socket: &PacketSocket) -> usize {
    socket.drain(Duration::from_millis(100)).iter().filter(|frame| frame[12..14] == [0x88, 0xb5]).count()
}

/// The word for how a netdev stands.
fn standing(lab: &mut Lab, name: &str) -> String {
    state(lab, name)["transport"]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_interface_that_is_down_says_so_and_goes_on_when_it_is_up() {
    if !ready("an_interface_that_is_down_says_so_and_goes_on_when_it_is_up", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let [one, two] = ["one", "two"].map(|name| Wire::new(&lab.home, name));
    add(&mut lab, &one, &json!({}));
    add(&mut lab, &two, &json!({}));
    lab.hub(0, &["one", "two"]);
    lab.home.ip("link set two down");
    let down = wait::until(wait::PATIENCE, || {
        let error = state(&mut lab, "two")["transport"]["error"].clone();
        (error == "interface 'two' is down").then_some(())
    });
    down.expect("it says that it is down");
    one.socket.send(&frame(BROADCAST, SOURCE, b"for nobody"));
    let counted = wait::until(wait::PATIENCE, || (lab.port("two").2 + lab.port("one").2 > 0).then_some(()));
    counted.expect("counted by name");
    lab.home.ip("link set two up");
    let up = wait::until(wait::PATIENCE, || (standing(&mut lab, "two") == "ready").then_some(()));
    up.expect("it is up again");
    one.socket.send(&frame(BROADCAST, SOURCE, b"for somebody, longer than sixty bytes of a frame"));
    assert_eq!(two.payloads(), [b"for somebody, longer than sixty bytes of a frame"]);
}

#[test]
fn an_interface_may_be_down_at_first_and_be_renamed() {
    if !ready("an_interface_may_be_down_at_first_and_be_renamed", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let [one, two] = ["one", "two"].map(|name| Wire::new(&lab.home, name));
    lab.home.ip("link set two down");
    add(&mut lab, &one, &json!({}));
    add(&mut lab, &two, &json!({}));
    lab.hub(0, &["one", "two"]);
    assert_eq!(state(&mut lab, "two")["transport"]["error"], "interface 'two' is down");
    lab.home.ip("link set two name other");
    lab.home.ip("link set other up");
    let up = wait::until(wait::PATIENCE, || (standing(&mut lab, "two") == "ready").then_some(()));
    up.expect("it is up");
    one.socket.send(&frame(BROADCAST, SOURCE, b"by another name, longer than sixty bytes of a frame"));
    assert_eq!(two.payloads(), [b"by another name, longer than sixty bytes of a frame"]);
}

#[test]
fn a_longer_mtu_is_followed() {
    if !ready("a_longer_mtu_is_followed", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let [one, two] = ["one", "two"].map(|name| Wire::with(&lab.home, name, 1, 3000));
    lab.home.ip("link set two mtu 1500");
    add(&mut lab, &one, &json!({}));
    add(&mut lab, &two, &json!({}));
    lab.hub(0, &["one", "two"]);
    one.socket.send(&frame(BROADCAST, SOURCE, &[7; 2500]));
    assert_eq!(two.payloads().len(), 0);
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    assert!(stats.to_string().contains("\"too-long\":1"), "{stats}");
    lab.home.ip("link set two mtu 3000");
    let told = wait::until(wait::PATIENCE, || (state(&mut lab, "two")["mtu"] == 3000).then_some(()));
    told.expect("the new MTU shows");
    one.socket.send(&frame(BROADCAST, SOURCE, &[7; 2500]));
    assert_eq!(two.payloads(), [[7; 2500]]);
}
