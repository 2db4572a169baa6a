//! What this machine's kernel may lack: the other end of an L2TPv3 tunnel is the kernel of a guest, and a `stream` over AF_VSOCK runs inside of one.
//!
//! ```text
//!  near: tap -- hub 2 -- l2tpv3 == tap `host` -- hub 0 -- nic 0: guest: l2tp_eth -- bridge -- nic 1 -- hub 1 -- tap: far
//! ```

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};
use tests::daemon::{netdevctl, netdevd};
use tests::lab::{Lab, Leg};
use tests::machine::{self, Machine, Socket};
use tests::packet::frame;
use tests::skip::{Need, ready};
use tests::wait;

use crate::{GUEST_AND_TAP, nics, socket};

const BROADCAST: [u8; 6] = [0xff; 6];
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
/// Frames that are under way at most: no queue on the way is shorter.
const WINDOW: usize = 16;

/// A daemon with two nics, each on a hub of its own, and the leg `far` beside the second.
fn lab() -> (Lab, Leg) {
    let arguments = [nics(0, &["n0"], ""), nics(1, &["n1"], "")].concat();
    let mut lab = Lab::new(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let far = Leg::new(&mut lab, "far");
    lab.hub(1, &["far"]);
    (lab, far)
}

/// The next test frame on a leg.
#[track_caller]
fn arrived(at: &Leg) -> Vec<u8> {
    let end = Instant::now() + machine::PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let bytes = at.socket.receive(left).expect("a frame comes");
        if bytes[12..14] == [0x88, 0xb5] {
            return bytes;
        }
    }
}

/// Frames of all these lengths go both ways and arrive in order as they were.
#[track_caller]
fn exchange(near: &Leg, far: &Leg, lengths: &[usize], what: &str) {
    for (from, to) in [(near, far), (far, near)] {
        for (round, window) in lengths.chunks(WINDOW).enumerate() {
            let bytes = |len: usize| -> Vec<u8> {
                let payload = (14..len).map(|at| (at * 7 + len + round).to_le_bytes()[0]);
                frame(BROADCAST, SOURCE, &payload.collect::<Vec<u8>>())
            };
            window.iter().for_each(|len| from.socket.send(&bytes(*len)));
            for len in window {
                assert!(arrived(to) == bytes(*len), "{what}: {len} bytes from {} to {}", from.name, to.name);
            }
        }
    }
}

/// A tunnel: its ends, what is before a frame, and the same in the guest's words.
struct Case {
    udp: bool,
    ipv6: bool,
    /// Bytes of each cookie.
    cookie: usize,
    /// A sublayer of four bytes stands behind the cookie (RFC 3931 section 4.6), which is where QEMU has its counter.
    sublayer: bool,
}

impl Case {
    fn options(&self) -> Value {
        let (src, dst) = if self.ipv6 { ("fd08::1", "fd08::2") } else { ("10.8.0.1", "10.8.0.2") };
        let mut all = json!({"type": "l2tpv3", "id": "t", "src": src, "dst": dst, "ipv6": self.ipv6, "udp": self.udp,
            "srcport": "1701", "dstport": "1702", "txsession": 0x22, "rxsession": 0x11, "counter": self.sublayer});
        if self.cookie > 0 {
            // Where cookies have 4 bytes, the lower half counts.
            all["txcookie"] = json!(0xc1c2_c3c4_c5c6_c7c8_u64);
            all["rxcookie"] = json!(0xd1d2_d3d4_d5d6_d7d8_u64);
        }
        if self.cookie == 8 {
            all["cookie64"] = json!(true);
        }
        all
    }

    /// The guest's end, as the interface `l2` on its bridge.
    fn commands(&self) -> String {
        let (local, remote) = if self.ipv6 { ("fd08::2", "fd08::1") } else { ("10.8.0.2", "10.8.0.1") };
        let encap = if self.udp { "udp udp_sport 1702 udp_dport 1701" } else { "ip" };
        let mut line = format!(
            "ip l2tp add tunnel tunnel_id 1 peer_tunnel_id 1 local {local} remote {remote} encap {encap} && \
             ip l2tp add session name l2 tunnel_id 1 session_id {} peer_session_id {}",
            0x22, 0x11
        );
        if self.cookie > 0 {
            let cut = |text: &str| text[16 - 2 * self.cookie..].to_owned();
            let (sent, expected) = (cut("d1d2d3d4d5d6d7d8"), cut("c1c2c3c4c5c6c7c8"));
            // iproute2's `cookie` is the one that is sent.
            let _ = write!(line, " cookie {sent} peer_cookie {expected}");
        }
        let kind = if self.sublayer { "default" } else { "none" };
        let _ = write!(line, " l2spec_type {kind} && ip link set dev l2 mtu 1500 master br0 up");
        line
    }

    fn name(&self) -> String {
        let Self { udp, ipv6, cookie, sublayer } = self;
        format!("udp {udp}, ipv6 {ipv6}, cookies of {cookie}, sublayer {sublayer}")
    }
}

