//! DHCPv6 and router advertisements beside those of QEMU's `user` netdev, byte for byte. A guest is a socket here, behind a `dgram` netdev.

use std::net::Ipv6Addr;
use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::skip::{Need, ready};
use tests::wait::PATIENCE;

use crate::world::has_process;

const GUEST: ([u8; 6], Ipv6Addr) =
    ([0x52, 0x54, 0, 0x12, 0x34, 0x56], Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456));
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All servers and relays (RFC 8415 section 7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const UDP: u8 = 17;
const ICMP: u8 = 58;

/// A frame of the guest's whose transport has its checksum at `at`.
fn frame(to: Ipv6Addr, (kind, hops): (u8, u8), transport: &[u8], at: usize) -> Vec<u8> {
    let length = u16::try_from(transport.len()).expect("short").to_be_bytes();
    let [.., a, b, c, d] = to.octets();
    let mut whole = transport.to_vec();
    let pseudo =
        [&GUEST.1.octets()[..], &to.octets(), &[0, 0], &length, &[0, 0, 0, kind], transport].concat();
    let mut sum: u32 =
        pseudo.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |&low| low.into())).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    whole[at..at + 2].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
    [
        &[0x33, 0x33, a, b, c, d],
        &GUEST.0[..],
        &[0x86, 0xdd, 0x60, 0, 0, 0],
        &length,
        &[kind, hops],
        &GUEST.1.octets(),
        &to.octets(),
        &whole,
    ]
    .concat()
}

fn solicitation() -> Vec<u8> {
    let source = [&[1, 1], &GUEST.0[..]].concat();
    frame(ROUTERS, (ICMP, 255), &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &source].concat(), 2)
}

/// A message of DHCPv6 from the client's port.
fn message(kind: u8, number: u8, options: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + options.len()).expect("short").to_be_bytes();
    let header = [&[2, 34, 2, 35], &length[..], &[0, 0], &[kind, 1, 2, number]].concat();
    frame(SERVERS, (UDP, 1), &[&header, options].concat(), 6)
}

/// What the guest asks: a name server, a boot file, both, what there is not, nothing; and what is no answer's worth.
fn requests() -> Vec<(u8, Vec<u8>, bool)> {
    let client = [0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let wants = |wanted: &[u8]| {
        let count = u8::try_from(wanted.len() * 2).expect("few");
        let codes: Vec<u8> = wanted.iter().flat_map(|&code| [0, code]).collect();
        [&[0, 6, 0, count][..], &codes].concat()
    };
    let elapsed = [0, 8, 0, 2, 0, 0];
    vec![
        (11, [&client[..], &elapsed, &wants(&[23, 24])].concat(), true),
        (11, [&client[..], &wants(&[23, 59])].concat(), true),
        (11, wants(&[59, 24, 31, 56]), true),
        (11, client.to_vec(), true),
        // No information request; an address in it (RFC 8415 section 16.12); half an option's code; an option longer than the message.
        (1, [&client[..], &wants(&[23])].concat(), false),
        (11, [&client[..], &[0, 5, 0, 4, 0, 0, 0, 0]].concat(), false),
        (11, [&client[..], &[0, 6, 0, 3, 0, 23, 0]].concat(), false),
        (11, [&client[..], &[0, 6, 0, 200, 0, 23]].concat(), false),
        (11, [&wants(&[23])[..], &client].concat(), true),
    ]
}

/// What a program answers, in the order of the questions.
fn answers(program: Program, options: &Value) -> Vec<Vec<u8>> {
    let daemon = Daemon::of(program).start();
    let mut qmp = daemon.client();
    let [near, far] = ["near", "far"].map(|name| daemon.directory().join(name));
    let guest = UnixDatagram::bind(&far).expect("a socket");
    guest.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = |path| json!({"type": "unix", "path": path});
    qmp.ok(
        "netdev_add",
        json!({"type": "dgram", "id": "d", "local": address(&near), "remote": address(&far)}),
    );
    let mut user = json!({"type": "user", "id": "u"});
    user.as_object_mut().expect("an object").extend(options.as_object().cloned().unwrap_or_default());
    qmp.ok("netdev_add", user);
    for netdev in ["d", "u"] {
        let port = json!({"type": "hubport", "id": format!("{netdev}-port"), "hubid": 1, "netdev": netdev});
        qmp.ok("netdev_add", port);
    }
    // The next frame from a port of a server's, or of this ICMP type.
    let next = |is_it: &dyn Fn(&[u8]) -> bool| loop {
        let mut bytes = [0; 2000];
        let count = guest.recv(&mut bytes).expect("an answer");
        if is_it(&bytes[..count]) {
            return bytes[..count].to_vec();
        }
    };
    let mut all = Vec::new();
    guest.send_to(&solicitation(), &near).expect("a frame goes");
    all.push(next(&|frame| frame.get(20) == Some(&ICMP) && frame.get(54) == Some(&134)));
    for (number, (kind, options, answered)) in (0..).zip(requests()) {
        guest.send_to(&message(kind, number, &options), &near).expect("a frame goes");
        if answered {
            // The next answer is the one to this: those before it that were worth none had none.
            let answer = next(&|frame| frame.get(20) == Some(&UDP));
            assert_eq!(answer.get(62..66), Some(&[7, 1, 2, number][..]), "{program:?}");
            all.push(answer);
        }
    }
    all
}

#[test]
fn dhcpv6_answers_are_qemus() {
    if !has_process("dhcpv6_answers_are_qemus") || !ready("dhcpv6_answers_are_qemus", &[Need::Oracle]) {
        return;
    }
    for options in [
        json!({}),
        json!({
            "ipv6-prefix": "fd00:7::", "ipv6-prefixlen": 56, "ipv6-host": "fd00:7::9", "ipv6-dns": "fd00:7::53",
            "tftp": "/nonexistent", "bootfile": "dir/boot.efi", "dnssearch": [{"str": "inside.example"}],
            "domainname": "example",
        }),
    ] {
        let [ours, theirs] = [Program::Netdevd, Program::Oracle].map(|program| answers(program, &options));
        assert_eq!(ours.len(), 6);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{options}");
        }
    }
}
