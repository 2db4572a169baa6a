//! VDE: netdevd's `vde` netdev on a `vde_switch` with a tap behind it, beside `vde_plug2tap` on such a switch; each alone on its CPU, one way at
//! a time, since two plugs that share a CPU mostly wait for each other.
//!
//! The switch runs on the load's CPU, before the source. It takes two or three system calls a frame, so it may be what limits both sides; then
//! what counts is the CPU time that a plug takes a frame.

use super::cases::{TAPS, Way, tap};
use super::duts::{Carrier, Program, Start, on_hub};
use super::frames::ready;
use super::load::{Sink, Wire, raise};
use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, preferred_in};
use crate::compare::process::{Process, run};
use crate::compare::vhost::duts::{Account, Dut, Home};
use crate::compare::vhost::quads::{Side, priority};
use crate::failure::{Context, Failure, Result};
use crate::{proc, sched};
use engine::worker::clock::Clock;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How many times as good as `vde_plug2tap` is wanted.
pub const WANT: f64 = 1.5;
/// Datagrams that a unix socket holds, as systemd sets it on nearly every host; the kernel's own default of 10 makes all programs change places
/// every ten frames.
const QUEUE: &str = "net.unix.max_dgram_qlen=512";
/// How long the switch may take to come up or to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The two ways.
pub const WAYS: [Way; 2] = [Way::Out, Way::In];

/// What `--only` names, and what tables show.
#[must_use]
pub fn names(way: Way) -> [String; 2] {
    match way {
        Way::In => ["vde-tap".into(), "vde_switch -> tap".into()],
        _ => ["tap-vde".into(), "tap -> vde_switch".into()],
    }
}

/// One side: a daemon where there is a `program`, else a plug.
///
/// # Errors
/// When it does not come up, or nothing gets through.
pub fn side(lab: &Lab, program: Option<Program>, way: Way, word: &str) -> Result<Side<Wire>> {
    let inside = Namespace::create(word)?;
    run(inside.command("sysctl").args(["-qw", QUEUE]))?;
    let home = Home::new(lab, 0)?;
    let switch = Switch::start(lab, home, &inside)?;
    let (interface, at) = (TAPS[0], &switch.at);
    let dut: Box<dyn Dut> = match program {
        Some(program) => {
            let start = Start { program, cpu: lab.dut_cpu, inside: &inside };
            let vde = format!("vde,id=v,sock={}", at.display());
            Box::new(Carrier::start(lab, &start, &on_hub(0, [("t", tap("t", interface)), ("v", vde)]))?)
        }
        None => Box::new(Plug::start(lab, &inside, &switch, interface)?),
    };
    raise(&inside, &[interface])?;
    let (words, sink) = match way {
        Way::In => (["--vde".into(), at.display().to_string()], Sink::tap(&inside, interface)?),
        _ => (["--packet".into(), interface.into()], Sink::Switch(switch.console()?)),
    };
    let load = Wire::start(lab, inside, &words, sink, Some(switch))?;
    ready(lab, dut, load)
}

/// A `vde_switch` on the load's CPU, which runs before the load.
#[derive(Debug)]
pub struct Switch {
    _process: Process,
    /// Its control directory.
    at: PathBuf,
    home: Home,
}

fn on(inside: &Namespace, cpu: usize, program: &str) -> Command {
    let mut command = preferred_in(Some(inside), "taskset");
    command.args(["-c", &cpu.to_string(), program]);
    command
}

impl Switch {
    fn start(lab: &Lab, home: Home, inside: &Namespace) -> Result<Self> {
        let at = home.path().join("switch");
        let console = home.path().join("console");
        let mut command = on(inside, lab.load_cpu, "vde_switch");
        command.arg("-s").arg(&at).arg("-M").arg(&console);
        let mut process = Process::spawn(command, "vde_switch", home.path())?;
        for _ in 0..PATIENCE.as_millis() / 5 {
            process.check()?;
            if at.join("ctl").exists() && console.exists() {
                let _ = sched::real_time_threads(process.pid(), priority);
                return Ok(Self { _process: process, at, home });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Failure::new("vde_switch does not come up"))
    }

    fn console(&self) -> Result<Console> {
        Console::connect(&self.home.path().join("console"))
    }
}

/// The management console of a switch, which counts what comes in.
#[derive(Debug)]
pub struct Console(UnixStream);

impl Console {
    fn connect(at: &Path) -> Result<Self> {
        let stream = UnixStream::connect(at).context(at.display())?;
        stream.set_read_timeout(Some(PATIENCE)).context(at.display())?;
        let mut this = Self(stream);
        this.read_to("vde$ ")?;
        Ok(this)
    }

    fn read_to(&mut self, end: &str) -> Result<String> {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains(end) {
            match self.0.read(&mut buffer).context("vde_switch's console")? {
                0 => return Err(Failure::new("vde_switch closed its console")),
                len => text.push_str(&String::from_utf8_lossy(buffer.get(..len).unwrap_or_default())),
            }
        }
        Ok(text)
    }

    /// Frames that came in at all ports.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn taken(&mut self) -> Result<u64> {
        self.0.write_all(b"port/allprint\n").context("vde_switch's console")?;
        let text = self.read_to("vde$ ")?;
        parse(&text).ok_or_else(|| Failure::new(format!("vde_switch counts no frames: {text}")))
    }
}

/// The sum of what `port/allprint` says of frames that came in; nothing where no port says it.
fn parse(text: &str) -> Option<u64> {
    let of = |line: &str| {
        line.trim().strip_prefix("IN:")?.trim().strip_prefix("pkts")?.split_whitespace().next()?.parse().ok()
    };
    text.lines().filter_map(of).reduce(|sum: u64, more| sum + more)
}

/// A `vde_plug2tap`.
#[derive(Debug)]
struct Plug {
    process: Process,
    hz: f64,
    before: f64,
}

impl Plug {
    /// Starts it; it makes its tap.
    fn start(lab: &Lab, inside: &Namespace, switch: &Switch, interface: &str) -> Result<Self> {
        let mut command = on(inside, lab.dut_cpu, "vde_plug2tap");
        command.arg("-s").arg(&switch.at).arg(interface);
        let process = Process::spawn(command, "vde_plug2tap", switch.home.path())?;
        Ok(Self { process, hz: Clock::calibrate().hz() as f64, before: 0.0 })
    }

    fn busy(&mut self) -> Result<f64> {
        self.process.check()?;
        Ok(proc::cpu_ns(self.process.pid())? as f64 / 1e9 * self.hz)
    }
}

impl Dut for Plug {
    fn name(&self) -> &'static str {
        "vde_plug2tap"
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

    fn end(&mut self) -> Result<Account> {
        Ok(Account { busy: self.busy()? - self.before, ..Account::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_ports_are_added() {
        let text = "Port 0001 untagged_vlan=0000 ACTIVE\n IN:  pkts          9          bytes                  810\n \
                    OUT: pkts         70          bytes 7\nPort 0002\n IN:  pkts         30          bytes 1\n.\n";
        assert_eq!((parse(text), parse("1000 Success")), (Some(39), None));
    }
}
