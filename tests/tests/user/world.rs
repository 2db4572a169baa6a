//! A guest's namespace, whose tap is joined to a `user` netdev, and the host's namespace, where the daemon is.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::{Daemon, Program, netdevd};
use tests::lab::Lab;
use tests::netns::NetNs;
use tests::skip::{Need, ready};
use tests::wait::{PATIENCE, until};

const NEEDS: &[Need] = &[Need::Root, Need::Tap];
/// The guest's address.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// A UDP datagram is asked again after that long: the first may be lost while the guest is looked for.
const AGAIN: Duration = Duration::from_millis(200);

/// Whether the process is built; a build without libslirp has none.
pub(crate) fn has_process(test: &str) -> bool {
    let there = netdevd().with_file_name("netdevd-user").is_file();
    if !there {
        println!("SKIP {test}: needs netdevd-user");
    }
    there && ready(test, NEEDS)
}

/// A guest's tap and a user netdev `u` on a hub.
pub(crate) fn guest(options: &Value) -> (Lab, NetNs) {
    join(Lab::new(&[]), options)
}

/// As [`guest`], with a daemon that is started by another command.
pub(crate) fn guest_under(wrapper: &[&str], options: &Value) -> (Lab, NetNs) {
    let home = NetNs::new();
    let daemon = Daemon::of(Program::Netdevd).within(&home).under(wrapper).start();
    let qmp = daemon.client();
    join(Lab { qmp, daemon, home }, options)
}

fn join(mut lab: Lab, options: &Value) -> (Lab, NetNs) {
    let place = lab.home.sibling();
    lab.tap_at("guest", &place, GUEST);
    place.ip("route add default via 10.0.2.2");
    let mut all = json!({"type": "user", "id": "u"});
    all.as_object_mut().expect("an object").extend(options.as_object().cloned().unwrap_or_default());
    lab.qmp.ok("netdev_add", all);
    lab.hub(1, &["guest", "u"]);
    (lab, place)
}

/// Gives the guest's tap an IPv6 address, which a router's advertisement would.
pub(crate) fn with_six(place: &NetNs, address: &str) {
    place.run("sh", &["-c", "echo 0 >/proc/sys/net/ipv6/conf/guest/disable_ipv6"]);
    place.ip(&format!("address add {address}/64 dev guest nodad"));
}

/// Listens, takes one connection, and gives back what comes until its end.
pub(crate) fn echo_once(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("all bytes");
    stream.write_all(&bytes).expect("all bytes go back");
}

/// Sends text and gives what comes back.
pub(crate) fn exchange(to: (&str, u16), bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    exchange_within(to, bytes, Duration::from_secs(5))
}

/// As [`exchange`]; the connection is there within `limit`.
pub(crate) fn exchange_within(to: (&str, u16), bytes: &[u8], limit: Duration) -> std::io::Result<Vec<u8>> {
    let to = SocketAddr::new(to.0.parse().expect("an address"), to.1);
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(back)
}

/// The guest listens on a port, and the host reaches it by a forward at `host`.
pub(crate) fn reaches_guest(lab: &Lab, place: &NetNs, host: (&str, u16), guest: u16, bytes: &[u8]) {
    let any = if host.0.contains(':') { "::" } else { "0.0.0.0" };
    let listener = place.inside(|| TcpListener::bind((any, guest)).expect("a port of the guest"));
    std::thread::scope(|scope| {
        scope.spawn(|| echo_once(&listener));
        let back = until(PATIENCE, || lab.home.inside(|| exchange(host, bytes)).ok());
        assert!(back.as_deref() == Some(bytes), "what came back is something else");
    });
}

/// The host listens on its loopback, and the guest reaches it at the gateway.
pub(crate) fn reaches_host(lab: &Lab, place: &NetNs, port: u16, bytes: &[u8]) {
    reaches_host_at(lab, place, ("127.0.0.1", port), "10.0.2.2", bytes);
}

/// The host listens at an address of its own, and the guest reaches it at another.
pub(crate) fn reaches_host_at(lab: &Lab, place: &NetNs, host: (&str, u16), shown: &str, bytes: &[u8]) {
    let listener = lab.home.inside(|| TcpListener::bind(host).expect("a port of the host"));
    std::thread::scope(|scope| {
        scope.spawn(|| echo_once(&listener));
        let back = place.inside(|| exchange((shown, host.1), bytes)).expect("the host answers");
        assert!(back == bytes, "what came back is something else");
    });
}

/// A datagram of the host's to a forward at `host` comes to the guest's port, and the answer comes from where the datagram went.
pub(crate) fn datagram_reaches_guest(lab: &Lab, place: &NetNs, host: (&str, u16), guest: u16) {
    let any = if host.0.contains(':') { "::" } else { "0.0.0.0" };
    let server = place.inside(|| UdpSocket::bind((any, guest)).expect("a port of the guest"));
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let to = SocketAddr::new(host.0.parse::<IpAddr>().expect("an address"), host.1);
    let client = lab.home.inside(|| UdpSocket::bind((to.ip(), 0)).expect("a port of the host"));
    client.set_read_timeout(Some(AGAIN)).expect("a timeout");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 100];
            let (count, from) = server.recv_from(&mut bytes).expect("a datagram");
            server.send_to(&[b"got ", &bytes[..count]].concat(), from).expect("the answer goes");
        });
        let answer = until(PATIENCE, || {
            client.send_to(b"a word", to).ok()?;
            let mut bytes = [0; 100];
            let (count, from) = client.recv_from(&mut bytes).ok()?;
            Some((bytes[..count].to_vec(), from))
        });
        assert_eq!(answer, Some((b"got a word".to_vec(), to)));
    });
}

/// The number of the netdev's process.
pub(crate) fn pid(lab: &mut Lab) -> i32 {
    let all = lab.qmp.ok("query-netdev-user", json!({"id": "u"}));
    i32::try_from(all[0]["pid"].as_i64().expect("a process")).expect("a pid")
}

/// Kills the netdev's process and waits until another runs.
pub(crate) fn kill(lab: &mut Lab) {
    let pid = nix::unistd::Pid::from_raw(pid(lab));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    let event = lab.qmp.event("NETDEV_USER_RESTARTED", PATIENCE).expect("an event");
    assert_eq!(event["data"], json!({"netdev-id": "u", "reason": "killed by signal 9"}));
}

/// A line of the human monitor's.
pub(crate) fn line(lab: &mut Lab, text: &str) -> String {
    let said = lab.qmp.ok("human-monitor-command", json!({"command-line": text}));
    said.as_str().expect("text").to_owned()
}
