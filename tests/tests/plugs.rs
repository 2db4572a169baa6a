//! Plugs into what others run: taps that a helper puts on a Linux bridge.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program, netdevd, oracle};
use tests::lab::{Lab, Leg};
use tests::netns::NetNs;
use tests::packet::{PacketSocket, frame};
use tests::skip::{Need, ready};
use tests::wait;

const BRIDGES: &[Need] = &[Need::Root, Need::Tap, Need::Mount];
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
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
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
