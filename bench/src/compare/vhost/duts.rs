//! What is measured: netdevd with two nics on a hub, and testpmd with two `net_vhost` ports.

use super::cases::{Case, LARGE};
use super::console::{Console, Forwarded, Setup};
use crate::compare::account::Engine;
use crate::compare::lab::Lab;
use crate::compare::netns::{Namespace, preferred_in};
use crate::compare::process::Process;
use crate::failure::{Context, Failure, Result};
use crate::qmp::Qmp;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a device under test did since [`Dut::begin`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Account {
    /// TSC ticks of polls that found frames, to the end of their transmission.
    pub busy: f64,
    /// Frames that it took in.
    pub frames: f64,
    /// Frames that it dropped.
    pub dropped: f64,
}

impl Account {
    /// Busy ticks a frame.
    #[must_use]
    pub fn cycles(&self) -> f64 {
        self.busy / self.frames.max(1.0)
    }
}

/// A device under test: vhost-user sockets and what moves frames between them.
pub trait Dut {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Its process.
    fn pid(&self) -> u32;

    /// The sockets on which it listens.
    fn sockets(&self) -> &[PathBuf];

    /// Starts an account.
    ///
    /// # Errors
    /// When it does not answer.
    fn begin(&mut self) -> Result<()>;

    /// Reads it.
    ///
    /// # Errors
    /// When it does not answer.
    fn end(&mut self) -> Result<Account>;

    /// Whether it has learned what it needs of the load.
    ///
    /// # Errors
    /// When it does not answer.
    fn settled(&mut self) -> Result<bool> {
        Ok(true)
    }
}

/// The directory of a device and the sockets in it.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
    /// Where guests connect.
    pub sockets: Vec<PathBuf>,
}

impl Home {
    /// A directory for a device with `count` sockets.
    ///
    /// # Errors
    /// No room.
    pub fn new(lab: &Lab, count: usize) -> Result<Self> {
        let directory = tempfile::tempdir_in(lab.run.path()).context("a directory")?;
        let sockets = (0..count).map(|number| directory.path().join(format!("n{number}.sock"))).collect();
        Ok(Self { directory, sockets })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.directory.path()
    }
}

/// How netdevd is started.
#[derive(Debug, Clone)]
pub struct NetdevdSetup {
    /// `-cores`.
    pub cores: String,
    /// `-idle`.
    pub idle: &'static str,
    /// Queue pairs of each nic.
    pub queues: usize,
}

impl NetdevdSetup {
    /// One worker that polls, on the device's CPU.
    #[must_use]
    pub fn polling(lab: &Lab) -> Self {
        Self { cores: lab.dut_cpu.to_string(), idle: "poll", queues: 1 }
    }
}

/// netdevd.
#[derive(Debug)]
pub struct Netdevd {
    process: Process,
    qmp: Qmp,
    before: (Engine, f64),
    home: Home,
}

impl Netdevd {
    /// Starts it on the device's CPU, polling.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::with(lab, &NetdevdSetup::polling(lab))
    }

    /// Starts it as `setup` says.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn with(lab: &Lab, setup: &NetdevdSetup) -> Result<Self> {
        Self::spawn(lab, setup, |number| vec!["-netdev".into(), format!("hubport,id=h{number},hubid=0")])
    }

    /// Starts it with a `vhost-user` netdev for each back-end, on a hub and without nics, or (`nics`) a nic before each; returns
    /// when all of them are served.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn before(lab: &Lab, setup: &NetdevdSetup, backends: &[PathBuf], nics: bool) -> Result<Self> {
        let mut this = Self::spawn(lab, setup, |number| {
            let path = backends.get(number).map(|path| path.display().to_string()).unwrap_or_default();
            let hub = format!("hubport,id=p{number},hubid=0,netdev=h{number}");
            let netdev = [
                "-chardev".into(),
                format!("socket,id=c{number},path={path},reconnect-ms=100"),
                "-netdev".into(),
                format!("vhost-user,id=h{number},chardev=c{number}"),
            ];
            netdev.into_iter().chain((!nics).then(|| ["-netdev".into(), hub]).into_iter().flatten()).collect()
        })?;
        for name in ["h0", "h1"] {
            this.await_ready(name)?;
        }
        Ok(this)
    }

    /// Waits until a netdev is ready.
    ///
    /// # Errors
    /// When it is not within ten seconds, with what it says.
    pub fn await_ready(&mut self, name: &str) -> Result<()> {
        let (started, mut said) = (Instant::now(), serde_json::Value::Null);
        while started.elapsed() < Duration::from_secs(10) {
            let netdevs = self.qmp.execute("query-netdev", json!({"name": name}))?;
            said = netdevs[0]["transport"].clone();
            if said["state"] == "ready" {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::new(format!("netdev '{name}' is not ready: {said}")))
    }

    /// Starts it; `peer` gives the words that make netdev `h0` or `h1`, and each gets a nic unless it has a peer.
    fn spawn(lab: &Lab, setup: &NetdevdSetup, peer: impl Fn(usize) -> Vec<String>) -> Result<Self> {
        let home = Home::new(lab, 2)?;
        let mut words = Vec::new();
        for (number, socket) in home.sockets.iter().enumerate() {
            let peer = peer(number);
            let joined = peer.iter().any(|word| word.ends_with(&format!("netdev=h{number}")));
            words.extend(peer);
            if joined {
                continue;
            }
            let queues = if setup.queues > 1 { format!(",queues={}", setup.queues) } else { String::new() };
            let path = socket.display();
            words
                .extend(["-netdev".into(), format!("nic,id=n{number},netdev=h{number},addr={path}{queues}")]);
        }
        Self::launch(lab, setup, home, None, &words)
    }

    /// Starts it with these netdevs, in a namespace where one is given.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn launch(
        lab: &Lab,
        setup: &NetdevdSetup,
        home: Home,
        inside: Option<&Namespace>,
        words: &[String],
    ) -> Result<Self> {
        let qmp = home.path().join("qmp.sock");
        let mut command = preferred_in(inside, lab.binaries.join("netdevd"));
        command.args(["-cores", &setup.cores, "-idle", setup.idle]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())]).args(words);
        let mut process = Process::spawn(command, "netdevd", home.path())?;
        let qmp = match Qmp::connect(&qmp, Duration::from_secs(10)) {
            Ok(qmp) => qmp,
            Err(failure) => {
                process.check()?;
                return Err(failure);
            }
        };
        Ok(Self { process, qmp, before: (Engine::default(), 0.0), home })
    }

    /// All its counters, and the frames that its workers took in.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn counters(&mut self) -> Result<(Engine, f64)> {
        let stats = self.qmp.execute("query-net-stats", json!({}))?;
        let workers = stats["workers"].as_array().into_iter().flatten();
        let frames = workers.filter_map(|worker| worker["frames"].as_f64()).sum();
        Ok((Engine::parse(&stats), frames))
    }

    /// Sends it a command and waits for what it returns.
    ///
    /// # Errors
    /// When it refuses or does not answer.
    pub fn ask(&mut self, command: &str, arguments: serde_json::Value) -> Result<serde_json::Value> {
        self.qmp.execute(command, arguments)
    }

    /// Ends it as nothing can prevent (SIGKILL).
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With what it printed.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}

