//! User-mode stacks: netdevd's and QEMU's `user` netdev behind a tap, slirp4netns, pasta. All with QEMU's addresses: the guest's namespace is
//! in 10.0.2.0/24, and what it sends to 10.0.2.2 reaches the loopback of the host's.

use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, ip, ip_batch};
use crate::compare::peer::{Daemon, Peer, interface, on_path};
use crate::compare::process::{Process, run};
use crate::failure::{Context, Failure, Result};
use crate::proc;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the guest finds the host's loopback.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The guest, where the stack does not say it itself.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// How long a stack may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take to forget connections that are closed: libslirp takes ten seconds.
const REST: Duration = Duration::from_secs(40);

/// Which stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stack {
    Netdevd,
    Qemu,
    Slirp4netns,
    Pasta,
}

/// All, netdevd first.
pub(super) const ALL: [Stack; 4] = [Stack::Netdevd, Stack::Qemu, Stack::Slirp4netns, Stack::Pasta];

impl Stack {
    /// Its name in tables and files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Netdevd => "netdevd",
            Self::Qemu => "qemu",
            Self::Slirp4netns => "slirp4netns",
            Self::Pasta => "pasta",
        }
    }

    /// Why it cannot run here, if so.
    pub(super) fn missing(self, lab: &Lab) -> Option<String> {
        match self {
            Self::Netdevd => Daemon::netdevd(lab).missing(),
            Self::Qemu => Daemon::qemu(lab).missing(),
            Self::Slirp4netns | Self::Pasta => {
                (!on_path(Path::new(self.name()))).then(|| format!("{} is not there", self.name()))
            }
        }
    }

    /// Whether it has a tap that is moved to the guest; the others make theirs there.
    fn moves_tap(self) -> bool {
        matches!(self, Self::Netdevd | Self::Qemu)
    }

    /// What runs in the host's namespace, on the device's CPU.
    fn command(self, lab: &Lab, host: &Namespace, guest: &Namespace, port: &str, mtu: usize) -> Command {
        let mut command = host.pinned(lab.dut_cpu, "prlimit");
        // Who closes a connection late keeps a descriptor for each.
        command.arg(format!("--nofile={}", most_descriptors().unwrap_or(1024)));
        let inside = format!("/run/netns/{}", guest.name());
        let mtu = mtu.to_string();
        match self {
            Self::Netdevd => {
                command.arg(Daemon::netdevd(lab).program()).args(["-cores", &lab.dut_cpu.to_string()]);
            }
            Self::Qemu => {
                command.arg(Daemon::qemu(lab).program());
                command.args("-M none -nodefaults -display none -monitor none".split(' '));
            }
            Self::Slirp4netns => {
                command.args(["slirp4netns", "--configure", &format!("--mtu={mtu}"), "--netns-type=path"]);
                command.args([&inside, port]);
            }
            Self::Pasta => {
                command.args("pasta -f --runas 0 -4 --config-net -t none -u none -T none -U none".split(' '));
                command.args(["-I", port, "-m", &mtu, "-a", &GUEST.to_string(), "-n", "24"]);
                command.args(["-g", &HOST.to_string(), "--netns", &inside]);
            }
        }
        if self.moves_tap() {
            let tap = format!("tap,id=t,ifname={port},script=no,downscript=no");
            for (id, netdev) in [("t", tap.as_str()), ("u", "user,id=u")] {
                command.args(["-netdev", netdev]);
                command.args(["-netdev", &format!("hubport,id=h{id},hubid=0,netdev={id}")]);
            }
        }
        command
    }
}

/// Descriptors that a process may have here.
fn most_descriptors() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    parse_most_descriptors(&limits)
}

/// Reads the last number of `Max open files SOFT HARD files`.
fn parse_most_descriptors(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The host: a namespace whose loopback has the servers. It has a way out that leads nowhere, without which pasta does not start.
#[derive(Debug)]
pub(super) struct Host {
    servers: Vec<Process>,
    sink: Process,
    pub(super) namespace: Namespace,
}

/// Ports of the servers on the host's loopback; iperf3's is its own.
pub(super) const CONNECTS: SocketAddrV4 = SocketAddrV4::new(HOST, 5302);
pub(super) const SINK: SocketAddrV4 = SocketAddrV4::new(HOST, 20_000);

impl Host {
    /// Makes it and starts the servers.
    ///
    /// # Errors
    /// When one does not come up.
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        let namespace = Namespace::create("user-host")?;
        ip_batch(
            Some(&namespace),
            "link add out type veth peer name nowhere\naddr add 192.0.2.1/24 dev out\nlink set nowhere up\n\
             link set out up\nroute add default via 192.0.2.2 dev out\n",
        )?;
        let start = |program: &str, words: &[&str], word: &str| -> Result<Process> {
            let mut command = namespace.pinned(lab.load_cpu, program);
            command.args(words);
            let mut process = Process::spawn(command, word, lab.run.path())?;
            process.wait_for(if word == "iperf3" { "listening" } else { "ready" })?;
            Ok(process)
        };
        let here = |there: SocketAddrV4| SocketAddrV4::new(Ipv4Addr::LOCALHOST, there.port()).to_string();
        let servers = vec![
            start("iperf3", &["-s", "--forceflush"], "iperf3")?,
            start(&lab.tool("connects"), &["serve", "--at", &here(CONNECTS)], "connects")?,
        ];
        let sink = start(&lab.tool("udpload"), &["sink", "--at", &here(SINK)], "sink")?;
        Ok(Self { servers, sink, namespace })
    }

    /// Datagrams that have reached the sink's socket.
    ///
    /// # Errors
    /// When the sink has ended.
    pub(super) fn arrived(&self) -> Result<u64> {
        proc::udp(self.sink.pid()).map(|udp| udp.arrived())
    }

    fn check(&mut self) -> Result<()> {
        self.sink.check()?;
        self.servers.iter_mut().try_for_each(Process::check)
    }
}

