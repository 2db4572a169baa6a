//! netdevd as a switch and as a hub, and the wait until a switch has learned.

use super::cases::PORTS;
use crate::compare::lab::{Lab, progress};
use crate::compare::vhost::duts::{Dut, Home, Netdevd, NetdevdSetup};
use crate::compare::vhost::load::Got;
use crate::failure::{Failure, Result};
use std::time::{Duration, Instant};

/// netdevd with three nics on a switch, or (`flooding`) on a hub.
///
/// # Errors
/// When it does not come up.
pub fn switch(lab: &Lab, flooding: bool) -> Result<Netdevd> {
    let home = Home::new(lab, PORTS as usize)?;
    let port = |number| match flooding {
        true => format!("hubport,id=h{number},hubid=0"),
        false => format!("switchport,id=h{number},switchid=1"),
    };
    let words = |(number, socket): (usize, &std::path::PathBuf)| {
        let nic = format!("nic,id=n{number},netdev=h{number},addr={}", socket.display());
        ["-netdev".into(), port(number), "-netdev".into(), nic]
    };
    let words: Vec<String> = home.sockets.iter().enumerate().flat_map(words).collect();
    Netdevd::launch(lab, &NetdevdSetup::polling(lab), home, None, &words)
}

/// netdevd with two nics on a hub: the plain path from ring to ring.
///
/// # Errors
/// When it does not come up.
pub fn hub(lab: &Lab) -> Result<Netdevd> {
    Netdevd::start(lab)
}

/// How long a switch may take to learn.
const PATIENCE: Duration = Duration::from_secs(30);
/// More of this than is right means that frames are flooded still; of less than that, too many are dropped to be of use.
const MOST: f64 = 1.05;
const LEAST: f64 = 0.2;

/// Sends slices until each frame arrives `copies` times, and the device says that it has learned.
///
/// # Errors
/// When that does not come.
pub fn settle(
    lab: &Lab,
    dut: &mut dyn Dut,
    mut slice: impl FnMut() -> Result<Got>,
    copies: u32,
) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        lab.go_on()?;
        progress(&format!("{}: learning", dut.name()));
        let got = slice()?;
        let right = got.received / (got.sent * f64::from(copies)).max(1.0);
        if (LEAST..MOST).contains(&right) && dut.settled()? {
            return Ok(());
        }
        if Instant::now() > until {
            let name = dut.name();
            let (sent, received) = (got.sent, got.received);
            return Err(Failure::new(format!(
                "{name}: {received:.0} arrived of {sent:.0} frames, {copies} times each is right"
            )));
        }
    }
}
