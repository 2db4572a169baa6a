//! Plugs into what others run: taps that a helper puts on a Linux bridge, and ports of a VDE switch.

mod plugs {
    mod rights;
    pub(crate) mod switch;
}

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugs::switch::{Plug, Slow, Switch};
use serde_json::{Value, json};
use tests::daemon::{Daemon, Program, netdevd, oracle};
use tests::lab::{Lab, Leg};
use tests::netns::NetNs;
use tests::nics::{await_drop, dropped};
use tests::packet::{PacketSocket, frame};
use tests::skip::{Need, ready};
use tests::wait;

const BRIDGES: &[Need] = &[Need::Root, Need::Tap, Need::Mount];
const SWITCHES: &[Need] = &[Need::Tool("vde_switch")];
const BROADCAST: [u8; 6] = [0xff; 6];
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// Our helper, beside the daemon.
fn own_helper() -> String {
    netdevd().with_file_name("netdevd-bridge-helper").to_string_lossy().into_owned()
}

/// QEMU's helper as a command, with the libraries that it was unpacked with.
fn qemus_helper() -> Result<String, String> {
    let program = fs::canonicalize(oracle()?).map_err(|error| error.to_string())?;
    let unpacked = program.with_file_name("root/usr/lib/qemu/qemu-bridge-helper");
    if !unpacked.is_file() {
        let installed = Path::new("/usr/lib/qemu/qemu-bridge-helper");
        let found = installed.is_file().then(|| installed.to_string_lossy().into_owned());
        return found.ok_or_else(|| "needs QEMU's bridge helper".into());
    }
    let text = fs::read_to_string(&program).map_err(|error| error.to_string())?;
    let libraries = text.split("LD_LIBRARY_PATH='").nth(1).and_then(|rest| rest.split('\'').next());
    let libraries = libraries.ok_or("the reference names no libraries")?;
    Ok(format!("env LD_LIBRARY_PATH={libraries} {}", unpacked.display()))
}

/// A daemon in a namespace with the bridge `br7`, whose helpers see that list of bridges and nothing else below /etc.
fn with_bridge(acl: &str) -> Lab {
    let home = NetNs::new();
    home.ip("link add br7 type bridge");
    home.ip("link set br7 mtu 1400");
    home.silent("br7");
    home.ip("link set br7 up");
    let directory = tests::daemon::directory();
    let list = directory.path().join("acl");
    fs::write(&list, acl).expect("a list");
    let prepare =
        "mount -t tmpfs none /etc && mkdir /etc/qemu && cp \"$0\" /etc/qemu/bridge.conf && exec \"$@\"";
    let wrapper = ["unshare", "-m", "--", "sh", "-c", prepare, &list.to_string_lossy()].map(String::from);
    // The list lies in the daemon's directory and goes with it.
    let daemon = Daemon::of(Program::Netdevd).under(wrapper).within(&home).directory(directory).start();
    let qmp = daemon.client();
    Lab { qmp, daemon, home }
}

