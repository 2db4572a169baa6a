//! The control queue of the built daemon's nics: what a guest's driver asks for, what it gets, and what queries tell of it.

use std::time::Duration;

use engine::backend::nic::NetFeatures;
use engine::virtq::DriverRing;
use engine::virtq::packed::PackedDriver;
use engine::virtq::split::SplitDriver;
use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::guest::{Guest, Shape};
use tests::qmp::Qmp;
use tests::wait::{self, PATIENCE};

type Net = NetFeatures;

const SPLIT: Shape = Shape { packed: false, mergeable: true };
const PACKED: Shape = Shape { packed: true, mergeable: true };
/// What a driver with a control queue agrees to.
const CONTROL: u64 =
    Net::MAC | Net::CTRL_VQ | Net::CTRL_RX | Net::CTRL_RX_EXTRA | Net::CTRL_VLAN | Net::CTRL_MAC_ADDR;
/// Addresses of the second nic, of others, and of groups.
const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const THIRD: [u8; 6] = [0x52, 0x54, 0, 0, 0, 3];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const GROUP2: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL: [u8; 6] = [0xff; 6];
/// Answers.
const OK: u8 = 0;
const ERR: u8 = 1;

/// A daemon with two nics on a hub; the second has the address [`OWN`] and these further options.
fn hub(more: &str) -> (Daemon, Qmp) {
    let second = format!("nic,id=n1,netdev=h1,addr=n1.sock,macaddr=52:54:00:00:00:01{more}");
    Daemon::netdevd(&[
        "-netdev",
        "hubport,id=h0,hubid=0",
        "-netdev",
        "hubport,id=h1,hubid=0",
        "-netdev",
        "nic,id=n0,netdev=h0,addr=n0.sock",
        "-netdev",
        &second,
    ])
}

fn plug<R: DriverRing>(daemon: &Daemon, nic: &str, shape: Shape, features: u64, pairs: usize) -> Guest<R> {
    let socket = daemon.directory().join(format!("{nic}.sock"));
    Guest::connect_with(&socket, shape, features, pairs).expect("a guest")
}

fn filter(client: &mut Qmp) -> Value {
    client.ok("query-rx-filter", json!({"name": "n1"}))[0].clone()
}

/// Whether such an event is among those that came so far.
fn has_come(client: &mut Qmp, name: &str) -> bool {
    client.take_events().iter().any(|event| event["event"] == name)
}

/// Frames that a nic got or refused so far.
fn judged(client: &mut Qmp, name: &str) -> u64 {
    let stats = client.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let count = |port: &Value| {
        port["tx-frames"].as_u64().unwrap_or(0) + port["drops"]["rx-filter"].as_u64().unwrap_or(0)
    };
    ports.iter().filter(|port| port["name"] == name).map(count).sum()
}

/// A frame to that address, with a VLAN tag if there is one.
fn frame(to: [u8; 6], vlan: Option<u16>, seed: u8) -> Vec<u8> {
    let mut bytes = to.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 7]);
    if let Some(vlan) = vlan {
        bytes.extend([0x81, 0]);
        bytes.extend(vlan.to_be_bytes());
    }
    bytes.extend([0x88, 0xb5]);
    bytes.resize(60, seed);
    bytes
}

/// Which frames arrive, of one to each of these.
fn arriving<A: DriverRing, B: DriverRing>(
    client: &mut Qmp,
    from: &mut Guest<A>,
    to: &mut Guest<B>,
    frames: &[([u8; 6], Option<u16>)],
) -> Vec<bool> {
    let before = judged(client, "n1");
    let sent: Vec<_> = frames.iter().enumerate().map(|(i, (to, vlan))| frame(*to, *vlan, i as u8)).collect();
    sent.iter().for_each(|frame| assert!(from.send(frame)));
    let wanted = before + sent.len() as u64;
    let all = wait::until(PATIENCE, || (judged(client, "n1") >= wanted).then_some(()));
    assert_eq!(all, Some(()), "{} of {wanted} frames are judged", judged(client, "n1"));
    // Settled: those that were taken lie in the ring.
    let mut got =
        std::iter::from_fn(|| to.receive(Duration::ZERO)).collect::<Vec<_>>().into_iter().peekable();
    let arrived = sent.iter().map(|frame| got.next_if(|got| got == frame).is_some()).collect();
    assert_eq!(got.next(), None, "frames out of order, or changed");
    arrived
}

