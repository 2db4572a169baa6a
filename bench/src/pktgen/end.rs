//! Where frames go in and come out.

use super::frame::Shape;
use super::guest::Guest;
use super::packet::{Packet, Path};
use super::payload::Payload;
use super::ring::{Packed, Split};
use super::stream::Stream;
use super::tap::Tap;
use super::xdp::Xdp;
use crate::failure::Result;
use std::net::SocketAddrV4;
use std::path::PathBuf;

/// How an end is named.
#[derive(Debug, Clone)]
pub enum Place {
    /// The socket of a vhost-user back-end.
    Socket(PathBuf),
    /// A vDPA device of the kernel's, driven by its ioctls.
    Vdpa(PathBuf),
    /// A tap's interface.
    Tap(String),
    /// An AF_XDP socket on an interface.
    Xdp(String),
    /// A packet socket on an interface, which only sends.
    Packet(String),
    /// A UDP socket, a frame a datagram, which only sends.
    Datagrams(Path),
    /// A plug of the `vde_switch` with this control directory, which only sends.
    Vde(PathBuf),
    /// A TCP connection to this address, each frame behind its length.
    Stream(SocketAddrV4),
}

/// An open end. Calls choose the kind once a burst.
pub struct End(Kind);

enum Kind {
    Split(Guest<Split>),
    Packed(Guest<Packed>),
    Tap(Tap),
    Xdp(Xdp),
    Packet(Packet),
    Stream(Stream),
}

impl End {
    /// Opens `place`.
    ///
    /// # Errors
    /// Nobody listens there, features are refused, no memory, no privilege.
    pub fn open(place: &Place, shape: &Shape) -> Result<Self> {
        Ok(Self(match place {
            Place::Socket(path) if shape.packed => Kind::Packed(Guest::connect(path, shape)?),
            Place::Socket(path) => Kind::Split(Guest::connect(path, shape)?),
            Place::Vdpa(path) if shape.packed => Kind::Packed(Guest::drive(path, shape)?),
            Place::Vdpa(path) => Kind::Split(Guest::drive(path, shape)?),
            Place::Tap(name) => Kind::Tap(Tap::attach(name, shape)?),
            Place::Xdp(name) => Kind::Xdp(Xdp::open(name, shape)?),
            Place::Packet(name) => Kind::Packet(Packet::open(name, shape)?),
            Place::Datagrams(path) => Kind::Packet(Packet::datagrams(path, shape)?),
            Place::Vde(at) => Kind::Packet(Packet::vde(at, shape)?),
            Place::Stream(to) => Kind::Stream(Stream::connect(*to, shape)?),
        }))
    }

    /// Whether checksums are left to the receiver in what this end sends.
    pub(super) fn partial(&self) -> bool {
        matches!(self.0, Kind::Split(_) | Kind::Packed(_))
    }

    /// Whether anything can arrive here.
    pub(super) fn hears(&self) -> bool {
        !matches!(self.0, Kind::Packet(_))
    }

    /// Wakes the other side if it sleeps on what it was given last.
    pub(super) fn nudge(&mut self) {
        match &mut self.0 {
            Kind::Split(guest) => guest.nudge(),
            Kind::Packed(guest) => guest.nudge(),
            Kind::Tap(_) | Kind::Xdp(_) | Kind::Packet(_) | Kind::Stream(_) => {}
        }
    }

    /// Takes what arrived, a burst at most: how many frames.
    #[inline]
    pub(super) fn receive<P: Payload>(&mut self, payload: &mut P) -> Result<usize> {
        match &mut self.0 {
            Kind::Split(guest) => guest.receive.take(payload),
            Kind::Packed(guest) => guest.receive.take(payload),
            Kind::Tap(tap) => tap.receive(payload),
            Kind::Xdp(xdp) => xdp.receive(payload),
            Kind::Packet(_) => Ok(0),
            Kind::Stream(stream) => stream.receive(),
        }
    }

    /// Takes back what went out, a burst at most: how many frames.
    #[inline]
    pub(super) fn reclaim(&mut self) -> Result<usize> {
        match &mut self.0 {
            Kind::Split(guest) => guest.transmit.reclaim(),
            Kind::Packed(guest) => guest.transmit.reclaim(),
            Kind::Tap(tap) => Ok(tap.reclaim()),
            Kind::Xdp(xdp) => Ok(xdp.reclaim()),
            Kind::Packet(packet) => Ok(packet.reclaim()),
            Kind::Stream(stream) => Ok(stream.reclaim()),
        }
    }

    /// Sends `n` frames, a burst at most: how many were taken.
    #[inline]
    pub(super) fn send<P: Payload>(&mut self, n: usize, payload: &mut P) -> Result<usize> {
        match &mut self.0 {
            Kind::Split(guest) => Ok(guest.transmit.send(n, payload)),
            Kind::Packed(guest) => Ok(guest.transmit.send(n, payload)),
            Kind::Tap(tap) => tap.send(n, payload),
            Kind::Xdp(xdp) => xdp.send(n, payload),
            Kind::Packet(packet) => packet.send(n, payload),
            Kind::Stream(stream) => stream.send(n),
        }
    }

    /// Sends back what arrived: how many frames came and how many went.
    #[inline]
    pub(super) fn reflect(&mut self) -> Result<(usize, usize)> {
        match &mut self.0 {
            Kind::Split(guest) => guest.receive.reflect(&mut guest.transmit),
            Kind::Packed(guest) => guest.receive.reflect(&mut guest.transmit),
            Kind::Tap(tap) => tap.reflect(),
            Kind::Xdp(xdp) => xdp.reflect(),
            Kind::Packet(_) | Kind::Stream(_) => Ok((0, 0)),
        }
    }
}
