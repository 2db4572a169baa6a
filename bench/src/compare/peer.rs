//! What can join two namespaces: netdevd and those it is measured against. Each gives two interfaces.

use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, ip};
use crate::compare::process::Process;
use crate::failure::{Failure, Result};
use crate::qmp::Qmp;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A way to join two namespaces.
pub trait Peer: std::fmt::Debug {
    /// Its name in tables and files.
    fn name(&self) -> &'static str;

    /// Why it cannot run here, if so.
    fn missing(&self) -> Option<String>;

    /// Starts it, with two interfaces in the current namespace.
    ///
    /// # Errors
    /// When it does not come up.
    fn start(&self, lab: &Lab) -> Result<Running>;
}

/// A started peer. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    /// Its process, if it is one.
    pub process: Option<Process>,
    /// Its QMP socket, if it has one.
    pub qmp: Option<PathBuf>,
    /// The two interfaces.
    pub ports: [String; 2],
    /// A namespace that belongs to it (the bridge's).
    _inside: Option<Namespace>,
}

/// All peers, netdevd first.
pub fn all(lab: &Lab) -> Vec<Box<dyn Peer>> {
    let [netdevd, qemu] = [Daemon::netdevd(lab), Daemon::qemu(lab)];
    vec![Box::new(netdevd), Box::new(qemu), Box::new(Bridge), Box::new(Veth)]
}

/// A program that takes QEMU's options and speaks QMP.
#[derive(Debug, Clone)]
pub struct Daemon {
    name: &'static str,
    program: PathBuf,
    /// Options before the netdevs.
    options: Vec<String>,
}

impl Daemon {
    /// netdevd on the device's CPU, idling as it does by default.
    pub fn netdevd(lab: &Lab) -> Self {
        let options = vec!["-cores".into(), lab.dut_cpu.to_string()];
        Self { name: "netdevd", program: lab.binaries.join("netdevd"), options }
    }

    /// netdevd that never sleeps.
    pub fn netdevd_polling(lab: &Lab) -> Self {
        let mut daemon = Self::netdevd(lab);
        daemon.name = "netdevd-poll";
        daemon.options.extend(["-idle".into(), "poll".into()]);
        daemon
    }

    /// QEMU without a guest: `$QEMU`, the reference that `scripts/oracle` fetched, or the system's.
    pub fn qemu(lab: &Lab) -> Self {
        let options = "-M none -nodefaults -display none -monitor none".split(' ').map(Into::into).collect();
        Self { name: "qemu", program: find_qemu(&lab.target), options }
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts it on the device's CPU with these further options and a QMP socket; waits until QMP answers.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub fn launch(&self, lab: &Lab, words: &[String]) -> Result<(Process, PathBuf)> {
        let socket = lab.run.path().join(format!("{}.sock", self.name));
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("taskset");
        command.args(["-c", &lab.dut_cpu.to_string()]).arg(&self.program).args(&self.options).args(words);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        let mut process = Process::spawn(command, self.name, lab.run.path())?;
        match Qmp::connect(&socket, Duration::from_secs(10)) {
            Ok(_) => Ok((process, socket)),
            Err(failure) => {
                process.check()?;
                Err(Failure::new(format!("{}: {failure}", self.name)))
            }
        }
    }
}

/// Options of a tap named `interface` with id `id`, joined to hub `hub`.
pub fn tap_on_hub(id: &str, interface: &str, hub: usize) -> [String; 4] {
    [
        "-netdev".into(),
        format!("tap,id={id},ifname={interface},script=no,downscript=no"),
        "-netdev".into(),
        format!("hubport,id=h{id},hubid={hub},netdev={id}"),
    ]
}

/// An interface name of this process: at most 15 characters.
pub fn interface(peer: &str, port: &str) -> String {
    format!("n{}{}{port}", std::process::id(), &peer[..1])
}

impl Peer for Daemon {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        let found = if self.program.components().count() > 1 {
            self.program.exists()
        } else {
            on_path(&self.program)
        };
        (!found).then(|| format!("{} is not there", self.program.display()))
    }

    fn start(&self, lab: &Lab) -> Result<Running> {
        let ports = ["a", "b"].map(|port| interface(self.name, port));
        let words = [tap_on_hub("a", &ports[0], 0), tap_on_hub("b", &ports[1], 0)].concat();
        let (process, socket) = self.launch(lab, &words)?;
        Ok(Running { process: Some(process), qmp: Some(socket), ports, _inside: None })
    }
}

fn find_qemu(target: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("QEMU") {
        return path.into();
    }
    let oracle = target.join("oracle/qemu-system-x86_64");
    if oracle.exists() { oracle } else { "qemu-system-x86_64".into() }
}

/// Whether a program of this name would be found.
pub(super) fn on_path(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The kernel's bridge between two veth pairs: no copy to user space, all work in the sender's context.
#[derive(Debug)]
struct Bridge;

impl Peer for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn start(&self, _: &Lab) -> Result<Running> {
        let inside = Namespace::create("bridge")?;
        let here = inside.name();
        ip(&format!("-n {here} link add name hub type bridge"))?;
        ip(&format!("-n {here} link set hub up"))?;
        let ports = ["a", "b"].map(|port| interface(self.name(), port));
        for port in &ports {
            ip(&format!("link add name {port} type veth peer name {port} netns {here}"))?;
            ip(&format!("-n {here} link set {port} master hub up"))?;
        }
        Ok(Running { process: None, qmp: None, ports, _inside: Some(inside) })
    }
}

/// One veth pair: the kernel with nothing between.
#[derive(Debug)]
struct Veth;

impl Peer for Veth {
    fn name(&self) -> &'static str {
        "veth"
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn start(&self, _: &Lab) -> Result<Running> {
        let ports = ["a", "b"].map(|port| interface(self.name(), port));
        ip(&format!("link add name {} type veth peer name {}", ports[0], ports[1]))?;
        Ok(Running { process: None, qmp: None, ports, _inside: None })
    }
}
