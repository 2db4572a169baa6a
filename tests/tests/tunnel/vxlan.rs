//! `vxlan` and the kernel's vxlan device, over a veth pair.
//!
//! ```text
//!  guest: tap ── netdevd ── w0 ════ w1 ── vx0: far
//! ```

use super::NEEDS;
use super::ends::{BROADCAST, SOURCE};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::packet::{PacketSocket, frame};
use tests::skip::{Need, ready, record};
use tests::wait;

/// Netdevd with tap `guest` in a namespace of its own and netdev `t` on a hub; a vxlan device of the kernel's at the far end.
pub(crate) struct Tunnel {
    pub(crate) lab: Lab,
    pub(crate) guest: NetNs,
    pub(crate) far: NetNs,
}

impl Tunnel {
    /// Outer addresses `near` and `far`, inner ones 10.77.0.1 and .2. None where the kernel has no vxlan device, which is recorded.
    pub(crate) fn new(test: &str, near: &str, far_address: &str, device: &str, more: &Value) -> Option<Self> {
        let mut lab = Lab::new(&[]);
        let (guest, far) = (lab.home.sibling(), lab.home.sibling());
        lab.home.ip("link add w0 type veth peer name w1");
        lab.home.give("w1", &far);
        let prefix = if near.contains(':') { "64 nodad" } else { "24" };
        for (place, link, address) in [(&lab.home, "w0", near), (&far, "w1", far_address)] {
            place.ip(&format!("address add {address}/{prefix} dev {link}"));
            place.ip(&format!("link set {link} up"));
        }
        let add = format!("link add vx0 type vxlan id 42 dev w1 local {far_address} remote {near} {device}");
        let made = wait::output(far.command("ip").args(add.split_whitespace()), 10);
        if !made.status.success() {
            record(
                test,
                &format!("the kernel has no vxlan device: {}", String::from_utf8_lossy(&made.stderr)),
            );
            return None;
        }
        far.up("vx0", Ipv4Addr::new(10, 77, 0, 2));
        let mut options = json!({"type": "vxlan", "id": "t", "remote": far_address, "vni": 42});
        for (name, value) in more.as_object().into_iter().flatten() {
            options[name] = value.clone();
        }
        lab.tap_at("guest", &guest, Ipv4Addr::new(10, 77, 0, 1));
        // What is left of 1,500 bytes; the kernel's device has as much (50 bytes less, 70 over IPv6).
        guest.ip(if near.contains(':') { "link set guest mtu 1430" } else { "link set guest mtu 1450" });
        lab.qmp.ok("netdev_add", options);
        lab.hub(1, &["t", "guest"]);
        Some(Self { lab, guest, far })
    }

    fn ping(&self) {
        for size in ["16", "1000", "1372"] {
            let words = ["-c", "3", "-i", "0.02", "-W", "2", "-s", size];
            self.guest.run("ping", &[&words[..], &["10.77.0.2"]].concat());
            self.far.run("ping", &[&words[..], &["10.77.0.1"]].concat());
        }
    }

    /// Bits a second of a second of TCP.
    fn tcp(&self, reverse: bool) -> f64 {
        let mut server = self.far.command("iperf3");
        server.args(["-s", "-1", "--forceflush"]).stdout(Stdio::piped());
        let mut server = server.spawn().expect("iperf3 starts");
        let listens = || self.far.run("ss", &["-Hltn"]).contains(":5201").then_some(());
        wait::until(wait::PATIENCE, listens).expect("iperf3 listens");
        let words = ["-c", "10.77.0.2", "-t", "1", "-J"];
        let more: &[&str] = if reverse { &["-R"] } else { &[] };
        let report = self.guest.run("iperf3", &[&words[..], more].concat());
        wait::child(&mut server, Duration::from_secs(5)).expect("the server ends after one run");
        let report: Value = serde_json::from_str(&report).expect("iperf3 prints JSON");
        report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default()
    }
}

/// One frame each way, compared byte for byte.
fn frames(tunnel: &Tunnel) {
    let (near, far) = (PacketSocket::open(&tunnel.guest, "guest"), PacketSocket::open(&tunnel.far, "vx0"));
    for size in [46, 100, 1400] {
        let payload: Vec<u8> = (0..size).map(|at: usize| at.to_le_bytes()[0]).collect();
        let bytes = frame(BROADCAST, SOURCE, &payload);
        for (from, to) in [(&near, &far), (&far, &near)] {
            from.send(&bytes);
            let came = wait::until(wait::PATIENCE, || {
                to.receive(Duration::from_secs(1)).filter(|frame| frame[12..14] == [0x88, 0xb5])
            });
            assert!(came.is_some_and(|came| came == bytes), "{size} bytes");
        }
    }
}

fn check(test: &str, near: &str, far: &str, device: &str, more: &Value) {
    if !ready(test, &[NEEDS, &[Need::Tool("ping"), Need::Tool("iperf3")]].concat()) {
        return;
    }
    let Some(mut tunnel) = Tunnel::new(test, near, far, device, more) else { return };
    frames(&tunnel);
    tunnel.ping();
    for reverse in [false, true] {
        let rate = tunnel.tcp(reverse);
        println!(
            "{test}: TCP {} at {:.2} Gbit/s",
            if reverse { "from the kernel" } else { "to the kernel" },
            rate / 1e9
        );
        assert!(
            rate > 5e7,
            "TCP passes at {rate} bit/s (reverse: {reverse}); {}",
            tunnel.lab.qmp.ok("query-net-stats", json!({}))
        );
    }
    let (rx, tx, _) = tunnel.lab.port("t");
    assert!(rx > 100 && tx > 100, "{rx} frames in, {tx} out");
}

