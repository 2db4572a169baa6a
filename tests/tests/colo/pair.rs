//! The network half of COLO between two machines, as QEMU's document on its proxy wires it. Either is QEMU, or ours.
//!
//! QEMU's comparison takes all behind the TCP header for payload, zeros too that a tap puts behind frames of fewer than 60 bytes. So where one guest sends a bare
//! acknowledgement and the other does not, six zeros meet data: QEMU's pair asks for a checkpoint in one run of five. These guests' packets carry eight
//! bytes of IP options, so that none is short.
//!
//! ```text
//!  client == tap hn0 -- hub -- tap g == guest       primary: m0 mirrors what comes; what the guest answers goes to the comparison (redire1),
//!             |  m0, redire0, redire1                and from there to the client (redire0)
//!           sockets
//!             |  f1, f2, rew0
//!            tap hn0 -- hub -- tap g == guest        secondary: what was mirrored comes to its guest (f1), whose answers go to the comparison (f2),
//!                                                    with the primary's sequence numbers (rew0)
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program};
use tests::netns::NetNs;
use tests::qmp::Qmp;
use tests::skip::{Need, ready};
use tests::wait::{self, PATIENCE};

use super::take;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// Bytes of an answer: more than TCP sends before it hears of its receiver.
const ANSWER: usize = 40_000;
/// IP options that mean nothing (RFC 791, 3.1).
const NO_OPERATION: [u8; 8] = [1; 8];

/// A program with a tap `hn0` to the network and a guest behind another one.
struct Machine {
    program: Program,
    qmp: Qmp,
    daemon: Daemon,
    /// The guest: the same address and hardware address on both machines.
    guest: NetNs,
    home: NetNs,
}

impl Machine {
    fn new(program: Program) -> Self {
        let home = NetNs::new();
        let daemon = Daemon::of(program).within(&home).start();
        let mut qmp = daemon.client();
        for tap in ["hn0", "g"] {
            // Without a virtio-net header, checksums are in the frames and segments are what the wire takes.
            let options = json!({"type": "tap", "id": tap, "ifname": tap, "script": "no", "downscript": "no", "vnet_hdr": false});
            qmp.ok("netdev_add", options);
            home.silent(tap);
            qmp.ok(
                "netdev_add",
                json!({"type": "hubport", "id": format!("{tap}-port"), "hubid": 0, "netdev": tap}),
            );
        }
        let guest = home.sibling();
        home.give("g", &guest);
        guest.ip("link set g address 02:00:00:00:00:09");
        // A kernel takes the end of a handshake only if it repeats the time of its own SYN-ACK, and the client repeats that of the primary's.
        guest.run("sh", &["-c", "echo 0 >/proc/sys/net/ipv4/tcp_timestamps"]);
        guest.up("g", GUEST);
        qmp.ok("object-add", json!({"qom-type": "iothread", "id": "t"}));
        Self { program, qmp, daemon, guest, home }
    }

    fn socket(&mut self, id: &str, path: &Path, server: bool) {
        let mut data = json!({"addr": {"type": "unix", "data": {"path": path}}, "server": server});
        if server {
            data["wait"] = json!(false);
        }
        self.qmp.ok("chardev-add", json!({"id": id, "backend": {"type": "socket", "data": data}}));
    }

    fn object(&mut self, kind: &str, id: &str, more: &Value) {
        let mut options = json!({"qom-type": kind, "id": id});
        for (name, value) in more.as_object().into_iter().flatten() {
            options[name] = value.clone();
        }
        self.qmp.ok("object-add", options);
    }

    fn filter(&mut self, kind: &str, id: &str, queue: &str, more: &Value) {
        let mut options = more.clone();
        options["netdev"] = json!("hn0");
        options["queue"] = json!(queue);
        self.object(kind, id, &options);
    }

