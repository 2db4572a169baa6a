//! libslirp, made safe: one stack, what it calls back, and what it may be asked.
//!
//! The stack runs on one thread and calls back only while it is called. What the callbacks need lies in [`Shared`], in cells, so that
//! nobody holds it exclusively meanwhile.

use crate::accepted::Accepted;
use crate::address::Address;
use crate::ffi;
use crate::flows::{Flows, Key, is_tcp};
use crate::outbox::Outbox;
use crate::poll::Set;
use crate::services::Streams;
use crate::wire::{Packet, word};
use libc::{c_char, c_int, c_void, ssize_t};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::rc::Rc;
use usernet::protocol::{Drops, Ipv4, Ipv6, Network};

/// What the callbacks use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) outbox: RefCell<Outbox>,
    pub(crate) flows: RefCell<Flows>,
    pub(crate) set: RefCell<Set>,
    pub(crate) streams: RefCell<Streams>,
    pub(crate) dropped: Dropped,
    /// Warnings for the daemon's log.
    pub(crate) warnings: RefCell<Vec<String>>,
    timers: RefCell<Vec<Option<Timer>>>,
    /// The connection that the frame just given to the stack asks for.
    opening: Cell<Option<Key>>,
    accepted: RefCell<Accepted>,
    /// The stack serves sockets: those that it makes now were accepted.
    serves: Cell<bool>,
    /// What the stack says now is for nobody.
    silent: Cell<bool>,
}

/// What was dropped of the guest's.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    pub(crate) malformed: Cell<u64>,
    pub(crate) stream_full: Cell<u64>,
}

impl Dropped {
    pub(crate) fn told(&self) -> Drops {
        Drops { malformed: self.malformed.get(), stream_full: self.stream_full.get() }
    }
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    id: c_int,
    of: *mut c_void,
    due: Option<i64>,
}

/// More warnings than these wait for nobody.
const WARNINGS: usize = 16;

impl Shared {
    pub(crate) fn new(frames: RawFd) -> Result<Shared, Errno> {
        Ok(Shared {
            outbox: RefCell::new(Outbox::new(frames)),
            flows: RefCell::default(),
            set: RefCell::new(Set::new()?),
            streams: RefCell::default(),
            dropped: Dropped::default(),
            warnings: RefCell::default(),
            timers: RefCell::default(),
            opening: Cell::new(None),
            accepted: RefCell::default(),
            serves: Cell::new(false),
            silent: Cell::new(false),
        })
    }

    pub(crate) fn warn(&self, text: String) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < WARNINGS {
            warnings.push(text);
        }
    }

    fn send(&self, frame: &[u8]) {
        if self.silent.get() {
            return;
        }
        let mut flows = self.flows.borrow_mut();
        let mut outbox = self.outbox.borrow_mut();
        match Packet::of(frame, false).filter(is_tcp) {
            Some(packet) => {
                let mut accepted = self.accepted.borrow_mut();
                flows.received(&packet, frame, &mut accepted, |frame, mss| outbox.segment(frame, mss));
            }
            None => outbox.send(frame, flows.mtu(word(frame, 12) == 0x86dd)),
        }
    }
}

/// Nanoseconds that only grow.
pub(crate) fn now() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// The stack.
#[derive(Debug)]
pub(crate) struct Stack {
    raw: *mut ffi::Slirp,
    shared: Rc<Shared>,
    // What libslirp keeps pointers to.
    _callbacks: Box<ffi::Callbacks>,
}

impl std::fmt::Debug for ffi::Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Callbacks")
    }
}

impl std::fmt::Debug for ffi::Slirp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slirp")
    }
}

fn in4(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) }
}

fn in6(address: std::net::Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr { s6_addr: address.octets() }
}