/// The same for: the nic's own address, another, a third, two groups, all.
fn six<A: DriverRing, B: DriverRing>(client: &mut Qmp, from: &mut Guest<A>, to: &mut Guest<B>) -> [bool; 6] {
    let frames = [OWN, OTHER, THIRD, GROUP, GROUP2, ALL].map(|to| (to, None));
    arriving(client, from, to, &frames).try_into().expect("six frames")
}

/// The command that sets the table.
fn table(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    for list in [unicast, multicast] {
        bytes.extend((list.len() as u32).to_le_bytes());
        bytes.extend(list.as_flattened());
    }
    bytes
}

#[test]
fn commands_are_answered_as_qemu_answers_them() {
    fn run<R: DriverRing>(shape: Shape) {
        let (daemon, mut client) = hub("");
        let mut guest: Guest<R> =
            plug(&daemon, "n1", shape, CONTROL | Net::GUEST_CSUM | Net::CTRL_GUEST_OFFLOADS, 1);
        let cases: &[(&[u8], u8)] = &[
            (&[0, 0, 0], OK),
            (&[0, 5, 1], OK),
            (&[0, 5, 0], OK),
            (&[0, 6, 1], ERR),
            (&[0, 0], ERR),
            (&[1, 1, 2, 0, 0, 0, 0, 5], OK),
            (&[1, 1, 2, 0, 0, 0, 0], ERR),
            (&[1, 1, 2, 0, 0, 0, 0, 5, 5], ERR),
            (&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0], ERR),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], OK),
            (&[1, 0, 1, 0, 0, 0, 0, 0, 0, 0], ERR),
            (&[1, 0, 0, 0, 0, 0, 1, 0, 0, 0], ERR),
            (&[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], ERR),
            (&[2, 0, 0xff, 0x0f], OK),
            (&[2, 0, 0, 0x10], ERR),
            (&[2, 1, 5, 0], OK),
            (&[2, 2, 5, 0], ERR),
            (&[2, 0, 5], ERR),
            // Nobody asked for an announcement; several pairs were not agreed on.
            (&[3, 0], ERR),
            (&[4, 0, 1, 0], ERR),
            (&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0], OK),
            (&[5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0], ERR),
            (&[5, 1, 0, 0, 0, 0, 0, 0, 0, 0], ERR),
            (&[5, 0, 0], ERR),
            (&[6, 0, 0, 0], ERR),
            (&[255, 255], ERR),
        ];
        for (bytes, answer) in cases {
            assert_eq!(guest.command(bytes), *answer, "{bytes:02x?}");
        }
        // The ring goes round, and goes on after a stop.
        (0..200).for_each(|_| assert_eq!(guest.command(&[0, 0, 1]), OK));
        guest.pause_control();
        assert_eq!(guest.command(&[0, 1, 1]), OK);
        assert_eq!(filter(&mut client)["multicast"], "all");
        assert_eq!(filter(&mut client)["main-mac"], "02:00:00:00:00:05");
        // A flood is served, all of it.
        let many: Vec<(&[u8], usize)> = vec![(&[0, 0, 1], 3); 32];
        for _ in 0..20 {
            guest.offer_command(&many, 1);
            let mut answered = 0;
            while answered < many.len() {
                answered += guest.answers();
            }
        }
        let shown = client.ok("query-netdev", json!({"name": "n1"}))[0].clone();
        assert_eq!(shown["rings"][2], json!({"ring": 2, "state": "running", "size": 64}));
    }
    run::<SplitDriver>(SPLIT);
    run::<PackedDriver>(PACKED);
}

