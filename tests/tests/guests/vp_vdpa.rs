//! netdevd inside a guest, on a vDPA device that really moves frames and offers what a card offers: QEMU's virtio-net device on a tap of
//! this machine, which the guest's kernel lends by `vp_vdpa`. Its rings are packed.
//!
//! ```text
//!  tap tg -- hub -- vhost-user u -- nic n -- vhost-vdpa v -- vp_vdpa        in the guest
//!                                                               |
//!                                         QEMU's virtio-net -- tap th       in a namespace of this machine
//! ```

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tests::machine::{self, Machine, Socket};
use tests::netns::NetNs;
use tests::skip::{Need, ready, record};
use tests::{daemon, wait};

use crate::vhost::{counted, ctl, modules, programs, serve};
use crate::{PATIENCE, Process, ten_pings};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const NEEDS: &[Need] = &[
    Need::Root,
    Need::Guests,
    Need::Tap,
    Need::Tool("cpio"),
    Need::Tool("vdpa"),
    Need::Tool("make"),
    Need::Tool("iperf3"),
];
/// The nic's hardware address, which its device is told.
const MAC: &str = "52:54:00:12:34:99";
/// That of the next one.
const OTHER_MAC: &str = "52:54:00:12:34:98";
/// CSUM, `GUEST_CSUM`, `GUEST_TSO4`, `GUEST_TSO6`, `GUEST_ECN`, `GUEST_UFO`, `HOST_TSO4`, `HOST_TSO6`, `HOST_ECN`, `HOST_UFO`, USO both ways.
const OFFLOADS: u64 = 0x7f83 | 7 << 54;
const CSUM: u64 = 1;
const HOST_TSO4: u64 = 1 << 11;
const HOST_UFO: u64 = 1 << 14;
const HOST_USO: u64 = 1 << 56;
const GUEST_TSO4: u64 = 1 << 7;