/// Names, MTUs and addresses of the links on `br7`.
fn members(home: &NetNs) -> Vec<(String, u64, String)> {
    let text = home.run("ip", &["-j", "link", "show", "master", "br7", "up"]);
    let list: Value = serde_json::from_str(&text).expect("ip prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let links = list.as_array().expect("a list").iter().filter(|link| link["ifname"].is_string());
    links
        .map(|link| (text(&link["ifname"]), link["mtu"].as_u64().unwrap_or(0), text(&link["address"])))
        .collect()
}

/// Frames pass between a leg on a hub with netdev `b` and the bridge.
fn passes(lab: &Lab, leg: &Leg) {
    let bridge = PacketSocket::open(&lab.home, "br7");
    leg.socket.send(&frame(BROADCAST, SOURCE, b"up"));
    let came = bridge.receive(wait::PATIENCE).expect("a frame on the bridge");
    assert_eq!(came[..16], frame(BROADCAST, SOURCE, b"up"));
    bridge.send(&frame(BROADCAST, SOURCE, b"down"));
    assert_eq!(leg.payloads(), [b"down"]);
}

fn a_helper_joins_a_bridge(test: &str, helper: &str) {
    let mut lab = with_bridge("# ours\nallow br7\nallow br8\ndeny br8\ninclude /etc/qemu/none.conf\n");
    let leg = Leg::new(&mut lab, "leg");
    lab.hub(1, &["leg"]);
    for (netdev, told) in [
        (
            json!({"type": "bridge", "id": "b", "br": "br7", "helper": helper}),
            format!("helper={helper},br=br7"),
        ),
        (json!({"type": "tap", "id": "b", "br": "br7", "helper": helper}), format!("helper={helper}")),
    ] {
        let kind = netdev["type"].clone();
        lab.qmp.ok("netdev_add", netdev);
        let told: String = format!("b: index=0,type=tap,{told}").chars().take(100).collect();
        let network = lab.qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
        assert!(network.as_str().expect("text").contains(&told), "{test}: {network} has no {told}");
        let state = lab.qmp.ok("query-netdev", json!({"name": "b"}));
        assert_eq!((&state[0]["type"], &state[0]["transport"]["state"]), (&kind, &json!("ready")));
        let members = members(&lab.home);
        assert_eq!(members.len(), 1, "{test}: {members:?}");
        assert!(members[0].1 == 1400 && members[0].2.starts_with("fe:"), "{test}: {members:?}");
        lab.home.silent(&members[0].0);
        lab.qmp.ok("netdev_add", json!({"type": "hubport", "id": "p", "hubid": 1, "netdev": "b"}));
        passes(&lab, &leg);
        lab.qmp.ok("netdev_del", json!({"id": "b"}));
        assert_eq!(self::members(&lab.home), [], "{test}: the tap goes with the netdev");
        lab.qmp.ok("netdev_del", json!({"id": "p"}));
    }
    let forbidden = json!({"type": "bridge", "id": "b", "br": "br8", "helper": helper});
    assert_eq!(lab.qmp.refused("netdev_add", forbidden), "bridge helper failed");
    let nowhere = json!({"type": "bridge", "id": "b", "br": "br9", "helper": helper});
    assert_eq!(lab.qmp.refused("netdev_add", nowhere), "bridge helper failed");
    let said = lab.daemon.stderr();
    assert_eq!(said.matches("access denied by acl file").count(), 2, "{test}: {said}");
}

#[test]
fn our_helper_joins_a_bridge() {
    if ready("our_helper_joins_a_bridge", BRIDGES) {
        a_helper_joins_a_bridge("ours", &own_helper());
    }
}

#[test]
fn qemus_helper_joins_a_bridge() {
    if !ready("qemus_helper_joins_a_bridge", &[BRIDGES, &[Need::Oracle]].concat()) {
        return;
    }
    match qemus_helper() {
        Ok(helper) => a_helper_joins_a_bridge("QEMU's", &helper),
        Err(reason) => tests::skip::record("qemus_helper_joins_a_bridge", &reason),
    }
}

#[test]
fn without_a_name_the_helper_is_found_and_its_bridge_is_br0() {
    if !ready("without_a_name_the_helper_is_found_and_its_bridge_is_br0", BRIDGES) {
        return;
    }
    let mut lab = with_bridge("allow all\n");
    lab.home.ip("link set br7 down");
    lab.home.ip("link set br7 name br0");
    lab.qmp.ok("netdev_add", json!({"type": "bridge", "id": "b"}));
    let network = lab.qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
    let network = network.as_str().expect("text");
    assert!(network.contains("bridge-helper,br=br0"), "{network}");
    let text = lab.home.run("ip", &["-j", "link", "show", "master", "br0"]);
    assert!(text.contains("\"ifname\":\"tap0\""), "{text}");
}

/// A helper of a few lines of shell.
fn script(directory: &Path, name: &str, body: &str) -> String {
    let path = directory.join(name);
    tests::program::write(&path, &format!("#!/bin/sh\n{body}\n"));
    path.to_string_lossy().into_owned()
}

#[test]
fn helpers_that_fail_lie_or_hang_hold_nobody_up() {
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    let at = daemon.directory().to_owned();
    let passes = "import os,socket,sys;s=socket.socket(fileno=int([w for w in sys.argv if w.startswith('--fd=')][0][5:]));\
                  socket.send_fds(s,[b'x'],[os.open('/dev/null',os.O_RDWR)])";
    let python = |more: &str| format!("python3 -c \"{passes}{more}\"");
    for (helper, said) in [
        ("/nowhere/helper".to_owned(), "bridge helper failed"),
        (script(&at, "three", "exit 3"), "bridge helper failed"),
        (script(&at, "none", "exit 0"), "failed to recv file descriptor: the bridge helper sent none"),
        (format!("{} && exit 4; exit 5;", script(&at, "then", "exit 0")), "bridge helper failed"),
        (python(";sys.exit(1)"), "bridge helper failed"),
        (python(""), "Unable to query TUNGETIFF on FD"),
    ] {
        for kind in ["tap", "bridge"] {
            let refused = qmp.refused("netdev_add", json!({"type": kind, "id": "b", "helper": helper}));
            assert!(refused.starts_with(said), "{kind} with {helper}: {refused}");
        }
    }
    let files = daemon.open_files();
    let mark = at.join("pid");
    let hangs = script(&at, "hangs", &format!("sleep 1000 & echo $! > {}; wait", mark.display()));
    let began = Instant::now();
    let line = json!({"execute": "netdev_add", "arguments": {"type": "bridge", "id": "b", "helper": hangs}});
    qmp.send(line.to_string().as_bytes()).expect("it is sent");
    let child =
        wait::until(wait::PATIENCE, || fs::read_to_string(&mark).ok().filter(|pid| pid.ends_with('\n')));
    let child = child.expect("the helper runs");
    let mut other = daemon.client();
    other.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1}));
    assert!(began.elapsed() < Duration::from_secs(9), "another client waits for the helper");
    let reply = qmp.reply(Duration::from_secs(20)).expect("a reply");
    assert_eq!(reply["error"]["desc"], "bridge helper did not end within 10 s and was killed");
    let state = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    assert!(state.is_err() || state.is_ok_and(|state| state.contains(") Z ")), "what it started still runs");
    drop(other);
    wait::until(wait::PATIENCE, || (daemon.open_files() <= files).then_some(())).expect("a file stays open");
}

