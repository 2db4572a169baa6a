//! `set_link` on an `af-xdp` netdev.

use super::NEEDS;
use super::wire::{BROADCAST, SOURCE, Wire, add};
use serde_json::json;
use tests::lab::Lab;
use tests::nics::{await_drop, dropped};
use tests::packet::frame;
use tests::skip::ready;

#[test]
fn an_interface_whose_link_is_cut_loses_by_name_both_ways() {
    if !ready("an_interface_whose_link_is_cut_loses_by_name_both_ways", NEEDS) {
        return;
    }
    let mut lab = Lab::new(&[]);
    let [one, two] = ["one", "two"].map(|name| Wire::new(&lab.home, name));
    add(&mut lab, &one, &json!({}));
    add(&mut lab, &two, &json!({}));
    lab.hub(0, &["one", "two"]);
    let send = |wire: &Wire, text: &str| wire.socket.send(&frame(BROADCAST, SOURCE, text.as_bytes()));
    for name in ["one", "two"] {
        lab.qmp.ok("set_link", json!({"name": name, "up": false}));
        let before = dropped(&mut lab.qmp, name, "link-down");
        send(&one, "lost");
        await_drop(&mut lab.qmp, name, "link-down", before + 1);
        send(&two, "lost");
        await_drop(&mut lab.qmp, name, "link-down", before + 2);
        lab.qmp.ok("set_link", json!({"name": name, "up": true}));
        send(&one, "out");
        send(&two, "back");
        assert_eq!(two.payloads(), [b"out"], "{name} is up again, and what was lost does not come");
        assert_eq!(one.payloads(), [b"back"], "{name} is up again, and what was lost does not come");
    }
}