#[test]
fn frames_arrive_as_the_filter_says() {
    fn run<R: DriverRing>(shape: Shape) {
        let (daemon, mut client) = hub("");
        let c = &mut client;
        let mut a: Guest<SplitDriver> = plug(&daemon, "n0", SPLIT, 0, 1);
        let mut b: Guest<R> = plug(&daemon, "n1", shape, CONTROL, 1);
        let mut fresh = filter(c);
        let all: Vec<u16> = (0..4096).rev().collect();
        assert_eq!(fresh["vlan-table"].take(), json!(all));
        assert_eq!(
            fresh,
            json!({"name": "n1", "promiscuous": true, "multicast": "normal", "unicast": "normal", "vlan": "normal",
                "broadcast-allowed": true, "multicast-overflow": false, "unicast-overflow": false,
                "main-mac": "52:54:00:00:00:01", "vlan-table": null, "unicast-table": [], "multicast-table": []})
        );
        assert_eq!(six(c, &mut a, &mut b), [true; 6]);

        assert_eq!(b.command(&[0, 0, 0]), OK);
        assert_eq!(six(c, &mut a, &mut b), [true, false, false, false, false, true]);
        assert_eq!(b.command(&table(&[OTHER, THIRD], &[GROUP, GROUP2])), OK);
        assert_eq!(six(c, &mut a, &mut b), [true; 6]);
        let shown = filter(c);
        assert_eq!(shown["unicast-table"], json!(["52:54:00:00:00:03", "52:54:00:00:00:02"]));
        assert_eq!(shown["multicast-table"], json!(["33:33:00:00:00:01", "01:00:5e:00:00:01"]));
        assert_eq!(b.command(&table(&[OTHER], &[GROUP])), OK);
        assert_eq!(six(c, &mut a, &mut b), [true, true, false, true, false, true]);

        // Modes, each switched on and off again: what arrives, and the member that tells of it.
        for (mode, expected, member, value) in [
            (0, [true; 6], "promiscuous", json!(true)),
            (1, [true, true, false, true, true, true], "multicast", json!("all")),
            (2, [true, true, true, true, false, true], "unicast", json!("all")),
            (3, [true, true, false, false, false, true], "multicast", json!("none")),
            (4, [false, false, false, true, false, true], "unicast", json!("none")),
            (5, [true, true, false, true, false, false], "broadcast-allowed", json!(false)),
        ] {
            assert_eq!(b.command(&[0, mode, 1]), OK);
            assert_eq!(six(c, &mut a, &mut b), expected, "mode {mode}");
            assert_eq!(filter(c)[member], value, "mode {mode}");
            assert_eq!(b.command(&[0, mode, 0]), OK);
        }

        // Too many addresses: all of that kind are taken.
        let many =
            |n: usize, first: u8| -> Vec<[u8; 6]> { (0..n).map(|i| [first, 0, 0, 0, 9, i as u8]).collect() };
        assert_eq!(b.command(&table(&many(65, 2), &[GROUP])), OK);
        assert_eq!(six(c, &mut a, &mut b), [true, true, true, true, false, true]);
        let shown = filter(c);
        assert_eq!((&shown["unicast-overflow"], &shown["multicast-overflow"]), (&json!(true), &json!(false)));
        assert_eq!(
            (&shown["unicast-table"], &shown["multicast-table"]),
            (&json!([]), &json!(["01:00:5e:00:00:01"]))
        );
        assert_eq!(b.command(&table(&many(60, 2), &many(5, 3))), OK);
        assert_eq!(six(c, &mut a, &mut b), [true, false, false, true, true, true]);
        let shown = filter(c);
        assert_eq!((&shown["unicast-overflow"], &shown["multicast-overflow"]), (&json!(false), &json!(true)));
        assert_eq!(shown["unicast-table"].as_array().map(Vec::len), Some(60));
        assert_eq!(
            (&shown["unicast-table"][59], &shown["multicast-table"]),
            (&json!("02:00:00:00:09:00"), &json!([]))
        );
        // A table that makes no sense changes nothing.
        assert_eq!(b.command(&table(&[OTHER], &[])[..10]), ERR);
        assert_eq!(filter(c), shown);
        assert_eq!(b.command(&table(&[], &[])), OK);

        // VLANs: the tag counts before the address, untagged frames pass.
        let vlans = [
            (OWN, None),
            (OWN, Some(5)),
            (OWN, Some(0xe005)),
            (OWN, Some(6)),
            (OTHER, Some(5)),
            (ALL, Some(6)),
        ];
        let every = [true, true, true, true, false, true];
        assert_eq!(arriving(c, &mut a, &mut b, &vlans), every);
        assert_eq!(b.command(&[2, 1, 6, 0]), OK);
        assert_eq!(arriving(c, &mut a, &mut b, &vlans), [true, true, true, false, false, false]);
        let shown = filter(c);
        assert_eq!(
            (&shown["vlan"], shown["vlan-table"].as_array().map(Vec::len)),
            (&json!("normal"), Some(4095))
        );
        assert_eq!((&shown["vlan-table"][4088], &shown["vlan-table"][4089]), (&json!(7), &json!(5)));
        assert_eq!(b.command(&[2, 0, 6, 0]), OK);
        assert_eq!(arriving(c, &mut a, &mut b, &vlans), every);
        for vlan in 0..4096_u16 {
            let [low, high] = vlan.to_le_bytes();
            assert_eq!(b.command(&[2, 1, low, high]), OK);
        }
        assert_eq!(arriving(c, &mut a, &mut b, &vlans), [true, false, false, false, false, false]);
        let shown = filter(c);
        assert_eq!((&shown["vlan"], &shown["vlan-table"]), (&json!("none"), &json!([])));
        assert_eq!(b.command(&[0, 0, 1]), OK);
        assert_eq!(arriving(c, &mut a, &mut b, &vlans), [true; 6]);
        assert_eq!(b.command(&[0, 0, 0]), OK);

        // Another address, until the driver is another.
        assert_eq!(b.command(&[&[1, 1][..], &THIRD].concat()), OK);
        assert_eq!(six(c, &mut a, &mut b), [false, false, true, false, false, true]);
        assert_eq!(
            (filter(c)["main-mac"].clone(), b.config()[..6].to_vec()),
            (json!("52:54:00:00:00:03"), THIRD.to_vec())
        );
        let network = client.ok("human-monitor-command", json!({"command-line": "info network"}));
        assert!(network.as_str().is_some_and(|text| text.contains("macaddr=52:54:00:00:00:03")), "{network}");
        drop(b);
        client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
        let left = filter(&mut client);
        assert_eq!((&left["main-mac"], &left["promiscuous"]), (&json!("52:54:00:00:00:01"), &json!(true)));
        assert_eq!((&left["vlan"], left["vlan-table"].as_array().map(Vec::len)), (&json!("all"), Some(4096)));
        let mut b: Guest<R> = plug(&daemon, "n1", shape, 0, 1);
        assert_eq!(six(&mut client, &mut a, &mut b), [true; 6]);
        assert_eq!(b.config()[..6], OWN);
    }
    run::<SplitDriver>(SPLIT);
    run::<PackedDriver>(PACKED);
}