impl Dut for Netdevd {
    fn name(&self) -> &'static str {
        "netdevd"
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn sockets(&self) -> &[PathBuf] {
        &self.home.sockets
    }

    fn begin(&mut self) -> Result<()> {
        self.before = self.counters()?;
        Ok(())
    }

    fn end(&mut self) -> Result<Account> {
        let (now, frames) = self.counters()?;
        let since = now.since(&self.before.0);
        Ok(Account {
            busy: since.busy_ticks as f64,
            frames: frames - self.before.1,
            dropped: since.drops.values().sum::<u64>() as f64,
        })
    }
}

/// testpmd with two `net_vhost` ports, forwarding as they come.
#[derive(Debug)]
pub struct Testpmd {
    console: Console,
    home: Home,
}

impl Testpmd {
    /// Starts it on the device's CPU for guests as in `case`.
    ///
    /// # Errors
    /// When it does not come up; it needs 512 MiB of hugepages.
    pub fn start(lab: &Lab, case: &Case) -> Result<Self> {
        let home = Home::new(lab, 2)?;
        let large = case.size == LARGE;
        // 64 KiB frames: the offloads have to be offered, and the header has to survive from one ring to the other.
        let offloads = if large { ",tso=1,legacy-ol-flags=1" } else { "" };
        let vdev = |(number, socket): (usize, &PathBuf)| {
            format!("net_vhost{number},iface={},queues=1{offloads}", socket.display())
        };
        let mut options = vec!["--txd=1024".to_owned(), "--rxd=1024".to_owned()];
        if large {
            options.extend(LARGE_MBUFS.map(str::to_owned));
        }
        let setup = Setup {
            name: "dut",
            cpu: lab.dut_cpu,
            inside: None,
            memory: if large { 1024 } else { 512 },
            vdevs: home.sockets.iter().enumerate().map(vdev).collect(),
            options,
        };
        Self::launch(&setup, home)
    }

    /// Starts it as `setup` says.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn launch(setup: &Setup<'_>, home: Home) -> Result<Self> {
        let mut console = Console::start(setup)?;
        console.command("start")?;
        Ok(Self { console, home })
    }

    /// Makes it try again, for seconds, what a full ring does not take; by itself it drops that.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn patient(&mut self) -> Result<()> {
        for line in ["stop", "set fwd io retry", "set burst tx delay 1 retry 5000000", "start"] {
            self.console.command(line)?;
        }
        Ok(())
    }
}

/// Buffers of testpmd for 64 KiB frames.
const LARGE_MBUFS: [&str; 2] = ["--total-num-mbufs=65536", "--burst=8"];

impl Dut for Testpmd {
    fn name(&self) -> &'static str {
        "testpmd"
    }

    fn pid(&self) -> u32 {
        self.console.pid()
    }

    fn sockets(&self) -> &[PathBuf] {
        &self.home.sockets
    }

    fn begin(&mut self) -> Result<()> {
        self.console.command("clear fwd stats all").map(drop)
    }

    fn end(&mut self) -> Result<Account> {
        let text = self.console.command("show fwd stats all")?;
        let Forwarded { cycles, frames, dropped } = Forwarded::parse(&text)
            .ok_or_else(|| Failure::new(format!("testpmd counted nothing: {text}")))?;
        Ok(Account { busy: cycles, frames, dropped })
    }
}
