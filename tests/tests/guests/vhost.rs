//! netdevd inside a guest, whose kernel has vhost-net and, by the modules of `scripts/guest-modules`, a simulated vDPA device.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::machine::{self, Machine};
use tests::skip::{Need, ready, record};
use tests::{daemon, wait};

/// Frames that go through the vDPA device and back.
const FRAMES: u32 = 30_000;
/// Frames that go through another one while the first is removed.
const OTHERS: u32 = 20_000;
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
    serve_with(guest, "");
}

/// Starts netdevd in the guest, with files that a shell's redirections open for it.
#[track_caller]
fn serve_with(guest: &mut Machine, files: &str) {
    guest.run(&format!("mkdir -p /run/netns && echo 48 >/proc/sys/vm/nr_hugepages; netdevd -qmp unix:/tmp/qmp,server=on,wait=off {files} </dev/null >/tmp/log 2>&1 &"));
    guest.run("for i in $(seq 100); do [ -S /tmp/qmp ] && exit 0; sleep 0.1; done; cat /tmp/log; exit 1");
}

/// What a port counted: frames received, sent, dropped.
pub(crate) fn counted(guest: &mut Machine, port: &str) -> [u64; 3] {
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

/// Makes a simulated device and waits for its node.
#[track_caller]
fn device(guest: &mut Machine, number: u8) {
    guest.run(&format!("vdpa dev add name vdpa{number} mgmtdev vdpasim_net mac 00:11:22:33:44:55 && for i in $(seq 50); do [ -c /dev/vhost-vdpa-{number} ] && exit 0; sleep 0.1; done; exit 1"));
}

/// A vhost-vdpa netdev of device `number` and a stream that listens at port 7000 and behind, on a hub.
#[track_caller]
fn join(guest: &mut Machine, number: u8) {
    let stream = format!(
        "type=stream id=s{number} server=on addr.type=inet addr.host=127.0.0.1 addr.port=700{number}"
    );
    ctl(guest, &format!("netdev_add {stream}"));
    for end in ["v", "s"] {
        ctl(guest, &format!("netdev_add type=hubport id=p{end}{number} hubid={number} netdev={end}{number}"));
    }
}

/// A shell's commands that send the first frames of /in to device `number` and wait until they are back in /tmp/out. The device drops what finds no receive
/// buffer (it counts an overrun), and without mergeable buffers there are some hundred: so many are under way at most.
fn there_and_back(number: u8, frames: u32) -> String {
    let (some, size) = (100 * (4 + LEN), frames as usize * (4 + LEN));
    let out = format!("/tmp/out{number}");
    format!(
        ">{out}; exec 4</in; i=0; while [ $i -lt {size} ]; do dd bs={some} count=1 <&4 2>/dev/null; i=$((i+{some})); \
         until [ $(stat -c %s {out}) -ge $i ]; do :; done; done | nc 127.0.0.1 700{number} >{out}; cmp -n {size} /in {out}"
    )
}

/// Devices that are none of vDPA: what QEMU says of them.
#[track_caller]
fn foreign_files_are_refused(guest: &mut Machine) {
    for file in ["vhostdev=/dev/vhost-net", "vhostfd=9"] {
        let said = guest.attempt(&format!("netdevctl -j -s /tmp/qmp netdev_add type=vhost-vdpa id=w {file}"));
        // vhost-net answers nobody who has not taken it over.
        let desc = "vhost-vdpa: get iova range failed: Operation not permitted";
        assert!(said.1.contains(desc), "{file}: {said:?}");
    }
    let said =
        guest.attempt("netdevctl -j -s /tmp/qmp netdev_add type=vhost-vdpa id=w vhostdev=/dev/vhost-vdpa-0");
    assert!(said.1.contains("Could not open '/dev/vhost-vdpa-0': Device or resource busy"), "{said:?}");
}

/// The device has the address of the nic that it is joined to, by its control queue.
#[track_caller]
fn its_address_is_the_nics(guest: &mut Machine) {
    for mac in ["02:00:00:00:00:77", "00:11:22:33:44:55"] {
        ctl(guest, &format!("netdev_add type=nic id=n netdev=v0 addr=/tmp/n.sock macaddr={mac}"));
        guest.run(&format!("for i in $(seq 100); do vdpa dev config show vdpa0 | grep -q {mac} && exit 0; sleep 0.1; done; vdpa dev config show vdpa0; exit 1"));
        ctl(guest, "netdev_del id=n");
    }
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
    for number in [0, 1] {
        device(&mut guest, number);
    }
    serve_with(&mut guest, "9<>/dev/vhost-net");
    for number in [0, 1] {
        ctl(
            &mut guest,
            &format!("netdev_add type=vhost-vdpa id=v{number} vhostdev=/dev/vhost-vdpa-{number}"),
        );
    }
    foreign_files_are_refused(&mut guest);
    let shown = ctl(&mut guest, "query-netdev name=v0");
    eprintln!("{shown}");
    assert!(shown.contains("\"ready\""), "{shown}");
    its_address_is_the_nics(&mut guest);
    for number in [0, 1] {
        join(&mut guest, number);
    }
    let began = std::time::Instant::now();
    guest.run(&there_and_back(0, FRAMES));
    eprintln!("{FRAMES} frames there and back in {:?}", began.elapsed());
    let all = u64::from(FRAMES);
    assert_eq!(counted(&mut guest, "v0"), [all, all, 0]);

    // The device is removed under load, which waits for whoever has it open; another one loses nothing meanwhile.
    guest.run(&format!("({}; echo $? >/tmp/status) >/tmp/told 2>&1 &", there_and_back(1, OTHERS)));
    guest.run("(cat /in /in /in /in /in /in /in /in; sleep 5) | nc 127.0.0.1 7000 >/dev/null 2>&1 &");
    guest.run("until [ $(stat -c %s /tmp/out1) -gt 0 ]; do :; done");
    guest.run("timeout 20 vdpa dev del vdpa0");
    let shown = ctl(&mut guest, "query-netdev name=v0");
    assert!(shown.contains("the device was removed") && shown.contains("failed"), "{shown}");
    let before = guest.run("stat -c %s /tmp/out1");
    eprintln!("{} bytes were back at the other device", before.trim());
    let before: usize = before.trim().parse().expect("a number");
    assert!(before < OTHERS as usize * (4 + LEN), "it had ended before");
    guest.run("for i in $(seq 600); do [ -s /tmp/status ] && exec test $(cat /tmp/status) = 0; sleep 0.1; done; cat /tmp/told; exit 1");
    let others = u64::from(OTHERS);
    assert_eq!(counted(&mut guest, "v1"), [others, others, 0]);
    // The name is free again.
    ctl(&mut guest, "netdev_del id=v0");
    device(&mut guest, 0);
    ctl(&mut guest, "netdev_add type=vhost-vdpa id=v0 vhostdev=/dev/vhost-vdpa-0");
    assert!(ctl(&mut guest, "query-netdev name=v0").contains("\"ready\""));
}

/// The archive of `scripts/guest-modules`, which is made when it is not there.
pub(crate) fn modules() -> Result<PathBuf, String> {
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
