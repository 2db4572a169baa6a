//! What this machine's kernel may lack: the other end of an L2TPv3 tunnel is the kernel of a guest, and a `stream` over AF_VSOCK runs inside of it.
//!
//! ```text
//!  near: tap -- hub 2 -- l2tpv3 == tap `host` -- hub 0 -- nic 0: guest: l2tp_eth -- bridge -- nic 1 -- hub 1 -- tap: far
//!  near: tap -- hub 3 -- nic 2: guest: bridge -- tap a -- [netdevd: stream == vsock == stream] -- tap b -- bridge -- nic 1 -- hub 1 -- tap: far
//! ```

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};
use tests::lab::{Lab, Leg};
use tests::machine::{self, Machine, Socket};
use tests::packet::frame;
use tests::skip::{Need, ready};
use tests::{daemon, wait};

use crate::vhost::{ctl, programs, serve};
use crate::{GUEST_AND_TAP, PATIENCE, nics, socket};

const BROADCAST: [u8; 6] = [0xff; 6];
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
/// Frames that are under way at most: no queue on the way is shorter.
const WINDOW: usize = 16;

#[test]
fn the_kernels_l2tp_is_the_other_end_and_a_stream_runs_over_vsock() {
    const TEST: &str = "the_kernels_l2tp_is_the_other_end_and_a_stream_runs_over_vsock";
    if !ready(TEST, &[GUEST_AND_TAP, &[Need::Tool("cpio")]].concat()) {
        return;
    }
    let _turn = machine::turn();
    let directory = daemon::directory();
    let mut world = World::new();
    let nic = |name: &str| Socket::new(socket(&world.lab.daemon, name));
    let machine = Machine::prepare(1).archive(programs(directory.path(), &[]));
    let mut guest = machine.nic(nic("n0")).nic(nic("n1")).nic(nic("n2")).start().up();
    world.meet(&mut guest);
    for (number, case) in (1u32..).zip(CASES) {
        world.tunnel(&mut guest, number, case);
    }
    world.vsock(&mut guest);
}

/// A daemon with three nics, each on a hub of its own, and the taps.
struct World {
    lab: Lab,
    near: Leg,
    far: Leg,
}

