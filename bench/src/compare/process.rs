//! Child processes that end when their owner does, by their own pid.

#![allow(unsafe_code)] // what a child does before it executes its program

use crate::failure::{Context, Failure, Result};
use crate::sched;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// A running child. Dropping it ends it: standard input closed, SIGTERM, then SIGKILL.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.log` in `directory`.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawn(mut command: Command, name: &str, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).context(log.display())?;
        let same = file.try_clone().context(log.display())?;
        let child = mortal(&mut command)
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(same)
            .spawn()
            .context(format_args!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_string(), log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is, so that it cannot disturb others.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Process::freeze`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends it by SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::SIGKILL)?;
        self.child.wait().map(drop).context(&self.name)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).context(&self.name)
    }

    /// Fails when the process has ended, with the end of what it printed.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context(&self.name)? {
            None => Ok(()),
            Some(status) => {
                let said = self.said();
                let tail: Vec<_> = said.lines().rev().take(5).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join(" | ");
                Err(Failure::new(format!("{} ended ({status}): {tail}", self.name)))
            }
        }
    }

    /// Waits until it has printed `word`.
    ///
    /// # Errors
    /// When it ends before, or takes longer than ten seconds.
    pub fn wait_for(&mut self, word: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.said().contains(word) {
            self.check()?;
            if Instant::now() > deadline {
                return Err(Failure::new(format!("{} did not say {word}", self.name)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// When it has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Waits for its end and gives what it printed.
    ///
    /// # Errors
    /// When it fails or does not end within `patience`.
    pub fn finish(mut self, patience: Duration) -> Result<String> {
        drop(self.child.stdin.take());
        if !self.ends_within(patience) {
            return Err(Failure::new(format!("{} did not end", self.name)));
        }
        let status = self.child.wait().context(&self.name)?;
        let said = self.said();
        match status.success() {
            true => Ok(said),
            false => Err(Failure::new(format!("{} failed ({status}): {}", self.name, said.trim_end()))),
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        sched::ordinarily(|| {
            loop {
                match self.child.try_wait() {
                    Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                    Ok(None) => return false,
                    _ => return true,
                }
            }
        })
    }
}

/// Waits for the end of a child that was asked to end; kills it after `grace`, and waits once more as long: a child whose CPU is held by
/// another one, which is to be ended after it, would never go.
pub fn reap(child: &mut Child, grace: Duration) {
    let mut ends = || {
        let until = Instant::now() + grace;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = child.kill();
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    };
    sched::ordinarily(|| {
        let _ = ends() || ends();
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::SIGTERM);
            let _ = self.thaw();
            reap(&mut self.child, GRACE);
        }
    }
}

/// Lets SIGTERM reach the program, and sends it when the thread that starts it ends, however that happens. It is blocked here
/// ([`crate::compare::lab::catch_signals`]), and a child inherits that; SIGINT, which a terminal sends to all, stays blocked, since it is for
/// the owner to end what it started.
pub fn mortal(command: &mut Command) -> &mut Command {
    let prepare = || {
        SigSet::from(Signal::SIGTERM).thread_unblock()?;
        Ok(set_pdeathsig(Signal::SIGTERM)?)
    };
    // SAFETY: between fork and exec only functions that are safe in signal handlers may be called; these are two system calls.
    unsafe { command.pre_exec(prepare) }
}

/// A command line that runs `program` with the best nice value, and not in the real-time class that it may start from.
#[must_use]
pub fn preferred(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("chrt");
    command.args(["--other", "0", "nice", "-n", "-20"]).arg(program);
    command
}

/// Runs a command line to its end and gives its standard output.
///
/// # Errors
/// With what it printed to standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = mortal(command).stdin(Stdio::null()).output().context(&name)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            let said = text(said);
            let start = said.len().saturating_sub(300);
            let tail = said.get(start..).unwrap_or(&said).trim();
            Err(Failure::new(format!("{name} failed ({}): {tail}", output.status)))
        }
    }
}
