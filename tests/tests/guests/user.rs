//! A guest on `user` netdevs, and on QEMU's: one script sees the same on both.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;

use tests::daemon::{self, Daemon, Program};
use tests::machine::{self, Machine, Socket};
use tests::netns::NetNs;
use tests::program;
use tests::skip::{Need, ready};
use tests::wait;

use crate::PATIENCE;

const NEEDS: &[Need] = &[Need::Guests, Need::Root, Need::Namespaces, Need::Mount];

/// Ports of the host's loopback: lines that come, lines that are summed up.
const DOWN: u16 = 8201;
const UP: u16 = 8202;
/// How many lines.
const LINES: u32 = 300_000;

/// What stands for `smbd`: it shows its configuration.
const SMBD: &str = "#!/bin/sh\necho smbd \"$@\"\nwhile [ \"$1\" != -s ]; do shift; done\ncat \"$2\"\n";
/// The command behind an address of the network.
const TOLD: &str = "#!/bin/sh\nexec sed s/^/told-/\n";
/// What udhcpc tells, and what is made of it.
const LEASE: &str = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
    env | grep -E \"^(ip|subnet|mask|broadcast|router|dns|hostname|domain|search|boot_file|bootfile|tftp|siaddr|sname|lease|serverid|mtu)=\" | sort\n\
    ip addr add $ip/$mask dev e0\n[ -z \"$router\" ] || ip route add default via $router\n";

/// What the guest does: a title, a command.
const TOUR: &[(&str, &str)] = &[
    ("lease", "udhcpc -i e0 -n -q -f -t 10 -T 1 -O search -O bootfile -O tftp -s /tmp/lease 2>/dev/null"),
    (
        "gateway",
        "ping -c 2 -s 1000 10.0.2.2 | sed \"s/time=.*//; /round-trip/d\"; /usr/bin/ip neigh show 10.0.2.2 | grep -o \"lladdr [0-9a-f:]*\"",
    ),
    ("name server", "ping -q -c 1 10.0.2.3 | grep packets; nslookup -type=a host.example 10.0.2.3"),
    ("a host outside", "ping -q -c 1 198.51.100.1 | grep packets"),
    ("boot file", "tftp -g -r boot.bin -l - 10.0.2.2 | md5sum; tftp -g -b 1400 -r sub/inner -l - 10.0.2.2"),
    ("no boot file", "tftp -g -r none -l - 10.0.2.2; tftp -g -r ../outside -l - 10.0.2.2"),
    ("down", "nc 10.0.2.2 8201 </dev/null | md5sum"),
    ("up", "seq 300000 | nc 10.0.2.2 8202"),
    ("a closed port", "nc -w 5 10.0.2.2 1 </dev/null"),
    ("command", "echo a word | nc 10.0.2.100 7"),
    ("smb", "nc 10.0.2.4 445 </dev/null | sed \"s#/tmp/[^ ]*\\.[A-Za-z0-9]\\{6\\}#DIR#g\""),
    (
        "ipv6",
        "for i in $(seq 100); do /usr/bin/ip -6 addr show dev e0 scope site | grep -q inet6 && break; sleep 0.1; done; \
        /usr/bin/ip -6 addr show dev e0 | grep inet6; /usr/bin/ip -6 route | sed \"s/expires [0-9]*sec//\" | sort",
    ),
    ("ipv6 host", "ping6 -q -c 1 fec0::2 | grep packets; nc fec0::2 8201 </dev/null | md5sum"),
];

/// As [`TOUR`], on a network that nothing leaves.
const RESTRICTED: &[(&str, &str)] = &[
    (
        "lease",
        "udhcpc -i e0 -n -q -f -t 10 -T 1 -O search -O bootfile -O tftp -s /tmp/lease 2>/dev/null; ip route add default via 10.0.2.2",
    ),
    ("gateway", "ping -q -c 1 -W 2 10.0.2.2 | grep packets"),
    ("name server", "timeout 1 nslookup -type=a host.example 10.0.2.3 >/dev/null"),
    ("a host outside", "ping -q -c 1 -W 1 198.51.100.1 | grep packets"),
    ("down", "timeout 1 nc 10.0.2.2 8201 </dev/null"),
    ("command", "echo a word | nc 10.0.2.100 7"),
];

