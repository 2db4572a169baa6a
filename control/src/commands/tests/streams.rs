//! `stream` netdevs over fakes: what is told when, as peers come and go.

use super::Client;
use engine::backend::stream::End;
use serde_json::{Value, json};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Client {
    /// Handles what happens to streams until so many events were told in all.
    #[track_caller]
    fn events_reach(&mut self, count: usize) {
        while self.events.len() < count {
            self.stream_happens();
        }
        assert_eq!(self.told().len(), count, "{:?}", self.told());
    }

    /// Handles the next thing that happens to streams.
    #[track_caller]
    fn stream_happens(&mut self) {
        let mut ready = Vec::new();
        self.reactor.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
        assert!(!ready.is_empty(), "nothing happens");
        for ready in ready {
            self.state.stream_ready(ready, &mut self.events);
        }
    }

    /// The events so far, by the last word of their names.
    fn told(&self) -> Vec<&str> {
        self.events.iter().filter_map(|event| event.name.strip_prefix("NETDEV_STREAM_")).collect()
    }

    /// The worker says that the last connection has ended.
    fn ends(&self, why: End) {
        let streams = self.log.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.last().expect("a connection").tell(why);
    }

    /// State, link, error, and how many queues are in force.
    fn stream(&mut self) -> (String, bool, String, usize) {
        let state = self.ok("query-netdev", json!({"name": "s"}))[0].clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let last = self.log.last();
        let queues = last.clients.iter().map(|client| match &client.kind {
            engine::topology::model::ClientKind::Port { queues } => queues.len(),
            _ => 0,
        });
        let transport = &state["transport"];
        (text(&transport["state"]), state["link"] == true, text(&transport["error"]), queues.sum())
    }

    fn says(&mut self, info: &str) {
        assert_eq!(self.line("info network"), format!("s: index=0,type=stream,{info}\r\n"));
    }
}

fn standing(state: &str, link: bool, error: &str, queues: usize) -> (String, bool, String, usize) {
    (state.to_owned(), link, error.to_owned(), queues)
}

fn options(path: &Path, more: (&str, Value)) -> Value {
    let mut all = json!({"type": "stream", "id": "s", "addr": {"type": "unix", "path": path}});
    all[more.0] = more.1;
    all
}

#[test]
fn a_client_tells_each_connection_and_its_end_in_order() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let mut c = Client::new();
    c.ok("netdev_add", options(&path, ("reconnect-ms", json!(1))));
    c.says("connecting");
    // Nobody listens: attempts fail, and nothing is told.
    for _ in 0..4 {
        c.stream_happens();
    }
    assert_eq!(c.told(), [""; 0]);
    let (state, link, error, queues) = c.stream();
    assert_eq!((&*state, link, queues), ("connecting", false, 0));
    assert!(error.starts_with("Failed to connect to"), "{error}");
    let listener = UnixListener::bind(&path).unwrap();
    for round in 1..=3 {
        c.events_reach(2 * round - 1);
        let _peer = listener.accept().unwrap();
        assert_eq!(c.stream(), standing("ready", true, "", 1), "what is told is in force");
        c.says(&format!("unix:{}", path.display()));
        let (why, error) = match round {
            1 => (End::Closed, ""),
            2 => (End::TooLong, "the peer announced a frame of more than 69632 bytes"),
            _ => (End::Failed(nix::errno::Errno::ECONNRESET), "Connection reset by peer"),
        };
        c.ends(why);
        c.events_reach(2 * round);
        assert_eq!(c.stream(), standing("connecting", false, error, 0));
        c.says("connecting");
    }
    assert_eq!(c.told(), ["CONNECTED", "DISCONNECTED"].repeat(3));
    let addr = json!({"type": "unix", "path": path});
    for event in &c.events {
        let data = event.data.as_ref().unwrap();
        assert_eq!(data["netdev-id"], "s");
        assert!(data.get("addr").is_none_or(|told| *told == addr), "{data}");
    }
}

#[test]
fn without_reconnect_a_client_stays_as_it_ended() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let mut c = Client::new();
    c.ok("netdev_add", options(&path, ("server", json!(false))));
    c.stream_happens();
    assert_eq!(c.told(), [""; 0], "a first attempt that fails is no end");
    let (state, link, error, _) = c.stream();
    assert_eq!((&*state, link), ("failed", false));
    c.says(&format!("error: {error}"));
    c.ok("netdev_del", json!({"id": "s"}));
    let _listener = UnixListener::bind(&path).unwrap();
    c.ok("netdev_add", options(&path, ("server", json!(false))));
    c.events_reach(1);
    c.ends(End::Closed);
    c.events_reach(2);
    assert_eq!(c.told(), ["CONNECTED", "DISCONNECTED"]);
    assert_eq!(c.stream(), standing("closed", false, "", 0));
    c.says(&format!("unix:{}", path.display()));
}

#[test]
fn a_server_takes_the_next_client_when_the_first_has_gone_and_removal_tells_nothing() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let mut c = Client::new();
    c.ok("netdev_add", options(&path, ("server", json!(true))));
    c.stream_happens();
    c.says("listening");
    let _peers = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
    c.events_reach(1);
    assert_eq!(c.stream(), standing("ready", true, "", 1));
    c.ends(End::Closed);
    c.events_reach(2);
    c.events_reach(3);
    assert_eq!(c.told(), ["CONNECTED", "DISCONNECTED", "CONNECTED"]);
    c.ok("netdev_del", json!({"id": "s"}));
    c.ends(End::Closed);
    c.stream_happens();
    assert_eq!(c.told().len(), 3);
    assert!(!path.exists());
}

/// A connection that no worker takes was one, for the reader of events.
#[test]
fn a_connection_that_is_not_put_in_force_ends_behind_its_beginning() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let mut c = Client::new();
    c.ok("netdev_add", options(&path, ("server", json!(true))));
    c.stream_happens();
    c.log.refuse.store(true, Ordering::Relaxed);
    let _peer = UnixStream::connect(&path).unwrap();
    c.events_reach(2);
    assert_eq!(c.told(), ["CONNECTED", "DISCONNECTED"]);
    assert_eq!(c.stream(), standing("listening", false, "worker 0 hangs", 0));
    c.log.refuse.store(false, Ordering::Relaxed);
    let _peer = UnixStream::connect(&path).unwrap();
    c.events_reach(3);
    assert_eq!(c.stream(), standing("ready", true, "", 1));
}