impl World {
    fn new() -> Self {
        let arguments = [nics(0, &["n0"], ""), nics(1, &["n1"], ""), nics(3, &["n2"], "")].concat();
        let mut lab = Lab::new(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let [near, far] = ["near", "far"].map(|name| Leg::new(&mut lab, name));
        lab.hub(1, &["far"]);
        lab.hub(2, &["near"]);
        lab.tap("host", &json!({}));
        lab.hub(0, &["host"]);
        lab.home.run("sh", &["-c", "echo 0 >/proc/sys/net/ipv6/conf/host/disable_ipv6"]);
        for address in ["10.8.0.1/24", "fd08::1/64 nodad"] {
            lab.home.ip(&format!("address add {address} dev host"));
        }
        lab.home.ip("link set host up");
        Self { lab, near, far }
    }

    /// The guest joins its nics; the ends of all tunnels know each other from then on, and for good.
    fn meet(&mut self, guest: &mut Machine) {
        guest.run("modprobe -a l2tp_eth l2tp_ip l2tp_ip6 bridge tun vsock_loopback");
        let [outer, inner, side] = [0, 1, 2].map(|nic| guest.dev(nic));
        guest.run(&format!(
            "ip link set {outer} up && ip address add 10.8.0.2/24 dev {outer} && ip address add fd08::2/64 dev {outer} nodad"
        ));
        for (bridge, port) in [("br0", inner), ("br1", side)] {
            guest.run(&format!("ip link add {bridge} type bridge && ip link set {bridge} up"));
            join(guest, bridge, &port);
        }
        let home = &self.lab.home;
        let text = home.ip("-br link show host");
        let mac = text.split_whitespace().nth(2).expect("an address").to_owned();
        for (here, there) in [("10.8.0.1", "10.8.0.2"), ("fd08::1", "fd08::2")] {
            home.ip(&format!("neighbour replace {there} lladdr {} dev host nud permanent", guest.mac(0)));
            guest.run(&format!("ip neighbour replace {here} lladdr {mac} dev {outer} nud permanent"));
            let answered =
                || wait::output(home.command("ping").args(["-c1", "-W1", there]), 5).status.success();
            assert!(wait::until(PATIENCE, || answered().then_some(())).is_some(), "{there} never answers");
        }
    }

    fn tunnel(&mut self, guest: &mut Machine, number: u32, case: Case) {
        let (id, what) = (format!("t{number}"), case.name());
        self.lab.qmp.ok("netdev_add", case.options(&id, number));
        self.lab.hub(2, &[&id]);
        guest.run(&case.commands(number));
        join(guest, "br0", &format!("l2-{number}"));
        let lengths: Vec<usize> = (60..=1514).step_by(45).chain([61, 1499, 1500, 1513, 1514]).collect();
        self.exchange(guest, &lengths, &what);
        assert_eq!(crate::dropped(&mut self.lab.qmp, &id), 0, "{what}");
        guest.run(&format!("ip l2tp del tunnel tunnel_id {number}"));
        for id in [format!("{id}-port"), id] {
            self.lab.qmp.ok("netdev_del", json!({"id": id}));
        }
    }

    /// The daemon runs inside the guest, whose kernel has a loopback of AF_VSOCK.
    fn vsock(&mut self, guest: &mut Machine) {
        self.lab.qmp.ok("netdev_del", json!({"id": "near-port"}));
        self.lab.hub(3, &["near"]);
        serve(guest);
        let address = "addr.type=vsock addr.cid=1 addr.port=7000";
        for (hub, tap, stream) in [(0, "a", "server=on"), (1, "b", "reconnect-ms=100")] {
            ctl(guest, &format!("netdev_add type=tap id={tap} ifname={tap} script=no downscript=no"));
            ctl(guest, &format!("netdev_add type=stream id=s{tap} {address} {stream}"));
            for netdev in [tap, &format!("s{tap}")] {
                ctl(guest, &format!("netdev_add type=hubport id=p{netdev} hubid={hub} netdev={netdev}"));
            }
        }
        let connected = "netdevctl -s /tmp/qmp hmp 'info network' | grep -q sb:.*vsock:1:7000";
        let (status, said) = guest.attempt(&format!(
            "for i in $(seq 300); do {connected} && exit 0; sleep 0.1; done; cat /tmp/log; exit 1"
        ));
        assert_eq!(status, 0, "it does not connect: {said}");
        join(guest, "br1", "a");
        join(guest, "br0", "b");
        let lengths: Vec<usize> = (60..=1514).step_by(19).chain([1514]).collect();
        self.exchange(guest, &lengths, "vsock");
    }

    /// Frames of all these lengths go both ways and arrive as they were. Of a window any may be the first: a datagram promises no order, and on a host whose
    /// processors are all busy two were seen to change places.
    #[track_caller]
    fn exchange(&mut self, guest: &mut Machine, lengths: &[usize], what: &str) {
        for back in [false, true] {
            let (from, to) = if back { (&self.far, &self.near) } else { (&self.near, &self.far) };
            for (round, window) in lengths.chunks(WINDOW).enumerate() {
                let bytes = |len: usize| -> Vec<u8> {
                    let payload = (14..len).map(|at| (at * 7 + len + round).to_le_bytes()[0]);
                    frame(BROADCAST, SOURCE, &payload.collect::<Vec<u8>>())
                };
                window.iter().for_each(|len| from.socket.send(&bytes(*len)));
                let mut wanted: Vec<_> = window.iter().map(|len| bytes(*len)).collect();
                let mut came: Vec<_> = window.iter().map_while(|_| arrived(to)).collect();
                wanted.sort();
                came.sort();
                assert!(
                    came == wanted,
                    "{what}: {window:?} from {} to {}, but {:?}\n{}\n{}\n{}",
                    from.name,
                    to.name,
                    came.iter().map(Vec::len).collect::<Vec<_>>(),
                    self.lab.qmp.ok("query-net-stats", json!({})),
                    self.lab.home.run("sh", &["-c", "ip -s link; cat /proc/net/snmp /proc/net/snmp6"]),
                    guest.run("ip l2tp show session; ip -s link; ip neighbour; cat /proc/net/snmp /proc/net/snmp6; dmesg | tail -n 20"),
                );
            }
        }
    }
}

/// Makes an interface of the guest a port of its bridge, and waits until frames pass: its kernel looks at carriers once a second, and until it has seen that
/// one the port takes nothing out.
#[track_caller]
fn join(guest: &mut Machine, bridge: &str, port: &str) {
    let forwards = format!("[ $(cat /sys/class/net/{port}/brport/state) = 3 ]");
    guest.run(&format!(
        "ip link set dev {port} master {bridge} up && for i in $(seq 600); do {forwards} && exit 0; sleep 0.05; done; exit 1"
    ));
}

/// The next test frame on a leg.
fn arrived(at: &Leg) -> Option<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let bytes = at.socket.receive(end.saturating_duration_since(Instant::now()))?;
        if bytes[12..14] == [0x88, 0xb5] {
            return Some(bytes);
        }
    }
}