    /// Serves connections in the guest: `s` is answered by the same bytes on both machines, `d` by `own`. Tells of each that it accepted.
    fn serve(&self, own: u8) -> Receiver<()> {
        let (accepted, each) = channel();
        let listener = self.guest.inside(|| TcpListener::bind((GUEST, 8000))).expect("the guest listens");
        std::thread::spawn(move || {
            while let Ok((mut wire, _)) = listener.accept() {
                lengthen(&wire);
                let _ = accepted.send(());
                std::thread::spawn(move || {
                    let mut asked = [0];
                    while wire.read_exact(&mut asked).is_ok() {
                        let answer = vec![if asked == *b"s" { b'=' } else { own }; ANSWER];
                        if wire.write_all(&answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        each
    }

    /// What ours has counted, for who asks why nothing comes.
    fn books(&mut self) -> Vec<String> {
        let queries = ["query-filter", "query-colo-compare", "query-net-stats", "query-chardev"];
        let said = queries.map(|query| self.qmp.execute(query, json!({})).map(|said| said.to_string()));
        said.into_iter().flatten().collect()
    }

    /// Waits until all chardevs have somebody at their other ends.
    fn connected(&mut self) {
        let there = || {
            let all = self.qmp.ok("query-chardev", json!({})).to_string();
            (!all.contains("disconnected")).then_some(())
        };
        wait::until(PATIENCE, there).expect("all chardevs are connected");
    }
}

fn primary(program: Program) -> Machine {
    let mut machine = Machine::new(program);
    let place = machine.daemon.directory().to_owned();
    for (id, path, server) in [
        ("mirror0", "mirror", true),
        ("compare1", "secondary", true),
        ("compare0", "compare", true),
        ("compare0-0", "compare", false),
        ("compare_out", "out", true),
        ("compare_out0", "out", false),
        ("notify", "notify", true),
    ] {
        machine.socket(id, &place.join(path), server);
    }
    machine.filter("filter-mirror", "m0", "tx", &json!({"outdev": "mirror0"}));
    machine.filter("filter-redirector", "redire0", "rx", &json!({"indev": "compare_out"}));
    machine.filter("filter-redirector", "redire1", "rx", &json!({"outdev": "compare0"}));
    // A busy machine is late at times, which is no reason for a checkpoint here.
    let compare = json!({"primary_in": "compare0-0", "secondary_in": "compare1", "outdev": "compare_out0", "notify_dev": "notify",
        "iothread": "t", "compare_timeout": 60_000});
    machine.object("colo-compare", "comp0", &compare);
    machine
}

fn secondary(program: Program, primary: &Path) -> Machine {
    let mut machine = Machine::new(program);
    machine.socket("red0", &primary.join("mirror"), false);
    machine.socket("red1", &primary.join("secondary"), false);
    machine.filter("filter-redirector", "f1", "tx", &json!({"indev": "red0"}));
    machine.filter("filter-redirector", "f2", "rx", &json!({"outdev": "red1"}));
    machine.filter("filter-rewriter", "rew0", "all", &json!({}));
    machine
}

/// What a filter of ours has counted.
fn count(machine: &mut Machine, id: &str, name: &str) -> u64 {
    let all = machine.qmp.ok("query-filter", json!({"id": id}));
    let counters = all[0]["counters"].as_array().expect("counters").clone();
    counters
        .iter()
        .find(|one| one["name"] == name)
        .and_then(|one| one["frames"].as_u64())
        .expect("the counter")
}

/// All packets of this connection have IP options from now on.
fn lengthen(wire: &TcpStream) {
    let (options, length) = (NO_OPERATION.as_ptr().cast(), NO_OPERATION.len() as libc::socklen_t);
    // SAFETY: the call reads that many bytes of an array that outlives it.
    let failed =
        unsafe { libc::setsockopt(wire.as_raw_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, options, length) };
    assert_eq!(failed, 0, "IP_OPTIONS: {}", std::io::Error::last_os_error());
}

fn say(mut notify: &UnixStream, text: &[u8]) {
    notify.write_all(&[&(text.len() as u32).to_be_bytes(), text].concat()).expect("it is read");
}

/// A connection on which ten equal answers came, once both guests had accepted it.
fn answered(client: &NetNs, guests: &[Receiver<()>; 2]) -> std::io::Result<TcpStream> {
    let mut wire = client.inside(|| TcpStream::connect_timeout(&(GUEST, 8000).into(), PATIENCE))?;
    wire.set_read_timeout(Some(PATIENCE))?;
    for guest in guests {
        guest.recv_timeout(PATIENCE).map_err(|_| std::io::Error::other("a guest has not accepted"))?;
    }
    let mut answer = vec![0; ANSWER];
    for _ in 0..10 {
        wire.write_all(b"s")?;
        wire.read_exact(&mut answer)?;
        assert!(answer.iter().all(|byte| *byte == b'='), "what both guests answer");
    }
    Ok(wire)
}

fn pair(programs: [Program; 2]) {
    let mut primary = primary(programs[0]);
    let mut secondary = secondary(programs[1], primary.daemon.directory());
    let notify = UnixStream::connect(primary.daemon.directory().join("notify")).expect("it listens");
    primary.connected();
    secondary.connected();
    let client = primary.home.sibling();
    primary.home.give("hn0", &client);
    client.up("hn0", CLIENT);
    let guests = [primary.serve(b'P'), secondary.serve(b'S')];
    notify.set_nonblocking(true).expect("a flag");
    let texts = || {
        let mut text = [0; 256];
        std::iter::from_fn(|| (&notify).read(&mut text).ok()).sum::<usize>()
    };

    // Both guests begin with numbers of their own, and the client sees one connection.
    let mut wire = answered(&client, &guests).unwrap_or_else(|error| {
        let books = [&mut primary, &mut secondary].map(Machine::books);
        panic!("{programs:?}: {error}, {} bytes told; {books:#?}", texts())
    });
    assert_eq!(texts(), 0, "{programs:?}: nobody asks for a checkpoint while answers are equal");
    let (limit, mut answer) = (PATIENCE, vec![0; ANSWER]);
    notify.set_nonblocking(false).expect("a flag");

    // Answers that differ stay until there was a checkpoint; then the client gets the primary's.
    wire.write_all(b"d").expect("it is open");
    assert_eq!(take(&notify, false).expect("a text").1, b"DO_CHECKPOINT", "{programs:?}");
    wire.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let early = wire.read(&mut answer).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock), "{programs:?}: nothing is released before");
    wire.set_read_timeout(Some(limit)).expect("a timeout");
    say(&notify, b"COLO_CHECKPOINT");
    wire.read_exact(&mut answer[..1000]).expect("the primary's answer");
    assert!(answer[..1000].iter().all(|byte| *byte == b'P'), "{programs:?}");

    if primary.program == Program::Netdevd {
        assert!(count(&mut primary, "m0", "sent") > 0 && count(&mut primary, "redire1", "sent") > 0);
        assert!(count(&mut primary, "redire0", "injected") > 0);
    }
    if secondary.program == Program::Netdevd {
        assert!(count(&mut secondary, "rew0", "rewritten") > 0 && count(&mut secondary, "f2", "sent") > 0);
        assert!(count(&mut secondary, "f1", "injected") > 0);
    }
}

#[test]
fn two_of_ours_are_a_pair() {
    if ready("two_of_ours_are_a_pair", &[Need::Root, Need::Tap]) {
        pair([Program::Netdevd; 2]);
    }
}

#[test]
fn ours_is_the_primary_of_qemu() {
    if ready("ours_is_the_primary_of_qemu", &[Need::Root, Need::Tap, Need::Oracle]) {
        pair([Program::Netdevd, Program::Oracle]);
    }
}

#[test]
fn qemu_is_the_primary_of_ours() {
    if ready("qemu_is_the_primary_of_ours", &[Need::Root, Need::Tap, Need::Oracle]) {
        pair([Program::Oracle, Program::Netdevd]);
    }
}