/// The state of a netdev, and why.
fn standing(lab: &mut Lab, id: &str) -> (String, bool, String) {
    let state = lab.qmp.ok("query-netdev", json!({"name": id}));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let transport = &state[0]["transport"];
    (text(&transport["state"]), state[0]["link"] == true, text(&transport["error"]))
}

fn join(lab: &mut Lab, id: &str, sock: &Path) {
    lab.qmp.ok("netdev_add", json!({"type": "vde", "id": id, "sock": sock}));
}

/// A daemon that joins switches by a hub, as netdevs `a` and `b`.
fn between(one: &Switch, other: &Switch) -> Lab {
    let home = NetNs::new();
    let (daemon, qmp) = Daemon::netdevd_within(&home, &[]);
    let mut lab = Lab { qmp, daemon, home };
    join(&mut lab, "a", &one.path());
    join(&mut lab, "b", &other.path());
    lab.hub(1, &["a", "b"]);
    lab
}

#[test]
fn every_frame_size_passes_two_daemons_and_three_switches() {
    let test = "every_frame_size_passes_two_daemons_and_three_switches";
    if !ready(test, &[SWITCHES, &[Need::Namespaces]].concat()) {
        return;
    }
    let switches: Vec<Switch> = (0..3).map(|_| Switch::start()).collect();
    let (mut left, mut right) = (between(&switches[0], &switches[1]), between(&switches[1], &switches[2]));
    let (near, far) = (Plug::join(&switches[0]), Plug::join(&switches[2]));
    let bytes = |length: usize, mark: usize| -> Vec<u8> {
        let payload = (14..length).map(|at| (at * 7 + mark).to_le_bytes()[0]);
        frame(BROADCAST, SOURCE, &payload.collect::<Vec<u8>>())
    };
    let mut total = 0;
    for length in 14..=1514 {
        for (mark, from, to) in [(1, &near, &far), (2, &far, &near)] {
            from.send(&bytes(length, mark));
            let came = to.receive(wait::PATIENCE);
            assert!(came.as_ref() == Some(&bytes(length, mark)), "{length} bytes came as {came:?}");
            total += 1;
        }
    }
    for lab in [&mut left, &mut right] {
        for id in ["a", "b"] {
            assert_eq!(lab.port(id), (total / 2, total / 2, 0), "frames in, frames out and drops of {id}");
        }
    }
}

