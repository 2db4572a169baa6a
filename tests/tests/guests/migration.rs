//! A guest moves to another machine while it talks.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use tests::machine::{self, Machine, Socket};
use tests::netns::NetNs;
use tests::skip::ready;

use crate::{GUEST_AND_TAP, Process, ping, socket, state, with_tap};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 2);
/// Pings, five a second, that may be lost.
const FEW: u64 = 10;
/// Bytes that a socket of the guest holds.
const HELD: usize = 3 << 20;

#[test]
fn a_guest_with_split_rings_moves_to_another_machine_while_it_talks() {
    if ready("a_guest_with_split_rings_moves_to_another_machine_while_it_talks", GUEST_AND_TAP) {
        moves("packed=off");
    }
}

#[test]
fn a_guest_with_packed_rings_moves_to_another_machine_while_it_talks() {
    if ready("a_guest_with_packed_rings_moves_to_another_machine_while_it_talks", GUEST_AND_TAP) {
        moves("packed=on");
    }
}

fn moves(device: &str) {
    let _turn = machine::turn();
    let (mut lab, place) = with_tap(&["n0", "n1"], HOST);
    // The same machine twice: hardware addresses go with the guest.
    let prepare = |nic: &str| Machine::prepare(1).nic(Socket::new(socket(&lab.daemon, nic)).device(device));
    let source = prepare("n0").start();
    let mut target = prepare("n1").incoming().start();
    let mut source = source.up();
    source.address(0, GUEST);
    ping(&mut source, HOST, 1400);

    // What comes from the network is written to the guest's memory by the daemon, and stays there, in the socket, until the
    // guest has moved. A page that was not marked in the dirty log would arrive as it was before; nobody else would
    // notice, since the tap leaves checksums undone.
    source.run("echo '4096 8388608 8388608' >/proc/sys/net/ipv4/tcp_rmem");
    source.run(
        "mkfifo /tmp/pipe /tmp/all; (while ! [ -e /tmp/moved ]; do sleep 0.1; done; cat >/tmp/stream; echo >/tmp/all) </tmp/pipe &",
    );
    source.run("nc -l -p 99 </dev/null >/tmp/pipe &");
    source.run(
        "for i in $(seq 300); do grep -q ':0063 .* 0A ' /proc/net/tcp* && exit 0; sleep 0.1; done; exit 1",
    );
    let mut command = place.command("ping");
    command.args(["-q", "-i", "0.2", "-w", "200", &GUEST.to_string()]);
    let pings = Process::start(command);
    let stream = place.inside(|| TcpStream::connect((GUEST, 99)).expect("the guest listens"));
    let (stop, stopped) = channel::<()>();
    let sender = std::thread::spawn(move || send(stream, &stopped));
    source.migrate(&mut target);
    source.kill();
    ping(&mut target, HOST, 1400);
    target.run("touch /tmp/moved");
    drop(stop);
    let sent = sender.join().expect("the sender");
    pings.interrupt();
    let (asked, answered) = replies(&pings.said());
    println!("{device}: {asked} asked {answered} answered {} bytes", sent.len());
    assert!(asked > 0 && asked <= answered + FEW, "{answered} of {asked} pings were answered");
    let got = fetch(&place, &mut target);
    let same = got.iter().zip(&sent).take_while(|(got, sent)| got == sent).count();
    assert_eq!(
        (got.len(), same),
        (sent.len(), sent.len()),
        "bytes that the guest has, and those as they were sent"
    );
    assert_eq!(state(&mut lab.qmp, "n1"), "ready");
}

/// Sends bytes that are always new, not faster than a migration can follow nor more than the guest can hold, until told
/// to stop; what was sent.
fn send(mut stream: TcpStream, stopped: &Receiver<()>) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut word = 1u32;
    let mut next = || {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (word >> 24) as u8
    };
    while stopped.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
        if sent.len() > HELD {
            continue;
        }
        let block: Vec<u8> = std::iter::repeat_with(&mut next).take(8192).collect();
        stream.write_all(&block).expect("the guest takes it");
        sent.extend(block);
    }
    stream.shutdown(std::net::Shutdown::Write).expect("the end");
    // The guest's end: it has everything.
    let end = stream.read(&mut [0]).expect("the guest hangs up");
    assert_eq!(end, 0);
    sent
}

/// What the guest has got of the stream.
fn fetch(place: &NetNs, guest: &mut Machine) -> Vec<u8> {
    let listener = place.inside(|| TcpListener::bind((HOST, 98)).expect("a listener"));
    // Not before all has been written.
    guest.say(&format!("cat /tmp/all && nc {HOST} 98 </tmp/stream"));
    let (mut stream, _) = listener.accept().expect("the guest comes");
    stream.set_read_timeout(Some(machine::PATIENCE)).expect("a timeout");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("the guest's bytes");
    drop(stream);
    assert_eq!(guest.answer().0, 0);
    got
}

/// Requests and replies of a `ping` that has ended.
fn replies(said: &str) -> (u64, u64) {
    let line = said.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    (numbers.first().copied().unwrap_or_default(), numbers.get(1).copied().unwrap_or_default())
}
