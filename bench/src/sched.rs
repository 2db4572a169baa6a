//! Where and how a thread runs: pinned to a CPU, before all normal tasks.

#![allow(unsafe_code)] // nix has no sched_setscheduler

use crate::failure::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// CPUs that this process may use, lowest first.
pub fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

/// Pins the calling thread to `cpu`.
///
/// # Errors
/// When the CPU does not exist or lies outside of what the process may use.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context(format_args!("CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).context(format_args!("cannot pin to CPU {cpu}"))
}

/// Gives the calling thread a SCHED_FIFO priority: it then runs before every normal task of its CPU.
///
/// # Errors
/// Without CAP_SYS_NICE.
pub fn real_time(priority: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: `parameters` is valid for the call; pid 0 is the calling thread.
    let status = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    nix::errno::Errno::result(status).map(drop).context("SCHED_FIFO needs CAP_SYS_NICE")
}
