//! The loop: frames of the guest, sockets of the host, requests of the daemon.
//!
//! While the daemon has not taken all frames, no socket of the host is read, so that what waits is bounded by the windows of connections;
//! frames of the guest are still taken, as far as their answers find room.

use crate::control::{Came, Control};
use crate::fds::borrowed;
use crate::flows::Key;
use crate::inbox;
use crate::message::Burst;
use crate::network::Net;
use crate::resolver;
use crate::sandbox;
use crate::segment;
use crate::stack::Shared;
use crate::windows::{self, Ticks};
use crate::wire::{Packet, Transport};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use usernet::protocol::{Answer, CONTROL, FRAMES, Failure, Network};

/// Bytes for the daemon that may wait while frames of the guest are taken.
const WAITING: usize = 1 << 20;
/// Of the frames' socket.
const BUFFER: usize = 2 << 20;

/// Makes the network, gives up all rights, and serves until the daemon ends it.
pub(crate) fn start(mut control: Control, network: &Network, files: Vec<OwnedFd>) -> ExitCode {
    match prepare(network, files) {
        Ok((shared, net, told)) => {
            let answered = control.answer(Answer::Done);
            let told = told.map_or(Ok(()), |text| control.warn(text));
            match answered.and(told).and_then(|()| serve(&mut control, net, &shared)) {
                Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => ExitCode::SUCCESS,
                Err(why) => {
                    eprintln!("netdevd-user: {why}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(failure) => {
            let _ = control.answer(Answer::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

type Prepared = (Rc<Shared>, Net, Option<String>);

fn prepare(network: &Network, files: Vec<OwnedFd>) -> Result<Prepared, Failure> {
    let system = |why: Errno| Failure { text: why.desc().into(), errno: Some(why as i32) };
    let sandbox = |why: sandbox::Error| Failure { text: why.to_string(), errno: None };
    sandbox::limits().map_err(sandbox)?;
    sandbox::keep_memory();
    let frames = borrowed(FRAMES);
    // More than the system's default, where it may be: else a few large frames fill it.
    if setsockopt(&frames, sockopt::SndBufForce, &BUFFER).is_err() {
        let _ = setsockopt(&frames, sockopt::SndBuf, &BUFFER);
    }
    let shared = Rc::new(Shared::new(FRAMES).map_err(system)?);
    let mut files = files.into_iter();
    let resolver = files.next().ok_or_else(|| system(Errno::EBADF))?;
    if !resolver::ask_at(resolver) {
        let text = "netdevd-user is not linked as it must be: 'fopen64' is the C library's".into();
        return Err(Failure { text, errno: None });
    }
    let net = Net::new(network, files, Rc::clone(&shared))?;
    let told = sandbox::enter(network.tftp.as_deref()).map_err(sandbox)?;
    Ok((shared, net, told))
}

fn serve(control: &mut Control, mut net: Net, shared: &Rc<Shared>) -> Result<(), Errno> {
    let mut burst = Burst::new();
    let mut streams = Vec::new();
    let mut ticks = Ticks::default();
    loop {
        let (full, waiting) = {
            let outbox = shared.outbox.borrow();
            if let Some(why) = outbox.failed() {
                return Err(why);
            }
            (outbox.full(), outbox.waiting())
        };
        let asked = if full { 60_000 } else { net.stack.fill() };
        if !full {
            end_connections(&mut net, shared);
            shared.set.borrow_mut().tell();
        }
        let asked = windows::wait(shared, full, asked);
        let timer = net.stack.timers().map_or(i64::MAX, |left| left / 1_000_000 + 1);
        let timeout = u16::try_from(i64::from(asked).min(timer)).unwrap_or(u16::MAX);
        list_streams(&mut net, full, &mut streams);
        let happened = wait(shared, full, waiting < WAITING, &streams, PollTimeout::from(timeout))?;

        if happened.control && !requests(control, &mut net)? {
            return Ok(());
        }
        if happened.writable {
            shared.outbox.borrow_mut().ready();
        }
        if happened.frames && !take_frames(&mut burst, &mut net, shared)? {
            return Ok(());
        }
        ticks.pass(shared);
        if !full {
            if happened.sockets {
                shared.set.borrow_mut().take();
            }
            net.stack.serve();
            windows::open(&mut net, shared);
            windows::tell(&mut net, shared);
        }
        for (index, at, port, room) in happened.streams {
            let bytes = net.streams().read(index, room);
            net.stack.feed_stream(at, port, &bytes);
        }
        happened.hung.into_iter().for_each(|index| net.streams().hang_up(index));
        net.streams().flush();
        shared.outbox.borrow_mut().flush();
        for text in std::mem::take(&mut *shared.warnings.borrow_mut()) {
            control.warn(text)?;
        }
    }
}

/// A stream that is waited for: its number, where it is, how much the guest takes of it, and whether it is to be written.
type Waited = (usize, std::net::Ipv4Addr, u16, usize, bool);

fn list_streams(net: &mut Net, full: bool, list: &mut Vec<Waited>) {
    list.clear();
    if net.streams().is_empty() {
        return;
    }
    list.extend(net.streams().waits().map(|(index, (at, port), writes)| (index, at, port, 0, writes)));
    if !full {
        for (_, at, port, room, _) in list.iter_mut() {
            *room = net.stack.stream_room(*at, *port);
        }
    }
    let streams = net.streams();
    list.retain(|&(index, _, _, room, writes)| room > 0 || writes || !streams.is_hung(index));
}

/// What a wait has ended with.
#[derive(Debug, Default)]
struct Happened {
    control: bool,
    frames: bool,
    writable: bool,
    sockets: bool,
    streams: Vec<(usize, std::net::Ipv4Addr, u16, usize)>,
    hung: Vec<usize>,
}

fn wait(
    shared: &Shared,
    full: bool,
    take: bool,
    waited: &[Waited],
    timeout: PollTimeout,
) -> Result<Happened, Errno> {
    let flags = |condition: bool, flag: PollFlags| if condition { flag } else { PollFlags::empty() };
    let set = shared.set.borrow();
    let streams = shared.streams.borrow();
    let mut polled = vec![
        PollFd::new(borrowed(CONTROL), PollFlags::POLLIN),
        PollFd::new(borrowed(FRAMES), flags(take, PollFlags::POLLIN) | flags(full, PollFlags::POLLOUT)),
        PollFd::new(set.fd(), flags(!full, PollFlags::POLLIN)),
    ];
    for &(index, _, _, room, writes) in waited {
        let events = flags(room > 0, PollFlags::POLLIN) | flags(writes, PollFlags::POLLOUT);
        polled.push(PollFd::new(streams.socket(index).unwrap_or(borrowed(CONTROL)), events));
    }
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(why) => return Err(why),
    }
    let got = |at: usize| polled.get(at).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
    let mut happened = Happened {
        control: !got(0).is_empty(),
        frames: got(1).intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR),
        writable: got(1).contains(PollFlags::POLLOUT),
        sockets: !got(2).is_empty(),
        streams: Vec::new(),
        hung: Vec::new(),
    };
    for (at, &(index, address, port, room, _)) in waited.iter().enumerate() {
        let end = got(at + 3).intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        if room > 0 && (end || got(at + 3).contains(PollFlags::POLLIN)) {
            happened.streams.push((index, address, port, room));
        } else if end {
            happened.hung.push(index);
        }
    }
    Ok(happened)
}

/// Carries out requests; false when the daemon has closed the socket.
fn requests(control: &mut Control, net: &mut Net) -> Result<bool, Errno> {
    loop {
        let answer = match control.receive(false) {
            Came::End => return Ok(false),
            Came::Nothing => return Ok(true),
            Came::Request(request, files) => net.answer(request, &files),
            Came::Nonsense(why) => {
                Answer::Failed(Failure { text: format!("no request: {why}"), errno: None })
            }
        };
        control.answer(answer)?;
    }
}

/// Gives a burst of the guest's frames to the stack; false when the daemon has closed the socket.
fn take_frames(burst: &mut Burst, net: &mut Net, shared: &Shared) -> Result<bool, Errno> {
    let count = match burst.receive(FRAMES) {
        Ok(0) => return Ok(false),
        Ok(count) => count,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
        Err(why) => return Err(why),
    };
    for at in 0..count {
        let message = burst.message(at);
        if !shared.streams.borrow().is_empty() && for_full_stream(message, shared) {
            shared.dropped.stream_full.update(|count| count + 1);
            continue;
        }
        let mut taken = false;
        inbox::frames(message, shared, |frame, opening| {
            taken = true;
            if let Some(key) = opening.filter(|key| net.streams().is(key)) {
                let left = shared.flows.borrow().left(key.peer);
                left.into_iter().for_each(|(key, sequence)| end(net, shared, &key, sequence));
            }
            net.stack.input(frame, opening);
        });
        if !taken {
            shared.dropped.malformed.update(|count| count + 1);
        }
    }
    Ok(true)
}

/// Whether a message is for a stream whose other end does not take what it was sent before.
fn for_full_stream(message: &[u8], shared: &Shared) -> bool {
    let frame = message.get(usernet::protocol::HEADER..).unwrap_or_default();
    Packet::of(frame, true).is_some_and(|packet| {
        packet.transport == Transport::Tcp
            && packet.bytes() > 0
            && shared.streams.borrow().is_full(&Key::sent(&packet, frame))
    })
}

/// Ends what both sides have ended, at once, by a reset that only the stack sees.
fn end_connections(net: &mut Net, shared: &Shared) {
    if !shared.flows.borrow().has_ended() {
        return;
    }
    let ended = {
        let set = shared.set.borrow();
        shared.flows.borrow_mut().ended(|socket| set.wants_to_write(socket))
    };
    for (key, sequence) in ended {
        end(net, shared, &key, sequence);
    }
}

/// Takes a connection away from the stack, unless its socket is unknown: then the stack may have something to write to it.
fn end(net: &mut Net, shared: &Shared, key: &Key, sequence: u32) {
    let known = shared.flows.borrow().has_socket(key);
    if known || net.streams().is(key) {
        net.stack.input_silently(&segment::reset(key, sequence));
    }
    shared.flows.borrow_mut().forget(key);
}
