//! A guest and the kernel of this machine, joined by a nic and an interface that the kernel keeps.

use std::net::Ipv4Addr;

use serde_json::json;
use tests::lab::Lab;
use tests::machine::{self, Machine, Socket};
use tests::skip::{Need, ready};

use crate::{iperf, meet, ping};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const NEEDS: &[Need] =
    &[Need::Root, Need::Guests, Need::Tool("ping"), Need::Tool("iperf3"), Need::Tool("ethtool")];

#[test]
fn a_guest_talks_to_an_interface_by_af_xdp() {
    if !ready("a_guest_talks_to_an_interface_by_af_xdp", NEEDS) {
        return;
    }
    let _turn = machine::turn();
    let mut lab = Lab::new(&[]);
    let place = lab.home.sibling();
    lab.home.ip("link add wire type veth peer name far");
    lab.home.give("far", &place);
    lab.home.silent("wire");
    lab.home.ip("link set wire up");
    place.up("far", HOST);
    // A veth leaves checksums to hardware that is not there. What the guest leaves to others is the daemon's to see to.
    place.run("ethtool", &["-K", "far", "tx", "off"]);
    lab.qmp.ok("netdev_add", json!({"type": "af-xdp", "id": "x0", "ifname": "wire"}));
    lab.qmp.ok("netdev_add", json!({"type": "nic", "id": "n0", "netdev": "x0", "addr": "n0.sock"}));
    let mut guest = Machine::prepare(1).nic(Socket::new(crate::socket(&lab.daemon, "n0"))).start().up();
    guest.address(0, GUEST);
    meet(&mut guest, HOST);
    ping(&mut guest, HOST, 1400);
    let mut server = place.command("iperf3");
    server.args(["-s"]);
    let server = crate::Process::start(server);
    let listens = || place.run("ss", &["-Hlnt", "sport = :5201"]).contains("5201").then_some(());
    assert_eq!(tests::wait::until(crate::PATIENCE, listens), Some(()), "iperf3 does not listen");
    iperf(&mut guest, HOST, "-n 4M");
    iperf(&mut guest, HOST, "-n 4M -R");
    drop(server);
    let snmp = place.run("cat", &["/proc/net/snmp"]);
    assert_eq!(crate::tap::wrong_checksums(&snmp), 0, "{snmp}");
}