/// Serves a port of the loopback until the test ends, a connection after the other.
fn serve(home: &NetNs, address: (&str, u16), one: impl Fn(TcpStream) + Send + 'static) {
    let listener = home.inside(|| TcpListener::bind(address).expect("a port of the host"));
    thread::spawn(move || listener.incoming().flatten().for_each(one));
}

fn lines() -> String {
    (1..=LINES).map(|number| format!("{number}\n")).collect()
}

/// What arrived, in a line.
fn summed(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("{} bytes {sum}\n", bytes.len())
}

/// Answers any question for an IPv4 address (RFC 1035).
fn answer_names(home: &NetNs) {
    let socket = home.inside(|| UdpSocket::bind("127.0.0.1:53").expect("the port of names"));
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let question = &bytes[12..count];
            let head = [&bytes[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
            let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77];
            let _ = socket.send_to(&[&head, question, &record].concat(), from);
        }
    });
}

/// Files that the netdevs need, in a directory.
fn furnish(directory: &Path) {
    for place in ["tftp/sub", "shared", "sbin"] {
        fs::create_dir_all(directory.join(place)).expect("a directory");
    }
    fs::write(directory.join("tftp/boot.bin"), lines()).expect("a boot file");
    fs::write(directory.join("tftp/sub/inner"), "within\n").expect("a file");
    fs::write(directory.join("outside"), "a secret\n").expect("a file");
    fs::write(directory.join("resolv.conf"), "nameserver 127.0.0.1\n").expect("a file");
    program::write(&directory.join("sbin/smbd"), SMBD);
    program::write(&directory.join("told"), TOLD);
}

/// Options of a netdev whose forwards begin at a port of the host's.
fn options(directory: &Path, port: u16, restricted: bool) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let forwards: String = [22, 23]
        .iter()
        .zip(port..)
        .map(|(guest, host)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"))
        .collect();
    let more = if restricted {
        ",restrict=on".to_owned()
    } else {
        format!(",tftp={},smb={}", at("tftp"), at("shared"))
    };
    format!(
        "user,hostname=guest,domainname=inside.example,dnssearch=a.example,dnssearch=b.example,bootfile=boot.bin,\
         tftp-server-name=boot.example,guestfwd=tcp:10.0.2.100:7-cmd:{}{forwards}{more}",
        at("told")
    )
}

/// What the guest sees on nic `nic`, whose forwards begin at a port of the host's.
fn seen(guest: &mut Machine, home: &NetNs, nic: usize, port: u16, tour: &[(&str, &str)]) -> String {
    let dev = guest.dev(nic);
    let place = format!("g{nic}");
    guest.run(&format!(
        "ip netns add {place} && ip link set {dev} netns {place} && ip -n {place} link set {dev} name e0"
    ));
    // One address for all, and nobody asks whether somebody has it already.
    guest
        .run(&format!("ip -n {place} link set e0 address 52:54:00:00:00:07 && ip -n {place} link set lo up"));
    guest.run(&format!("ip netns exec {place} sh -c 'echo 0 >/proc/sys/net/ipv6/conf/e0/accept_dad' && ip -n {place} link set e0 up"));
    let mut all = String::new();
    for (title, command) in tour {
        let (status, text) = guest.attempt(&format!("ip netns exec {place} sh -c '{command}'"));
        all += &format!("== {title}: {status}\n{text}");
    }
    for (number, program) in [(22, "/bin/sh"), (23, "/bin/md5sum")] {
        guest.run(&format!("ip netns exec {place} nc -ll -p {number} -e {program} >/dev/null 2>&1 & true"));
    }
    all += &format!("== shell\n{}", forwarded(home, port, b"echo $((6 * 7)); exit\n"));
    all += &format!("== in\n{}", forwarded(home, port + 1, lines().as_bytes()));
    all
}

/// What a server of the guest's answers.
fn forwarded(home: &NetNs, port: u16, bytes: &[u8]) -> String {
    let once = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(bytes).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut back = String::new();
        stream.read_to_string(&mut back).ok()?;
        // A connection that the guest has refused ends, too.
        Some(back).filter(|back| !back.is_empty())
    };
    home.inside(|| wait::until(PATIENCE, once)).expect("the guest's server answers")
}

