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
    schedule(0, libc::SCHED_FIFO, priority)
}

/// Gives every thread of process `pid` the SCHED_FIFO priority that `priority` says for its name.
///
/// # Errors
/// Without CAP_SYS_NICE, or when the process is gone.
pub fn real_time_threads(pid: u32, priority: impl Fn(&str) -> i32) -> Result<()> {
    let path = format!("/proc/{pid}/task");
    for task in std::fs::read_dir(&path).context(&path)?.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let Some(tid) = task.file_name().to_str().and_then(|word| word.parse().ok()) else { continue };
        schedule(tid, libc::SCHED_FIFO, priority(name.trim_end()))?;
    }
    Ok(())
}

/// Does something as a normal task, then goes on as before. To be used for waiting until a child has ended: the kernel's tidying of
/// `/proc` after it spins until another thread that looks at the same entries is done, and on its CPU that one never runs beside a
/// real-time task.
pub fn ordinarily<T>(what: impl FnOnce() -> T) -> T {
    let mut parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is valid for the calls, which read how this thread is scheduled.
    let policy = unsafe {
        let known = libc::sched_getparam(0, &raw mut parameters) == 0;
        if known { libc::sched_getscheduler(0) } else { libc::SCHED_OTHER }
    };
    if policy == libc::SCHED_OTHER {
        return what();
    }
    let _ = schedule(0, libc::SCHED_OTHER, 0);
    let done = what();
    let _ = schedule(0, policy, parameters.sched_priority);
    done
}

fn schedule(tid: libc::pid_t, policy: libc::c_int, priority: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: `parameters` is valid for the call, which only changes how a thread is scheduled.
    let status = unsafe { libc::sched_setscheduler(tid, policy, &raw const parameters) };
    nix::errno::Errno::result(status).map(drop).context("SCHED_FIFO needs CAP_SYS_NICE")
}