#[test]
fn frames_wait_for_a_switch_that_is_slow_and_none_is_lost() {
    let test = "frames_wait_for_a_switch_that_is_slow_and_none_is_lost";
    if !ready(test, &[SWITCHES, &[Need::Namespaces]].concat()) {
        return;
    }
    let (one, other) = (Switch::start(), Slow::new());
    let home = NetNs::new();
    let (daemon, qmp) = Daemon::netdevd_within(&home, &[]);
    let mut lab = Lab { qmp, daemon, home };
    join(&mut lab, "a", &one.path());
    let far = std::thread::scope(|scope| {
        let port = scope.spawn(|| other.take());
        join(&mut lab, "b", &other.path());
        port.join().expect("the port is taken")
    });
    lab.hub(1, &["a", "b"]);
    let near = Plug::join(&one);
    // The far switch reads nothing. The near one drops what the daemon does not read any more, and what comes too fast for it: so waves, until
    // one brings nothing to the far side.
    let mut number = 0_u64;
    let settled = |lab: &mut Lab| {
        let mut last = (0, 0, 0);
        let still = wait::until(wait::PATIENCE, || {
            // That nothing happens is no event.
            std::thread::sleep(Duration::from_millis(200));
            let now = lab.port("b");
            (std::mem::replace(&mut last, now) == now && now.1 > 0).then_some(now.1)
        });
        still.expect("nothing moves while the switch reads nothing")
    };
    let mut still = 0;
    for wave in 0.. {
        assert!(wave < 100, "{still} frames, and the far side still takes more");
        for _ in 0..300 {
            near.send(&frame(BROADCAST, SOURCE, &[&number.to_be_bytes()[..], &[0; 1400]].concat()));
            number += 1;
        }
        let before = std::mem::replace(&mut still, settled(&mut lab));
        if before == still {
            break;
        }
    }
    let (mut count, mut before) = (0, None);
    while let Some(came) = far.receive(Duration::from_secs(1)) {
        let number = u64::from_be_bytes(came[14..22].try_into().expect("eight bytes"));
        assert!(before < Some(number), "{number} comes behind {before:?}");
        before = Some(number);
        count += 1;
    }
    assert!(count > still, "{count} came, of which {still} were with the switch");
    assert_eq!((lab.port("a").0, lab.port("b")), (count, (0, count, 0)));
    assert_eq!(lab.port("a").2, 0);
}

