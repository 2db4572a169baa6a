//! The `bpf` system call, as far as it is needed (`linux/bpf.h`).

#![allow(unsafe_code)] // a system call that reads and writes memory

use crate::asm::Insn;
use crate::error::{Error, Step};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: u32 = 0;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const PROG_GET_FD_BY_ID: u32 = 13;
const MAP_GET_FD_BY_ID: u32 = 14;
const OBJ_GET_INFO: u32 = 15;
const LINK_CREATE: u32 = 28;
const LINK_GET_FD_BY_ID: u32 = 30;
const LINK_GET_NEXT_ID: u32 = 31;

const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const LINK_TYPE_XDP: u32 = 6;
/// The program takes frames in several buffers (`BPF_F_XDP_HAS_FRAGS`).
pub(crate) const HAS_FRAGS: u32 = 1 << 5;

/// A name of an object: 15 bytes and a zero.
pub(crate) type Name = [u8; 16];

/// Runs a command whose attribute is `attr`, plain data in which addresses name memory that lives long enough.
fn bpf<T>(command: u32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes the attribute, of this size, and what its addresses name; callers below fill them from live values.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<T>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as i32) }
}

fn opened(command: u32, attr: &mut impl Sized, step: Step) -> Result<OwnedFd, Error> {
    let fd = bpf(command, attr).map_err(|error| Error::new(step, error))?;
    // SAFETY: the command returned a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: Name,
}

/// A map from queues to sockets.
pub(crate) fn map_create(entries: u32, name: Name) -> Result<OwnedFd, Error> {
    let mut attr = MapCreate {
        kind: MAP_TYPE_XSKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: entries,
        flags: 0,
        inner: 0,
        node: 0,
        name,
    };
    opened(MAP_CREATE, &mut attr, Step::Map)
}

