//! A running daemon: ours, or the reference.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::netns::NetNs;
use crate::qmp::Qmp;
use crate::{skip, wait};

/// Which program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The `netdevd` of this build.
    Netdevd,
    /// QEMU 10.0 with no machine.
    Oracle,
}

/// The directory of this build's programs.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    let directory = own.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let program = directory.join(name);
    assert!(program.is_file(), "{} is missing: run `cargo build --workspace` first", program.display());
    let newer = newer(&program);
    assert!(
        newer.is_none(),
        "{} is older than {newer:?}: run `cargo build --workspace` first",
        program.display()
    );
    program
}

/// A source that changed after a program was built from it, as Cargo's list beside the program says: `cargo test` builds only the tests.
fn newer(program: &Path) -> Option<String> {
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let (rule, built) = (fs::read_to_string(program.with_extension("d")).ok()?, modified(program)?);
    let (_, mut sources) =
        rule.split_once(": ").map(|(program, list)| (program, list.split_ascii_whitespace()))?;
    sources.find(|source| modified(Path::new(source)).is_some_and(|at| at > built)).map(str::to_owned)
}

/// The `netdevd` under test: the one that `NETDEVD_BIN` names, or that of this build.
#[must_use]
pub fn netdevd() -> PathBuf {
    std::env::var_os("NETDEVD_BIN").map_or_else(|| built("netdevd"), PathBuf::from)
}

/// The `netdevctl` beside it.
#[must_use]
pub fn netdevctl() -> PathBuf {
    netdevd().with_file_name("netdevctl")
}

/// The reference: the program that `NETDEVD_ORACLE` names, or the one that `scripts/oracle` unpacked.
///
/// # Errors
/// Why there is none.
pub fn oracle() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("NETDEVD_ORACLE") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let found =
        own.ancestors().map(|above| above.join("oracle/qemu-system-x86_64")).find(|path| path.is_file());
    found.ok_or_else(|| "needs QEMU 10.0 (run scripts/oracle)".into())
}

/// How to start a daemon; see [`Daemon::of`].
#[derive(Debug)]
pub struct Builder<'a> {
    program: Program,
    arguments: Vec<OsString>,
    namespace: Option<&'a NetNs>,
    sockets: usize,
    directory: Option<TempDir>,
    environment: Vec<(OsString, OsString)>,
    wrapper: Vec<OsString>,
}

impl<'a> Builder<'a> {
    /// More arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().into()));
        self
    }

    /// Runs in this network namespace.
    #[must_use]
    pub fn within(mut self, namespace: &'a NetNs) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Serves this many QMP sockets (1 unless told otherwise; 0 adds no `-qmp`).
    #[must_use]
    pub fn sockets(mut self, count: usize) -> Self {
        self.sockets = count;
        self
    }

    /// Works in this directory instead of a new one.
    #[must_use]
    pub fn directory(mut self, directory: TempDir) -> Self {
        self.directory = Some(directory);
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.into(), value.as_ref().into()));
        self
    }

    /// Runs under another command, which ends by executing its last arguments.
    #[must_use]
    pub fn under(mut self, wrapper: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.wrapper = wrapper.into_iter().map(|word| word.as_ref().into()).collect();
        self
    }

    /// The command line without starting it, for tests that start and watch the process themselves.
    #[must_use]
    pub fn command(&self, directory: &Path) -> Command {
        let path = match self.program {
            Program::Netdevd => netdevd(),
            Program::Oracle => oracle().unwrap_or_else(|reason| panic!("{reason}")),
        };
        let words: Vec<_> = self.wrapper.iter().cloned().chain([path.into_os_string()]).collect();
        let mut command =
            self.namespace.map_or_else(|| wait::mortal(&words[0]), |place| place.command(&words[0]));
        command.args(&words[1..]);
        if self.program == Program::Oracle {
            command.args(["-M", "none", "-display", "none", "-nodefaults"]);
        }
        for number in 0..self.sockets {
            command.arg("-qmp");
            command.arg(format!("unix:{},server=on,wait=off", socket_path(directory, number).display()));
        }
        // What it leaves behind when it is killed goes with its directory.
        command.args(&self.arguments).current_dir(directory).env("TMPDIR", directory);
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts it and waits until its first QMP socket is there.
    ///
    /// # Panics
    /// When it does not come up; the message shows what it printed.
    #[must_use]
    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Like [`start`](Self::start), for what may not start.
    ///
    /// # Errors
    /// How it was started and what it printed.
    ///
    /// # Panics
    /// When the program cannot be executed at all.
    pub fn try_start(mut self) -> Result<Daemon, String> {
        let directory = self.directory.take().unwrap_or_else(directory);
        let log = File::create(directory.path().join("stderr")).expect("a log file");
        let mut command = self.command(directory.path());
        command.stdin(Stdio::null()).stdout(log.as_fd().try_clone_to_owned().expect("dup")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut daemon = Daemon { child, directory };
        let path = daemon.socket(0);
        let there = wait::until(wait::PATIENCE, || {
            let there = self.sockets == 0 || path.exists();
            there.then_some(true).or_else(|| daemon.child.try_wait().ok().flatten().map(|_| false))
        });
        if there == Some(true) {
            return Ok(daemon);
        }
        Err(format!("no QMP socket from {command:?}; it said: {}", daemon.stderr()))
    }
}

/// A private directory with a short path, since a unix socket's path has at most 107 bytes.
#[must_use]
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("nd-").tempdir_in("/tmp").expect("a temporary directory")
}

