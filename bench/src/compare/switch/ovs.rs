//! OVS-DPDK for one run: its own directory, database and network namespace, no service of the system, one polling thread.
//!
//! The namespace takes the interfaces that the userspace datapath makes (`ovs-netdev`, `br0`), and they go with it.

use super::cases::PORTS;
use super::unixctl::{Polling, Unixctl};
use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, preferred_in};
use crate::compare::process::{Process, run};
use crate::compare::vhost::duts::{Account, Dut, Home};
use crate::failure::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps the build with DPDK.
const SWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A running OVS with three vhost-user ports on one bridge. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Ovs {
    ctl: Unixctl,
    before: Polling,
    /// Upcalls when [`Dut::settled`] was asked last.
    asked: f64,
    switchd: Process,
    _database: Process,
    home: Home,
    _namespace: Namespace,
}

/// A command of Open vSwitch with its files in `home`.
fn command(mut command: Command, home: &Path) -> Command {
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"] {
        command.env(name, home);
    }
    command
}

impl Ovs {
    /// Starts it: a learning bridge (`NORMAL`), or (`flows`) a static flow from each port to the next.
    ///
    /// # Errors
    /// When it is not installed, or does not come up; it needs 512 MiB of hugepages.
    pub fn start(lab: &Lab, flows: bool) -> Result<Self> {
        // Drops in the opposite order of making, should something fail on the way.
        let namespace = Namespace::create("ovs")?;
        let mut home = Home::new(lab, 0)?;
        let at = home.path().to_path_buf();
        home.sockets = (0..PORTS).map(|number| at.join(format!("p{number}"))).collect();
        let tool = |program: &str| command(Command::new(program), &at);
        run(tool("ovsdb-tool").arg("create").arg(at.join("conf.db")).arg(SCHEMA)).context("Open vSwitch")?;
        let database = format!("unix:{}", at.join("db.sock").display());
        let mut server = command(preferred_in(Some(&namespace), "ovsdb-server"), &at);
        server.arg(at.join("conf.db")).arg(format!("--remote=p{database}")).arg("--no-chdir");
        let database_server = Process::spawn(server, "ovsdb-server", &at)?;
        let vsctl = |words: &[String]| {
            let mut vsctl = tool("ovs-vsctl");
            vsctl.args([&format!("--db={database}"), "--retry", "--timeout=60"]).args(words);
            run(&mut vsctl)
        };
        vsctl(&settings(lab))?;
        let socket = at.join("vswitchd.ctl");
        let mut switchd = command(preferred_in(Some(&namespace), SWITCHD), &at);
        switchd.arg(&database).arg(format!("--unixctl={}", socket.display())).arg("--no-chdir");
        let mut switchd = Process::spawn(switchd, "ovs-vswitchd", &at)?;
        // It returns when the switch has done as told.
        vsctl(&bridge()).or_else(|failure| switchd.check().and(Err(failure)))?;
        if flows {
            let bridge = format!("unix:{}", at.join("br0.mgmt").display());
            run(tool("ovs-ofctl").args(["del-flows", &bridge]))?;
            for port in 1..=PORTS {
                let flow = format!("in_port={port},actions=output:{}", port % PORTS + 1);
                run(tool("ovs-ofctl").args(["add-flow", &bridge, &flow]))?;
            }
        }
        let ctl = Unixctl::connect(&socket)?;
        let before = Polling::default();
        Ok(Self {
            ctl,
            before,
            asked: -1.0,
            switchd,
            _database: database_server,
            home,
            _namespace: namespace,
        })
    }

    fn polling(&mut self) -> Result<Polling> {
        self.ctl.call("dpif-netdev/pmd-stats-show").map(|text| Polling::parse(&text))
    }
}

/// One polling thread on the device's CPU, everything else on the other; flows that stay while this switch stands still.
fn settings(lab: &Lab) -> Vec<String> {
    let mask = |cpu: usize| format!("{:#x}", 1u64 << cpu);
    let extra =
        format!("--no-pci --in-memory --single-file-segments --file-prefix nd{}ovs", std::process::id());
    let mut words: Vec<String> =
        ["--no-wait", "init", "--", "set", "Open_vSwitch", "."].map(str::to_owned).into();
    for (name, value) in [
        ("dpdk-init", "true"),
        ("pmd-cpu-mask", mask(lab.dut_cpu).as_str()),
        ("dpdk-lcore-mask", mask(lab.load_cpu).as_str()),
        ("dpdk-socket-mem", "512"),
        ("dpdk-extra", format!("\"{extra}\"").as_str()),
        ("max-idle", "3600000"),
    ] {
        words.push(format!("other_config:{name}={value}"));
    }
    words
}

/// A bridge in user space that holds all addresses, and its ports.
fn bridge() -> Vec<String> {
    let mut words = vec!["add-br br0 -- set bridge br0 datapath_type=netdev".to_owned()];
    words.push("other_config:mac-table-size=65536 other_config:mac-aging-time=3600".into());
    for port in 0..PORTS {
        words.push(format!("-- add-port br0 p{port} -- set Interface p{port} type=dpdkvhostuser"));
        words.push(format!("ofport_request={}", port + 1));
    }
    words.iter().flat_map(|words| words.split(' ')).map(str::to_owned).collect()
}

impl Dut for Ovs {
    fn name(&self) -> &'static str {
        "OVS-DPDK"
    }

    fn pid(&self) -> u32 {
        self.switchd.pid()
    }

    fn sockets(&self) -> &[PathBuf] {
        &self.home.sockets
    }

    fn begin(&mut self) -> Result<()> {
        self.before = self.polling()?;
        Ok(())
    }

    /// `dropped` are the upcalls.
    fn end(&mut self) -> Result<Account> {
        let (now, then) = (self.polling()?, self.before);
        Ok(Account {
            busy: now.busy - then.busy,
            frames: now.frames - then.frames,
            dropped: now.upcalls - then.upcalls,
        })
    }

    /// Whether it had to ask for no flow since this was asked last.
    fn settled(&mut self) -> Result<bool> {
        let upcalls = self.polling()?.upcalls;
        Ok(std::mem::replace(&mut self.asked, upcalls) == upcalls)
    }
}