#[repr(C)]
struct MapElement {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn element(command: u32, map: BorrowedFd<'_>, key: u32, value: u32) -> Result<(), Error> {
    let mut attr = MapElement {
        map: map.as_raw_fd() as u32,
        pad: 0,
        key: &raw const key as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    bpf(command, &mut attr).map(drop).map_err(|error| Error::new(Step::Map, error))
}

/// Sets an entry.
pub(crate) fn map_update(map: BorrowedFd<'_>, key: u32, value: u32) -> Result<(), Error> {
    element(MAP_UPDATE, map, key, value)
}

/// Clears an entry.
pub(crate) fn map_delete(map: BorrowedFd<'_>, key: u32) -> Result<(), Error> {
    element(MAP_DELETE, map, key, 0)
}

#[repr(C)]
struct Load {
    kind: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kern_version: u32,
    flags: u32,
    name: Name,
    ifindex: u32,
    attach_type: u32,
}

/// Loads an XDP program. Refused, it is loaded once more for the verifier's words.
pub(crate) fn load(code: &[Insn], flags: u32, name: Name) -> Result<OwnedFd, Error> {
    let mut log = vec![0u8; 64 << 10];
    let license = c"Dual MIT/GPL";
    let mut attr = Load {
        kind: PROG_TYPE_XDP,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kern_version: 0,
        flags,
        name,
        ifindex: 0,
        attach_type: ATTACH_XDP,
    };
    let mut error = match opened(PROG_LOAD, &mut attr, Step::Load) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    (attr.log_level, attr.log_size, attr.log) = (1, log.len() as u32, log.as_mut_ptr() as u64);
    if opened(PROG_LOAD, &mut attr, Step::Load).is_err() {
        error.log =
            CStr::from_bytes_until_nul(&log).ok().map(|text| text.to_string_lossy().trim().to_owned());
    }
    Err(error)
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens a pinned object.
pub(crate) fn object_get(path: &CStr) -> Result<OwnedFd, Error> {
    let mut attr = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    opened(OBJ_GET, &mut attr, Step::Map)
}

/// Pins an object.
pub(crate) fn object_pin(fd: BorrowedFd<'_>, path: &CStr) -> Result<(), Error> {
    let mut attr = Object { path: path.as_ptr() as u64, fd: fd.as_raw_fd() as u32, flags: 0 };
    bpf(OBJ_PIN, &mut attr).map(drop).map_err(|error| Error::new(Step::Map, error))
}

#[repr(C)]
struct TestRun {
    program: u32,
    returned: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in: u32,
    context_out: u32,
    context: u64,
    context_back: u64,
}

/// `struct xdp_md`.
#[repr(C)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Runs a program over `frame` as if it had come by queue 0 of `lo`; what it returned.
pub(crate) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> Result<u32, Error> {
    let context = Context {
        data: 0,
        data_end: frame.len() as u32,
        data_meta: 0,
        ingress_ifindex: 1,
        rx_queue_index: 0,
        egress_ifindex: 0,
    };
    let mut attr = TestRun {
        program: program.as_raw_fd() as u32,
        returned: 0,
        size_in: frame.len() as u32,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
        context_in: size_of::<Context>() as u32,
        context_out: 0,
        context: &raw const context as u64,
        context_back: 0,
    };
    bpf(PROG_TEST_RUN, &mut attr).map_err(|error| Error::new(Step::Query, error))?;
    Ok(attr.returned)
}

#[repr(C)]
struct Id {
    id: u32,
    next: u32,
    flags: u32,
}

/// The program of this number.
pub(crate) fn program_by_id(id: u32) -> Result<OwnedFd, Error> {
    opened(PROG_GET_FD_BY_ID, &mut Id { id, next: 0, flags: 0 }, Step::Query)
}

/// The map of this number.
pub(crate) fn map_by_id(id: u32) -> Result<OwnedFd, Error> {
    opened(MAP_GET_FD_BY_ID, &mut Id { id, next: 0, flags: 0 }, Step::Query)
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    at: u64,
}

fn info<T>(fd: BorrowedFd<'_>, about: &mut T) -> Result<(), Error> {
    let mut attr =
        Info { fd: fd.as_raw_fd() as u32, len: size_of::<T>() as u32, at: std::ptr::from_mut(about) as u64 };
    bpf(OBJ_GET_INFO, &mut attr).map(drop).map_err(|error| Error::new(Step::Query, error))
}

#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    maps: u32,
    map_ids: u64,
    name: Name,
}

/// What a program is, as far as it can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: Name,
    /// A hash of its instructions, descriptors of maps left out.
    pub(crate) tag: [u8; 8],
    /// Its first map.
    pub(crate) map: u32,
}

/// What the program is.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> Result<Known, Error> {
    let mut map = 0u32;
    let mut about = ProgramInfo { maps: 1, map_ids: &raw mut map as u64, ..ProgramInfo::default() };
    info(program, &mut about)?;
    Ok(Known { name: about.name, tag: about.tag, map })
}

#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// Entries of a map of sockets; nothing for a map of another type.
pub(crate) fn map_entries(map: BorrowedFd<'_>) -> Result<Option<u32>, Error> {
    let mut about = MapInfo::default();
    info(map, &mut about).map_err(|error| Error { step: Step::Map, ..error })?;
    Ok((about.kind == MAP_TYPE_XSKMAP).then_some(about.max_entries))
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to an interface until the last holder of the link is gone. `flags`: `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`.
pub(crate) fn link_create(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> Result<OwnedFd, Error> {
    let program = program.as_raw_fd() as u32;
    opened(LINK_CREATE, &mut LinkCreate { program, ifindex, attach_type: ATTACH_XDP, flags }, Step::Attach)
}

#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    ifindex: u32,
    rest: [u32; 11],
}

/// The link by which program number `program` is attached to an interface of this number.
pub(crate) fn link_of(program: u32, ifindex: u32) -> Result<Option<OwnedFd>, Error> {
    let mut id = 0;
    loop {
        let mut next = Id { id, next: 0, flags: 0 };
        match bpf(LINK_GET_NEXT_ID, &mut next) {
            Ok(_) => id = next.next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(Error::new(Step::Query, error)),
        }
        // One that has just gone is none.
        let Ok(link) = opened(LINK_GET_FD_BY_ID, &mut Id { id, next: 0, flags: 0 }, Step::Query) else {
            continue;
        };
        let mut about = LinkInfo::default();
        info(link.as_fd(), &mut about)?;
        if about.kind == LINK_TYPE_XDP && about.program == program && about.ifindex == ifindex {
            return Ok(Some(link));
        }
    }
}
