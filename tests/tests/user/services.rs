//! What the guest's network has of its own: commands and streams behind addresses, and a network that nothing leaves.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};
use tests::lab::Lab;
use tests::skip::{Need, ready};
use tests::wait::{PATIENCE, output, until};

use crate::world::{exchange, exchange_within, guest, has_process, kill, line, pid, reaches_guest, with_six};

/// Longer than any answer of the stack takes.
const SILENCE: Duration = Duration::from_millis(500);

#[test]
fn nothing_leaves_a_restricted_network_but_by_its_forwards() {
    if !has_process("nothing_leaves_a_restricted_network_but_by_its_forwards") {
        return;
    }
    let (mut lab, place) = guest(&json!({
        "restrict": true,
        "hostfwd": [{"str": "tcp:127.0.0.1:2501-:81"}],
        "guestfwd": [{"str": "tcp:10.0.2.100:80-cmd:sed s/^/told-/"}],
    }));
    with_six(&place, "fec0::15");
    // An address of the host's that is not the loopback's, and is reached without restriction.
    lab.home.ip("address add 198.51.100.1/32 dev lo");
    let listener = lab.home.inside(|| TcpListener::bind("0.0.0.0:8101").expect("a port"));
    let six = lab.home.inside(|| TcpListener::bind("[::1]:8102").expect("a port"));
    let datagrams = lab.home.inside(|| UdpSocket::bind("0.0.0.0:8103").expect("a port"));
    for socket in [listener.set_nonblocking(true), six.set_nonblocking(true), datagrams.set_nonblocking(true)]
    {
        socket.expect("a socket that nobody waits on");
    }
    reaches_guest(&lab, &place, ("127.0.0.1", 2501), 81, b"comes in");
    let told = place.inside(|| exchange(("10.0.2.100", 80), b"asks\n")).expect("the command answers");
    assert_eq!(String::from_utf8_lossy(&told), "told-asks\n");
    for to in [("10.0.2.2", 8101), ("198.51.100.1", 8101), ("fec0::2", 8102)] {
        let tried = place.inside(|| exchange_within(to, b"x", SILENCE));
        assert!(tried.is_err(), "{to:?} is reached");
    }
    place.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        for to in ["10.0.2.2:8103", "198.51.100.1:8103", "10.0.2.3:53"] {
            socket.send_to(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01", to).expect("a datagram goes");
        }
        assert!(socket.recv(&mut [0; 100]).is_err(), "something answers");
    });
    let mut ping = place.command("ping");
    ping.args(["-c", "1", "-W", "1", "198.51.100.1"]);
    assert!(!output(&ping, 10).status.success(), "a host outside answers");
    let nothing =
        |error: Option<std::io::Error>| error.map(|error| error.kind()) == Some(ErrorKind::WouldBlock);
    assert!(nothing(listener.accept().err()) && nothing(six.accept().err()), "a connection came");
    assert!(nothing(datagrams.recv(&mut [0; 100]).err()), "a datagram came");
    // By the same ways all of them are reached, where nothing is restricted.
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    lab.qmp.ok("netdev_add", json!({"type": "user", "id": "v"}));
    lab.hub(1, &["v"]);
    place.inside(|| {
        for to in [("10.0.2.2", 8101), ("198.51.100.1", 8101), ("fec0::2", 8102)] {
            let stream = TcpStream::connect(to);
            assert!(stream.is_ok(), "{to:?}: {stream:?}");
        }
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        socket.send_to(b"x", "10.0.2.2:8103").expect("a datagram goes");
    });
    assert!(
        until(PATIENCE, || listener.accept().ok()).is_some()
            && until(PATIENCE, || six.accept().ok()).is_some()
    );
    assert_eq!(until(PATIENCE, || datagrams.recv(&mut [0; 100]).ok()), Some(1));
}

/// Adds the netdev `u` once more, to the guest's hub.
fn again(lab: &mut Lab, options: Value) {
    lab.qmp.ok("netdev_add", options);
    lab.qmp.ok("netdev_add", json!({"type": "hubport", "id": "again", "hubid": 1, "netdev": "u"}));
}

