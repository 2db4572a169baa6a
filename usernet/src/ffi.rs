//! What is used of libslirp 4.7 (`libslirp.h`), word for word; `stack.rs` makes it safe.

use libc::{
    c_char, c_int, c_void, in_addr, in6_addr, sockaddr, sockaddr_in, sockaddr_in6, socklen_t, ssize_t,
};

/// `SlirpConfig.version` of what stands below.
pub(crate) const CONFIG_VERSION: u32 = 4;
pub(crate) const POLL_IN: c_int = 1;
pub(crate) const POLL_OUT: c_int = 2;
pub(crate) const POLL_PRI: c_int = 4;
pub(crate) const POLL_ERR: c_int = 8;
pub(crate) const POLL_HUP: c_int = 16;
/// Flag of `slirp_add_hostxfwd`: UDP.
pub(crate) const HOSTFWD_UDP: c_int = 1;
/// Flag of `slirp_add_hostxfwd`: an IPv6 socket that takes no IPv4.
pub(crate) const HOSTFWD_V6ONLY: c_int = 2;

/// The stack, opaque.
#[repr(C)]
pub(crate) struct Slirp {
    _private: [u8; 0],
}

// SAFETY: none of these is called from here.
pub(crate) type WriteCb = unsafe extern "C" fn(*const c_void, usize, *mut c_void) -> ssize_t;
pub(crate) type TimerCb = unsafe extern "C" fn(*mut c_void);
pub(crate) type AddPollCb = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
pub(crate) type GetREventsCb = unsafe extern "C" fn(c_int, *mut c_void) -> c_int;

// SAFETY: libslirp calls these, as `stack.rs` says.
/// `SlirpCb`, up to version 4.
#[repr(C)]
pub(crate) struct Callbacks {
    pub(crate) send_packet: WriteCb,
    pub(crate) guest_error: unsafe extern "C" fn(*const c_char, *mut c_void),
    pub(crate) clock_get_ns: unsafe extern "C" fn(*mut c_void) -> i64,
    pub(crate) timer_new: Option<unsafe extern "C" fn(TimerCb, *mut c_void, *mut c_void) -> *mut c_void>,
    pub(crate) timer_free: unsafe extern "C" fn(*mut c_void, *mut c_void),
    pub(crate) timer_mod: unsafe extern "C" fn(*mut c_void, i64, *mut c_void),
    pub(crate) register_poll_fd: unsafe extern "C" fn(c_int, *mut c_void),
    pub(crate) unregister_poll_fd: unsafe extern "C" fn(c_int, *mut c_void),
    pub(crate) notify: unsafe extern "C" fn(*mut c_void),
    pub(crate) init_completed: Option<unsafe extern "C" fn(*mut Slirp, *mut c_void)>,
    pub(crate) timer_new_opaque: unsafe extern "C" fn(c_int, *mut c_void, *mut c_void) -> *mut c_void,
}

/// `SlirpConfig`, up to version 4.
#[repr(C)]
pub(crate) struct Config {
    pub(crate) version: u32,
    pub(crate) restricted: c_int,
    pub(crate) in_enabled: bool,
    pub(crate) vnetwork: in_addr,
    pub(crate) vnetmask: in_addr,
    pub(crate) vhost: in_addr,
    pub(crate) in6_enabled: bool,
    pub(crate) vprefix_addr6: in6_addr,
    pub(crate) vprefix_len: u8,
    pub(crate) vhost6: in6_addr,
    pub(crate) vhostname: *const c_char,
    pub(crate) tftp_server_name: *const c_char,
    pub(crate) tftp_path: *const c_char,
    pub(crate) bootfile: *const c_char,
    pub(crate) vdhcp_start: in_addr,
    pub(crate) vnameserver: in_addr,
    pub(crate) vnameserver6: in6_addr,
    pub(crate) vdnssearch: *const *const c_char,
    pub(crate) vdomainname: *const c_char,
    pub(crate) if_mtu: usize,
    pub(crate) if_mru: usize,
    pub(crate) disable_host_loopback: bool,
    pub(crate) enable_emu: bool,
    pub(crate) outbound_addr: *const sockaddr_in,
    pub(crate) outbound_addr6: *const sockaddr_in6,
    pub(crate) disable_dns: bool,
    pub(crate) disable_dhcp: bool,
}

// SAFETY: the declarations are those of libslirp.h 4.7 and of glib; what each call needs stands where it is made.
#[link(name = "slirp")]
unsafe extern "C" {
    pub(crate) fn slirp_new(
        config: *const Config,
        callbacks: *const Callbacks,
        opaque: *mut c_void,
    ) -> *mut Slirp;
    pub(crate) fn slirp_cleanup(slirp: *mut Slirp);
    pub(crate) fn slirp_pollfds_fill(
        slirp: *mut Slirp,
        timeout: *mut u32,
        add: AddPollCb,
        opaque: *mut c_void,
    );
    pub(crate) fn slirp_pollfds_poll(slirp: *mut Slirp, error: c_int, get: GetREventsCb, opaque: *mut c_void);
    pub(crate) fn slirp_input(slirp: *mut Slirp, frame: *const u8, length: c_int);
    pub(crate) fn slirp_handle_timer(slirp: *mut Slirp, id: c_int, timer: *mut c_void);
    pub(crate) fn slirp_add_hostxfwd(
        slirp: *mut Slirp,
        host: *const sockaddr,
        host_length: socklen_t,
        guest: *const sockaddr,
        guest_length: socklen_t,
        flags: c_int,
    ) -> c_int;
    pub(crate) fn slirp_remove_hostxfwd(
        slirp: *mut Slirp,
        host: *const sockaddr,
        host_length: socklen_t,
        flags: c_int,
    ) -> c_int;
    pub(crate) fn slirp_add_unix(
        slirp: *mut Slirp,
        path: *const c_char,
        at: *mut in_addr,
        port: c_int,
    ) -> c_int;
    pub(crate) fn slirp_add_guestfwd(
        slirp: *mut Slirp,
        write: WriteCb,
        opaque: *mut c_void,
        at: *mut in_addr,
        port: c_int,
    ) -> c_int;
    pub(crate) fn slirp_socket_can_recv(slirp: *mut Slirp, at: in_addr, port: c_int) -> usize;
    pub(crate) fn slirp_socket_recv(
        slirp: *mut Slirp,
        at: in_addr,
        port: c_int,
        bytes: *const u8,
        length: c_int,
    );
    pub(crate) fn slirp_connection_info(slirp: *mut Slirp) -> *mut c_char;
}

// SAFETY: glib's own declaration.
#[link(name = "glib-2.0")]
unsafe extern "C" {
    pub(crate) fn g_free(memory: *mut c_void);
}
