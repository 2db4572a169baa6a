//! What is left when the network stands: the sockets of the loop, and one place of the file system to read.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Descriptors at most: two for each connection of a busy guest.
const DESCRIPTORS: u64 = 131_072;
/// Bytes of addresses at most: two buffers of 128 KiB for each of 30,000 connections, and some more. A guest that makes the stack take more ends
/// the process, which is started again, and not the host's other programs.
const MEMORY: u64 = 8 << 30;

/// Why the process could not give up its rights.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot give up {0}: {1}")]
    Give(&'static str, Errno),
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("seccomp: {0}")]
    Install(#[from] seccompiler::Error),
}

/// As many descriptors as may be had, memory for as much; no processes, no core.
pub(crate) fn limits() -> Result<(), Error> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|why| Error::Give("descriptors", why))?;
    let most = most.min(DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(|why| Error::Give("descriptors", why))?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).map_err(|why| Error::Give("memory", why))?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).map_err(|why| Error::Give("processes", why))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|why| Error::Give("core files", why))
}

/// Bytes that the heap keeps at its end: what flows through it would be asked of the kernel again and again.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 8 << 20;

/// Lets the C library keep memory that is free.
pub(crate) fn keep_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: numbers only.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives up everything. What the kernel is too old for is told.
pub(crate) fn enter(tftp: Option<&Path>) -> Result<Option<String>, Error> {
    capabilities()?;
    nix::sys::prctl::set_no_new_privs().map_err(|why| Error::Give("new privileges", why))?;
    nix::sys::prctl::set_dumpable(false).map_err(|why| Error::Give("being traced", why))?;
    let told = files(tftp)?;
    calls()?;
    Ok(told)
}

/// Drops all capabilities, for good.
fn capabilities() -> Result<(), Error> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // _LINUX_CAPABILITY_VERSION_3 of linux/capability.h.
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: prctl with numbers only; capset reads a header and two times three words, as version 3 has them.
    let done = unsafe {
        for capability in 0..64 {
            // Beyond the last one, or without the right to; then there is nothing to drop.
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr())
    };
    Errno::result(done).map(drop).map_err(|why| Error::Give("capabilities", why))
}

fn files(tftp: Option<&Path>) -> Result<Option<String>, Error> {
    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    if let Some(file) = tftp.and_then(|place| PathFd::new(place).ok()) {
        rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile | AccessFs::ReadDir))?;
    }
    let status = rules.restrict_self()?;
    let lacks = status.ruleset == RulesetStatus::NotEnforced;
    Ok(lacks
        .then(|| "the kernel has no landlock: the user netdev's process can read what its user can".into()))
}

/// Calls that are allowed with any arguments.
const ALLOWED: &[i64] = &[
    // Sockets, and descriptors that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_dup3,
    libc::SYS_lseek,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    // Waiting and time.
    libc::SYS_ppoll,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // What a file is; which ones there are to open is landlock's matter.
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    // The end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
];

#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] =
    &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_stat, libc::SYS_lstat, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    let wide = |number: i32| u64::from(number.cast_unsigned());
    let operation = SeccompCmpOp::MaskedEq(wide(mask));
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, wide(value))?])
}

fn calls() -> Result<(), Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|&call| (call, Vec::new())).collect();
    let read_only = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    rules.insert(libc::SYS_openat, vec![masked(2, read_only, libc::O_RDONLY)?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![masked(1, read_only, libc::O_RDONLY)?]);
    // No code is made.
    rules.insert(libc::SYS_mmap, vec![masked(2, libc::PROT_EXEC, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![masked(2, libc::PROT_EXEC, 0)?]);
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];
    rules.insert(
        libc::SYS_socket,
        families.map(|family| masked(0, -1, family)).into_iter().collect::<Result<_, _>>()?,
    );
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, open};
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    use nix::sys::stat::Mode;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, execv, fork};

    /// Runs `inside` in a process that has entered the sandbox; what it says is the exit status.
    fn in_sandbox(tftp: &Path, inside: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child runs on its one thread and ends here.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Child => {
                let entered = limits().and_then(|()| enter(Some(tftp)));
                let status = if entered.is_ok() { inside() } else { 100 };
                // SAFETY: ends the process without what the parent has registered.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => match waitpid(child, None).expect("its end") {
                WaitStatus::Exited(_, status) => status,
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn nothing_is_left_but_sockets_and_one_place_to_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "text").expect("a file");
        let other = tempfile::NamedTempFile::new().expect("another");
        let reads = |path: &Path| open(path, OFlag::O_RDONLY, Mode::empty()).map(drop);
        let opens = |path: &Path, how| open(path, how, Mode::S_IRWXU).map(drop);
        let refused = |done: Result<(), Errno>| matches!(done, Err(Errno::EACCES | Errno::EPERM));
        let status = in_sandbox(directory.path(), || {
            let sockets = |family| socket(family, SockType::Stream, SockFlag::empty(), None).map(drop);
            let raw =
                socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp).map(drop);
            // SAFETY: numbers only.
            let signal = Errno::result(unsafe { libc::kill(libc::getppid(), 0) }).map(drop);
            // SAFETY: numbers and a pointer that may be anything: the call is refused.
            let traced = Errno::result(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }).map(drop);
            // SAFETY: a child that ends at once, if there were one.
            let forked = unsafe { fork() }.map(drop);
            let proofs = [
                reads(&file).is_ok(),
                refused(reads(Path::new("/etc/passwd"))),
                refused(reads(Path::new("/proc/self/maps"))),
                refused(reads(other.path())),
                refused(opens(&file, OFlag::O_WRONLY)),
                refused(opens(&directory.path().join("new"), OFlag::O_RDWR | OFlag::O_CREAT)),
                execv(c"/bin/true", &[c"true"]) == Err(Errno::EPERM),
                refused(forked),
                refused(signal),
                refused(traced),
                sockets(AddressFamily::Inet).is_ok() && sockets(AddressFamily::Inet6).is_ok(),
                refused(sockets(AddressFamily::Packet)) && refused(sockets(AddressFamily::Netlink)),
                refused(raw),
            ];
            // Zero, or the number of the first that does not hold.
            proofs.iter().position(|holds| !holds).map_or(0, |at| i32::try_from(at).unwrap_or(98) + 1)
        });
        assert_eq!(status, 0, "the number of the proof that does not hold");
    }
}