#[test]
fn a_chardev_is_a_server_of_the_guests_and_outlives_the_process() {
    if !has_process("a_chardev_is_a_server_of_the_guests_and_outlives_the_process") {
        return;
    }
    let (mut lab, place) = guest(&json!({}));
    let path = lab.daemon.directory().join("served");
    let backend = json!({"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": path}}, "server": true, "wait": false}});
    lab.qmp.ok("chardev-add", json!({"id": "c0", "backend": backend}));
    let mut server = UnixStream::connect(&path).expect("it listens");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    let add = json!({"type": "user", "id": "u", "guestfwd": [{"str": "tcp:10.0.2.100:7-chardev:c0"}]});
    again(&mut lab, add);
    let mut served = |text: &[u8]| {
        let mut guest = place.inside(|| TcpStream::connect("10.0.2.100:7").expect("somebody answers"));
        guest.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        guest.write_all(text).expect("bytes go");
        let mut got = vec![0; text.len()];
        server.read_exact(&mut got).expect("bytes come");
        assert_eq!(got, text);
        server.write_all(b"answer to ").and_then(|()| server.write_all(&got)).expect("bytes go");
        let mut back = vec![0; 10 + text.len()];
        guest.read_exact(&mut back).expect("an answer");
        assert_eq!(back, [b"answer to ", text].concat());
        guest.shutdown(Shutdown::Both).expect("an end");
    };
    served(b"the first");
    served(&[7; 50_000]);
    kill(&mut lab);
    served(b"another process");
    // It is in use as long as the netdev is there.
    let another = json!({"type": "user", "id": "w", "guestfwd": [{"str": "tcp:10.0.2.100:7-chardev:c0"}]});
    let desc = "Could not open guest forwarding device 'guestfwd.tcp.7'";
    assert_eq!(lab.qmp.refused("netdev_add", another), desc);
    let none = json!({"type": "user", "id": "w", "guestfwd": [{"str": "tcp:10.0.2.100:9-chardev:nobody"}]});
    assert_eq!(
        lab.qmp.refused("netdev_add", none),
        "Could not open guest forwarding device 'guestfwd.tcp.9'"
    );
    assert_eq!(line(&mut lab, "chardev-remove c0"), "Error: Chardev 'c0' is busy\r\n");
}

#[test]
fn a_chardev_whose_other_end_goes_and_returns_is_a_server_again() {
    if !has_process("a_chardev_whose_other_end_goes_and_returns_is_a_server_again") {
        return;
    }
    let (mut lab, place) = guest(&json!({}));
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    lab.home.run("sh", &["-c", "ip link set lo up"]);
    let path = lab.daemon.directory().join("peer");
    let unix = json!({"type": "unix", "data": {"path": path}});
    let inet = json!({"type": "inet", "data": {"host": "127.0.0.1", "port": "8140"}});
    for (id, addr) in [("c1", unix), ("c2", inet)] {
        let data = json!({"addr": addr, "server": false, "reconnect-ms": 20});
        lab.qmp.ok("chardev-add", json!({"id": id, "backend": {"type": "socket", "data": data}}));
    }
    // Nobody is there yet.
    let rules = [1, 2].map(|at| json!({"str": format!("tcp:10.0.2.100:{at}-chardev:c{at}")}));
    again(&mut lab, json!({"type": "user", "id": "u", "guestfwd": rules}));
    let mut guests = [1, 2].map(|port| {
        let guest = place.inside(|| TcpStream::connect(("10.0.2.100", port)).expect("somebody answers"));
        guest.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        guest
    });
    for guest in &mut guests {
        guest.write_all(b"for nobody").expect("bytes go");
    }
    for round in 0..3 {
        // After the first round the process is another one; a connection of the guest's went with it.
        if round == 2 {
            kill(&mut lab);
            guests = [1, 2].map(|port| {
                let guest = place.inside(|| TcpStream::connect(("10.0.2.100", port)).expect("it answers"));
                guest.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                guest
            });
        }
        let _ = std::fs::remove_file(&path);
        let unix = UnixListener::bind(&path).expect("a socket");
        let inet = lab.home.inside(|| TcpListener::bind("127.0.0.1:8140").expect("a port"));
        let servers: [Box<dyn ReadWrite>; 2] = [
            Box::new(unix.accept().expect("it connects").0),
            Box::new(inet.accept().expect("it connects").0),
        ];
        for (guest, mut server) in guests.iter_mut().zip(servers) {
            // What the server says comes whenever the guest's process has the stream.
            server.write_all(b"hello").expect("bytes go");
            let mut word = [0; 5];
            guest.read_exact(&mut word).expect("bytes come");
            guest.write_all(b"there").expect("bytes go");
            server.read_exact(&mut word).expect("only what was written since");
            assert_eq!(&word, b"there");
        }
        // The servers are gone: what comes now is for nobody.
        drop((unix, inet));
        let none = || {
            let all = lab.qmp.ok("query-chardev", json!({}));
            let ours =
                |one: &&Value| one["filename"].as_str().is_some_and(|name| name.starts_with("disconnected:"));
            (all.as_array().expect("a list").iter().filter(ours).count() == 2).then_some(())
        };
        assert!(until(PATIENCE, none).is_some(), "they are taken for connected");
        for guest in &mut guests {
            guest.write_all(b"for nobody").expect("bytes go");
        }
    }
    // A process with nobody to read from rests.
    let spent = |lab: &mut Lab| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid(lab))).expect("it runs");
        let times = stat.rsplit(')').next().expect("fields").split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().expect("a number")).sum::<u64>()
    };
    drop(guests);
    let before = spent(&mut lab);
    std::thread::sleep(SILENCE);
    assert!(spent(&mut lab) <= before + 10, "it is busy");
}

