//! Network namespaces made for one run and removed after it.

use crate::compare::process::{preferred, run};
use crate::failure::{Context, Failure, Result};
use crate::proc::{self, Interface};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::Command;

/// Namespaces of this tool start with this, then the process id, then a word of their own.
const PREFIX: &str = "nd-compare-";

/// A namespace; dropping it deletes it, and with it the virtual interfaces inside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// Runs `ip` with these words.
///
/// # Errors
/// With what `ip` said.
pub fn ip(words: &str) -> Result<String> {
    run(Command::new("ip").args(words.split(' ')))
}

/// Runs many lines of `ip` at once, in `namespace` or outside of all.
///
/// # Errors
/// With what `ip` said of the first line that failed.
pub fn ip_batch(namespace: Option<&Namespace>, lines: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new().context("temporary file")?;
    file.write_all(lines.as_bytes()).context("temporary file")?;
    let mut command = Command::new("ip");
    command.args(namespace.into_iter().flat_map(|namespace| ["-n", &namespace.name]));
    run(command.arg("-batch").arg(file.path())).map(drop)
}

impl Namespace {
    /// Makes the namespace `word` of this process: loopback up, no IPv6 (whose own frames would disturb the counts),
    /// ping sockets allowed.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN or iproute2.
    pub fn create(word: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{word}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let namespace = Self { name };
        let settings = [
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
            "net.ipv4.ping_group_range=0 0",
        ];
        run(namespace.command("sysctl").arg("-qw").args(settings))?;
        ip(&format!("-n {} link set lo up", namespace.name))?;
        Ok(namespace)
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command line that runs `program` inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// A command line that runs `program` inside, on one CPU.
    pub fn pinned(&self, cpu: usize, program: &str) -> Command {
        let mut command = self.command("taskset");
        command.args(["-c", &cpu.to_string(), program]);
        command
    }

    /// Counters of its interfaces.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn interfaces(&self) -> Result<BTreeMap<String, Interface>> {
        Ok(proc::interfaces(&run(self.command("cat").arg("/proc/net/dev"))?))
    }

    /// Its counters, to be read again and again without a program for it.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn counters(&self) -> Result<Counters> {
        let path = format!("/run/netns/{}", self.name);
        let entered = File::open(&path).context(&path)?;
        // A file of /proc/net is that of the namespace in which it was opened, and threads may be in different ones.
        let open = move || -> Result<File> {
            setns(entered, CloneFlags::CLONE_NEWNET).context("setns")?;
            File::open("/proc/thread-self/net/dev").context("/proc/thread-self/net/dev")
        };
        let thread = std::thread::spawn(open);
        thread.join().map_err(|_| Failure::new("cannot look into a namespace"))?.map(Counters)
    }

    /// Moves `interface` in, as host `number` of 10.77.0.0/24 with a MAC address made of it.
    ///
    /// # Errors
    /// When there is no such interface outside.
    pub fn adopt(&self, interface: &str, number: u8) -> Result<()> {
        ip(&format!("link set {interface} netns {}", self.name))?;
        self.name_host(interface, number)
    }

    /// Makes `interface`, which is inside, host `number` of 10.77.0.0/24 with a MAC address made of it.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn name_host(&self, interface: &str, number: u8) -> Result<()> {
        ip(&format!("-n {} link set {interface} address {}", self.name, mac(number)))?;
        ip(&format!("-n {} addr add {}/24 dev {interface}", self.name, address(number)))?;
        ip(&format!("-n {} link set {interface} up", self.name))?;
        Ok(())
    }

    /// Tells the namespace where host `number` is, so that no ARP frame can be lost under load.
    ///
    /// # Errors
    /// When `interface` is not inside.
    pub fn knows(&self, interface: &str, number: u8) -> Result<()> {
        let (address, mac) = (address(number), mac(number));
        ip(&format!("-n {} neigh replace {address} lladdr {mac} nud permanent dev {interface}", self.name))
            .map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// The counters of a namespace's interfaces.
#[derive(Debug)]
pub struct Counters(File);

impl Counters {
    /// Those of `interface`.
    ///
    /// # Errors
    /// When the namespace is gone or has no such interface.
    pub fn read(&mut self, interface: &str) -> Result<Interface> {
        let mut text = String::new();
        self.0.rewind().context("interface counters")?;
        self.0.read_to_string(&mut text).context("interface counters")?;
        let all = proc::interfaces(&text);
        all.get(interface).copied().ok_or_else(|| Failure::new(format!("no interface {interface}")))
    }
}

/// As [`preferred`], in a namespace where one is given.
#[must_use]
pub fn preferred_in(inside: Option<&Namespace>, program: impl AsRef<OsStr>) -> Command {
    let command = preferred(program);
    let Some(namespace) = inside else { return command };
    let mut entering = Command::new("ip");
    entering.args(["netns", "exec", &namespace.name]).arg(command.get_program()).args(command.get_args());
    entering
}

/// Address of host `number`.
pub fn address(number: u8) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::new(10, 77, 0, number)
}

fn mac(number: u8) -> String {
    format!("02:00:00:77:00:{number:02x}")
}

/// Deletes what runs that were killed left behind: our namespaces whose process is gone.
pub fn sweep() {
    for line in ip("netns list").unwrap_or_default().lines() {
        let Some(name) = line.split(' ').next().filter(|name| name.starts_with(PREFIX)) else { continue };
        let pid = name[PREFIX.len()..].split('-').next().unwrap_or("");
        if !std::path::Path::new("/proc").join(pid).exists() {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}
