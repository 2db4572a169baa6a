//! DPDK's virtio-user as guests of two nics on a hub: frames go round in a closed loop, and none is lost.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use tests::daemon::Daemon;
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE, mortal};

/// Frames that each nic has received before the loop is stopped.
const ROUNDS: u64 = 20_000;
/// How long they may take: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// Frames that testpmd sends on each queue of each port to begin with.
const BURST: u64 = 32;

/// testpmd, its forwarding thread bouncing between two ports that are guests of `n0` and `n1`.
struct Testpmd {
    child: Child,
    output: std::path::PathBuf,
}

impl Testpmd {
    fn start(daemon: &Daemon, options: &str, queues: u64) -> Self {
        let output = daemon.directory().join("testpmd.log");
        let log = File::create(&output).expect("a log");
        // Where the machine has but one processor, both threads share it. Without hugepages DPDK's memory is a memfd, which can be shared.
        let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
        let mut command = mortal("dpdk-testpmd");
        command.current_dir(daemon.directory()).env("XDG_RUNTIME_DIR", daemon.directory());
        command.args([
            "--lcores",
            &format!("0@(0-{last}),1@(0-{last})"),
            "--no-pci",
            "--no-telemetry",
            "--no-huge",
        ]);
        command.args(["--iova-mode=va", "-m", "192", "--file-prefix", &format!("netdevd{}", daemon.pid())]);
        for port in [0, 1] {
            let device =
                format!("net_virtio_user{port},path=n{port}.sock,queues={queues},queue_size=256,{options}");
            command.args(["--vdev", &device]);
        }
        let queues = queues.to_string();
        // Sixteen rings of 256 hold a buffer each in every entry, those of the transmit rings until DPDK needs the entry again.
        command.args([
            "--",
            "-i",
            "--nb-cores=1",
            "--total-num-mbufs=16384",
            "--rxq",
            &queues,
            "--txq",
            &queues,
        ]);
        let copy = log.try_clone().expect("dup");
        let child = command.stdin(Stdio::piped()).stdout(log).stderr(copy).spawn().expect("testpmd");
        Self { child, output }
    }

    fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its input");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("testpmd reads");
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Ends it; what each port received and sent.
    fn end(mut self) -> [(u64, u64); 2] {
        self.say("show port stats all");
        self.say("quit");
        let status = wait::child(&mut self.child, PATIENCE);
        let text = self.said();
        assert!(status.is_some_and(|status| status.success()), "{text}");
        [0, 1].map(|port| {
            let part = text.split(&format!("NIC statistics for port {port} ")).nth(1).unwrap_or_default();
            let number = |name: &str| -> Option<u64> {
                part.split(name).nth(1)?.split_whitespace().next()?.parse().ok()
            };
            // Its receive rings would run dry for good, and the loop with them.
            assert_eq!(number("RX-nombuf:"), Some(0), "testpmd has enough buffers: {text}");
            let both = number("RX-packets:").zip(number("TX-packets:"));
            both.unwrap_or_else(|| panic!("no statistics of port {port}: {text}"))
        })
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `n0` and `n1` received from their guests and gave to them, and whether something was dropped.
fn counted(client: &mut Qmp) -> ([(u64, u64); 2], bool) {
    let stats = client.ok("query-net-stats", json!({}));
    let ports = stats["ports"].as_array().cloned().unwrap_or_default();
    let dropped = ports.iter().any(|port| port["drops"].as_object().is_some_and(|drops| !drops.is_empty()));
    // A row for each queue.
    let of = |name: &str| {
        let rows = ports.iter().filter(|port| port["name"] == name);
        let sum = |key: &str| rows.clone().filter_map(|row| row[key].as_u64()).sum();
        (sum("rx-frames"), sum("tx-frames"))
    };
    ([of("n0"), of("n1")], dropped)
}

fn goes_round(options: &str, queues: u64) {
    if !ready("DPDK's virtio-user as guests", &[Need::Tool("dpdk-testpmd")]) {
        return;
    }
    let nic = |n: usize| {
        let port = format!("hubport,id=h{n},hubid=0");
        [
            "-netdev".into(),
            port,
            "-netdev".into(),
            format!("nic,id=n{n},netdev=h{n},addr=n{n}.sock,queues={queues}"),
        ]
    };
    let arguments: Vec<String> = (0..2).flat_map(nic).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (daemon, mut client) = Daemon::netdevd(&arguments);
    let mut testpmd = Testpmd::start(&daemon, options, queues);
    let all_run = |client: &mut Qmp, name: &str| {
        let rings = client.ok("query-netdev", json!({"name": name}))[0]["rings"].clone();
        let running =
            |rings: &Vec<serde_json::Value>| rings.iter().filter(|r| r["state"] == "running").count();
        rings.as_array().map(running) == Some(2 * queues as usize)
    };
    let run = wait::until(LIMIT, || (all_run(&mut client, "n0") && all_run(&mut client, "n1")).then_some(()));
    assert_eq!(run, Some(()), "{}", testpmd.said());
    testpmd.say("start tx_first 1");
    let enough = wait::until(LIMIT, || {
        let (counts, _) = counted(&mut client);
        counts.iter().all(|(received, _)| *received >= ROUNDS).then_some(())
    });
    assert_eq!(enough, Some(()), "{options}: {:?}; {}", counted(&mut client), testpmd.said());
    testpmd.say("stop");
    // The loop stands when nothing is counted any more: as long as it runs, something always is.
    let mut last = counted(&mut client);
    let mut calm = 0;
    let stands = wait::until(LIMIT, || {
        std::thread::sleep(Duration::from_millis(50));
        let now = counted(&mut client);
        calm = if now == last { calm + 1 } else { 0 };
        last = now;
        (calm >= 10).then_some(())
    });
    assert_eq!(stands, Some(()), "it stops");
    let (nics, dropped) = last;
    assert!(!dropped, "{options}: {}", client.ok("query-net-stats", json!({})));
    let ports = testpmd.end();
    for (this, other) in [(0, 1), (1, 0)] {
        let mut books = || client.ok("query-net-stats", json!({}));
        assert_eq!(
            nics[this].0,
            ports[this].1,
            "{options}: all that port {this} sent was received; {}",
            books()
        );
        assert_eq!(nics[other].1, nics[this].0, "{options}: all of it went to the other nic");
    }
    // What circulated is now in the receive rings of both: the frames that it began with, not one more or less.
    let left = nics[0].1 + nics[1].1 - ports[0].0 - ports[1].0;
    assert_eq!(left, 2 * queues * BURST, "{options}: {nics:?} {ports:?}");
}

#[test]
fn split_rings() {
    goes_round("packed_vq=0,in_order=0", 1);
}

#[test]
fn packed_rings() {
    goes_round("packed_vq=1,in_order=0", 1);
}

#[test]
fn packed_rings_in_order() {
    goes_round("packed_vq=1,in_order=1", 1);
}

#[test]
fn split_rings_in_order_without_mergeable_buffers() {
    goes_round("packed_vq=0,in_order=1,mrg_rxbuf=0", 1);
}

#[test]
fn four_queues() {
    goes_round("packed_vq=0,in_order=1", 4);
    goes_round("packed_vq=1,in_order=0", 4);
}