/// A guest's namespace and the stack that it has. Fields are in the order in which they must end.
#[derive(Debug)]
pub(super) struct Site {
    process: Process,
    pub(super) stack: Stack,
    pub(super) mtu: usize,
    pub(super) guest: Namespace,
    /// Descriptors that it has when nothing is connected.
    descriptors: usize,
}

impl Site {
    /// Starts the stack; returns when a connection through it has worked.
    ///
    /// # Errors
    /// When it ends or does not connect.
    pub(super) fn start(lab: &Lab, host: &Host, stack: Stack, mtu: usize) -> Result<Self> {
        let word = format!("{}-{mtu}", stack.name());
        let guest = Namespace::create(&format!("user-{word}"))?;
        let port = interface(stack.name(), &mtu.to_string());
        let process =
            Process::spawn(stack.command(lab, &host.namespace, &guest, &port, mtu), &word, lab.run.path())?;
        let mut site = Self { process, stack, mtu, guest, descriptors: 0 };
        site.reach(lab, host, &port)?;
        site.descriptors = site.descriptors()?;
        Ok(site)
    }

    fn reach(&mut self, lab: &Lab, host: &Host, port: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut there = !self.stack.moves_tap();
        loop {
            if !there
                && ip(&format!("-n {} link set {port} netns {}", host.namespace.name(), self.guest.name()))
                    .is_ok()
            {
                let lines = format!(
                    "addr add {GUEST}/24 dev {port}\nlink set {port} mtu {} up\nroute add default via {HOST}\n",
                    self.mtu
                );
                ip_batch(Some(&self.guest), &lines)?;
                there = true;
            }
            let mut probe = self.guest.command(&lab.tool("connects"));
            probe.args(["run", "--to", &CONNECTS.to_string(), "--count", "1"]);
            let why = match run(&mut probe) {
                Ok(_) => return Ok(()),
                Err(why) => why,
            };
            self.process.check()?;
            lab.go_on()?;
            if Instant::now() > until {
                return Err(Failure::new(format!("no connection: {why}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails when the stack or a server has ended.
    ///
    /// # Errors
    /// With what it printed.
    pub(super) fn check(&mut self, host: &mut Host) -> Result<()> {
        self.process.check()?;
        host.check()
    }

    /// Its processes: netdevd has one for the netdev.
    fn pids(&self) -> Vec<u32> {
        let pid = self.process.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        std::iter::once(pid).chain(children.split_whitespace().filter_map(|word| word.parse().ok())).collect()
    }

    /// Nanoseconds of CPU that its processes have used.
    ///
    /// # Errors
    /// When one has ended.
    pub(super) fn cpu_ns(&self) -> Result<u64> {
        self.pids().into_iter().map(proc::cpu_ns).sum()
    }

    fn descriptors(&self) -> Result<usize> {
        let of = |pid: u32| -> Result<usize> {
            let path = format!("/proc/{pid}/fd");
            Ok(std::fs::read_dir(&path).context(path)?.count())
        };
        self.pids().into_iter().map(of).sum()
    }

    /// Descriptors that connections have left.
    ///
    /// # Errors
    /// When a process has ended.
    pub(super) fn left(&self) -> Result<usize> {
        Ok(self.descriptors()?.saturating_sub(self.descriptors))
    }

    /// Waits until it has forgotten connections that are closed, which would slow down what comes next.
    ///
    /// # Errors
    /// When it has ended, or the user interrupts.
    pub(super) fn rest(&self, lab: &Lab) -> Result<()> {
        let until = Instant::now() + REST;
        while self.left()? > 16 && Instant::now() < until {
            lab.go_on()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_as_many_as_may_be_had() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 20000                files\n";
        assert_eq!(parse_most_descriptors(limits), Some(20_000));
        assert!(most_descriptors() > Some(0));
    }
}
