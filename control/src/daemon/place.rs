//! Which cores the workers get, and where everything else runs.

use super::Fatal;
use engine::worker::place::allowed;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// What follows from the cores that were asked for and the affinity mask.
pub(super) struct Placement {
    /// Cores for the control thread and its helpers; empty: as inherited.
    others: Vec<usize>,
    /// Workers must yield their core after empty turns, since control needs it too.
    pub(super) yield_empty: bool,
}

impl Placement {
    /// Looks at the mask. A core outside it is the engine's error.
    pub(super) fn new(cores: &[usize]) -> Self {
        let mask = allowed();
        let others: Vec<usize> = mask.iter().copied().filter(|core| !cores.contains(core)).collect();
        let yield_empty = if cores.is_empty() { mask.len() < 2 } else { others.is_empty() };
        Self { others: if cores.is_empty() { Vec::new() } else { others }, yield_empty }
    }

    /// Moves the calling thread, and those that it starts from now on, off the workers' cores.
    pub(super) fn keep_off(&self) {
        let mut set = CpuSet::new();
        let all = self.others.iter().all(|&core| set.set(core).is_ok());
        if !self.others.is_empty() && all {
            // Without it control shares a core with a worker, which costs time and nothing else.
            let _ = sched_setaffinity(Pid::from_raw(0), &set);
        }
    }
}

/// Raises the limit of open files to what is allowed: each tap queue is one.
pub(super) fn raise_file_limit() -> Result<(), Fatal> {
    let failed = |e: nix::Error| Fatal::new(format!("cannot raise the limit of open files: {}", e.desc()));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)
}
