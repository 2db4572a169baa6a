//! What the guest finds in its network: DHCP, names, files, forwards, services, routers; and what it does not find.
#![cfg(feature = "slirp")]

mod guest;

use guest::{Guest, HOST, ME, PATIENCE, ethernet, network, udp, word};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;
use usernet::protocol::*;

const QUIET: Duration = Duration::from_millis(300);

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn forward(transport: Transport, port: u16, guest: u16) -> Forward {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Forward {
        listen: Listen::Inet { transport, address },
        guest: SocketAddr::from((Ipv4Addr::UNSPECIFIED, guest)),
    }
}

/// A DHCP message (RFC 2131) of a type.
fn dhcp(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
    bytes[28..34].copy_from_slice(&guest::MAC);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(&[53, 1, kind]);
    if kind == 3 {
        bytes.extend_from_slice(&[50, 4]);
        bytes.extend_from_slice(&ME.octets());
    }
    bytes.push(255);
    bytes
}

fn option(bytes: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut at = 240;
    while *bytes.get(at)? != 255 {
        let length = usize::from(bytes[at + 1]);
        if bytes[at] == wanted {
            return Some(bytes[at + 2..at + 2 + length].to_vec());
        }
        at += 2 + length;
    }
    None
}

#[test]
fn the_guest_gets_a_lease() {
    let with = Network {
        domainname: Some("example.org".into()),
        search: vec!["a.example.org".into()],
        bootfile: Some("boot.bin".into()),
        tftp_server_name: Some("files".into()),
        ..network()
    };
    let mut guest = Guest::start(with, &[]);
    for (kind, answer) in [(1, 2), (3, 5)] {
        let message = udp((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), &dhcp(kind));
        guest.send(&message);
        let (port, bytes) = guest.datagram_to(68);
        assert_eq!((port, &bytes[16..20]), (67, &ME.octets()[..]));
        assert_eq!(option(&bytes, 53), Some(vec![answer]));
        assert_eq!(option(&bytes, 3), Some(HOST.octets().to_vec()), "the router");
        assert_eq!(option(&bytes, 6), Some(vec![10, 0, 2, 3]), "the name server");
        assert_eq!(option(&bytes, 12), Some(b"guest".to_vec()));
        assert_eq!(option(&bytes, 15), Some(b"example.org".to_vec()));
        assert_eq!(option(&bytes, 66), Some(b"files".to_vec()));
        assert!(bytes[108..].starts_with(b"boot.bin\0"));
        assert!(option(&bytes, 119).is_some(), "search domains");
    }
}

#[test]
fn files_are_read_from_the_directory_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("boot.bin"), b"boot me").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("passwd")).unwrap();
    let mut guest = Guest::start(Network { tftp: Some(directory.path().into()), ..network() }, &[]);
    let mut read = |name: &str| {
        let port = guest.port();
        guest.datagram(port, (HOST, 69), &[b"\0\x01", name.as_bytes(), b"\0octet\0"].concat());
        guest.datagram_to(port).1
    };
    assert_eq!(read("boot.bin"), b"\0\x03\0\x01boot me");
    assert_eq!(read("none")[..2], [0, 5]);
    assert_eq!(read("../../etc/passwd")[..2], [0, 5]);
    assert_eq!(read("passwd")[..2], [0, 5], "a link out of the directory is landlock's to refuse");
    // A file that comes later is found.
    fs::write(directory.path().join("later"), b"late").unwrap();
    assert_eq!(read("later"), b"\0\x03\0\x01late");
}

