//! netdevd and testpmd on a lane.

use super::cases::{Case, Peer, Work};
use super::lane::Lane;
use crate::compare::lab::Lab;
use crate::compare::vhost::console::Setup;
use crate::compare::vhost::duts::{Home, Netdevd, NetdevdSetup, Testpmd};
use crate::failure::Result;
use std::path::Path;

/// netdevd with what the case needs: `af-xdp` netdevs and a nic on a hub. A netdev without a peer drops what it receives. It polls drivers
/// where the peer does.
///
/// # Errors
/// When it does not come up.
pub fn netdevd(lab: &Lab, lane: &Lane, case: &Case) -> Result<Netdevd> {
    let guest = matches!(case.work, Work::Transmit | Work::Guest);
    let home = Home::new(lab, usize::from(guest))?;
    let mut netdevs = vec!["af-xdp,id=a,ifname=da".to_owned()];
    if case.work != Work::Receive {
        netdevs.push("hubport,id=ha,hubid=0,netdev=a".into());
    }
    if case.work == Work::Forward {
        netdevs.push("af-xdp,id=b,ifname=db".into());
        netdevs.push("hubport,id=hb,hubid=0,netdev=b".into());
    }
    if let Some(socket) = home.sockets.first() {
        netdevs.push("hubport,id=hn,hubid=0".into());
        netdevs.push(format!("nic,id=n,netdev=hn,addr={}", socket.display()));
    }
    let words: Vec<String> = netdevs.into_iter().flat_map(|netdev| ["-netdev".into(), netdev]).collect();
    // A worker that may sleep leaves the driver to interrupts; one that never does polls it.
    let idle = if case.peer == Peer::XdpNoBudget { "adaptive" } else { "poll" };
    let setup = NetdevdSetup { idle, ..NetdevdSetup::polling(lab) };
    Netdevd::launch(lab, &setup, home, Some(&lane.dut), &words)
}

/// testpmd with the driver of `peer`; `name` keeps its files apart from those of another one.
///
/// # Errors
/// When it does not come up; it needs 512 MiB of hugepages.
pub fn testpmd(lab: &Lab, lane: &Lane, case: &Case, peer: Peer, name: &str) -> Result<Testpmd> {
    let home = Home::new(lab, usize::from(case.work == Work::Guest))?;
    let vhost = |socket: &Path| format!("net_vhost0,iface={},queues=1", socket.display());
    let mut vdevs = vec![peer.vdev(0, "da")];
    if case.work == Work::Forward {
        vdevs.push(peer.vdev(1, "db"));
    }
    vdevs.extend(home.sockets.iter().map(|socket| vhost(socket)));
    let mode = match case.work {
        Work::Receive => "rxonly",
        Work::Transmit => "txonly",
        Work::Forward | Work::Guest => "io",
    };
    let options = vec![format!("--forward-mode={mode}"), format!("--txpkts={}", case.size)];
    let inside = Some(&lane.dut);
    let setup = Setup { name, cpu: lab.dut_cpu, inside, memory: 512, vdevs, options };
    Testpmd::launch(&setup, home)
}
