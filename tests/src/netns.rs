//! Network namespaces that nobody can leave behind.
//!
//! A namespace has no name: it lives as long as the process that holds it, and that process ends when its standard
//! input closes, which happens when the test ends in whatever way. Everything inside goes with it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use crate::wait;

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct NetNs {
    holder: Child,
    /// Made inside a user namespace, since the test is not root.
    user: bool,
}

impl NetNs {
    /// A new namespace: directly as root, otherwise inside a new user namespace.
    ///
    /// # Panics
    /// When neither is allowed; tests ask for `Need::Namespaces` first.
    #[must_use]
    pub fn new() -> Self {
        let user = !nix::unistd::geteuid().is_root();
        let mut command = wait::mortal("unshare");
        command.arg(if user { "-Urn" } else { "-n" });
        Self::hold(command, user)
    }

    /// Another namespace under the same user namespace, so that links can move between the two.
    #[must_use]
    pub fn sibling(&self) -> Self {
        let mut command = wait::mortal("nsenter");
        command.args(self.entry()).args(["unshare", "-n"]);
        Self::hold(command, self.user)
    }

    fn hold(mut command: Command, user: bool) -> Self {
        command.args(["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin ip link set lo up && echo ready && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare starts");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the holder says that it is ready");
        assert_eq!(line, "ready\n", "the namespace could not be made");
        Self { holder, user }
    }

    /// The process whose namespace this is; `ip link set IF netns PID` moves a link here.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Arguments of `nsenter` that lead here.
    #[must_use]
    pub fn entry(&self) -> Vec<String> {
        let mut entry = vec!["-t".into(), self.pid().to_string(), "-n".into()];
        if self.user {
            entry.extend(["-U".into(), "--preserve-credentials".into()]);
        }
        entry.push("--".into());
        entry
    }

    /// A command that will run in this namespace and die with the test.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = wait::mortal("nsenter");
        command.args(self.entry()).arg(program);
        command
    }

    /// Runs `program` here; it must succeed within 30 seconds. Returns its standard output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.command(program);
        command.args(arguments);
        wait::success(&command, 30)
    }

    /// `ip` with the words of `line`.
    pub fn ip(&self, line: &str) -> String {
        self.run("ip", &line.split_whitespace().collect::<Vec<_>>())
    }

    /// Moves the link `name` from here to `other`.
    pub fn give(&self, name: &str, other: &Self) {
        self.ip(&format!("link set {name} netns {}", other.pid()));
    }

    /// Gives `name` an address with a 24-bit prefix, turns its link up, and keeps the kernel from sending on its own.
    pub fn up(&self, name: &str, address: Ipv4Addr) {
        self.silent(name);
        self.ip(&format!("address add {address}/24 dev {name}"));
        self.ip(&format!("link set {name} up"));
    }

    /// Keeps the kernel from sending IPv6 discovery on `name`.
    pub fn silent(&self, name: &str) {
        let write = format!("echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6 2>/dev/null || true");
        self.run("sh", &["-c", &write]);
    }

    /// Names of the links here, without loopback.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let text = self.ip("-o link show");
        let names =
            text.lines().filter_map(|line| line.split(": ").nth(1)).filter_map(|name| name.split('@').next());
        names.filter(|name| *name != "lo").map(String::from).collect()
    }

    /// Runs `work` on a thread inside this namespace; sockets made there stay here. Needs root.
    ///
    /// # Panics
    /// When the thread cannot enter the namespace, or `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.pid());
        let namespace = File::open(path).expect("the namespace's file opens");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
                work()
            });
            thread.join().expect("the work inside the namespace")
        })
    }
}

impl Default for NetNs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