#[test]
fn forwards_lead_to_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let (tcp, udp) = (free_port(), free_port());
    let forwards = vec![
        forward(Transport::Tcp, tcp, 22),
        forward(Transport::Udp, udp, 53),
        Forward { listen: Listen::Unix { path: path.clone() }, guest: SocketAddr::from((ME, 80)) },
    ];
    let mut guest = Guest::start(network(), &[]);
    for forward in &forwards {
        assert_eq!(guest.forward(forward), Answer::Done);
    }

    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, tcp)).unwrap();
    let mut server = guest.accept(22, 1460);
    client.write_all(b"hello guest").unwrap();
    assert_eq!(server.read(&mut guest, 11), b"hello guest");
    server.write(&mut guest, b"hello host", 5);
    let mut back = [0; 10];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello host");

    let mut client = UnixStream::connect(&path).unwrap();
    let mut server = guest.accept(80, 1460);
    client.write_all(&[7; 50_000]).unwrap();
    assert_eq!(server.read(&mut guest, 50_000), [7; 50_000]);
    assert!(server.largest > 1460);

    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"question", (Ipv4Addr::LOCALHOST, udp)).unwrap();
    let (port, question) = guest.datagram_to(53);
    assert_eq!(question, b"question");
    guest.datagram(53, (HOST, port), b"answer");
    let mut answer = [0; 16];
    let (length, from) = client.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from.port()), (&b"answer"[..], udp));

    let Answer::State { connections: list, .. } = guest.request(&Request::State) else {
        panic!("no connections")
    };
    let find = |protocol: &str, port: u16| {
        list.iter().find(|one| one.protocol == protocol && one.source.1 == port).map(|one| one.destination)
    };
    assert_eq!(find("TCP[HOST_FORWARD]", tcp), Some((Some(ME.into()), 22)), "{list:?}");
    assert_eq!(find("UDP[HOST_FORWARD]", udp), Some((Some(ME.into()), 53)));
    assert_eq!(find("TCP[ESTABLISHED]", tcp), Some((Some(ME.into()), 22)));
    assert!(list.iter().any(|one| one.source == (None, 0) && one.destination == (Some(ME.into()), 80)));
}

#[test]
fn forwards_come_and_go() {
    let mut guest = Guest::start(network(), &[]);
    let port = free_port();
    let wanted = forward(Transport::Tcp, port, 22);
    let Answer::Failed(why) = guest.request(&Request::Add(wanted.clone())) else {
        panic!("without a socket")
    };
    assert_eq!(why.errno, Some(libc::EBADF));
    assert_eq!(guest.forward(&wanted), Answer::Done);
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    guest.accept(22, 1460);
    assert_eq!(guest.request(&Request::Remove(wanted.listen.clone())), Answer::Done);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    let Answer::Failed(why) = guest.request(&Request::Remove(wanted.listen)) else { panic!("removed twice") };
    assert_eq!(why.errno, Some(libc::ENOENT));
}

#[test]
fn services_answer_in_the_guests_network() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service");
    let listener = UnixListener::bind(&path).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (stream, unix) = (Ipv4Addr::new(10, 0, 2, 100), Ipv4Addr::new(10, 0, 2, 4));
    let services = vec![
        Service { address: stream, port: 1234, to: Server::Stream },
        Service { address: unix, port: 139, to: Server::Unix { path } },
    ];
    let mut guest = Guest::start(Network { services, ..network() }, &[theirs.as_raw_fd()]);
    drop(theirs);
    ours.set_read_timeout(Some(PATIENCE)).unwrap();

    for round in 0..3u8 {
        let mut tcp = guest.connect((stream, 1234), 1460);
        tcp.write(&mut guest, &[round; 4], 4);
        let mut got = [0; 4];
        ours.read_exact(&mut got).unwrap();
        assert_eq!(got, [round; 4]);
        ours.write_all(&[9 - round; 20_000]).unwrap();
        assert_eq!(tcp.read(&mut guest, 20_000), [9 - round; 20_000]);
        // The stream goes on, so nobody ends the connection from its side.
        tcp.finish(&mut guest);
    }

    let mut tcp = guest.connect((unix, 139), 1460);
    let (mut server, _) = listener.accept().unwrap();
    tcp.write(&mut guest, b"share", 5);
    let mut got = [0; 5];
    server.read_exact(&mut got).unwrap();
    server.write_all(b"a file").unwrap();
    assert_eq!(tcp.read(&mut guest, 6), b"a file");
}