#[test]
fn the_kernels_device_is_the_other_end() {
    check("the_kernels_device_is_the_other_end", "10.1.0.1", "10.1.0.2", "dstport 4789", &json!({}));
}

#[test]
fn the_kernels_device_is_the_other_end_over_ipv6() {
    let test = "the_kernels_device_is_the_other_end_over_ipv6";
    check(test, "fd01::1", "fd01::2", "dstport 4789", &json!({"local": "fd01::1"}));
}

#[test]
fn a_peer_may_vanish_and_return() {
    let test = "a_peer_may_vanish_and_return";
    if !ready(test, NEEDS) {
        return;
    }
    let Some(mut tunnel) = Tunnel::new(test, "10.1.0.1", "10.1.0.2", "dstport 4789", &json!({})) else {
        return;
    };
    passes(&tunnel, 0);
    let vanishes = [
        // Nobody listens: the other host answers by ICMP.
        ("link del vx0", "link add vx0 type vxlan id 42 dev w1 local 10.1.0.2 remote 10.1.0.1 dstport 4789"),
        // The path is gone: our end loses its carrier.
        ("link set w1 down", "link set w1 up"),
        // The address is gone: nobody answers for it.
        ("address del 10.1.0.2/24 dev w1", "address add 10.1.0.2/24 dev w1"),
    ];
    for ((goes, comes), mark) in vanishes.into_iter().zip(1..) {
        tunnel.far.ip(goes);
        let guest = PacketSocket::open(&tunnel.guest, "guest");
        let before = tunnel.lab.port("guest").0;
        (0..50).for_each(|_| guest.send(&frame(BROADCAST, SOURCE, &[0xee; 46])));
        let read = wait::until(wait::PATIENCE, || (tunnel.lab.port("guest").0 >= before + 50).then_some(()));
        read.expect("nobody is held up");
        tunnel.far.ip(comes);
        if comes.starts_with("link add") {
            tunnel.far.up("vx0", Ipv4Addr::new(10, 77, 0, 2));
        }
        passes(&tunnel, mark);
    }
}

/// That a frame passes each way. Older ones may come before it: the kernel keeps some while it looks for the other host.
fn passes(tunnel: &Tunnel, mark: u8) {
    let (near, far) = (PacketSocket::open(&tunnel.guest, "guest"), PacketSocket::open(&tunnel.far, "vx0"));
    let bytes = frame(BROADCAST, SOURCE, &[mark; 46]);
    for (from, to, way) in [(&near, &far, "out"), (&far, &near, "in")] {
        from.send(&bytes);
        let came = wait::until(wait::PATIENCE, || {
            to.receive(Duration::from_secs(1)).filter(|came| *came == bytes).map(drop)
        });
        assert!(came.is_some(), "frame {mark}, {way}");
    }
}

#[test]
fn another_port_and_no_checksum_are_taken() {
    let device = "dstport 8472 noudpcsum";
    check(
        "another_port_and_no_checksum_are_taken",
        "10.1.0.1",
        "10.1.0.2",
        device,
        &json!({"port": 8472, "local": "10.1.0.1"}),
    );
}

/// `UDP_SEGMENT`: the kernel leaves a large UDP frame whole as far as we are, and tells a socket the length of its segments as if they were datagrams of
/// the tunnel.
#[test]
fn large_udp_frames_of_the_kernel_arrive_as_what_they_were_to_be() {
    let test = "large_udp_frames_of_the_kernel_arrive_as_what_they_were_to_be";
    if !ready(test, NEEDS) {
        return;
    }
    let Some(mut tunnel) = Tunnel::new(test, "10.1.0.1", "10.1.0.2", "dstport 4789", &json!({})) else {
        return;
    };
    let open = |address: &str| UdpSocket::bind(address).expect("a socket");
    let (to, from) =
        (tunnel.guest.inside(|| open("10.77.0.1:9000")), tunnel.far.inside(|| open("10.77.0.2:9000")));
    to.set_read_timeout(Some(wait::PATIENCE)).expect("a time limit");
    let payload: Vec<u8> = (0..10_300).map(|at: usize| (at / 100).to_le_bytes()[0]).collect();
    setsockopt(&from, sockopt::UdpGsoSegment, &1000).expect("UDP_SEGMENT");
    for _ in 0..3 {
        from.send_to(&payload, "10.77.0.1:9000").expect("it is sent");
        for datagram in payload.chunks(1000) {
            let mut bytes = [0; 2048];
            let len = to.recv(&mut bytes).expect("each of its datagrams arrives");
            assert_eq!(&bytes[..len], datagram);
        }
    }
    let stats = tunnel.lab.qmp.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().expect("ports");
    assert!(ports.iter().all(|port| port["drops"] == json!({})), "{stats}");
}

#[test]
fn another_network_is_dropped_by_name() {
    let test = "another_network_is_dropped_by_name";
    if !ready(test, NEEDS) {
        return;
    }
    let Some(mut tunnel) = Tunnel::new(test, "10.1.0.1", "10.1.0.2", "dstport 4789", &json!({"vni": 43}))
    else {
        return;
    };
    let far = PacketSocket::open(&tunnel.far, "vx0");
    far.send(&frame(BROADCAST, SOURCE, &[1; 100]));
    let dropped = wait::until(wait::PATIENCE, || {
        let stats = tunnel.lab.qmp.ok("query-net-stats", json!({}));
        let ports = stats["ports"].as_array().expect("ports");
        ports.iter().any(|port| port["name"] == "t" && port["drops"]["wrong-vni"] == 1).then_some(())
    });
    dropped.expect("a frame of network 42 is none of network 43");
}
