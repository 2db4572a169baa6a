//! Back-ends that break the rules, or do not answer.

use super::*;
use engine::vhost::{Device, NetConfig, Reader, Session};
use engine::virtq::{F_VERSION_1, Position, RingConfig};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// A back-end whose first ring says that it used more than there is.
#[derive(Default)]
struct Broken(Vec<RingConfig>);

impl Device for Broken {
    fn features(&self) -> u64 {
        F_VERSION_1
    }

    fn queues(&self) -> u16 {
        1
    }

    fn config(&self) -> NetConfig {
        NetConfig::default()
    }

    fn start(&mut self, ring: usize, config: RingConfig) -> Result<(), String> {
        if ring == 0 {
            // SAFETY: the used index lies two bytes behind the start of the used ring, in memory that the configuration keeps mapped.
            unsafe { config.used.add(2).cast::<u16>().write_volatile(0x7000) };
        }
        self.0.push(config);
        Ok(())
    }

    fn stop(&mut self, _: usize) -> Option<Position> {
        None
    }

    fn set_features(&mut self, _: u64) {}
    fn set_mtu(&mut self, _: u16) {}
    fn set_mac(&mut self, _: [u8; 6]) {}
    fn send_rarp(&mut self, _: [u8; 6]) {}
    fn set_status(&mut self, _: u8) {}
    fn reset(&mut self) {}
}

/// Serves one connection until the front-end hangs up.
fn serve(listener: &UnixListener, device: &mut dyn Device) {
    let (mut socket, _) = listener.accept().expect("a front-end");
    let (mut session, mut reader) = (Session::new(device), Reader::new());
    loop {
        let mut bytes = vec![0; reader.want()];
        let mut control = nix::cmsg_space!([RawFd; 8]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let Ok(message) =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
        else {
            return;
        };
        let count = message.bytes;
        let files = message.cmsgs().expect("control data").flat_map(|part| match part {
            ControlMessageOwned::ScmRights(files) => files,
            _ => vec![],
        });
        // SAFETY: the kernel has just made these files for us, and nobody else knows them.
        let files = files.map(|file| unsafe { OwnedFd::from_raw_fd(file) }).collect();
        if count == 0 {
            return;
        }
        reader.feed(&bytes[..count], files);
        while let Some(message) = reader.next() {
            let message = message.expect("a message");
            if let Some(reply) = session.handle(message, device).expect("a session goes on") {
                socket.write_all(&reply.bytes).expect("a reply");
            }
        }
    }
}

#[test]
fn a_back_end_that_breaks_the_rules_stops_its_ring_and_another_one_may_come() {
    let directory = tests::daemon::directory();
    let socket = directory.path().join("broken.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let (a, mut client) = front_end(&dials(&socket), "");
    let mut here = guest(&a);
    let broken = std::thread::spawn(move || {
        serve(&listener, &mut Broken::default());
        listener
    });
    let stopped = client.event("NIC_STOPPED", PATIENCE).expect("an event");
    let why = "an index of the ring jumped from 0 to 28672 on a ring of 256";
    assert_eq!(stopped["data"], json!({"name": "v0", "queue": 0, "reason": why}));
    let now = shown(&mut client, "v0");
    assert_eq!(now["transport"]["state"], "failed");
    assert_eq!(now["transport"]["error"], format!("ring 0: {why}"));
    assert_eq!(now["rings"][0], json!({"ring": 0, "state": "failed", "size": 256, "reason": why}));
    assert_eq!(now["rings"][1]["state"], "running");
    // The other ring still takes frames.
    assert!(here.send(&frame(60, 1)));
    client.ok("netdev_del", json!({"id": "v0"}));
    drop(broken.join().expect("it ends with the connection"));
    std::fs::remove_file(&socket).expect("the socket's file");
    // The same chardev leads to a back-end that keeps the rules.
    let chardev = format!("socket,id=c0,path={},server=on,wait=off", socket.display());
    let nics = [
        "-netdev",
        "hubport,id=h0,hubid=0",
        "-netdev",
        "hubport,id=h1,hubid=0",
        "-netdev",
        "nic,id=g,netdev=h1,addr=g.sock",
    ];
    let up = ["-chardev", &chardev, "-device", "virtio-net,id=up,netdev=h0,chardev=c0"];
    let (b, _b) = Daemon::netdevd(&[&nics[..], &up].concat());
    client.ok("netdev_add", json!({"type": "vhost-user", "id": "v0", "chardev": "c0"}));
    await_ready(&mut client);
    client.ok("nic-set-netdev", json!({"name": "g", "netdev": "v0"}));
    cross(&mut here, &mut guest(&b));
}

#[test]
fn a_back_end_that_never_answers_is_left_and_another_one_may_come() {
    let directory = tests::daemon::directory();
    let socket = directory.path().join("up.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // Beside it a netdev whose back-end answers: no limit ends what runs.
    let (good, _good) = back_end("");
    let (a, mut client) = front_end(&dials(&socket), "");
    client.ok(
        "chardev-add",
        json!({"id": "c1", "backend": {"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": at(&good, "up")}}, "server": false, "reconnect-ms": 20}}}),
    );
    client.ok("netdev_add", json!({"type": "vhost-user", "id": "v1", "chardev": "c1"}));
    let silent = || {
        let (mut socket, _) = listener.accept().expect("a front-end");
        let mut said = Vec::new();
        socket.read_to_end(&mut said).expect("it hangs up");
        said
    };
    let get_features = [1u32, 1, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(silent(), get_features);
    // It comes again, as it was told to, and says what is wrong.
    let why = "the back-end has not answered GET_FEATURES for 10s";
    let (again, _) = listener.accept().expect("it comes again");
    let now = shown(&mut client, "v0");
    assert_eq!((&now["transport"]["state"], &now["transport"]["error"]), (&json!("connecting"), &json!(why)));
    assert!(a.stderr().contains(&format!("netdev 'v0': {why}; the connection is closed")), "{}", a.stderr());
    assert_eq!(shown(&mut client, "v1")["transport"]["state"], "ready");
    drop((again, listener));
    std::fs::remove_file(&socket).expect("the socket's file");
    let b = Daemon::of(Program::Netdevd).args(serves("")).directory(directory).start();
    assert_eq!(await_ready(&mut client)["transport"].get("error"), None);
    cross(&mut guest(&a), &mut guest(&b));
}
