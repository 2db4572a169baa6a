//! `vxlan` between two addresses of one host: every size, and the ports that flows leave from.

use super::NEEDS;
use super::ends::{Ours, numbered, udp};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::UdpSocket;
use tests::lab::Leg;
use tests::packet::PacketSocket;
use tests::skip::ready;
use tests::wait;

/// A tunnel from `local` to `remote`, both of this host.
fn tunnel(id: &str, local: &str, remote: &str) -> Value {
    json!({"type": "vxlan", "id": id, "local": local, "remote": remote, "vni": 42})
}

/// A UDP datagram from port `flow`, as a frame of `len` bytes.
fn datagram(flow: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    bytes.extend(((len - 14) as u16).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(flow.to_be_bytes());
    bytes.extend([0, 80]);
    bytes.extend(((len - 34) as u16).to_be_bytes());
    bytes.resize(len, 0);
    bytes
}

/// The next datagram of the tunnel that has IPv4 in it: the port it came from, the port of its flow, and how long the frame is.
fn arrived(at: &UdpSocket) -> (u16, u16, usize) {
    let mut bytes = [0; 70_000];
    loop {
        let (n, from) = at.recv_from(&mut bytes).expect("a datagram comes");
        if bytes[20..22] == [8, 0] {
            return (from.port(), u16::from_be_bytes([bytes[42], bytes[43]]), n - 8);
        }
    }
}

#[test]
fn flows_of_a_vxlan_leave_from_ports_of_their_own() {
    if !ready("flows_of_a_vxlan_leave_from_ports_of_their_own", NEEDS) {
        return;
    }
    let mut ours = Ours::new();
    ours.leg.place.ip("link set leg mtu 9000");
    let far = udp(&ours.lab.home, "127.0.0.2:4789");
    let large = PacketSocket::open_with_headers(&ours.leg.place, "leg");
    let mut by = |ports: Option<u16>| {
        let mut options = tunnel("t", "127.0.0.1", "127.0.0.2");
        options["source-ports"] = json!(ports.unwrap_or(8));
        if ports.is_none() {
            options.as_object_mut().expect("options").shift_remove("source-ports");
        }
        ours.tunnel(options.as_object().expect("options"));
        let mut seen = Vec::new();
        for round in 0..3 {
            for flow in 1..=40 {
                ours.leg.socket.send(&datagram(flow, 100 + usize::from(flow) + round));
                let (port, of, len) = arrived(&far);
                assert_eq!((of, len), (flow, 100 + usize::from(flow) + round));
                seen.push((flow, port));
            }
        }
        // One large frame: VIRTIO_NET_HDR_GSO_UDP_L4 (5), ten segments of 1000 bytes, whose checksums are left to do.
        let mut header = vec![1, 5];
        for number in [42_u16, 1000, 34, 6] {
            header.extend(number.to_le_bytes());
        }
        large.send(&[header, datagram(7, 42 + 10_000)].concat());
        for _ in 0..10 {
            let (port, of, len) = arrived(&far);
            assert_eq!((of, len), (7, 1042));
            seen.push((7, port));
        }
        seen
    };
    for (ports, most) in [(None, 8), (Some(3), 3), (Some(64), 40)] {
        let seen = by(ports);
        let [pairs, distinct] = [
            seen.iter().copied().collect::<HashSet<_>>().len(),
            seen.iter().map(|(_, port)| port).collect::<HashSet<_>>().len(),
        ];
        assert_eq!(pairs, 40, "a flow stays at one port: {seen:?}");
        assert!(distinct > most / 2 && distinct <= most, "{distinct} of {most} ports");
        assert!(seen.iter().all(|(_, port)| *port >= 49_152), "{seen:?}");
    }
    assert!(by(Some(1)).iter().all(|(_, port)| *port == 4789));
    assert_eq!(ours.lab.port("t").2, 0);
}

#[test]
fn every_size_passes_between_two_vxlans_of_ours() {
    if !ready("every_size_passes_between_two_vxlans_of_ours", NEEDS) {
        return;
    }
    let mut ours = Ours::new();
    let far = Leg::new(&mut ours.lab, "far");
    for leg in [&ours.leg, &far] {
        leg.place.ip(&format!("link set {} mtu 65521", leg.name));
    }
    ours.lab.hub(2, &["far"]);
    ours.tunnel(tunnel("t", "127.0.0.1", "127.0.0.2").as_object().expect("options"));
    ours.lab.qmp.ok("netdev_add", tunnel("u", "127.0.0.2", "127.0.0.1"));
    ours.lab.hub(2, &["u"]);
    // The longest datagram of UDP over IPv4 has 65,507 bytes, 8 of them the header.
    let longest = 65_507 - 8;
    let steps = (14..2000).step_by(13).chain((2000..longest).step_by(1997)).chain(longest - 3..=longest);
    for (size, (from, to)) in steps.flat_map(|size| [(size, (&ours.leg, &far)), (size, (&far, &ours.leg))]) {
        let frame = numbered(size, size.to_le_bytes()[0]);
        from.socket.send(&frame);
        let came = to.socket.receive(wait::PATIENCE).expect("a frame comes");
        assert!(came.starts_with(&frame) && came[size..].iter().all(|&byte| byte == 0), "{size} bytes");
    }
    ours.leg.socket.send(&numbered(longest + 1, 0));
    let dropped = wait::until(wait::PATIENCE, || (ours.dropped("too-long") == 1).then_some(()));
    dropped.expect("one byte more does not fit, and is dropped by name");
}