#[test]
fn a_change_of_the_filter_is_told_once_until_somebody_looks() {
    let backend = "socket,id=c0,path=d.sock,server=on,wait=off";
    let (daemon, mut client) =
        Daemon::netdevd(&["-chardev", backend, "-device", "virtio-net-pci,chardev=c0"]);
    let mut guest: Guest<SplitDriver> = plug(&daemon, "d", SPLIT, CONTROL, 1);
    let path = "/machine/peripheral-anon/device[0]/virtio-backend";
    for command in [&[0, 0, 1][..], &[2, 1, 9, 0], &[1, 1, 2, 0, 0, 0, 0, 5], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        // An error is no change.
        assert_eq!(guest.command(&[9, 9]), ERR);
        assert_eq!(guest.command(command), OK);
        assert_eq!(guest.command(&[0, 1, 1]), OK);
        let told = client.event("NIC_RX_FILTER_CHANGED", PATIENCE).expect("an event");
        // A nic without an id has no name.
        assert_eq!(told["data"], json!({"path": path}));
        // By now a second one would have come.
        client.ok("query-netdev", json!({}));
        assert!(!has_come(&mut client, "NIC_RX_FILTER_CHANGED"));
        client.ok("query-rx-filter", json!({}));
    }
    client.refused("query-rx-filter", json!({"name": "nope"}));
    let (daemon, mut client) = hub("");
    let mut guest: Guest<SplitDriver> = plug(&daemon, "n1", SPLIT, CONTROL, 1);
    assert_eq!(guest.command(&[0, 0, 1]), OK);
    let told = client.event("NIC_RX_FILTER_CHANGED", PATIENCE).expect("an event");
    assert_eq!(told["data"], json!({"name": "n1", "path": "/machine/peripheral/n1/virtio-backend"}));
}