/// An option of DHCPv6 (RFC 8415, section 21.1), if an answer has it.
fn option(answer: &[u8], code: u16) -> Option<&[u8]> {
    let mut rest = answer.get(4..)?;
    loop {
        let (head, more) = rest.split_first_chunk::<4>()?;
        let [kind, length] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let (value, more) = more.split_at_checked(length.into())?;
        if kind == code {
            return Some(value);
        }
        rest = more;
    }
}

#[test]
fn ipv6_is_advertised_and_dhcp_tells_the_rest() {
    if !has_process("ipv6_is_advertised_and_dhcp_tells_the_rest") {
        return;
    }
    let (_lab, place) =
        guest(&json!({"ipv6-prefix": "fd00:1::", "tftp": "/nonexistent", "bootfile": "boot.efi"}));
    let settings = "/proc/sys/net/ipv6/conf/guest";
    place.run(
        "sh",
        &[
            "-c",
            &format!(
                "echo 1 >{settings}/accept_ra; echo 0 >{settings}/accept_dad; echo 0 >{settings}/disable_ipv6"
            ),
        ],
    );
    let address =
        || place.ip("-6 address show dev guest scope global").contains("inet6 fd00:1::").then_some(());
    assert!(until(PATIENCE, address).is_some(), "no address is made");
    let routes = place.ip("-6 route show default");
    assert!(routes.starts_with("default via fe80::2 dev guest"), "{routes}");
    place.run("ping", &["-6", "-c", "1", "-W", "5", "fd00:1::2"]);
    let answer = place.inside(|| {
        let socket = UdpSocket::bind("[::]:546").expect("the client's port");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let scope = if_nametoindex("guest").expect("the tap");
        // All servers (RFC 8415, section 7.1): an information request for name servers and the boot file.
        let servers = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), 547, 0, scope);
        let request = [11, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1, 0, 6, 0, 4, 0, 23, 0, 59];
        until(PATIENCE, || {
            socket.send_to(&request, servers).ok()?;
            let mut bytes = [0; 1500];
            let (count, from) = socket.recv_from(&mut bytes).ok()?;
            Some((bytes[..count].to_vec(), from.ip()))
        })
    });
    let (answer, from) = answer.expect("an answer");
    assert_eq!((&answer[..4], from.to_string().as_str()), (&[7, 1, 2, 3][..], "fd00:1::2"), "{answer:?}");
    let server = "fd00:1::3".parse::<Ipv6Addr>().expect("an address");
    assert_eq!(option(&answer, 23), Some(&server.octets()[..]), "{answer:?}");
    assert_eq!(
        option(&answer, 59),
        Some(&b"tftp://[fd00:0001:0000:0000:0000:0000:0000:0002]/boot.efi"[..]),
        "{answer:?}"
    );
}

