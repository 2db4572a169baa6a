//! What we send, as tshark understands it.

use super::NEEDS;
use super::ends::{BROADCAST, Ours, SOURCE, options, udp};
use super::vxlan::Tunnel;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Child;
use tests::daemon::directory;
use tests::netns::NetNs;
use tests::packet::{PacketSocket, frame};
use tests::skip::{Need, ready};
use tests::wait;

const TOOLS: &[Need] = &[Need::Tool("tshark"), Need::Tool("tcpdump"), Need::Tool("ethtool")];

/// Captures `count` packets of `link` into `file`.
fn capture(place: &NetNs, link: &str, what: &str, count: u32, file: &Path) -> Child {
    let mut command = place.command("tcpdump");
    command.args(["-i", link, "-U", "-s", "0", "-c", &count.to_string(), "-w"]).arg(file).arg(what);
    let child = command.stderr(std::process::Stdio::null()).spawn().expect("tcpdump starts");
    // The file's header is written when the capture runs.
    let runs = || file.metadata().is_ok_and(|meta| meta.len() >= 24).then_some(());
    wait::until(wait::PATIENCE, runs).expect("tcpdump captures");
    child
}

/// Fields of all packets that match; a line a packet.
fn read(file: &Path, more: &[&str]) -> Vec<String> {
    let mut command = std::process::Command::new("tshark");
    command.arg("-r").arg(file).args(more);
    wait::success(&command, 60).lines().map(str::to_owned).collect()
}

/// Makes the kernel cut messages of many datagrams before they reach the capture, as before a wire.
fn as_on_a_wire(place: &NetNs, link: &str) {
    place.run("ethtool", &["-K", link, "tx-udp-segmentation", "off"]);
}

/// An ARP request, which tshark takes apart to its end.
fn arp() -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 1];
    payload.extend_from_slice(&SOURCE);
    payload.extend_from_slice(&[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    payload.resize(46, 0);
    let mut bytes = frame(BROADCAST, SOURCE, &payload);
    bytes[12..14].copy_from_slice(&[8, 6]);
    bytes
}

#[test]
fn tshark_decodes_our_vxlan() {
    let test = "tshark_decodes_our_vxlan";
    if !ready(test, &[NEEDS, TOOLS].concat()) {
        return;
    }
    for (near, far) in [("10.1.0.1", "10.1.0.2"), ("fd01::1", "fd01::2")] {
        let more = json!({"local": near});
        let Some(tunnel) = Tunnel::new(test, near, far, "dstport 4789", &more) else { return };
        as_on_a_wire(&tunnel.lab.home, "w0");
        let place = directory();
        let file = place.path().join("vxlan.pcap");
        let mut child = capture(&tunnel.far, "w1", "udp dst port 4789", 5, &file);
        let guest = PacketSocket::open(&tunnel.guest, "guest");
        for _ in 0..5 {
            guest.send(&arp());
        }
        wait::child(&mut child, wait::PATIENCE).expect("five packets leave");
        let fields = ["-T", "fields", "-e", "vxlan.vni", "-e", "vxlan.flags", "-e", "arp.dst.proto_ipv4"];
        // The guest's own interface may ask for neighbours meanwhile: of IPv6, and of addresses of its own.
        let found = read(&file, &fields);
        assert!(found.len() == 5 && found.iter().all(|line| line.starts_with("42\t0x0800\t")), "{found:?}");
        assert!(found.iter().any(|line| line.ends_with("\t10.0.0.2")), "to {far}: {found:?}");
        assert_eq!(read(&file, &["-Y", "_ws.malformed"]), [""; 0], "to {far}: nothing is malformed");
    }
}

#[test]
fn tshark_decodes_our_l2tpv3() {
    let test = "tshark_decodes_our_l2tpv3";
    if !ready(test, &[NEEDS, TOOLS].concat()) {
        return;
    }
    let mut ours = Ours::new();
    as_on_a_wire(&ours.lab.home, "lo");
    let place = directory();
    let udp_base =
        json!({"src": "127.0.0.1", "dst": "127.0.0.1", "udp": true, "srcport": "1701", "dstport": "1702"});
    let ip_base = json!({"src": "127.0.0.1", "dst": "127.0.0.2"});
    let six = |base: &Value| {
        let mut six = base.clone();
        (six["ipv6"], six["src"], six["dst"]) = (json!(true), json!("fd00::1"), json!("fd00::2"));
        six
    };
    let _sinks = ["127.0.0.1:1702", "[fd00::2]:1702"].map(|at| udp(&ours.lab.home, at));
    for (name, base, what) in [
        ("udp6", six(&udp_base), "ip6 and udp dst port 1702"),
        ("ip6", six(&ip_base), "ip6 proto 115"),
        ("udp", udp_base, "ip and udp dst port 1702"),
        ("ip", ip_base, "ip proto 115"),
    ] {
        ours.tunnel(&options(&base, &json!({"txsession": 77, "txcookie": 0x0102_0304, "rxcookie": 1})));
        let file = place.path().join(name);
        let mut child = capture(&ours.lab.home, "lo", what, 3, &file);
        for _ in 0..3 {
            ours.leg.socket.send(&arp());
        }
        wait::child(&mut child, wait::PATIENCE).expect("three packets leave");
        let decode = [
            "-o",
            "l2tp.cookie_size:4 Byte Cookie",
            "-o",
            "l2tp.l2_specific:None",
            "-d",
            "l2tp.pw_type==0,eth",
        ];
        let fields = ["-T", "fields", "-e", "l2tp.sid", "-e", "l2tp.cookie", "-e", "arp.dst.proto_ipv4"];
        let found = read(&file, &[&decode[..], &fields[..]].concat());
        assert_eq!(found, ["0x0000004d\t01020304\t10.0.0.2"; 3], "over {name}");
        assert_eq!(read(&file, &[&decode[..], &["-Y", "_ws.malformed"]].concat()), [""; 0], "over {name}");
    }
}
