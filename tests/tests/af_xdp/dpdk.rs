//! DPDK's `net_af_xdp` and `net_af_packet` at the other end: testpmd sends back what it receives, as it came.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tests::daemon::{Daemon, directory};
use tests::netns::NetNs;
use tests::nics::{SPLIT, Split, frame, plug};
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE};

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tool("dpdk-testpmd")];

/// Two namespaces with a veth pair between: `here` in the first, `there` in the second.
fn pair() -> [NetNs; 2] {
    let (a, b) = (NetNs::new(), NetNs::new());
    for place in [&a, &b] {
        place.run("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    }
    a.ip(&format!("link add here type veth peer name there netns {}", b.pid()));
    a.ip("link set here up");
    b.ip("link set there up");
    [a, b]
}

/// testpmd with one port, whose frames go back where they came from.
struct Testpmd {
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Testpmd {
    fn start(place: &NetNs, driver: &str) -> Self {
        let directory = directory();
        let log = directory.path().join("testpmd.log");
        let file = File::create(&log).expect("a log file");
        let copy = file.try_clone().expect("dup");
        // Where the machine has but one processor, both threads share it. Its lines are read while it runs.
        let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
        let mut command = place.command("stdbuf");
        command.env("XDG_RUNTIME_DIR", directory.path());
        command.args(["-oL", "dpdk-testpmd", "--no-pci", "--no-telemetry", "--no-huge", "-m", "128"]);
        command.args(["--lcores", &format!("0@(0-{last}),1@(0-{last})")]);
        // Tests run side by side in one process, and no two EALs may share a prefix.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let nth = STARTED.fetch_add(1, Ordering::Relaxed);
        command.args(["--file-prefix", &format!("nd{}.{nth}{driver}", std::process::id())]);
        command.args(["--vdev", &format!("{driver}0,iface=there")]);
        command.args([
            "--",
            "-i",
            "--auto-start",
            "--forward-mode=io",
            "--port-topology=loop",
            "--nb-cores=1",
        ]);
        command.args(["--no-flush-rx", "--total-num-mbufs=16384"]);
        let child = command.stdin(Stdio::piped()).stdout(file).stderr(copy).spawn();
        let this = Self { child: child.expect("dpdk-testpmd starts"), log, _directory: directory };
        let forwards = || this.said().contains("packets/burst=").then_some(());
        wait::until(6 * PATIENCE, forwards).unwrap_or_else(|| panic!("{}", this.said()));
        this
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- dpdk-testpmd said:\n{}---", self.said());
        }
    }
}

/// What a guest sends through an `af-xdp` netdev comes back as it was, many times and in all sizes that the MTU allows.
#[track_caller]
fn echoes(test: &str, driver: &str, options: &str) {
    if !ready(test, NEEDS) {
        return;
    }
    let [a, b] = pair();
    let far = Testpmd::start(&b, driver);
    let netdev = format!("af-xdp,id=x,ifname=here{options}");
    let (daemon, _client) =
        Daemon::netdevd_within(&a, &["-netdev", &netdev, "-netdev", "nic,id=n,netdev=x,addr=n.sock"]);
    let mut guest: Split = plug(&daemon, "n", SPLIT);
    for round in 0..50 {
        for len in [60, 64, 1000, 1514] {
            let sent = frame(len, round);
            assert_eq!(wait::until(PATIENCE, || guest.send(&sent).then_some(())), Some(()));
            assert!(guest.receive(PATIENCE) == Some(sent), "round {round}, {len} bytes; {}", guest.books());
        }
    }
    drop(far);
}

#[test]
fn dpdks_af_xdp_echoes_through_native_xdp() {
    echoes("af-xdp and DPDK's net_af_xdp, native", "net_af_xdp", ",mode=native");
}

#[test]
fn dpdks_af_xdp_echoes_through_generic_xdp() {
    echoes("af-xdp and DPDK's net_af_xdp, generic", "net_af_xdp", ",mode=skb");
}

#[test]
fn dpdks_af_packet_echoes_with_every_copy_forced() {
    echoes("af-xdp and DPDK's net_af_packet", "net_af_packet", ",force-copy=on");
}
