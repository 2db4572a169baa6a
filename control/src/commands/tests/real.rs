//! The commands over a real engine and real taps; skipped where there are none.

use super::Client;
use crate::apply::SystemBackends;
use crate::apply::fake::Log;
use engine::{Config, Engine};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client of a real engine, or the reason why there is none.
fn client() -> Option<Client> {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: needs root and /dev/net/tun");
        return None;
    }
    let engine = Engine::start(&Config::default()).unwrap();
    let backends = Arc::new(SystemBackends::new(engine.arena(), engine.wakers()));
    Some(Client::over(Box::new(engine), backends, Arc::new(Log::default())))
}

#[test]
fn a_tap_lives_from_add_to_del_and_its_name_is_free_at_once() {
    let Some(mut c) = client() else { return };
    let ifname = format!("nd{}", std::process::id() % 100_000);
    let tap = json!({"type": "tap", "id": "t", "ifname": ifname, "script": "no", "downscript": "no"});
    let interface = format!("/sys/class/net/{ifname}");
    for _ in 0..3 {
        c.ok("netdev_add", tap.clone());
        assert!(Path::new(&interface).exists());
        c.ok("netdev_add", json!({"type": "hubport", "id": "h", "hubid": 1, "netdev": "t"}));
        let mut other = tap.clone();
        other["id"] = "u".into();
        let busy = format!("could not configure /dev/net/tun ({ifname}): Device or resource busy");
        c.refused("netdev_add", other, &busy);
        let state = c.ok("query-netdev", json!({"name": "t"}));
        assert_eq!(state[0]["transport"]["state"], "ready");
        assert_eq!(c.ok("query-net-stats", json!({}))["ports"].as_array().unwrap().len(), 2);
        c.ok("netdev_del", json!({"id": "t"}));
        // What another test starts has all descriptors of this process until it is a program of its own.
        let end = Instant::now() + Duration::from_secs(5);
        while Path::new(&interface).exists() {
            assert!(Instant::now() < end, "{ifname} is still there");
            std::thread::yield_now();
        }
        c.ok("netdev_del", json!({"id": "h"}));
    }
}

#[test]
fn a_capture_is_complete_when_object_del_answers() {
    let Some(mut c) = client() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.pcap");
    c.port("h", 1);
    let args = json!({"qom-type": "filter-dump", "id": "f", "netdev": "h", "file": file, "maxlen": 50});
    c.ok("object-add", args);
    c.ok("object-del", json!({"id": "f"}));
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len(), 24);
    assert_eq!(bytes[16..20], 50u32.to_ne_bytes());
    let missing = json!({"qom-type": "filter-dump", "id": "f", "netdev": "h", "file": "/nodir/f"});
    c.refused("object-add", missing, "net dump: can't open /nodir/f: No such file or directory");
}

#[test]
fn scripts_run_around_the_life_of_a_tap() {
    let Some(mut c) = client() else { return };
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, body: &str| {
        let path = dir.path().join(name);
        crate::testing::program(&path, &format!("#!/bin/sh\n{body}\n"));
        path.to_str().unwrap().to_owned()
    };
    let said = dir.path().join("said").to_str().unwrap().to_owned();
    let up = script("up", &format!("echo up $1 >> {said}"));
    let down = script("down", &format!("ip link show $1 > /dev/null && echo down $1 >> {said}"));
    let ifname = format!("ns{}", std::process::id() % 100_000);
    let tap = json!({"type": "tap", "id": "t", "ifname": ifname, "script": up, "downscript": down});
    c.ok("netdev_add", tap.clone());
    c.ok("netdev_del", json!({"id": "t"}));
    let once = format!("up {ifname}\ndown {ifname}\n");
    assert_eq!(std::fs::read_to_string(&said).unwrap(), once);
    c.ok("netdev_add", tap.clone());
    c.state.shutdown();
    assert_eq!(std::fs::read_to_string(&said).unwrap(), format!("{once}{once}"));
    let failing = script("failing", "exit 3");
    let desc = format!("network script {failing} failed with status 768");
    let tap = json!({"type": "tap", "id": "t", "ifname": ifname, "script": failing, "downscript": down});
    c.refused("netdev_add", tap, &desc);
    assert!(!Path::new(&format!("/sys/class/net/{ifname}")).exists());
}