#[test]
fn a_stream_that_nobody_reads_holds_back_the_guest_and_loses_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let at = Ipv4Addr::new(10, 0, 2, 100);
    let services = vec![Service { address: at, port: 7, to: Server::Stream }];
    let mut guest = Guest::start(Network { services, ..network() }, &[theirs.as_raw_fd()]);
    drop(theirs);
    let mut tcp = guest.connect((at, 7), 1460);
    // More than the socket and we hold; the rest is not acknowledged.
    let sent: Vec<u8> = (0..900_000u32).map(|at| (at / 1000) as u8).collect();
    let taken = tcp.write_while_taken(&mut guest, &sent, 10_000);
    assert!((300_000..800_000).contains(&taken), "{taken} bytes were taken");
    let reader = thread::spawn(move || {
        let mut ours = ours;
        let mut got = vec![0; 900_000];
        ours.read_exact(&mut got).unwrap();
        got
    });
    tcp.write_again(&mut guest, &sent[taken..], 10_000);
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn routers_and_names_are_announced_with_no_other_mtu() {
    let mut guest = Guest::start(network(), &[]);
    // A router solicitation (RFC 4861) from the link-local address.
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0x12, 0x34, 0x56];
    let all = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 2], 0x86dd);
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 8, 58, 255]);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&all);
    let mut body = vec![133, 0, 0, 0, 0, 0, 0, 0];
    let total = guest::sum(&source) + guest::sum(&all) + 58 + 8 + guest::sum(&body);
    body[2..4].copy_from_slice(&(!guest::fold(total)).to_be_bytes());
    frame.extend_from_slice(&body);
    guest.send(&frame);
    let (_, frame) = guest.until(|frame| word(frame, 12) == 0x86dd && frame[54] == 134);
    let mut kinds = Vec::new();
    let mut at = 54 + 16;
    while at < frame.len() {
        kinds.push(frame[at]);
        if frame[at] == 3 {
            assert_eq!(frame[at + 2], 64);
            assert_eq!(frame[at + 16..at + 18], [0xfe, 0xc0]);
        }
        at += usize::from(frame[at + 1]) * 8;
    }
    assert!(kinds.contains(&3), "a prefix");
    assert!(!kinds.contains(&5), "no MTU");
}

#[test]
fn a_large_datagram_comes_in_fragments_that_the_guest_takes() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut guest = Guest::start(network(), &[]);
    let port = guest.port();
    guest.datagram(port, (HOST, socket.local_addr().unwrap().port()), b"go");
    let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
    let sent: Vec<u8> = (0..9000u32).map(|at| at as u8).collect();
    socket.send_to(&sent, from).unwrap();
    let mut got = vec![0; 9008];
    let mut bytes = 0;
    while bytes < got.len() {
        let (_, frame) = guest.until(|frame| frame[12..14] == [8, 0] && frame[23] == 17);
        assert!(frame.len() <= 1514, "{}", frame.len());
        assert_eq!(guest::fold(guest::sum(&frame[14..34])), 0xffff);
        let at = usize::from(word(&frame, 20) & 0x1fff) * 8;
        got[at..at + frame.len() - 34].copy_from_slice(&frame[34..]);
        bytes += frame.len() - 34;
        assert_eq!(word(&frame, 20) & 0x2000 != 0, at + frame.len() - 34 < 9008);
    }
    assert_eq!(got[8..], sent);
}

#[test]
fn a_restricted_guest_gets_what_is_forwarded_and_nothing_else() {
    let inside = free_port();
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    outside.set_nonblocking(true).unwrap();
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    datagrams.set_read_timeout(Some(QUIET)).unwrap();
    let mut guest = Guest::start(Network { restricted: true, ..network() }, &[]);
    assert_eq!(guest.forward(&forward(Transport::Tcp, inside, 22)), Answer::Done);
    let tcp = guest.connect((HOST, outside.local_addr().unwrap().port()), 1460);
    assert!(tcp.reset, "refused");
    guest.datagram(5000, (HOST, datagrams.local_addr().unwrap().port()), b"out");
    assert!(datagrams.recv(&mut [0; 8]).is_err(), "a datagram came out");
    assert!(outside.accept().is_err(), "a connection came out");
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, inside)).unwrap();
    guest.accept(22, 1460);
}

#[test]
fn names_are_asked_of_the_hosts_server() {
    let address = Ipv4Addr::new(127, 77, 77, 77);
    let Ok(server) = UdpSocket::bind((address, 53)) else {
        eprintln!("skipped: port 53 and a mount need root");
        return;
    };
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
    let mut guest = Guest::spawn_with(Some(&file));
    assert_eq!(guest.begin(network(), &[], &file), Answer::Done);
    guest.greet();
    // The servers of the host change while the guest runs.
    fs::write(&file, format!("nameserver {address}\n")).unwrap();
    guest.datagram(5353, (Ipv4Addr::new(10, 0, 2, 3), 53), b"a name?");
    let mut question = [0; 16];
    let (length, from) = server.recv_from(&mut question).unwrap();
    assert_eq!(&question[..length], b"a name?");
    server.send_to(b"an address", from).unwrap();
    assert_eq!(guest.datagram_to(5353), (53, b"an address".to_vec()));
}
