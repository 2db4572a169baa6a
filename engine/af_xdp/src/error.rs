//! What went wrong, at which step, and what helps.

use std::io;

/// A step of opening a socket or attaching a program that the kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `socket(AF_XDP)`.
    Create,
    /// Registering the UMEM.
    Umem,
    /// Making or mapping the rings.
    Rings,
    /// Binding to a queue.
    Bind,
    /// Another option of the socket.
    Option,
    /// Making, opening or changing the map of sockets.
    Map,
    /// Loading the program.
    Load,
    /// Attaching the program.
    Attach,
    /// Asking the kernel what is there.
    Query,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {}: {error}{}", self.doing(), self.advice())]
pub struct Error {
    /// Which step.
    pub step: Step,
    /// The kernel's answer.
    pub error: io::Error,
    /// What the verifier said of a program that it refused.
    pub log: Option<String>,
}

impl Error {
    pub(crate) const fn new(step: Step, error: io::Error) -> Self {
        Self { step, error, log: None }
    }

    /// A step of opening a socket that failed before the kernel was asked.
    #[must_use]
    pub const fn of_socket(error: io::Error) -> Self {
        Self::new(Step::Create, error)
    }

    pub(crate) fn last(step: Step) -> Self {
        Self::new(step, io::Error::last_os_error())
    }

    pub(crate) fn code(step: Step, errno: i32) -> Self {
        Self::new(step, io::Error::from_raw_os_error(errno))
    }

    /// The kernel's answer as a number, 0 where it was none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.error.raw_os_error().unwrap_or(0)
    }

    const fn doing(&self) -> &'static str {
        match self.step {
            Step::Create => "create an AF_XDP socket",
            Step::Umem => "register frame memory (UMEM) with an AF_XDP socket",
            Step::Rings => "make the rings of an AF_XDP socket",
            Step::Bind => "bind an AF_XDP socket",
            Step::Option => "set an option of an AF_XDP socket",
            Step::Map => "use the map of AF_XDP sockets",
            Step::Load => "load the XDP program",
            Step::Attach => "attach the XDP program",
            Step::Query => "ask for the XDP program of an interface",
        }
    }

    /// What would help, as the end of a sentence; empty where nothing is known.
    #[must_use]
    pub fn advice(&self) -> String {
        let advice = match (self.step, self.errno()) {
            (Step::Create, libc::EPERM) => " (CAP_NET_RAW is needed, or sockets that somebody else made)",
            (Step::Create, libc::EAFNOSUPPORT) => " (this kernel was built without CONFIG_XDP_SOCKETS)",
            (Step::Umem, libc::ENOBUFS) => " (raise RLIMIT_MEMLOCK, or give CAP_IPC_LOCK)",
            (Step::Umem, libc::ENOPROTOOPT | libc::ENOTSOCK) => " (the descriptor is no AF_XDP socket)",
            (Step::Umem, libc::EBUSY) => " (the socket has frame memory already)",
            (Step::Rings, libc::EINVAL) => " (rings have a power of two of entries)",
            (Step::Map, libc::EINVAL) => " (no map of AF_XDP sockets)",
            (Step::Map, libc::E2BIG) => " (the map has no place for this queue)",
            (Step::Umem, libc::EINVAL) => " (chunks are 2048 bytes up to a page, a power of two)",
            (Step::Bind, libc::EBUSY) => " (another AF_XDP socket has this queue)",
            (Step::Bind, libc::EINVAL) => " (no such queue)",
            (Step::Bind, libc::ENODEV) => " (the interface is gone)",
            (Step::Bind, libc::ENETDOWN) => " (the interface is down)",
            (Step::Bind, libc::EOPNOTSUPP) => " (the driver has no zero-copy for this)",
            (Step::Map | Step::Load, libc::EPERM) => " (CAP_BPF and CAP_NET_ADMIN are needed)",
            (Step::Attach, libc::EPERM) => " (CAP_NET_ADMIN is needed)",
            (Step::Attach, libc::EBUSY | libc::EEXIST) => " (another XDP program is attached)",
            (Step::Attach, libc::EOPNOTSUPP) => " (the driver has no native XDP)",
            (Step::Attach, libc::ENODEV) => " (the interface is gone)",
            (Step::Attach, libc::ERANGE | libc::EINVAL) => {
                " (perhaps the MTU is too large for this driver's XDP)"
            }
            _ => "",
        };
        match &self.log {
            Some(log) if !log.is_empty() => format!("{advice}; the verifier says: {log}"),
            _ => advice.to_owned(),
        }
    }
}
