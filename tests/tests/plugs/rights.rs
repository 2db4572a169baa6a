//! Our bridge helper as it is meant to be installed: set-user-ID root, for a daemon of somebody else.

use crate::{BRIDGES, members, own_helper};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::chown;
use tests::daemon::{Daemon, Program};
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::skip::{Need, ready};
use tests::wait;

/// Who is nobody on every system.
const NOBODY: u32 = 65_534;

/// What runs first, as root, in a mount namespace of its own: the list of bridges in /etc, the helper with root's rights in `helper/`, and then the
/// daemon, from a copy that anybody may read, as the user that is given.
const PREPARE: &str = "set -e; user=$1 helper=$2 daemon=$3; shift 3; \
    mount -t tmpfs none /etc; mkdir /etc/qemu; cp acl/* /etc/qemu/; chmod 644 /etc/qemu/*; chmod 600 /etc/qemu/private.conf; \
    mount -t tmpfs -o mode=755 none helper; cp \"$helper\" helper/h; chmod 4755 helper/h; cp \"$daemon\" helper/d; \
    exec setpriv --reuid $user --regid $user --clear-groups -- \"$PWD/helper/d\" \"$@\"";

/// A daemon of `user`, with bridges `br6` to `br8`.
fn with_rights(user: u32) -> Lab {
    let home = NetNs::new();
    for bridge in ["br6", "br7", "br8"] {
        home.ip(&format!("link add {bridge} type bridge"));
        home.silent(bridge);
        home.ip(&format!("link set {bridge} up"));
    }
    let directory = tests::daemon::directory();
    let acl = directory.path().join("acl");
    for place in ["acl", "helper"] {
        fs::create_dir(directory.path().join(place)).expect("a directory");
    }
    for (name, text) in [
        (
            "bridge.conf",
            "include /etc/qemu/public.conf\ninclude /etc/qemu/private.conf\ninclude /etc/qemu/none.conf\n",
        ),
        ("public.conf", "allow br7\nallow br6\ndeny br6\n"),
        ("private.conf", "allow br8\n"),
    ] {
        fs::write(acl.join(name), text).expect("a list");
    }
    chown(directory.path(), Some(user), Some(user)).expect("chown");
    let user = user.to_string();
    let wrapper = ["unshare", "-m", "--", "sh", "-c", PREPARE, "sh", &user, &own_helper()].map(String::from);
    let daemon = Daemon::of(Program::Netdevd).under(wrapper).within(&home).directory(directory).start();
    let qmp = daemon.client();
    Lab { qmp, daemon, home }
}

#[test]
fn somebody_elses_daemon_gets_a_tap_where_the_list_says_so() {
    let test = "somebody_elses_daemon_gets_a_tap_where_the_list_says_so";
    if !ready(test, &[BRIDGES, &[Need::Tool("setpriv")]].concat()) {
        return;
    }
    // The private list speaks for those who may read it.
    for (user, private) in [(NOBODY, false), (0, true)] {
        let mut lab = with_rights(user);
        let status = fs::read_to_string(format!("/proc/{}/status", lab.daemon.pid())).expect("it runs");
        let line = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        assert!(line("Uid:").split_whitespace().all(|id| id == user.to_string()), "{status}");
        assert_eq!(line("CapEff:").trim() == "0000000000000000", user != 0, "{status}");
        // By its own rights it may do nothing.
        if user != 0 {
            let tap = json!({"type": "tap", "id": "t", "ifname": "t", "script": "no", "downscript": "no"});
            let refused = lab.qmp.refused("netdev_add", tap);
            assert_eq!(refused, "could not configure /dev/net/tun (t): Operation not permitted");
        }
        let helper = lab.daemon.directory().join("helper/h");
        for (bridge, allowed) in [("br7", true), ("br6", false), ("br8", private), ("br5", false)] {
            let bridge = json!({"type": "bridge", "id": "b", "br": bridge, "helper": helper});
            if allowed {
                lab.qmp.ok("netdev_add", bridge.clone());
                if bridge["br"] == "br7" {
                    assert_eq!(members(&lab.home).len(), 1, "{bridge}");
                }
                lab.qmp.ok("netdev_del", json!({"id": "b"}));
            } else {
                assert_eq!(lab.qmp.refused("netdev_add", bridge), "bridge helper failed");
            }
        }
        let said = lab.daemon.stderr();
        assert_eq!(
            said.matches("access denied by acl file").count(),
            if private { 2 } else { 3 },
            "{user}: {said}"
        );
    }
}

/// The helper while it waits: the one capability that it keeps is all it has.
#[test]
fn the_helper_keeps_one_right_of_roots() {
    let test = "the_helper_keeps_one_right_of_roots";
    if !ready(test, &[BRIDGES, &[Need::Tool("setpriv"), Need::Tool("mkfifo")]].concat()) {
        return;
    }
    let directory = tests::daemon::directory();
    fs::create_dir(directory.path().join("helper")).expect("a directory");
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
    // Reading the list holds it up until somebody writes there.
    let prepare = "set -e; mount -t tmpfs none /etc; mkdir /etc/qemu; mkfifo -m 644 /etc/qemu/bridge.conf; \
        mount -t tmpfs -o mode=755 none helper; cp \"$1\" helper/h; chmod 4755 helper/h; \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$PWD/helper/h\" --br=br7 --fd=\"$2\"";
    let (_ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty()).expect("a pair");
    let mut command = wait::mortal("unshare");
    command.args(["-m", "--", "sh", "-c", prepare, "sh", &own_helper(), &theirs.as_raw_fd().to_string()]);
    let mut child = command.current_dir(directory.path()).spawn().expect("it starts");
    let status = || fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let is_helper =
        || Some(status()).filter(|status| status.starts_with("Name:\th\n") && status.contains("State:\tS"));
    let status = wait::until(wait::PATIENCE, || is_helper().filter(|status| waits(status)));
    let status = status.unwrap_or_else(|| {
        panic!("{}", fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default())
    });
    let line = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    for set in ["CapEff:", "CapPrm:"] {
        assert_eq!(line(set), "0000000000001000", "CAP_NET_ADMIN alone: {status}");
    }
    for set in ["CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set} {status}");
    }
    assert!(line("Gid:").split_whitespace().all(|id| id == NOBODY.to_string()), "{status}");
    let _ = child.kill();
    let _ = child.wait();
}

/// It has become its caller.
fn waits(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    line.split_whitespace().all(|id| id == NOBODY.to_string()) && status.contains("CapEff:\t0000000000001000")
}