#[test]
fn what_connects_is_a_server_without_a_name() {
    if !has_process("what_connects_is_a_server_without_a_name") {
        return;
    }
    let (mut lab, place) = guest(&json!({}));
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    let path = lab.daemon.directory().join("s");
    let unix = UnixListener::bind(&path).expect("a socket");
    let tcp = lab.home.inside(|| TcpListener::bind("127.0.0.1:8130").expect("a port"));
    let rules = [
        "tcp:10.0.2.100:1-tcp:127.0.0.1:8130".to_owned(),
        format!("tcp:10.0.2.100:2-unix:{}", path.display()),
        "tcp:10.0.2.100:3-null".to_owned(),
    ];
    let rules: Vec<_> = rules.iter().map(|rule| json!({"str": rule})).collect();
    again(&mut lab, json!({"type": "user", "id": "u", "guestfwd": rules}));
    let said = |port: u16| {
        let mut guest = place.inside(|| TcpStream::connect(("10.0.2.100", port)).expect("somebody answers"));
        guest.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        guest.write_all(b"a word").expect("bytes go");
        guest
    };
    let answers = |mut server: Box<dyn ReadWrite>, mut guest: TcpStream| {
        let mut word = [0; 6];
        server.read_exact(&mut word).expect("bytes come");
        server.write_all(&word).expect("bytes go");
        guest.read_exact(&mut word).expect("an answer");
        assert_eq!(&word, b"a word");
    };
    answers(Box::new(tcp.accept().expect("it connects").0), said(1));
    answers(Box::new(unix.accept().expect("it connects").0), said(2));
    said(3);
    for (rule, port) in [
        ("unix:/nonexistent/s", 4),
        ("tcp:127.0.0.1:1", 5),
        ("unix:s,server=on,wait=off", 6),
        ("nonsense", 7),
    ] {
        let rule = format!("tcp:10.0.2.101:{port}-{rule}");
        let desc = format!("Could not open guest forwarding device 'guestfwd.tcp.{port}'");
        assert_eq!(
            lab.qmp.refused("netdev_add", json!({"type": "user", "id": "w", "guestfwd": [{"str": rule}]})),
            desc
        );
    }
}

/// A connection of any kind.
trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_guest_lists_fetches_and_leaves_files_by_smb() {
    const TEST: &str = "a_guest_lists_fetches_and_leaves_files_by_smb";
    if !has_process(TEST) || !ready(TEST, &[Need::Tool("smbd"), Need::Tool("smbclient")]) {
        return;
    }
    let shared = tempfile::tempdir().expect("a directory");
    let text: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(shared.path().join("told.bin"), &text).expect("a file");
    let (mut lab, place) = guest(&json!({"smb": shared.path()}));
    let local = tempfile::tempdir().expect("a directory");
    // Nothing of this machine's configuration: without a file of its own smbclient says so, and goes on.
    let client = |port: &str, commands: &str| {
        let mut command = place.command("smbclient");
        command.current_dir(local.path()).args(["-N", "-s", "/dev/null", "-p", port, "//10.0.2.4/qemu"]);
        command.args(["-c", commands]);
        let said = output(&command, 60);
        let text = [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(said.status.success(), "{commands}: {text:?}");
        text.concat()
    };
    let listed = client("445", "ls");
    assert!(listed.lines().any(|line| line.contains("told.bin") && line.contains("300000")), "{listed}");
    client("139", "get told.bin; put told.bin back.bin");
    for path in [local.path().join("told.bin"), shared.path().join("back.bin")] {
        assert!(std::fs::read(&path).expect("a file") == text, "{} is another one", path.display());
    }
    // What it was given for its own files goes with the netdev.
    let left = |path: std::path::PathBuf| {
        let there = std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        there.contains("/usr/sbin/smbd") && there.contains("netdevd-user.")
    };
    lab.qmp.ok("netdev_del", json!({"id": "u"}));
    let gone = || {
        let all = std::fs::read_dir("/proc").expect("processes").flatten();
        (!all.map(|entry| entry.path()).any(left)).then_some(())
    };
    assert!(until(PATIENCE, gone).is_some(), "a server of files is left behind");
}
