//! Any two types of netdev joined: what goes in at one comes out at the other.
//!
//! ```text
//!  outside of A -- [netdev A] hub [netdev B] -- outside of B      a nic: no hub, its peer is the netdev
//! ```

mod ends;
mod segments;
#[path = "../plugs/switch.rs"]
#[allow(dead_code, reason = "the tests of vde netdevs use all of it")]
mod switch;

use ends::{Outside, all};
use serde_json::json;
use tests::lab::Lab;
use tests::packet::frame;
use tests::skip::{Need, ready};

const NEEDS: &[Need] = &[Need::Root, Need::Tap];
/// Frames that are under way at most; a unix socket has room for few more.
const WINDOW: usize = 8;

/// One netdev or nic, and who is at its other end.
pub(crate) struct End {
    pub(crate) name: &'static str,
    /// What joins the hub: itself or, of a nic, nothing.
    pub(crate) nic: bool,
    pub(crate) outside: Box<dyn Outside>,
}

/// Joins two of them until the result is handed to [`part`].
fn join(lab: &mut Lab, one: &End, other: &End) {
    for (nic, netdev) in [(one, other), (other, one)] {
        if nic.nic {
            lab.qmp.ok("nic-set-netdev", json!({"name": nic.name, "netdev": netdev.name}));
            return;
        }
    }
    lab.hub(1, &[one.name, other.name]);
}

fn part(lab: &mut Lab, one: &End, other: &End) {
    for end in [one, other] {
        if end.nic {
            lab.qmp.ok("nic-set-netdev", json!({"name": end.name}));
            return;
        }
    }
    for end in [one, other] {
        lab.qmp.ok("netdev_del", json!({"id": format!("{}-port", end.name)}));
    }
}

/// A frame of that length, whose bytes tell pair and number.
fn numbered(len: usize, mark: usize) -> Vec<u8> {
    let payload: Vec<u8> = (14..len).map(|at| (at * 31 + mark * 7 + (at >> 8)).to_le_bytes()[0]).collect();
    frame([0xff; 6], [2, 0, 0, 0, 0, 1], &payload)
}

#[test]
fn frames_pass_between_any_two_types_and_large_ones_are_cut_for_those_that_need_it() {
    let test = "frames_pass_between_any_two_types_and_large_ones_are_cut_for_those_that_need_it";
    if !ready(test, NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let mut ends = all(&mut lab);
    let lengths: Vec<usize> = (60..=1514).step_by(31).chain([61, 64, 1500, 1513, 1514]).collect();
    let mut pairs = 0;
    for a in 0..ends.len() {
        for b in a + 1..ends.len() {
            let (low, high) = ends.split_at_mut(b);
            let (one, other) = (&mut low[a], &mut high[0]);
            join(&mut lab, one, other);
            for _ in 0..2 {
                std::mem::swap(one, other);
                let what = format!("from {} to {}", one.name, other.name);
                for (round, window) in lengths.chunks(WINDOW).enumerate() {
                    window.iter().for_each(|len| one.outside.send(&numbered(*len, round)));
                    for len in window {
                        let came = other.outside.receive().unwrap_or_else(|| {
                            panic!("{what}: no frame of {len}; {}", lab.qmp.ok("query-net-stats", json!({})))
                        });
                        assert!(
                            came.frame == numbered(*len, round),
                            "{what}: {len} bytes, came {}",
                            came.frame.len()
                        );
                        assert!(came.is_plain(), "{what}: {len} bytes");
                    }
                }
                if one.outside.send_large(&segments::large()) {
                    segments::check(&what, &mut *other.outside, &mut lab);
                }
                pairs += 1;
            }
            part(&mut lab, one, other);
        }
    }
    assert_eq!(pairs, ends.len() * (ends.len() - 1));
    let stats = lab.qmp.ok("query-net-stats", json!({}));
    for port in stats["ports"].as_array().expect("ports") {
        let drops = port["drops"].as_object().expect("drops");
        // The kernel itself speaks on interfaces now and then, to netdevs that are joined to nobody.
        let lost: Vec<_> = drops.keys().filter(|reason| *reason != "no-peer").collect();
        assert!(lost.is_empty(), "{port}");
    }
}
