//! What carries frames: netdevd and QEMU without a guest, started with the same netdevs.

use crate::compare::account::Engine;
use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, preferred_in};
use crate::compare::peer::{Daemon, Peer};
use crate::compare::process::Process;
use crate::compare::vhost::duts::{Account, Dut, Home};
use crate::failure::{Failure, Result};
use crate::proc;
use crate::qmp::Qmp;
use engine::worker::clock::Clock;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// netdevd with one worker that never sleeps.
    Polling,
    /// netdevd as it is by default.
    Netdevd,
    /// QEMU without a guest.
    Qemu,
}

/// How it is started.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Which.
    pub program: Program,
    /// The CPU of what moves frames in it.
    pub cpu: usize,
    /// Where.
    pub inside: &'a Namespace,
}

/// Why there is no QEMU, if so.
#[must_use]
pub fn without_qemu(lab: &Lab) -> Option<String> {
    Daemon::qemu(lab).missing()
}

/// The options that join the netdevs `ids` on hub `hub`, behind those that make them.
#[must_use]
pub fn on_hub(hub: usize, netdevs: [(&str, String); 2]) -> Vec<String> {
    let words = |(id, netdev): (&str, String)| {
        ["-netdev".into(), netdev, "-netdev".into(), format!("hubport,id=h{id},hubid={hub},netdev={id}")]
    };
    netdevs.into_iter().flat_map(words).collect()
}

/// A running daemon.
#[derive(Debug)]
pub struct Carrier {
    process: Process,
    qmp: Qmp,
    program: Program,
    /// Of the time stamp counter.
    hz: f64,
    before: f64,
    _home: Home,
}

impl Carrier {
    /// Starts it with these options.
    ///
    /// # Errors
    /// When it does not come up, with what it printed.
    pub fn start(lab: &Lab, start: &Start<'_>, words: &[String]) -> Result<Self> {
        let home = Home::new(lab, 0)?;
        let socket = home.path().join("qmp.sock");
        let cpu = start.cpu.to_string();
        let mut command = if start.program == Program::Qemu {
            let mut command = preferred_in(Some(start.inside), "taskset");
            command.args(["-c", &cpu]).arg(Daemon::qemu(lab).program());
            command.args("-M none -nodefaults -display none -monitor none".split(' '));
            command
        } else {
            let mut command = preferred_in(Some(start.inside), Daemon::netdevd(lab).program());
            command.args(["-cores", &cpu]);
            if start.program == Program::Polling {
                command.args(["-idle", "poll"]);
            }
            command
        };
        command.args(words).arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        let name = if start.program == Program::Qemu { "qemu" } else { "netdevd" };
        let mut process = Process::spawn(command, name, home.path())?;
        let qmp = connect(&mut process, &socket)?;
        let hz = Clock::calibrate().hz() as f64;
        Ok(Self { process, qmp, program: start.program, hz, before: 0.0, _home: home })
    }

    /// Nanoseconds of CPU that it has used, also those of a worker that only looks.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_ns(&self) -> Result<u64> {
        proc::cpu_ns(self.process.pid())
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With what it printed.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Ticks that it was busy: those that netdevd counts itself, since it looks all the time, and all the time of QEMU.
    fn busy(&mut self) -> Result<f64> {
        match self.program {
            Program::Polling => Ok(Engine::read(&mut self.qmp)?.busy_ticks as f64),
            Program::Netdevd | Program::Qemu => Ok(self.cpu_ns()? as f64 / 1e9 * self.hz),
        }
    }
}

/// Connects as soon as it listens; one that ended says why.
fn connect(process: &mut Process, socket: &Path) -> Result<Qmp> {
    for _ in 0..100 {
        if let Ok(qmp) = Qmp::connect(socket, Duration::from_millis(100)) {
            return Ok(qmp);
        }
        process.check()?;
    }
    Err(Failure::new("no answer on QMP"))
}

impl Dut for Carrier {
    fn name(&self) -> &'static str {
        match self.program {
            Program::Polling | Program::Netdevd => "netdevd",
            Program::Qemu => "qemu",
        }
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn sockets(&self) -> &[PathBuf] {
        &[]
    }

    fn begin(&mut self) -> Result<()> {
        self.before = self.busy()?;
        Ok(())
    }

    /// Without frames: what arrived counts, not what it says.
    fn end(&mut self) -> Result<Account> {
        self.check()?;
        Ok(Account { busy: self.busy()? - self.before, ..Account::default() })
    }
}
