//! Every frame has a name: what came in is what went out and what was dropped, also when interfaces and netdevs go under load.

use super::NEEDS;
use super::wire::{BROADCAST, SOURCE, Wire, add, state};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use tests::lab::{Counts, Lab, counts};
use tests::packet::frame;
use tests::skip::ready;
use tests::wait;

/// Frames that netdev `one` received, that `two` sent, and that anybody dropped by name.
fn books(lab: &mut Lab) -> [u64; 3] {
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().expect("ports");
    let of = |name: &str, what: &str| {
        let rows = ports.iter().filter(|port| port["name"] == name);
        rows.map(|port| port[what].as_u64().expect("a counter")).sum::<u64>()
    };
    let drops = ports.iter().flat_map(|port| port["drops"].as_object().expect("drops").values());
    [of("one", "rx-frames"), of("two", "tx-frames"), drops.map(|n| n.as_u64().expect("a counter")).sum()]
}

/// Runs `during` while frames are sent into netdev `one` as fast as a packet socket can.
fn under_load(lab: &mut Lab, one: &Wire, during: impl FnOnce(&mut Lab)) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = frame(BROADCAST, SOURCE, &[7; 100]);
            while !stop.load(Ordering::Relaxed) {
                one.socket.send(&bytes);
            }
        });
        // The load ends with this, whatever happens.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        let [_, before, _] = books(lab);
        wait::until(wait::PATIENCE, || (books(lab)[1] > before + 1000).then_some(())).expect("frames pass");
        during(lab);
    });
}

/// Waits until nothing is under way, and compares.
fn close_the_books(lab: &mut Lab) {
    let mut last = [0; 3];
    let closed = wait::until(wait::PATIENCE, || {
        last = books(lab);
        (last[0] == last[1] + last[2]).then_some(())
    });
    assert!(closed.is_some(), "in, out, dropped: {last:?}; {}", lab.qmp.ok("query-net-stats", json!({})));
}

/// Waits until the kernel's error is shown for netdev `two`.
fn await_error(lab: &mut Lab, want: &str) {
    let mut last = Value::Null;
    let told = wait::until(wait::PATIENCE, || {
        last = state(lab, "two")["transport"]["error"].clone();
        last.as_str().is_some_and(|error| error.starts_with(want)).then_some(())
    });
    assert!(told.is_some(), "{want}: {last}");
}

#[test]
fn an_interface_that_goes_under_load_loses_nothing_without_a_name() {
    if !ready("an_interface_that_goes_under_load_loses_nothing_without_a_name", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&["-idle", "poll"]);
    let [one, two] = ["one", "two"].map(|name| Wire::new(&lab.home, name));
    add(&mut lab, &one, &json!({}));
    add(&mut lab, &two, &json!({}));
    lab.hub(0, &["one", "two"]);
    for round in 0..4 {
        let kernel = |lab: &Lab| {
            let Counts { tx_packets, tx_dropped, .. } = counts(&lab.home, "two");
            tx_packets + tx_dropped
        };
        let (counted, [_, sent, _]) = (kernel(&lab), books(&mut lab));
        under_load(&mut lab, &one, |lab| {
            if round % 2 == 0 {
                // Down first: its counters can be read while nothing more is sent.
                lab.home.ip("link set two down");
                await_error(lab, "interface 'two' is down");
                let [_, now, _] = books(lab);
                assert_eq!(kernel(lab) - counted, now - sent, "the kernel's word and ours");
            }
            lab.home.ip("link del two");
            await_error(lab, "interface 'two' is gone");
        });
        close_the_books(&mut lab);
        let far = &two.far;
        lab.home.ip(&format!("link add two type veth peer name {far}"));
        lab.home.give(far, &two.place);
        lab.home.silent("two");
        two.place.silent(far);
        lab.home.ip("link set two up");
        two.place.ip(&format!("link set {far} up"));
        let back = wait::until(wait::PATIENCE, || {
            (state(&mut lab, "two")["transport"]["state"] == "ready").then_some(())
        });
        back.expect("it is opened again");
        close_the_books(&mut lab);
    }
}