fn socket_path(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("qmp{number}.sock"))
}

/// A running daemon, killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    directory: TempDir,
}

impl Daemon {
    /// Prepares a daemon.
    #[must_use]
    pub fn of<'a>(program: Program) -> Builder<'a> {
        Builder {
            program,
            arguments: Vec::new(),
            namespace: None,
            sockets: 1,
            directory: None,
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// Our daemon with one QMP socket, started, and a client that has negotiated.
    #[must_use]
    pub fn netdevd(arguments: &[&str]) -> (Self, Qmp) {
        let daemon = Self::of(Program::Netdevd).args(arguments).start();
        let client = daemon.client();
        (daemon, client)
    }

    /// Our daemon in a namespace, and a client that has negotiated.
    #[must_use]
    pub fn netdevd_within(namespace: &NetNs, arguments: &[&str]) -> (Self, Qmp) {
        let daemon = Self::of(Program::Netdevd).args(arguments).within(namespace).start();
        let client = daemon.client();
        (daemon, client)
    }

    /// A new connection to the first socket, negotiated.
    ///
    /// # Panics
    /// When the daemon does not answer; the message shows what it printed.
    #[must_use]
    pub fn client(&self) -> Qmp {
        let mut client = self.connect(0);
        client.negotiate();
        client
    }

    /// A new connection to socket `number`, still in negotiation.
    ///
    /// # Panics
    /// When the daemon does not answer; the message shows what it printed.
    #[must_use]
    pub fn connect(&self, number: usize) -> Qmp {
        let connected = Qmp::connect(&self.socket(number), wait::PATIENCE);
        connected.unwrap_or_else(|error| panic!("no QMP: {error}; the daemon said: {}", self.stderr()))
    }

    /// The path of socket `number`.
    #[must_use]
    pub fn socket(&self, number: usize) -> PathBuf {
        socket_path(self.directory.path(), number)
    }

    /// The daemon's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("stderr")).unwrap_or_default())
            .into_owned()
    }

    /// Number of its open file descriptors.
    #[must_use]
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, signal).expect("the daemon is there");
    }

    /// Its exit status, if it has ended within `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait::child(&mut self.child, limit)
    }

    /// Kills it without warning and hands back its directory, for a second start in the same place.
    #[must_use]
    pub fn kill(mut self) -> TempDir {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::mem::replace(&mut self.directory, directory())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon said:\n{}---", self.stderr());
        }
    }
}

/// Whether the program of this name is anywhere.
#[must_use]
pub fn has_tool(name: &str) -> bool {
    skip::on_path(name).is_some()
}
