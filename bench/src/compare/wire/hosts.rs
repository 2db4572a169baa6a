//! Two hosts, each a namespace, joined by a veth pair and a tunnel over it: a daemon on both sides with a tap to its host, or the kernel's
//! VXLAN device. TCP goes through the tunnel.

use super::cases::{Ends, SESSION, Transport, VXLAN_PORT, tap};
use super::duts::{Carrier, Program, Start, on_hub};
use crate::compare::lab::{Lab, progress};
use crate::compare::netns::{Namespace, address, ip_batch, preferred_in};
use crate::compare::process::{Process, run};
use crate::failure::{Context, Failure, Result};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// What makes the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// A daemon on each side.
    Daemons(Program, Transport),
    /// The kernel's VXLAN device.
    Kernel,
}

/// How hosts are set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// What makes the tunnel.
    pub tunnel: Tunnel,
    /// Whether large packets of the tunnel cross the veth pair as one.
    pub segmentation: bool,
    /// Each host has a CPU for its daemon and its program; else all daemons have that of the device, and all programs that of the load.
    pub spread: bool,
}

/// Names, in each namespace, of the veth interface and of the tunnel's.
const UNDER: &str = "under";
const OVER: &str = "over";
/// MTU of the tunnel, and of what carries it: no packet of any transport is cut.
const MTU: usize = 1500;
const UNDER_MTU: usize = 1600;
/// Port of transports that have no own.
const PORT: u16 = 21_000;
/// Features of an interface by which large packets of a tunnel cross it as one: those of the kernel's tunnels, and those of a socket.
const FEATURES: [&str; 3] =
    ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-udp-segmentation"];

/// How long the hosts may take to reach each other.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hosts. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Hosts {
    iperf: Process,
    daemons: Vec<Carrier>,
    /// Of the programs: client and server.
    cpus: [usize; 2],
    a: Namespace,
    _b: Namespace,
}

/// What one run gave.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Gbit/s that arrived.
    pub gbits: f64,
    /// The share of a CPU that the daemons took, together.
    pub cpu: f64,
}

/// The address of host `number` under the tunnel.
fn under(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, number)
}

impl Hosts {
    /// Makes the hosts `word`, joins them and starts the server.
    ///
    /// # Errors
    /// When a daemon does not come up, or they do not reach each other.
    pub fn join(lab: &Lab, setup: &Setup, word: &str) -> Result<Self> {
        let both = [Namespace::create(&format!("{word}-a"))?, Namespace::create(&format!("{word}-b"))?];
        lay(&both, setup.segmentation)?;
        let cpus = if setup.spread { [lab.dut_cpu, lab.load_cpu] } else { [lab.dut_cpu; 2] };
        let mut daemons = Vec::new();
        // The second host listens, so it comes first.
        for number in [2, 1] {
            let host = &both[usize::from(number) - 1];
            match setup.tunnel {
                Tunnel::Kernel => kernel(host, number)?,
                Tunnel::Daemons(program, transport) => {
                    let start = Start { program, cpu: cpus[usize::from(number) - 1], inside: host };
                    daemons.push(daemon(lab, &start, transport, number)?);
                }
            }
            host.name_host(OVER, number)?;
            host.knows(OVER, 3 - number)?;
        }
        let cpus = if setup.spread { cpus } else { [lab.load_cpu; 2] };
        let [a, b] = both;
        let mut server = preferred_in(Some(&b), "taskset");
        server.args(["-c", &cpus[1].to_string(), "iperf3", "-s", "--forceflush"]);
        let mut iperf = Process::spawn(server, &format!("{word}-iperf3"), lab.run.path())?;
        iperf.wait_for("listening")?;
        let mut hosts = Self { iperf, daemons, cpus, a, _b: b };
        progress(&format!("{word}: waiting until the hosts reach each other"));
        hosts.reach(lab)?;
        Ok(hosts)
    }

    fn reach(&mut self, lab: &Lab) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut ping = preferred_in(Some(&self.a), lab.tool("pinglat"));
            ping.args(["icmp", "--to", &address(2).to_string(), "--secs", "0.02"]);
            let answered = run(&mut ping).ok().and_then(|line| serde_json::from_str::<Value>(&line).ok());
            if answered.is_some_and(|line| line["count"].as_u64() > Some(0)) {
                return Ok(());
            }
            self.alive()?;
            lab.go_on()?;
            if Instant::now() > until {
                return Err(Failure::new("the hosts do not reach each other"));
            }
        }
    }

    fn alive(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Carrier::check)?;
        self.iperf.check()
    }

    fn cpu_ns(&self) -> Result<u64> {
        self.daemons.iter().map(Carrier::cpu_ns).sum()
    }

    /// One TCP flow from the first host to the second for `secs` seconds.
    ///
    /// # Errors
    /// When it breaks, or a daemon ends.
    pub fn flow(&mut self, secs: u32) -> Result<Flow> {
        let (before, start) = (self.cpu_ns()?, Instant::now());
        let mut client = preferred_in(Some(&self.a), "timeout");
        client.args([&(secs + 15).to_string(), "taskset", "-c", &self.cpus[0].to_string(), "iperf3"]);
        client.args(["-c", &address(2).to_string(), "-J", "-t", &secs.to_string()]);
        let text = run(&mut client);
        self.alive()?;
        let report: Value = serde_json::from_str(text?.trim()).context("iperf3's report")?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        let bits = bits.ok_or_else(|| Failure::new(format!("iperf3: {}", report["error"])))?;
        let cpu = (self.cpu_ns()? - before) as f64 / start.elapsed().as_nanos() as f64;
        Ok(Flow { gbits: bits / 1e9, cpu })
    }
}

/// Lays the veth pair between two hosts.
fn lay([a, b]: &[Namespace; 2], segmentation: bool) -> Result<()> {
    let (here, there) = (a.name(), b.name());
    let pair = format!(
        "link add {UNDER} netns {here} mtu {UNDER_MTU} type veth peer name {UNDER} netns {there} mtu {UNDER_MTU}\n"
    );
    ip_batch(None, &pair)?;
    for (host, number) in [(a, 1), (b, 2)] {
        let lines = format!(
            "link set {UNDER} mtu {UNDER_MTU}\naddr add {}/24 dev {UNDER}\nlink set {UNDER} up\n",
            under(number)
        );
        ip_batch(Some(host), &lines)?;
        if !segmentation {
            let mut command = host.command("ethtool");
            command.args(["-K", UNDER]).args(FEATURES.iter().flat_map(|feature| [*feature, "off"]));
            run(&mut command)?;
        }
    }
    Ok(())
}

/// Makes the kernel's device.
fn kernel(host: &Namespace, number: u8) -> Result<()> {
    let (local, remote) = (under(number), under(3 - number));
    let tunnel = format!("vxlan id {SESSION} local {local} remote {remote} dstport {VXLAN_PORT} dev {UNDER}");
    ip_batch(Some(host), &format!("link add {OVER} mtu {MTU} type {tunnel}\n")).context("the kernel's vxlan")
}

/// Starts a daemon with a tap to its host.
fn daemon(lab: &Lab, start: &Start<'_>, transport: Transport, number: u8) -> Result<Carrier> {
    let at = |number| SocketAddrV4::new(under(number), PORT);
    let ends = Ends { local: at(number), remote: at(3 - number), listens: number == 2 };
    let words = on_hub(0, [("t", tap("t", OVER)), ("w", transport.netdev("w", &ends))]);
    Carrier::start(lab, start, &words)
}