/// A member of `query-netdev` that is a set of feature bits.
#[track_caller]
fn bits(guest: &mut Machine, netdev: &str, member: &str) -> u64 {
    let shown = shown(guest, netdev);
    let text = shown[member].as_str().unwrap_or_else(|| panic!("no {member} in {shown}"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}

/// What `query-netdev` says of one.
#[track_caller]
fn shown(guest: &mut Machine, netdev: &str) -> Value {
    let said: Value =
        serde_json::from_str(&ctl(guest, &format!("query-netdev name={netdev}"))).expect("JSON");
    said[0].clone()
}

#[test]
fn a_virtio_device_lent_by_vp_vdpa_carries_a_nic_with_its_offloads() {
    const TEST: &str = "a_virtio_device_lent_by_vp_vdpa_carries_a_nic_with_its_offloads";
    if !ready(TEST, NEEDS) {
        return;
    }
    let _turn = machine::turn();
    let modules = match modules() {
        Ok(modules) => modules,
        Err(why) => return record(TEST, &why),
    };
    let directory = daemon::directory();
    let place = NetNs::new();
    let wrapper = ["nsenter".to_owned()].into_iter().chain(place.entry()).collect();
    let card = Socket::foreign("tap,ifname=th,script=no,downscript=no,queues=2").device(
        "iommu_platform=on,disable-legacy=on,mq=on,packed=on,host_ufo=off,host_uso=off,guest_uso4=off,guest_uso6=off",
    );
    let machine = Machine::prepare(1).iommu().under(wrapper).nic(card);
    let mut guest = machine.archive(modules).archive(programs(directory.path(), &[])).start().up();
    place.up("th", HOST);
    guest.run("modprobe vhost_vdpa && modprobe tun && insmod /modules/vp_vdpa.ko");
    lend(&mut guest, "true");
    serve(&mut guest);

    ctl(&mut guest, "netdev_add type=vhost-vdpa id=v vhostdev=/dev/vhost-vdpa-0");
    let device = shown(&mut guest, "v");
    eprintln!("{device}");
    // It says that it has two pairs; vp_vdpa has rings for one, as QEMU shows the others only to a driver that has agreed to them.
    let said = guest.run("vdpa dev config show vp0 && vdpa dev show vp0");
    assert!(said.contains("max_vq_pairs 2") && said.contains("max_vqs 3"), "{said}");
    assert_eq!((&device["queues"], &device["link"]), (&json!(1), &json!(true)), "{device}");
    ctl(&mut guest, &format!("netdev_add type=nic id=n netdev=v addr=/tmp/n.sock macaddr={MAC}"));
    ctl(
        &mut guest,
        "chardev-add id=c backend.type=socket backend.data.addr.type=unix backend.data.addr.data.path=/tmp/n.sock backend.data.server=false backend.data.reconnect-ms=100",
    );
    ctl(&mut guest, "netdev_add type=vhost-user id=u chardev=c");
    ctl(&mut guest, "netdev_add type=tap id=tg ifname=tg script=no downscript=no queues=2");
    for end in ["u", "tg"] {
        ctl(&mut guest, &format!("netdev_add type=hubport id=p-{end} hubid=0 netdev={end}"));
    }
    guest.run(&format!("ip addr add {GUEST}/24 dev tg && ip link set tg address {MAC} up"));
    guest.run("for i in $(seq 100); do netdevctl -s /tmp/qmp query-netdev name=n | grep -q ready && exit 0; sleep 0.1; done; exit 1");

    // What the device does not do, the nic does not offer.
    let (carried, offered) = (bits(&mut guest, "v", "features"), bits(&mut guest, "n", "offered"));
    assert_eq!(carried & (CSUM | HOST_TSO4 | GUEST_TSO4), CSUM | HOST_TSO4 | GUEST_TSO4, "{carried:#x}");
    assert_eq!(carried & (HOST_UFO | HOST_USO), 0, "{carried:#x}");
    assert_eq!(offered & OFFLOADS, carried & OFFLOADS, "{offered:#x} {carried:#x}");
    for end in ["n", "u"] {
        assert_eq!(bits(&mut guest, end, "features") & OFFLOADS, carried & OFFLOADS, "{end}");
    }
    // It has the nic's address, by its control queue, and lets everything in, since whose frames they are is the nic's to see.
    let filter = guest.qmp.ok("query-rx-filter", json!({}))[0].clone();
    assert_eq!((&filter["main-mac"], &filter["promiscuous"]), (&json!(MAC), &json!(true)), "{filter}");

    guest.run(&format!("for i in $(seq 30); do ping -q -c 1 -W 1 {HOST} && exit 0; done; exit 1"));
    guest.run(&ten_pings(HOST, 1400));
    large_frames_pass(&mut guest, &place);
    the_link_follows(&mut guest);
    // It goes under load: that is a name, and the nic's link is down.
    let load = format!("while ping -q -c 1 -W 1 -s 60000 {HOST}; do :; done");
    guest.run(&format!("for i in 1 2 3; do ({load}) >/dev/null 2>&1 & done"));
    guest.run("timeout 20 vdpa dev del vp0");
    let transport = shown(&mut guest, "v")["transport"].clone();
    assert_eq!(transport["error"], "the device was removed", "{transport}");
    assert_eq!(shown(&mut guest, "n")["link"], json!(false));
    several_pairs(&mut guest, &place);
}

/// Takes the card away from its driver and makes a vDPA device of it, after some commands that may use it as `$card`.
fn lend(guest: &mut Machine, before: &str) {
    guest.run(&format!(
        "card=$(basename $(dirname $(grep -l 0x1041 /sys/bus/pci/devices/*/device))) && cd /sys/bus/pci && \
         echo $card >devices/$card/driver/unbind && echo vp-vdpa >devices/$card/driver_override && {before} && \
         echo $card >drivers/vp-vdpa/bind && vdpa dev add name vp0 mgmtdev pci/$card && \
         for i in $(seq 50); do [ -c /dev/vhost-vdpa-0 ] && exit 0; sleep 0.1; done; exit 1"
    ));
}

/// The card again, which now shows the rings of both its pairs, as other cards do from the start: QEMU's shows them when `MQ` (22) is agreed to, with the
/// control queue (17), virtio 1.0 (32) and the IOMMU (33). So that is written to its registers (virtio 1.3, 4.1.4.3) while it has no driver.
fn several_pairs(guest: &mut Machine, place: &NetNs) {
    for netdev in ["p-u", "u", "n", "v"] {
        ctl(guest, &format!("netdev_del id={netdev}"));
    }
    let write = |at: u32, value: u64| format!("devmem $((bar+{at})) 32 {value}");
    let agree = [write(8, 0), write(12, 1 << 22 | 1 << 17), write(8, 1), write(12, 3)].join(" && ");
    lend(guest, &format!("bar=$(sed -n '5s/ .*//p' devices/$card/resource) && {agree}"));
    ctl(guest, "netdev_add type=vhost-vdpa id=v vhostdev=/dev/vhost-vdpa-0");
    let device = shown(guest, "v");
    assert_eq!(
        (&device["queues"], device["rings"].as_array().map(Vec::len)),
        (&json!(2), Some(4)),
        "{device}"
    );
    ctl(guest, &format!("netdev_add type=nic id=n netdev=v addr=/tmp/n.sock macaddr={OTHER_MAC}"));
    ctl(guest, "netdev_add type=vhost-user id=u chardev=c queues=2");
    ctl(guest, "netdev_add type=hubport id=p-u hubid=0 netdev=u");
    guest.run(&format!("ip link set tg address {OTHER_MAC}"));
    guest.run("for i in $(seq 100); do netdevctl -s /tmp/qmp query-netdev name=n | grep -q ready && exit 0; sleep 0.1; done; exit 1");
    // The control queue lies behind both pairs: what goes through it arrives.
    let seen = wait::until(PATIENCE, || {
        let filter = guest.qmp.ok("query-rx-filter", json!({}))[0].clone();
        (filter["main-mac"] == OTHER_MAC && filter["promiscuous"] == json!(true)).then_some(())
    });
    assert_eq!(seen, Some(()), "{}", guest.qmp.ok("query-rx-filter", json!({})));

    guest.run(&format!("for i in $(seq 30); do ping -q -c 1 -W 1 {HOST} && exit 0; done; exit 1"));
    let mut server = place.command("iperf3");
    server.arg("-s");
    let server = Process::start(server);
    let listens = || place.run("ss", &["-Hlnt", "sport = :5201"]).contains("5201").then_some(());
    assert_eq!(wait::until(PATIENCE, listens), Some(()), "iperf3 does not listen");
    for options in ["-P 8 -n 8M", "-P 8 -n 8M -R"] {
        crate::iperf(guest, HOST, options);
    }
    drop(server);
    let stats: Value = serde_json::from_str(&ctl(guest, "query-net-stats")).expect("JSON");
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let mine: Vec<[u64; 2]> = ports
        .iter()
        .filter(|port| port["name"] == "v")
        .map(|port| ["rx-frames", "tx-frames"].map(|name| port[name].as_u64().unwrap_or(0)))
        .collect();
    eprintln!("frames by pair: {mine:?}");
    assert!(mine.len() == 2 && mine.iter().flatten().all(|n| *n > 20), "both pairs carry frames: {mine:?}");
}

/// TCP both ways, in frames that are far longer than the MTU all the way.
fn large_frames_pass(guest: &mut Machine, place: &NetNs) {
    let mut server = place.command("iperf3");
    server.arg("-s");
    let server = Process::start(server);
    let listens = || place.run("ss", &["-Hlnt", "sport = :5201"]).contains("5201").then_some(());
    assert_eq!(wait::until(PATIENCE, listens), Some(()), "iperf3 does not listen");
    crate::iperf(guest, HOST, "-n 16M");
    crate::iperf(guest, HOST, "-n 16M -R");
    drop(server);
    let [rx, tx, dropped] = counted(guest, "v");
    eprintln!("32 MB through the device: {rx} frames received, {tx} sent, {dropped} dropped");
    // In frames of 1,514 bytes that were 11,600 each way.
    assert!(rx < 6000 && tx < 6000, "{rx} received, {tx} sent");
    for snmp in [guest.run("cat /proc/net/snmp"), place.run("cat", &["/proc/net/snmp"])] {
        assert_eq!(crate::tap::wrong_checksums(&snmp), 0, "{snmp}");
    }
}

/// The card's link goes and comes back, and frames with it.
fn the_link_follows(guest: &mut Machine) {
    for up in [false, true] {
        guest.qmp.ok("set_link", json!({"name": "d0", "up": up}));
        let seen = wait::until(PATIENCE, || {
            let links = ["v", "n"].map(|end| shown(guest, end)["link"] == json!(up));
            (links == [true; 2]).then_some(())
        });
        assert_eq!(seen, Some(()), "the link is not {up}: {}", shown(guest, "v"));
    }
    guest.run(&format!("for i in $(seq 30); do ping -q -c 1 -W 1 {HOST} && exit 0; done; exit 1"));
}