/// A string for C; what follows a zero byte is not part of it.
fn text(value: &str) -> CString {
    CString::new(value.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

impl Stack {
    /// Makes it.
    pub(crate) fn new(network: &Network, shared: Rc<Shared>) -> Option<Stack> {
        let nowhere = Ipv4Addr::UNSPECIFIED;
        let four = network.ipv4.unwrap_or(Ipv4 {
            network: nowhere,
            mask: nowhere,
            host: nowhere,
            dhcp_start: nowhere,
            dns: nowhere,
        });
        let unspecified = std::net::Ipv6Addr::UNSPECIFIED;
        let six = network.ipv6.unwrap_or(Ipv6 {
            prefix: unspecified,
            length: 64,
            host: unspecified,
            dns: unspecified,
        });
        let strings = [&network.hostname, &network.tftp_server_name, &network.bootfile, &network.domainname]
            .map(|value| value.as_deref().map(text));
        let pointer = |at: usize| strings[at].as_ref().map_or(std::ptr::null(), |value| value.as_ptr());
        let tftp = network.tftp.as_ref().map(|path| text(&path.to_string_lossy()));
        let search: Vec<CString> = network.search.iter().map(|value| text(value)).collect();
        let mut list: Vec<*const c_char> = search.iter().map(|value| value.as_ptr()).collect();
        list.push(std::ptr::null());
        let config = ffi::Config {
            version: ffi::CONFIG_VERSION,
            restricted: c_int::from(network.restricted),
            in_enabled: network.ipv4.is_some(),
            vnetwork: in4(four.network),
            vnetmask: in4(four.mask),
            vhost: in4(four.host),
            in6_enabled: network.ipv6.is_some(),
            vprefix_addr6: in6(six.prefix),
            vprefix_len: six.length,
            vhost6: in6(six.host),
            vhostname: pointer(0),
            tftp_server_name: pointer(1),
            tftp_path: tftp.as_ref().map_or(std::ptr::null(), |value| value.as_ptr()),
            bootfile: pointer(2),
            vdhcp_start: in4(four.dhcp_start),
            vnameserver: in4(four.dns),
            vnameserver6: in6(six.dns),
            vdnssearch: if search.is_empty() { std::ptr::null() } else { list.as_ptr() },
            vdomainname: pointer(3),
            if_mtu: crate::inbox::MTU,
            if_mru: crate::inbox::MTU,
            disable_host_loopback: false,
            enable_emu: false,
            outbound_addr: std::ptr::null(),
            outbound_addr6: std::ptr::null(),
            disable_dns: false,
            disable_dhcp: false,
        };
        let callbacks = Box::new(ffi::Callbacks {
            send_packet,
            guest_error,
            clock_get_ns,
            timer_new: None,
            timer_free,
            timer_mod,
            register_poll_fd,
            unregister_poll_fd,
            notify,
            init_completed: None,
            timer_new_opaque,
        });
        let opaque = Rc::as_ptr(&shared).cast_mut().cast();
        // SAFETY: the configuration and its strings are copied in the call; the callbacks and what they get live as long as the stack.
        let raw = unsafe { ffi::slirp_new(&raw const config, &raw const *callbacks, opaque) };
        (!raw.is_null()).then_some(Stack { raw, shared, _callbacks: callbacks })
    }

    /// Names all sockets to the set; how long the stack would sleep at most, in milliseconds.
    pub(crate) fn fill(&mut self) -> u32 {
        self.shared.set.borrow_mut().begin();
        let mut timeout = 60_000;
        let opaque = Rc::as_ptr(&self.shared).cast_mut().cast();
        // SAFETY: the stack is alive; the callback gets what it was made for, in the call only.
        unsafe { ffi::slirp_pollfds_fill(self.raw, &raw mut timeout, add_poll, opaque) };
        timeout
    }

    /// Serves sockets that are ready, and timers.
    pub(crate) fn serve(&mut self) {
        let opaque = Rc::as_ptr(&self.shared).cast_mut().cast();
        self.shared.serves.set(true);
        // SAFETY: the stack is alive; the callback gets what it was made for, in the call only.
        unsafe { ffi::slirp_pollfds_poll(self.raw, 0, get_revents, opaque) };
        self.shared.serves.set(false);
    }

    /// A frame from the guest; `opening` is the connection that it asks for.
    pub(crate) fn input(&mut self, frame: &[u8], opening: Option<Key>) {
        let Ok(length) = c_int::try_from(frame.len()) else { return };
        self.shared.opening.set(opening);
        // SAFETY: the stack is alive, and copies the frame.
        unsafe { ffi::slirp_input(self.raw, frame.as_ptr(), length) };
        if let Some(key) = self.shared.opening.take() {
            let mut flows = self.shared.flows.borrow_mut();
            if !flows.has_socket(&key) && !self.shared.streams.borrow().is(&key) {
                flows.forget(&key);
            }
        }
    }

    /// Gives the stack a frame whose answer nobody is to see.
    pub(crate) fn input_silently(&mut self, frame: &[u8]) {
        self.shared.silent.set(true);
        self.input(frame, None);
        self.shared.silent.set(false);
    }

    /// Fires the timers that are due; nanoseconds until the next.
    pub(crate) fn timers(&mut self) -> Option<i64> {
        let now = now();
        let mut next = None;
        for at in 0.. {
            let timer = match self.shared.timers.borrow_mut().get_mut(at) {
                None => break,
                Some(Some(timer)) if timer.due.is_some_and(|due| due <= now) => {
                    timer.due = None;
                    Some(*timer)
                }
                Some(_) => None,
            };
            if let Some(Timer { id, of, .. }) = timer {
                // SAFETY: the stack is alive, and gave both when it made the timer.
                unsafe { ffi::slirp_handle_timer(self.raw, id, of) };
            }
            let due = self.shared.timers.borrow().get(at).copied().flatten().and_then(|timer| timer.due);
            next = next.into_iter().chain(due).min();
        }
        next.map(|due: i64| (due - now).max(0))
    }

    /// Listens for a forward.
    pub(crate) fn add_forward(&mut self, host: &Address, guest: &Address, udp: bool) -> Result<(), Errno> {
        let flags =
            if udp { ffi::HOSTFWD_UDP } else { 0 } | if host.is_six() { ffi::HOSTFWD_V6ONLY } else { 0 };
        Errno::clear();
        // SAFETY: the stack is alive, and copies both addresses.
        let done = unsafe {
            ffi::slirp_add_hostxfwd(
                self.raw,
                host.pointer(),
                host.length(),
                guest.pointer(),
                guest.length(),
                flags,
            )
        };
        if done == 0 { Ok(()) } else { Err(Errno::last()) }
    }

    /// Listens no more.
    pub(crate) fn remove_forward(&mut self, host: &Address, udp: bool) -> bool {
        let flags = if udp { ffi::HOSTFWD_UDP } else { 0 };
        // SAFETY: the stack is alive, and reads the address only.
        unsafe { ffi::slirp_remove_hostxfwd(self.raw, host.pointer(), host.length(), flags) == 0 }
    }

    /// A unix socket behind an address of the guest's network; the address is the one that the stack took.
    pub(crate) fn add_unix(&mut self, path: &CStr, at: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
        let mut at = in4(at);
        // SAFETY: the stack is alive, and copies the path.
        let done = unsafe { ffi::slirp_add_unix(self.raw, path.as_ptr(), &raw mut at, c_int::from(port)) };
        (done == 0).then(|| Ipv4Addr::from(at.s_addr.to_ne_bytes()))
    }

    /// Stream number `index` behind an address of the guest's network.
    pub(crate) fn add_stream(&mut self, index: usize, at: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
        let mut at = in4(at);
        let opaque = Box::into_raw(Box::new((Rc::as_ptr(&self.shared), index)));
        // SAFETY: the stack is alive, and has the pointer until the process ends.
        let done = unsafe {
            ffi::slirp_add_guestfwd(self.raw, write_stream, opaque.cast(), &raw mut at, c_int::from(port))
        };
        (done == 0).then(|| Ipv4Addr::from(at.s_addr.to_ne_bytes()))
    }

    /// Bytes that the guest's connection to a stream takes.
    pub(crate) fn stream_room(&mut self, at: Ipv4Addr, port: u16) -> usize {
        // SAFETY: the stack is alive.
        unsafe { ffi::slirp_socket_can_recv(self.raw, in4(at), c_int::from(port)) }
    }

    /// Bytes for it, no more than there is room.
    pub(crate) fn feed_stream(&mut self, at: Ipv4Addr, port: u16, bytes: &[u8]) {
        let length = c_int::try_from(bytes.len()).unwrap_or_default();
        if length > 0 {
            // SAFETY: the stack is alive, and copies the bytes.
            unsafe { ffi::slirp_socket_recv(self.raw, in4(at), c_int::from(port), bytes.as_ptr(), length) };
        }
    }

    /// libslirp's table of connections.
    pub(crate) fn connections(&mut self) -> String {
        // SAFETY: the stack is alive; the text ends with a zero, is ours, and is freed as it was made.
        unsafe {
            let text = ffi::slirp_connection_info(self.raw);
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            ffi::g_free(text.cast());
            copy
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the stack is alive, and nobody asks it after this.
        unsafe { ffi::slirp_cleanup(self.raw) };
    }
}

/// What a callback was given.
///
/// # Safety
/// `opaque` is what [`Stack::new`] gave.
unsafe fn shared<'a>(opaque: *mut c_void) -> &'a Shared {
    // SAFETY: it points into the `Rc` that the stack's owner holds; it is only ever borrowed for reading.
    unsafe { &*opaque.cast::<Shared>() }
}

// SAFETY: all of these are called by libslirp as its header says, with what `Stack::new` gave.
unsafe extern "C" fn send_packet(frame: *const c_void, length: usize, opaque: *mut c_void) -> ssize_t {
    // SAFETY: as above; `length` bytes lie there until this returns.
    let (shared, frame) = unsafe { (shared(opaque), std::slice::from_raw_parts(frame.cast(), length)) };
    shared.send(frame);
    ssize_t::try_from(length).unwrap_or(ssize_t::MAX)
}

// SAFETY: as above.
unsafe extern "C" fn guest_error(text: *const c_char, opaque: *mut c_void) {
    // SAFETY: as above; the text ends with a zero.
    let (shared, text) = unsafe { (shared(opaque), CStr::from_ptr(text)) };
    shared.warn(text.to_string_lossy().trim_end().to_owned());
}

// SAFETY: as above.
unsafe extern "C" fn clock_get_ns(_: *mut c_void) -> i64 {
    now()
}

// SAFETY: as above.
unsafe extern "C" fn timer_new_opaque(id: c_int, of: *mut c_void, opaque: *mut c_void) -> *mut c_void {
    // SAFETY: as above.
    let mut timers = unsafe { shared(opaque) }.timers.borrow_mut();
    timers.push(Some(Timer { id, of, due: None }));
    // No pointer, but a number that is not zero.
    std::ptr::without_provenance_mut(timers.len())
}

// SAFETY: as above.
unsafe extern "C" fn timer_free(timer: *mut c_void, opaque: *mut c_void) {
    // SAFETY: as above.
    if let Some(place) = unsafe { shared(opaque) }.timers.borrow_mut().get_mut(timer.addr().wrapping_sub(1)) {
        *place = None;
    }
}

// SAFETY: as above.
unsafe extern "C" fn timer_mod(timer: *mut c_void, due: i64, opaque: *mut c_void) {
    // SAFETY: as above.
    let mut timers = unsafe { shared(opaque) }.timers.borrow_mut();
    if let Some(Some(timer)) = timers.get_mut(timer.addr().wrapping_sub(1)) {
        timer.due = Some(due.saturating_mul(1_000_000));
    }
}

// SAFETY: as above.
unsafe extern "C" fn register_poll_fd(socket: c_int, opaque: *mut c_void) {
    // SAFETY: as above.
    let shared = unsafe { shared(opaque) };
    match shared.opening.get() {
        Some(key) => shared.flows.borrow_mut().bind(key, socket),
        None if shared.serves.get() => shared.accepted.borrow_mut().add(socket),
        None => {}
    }
}

// SAFETY: as above.
unsafe extern "C" fn unregister_poll_fd(socket: c_int, opaque: *mut c_void) {
    // SAFETY: as above.
    let shared = unsafe { shared(opaque) };
    if socket >= 0 {
        shared.set.borrow_mut().closed(socket);
        shared.accepted.borrow_mut().closed(socket);
        shared.flows.borrow_mut().closed(socket);
    }
}

// SAFETY: as above.
unsafe extern "C" fn notify(_: *mut c_void) {
    // Each turn asks the stack anew what it awaits.
}

// SAFETY: as above.
unsafe extern "C" fn add_poll(socket: c_int, events: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe { shared(opaque) }.set.borrow_mut().want(socket, events)
}

// SAFETY: as above.
unsafe extern "C" fn get_revents(index: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe { shared(opaque) }.set.borrow().happened(index)
}

// SAFETY: as above, with what `Stack::add_stream` gave.
unsafe extern "C" fn write_stream(bytes: *const c_void, length: usize, opaque: *mut c_void) -> ssize_t {
    // SAFETY: as above; `length` bytes lie there until this returns.
    let (streams, index, bytes) = unsafe {
        let (shared, index) = *opaque.cast::<(*const Shared, usize)>();
        (&(*shared).streams, index, std::slice::from_raw_parts(bytes.cast(), length))
    };
    streams.borrow_mut().write(index, bytes);
    ssize_t::try_from(length).unwrap_or(ssize_t::MAX)
}