#[test]
fn a_guest_sees_the_network_that_qemu_would_give_it() {
    const TEST: &str = "a_guest_sees_the_network_that_qemu_would_give_it";
    if !ready(TEST, NEEDS) {
        return;
    }
    if !daemon::netdevd().with_file_name("netdevd-user").is_file() {
        return println!("SKIP {TEST}: needs netdevd-user");
    }
    let _turn = machine::turn();
    let directory = daemon::directory();
    let at = directory.path();
    furnish(at);
    let home = NetNs::new();
    home.run("sh", &["-c", "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range"]);
    home.ip("address add 198.51.100.1/32 dev lo");
    answer_names(&home);
    for address in ["127.0.0.1", "::1"] {
        serve(&home, (address, DOWN), |mut stream| drop(stream.write_all(lines().as_bytes())));
    }
    serve(&home, ("127.0.0.1", UP), |mut stream| {
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).is_ok() {
            let _ = stream.write_all(summed(&bytes).as_bytes());
        }
    });
    // Its own resolver's configuration and SMB server, in place of this machine's.
    let mounts = format!(
        "mount --bind {0}/resolv.conf /etc/resolv.conf && mount --bind {0}/sbin /usr/sbin && exec \"$0\" \"$@\"",
        at.display()
    );
    let wrapper = ["unshare", "-m", "sh", "-c", &mounts];
    let ours = [(0, false), (1, true)].map(|(number, restricted)| {
        let netdev = format!("{},id=u{number}", options(at, 2210 + 10 * number, restricted));
        [netdev, format!("nic,id=n{number},netdev=u{number},addr={}/n{number}.sock", at.display())]
    });
    let arguments: Vec<&str> = ours.iter().flatten().flat_map(|netdev| ["-netdev", netdev]).collect();
    let _daemon = Daemon::of(Program::Netdevd).within(&home).under(wrapper).args(arguments).start();
    let nic = |number: usize| Socket::new(at.join(format!("n{number}.sock")));
    let foreign = |port, restricted| Socket::foreign(&options(at, port, restricted));
    let machine =
        Machine::prepare(1).nic(nic(0)).nic(foreign(2310, false)).nic(nic(1)).nic(foreign(2320, true));
    let enter: Vec<String> =
        ["nsenter".to_owned()].into_iter().chain(home.entry()).chain(wrapper.map(str::to_owned)).collect();
    let mut guest = machine.under(enter).start().up();
    for (line, text) in [(">", LEASE.lines().next().unwrap_or_default())]
        .into_iter()
        .chain(LEASE.lines().skip(1).map(|text| (">>", text)))
    {
        guest.run(&format!("printf \"%s\\n\" '{text}' {line}/tmp/lease"));
    }
    guest.run("chmod +x /tmp/lease && mkdir -p /run/netns");
    let [ours, qemus] = [(0, 2210), (1, 2310)].map(|(nic, port)| seen(&mut guest, &home, nic, port, TOUR));
    eprintln!("{ours}");
    assert_eq!(ours, qemus);
    let md5 = guest.run(&format!("seq {LINES} | md5sum"));
    let expected = [
        "ip=10.0.2.15",
        "boot_file=boot.bin",
        "search=a.example b.example",
        "tftp=boot.example",
        "hostname=guest",
        "Address: 192.0.2.77",
        "within",
        "told-a word",
        "\n42\n",
        &summed(lines().as_bytes()),
        "inet6 fec0::",
        "path=",
        "0% packet loss",
    ];
    for text in expected {
        assert!(ours.contains(text), "'{text}' is missing:\n{ours}");
    }
    assert_eq!(ours.matches(md5.trim()).count(), 4, "the boot file, down, down by IPv6, in:\n{ours}");
    assert!(!ours.contains("a secret"), "{ours}");
    let [ours, qemus] =
        [(2, 2220), (3, 2320)].map(|(nic, port)| seen(&mut guest, &home, nic, port, RESTRICTED));
    eprintln!("{ours}");
    assert_eq!(ours, qemus);
    for text in
        ["ip=10.0.2.15", "== name server: 143", "== down: 1\n", "100% packet loss", "told-a word", "\n42\n"]
    {
        assert!(ours.contains(text), "'{text}' is missing:\n{ours}");
    }
}
