//! A guest's namespace, netdevd with passt in one of its own, and the world outside.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::daemon::{Daemon, Program};
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::qmp::Qmp;
use tests::wait;

/// The address that passt takes from the host and gives the guest.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// A place behind the router.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// All of it.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) guest: NetNs,
    pub(crate) outside: NetNs,
    /// Where the daemon makes its temporary files.
    pub(crate) files: TempDir,
}

impl World {
    /// `tap t0 <-> hub <-> passt p`, with the guest's interface set up as DHCP would.
    pub(crate) fn new(options: &Value) -> Self {
        let world = Self::bare(options);
        world.guest.ip("address add 192.0.2.2/24 dev t0");
        world.guest.ip("route add default via 192.0.2.1");
        world
    }

    /// As [`World::new`], without an address in the guest.
    pub(crate) fn bare(options: &Value) -> Self {
        let mut world = Self::without_passt();
        world.lab.qmp.ok("netdev_add", passt(options));
        world.lab.tap("t0", &json!({}));
        world.lab.home.give("t0", &world.guest);
        world.guest.silent("t0");
        world.guest.ip("link set t0 up");
        world.lab.hub(0, &["t0", "p"]);
        world
    }

    /// A daemon where passt would find the world.
    pub(crate) fn without_passt() -> Self {
        let home = NetNs::new();
        let (guest, outside) = (home.sibling(), home.sibling());
        home.ip("link add v0 type veth peer name v1");
        home.give("v1", &outside);
        for (place, link, address) in [(&home, "v0", "192.0.2.2/24"), (&outside, "v1", "192.0.2.1/24")] {
            place.silent(link);
            place.ip(&format!("address add {address} dev {link}"));
            place.ip(&format!("link set {link} up"));
        }
        home.ip("route add default via 192.0.2.1");
        outside.ip("address add 198.51.100.1/32 dev lo");
        home.run("sh", &["-c", "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range"]);
        let files = tests::daemon::directory();
        let daemon = Daemon::of(Program::Netdevd).within(&home).env("TMPDIR", files.path()).start();
        let qmp = daemon.client();
        Self { lab: Lab { qmp, daemon, home }, guest, outside, files }
    }

    /// Waits until the netdev stands like that, with a word of its error; its `transport`.
    #[track_caller]
    pub(crate) fn becomes(&mut self, state: &str, error: &str) -> Value {
        becomes(&mut self.lab.qmp, state, error)
    }

    /// The process of the passt that is connected.
    #[track_caller]
    pub(crate) fn pid(&mut self) -> i32 {
        let transport = self.becomes("ready", "");
        let info = transport["info"].as_str().unwrap_or_default();
        let pid = info.strip_prefix("stream,connected to pid ").and_then(|pid| pid.parse().ok());
        pid.unwrap_or_else(|| panic!("{transport}"))
    }

    /// Names of temporary files.
    pub(crate) fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.files.path()).expect("a directory");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Waits until the netdev `p` stands like that, with a word of its error; its `transport`.
#[track_caller]
pub(crate) fn becomes(qmp: &mut Qmp, state: &str, error: &str) -> Value {
    let mut last = Value::Null;
    let found = wait::until(wait::PATIENCE, || {
        last = qmp.ok("query-netdev", json!({"name": "p"}))[0]["transport"].clone();
        let why = last["error"].as_str().unwrap_or_default();
        (last["state"] == state && why.contains(error)).then(|| last.clone())
    });
    found.unwrap_or_else(|| panic!("not {state}: {last}"))
}

/// The options of netdev `p`: as root passt wants to be told that it may stay so, and the router's address is the router's.
pub(crate) fn passt(options: &Value) -> Value {
    let mut all = json!({"type": "passt", "id": "p"});
    let own = [json!({"str": "--runas"}), json!({"str": "0"}), json!({"str": "--no-map-gw"})];
    all["param"] = own.to_vec().into();
    for (key, value) in options.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

/// Whether a process is there and has not ended.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits for the end of a process.
#[track_caller]
pub(crate) fn ends(pid: i32) {
    let gone = wait::until(wait::PATIENCE, || (!lives(pid)).then_some(()));
    assert!(gone.is_some(), "process {pid} lives on");
}
