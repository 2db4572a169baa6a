//! A guest and the kernel of this machine, joined by a nic, a hub and a tap.

use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::json;
use tests::lab::Lab;
use tests::machine::{self, Machine, Socket};
use tests::netns::NetNs;
use tests::skip::ready;
use tests::wait;

use crate::{GUEST_AND_TAP, PATIENCE, Process, iperf, meet, ping, ten_pings, turned_away, with_tap};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
/// A second nic of the guest, whose driver leaves nothing to others.
const PLAIN: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 3);

#[test]
fn a_guest_talks_to_a_tap() {
    if !ready("a_guest_talks_to_a_tap", GUEST_AND_TAP) {
        return;
    }
    let _turn = machine::turn();
    let (mut lab, place) = with_tap(&["n0", "n1"], HOST);
    let socket = |nic: &str| Socket::new(crate::socket(&lab.daemon, nic));
    let all_by_itself = "csum=off,guest_csum=off,mrg_rxbuf=off";
    let machine = Machine::prepare(1).nic(socket("n0")).nic(socket("n1").device(all_by_itself));
    let mut guest = machine.start().up();
    guest.run("iperf3 -s -D");
    guest.address(0, GUEST);
    ping(&mut guest, HOST, 1400);
    host_pings(&place, GUEST);
    large_frames_pass_both_ways(&mut lab, &place);
    the_receive_mode_changes_nothing(&mut guest, &place);
    a_new_hardware_address_is_found(&mut guest, &place);
    // The other nic: what the kernel leaves undone is done on the way, and the guest checks it.
    let dev = guest.dev(0);
    guest.run(&format!("ip link set {dev} down"));
    guest.address(1, PLAIN);
    meet(&mut guest, HOST);
    host_iperf(&place, PLAIN, "-n 4M");
    host_iperf(&place, PLAIN, "-n 4M -R");
    host_iperf(&place, PLAIN, "-u -l 1200 -b 10M -n 480K");
    for (who, counters) in
        [("guest", guest.run("cat /proc/net/snmp")), ("host", place.run("cat", &["/proc/net/snmp"]))]
    {
        assert_eq!(wrong_checksums(&counters), 0, "{who}: {counters}");
    }
}

/// Ten pings from the host's side.
fn host_pings(place: &NetNs, to: Ipv4Addr) {
    let mut command = place.command("sh");
    command.args(["-c", &ten_pings(to, 56)]);
    wait::success(&command, 120);
}

/// iperf3 from the host's side, with a size among its options; all of it must arrive.
fn host_iperf(place: &NetNs, to: Ipv4Addr, options: &str) {
    let mut command: Command = place.command("iperf3");
    command.args(["-c", &to.to_string(), "-i", "0"]).args(options.split(' '));
    let run = || {
        let output = wait::output(&command, 60);
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        Some((output.status, said)).filter(|(_, said)| !turned_away(said))
    };
    let (status, said) = wait::until(PATIENCE, run).expect("the server has time");
    assert!(status.success() && said.contains("iperf Done."), "{command:?}: {said}");
}

/// Frames far longer than the MTU cross the tap, in both directions.
fn large_frames_pass_both_ways(lab: &mut Lab, place: &NetNs) {
    for (queue, options) in [("tx", "-n 16M"), ("rx", "-n 16M -R")] {
        let file = lab.daemon.directory().join(queue);
        lab.qmp.ok("object-add", json!({
            "qom-type": "filter-dump", "id": "dump", "netdev": "t0", "file": file, "queue": queue, "maxlen": 64,
        }));
        host_iperf(place, GUEST, options);
        lab.qmp.ok("object-del", json!({"id": "dump"}));
        let longest = longest_frame(&std::fs::read(&file).expect("the capture"));
        assert!((16_000..65_551).contains(&longest), "{queue}: the longest frame has {longest} bytes");
    }
}

/// The longest frame of a pcap file, before it was cut.
fn longest_frame(pcap: &[u8]) -> u32 {
    let mut longest = 0;
    let mut rest = pcap.get(24..).unwrap_or_default();
    while let Some((head, more)) = rest.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        longest = longest.max(word(12));
        rest = more.get(word(8) as usize..).unwrap_or_default();
    }
    longest
}

/// Promiscuous and all-multicast, which the VMM keeps to itself.
fn the_receive_mode_changes_nothing(guest: &mut Machine, place: &NetNs) {
    let dev = guest.dev(0);
    for mode in ["promisc on", "allmulticast on", "promisc off", "allmulticast off"] {
        guest.run(&format!("ip link set {dev} {mode}"));
        host_pings(place, GUEST);
    }
    let shown = guest.run(&format!("ip -d link show {dev}"));
    assert!(shown.contains("promiscuity 0") && shown.contains("allmulti 0"), "{shown}");
}

fn a_new_hardware_address_is_found(guest: &mut Machine, place: &NetNs) {
    let (dev, old) = (guest.dev(0), guest.mac(0));
    for mac in ["52:54:00:99:00:01", &old] {
        guest.run(&format!("ip link set {dev} address {mac}"));
        place.ip("neighbour flush dev t0");
        host_pings(place, GUEST);
        assert!(place.ip("neighbour show dev t0").contains(mac));
        iperf_back(guest, place);
    }
}

/// A little TCP from the guest, whose neighbour has to answer to its new address.
fn iperf_back(guest: &mut Machine, place: &NetNs) {
    let mut server = place.command("iperf3");
    server.args(["-s", "-1"]);
    let server = Process::start(server);
    let listens = || place.run("ss", &["-Hlnt", "sport = :5201"]).contains("5201").then_some(());
    assert_eq!(wait::until(PATIENCE, listens), Some(()), "iperf3 does not listen");
    iperf(guest, HOST, "-n 1M");
    assert!(server.said().contains("receiver"));
}

/// Sums of wrong checksums in `/proc/net/snmp`, over all protocols.
pub(crate) fn wrong_checksums(snmp: &str) -> u64 {
    let lines: Vec<Vec<&str>> = snmp.lines().map(|line| line.split(' ').collect()).collect();
    let pairs = lines.chunks(2).flat_map(|two| two[0].iter().zip(&two[1]));
    pairs.filter(|(name, _)| **name == "InCsumErrors").filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
}
