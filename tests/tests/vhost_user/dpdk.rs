//! DPDK as the back-end.

use super::*;
use std::process::Child;

/// DPDK's vhost port on a socket, which sends back what it receives.
struct Testpmd(Child, PathBuf);

impl Testpmd {
    fn start(socket: &Path, more: &str) -> Self {
        // Its lines are read while it runs.
        let mut command = wait::mortal("stdbuf");
        command.args(["-oL", "dpdk-testpmd"]);
        let prefix = format!("nd{}", std::process::id());
        command.args([
            "--lcores",
            "0@0,1@0",
            "--no-pci",
            "--in-memory",
            "--single-file-segments",
            "--file-prefix",
            &prefix,
            "-m",
            "64",
        ]);
        command.args(["--vdev", &format!("net_vhost0,iface={}{more}", socket.display())]);
        command.args([
            "--",
            "-i",
            "--auto-start",
            "--forward-mode=io",
            "--port-topology=loop",
            "--no-flush-rx",
            "--total-num-mbufs=4096",
            "--nb-cores=1",
        ]);
        let log = socket.with_extension("log");
        let file = std::fs::File::create(&log).expect("a log file");
        let copy = file.try_clone().expect("dup");
        command.stdin(Stdio::piped()).stdout(file).stderr(copy);
        Self(command.spawn().expect("dpdk-testpmd starts"), log)
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            let said = std::fs::read(&self.1).unwrap_or_default();
            eprintln!("--- dpdk-testpmd said:\n{}---", String::from_utf8_lossy(&said));
        }
    }
}

impl Testpmd {
    /// Waits until it forwards; on a busy machine that is long after it has taken the rings.
    fn await_forwarding(&self) {
        let said = || std::fs::read(&self.1).unwrap_or_default();
        let forwards = || String::from_utf8_lossy(&said()).contains("packets/burst=").then_some(());
        wait::until(6 * PATIENCE, forwards).expect("dpdk-testpmd forwards");
    }
}

/// What goes out comes back as it was.
#[track_caller]
fn echoes(guest: &mut Split, rounds: u8) {
    for round in 0..rounds {
        for len in [60, 64, 1000, 1514] {
            let sent = frame(len, round);
            assert_eq!(wait::until(PATIENCE, || guest.send(&sent).then_some(())), Some(()));
            assert!(guest.receive(PATIENCE) == Some(sent), "round {round}, {len} bytes; {}", guest.books());
        }
    }
}

#[test]
fn dpdk_serves_a_netdev_that_connects_and_one_that_waits() {
    if !ready("vhost-user and DPDK", &[Need::Root, Need::Tool("dpdk-testpmd")]) {
        return;
    }
    let directory = tests::daemon::directory();
    let socket = directory.path().join("dpdk.sock");
    let (a, mut client) = front_end(&dials(&socket), ",queues=1");
    let mut here = guest(&a);
    for _ in 0..2 {
        let dpdk = Testpmd::start(&socket, ",queues=1");
        event(&mut client, CONNECTED);
        dpdk.await_forwarding();
        echoes(&mut here, 100);
        drop(dpdk);
        event(&mut client, DISCONNECTED);
        let _ = std::fs::remove_file(&socket);
    }
    let (a, mut client) = front_end("path=v.sock,server=on,wait=off", ",queues=2");
    let mut here = guest(&a);
    let dpdk = Testpmd::start(&at(&a, "v"), ",queues=2,client=1");
    event(&mut client, CONNECTED);
    drop(dpdk);
    event(&mut client, DISCONNECTED);
    let dpdk = Testpmd::start(&at(&a, "v"), ",queues=2,client=1");
    event(&mut client, CONNECTED);
    dpdk.await_forwarding();
    echoes(&mut here, 100);
}