#[test]
fn a_control_chain_that_makes_no_sense_stops_that_ring_only() {
    type Deed<R> = fn(&mut Guest<R>);
    fn run<R: DriverRing>(shape: Shape, deeds: &[(Deed<R>, &str)]) {
        let (daemon, mut client) = hub("");
        let mut a: Guest<SplitDriver> = plug(&daemon, "n0", SPLIT, 0, 1);
        for (deed, why) in deeds {
            let mut b: Guest<R> = plug(&daemon, "n1", shape, CONTROL, 1);
            assert_eq!(b.command(&[0, 0, 0]), OK);
            deed(&mut b);
            let stopped = client.event("NIC_STOPPED", PATIENCE).expect("an event");
            assert_eq!((&stopped["data"]["name"], &stopped["data"]["queue"]), (&json!("n1"), &json!(2)));
            let reason = stopped["data"]["reason"].as_str().unwrap_or_default();
            assert!(reason.contains(why), "{reason} instead of {why}");
            let shown = client.ok("query-netdev", json!({"name": "n1"}))[0].clone();
            let states: Vec<_> = (0..3).map(|ring| shown["rings"][ring]["state"].clone()).collect();
            assert_eq!(states, ["running", "running", "failed"]);
            // What it had asked for holds, and frames go on, both ways.
            assert_eq!(six(&mut client, &mut a, &mut b), [true, false, false, false, false, true]);
            let sent = frame(OTHER, None, 3);
            assert!(b.send(&sent));
            assert_eq!(a.receive(PATIENCE), Some(sent));
            drop(b);
            client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
        }
    }
    fn deeds<R: DriverRing>() -> Vec<(Deed<R>, &'static str)> {
        vec![
            (|guest| guest.offer_command(&[(&[0, 0, 1], 3)], 0), "no room for its status"),
            (|guest| guest.offer_command(&[(&[0], 1)], 1), "no header"),
            (|guest| guest.offer_command(&[(&[], 1)], 1), "no header"),
            (|guest| guest.offer_chain(&[(0, 0), (64, 1)], 1), "no bytes"),
            (|guest| guest.offer_chain(&[(1 << 40, 2), (64, 1)], 1), "outside of guest memory"),
            (|guest| guest.offer_chain(&[(0, u32::MAX), (64, 1)], 1), "outside of guest memory"),
        ]
    }
    let mut split = deeds::<SplitDriver>();
    split.push((Guest::loop_command, "loops"));
    run(SPLIT, &split);
    run(PACKED, &deeds::<PackedDriver>());
}

