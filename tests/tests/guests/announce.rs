//! Announcements of guests behind a VMM's `vhost-user` netdev, and of their nics: who says what, and where it passes.

use std::fs;
use std::path::PathBuf;

use engine::wire::rarp;
use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::machine::Machine;
use tests::qmp::Qmp;
use tests::wait;

use crate::PATIENCE;

/// ARP and RARP frames that a nic's port has got from it.
struct Heard {
    file: PathBuf,
    seen: usize,
}

impl Heard {
    fn begin(daemon: &Daemon, client: &mut Qmp, nic: &str) -> Self {
        let file = daemon.directory().join(format!("{nic}.pcap"));
        client.ok(
            "object-add",
            json!({"qom-type": "filter-dump", "id": format!("{nic}-heard"), "netdev": format!("{nic}-port"), "queue": "rx",
                "file": file, "filter": "arp or rarp"}),
        );
        Self { file, seen: 0 }
    }

    /// The frames of the capture, as far as they are there whole.
    fn all(&self) -> Vec<Vec<u8>> {
        let bytes = fs::read(&self.file).unwrap_or_default();
        let (mut found, mut rest) = (Vec::new(), bytes.get(24..).unwrap_or_default());
        while let Some(length) = rest.get(8..12) {
            let end = 16 + u32::from_ne_bytes(length.try_into().expect("four bytes")) as usize;
            let Some(frame) = rest.get(16..end) else { break };
            found.push(frame.to_vec());
            rest = &rest[end..];
        }
        found
    }

    /// Waits for a frame that is the one, behind those that were heard before.
    #[track_caller]
    fn hears(&mut self, what: &str, is: impl Fn(&[u8]) -> bool) {
        let seen = self.seen;
        let found = wait::until(PATIENCE, || self.all().iter().skip(seen).position(|frame| is(frame)));
        let place = found.unwrap_or_else(|| panic!("{what}: {:02x?}", self.all().get(seen..)));
        self.seen += place + 1;
    }
}

fn address(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect();
    bytes.try_into().expect("six bytes")
}

/// Guest `a` on `n0` agreed to announce itself, guest `b` on `n1` did not. Both have IPv4 addresses.
pub(crate) fn announcements(daemon: &Daemon, client: &mut Qmp, [a, b]: [&mut Machine; 2]) {
    let mut heard = ["n0", "n1"].map(|nic| Heard::begin(daemon, client, nic));
    let once = json!({"initial": 1, "max": 1, "rounds": 1, "step": 0});
    let (mac_a, mac_b) = (address(&a.mac(0)), address(&b.mac(0)));
    // The VMM asks its guest, which says what it is called by ARP: sender and target are the same.
    a.qmp.ok("announce-self", once.clone());
    heard[0].hears("the guest's own", |frame| {
        frame[12..14] == [8, 6] && frame[22..28] == mac_a && frame[28..32] == frame[38..42]
    });
    // Where the guest does not, the VMM asks the back-end by SEND_RARP.
    b.qmp.ok("announce-self", once.clone());
    heard[1].hears("by SEND_RARP", |frame| frame == rarp::frame(mac_b));
    // Ours, for the nics that are named, by their own addresses; changed and ended by its id.
    let own = |client: &mut Qmp, nic: &str| -> [u8; 6] {
        let rx = client.ok("query-rx-filter", json!({"name": nic}));
        address(rx[0]["main-mac"].as_str().expect("an address"))
    };
    let (own_a, own_b) = (own(client, "n0"), own(client, "n1"));
    let with = |rounds: i32, names: Value| json!({"initial": 5, "max": 5, "rounds": rounds, "step": 0, "id": "x", "interfaces": names});
    client.ok("announce-self", with(-1, json!(["n0"])));
    for _ in 0..3 {
        heard[0].hears("ours, of n0", |frame| frame == rarp::frame(own_a));
    }
    client.ok("announce-self", with(2, json!(["n1"])));
    for _ in 0..2 {
        heard[1].hears("ours, of n1", |frame| frame == rarp::frame(own_b));
    }
    for nic in ["n0", "n1"] {
        client.ok("object-del", json!({"id": format!("{nic}-heard")}));
    }
    // The one of n0 ended when that of n1 took its name: both files are complete, and none of it came behind.
    let frames = |heard: &Heard, mac| heard.all().iter().filter(|frame| **frame == rarp::frame(mac)).count();
    assert_eq!(frames(&heard[1], own_b), 2, "as many as were asked for");
    assert!(frames(&heard[0], own_a) >= 3);
}
