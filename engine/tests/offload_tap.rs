//! The kernel's word on coalesced frames: written into a tap, they must reach sockets as the frames that came.
//!
//! Needs root for a network namespace and a tap of its own; skipped elsewhere.

use engine::burst::{Burst, Mask, Seg};
use engine::offload::Offload;
use engine::port::Caps;
use engine::wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use engine::wire::vnet_hdr::VnetHdr;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::ptr::NonNull;
use std::time::Duration;

nix::ioctl_write_ptr_bad!(
    /// Makes the descriptor a tap's (linux/if_tun.h).
    tun_set_iff,
    libc::TUNSETIFF,
    libc::ifreq
);

const LARGE: Caps =
    Caps { csum: true, tso4: true, tso6: true, ecn: true, ufo: false, uso: true, coalesce: true };
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A tap in a new network namespace of the calling thread: 10.9.0.1 and fd09::1 here, 10.9.0.2 and fd09::2 out there.
fn tap() -> Outcome<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"t0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the ioctl reads an ifreq that lives through the call.
    unsafe { tun_set_iff(tap.as_raw_fd(), &raw const request) }?;
    let peer = "02:00:00:00:00:02";
    for line in [
        "link set t0 address 02:00:00:00:00:01",
        "link set t0 up",
        "addr add 10.9.0.1/24 dev t0",
        "addr add fd09::1/64 dev t0 nodad",
        &format!("neigh add 10.9.0.2 lladdr {peer} dev t0"),
        &format!("neigh add fd09::2 lladdr {peer} dev t0"),
    ] {
        let status = Command::new("ip").args(line.split(' ')).status()?;
        if !status.success() {
            return Err(format!("ip {line}: {status}").into());
        }
    }
    Ok(tap)
}

/// Runs `test` with a tap, in a thread since the namespace is the thread's; says why where it cannot.
fn with_tap(test: fn(File) -> Outcome<()>) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root for a network namespace and a tap");
        return;
    }
    let run = move || match tap() {
        Ok(tap) => test(tap).map_err(|e| e.to_string()),
        Err(e) => {
            eprintln!("skipped: no tap in a namespace of its own: {e}");
            Ok(())
        }
    };
    std::thread::spawn(run).join().unwrap().unwrap();
}

/// An IP packet from the peer in its Ethernet frame, checksums right. `transport` has a zero checksum at `check`.
fn frame(v6: bool, protocol: u8, id: u16, mut transport: Vec<u8>, check: usize) -> Vec<u8> {
    let len = transport.len() as u16;
    let mut f = [MAC, PEER].concat();
    let mut sum = if v6 {
        let (here, peer) = ("fd09::1".parse::<std::net::Ipv6Addr>(), "fd09::2".parse::<std::net::Ipv6Addr>());
        let addrs: [u8; 32] = [peer.unwrap().octets(), here.unwrap().octets()].concat().try_into().unwrap();
        f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        f.extend(len.to_be_bytes());
        f.extend([protocol, 64]);
        f.extend(addrs);
        pseudo_v6(&addrs, protocol, len.into())
    } else {
        let addrs = [10, 9, 0, 2, 10, 9, 0, 1];
        f.extend([8, 0, 0x45, 0]);
        f.extend((20 + len).to_be_bytes());
        f.extend(id.to_be_bytes());
        f.extend([0x40, 0, 64, protocol, 0, 0]);
        f.extend(addrs);
        let header = Sum::of(&f[14..34]).checksum();
        f[24..26].copy_from_slice(&header.to_be_bytes());
        pseudo_v4(&addrs, protocol, len)
    };
    sum.add(&transport);
    transport[check..check + 2].copy_from_slice(&sum.udp_checksum().to_be_bytes());
    f.extend(transport);
    f
}

fn udp(v6: bool, port: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut t =
        [5000_u16.to_be_bytes(), port.to_be_bytes(), (8 + payload.len() as u16).to_be_bytes(), [0, 0]]
            .concat();
    t.extend(payload);
    frame(v6, 17, id, t, 6)
}