#[test]
fn a_table_of_any_size_is_read_where_it_lies() {
    let (daemon, mut client) = hub("");
    let mut guest: Guest<SplitDriver> = plug(&daemon, "n1", SPLIT, CONTROL, 1);
    // 64 KiB of zeros: two empty lists, and more behind them; then a list as long as its chain, and one byte longer.
    let zeros = 0x1f_0000 - 0x1_0000;
    guest.offer_chain(&[(zeros, 0x1_0000), (zeros + 0x1_0000, 1)], 1);
    assert_eq!(guest.answers(), 1);
    let long: Vec<[u8; 6]> =
        (0..600).map(|i: u16| [2, 0, 0, 0, i.to_be_bytes()[0], i.to_be_bytes()[1]]).collect();
    let bytes = table(&long, &[GROUP]);
    assert_eq!(guest.command(&bytes), OK);
    let shown = filter(&mut client);
    assert_eq!(
        (&shown["unicast-overflow"], &shown["multicast-table"]),
        (&json!(true), &json!(["01:00:5e:00:00:01"]))
    );
    assert_eq!(guest.command(&[&bytes[..], &[0]].concat()), ERR);
    assert_eq!(filter(&mut client), shown);
}

#[test]
fn offloads_change_while_frames_flow() {
    let (daemon, _client) = hub("");
    let mut a: Guest<SplitDriver> = plug(&daemon, "n0", SPLIT, Net::CSUM, 1);
    let features = CONTROL | Net::GUEST_CSUM | Net::CTRL_GUEST_OFFLOADS;
    let mut b: Guest<PackedDriver> = plug(&daemon, "n1", PACKED, features, 1);
    // A UDP datagram whose checksum is left to the device: its field has the sum of the pseudo header.
    let mut sent = [&OWN[..], &[2, 0, 0, 0, 0, 7, 8, 0]].concat();
    sent.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2]);
    sent.extend([0, 9, 0, 9, 0, 12, 0x14, 0x20, b't', b'e', b's', b't']);
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    let mut cross = |b: &mut Guest<PackedDriver>| {
        assert!(a.send_with(header, &sent));
        let got = b.receive(PATIENCE).expect("a frame");
        (b.header()[0], got[40..42] == sent[40..42])
    };
    assert_eq!(cross(&mut b), (1, true), "as it was");
    assert_eq!(b.command(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), OK);
    assert_eq!(cross(&mut b), (0, false), "done here");
    assert_eq!(b.command(&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0]), OK);
    assert_eq!(cross(&mut b), (1, true));
}

#[test]
fn pairs_are_in_use_as_the_driver_says() {
    let (daemon, mut client) = hub(",queues=2");
    let mut a: Guest<SplitDriver> = plug(&daemon, "n0", SPLIT, 0, 1);
    let mut b: Guest<SplitDriver> = plug(&daemon, "n1", SPLIT, CONTROL | Net::MQ, 2);
    let state = |client: &mut Qmp| {
        let shown = client.ok("query-netdev", json!({"name": "n1"}))[0]["rings"].clone();
        let rings = shown.as_array().cloned().unwrap_or_default();
        rings.iter().map(|ring| (ring["ring"].clone(), ring["state"].clone())).collect::<Vec<_>>()
    };
    let expected = |third: &str| {
        [(0, "running"), (1, "running"), (3, third), (4, "running")].map(|(n, s)| (json!(n), json!(s)))
    };
    assert_eq!(state(&mut client), expected("stopped"));
    // One pair at first: what the other one sends waits.
    let (second, first) = (frame(ALL, None, 2), frame(ALL, None, 1));
    b.send_by(1, &second);
    assert!(b.send(&first));
    assert_eq!(a.receive(PATIENCE).as_ref(), Some(&first));
    for (pairs, answer) in [(0, ERR), (3, ERR), (2, OK)] {
        assert_eq!(b.command(&[4, 0, pairs, 0]), answer, "{pairs}");
    }
    assert_eq!(a.receive(PATIENCE), Some(second));
    assert_eq!(state(&mut client), expected("running"));
    assert_eq!(b.command(&[4, 0, 1, 0]), OK);
    assert_eq!(state(&mut client), expected("stopped"));
    assert_eq!(b.config()[8..10], [2, 0]);
    assert!(a.send(&first));
    assert_eq!(b.receive(PATIENCE), Some(first));
}

