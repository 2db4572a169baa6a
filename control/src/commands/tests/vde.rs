//! `vde` netdevs over fakes: joined, left by their switch, joined again, removed.

use super::Client;
use serde_json::json;
use std::sync::PoisonError;
use std::time::Duration;

impl Client {
    /// The switch that was joined last goes.
    fn switch_goes(&mut self) {
        drop(self.log.switches.lock().unwrap_or_else(PoisonError::into_inner).pop());
    }

    /// Waits for the next event of the switches' streams and timer, and for the job that it starts.
    fn switches(&mut self) {
        let mut ready = Vec::new();
        self.reactor.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
        assert_eq!(ready.len(), 1);
        let mut events = Vec::new();
        self.state.vde_ready(ready[0], &mut events);
    }

    fn jobs(&mut self) {
        let mut fds = [super::PollFd::new(self.state.completion_fd(), super::PollFlags::POLLIN)];
        assert_eq!(super::poll(&mut fds, super::PollTimeout::from(5000u16)).unwrap(), 1, "no job ends");
        assert_eq!(self.state.completed(&mut Vec::new()).len(), 1);
    }

    fn standing(&mut self) -> (String, bool, String) {
        let state = self.ok("query-netdev", json!({"name": "v"}));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let transport = &state[0]["transport"];
        (text(&transport["state"]), state[0]["link"] == true, text(&transport["error"]))
    }
}

#[test]
fn a_switch_is_joined_and_told_as_qemu_tells_it() {
    let mut c = Client::new();
    let nowhere = json!({"type": "vde", "id": "v", "sock": "/nodir/s"});
    c.refused("netdev_add", nowhere, "Could not open vde: No such file or directory");
    c.ok("netdev_add", json!({"type": "vde", "id": "v", "sock": "/s", "port": 3, "mode": 0o750}));
    assert_eq!(c.log.calls(), ["plug /nodir/s port 0 mode 700", "plug /s port 3 mode 750"]);
    assert_eq!(c.line("info network"), "v: index=0,type=vde,sock=/s,fd=7\r\n");
    assert_eq!(c.standing(), ("ready".into(), true, String::new()));
    c.ok("netdev_del", json!({"id": "v"}));
    c.ok("netdev_add", json!({"type": "vde", "id": "v", "sock": "/s"}));
}

#[test]
fn a_switch_that_goes_takes_the_link_along_and_is_joined_again() {
    let mut c = Client::new();
    c.ok("netdev_add", json!({"type": "vde", "id": "v", "sock": "/s"}));
    for _ in 0..2 {
        c.switch_goes();
        c.switches();
        assert_eq!(c.standing(), ("failed".into(), false, "the switch is gone; it is tried again".into()));
        assert_eq!(c.ok("query-net-stats", json!({}))["ports"].as_array().unwrap().len(), 1);
        c.switches();
        c.jobs();
        assert_eq!(c.standing(), ("ready".into(), true, String::new()));
    }
}

#[test]
fn a_link_that_was_to_be_down_stays_down_and_a_netdev_that_goes_is_not_joined_again() {
    let mut c = Client::new();
    c.ok("netdev_add", json!({"type": "vde", "id": "v", "sock": "/s", "link": false}));
    c.switch_goes();
    c.switches();
    c.switches();
    c.jobs();
    assert_eq!(c.standing(), ("ready".into(), false, String::new()));
    c.switch_goes();
    c.switches();
    c.log.hold(true);
    c.switches();
    c.ok("netdev_del", json!({"id": "v"}));
    c.log.hold(false);
    c.jobs();
    c.missing("query-netdev", json!({"name": "v"}), "Device 'v' not found");
}
