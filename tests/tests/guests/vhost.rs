//! netdevd inside a guest, whose kernel has vhost-net and, by the modules of `scripts/guest-modules`, a simulated vDPA device.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::machine::{self, Machine};
use tests::skip::{Need, ready, record};
use tests::{daemon, wait};

/// Frames that go through the vDPA device and back.
const FRAMES: u32 = 100_000;
/// Bytes of each.
const LEN: usize = 64;
/// The vDPA device's hardware address.
const MAC: [u8; 6] = [0, 0x11, 0x22, 0x33, 0x44, 0x55];

/// An archive with netdevd, netdevctl, their libraries, and some files.
pub(crate) fn programs(directory: &Path, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let root = directory.join("root");
    for place in ["usr/bin", "usr/lib"] {
        std::fs::create_dir_all(root.join(place)).expect("a directory");
    }
    for program in [daemon::netdevd(), daemon::netdevctl()] {
        std::fs::copy(&program, root.join("usr/bin").join(program.file_name().expect("a name")))
            .expect("a copy");
        let mut libraries = Command::new("ldd");
        let said = wait::output(libraries.arg(&program), 20).stdout;
        for library in String::from_utf8_lossy(&said).split_whitespace().filter(|word| word.starts_with('/'))
        {
            let to = root.join("usr/lib").join(Path::new(library).file_name().expect("a name"));
            std::fs::copy(library, to).expect("a library");
        }
    }
    for (name, bytes) in files {
        std::fs::write(root.join(name), bytes).expect("a file");
    }
    let archive = directory.join("programs.cpio");
    let mut pack = Command::new("sh");
    pack.arg("-c")
        .arg("cd \"$0\" && find . | cpio -o -H newc --quiet -R 0:0 >\"$1\"")
        .args([&root, &archive]);
    wait::success(&pack, 60);
    archive
}

/// Runs netdevctl in the guest; what it answers.
#[track_caller]
pub(crate) fn ctl(guest: &mut Machine, command: &str) -> String {
    guest.run(&format!("netdevctl -j -s /tmp/qmp {command}"))
}

/// Starts netdevd in the guest.
#[track_caller]
pub(crate) fn serve(guest: &mut Machine) {
    guest.run("mkdir -p /run/netns && echo 48 >/proc/sys/vm/nr_hugepages; netdevd -qmp unix:/tmp/qmp,server=on,wait=off </dev/null >/tmp/log 2>&1 &");
    guest.run("for i in $(seq 100); do [ -S /tmp/qmp ] && exit 0; sleep 0.1; done; cat /tmp/log; exit 1");
}

/// What a port counted: frames received, sent, dropped.
fn counted(guest: &mut Machine, port: &str) -> [u64; 3] {
    let stats: Value = serde_json::from_str(&ctl(guest, "query-net-stats")).expect("JSON");
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let mine: Vec<&Value> = ports.iter().filter(|one| one["name"] == port).collect();
    let sum = |name: &str| mine.iter().filter_map(|one| one[name].as_u64()).sum();
    let drops = mine.iter().flat_map(|one| one["drops"].as_object().cloned().unwrap_or_default());
    [sum("rx-frames"), sum("tx-frames"), drops.filter_map(|(_, n)| n.as_u64()).sum()]
}

#[test]
fn a_tap_with_vhost_net_carries_traffic_both_ways() {
    const TEST: &str = "a_tap_with_vhost_net_carries_traffic_both_ways";
    if !ready(TEST, &[Need::Guests, Need::Tool("cpio")]) {
        return;
    }
    let _turn = machine::turn();
    let directory = daemon::directory();
    let mut guest = Machine::prepare(1).archive(programs(directory.path(), &[])).start().up();
    guest.run("modprobe tun && modprobe vhost_net");
    serve(&mut guest);
    for (tap, vhost) in [("ta", "vhost=on poll-us=20"), ("tb", "vhostforce=on")] {
        let add = format!("netdev_add type=tap id={tap} ifname={tap} script=no downscript=no {vhost}");
        ctl(&mut guest, &add);
        ctl(&mut guest, &format!("netdev_add type=hubport id=p{tap} hubid=0 netdev={tap}"));
        guest.run(&format!("ip netns add {tap} && ip link set {tap} netns {tap}"));
    }
    let held = guest.run("ls -l /proc/$(pidof netdevd)/fd | grep -c /dev/vhost-net");
    assert_eq!(held.trim(), "2", "a file of vhost-net for each tap");
    guest.run("ip -n ta addr add 10.9.0.1/24 dev ta && ip -n ta link set ta up && ip -n tb addr add 10.9.0.2/24 dev tb && ip -n tb link set tb up");
    for (from, to) in [("ta", "10.9.0.2"), ("tb", "10.9.0.1")] {
        guest.run(&format!("ip netns exec {from} sh -c 'for i in $(seq 30); do ping -q -c 1 -W 1 {to} && exit 0; done; exit 1'"));
        guest.run(&format!("ip netns exec {from} ping -q -c 5 -s 4000 {to}"));
    }
    guest.run("ip netns exec tb iperf3 -s -D && sleep 1");
    for options in ["-n 32M", "-n 32M -R", "-u -l 1200 -b 10M -n 480K"] {
        let said = guest.run(&format!("ip netns exec ta timeout 80 iperf3 -c 10.9.0.2 -i 0 {options}"));
        assert!(said.contains("iperf Done."), "{options}: {said}");
    }
    for tap in ["ta", "tb"] {
        let [rx, tx, dropped] = counted(&mut guest, tap);
        eprintln!("vhost tap {tap}: {rx} frames received, {tx} sent, {dropped} dropped");
        assert!(rx > 100 && tx > 100, "{tap}: {rx} {tx}");
        let snmp = guest.run(&format!("ip netns exec {tap} cat /proc/net/snmp"));
        assert_eq!(crate::tap::wrong_checksums(&snmp), 0, "{snmp}");
    }
    // It goes, and comes back at once, while the other stays.
    guest.run("ip netns del ta; true");
    ctl(&mut guest, "netdev_del id=ta");
    ctl(&mut guest, "netdev_add type=tap id=ta ifname=ta script=no downscript=no vhost=on vnet_hdr=off");
    ctl(&mut guest, "netdev_add type=hubport id=pa2 hubid=0 netdev=ta");
    guest.run("ip addr add 10.9.0.1/24 dev ta && ip link set ta up");
    guest.run("for i in $(seq 30); do ping -q -c 1 -W 1 10.9.0.2 && exit 0; done; exit 1");
    guest.run("ping -q -c 5 -s 1400 10.9.0.2");
}