/// A tunnel: what it runs over, and what is before a frame.
#[derive(Clone, Copy)]
struct Case {
    udp: bool,
    ipv6: bool,
    /// Bytes of each cookie.
    cookie: usize,
    /// A sublayer of four bytes stands behind the cookie (RFC 3931 section 4.6), which is where QEMU has its counter.
    sublayer: bool,
}

const CASES: [Case; 8] = [
    Case { udp: true, ipv6: false, cookie: 0, sublayer: false },
    Case { udp: true, ipv6: false, cookie: 4, sublayer: false },
    Case { udp: true, ipv6: false, cookie: 8, sublayer: true },
    Case { udp: false, ipv6: false, cookie: 4, sublayer: false },
    Case { udp: false, ipv6: false, cookie: 8, sublayer: false },
    Case { udp: true, ipv6: true, cookie: 8, sublayer: false },
    Case { udp: false, ipv6: true, cookie: 4, sublayer: false },
    Case { udp: false, ipv6: true, cookie: 8, sublayer: true },
];

impl Case {
    /// Each tunnel has numbers of its own: the kernel takes away those of the last one in its own time.
    const fn numbers(number: u32) -> [u32; 4] {
        [1700 + number, 1800 + number, 0x110 + number, 0x220 + number]
    }

    fn options(self, id: &str, number: u32) -> Value {
        let (src, dst) = if self.ipv6 { ("fd08::1", "fd08::2") } else { ("10.8.0.1", "10.8.0.2") };
        let [ours, theirs, rx, tx] = Self::numbers(number);
        let mut all = json!({"type": "l2tpv3", "id": id, "src": src, "dst": dst, "ipv6": self.ipv6, "udp": self.udp,
            "srcport": ours.to_string(), "dstport": theirs.to_string(), "txsession": tx, "rxsession": rx,
            "counter": self.sublayer});
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

    /// The guest's end, as an interface.
    fn commands(self, number: u32) -> String {
        let (local, remote) = if self.ipv6 { ("fd08::2", "fd08::1") } else { ("10.8.0.2", "10.8.0.1") };
        let [ours, theirs, rx, tx] = Self::numbers(number);
        let encap =
            if self.udp { format!("udp udp_sport {theirs} udp_dport {ours}") } else { "ip".to_owned() };
        let mut line = format!(
            "ip l2tp add tunnel tunnel_id {number} peer_tunnel_id {number} local {local} remote {remote} encap {encap} && \
             ip l2tp add session name l2-{number} tunnel_id {number} session_id {tx} peer_session_id {rx}"
        );
        if self.cookie > 0 {
            let cut = |text: &str| text[16 - 2 * self.cookie..].to_owned();
            let (sent, expected) = (cut("d1d2d3d4d5d6d7d8"), cut("c1c2c3c4c5c6c7c8"));
            // iproute2's `cookie` is the one that is sent.
            let _ = write!(line, " cookie {sent} peer_cookie {expected}");
        }
        let kind = if self.sublayer { "default" } else { "none" };
        let _ = write!(line, " l2spec_type {kind} && ip link set dev l2-{number} mtu 1500");
        line
    }

    fn name(self) -> String {
        let Self { udp, ipv6, cookie, sublayer } = self;
        format!("udp {udp}, ipv6 {ipv6}, cookies of {cookie}, sublayer {sublayer}")
    }
}
