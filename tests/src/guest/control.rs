//! A guest's control queue, further pairs, and what the configuration space and headers tell it.

use std::os::fd::AsFd;

use engine::virtq::{DriverRing, DriverSeg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::{pread, pwrite};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

use super::{BUFFER, Guest, HEADER};
use crate::wait;

/// Where the answer of a control command lies in its buffer.
const STATUS: u64 = BUFFER - 64;
/// What an answer is before it is written.
const UNSET: u8 = 0xaa;

impl<R: DriverRing> Guest<R> {
    /// Sends a command by the control queue: the answer, 0 for done.
    ///
    /// # Panics
    /// When none comes, or there is no control queue.
    pub fn command(&mut self, bytes: &[u8]) -> u8 {
        self.offer_command(&[(bytes, bytes.len().div_ceil(2).max(1))], 1);
        let ring = self.control.as_mut().expect("a control queue");
        assert_eq!(ring.used(wait::PATIENCE), Some((0, 1)), "an answer to {bytes:02x?}");
        let mut status = [0; 2];
        let at = ring.seg(0, 0).addr + STATUS;
        assert_eq!(pread(&self.memory, &mut status, at.cast_signed()), Ok(2));
        assert_eq!(status[1], UNSET, "one byte is written");
        status[0]
    }

    /// Makes chains available on the control queue, all at once, and awaits nothing: each of some bytes in pieces of that many, with
    /// `answer` bytes for the status.
    ///
    /// # Panics
    /// When there is no control queue or no room.
    pub fn offer_command(&mut self, chains: &[(&[u8], usize)], answer: u32) {
        let ring = self.control.as_mut().expect("a control queue");
        for (token, (bytes, piece)) in chains.iter().enumerate() {
            let at = ring.seg(token as u32, 0).addr;
            let mut block = vec![UNSET; BUFFER as usize];
            block[..bytes.len()].copy_from_slice(bytes);
            assert_eq!(pwrite(&self.memory, &block, at.cast_signed()), Ok(block.len()));
            let mut segs: Vec<_> = (0..bytes.len())
                .step_by(*piece)
                .map(|from| DriverSeg {
                    addr: at + from as u64,
                    len: (*piece).min(bytes.len() - from) as u32,
                })
                .collect();
            let readable = segs.len();
            segs.extend((answer > 0).then_some(DriverSeg { addr: at + STATUS, len: answer }));
            assert!(ring.ring.add(&segs, readable, token as u32), "room for a command");
        }
        ring.publish();
    }

    /// Makes a chain of any segments available on the control queue: guest address, length; the first `readable` are read.
    ///
    /// # Panics
    /// When there is no control queue or no room.
    pub fn offer_chain(&mut self, segs: &[(u64, u32)], readable: usize) {
        let ring = self.control.as_mut().expect("a control queue");
        let segs: Vec<_> = segs.iter().map(|&(addr, len)| DriverSeg { addr, len }).collect();
        assert!(ring.ring.add(&segs, readable, 0), "room for a chain");
        ring.publish();
    }

    /// Answers that have come from the control queue, at least one of them.
    ///
    /// # Panics
    /// When none comes.
    pub fn answers(&mut self) -> usize {
        let ring = self.control.as_mut().expect("a control queue");
        assert!(ring.used(wait::PATIENCE).is_some(), "an answer");
        1 + std::iter::from_fn(|| ring.ring.used().expect("the device keeps the rules")).count()
    }

    /// After one command: links the first descriptor of the control queue to itself (split rings), and kicks.
    ///
    /// # Panics
    /// When there is no control queue.
    pub fn loop_command(&mut self) {
        let ring = self.control.as_ref().expect("a control queue");
        let at = ring.seg(0, 0).addr;
        let mut desc = at.to_le_bytes().to_vec();
        desc.extend([2, 0, 0, 0, 1, 0, 0, 0]); // two bytes, NEXT, descriptor 0
        assert_eq!(pwrite(&self.memory, &desc, ring.at[0].cast_signed()), Ok(16));
        let next = [0, 0, 2, 0, 0, 0, 0, 0]; // behind one command, descriptor 0
        assert_eq!(pwrite(&self.memory, &next, ring.at[1].cast_signed()), Ok(8));
        ring.kick.write(1).expect("a kick");
    }

    /// Stops the control queue, and lets it go on where it stood, which is returned.
    ///
    /// # Panics
    /// When the nic refuses.
    pub fn pause_control(&mut self) -> u32 {
        let (index, ring) = (self.control_index, self.control.as_ref().expect("a control queue"));
        let base = self.frontend.get_vring_base(index).expect("GET_VRING_BASE");
        // The front-end's type has 16 bits; a packed position's other half follows from them.
        self.frontend.set_vring_base(index, base as u16).expect("SET_VRING_BASE");
        self.frontend.set_vring_kick(index, &ring.kick).expect("SET_VRING_KICK");
        base
    }

    /// The configuration space.
    ///
    /// # Panics
    /// When the nic does not answer.
    pub fn config(&mut self) -> [u8; 24] {
        let flags = VhostUserConfigFlags::empty();
        let (_, space) = self.frontend.get_config(0, 24, flags, &[0; 24]).expect("GET_CONFIG");
        space.try_into().expect("24 bytes")
    }

    /// Whether a message on the channel is waiting.
    ///
    /// # Panics
    /// When the channel is broken.
    #[must_use]
    pub fn has_news(&self) -> bool {
        poll(&mut [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).expect("poll")
            > 0
    }

    /// The virtio-net header of the last frame received.
    #[must_use]
    pub const fn header(&self) -> [u8; HEADER] {
        self.header
    }

    /// Sends one frame by a further pair.
    ///
    /// # Panics
    /// When there is no such pair, or it was used before.
    pub fn send_by(&mut self, pair: usize, frame: &[u8]) {
        let ring = &mut self.more[pair - 1];
        let bytes = [&[0; HEADER], frame].concat();
        let seg = ring.seg(0, bytes.len() as u32);
        assert_eq!(pwrite(&self.memory, &bytes, seg.addr.cast_signed()), Ok(bytes.len()));
        assert!(ring.ring.add(&[seg], 1, 0));
        ring.publish();
    }
}