fn tcp(v6: bool, port: u16, id: u16, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut t = [5000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    t.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    t.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    t.extend(payload);
    frame(v6, 6, id, t, 16)
}

/// Coalesces `frames` and writes the result into the tap; returns how many frames that were.
fn send(tap: &mut File, frames: &[Vec<u8>]) -> Outcome<usize> {
    let mut burst = Burst::new();
    for f in frames {
        // SAFETY: `frames` is borrowed for longer than the burst lives.
        let seg = unsafe { Seg::new(NonNull::from(f.as_slice()).cast(), f.len() as u32) };
        assert!(burst.push(VnetHdr::NONE, &[seg]));
    }
    let mut writes = Vec::new();
    let adapted = Offload::new().adapt(&burst, burst.all(), &LARGE, |burst: &Burst, mask: Mask| {
        for i in mask.iter() {
            let frame = &burst.frames()[i];
            let mut bytes = vec![0; VnetHdr::LEN + frame.len()];
            bytes[..VnetHdr::LEN].copy_from_slice(&frame.hdr.encode());
            burst.copy_out(frame, 0, &mut bytes[VnetHdr::LEN..]);
            writes.push(bytes);
        }
        mask.count()
    });
    assert_eq!(adapted.frames, frames.len() as u64);
    for bytes in &writes {
        assert_eq!(tap.write(bytes)?, bytes.len());
    }
    Ok(writes.len())
}

fn payload(i: usize, len: usize) -> Vec<u8> {
    (0..len).map(|b| (b * 31 + i * 7) as u8).collect()
}

#[test]
fn coalesced_datagrams_arrive_one_by_one() {
    with_tap(|mut tap| {
        for (v6, address) in [(false, "10.9.0.1:0"), (true, "[fd09::1]:0")] {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            let port = socket.local_addr()?.port();
            for (count, len, last) in [(64, 22, 22), (45, 1400, 1400), (10, 1000, 3), (2, 1, 1)] {
                let size = |i| if i + 1 == count { last } else { len };
                let frames: Vec<Vec<u8>> =
                    (0..count).map(|i| udp(v6, port, i as u16, &payload(i, size(i)))).collect();
                assert_eq!(send(&mut tap, &frames)?, 1, "{count} datagrams in one frame");
                for i in 0..count {
                    let mut got = vec![0; 2000];
                    let n = socket.recv(&mut got)?;
                    assert_eq!(got[..n], payload(i, size(i)), "datagram {i} of {count}");
                }
            }
        }
        Ok(())
    });
}

/// Sends a SYN, again each second as TCP does, since nobody promises that the first one arrives; reads frames from the tap up to the answer, and
/// returns its sequence number.
fn syn_ack(tap: &mut File, v6: bool, syn: &[u8]) -> Outcome<u32> {
    let l4 = VnetHdr::LEN + if v6 { 54 } else { 34 };
    let mut buffer = vec![0; 70000];
    send(tap, &[syn.to_vec()])?;
    let mut sent = 1;
    for _ in 0..100 {
        let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, 1000_u16)? == 0 {
            if sent == 10 {
                return Err(format!("no answer to {sent} SYNs").into());
            }
            send(tap, &[syn.to_vec()])?;
            sent += 1;
            continue;
        }
        let n = tap.read(&mut buffer)?;
        let kind = if v6 { [0x86, 0xdd] } else { [8, 0] };
        if n >= l4 + 20 && buffer[22..24] == kind && buffer[l4 + 13] == 0x12 {
            return Ok(u32::from_be_bytes(buffer[l4 + 4..l4 + 8].try_into()?));
        }
    }
    Err("no SYN-ACK among 100 frames".into())
}

#[test]
fn coalesced_segments_arrive_as_the_stream() {
    with_tap(|mut tap| {
        for (v6, address) in [(false, "10.9.0.1:0"), (true, "[fd09::1]:0")] {
            let listener = TcpListener::bind(address)?;
            let port = listener.local_addr()?.port();
            let ack = syn_ack(&mut tap, v6, &tcp(v6, port, 0, 999, 0, 0x02, &[]))?.wrapping_add(1);
            send(&mut tap, &[tcp(v6, port, 1, 1000, ack, 0x10, &[])])?;
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let (count, len) = (40, 1448);
            let flags = |i| if i + 1 == count { 0x18 } else { 0x10 };
            let frames: Vec<Vec<u8>> = (0..count)
                .map(|i| {
                    tcp(v6, port, 2 + i as u16, 1000 + (i * len) as u32, ack, flags(i), &payload(i, len))
                })
                .collect();
            assert_eq!(send(&mut tap, &frames)?, 1, "{count} segments in one frame");
            let mut got = vec![0; count * len];
            stream.read_exact(&mut got)?;
            assert_eq!(got, (0..count).flat_map(|i| payload(i, len)).collect::<Vec<u8>>());
        }
        Ok(())
    });
}
