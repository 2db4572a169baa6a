//! Two veth pairs between a namespace for the load and one for a device, and the load on them: a packet socket, a guest, or both.

use super::cases::{Case, Work};
use crate::compare::lab::Lab;
use crate::compare::netns::{Counters, Namespace, ip_batch};
use crate::compare::vhost::load::{Got, Load, Pktgen, Want};
use crate::failure::Result;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Interfaces `ga` and `gb` of the load's, joined to `da` and `db` of the device's.
#[derive(Debug)]
pub struct Lane {
    /// Where the load is.
    pub load: Namespace,
    /// Where the device is.
    pub dut: Namespace,
}

impl Lane {
    /// Makes the namespaces `word`.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN or iproute2.
    pub fn create(word: &str) -> Result<Self> {
        let load = Namespace::create(&format!("{word}-load"))?;
        let dut = Namespace::create(&format!("{word}-dut"))?;
        let pair = |at| {
            let (here, there) = (load.name(), dut.name());
            format!("link add g{at} netns {here} type veth peer name d{at} netns {there}\n")
        };
        ip_batch(None, &(pair("a") + &pair("b")))?;
        ip_batch(Some(&load), "link set ga up\nlink set gb up\n")?;
        ip_batch(Some(&dut), "link set da up\nlink set db up\n")?;
        Ok(Self { load, dut })
    }
}

/// The load of one device. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Veth {
    /// Nothing where the device makes its own frames.
    pktgen: Option<Pktgen>,
    work: Work,
    counters: Counters,
    before: u64,
    begun: Instant,
    _lane: Lane,
}

/// What the load did in a leg.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    got: Option<Got>,
    /// Frames that had arrived, and when, where nothing but the clock ends the sending.
    arrived: u64,
    secs: f64,
}

impl Veth {
    /// Starts the load of a case; `guest` makes the frames of `Transmit` come from a guest.
    ///
    /// # Errors
    /// When pktgen does not come up.
    pub fn start(lab: &Lab, lane: Lane, case: &Case, guest: bool, sockets: &[PathBuf]) -> Result<Self> {
        // A guest that sends a burst by packet socket looks at its own ring a while later.
        let ring = if case.work == Work::Guest { "1024" } else { "256" };
        let mut words = ["--ring", ring, "--size"].map(str::to_owned).to_vec();
        words.push(case.size.to_string());
        if case.work != Work::Transmit {
            words.extend(["--packet".to_owned(), "ga".to_owned()]);
        }
        let idle = case.work == Work::Transmit && !guest;
        let pktgen = (!idle).then(|| Pktgen::inside(lab, &lane.load, &words, sockets)).transpose()?;
        let counters = lane.load.counters()?;
        Ok(Self { pktgen, work: case.work, counters, before: 0, begun: Instant::now(), _lane: lane })
    }

    /// Frames that arrived at the interface where this work has them arrive.
    fn arrived(&mut self) -> Result<u64> {
        let interface = if self.work == Work::Forward { "gb" } else { "ga" };
        Ok(self.counters.read(interface)?.rx_frames)
    }

    /// Starts an account.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn begin(&mut self) -> Result<()> {
        self.before = self.arrived()?;
        self.begun = Instant::now();
        Ok(())
    }

    /// Sends for `length`, or waits as long.
    ///
    /// # Errors
    /// When pktgen ends.
    pub fn run(&mut self, length: Duration) -> Result<Sent> {
        let got = match &mut self.pktgen {
            Some(pktgen) => {
                Some(pktgen.forward(&Want { rate: None, length, stamps: false, verify: false })?)
            }
            None => {
                std::thread::sleep(length);
                None
            }
        };
        Ok(Sent { got, arrived: self.arrived()?, secs: self.begun.elapsed().as_secs_f64() })
    }

    /// Million frames a second that arrived (of `Receive`, that the device took: `taken`), and that the load sent.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn end(&mut self, sent: Sent, taken: f64) -> Result<(f64, f64)> {
        let Some(got) = sent.got else {
            return Ok(((sent.arrived - self.before) as f64 / sent.secs / 1e6, f64::NAN));
        };
        let frames = match self.work {
            Work::Receive => taken,
            Work::Guest => got.received,
            // What was under way when the sending ended has arrived since.
            Work::Forward | Work::Transmit => (self.arrived()? - self.before) as f64,
        };
        Ok((frames / got.all_secs / 1e6, got.sent / got.all_secs / 1e6))
    }
}

impl Load for Veth {
    fn pid(&self) -> u32 {
        self.pktgen.as_ref().map_or_else(std::process::id, Load::pid)
    }

    fn spins(&self) -> bool {
        false
    }
}
