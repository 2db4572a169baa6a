//! An AF_XDP socket as an end: queue 0 of an interface. Frames are built once, in the chunks that they are sent from.

#![allow(unsafe_code)] // reads and writes chunks of the UMEM

use super::BURST;
use super::frame::{HEADER, Shape};
use super::payload::Payload;
use crate::failure::{Context, Failure, Result};
use af_xdp::socket::Rings;
use af_xdp::{Desc, Filter, Program, Socket, SocketConfig, Umem, UmemConfig};
use engine::mem::arena::{Arena, ArenaConfig};
use engine::mem::chunks::Lent;
use nix::net::if_::if_nametoindex;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Chunks to receive into, and chunks to send from.
const RECEIVE: usize = 2048;
const SEND: usize = 1024;
const CHUNK: usize = 4096;
/// Where a frame that is sent begins in its chunk.
const FRONT: usize = 64;

/// An AF_XDP socket on an interface, with a program of its own.
pub(super) struct Xdp {
    socket: Socket,
    rings: Rings,
    umem: Arc<Umem>,
    _program: Program,
    /// Length of the frame in each chunk that is sent from.
    lengths: Vec<u32>,
    variants: usize,
    /// Frames sent, and those that came back: in this order, since an interface sends in order.
    sent: usize,
    done: usize,
}

impl Xdp {
    /// Takes queue 0 of the interface `name`.
    ///
    /// # Errors
    /// No such interface, another program or socket there, no privilege.
    pub(super) fn open(name: &str, shape: &Shape) -> Result<Self> {
        if shape.longest().max(shape.payload_at() + 16) > CHUNK - FRONT {
            return Err(Failure::new(format!(
                "{name}: a frame by AF_XDP has {} bytes at most",
                CHUNK - FRONT
            )));
        }
        if shape.variants() > SEND {
            return Err(Failure::new(format!("{name}: at most {SEND} different frames by AF_XDP")));
        }
        let index = if_nametoindex(name).context(name)?;
        let bytes = (RECEIVE + SEND) * CHUNK;
        let config = ArenaConfig { initial: bytes, step: bytes, hugepages: true };
        let part = Arena::new(&config).context(name)?.take(bytes, CHUNK).context(name)?;
        let umem = Umem::new(Box::new(Lent(part)), UmemConfig::default()).context(name)?;
        let fd = af_xdp::socket::create().context(name)?;
        let (socket, rings) = Socket::bind(fd, &umem, index, 0, &SocketConfig::default()).context(name)?;
        let program = Program::attach(index, None, &Filter::default(), 64).context(name)?;
        program.map().insert(0, socket.as_fd()).context(name)?;
        let variants = shape.variants();
        let mut end = Self {
            socket,
            rings,
            umem,
            _program: program,
            lengths: Vec::with_capacity(SEND),
            variants,
            sent: 0,
            done: 0,
        };
        for chunk in 0..RECEIVE {
            end.rings.fill.push((chunk * CHUNK) as u64);
        }
        end.rings.fill.publish();
        for at in 0..SEND {
            let frame = shape.build(at % variants, false).split_off(HEADER);
            // SAFETY: the chunk is nobody's, and longer than the frame and what is in front of it.
            unsafe { std::ptr::copy_nonoverlapping(frame.as_ptr(), end.bytes(Self::addr(at)), frame.len()) };
            end.lengths.push(frame.len() as u32);
        }
        Ok(end)
    }

    /// Where the `n`th frame lies that is sent.
    const fn addr(n: usize) -> u64 {
        ((RECEIVE + n % SEND) * CHUNK + FRONT) as u64
    }

    /// The bytes at an offset of the UMEM, which the kernel or this file computed.
    fn bytes(&self, addr: u64) -> *mut u8 {
        let at = (addr as usize).min(self.umem.len() - 1);
        // SAFETY: inside the UMEM.
        unsafe { self.umem.start().as_ptr().add(at) }
    }

    pub(super) fn receive<P: Payload>(&mut self, payload: &mut P) -> Result<usize> {
        let there = self.rings.rx.available(BURST as u32).min(BURST as u32);
        if there == 0 {
            return Ok(0);
        }
        if P::TOUCH {
            payload.burst();
        }
        for i in 0..there {
            let desc = self.rings.rx.get(i);
            if P::TOUCH {
                // SAFETY: the kernel wrote so many bytes there.
                unsafe { payload.see(self.bytes(desc.addr), desc.len as usize) };
            }
            self.rings.fill.push(desc.addr / CHUNK as u64 * CHUNK as u64);
        }
        self.rings.rx.release(there);
        self.rings.fill.publish();
        Ok(there as usize)
    }

    /// Takes back what was sent: frames of our own, and chunks of reflected ones.
    pub(super) fn reclaim(&mut self) -> usize {
        let there = self.rings.completion.available(BURST as u32).min(BURST as u32);
        let mut own = 0;
        for i in 0..there {
            let addr = self.rings.completion.get(i);
            if addr < (RECEIVE * CHUNK) as u64 {
                self.rings.fill.push(addr / CHUNK as u64 * CHUNK as u64);
            } else {
                own += 1;
            }
        }
        self.rings.completion.release(there);
        self.rings.fill.publish();
        self.done += own;
        own
    }

    pub(super) fn send<P: Payload>(&mut self, n: usize, payload: &mut P) -> Result<usize> {
        let n = n.min(BURST).min(SEND - (self.sent - self.done));
        if P::TOUCH && n > 0 {
            payload.burst();
        }
        let mut taken = 0;
        while taken < n {
            let (addr, at) = (Self::addr(self.sent), self.sent % SEND);
            let Some(&len) = self.lengths.get(at) else { break };
            if P::TOUCH {
                // SAFETY: the chunk came back, so it is ours, and the frame in it has this length.
                unsafe { payload.mark(self.bytes(addr), len as usize, (at % self.variants) as u32) };
            }
            if !self.rings.tx.push(Desc { addr, len, options: 0 }) {
                break;
            }
            self.sent += 1;
            taken += 1;
        }
        self.kick()?;
        Ok(taken)
    }

    /// Sends what arrived back with the MAC addresses exchanged, from the chunks that it came in.
    pub(super) fn reflect(&mut self) -> Result<(usize, usize)> {
        self.reclaim();
        let there =
            self.rings.rx.available(BURST as u32).min(BURST as u32).min(self.rings.tx.room(BURST as u32));
        for i in 0..there {
            let Desc { addr, len, .. } = self.rings.rx.get(i);
            if len >= 12 {
                // SAFETY: the kernel wrote so many bytes there, and is done with them.
                unsafe { self.bytes(addr).cast::<[u8; 6]>().swap(self.bytes(addr + 6).cast()) };
            }
            self.rings.tx.push(Desc { addr, len, options: 0 });
        }
        self.rings.rx.release(there);
        self.kick()?;
        Ok((there as usize, there as usize))
    }

    /// Makes the kernel send. What it has no room for now stays in the ring.
    fn kick(&mut self) -> Result<()> {
        if (self.rings.tx.publish() || self.rings.tx.pending() > 0)
            && self.rings.tx.needs_wakeup()
            && let Err(errno) = self.socket.send()
            && !matches!(errno, libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR)
        {
            return Err(Failure::new(format!("AF_XDP: {}", std::io::Error::from_raw_os_error(errno))));
        }
        Ok(())
    }
}