#[test]
fn netdevd_and_vde_plug2tap_talk_over_one_switch() {
    let needs = [SWITCHES, &[Need::Root, Need::Tap, Need::Tool("vde_plug2tap"), Need::Tool("ping")]].concat();
    if !ready("netdevd_and_vde_plug2tap_talk_over_one_switch", &needs) {
        return;
    }
    let switch = Switch::start();
    let mut lab = Lab::new(&[]);
    let (here, there) = (lab.home.sibling(), lab.home.sibling());
    lab.tap_at("leg", &here, Ipv4Addr::new(10, 7, 0, 1));
    join(&mut lab, "v", &switch.path());
    lab.hub(1, &["leg", "v"]);
    let mut command = there.command("vde_plug2tap");
    let mut plug = command.arg("-s").arg(switch.path()).arg("plug7").spawn().expect("vde_plug2tap starts");
    let up = wait::until(wait::PATIENCE, || there.links().contains(&"plug7".to_owned()).then_some(()));
    up.expect("its tap is there");
    there.up("plug7", Ipv4Addr::new(10, 7, 0, 2));
    for size in ["0", "56", "1472"] {
        here.run("ping", &["-c", "3", "-i", "0.2", "-W", "5", "-s", size, "10.7.0.2"]);
    }
    let _ = plug.kill();
    let _ = plug.wait();
}

#[test]
fn a_switch_that_is_killed_is_named_and_joined_again() {
    let test = "a_switch_that_is_killed_is_named_and_joined_again";
    if !ready(test, &[SWITCHES, &[Need::Namespaces]].concat()) {
        return;
    }
    let (mut one, other) = (Switch::start(), Switch::start());
    let mut lab = between(&one, &other);
    let far = Plug::join(&other);
    let files = lab.daemon.open_files();
    for round in 1..=2_u64 {
        one.kill();
        let gone = wait::until(wait::PATIENCE, || {
            Some(standing(&mut lab, "a")).filter(|(state, ..)| state == "failed")
        });
        let (_, link, why) = gone.expect("the netdev says that its switch is gone");
        assert!(!link && why.ends_with("; it is tried again"), "{why}");
        assert_eq!(standing(&mut lab, "b").0, "ready");
        far.send(&frame(BROADCAST, SOURCE, b"nobody"));
        let dropped = wait::until(wait::PATIENCE, || (lab.port("a").2 >= round).then_some(()));
        assert!(dropped.is_some(), "{:?}", lab.port("a"));
        one.restart();
        let back = wait::until(wait::PATIENCE, || {
            Some(standing(&mut lab, "a")).filter(|(state, ..)| state == "ready")
        });
        assert_eq!(back, Some(("ready".into(), true, String::new())));
        let near = Plug::join(&one);
        far.send(&frame(BROADCAST, SOURCE, b"again"));
        assert_eq!(near.receive(wait::PATIENCE), Some(frame(BROADCAST, SOURCE, b"again")));
        near.send(&frame(BROADCAST, SOURCE, b"and back"));
        assert_eq!(far.receive(wait::PATIENCE), Some(frame(BROADCAST, SOURCE, b"and back")));
        drop(near);
        assert_eq!(lab.daemon.open_files(), files, "files that stay open");
    }
    let sent = lab.port("a").1;
    assert_eq!(sent, 2, "counters go on");
    // One that is gone for good can be removed.
    one.kill();
    wait::until(wait::PATIENCE, || (standing(&mut lab, "a").0 == "failed").then_some(()))
        .expect("it is gone");
    lab.qmp.ok("netdev_del", json!({"id": "a"}));
    lab.qmp.ok("netdev_del", json!({"id": "b"}));
    let left = wait::until(wait::PATIENCE, || (other.plugs() == 1).then_some(()));
    assert!(left.is_some(), "the port of the switch does not go with the netdev");
}

