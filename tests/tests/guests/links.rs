//! Links that go down and come back, announcements, and guests that have nothing to say.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::json;
use tests::daemon::Daemon;
use tests::machine::{self, Machine, Socket};
use tests::skip::ready;
use tests::wait;

use crate::announce::announcements;
use crate::{GUESTS, PATIENCE, counted, nics, ping, socket};

const A: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
/// Shares of a core, in hundredths, that a daemon with idle guests may use.
const IDLE: u64 = 10;

#[test]
fn links_go_down_and_idle_guests_cost_little() {
    if !ready("links_go_down_and_idle_guests_cost_little", GUESTS) {
        return;
    }
    let _turn = machine::turn();
    let mut arguments = nics(0, &["n0"], ",link-down=disconnect");
    arguments.extend(nics(0, &["n1"], ""));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["-idle", "adaptive"]).collect();
    let (daemon, mut client) = Daemon::netdevd(&arguments);
    let machine = |n: u8, nic: &str, device: &str| {
        Machine::prepare(n).nic(Socket::new(socket(&daemon, nic)).device(device)).start()
    };
    let (a, b) = (machine(1, "n0", "guest_announce=on"), machine(2, "n1", "guest_announce=off"));
    let (mut a, mut b) = (a.up(), b.up());
    a.address(0, A);
    b.address(0, B);
    ping(&mut a, B, 56);
    announcements(&daemon, &mut client, [&mut a, &mut b]);

    // Without a connection the guest has no carrier; it comes back with the VMM's own reconnection.
    let dev = a.dev(0);
    assert!(carrier(&mut a, &dev, true));
    client.ok("set_link", json!({"name": "n0", "up": false}));
    assert!(carrier(&mut a, &dev, false), "the guest sees its link go down");
    client.ok("set_link", json!({"name": "n0", "up": true}));
    assert!(carrier(&mut a, &dev, true), "the guest sees its link come up");
    ping(&mut a, B, 56);

    // With one, QEMU tells its guest nothing; frames stop, and are counted.
    client.ok("set_link", json!({"name": "n1", "up": false}));
    let [before] = counted(&mut client, "n1", ["link-down"]);
    let (status, said) = a.attempt(&format!("ping -q -c 5 -i 0.02 -W 1 {B}"));
    assert!(status == 1 && said.contains("100% packet loss"), "{said}");
    let lost = || Some(counted(&mut client, "n1", ["link-down"])[0] - before).filter(|lost| *lost >= 5);
    let lost = wait::until(PATIENCE, lost);
    assert!(lost.is_some(), "frames dropped as link-down");
    let other = b.dev(0);
    assert!(carrier(&mut b, &other, true));
    client.ok("set_link", json!({"name": "n1", "up": true}));
    ping(&mut a, B, 56);

    // Both guests sleep: so does the daemon. A guest's own clock tells when five seconds are over.
    let before = ticks(&daemon);
    a.run("sleep 5");
    let used = ticks(&daemon) - before;
    let hundred =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).cast_unsigned();
    let share = used * 100 / (5 * hundred);
    assert!(share < IDLE, "{share} % of a core with idle guests");
    ping(&mut b, A, 56);
}

/// Whether the guest sees that carrier within its patience.
fn carrier(guest: &mut Machine, dev: &str, up: bool) -> bool {
    let wanted = u8::from(up);
    let look = format!("[ $(cat /sys/class/net/{dev}/carrier) = {wanted} ] && exit 0");
    guest.attempt(&format!("for i in $(seq 300); do {look}; sleep 0.1; done; exit 1")).0 == 0
}

/// Processor time of the daemon, in clock ticks.
fn ticks(daemon: &Daemon) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("the daemon runs");
    // Behind the name, which ends at the last parenthesis: state is field 3, user and system time are fields 14 and 15.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}