#[test]
fn the_guest_is_asked_to_announce_itself_where_its_netdev_changed() {
    let (daemon, mut client) = hub("");
    client.ok("netdev_add", json!({"type": "hubport", "id": "g1", "hubid": 7}));
    let mut b: Guest<SplitDriver> = plug(&daemon, "n1", SPLIT, CONTROL | Net::GUEST_ANNOUNCE, 1);
    let status = |guest: &mut Guest<SplitDriver>| u16::from_le_bytes([guest.config()[6], guest.config()[7]]);
    assert_eq!((status(&mut b), b.has_news()), (1, false));
    client.ok("nic-set-netdev", json!({"name": "n1", "netdev": "g1"}));
    b.config_change();
    assert_eq!(status(&mut b), 3);
    assert_eq!((b.command(&[3, 1]), b.command(&[3, 0]), b.command(&[3, 0])), (ERR, OK, ERR));
    assert_eq!((status(&mut b), b.has_news()), (1, false));
    // Nowhere is no place to be announced, and the same place is none that is new.
    client.ok("nic-set-netdev", json!({"name": "n1", "netdev": "g1"}));
    assert_eq!((status(&mut b), b.has_news()), (1, false));
    // The link's bit, told of when it changes and not when it is set to what it is.
    client.ok("set_link", json!({"name": "n1", "up": true}));
    assert_eq!((status(&mut b), b.has_news()), (1, false));
    client.ok("set_link", json!({"name": "n1", "up": false}));
    b.config_change();
    assert_eq!((status(&mut b), b.has_news()), (0, false));
    client.ok("set_link", json!({"name": "n1", "up": false}));
    assert_eq!((status(&mut b), b.has_news()), (0, false));
    client.ok("set_link", json!({"name": "n1", "up": true}));
    b.config_change();
    // Who did not agree to be asked is not.
    drop(b);
    client.event("NETDEV_VHOST_USER_DISCONNECTED", PATIENCE).expect("an event");
    let mut b: Guest<SplitDriver> = plug(&daemon, "n1", SPLIT, CONTROL, 1);
    client.ok("nic-set-netdev", json!({"name": "n1", "netdev": "h1"}));
    assert_eq!((status(&mut b), b.has_news()), (1, false));
}

#[test]
fn a_standby_nic_tells_when_its_driver_agrees() {
    let backend = "socket,id=c0,path=d.sock,server=on,wait=off";
    let device = "virtio-net-pci,id=n1,chardev=c0,mac=52:54:00:00:00:01,failover=on,host_mtu=1400,speed=10000,duplex=full";
    let (daemon, mut client) = Daemon::netdevd(&["-chardev", backend, "-device", device]);
    let features = CONTROL | Net::STANDBY | Net::MTU | Net::SPEED_DUPLEX;
    let mut guest: Guest<PackedDriver> = plug(&daemon, "d", PACKED, features, 1);
    let told = client.event("FAILOVER_NEGOTIATED", PATIENCE).expect("an event");
    assert_eq!(told["data"], json!({"device-id": "n1"}));
    let space = guest.config();
    assert_eq!(space[..6], OWN);
    assert_eq!(space[6..12], [1, 0, 1, 0, 0x78, 5]);
    assert_eq!(space[12..17], [0x10, 0x27, 0, 0, 1]);
    drop(guest);
    let _guest: Guest<PackedDriver> = plug(&daemon, "d", PACKED, CONTROL, 1);
    client.event("NETDEV_VHOST_USER_CONNECTED", PATIENCE).expect("an event");
    client.ok("query-netdev", json!({}));
    assert!(!has_come(&mut client, "FAILOVER_NEGOTIATED"));
}