#[test]
fn options_of_vde_are_those_of_libvdeplug() {
    if !ready("options_of_vde_are_those_of_libvdeplug", SWITCHES) {
        return;
    }
    let switch = Switch::start();
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    let path = switch.path().to_string_lossy().into_owned();
    let port = |number: u32| -> Option<PathBuf> {
        let name = format!("{number:03}");
        let entries = fs::read_dir(switch.path()).expect("the directory").flatten();
        entries.map(|entry| entry.path()).find(|path| {
            path.file_name().is_some_and(|file| file.to_string_lossy().split('.').next() == Some(&name))
        })
    };
    for (more, number, mode) in [
        (json!({"sock": path}), 1, 0o700),
        (json!({"sock": path, "port": 3}), 3, 0o700),
        (json!({"sock": format!("vde://{path}"), "port": 4, "mode": 0o750}), 4, 0o750),
        (json!({"sock": format!("{path}[5]"), "port": 4}), 5, 0o700),
        (json!({"sock": format!("{path}[port=6/mode=770]"), "group": "0"}), 6, 0o770),
    ] {
        let mut netdev = json!({"type": "vde", "id": "v"});
        netdev.as_object_mut().expect("an object").append(&mut more.as_object().cloned().expect("an object"));
        qmp.ok("netdev_add", netdev);
        let file = port(number).unwrap_or_else(|| panic!("{more}: no port {number}"));
        let has = fs::metadata(&file).expect("a socket").permissions().mode() & 0o777;
        assert_eq!(has, mode, "{more}: {has:o} instead of {mode:o}");
        let network = qmp.ok("human-monitor-command", json!({"command-line": "info network"}));
        let network = network.as_str().expect("text").to_owned();
        let sock = more["sock"].as_str().expect("text");
        assert!(network.starts_with(&format!("v: index=0,type=vde,sock={sock},fd=")), "{network}");
        qmp.ok("netdev_del", json!({"id": "v"}));
        assert!(
            wait::until(wait::PATIENCE, || port(number).is_none().then_some(())).is_some(),
            "{file:?} stays"
        );
    }
    // A port that the switch has not: it says nothing at all, and other clients do not wait.
    let line =
        json!({"execute": "netdev_add", "arguments": {"type": "vde", "id": "v", "sock": path, "port": 999}});
    qmp.send(line.to_string().as_bytes()).expect("it is sent");
    daemon.client().ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1}));
    let reply = qmp.reply(wait::PATIENCE).expect("a reply");
    assert_eq!(reply["error"]["desc"], "Could not open vde: the switch does not answer");
    for (sock, said) in [
        (format!("{path}/none"), "Could not open vde: No such file or directory"),
        (daemon.directory().to_string_lossy().into_owned(), "Could not open vde: No such file or directory"),
        ("udp://7".to_owned(), "Could not open vde: 'udp' is not a switch, only 'vde' is"),
    ] {
        assert_eq!(qmp.refused("netdev_add", json!({"type": "vde", "id": "v", "sock": sock})), said);
    }
    let group = json!({"type": "vde", "id": "v", "sock": path, "group": "no such group"});
    assert_eq!(qmp.refused("netdev_add", group), "Could not open vde: there is no group 'no such group'");
    assert_eq!(switch.plugs(), 0, "sockets stay behind");
}

#[test]
fn a_plug_whose_link_is_cut_loses_by_name_both_ways() {
    if !ready("a_plug_whose_link_is_cut_loses_by_name_both_ways", SWITCHES) {
        return;
    }
    let (one, other) = (Switch::start(), Switch::start());
    let mut lab = between(&one, &other);
    let (near, far) = (Plug::join(&one), Plug::join(&other));
    for name in ["a", "b"] {
        let pass = |text: &str| {
            let sent = frame(BROADCAST, SOURCE, text.as_bytes());
            near.send(&sent);
            assert_eq!(far.receive(wait::PATIENCE), Some(sent.clone()), "{name}: {text}");
            far.send(&sent);
            assert_eq!(near.receive(wait::PATIENCE), Some(sent), "{name}: {text}, back");
        };
        pass("before");
        lab.qmp.ok("set_link", json!({"name": name, "up": false}));
        let before = dropped(&mut lab.qmp, name, "link-down");
        near.send(&frame(BROADCAST, SOURCE, b"lost"));
        await_drop(&mut lab.qmp, name, "link-down", before + 1);
        far.send(&frame(BROADCAST, SOURCE, b"lost"));
        await_drop(&mut lab.qmp, name, "link-down", before + 2);
        lab.qmp.ok("set_link", json!({"name": name, "up": true}));
        // The next that comes is the next that was sent.
        pass("after");
    }
}