/// Frames for the device's own address, as a `stream` netdev takes them.
fn frames() -> Vec<u8> {
    let mut all = Vec::with_capacity(FRAMES as usize * (4 + LEN));
    for number in 0..FRAMES {
        let mut frame = [0; LEN];
        frame[..6].copy_from_slice(&MAC);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        all.extend((LEN as u32).to_be_bytes());
        all.extend(frame);
    }
    all
}

#[test]
fn frames_loop_through_a_vdpa_device_without_loss() {
    const TEST: &str = "frames_loop_through_a_vdpa_device_without_loss";
    if !ready(TEST, &[Need::Guests, Need::Tool("cpio"), Need::Tool("vdpa"), Need::Tool("make")]) {
        return;
    }
    let _turn = machine::turn();
    let modules = match modules() {
        Ok(modules) => modules,
        Err(why) => return record(TEST, &why),
    };
    let directory = daemon::directory();
    let archive = programs(directory.path(), &[("in", frames())]);
    let mut guest = Machine::prepare(1).archive(modules).archive(archive).start().up();
    guest.run("modprobe vhost_net && modprobe vhost_vdpa && cd /modules && for m in vringh vdpa_sim vdpa_sim_net; do insmod $m.ko || exit 1; done");
    guest.run("vdpa dev add name vdpa0 mgmtdev vdpasim_net mac 00:11:22:33:44:55 && for i in $(seq 50); do [ -c /dev/vhost-vdpa-0 ] && exit 0; sleep 0.1; done; exit 1");
    serve(&mut guest);
    ctl(&mut guest, "netdev_add type=vhost-vdpa id=v vhostdev=/dev/vhost-vdpa-0");
    let second =
        guest.attempt("netdevctl -j -s /tmp/qmp netdev_add type=vhost-vdpa id=w vhostdev=/dev/vhost-vdpa-0");
    assert!(second.1.contains("Could not open '/dev/vhost-vdpa-0': Device or resource busy"), "{second:?}");
    let shown = ctl(&mut guest, "query-netdev name=v");
    eprintln!("{shown}");
    assert!(shown.contains("\"ready\""), "{shown}");
    ctl(&mut guest, "netdev_add type=hubport id=pv hubid=0 netdev=v");
    ctl(
        &mut guest,
        "netdev_add type=stream id=s server=on addr.type=inet addr.host=127.0.0.1 addr.port=7000",
    );
    ctl(&mut guest, "netdev_add type=hubport id=ps hubid=0 netdev=s");
    let size = FRAMES as usize * (4 + LEN);
    let began = std::time::Instant::now();
    // The device drops what finds no receive buffer (it counts an overrun), and without mergeable buffers there are some hundred: so that
    // many are under way at most.
    let some = 100 * (4 + LEN);
    guest.run(&format!(
        ">/tmp/out; exec 4</in; i=0; while [ $i -lt {size} ]; do dd bs={some} count=1 <&4 2>/dev/null; i=$((i+{some})); \
         until [ $(stat -c %s /tmp/out) -ge $i ]; do :; done; done | nc 127.0.0.1 7000 >/tmp/out; cmp /in /tmp/out"
    ));
    eprintln!("{FRAMES} frames there and back in {:?}", began.elapsed());
    let [rx, tx, dropped] = counted(&mut guest, "v");
    assert_eq!([rx, tx, dropped], [u64::from(FRAMES), u64::from(FRAMES), 0]);

    // The device is removed under load: that waits for whoever has it open.
    guest.run("(cat /in /in /in /in; sleep 5) | nc 127.0.0.1 7000 >/dev/null 2>&1 &");
    guest.run("timeout 20 vdpa dev del vdpa0");
    let shown = ctl(&mut guest, "query-netdev name=v");
    assert!(shown.contains("the device was removed") && shown.contains("failed"), "{shown}");
    // All else goes on, and the name is free again.
    ctl(&mut guest, "netdev_del id=v");
    guest.run("vdpa dev add name vdpa0 mgmtdev vdpasim_net mac 00:11:22:33:44:55 && for i in $(seq 50); do [ -c /dev/vhost-vdpa-0 ] && exit 0; sleep 0.1; done; exit 1");
    ctl(&mut guest, "netdev_add type=vhost-vdpa id=v vhostdev=/dev/vhost-vdpa-0");
    assert!(ctl(&mut guest, "query-netdev name=v").contains("\"ready\""));
}

/// The archive of `scripts/guest-modules`, which is made when it is not there.
fn modules() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/guest-modules");
    let image = machine::image()?;
    let mut command = Command::new(script);
    if let Some(target) = image.parent().and_then(Path::parent) {
        command.env("CARGO_TARGET_DIR", target);
    }
    let output = wait::output(&command, 900);
    match output.status.success() {
        true => Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