#[test]
fn the_kernels_l2tp_is_the_other_end() {
    if !ready("the_kernels_l2tp_is_the_other_end", GUEST_AND_TAP) {
        return;
    }
    let _turn = machine::turn();
    let (mut lab, far) = lab();
    let near = Leg::new(&mut lab, "near");
    near.place.ip("address add 10.9.0.1/24 dev near");
    lab.hub(2, &["near"]);
    lab.tap("host", &json!({}));
    lab.home.run("sh", &["-c", "echo 0 >/proc/sys/net/ipv6/conf/host/disable_ipv6"]);
    for address in ["10.8.0.1/24", "fd08::1/64 nodad"] {
        lab.home.ip(&format!("address add {address} dev host"));
    }
    lab.home.ip("link set host up");
    lab.hub(0, &["host"]);
    let nic = |name: &str| Socket::new(socket(&lab.daemon, name));
    let mut guest = Machine::prepare(1).nic(nic("n0")).nic(nic("n1")).start().up();
    let (outer, inner) = (guest.dev(0), guest.dev(1));
    guest.run("modprobe l2tp_eth && modprobe l2tp_ip && modprobe l2tp_ip6 && modprobe bridge");
    guest.run(&format!(
        "ip link set {outer} up && ip address add 10.8.0.2/24 dev {outer} && ip address add fd08::2/64 dev {outer} nodad && \
         ip link add br0 type bridge && ip link set {inner} master br0 up && ip address add 10.9.0.2/24 dev br0 && ip link set br0 up"
    ));
    let lengths: Vec<usize> = (60..=1514).step_by(23).chain([61, 1499, 1500, 1513, 1514]).collect();
    let case = |udp, ipv6, cookie, sublayer| Case { udp, ipv6, cookie, sublayer };
    for case in [
        case(true, false, 0, false),
        case(true, false, 4, false),
        case(true, false, 8, false),
        case(true, false, 8, true),
        case(false, false, 4, false),
        case(false, false, 8, false),
        case(true, true, 8, false),
        case(false, true, 8, true),
    ] {
        let what = case.name();
        lab.qmp.ok("netdev_add", case.options());
        lab.hub(2, &["t"]);
        guest.run(&case.commands());
        // Neighbours meet: until then a frame may wait, or be lost.
        let answered =
            || wait::output(near.place.command("ping").args(["-c1", "-W1", "10.9.0.2"]), 5).status.success();
        let met = wait::until(crate::PATIENCE, || answered().then_some(()));
        assert!(
            met.is_some(),
            "{what}: no answer; {}; {}",
            lab.qmp.ok("query-net-stats", json!({})),
            guest.run("ip l2tp show session; ip -s link; ip neighbour")
        );
        for size in ["56", "1400"] {
            near.place.run("ping", &["-c", "3", "-i", "0.01", "-W", "10", "-s", size, "10.9.0.2"]);
        }
        exchange(&near, &far, &lengths, &what);
        assert_eq!(crate::dropped(&mut lab.qmp, "t"), 0, "{what}");
        guest.run("ip l2tp del tunnel tunnel_id 1");
        for id in ["t-port", "t"] {
            lab.qmp.ok("netdev_del", json!({"id": id}));
        }
    }
}

/// The daemon runs inside the guest, whose kernel has a loopback of AF_VSOCK.
///
/// ```text
///  near: tap -- hub 0 -- nic 0: bridge -- tap a -- [netdevd: stream == vsock == stream] -- tap b -- bridge -- nic 1 -- hub 1 -- tap: far
/// ```
#[test]
fn a_stream_runs_over_vsock() {
    if !ready("a_stream_runs_over_vsock", &[GUEST_AND_TAP, &[Need::Tool("cpio"), Need::Tool("ldd")]].concat())
    {
        return;
    }
    let _turn = machine::turn();
    let (mut lab, far) = lab();
    let near = Leg::new(&mut lab, "near");
    lab.hub(0, &["near"]);
    let nic = |name: &str| Socket::new(socket(&lab.daemon, name));
    let machine = Machine::prepare(1).nic(nic("n0")).nic(nic("n1"));
    let mut guest = machine.program(netdevd()).program(netdevctl()).start().up();
    guest.run("modprobe vsock_loopback && modprobe bridge && modprobe tun");
    let tap = |id: &str| format!("-netdev tap,id={id},ifname={id},script=no,downscript=no");
    let stream = |id: &str, more: &str| {
        format!("-netdev stream,id={id},addr.type=vsock,addr.cid=1,addr.port=7000{more}")
    };
    let joined = |hub: u8, one: &str, other: &str| {
        [one, other].map(|id| format!("-netdev hubport,id={id}-port,hubid={hub},netdev={id}")).join(" ")
    };
    let line = [
        "netdevd -qmp unix:/tmp/qmp,server=on,wait=off".to_owned(),
        tap("a"),
        tap("b"),
        stream("server", ",server=on"),
        stream("client", ",reconnect-ms=100"),
        joined(0, "a", "server"),
        joined(1, "client", "b"),
    ];
    guest.run(&format!("({} >/tmp/said 2>&1 &)", line.join(" ")));
    let connected = "netdevctl -s /tmp/qmp hmp 'info network' | grep -q client:.*vsock:1:7000";
    let (status, said) = guest.attempt(&format!(
        "for i in $(seq 300); do {connected} && exit 0; sleep 0.1; done; cat /tmp/said; exit 1"
    ));
    assert_eq!(status, 0, "it does not connect: {said}");
    for (nic, tap, bridge) in [(0, "a", "br0"), (1, "b", "br1")] {
        let dev = guest.dev(nic);
        guest.run(&format!("ip link add {bridge} type bridge && ip link set {bridge} up"));
        for port in [&*dev, tap] {
            guest.run(&format!("ip link set dev {port} master {bridge} up"));
        }
    }
    let lengths: Vec<usize> = (60..=1514).step_by(19).chain([1514]).collect();
    exchange(&near, &far, &lengths, "vsock");
    let said = guest.run("netdevctl -s /tmp/qmp hmp 'info network'; cat /tmp/said");
    assert!(said.contains("vsock:"), "{said}");
}
