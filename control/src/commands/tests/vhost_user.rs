//! Back-ends that keep a handshake waiting.

use super::Client;
use crate::chardev::Stream;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// GET_FEATURES and GET_PROTOCOL_FEATURES, as bytes of a header.
const FEATURES: u32 = 1;
const PROTOCOL_FEATURES: u32 = 15;

impl Client {
    /// A netdev whose back-end is the other end of the socket that is returned.
    fn back_end(&mut self, limit: Duration) -> UnixStream {
        self.ok("chardev-add", json!({"id": "s0", "backend": {"type": "null", "data": {}}}));
        self.ok("netdev_add", json!({"type": "vhost-user", "id": "v0", "chardev": "s0"}));
        self.state.vhost_users.limit = limit;
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        self.state.vhost_user_connected(0, Stream::unix(ours, false, None).unwrap(), &mut self.events);
        theirs
    }

    /// Handles what happens next.
    fn happens(&mut self) {
        let mut ready = Vec::new();
        self.reactor.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
        assert!(!ready.is_empty());
        for ready in ready {
            self.state.vhost_user_ready(ready, &mut self.events);
        }
    }

    fn transport(&mut self) -> Value {
        self.ok("query-netdev", json!({"name": "v0"}))[0]["transport"].clone()
    }
}

/// Reads a request without payload.
fn asks(socket: &mut UnixStream, request: u32) {
    let mut header = [0; 12];
    socket.read_exact(&mut header).unwrap();
    assert_eq!(header[..4], request.to_ne_bytes());
    assert_eq!(header[8..], [0; 4]);
}

/// Answers it with a number.
fn answer(socket: &mut UnixStream, request: u32, number: u64) {
    let words = [request, 0b101, 8].into_iter().flat_map(u32::to_ne_bytes);
    let bytes: Vec<u8> = words.chain(number.to_ne_bytes()).collect();
    socket.write_all(&bytes).unwrap();
}

#[test]
fn a_back_end_that_does_not_answer_is_left_with_its_reason() {
    let mut c = Client::new();
    let mut socket = c.back_end(Duration::from_millis(40));
    assert_eq!(c.transport(), json!({"state": "connecting", "info": "vhost-user0 to s0"}));
    asks(&mut socket, FEATURES);
    c.happens();
    assert_eq!(socket.read(&mut [0]).unwrap(), 0, "it hangs up");
    let why = "the back-end has not answered GET_FEATURES for 40ms";
    assert_eq!(c.transport(), json!({"state": "closed", "info": "vhost-user0 to s0", "error": why}));
    // While the next one is tried the reason stands; one that goes by itself brings none.
    let (ours, theirs) = UnixStream::pair().unwrap();
    c.state.vhost_user_connected(0, Stream::unix(ours, false, None).unwrap(), &mut c.events);
    assert_eq!(c.transport()["state"], "connecting");
    assert_eq!(c.transport()["error"], why);
    drop(theirs);
    c.happens();
    assert_eq!((&c.transport()["state"], &c.transport()["error"]), (&json!("closed"), &json!(why)));
}

#[test]
fn each_answer_has_its_own_time() {
    let mut c = Client::new();
    let mut socket = c.back_end(Duration::from_millis(500));
    asks(&mut socket, FEATURES);
    answer(&mut socket, FEATURES, 1 << 32 | 1 << 30);
    while c.transport()["state"] == "connecting" {
        c.happens();
    }
    asks(&mut socket, PROTOCOL_FEATURES);
    assert_eq!(c.transport()["error"], "the back-end has not answered GET_PROTOCOL_FEATURES for 500ms");
}
