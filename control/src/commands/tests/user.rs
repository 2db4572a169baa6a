//! `user` netdevs over a process that only says that it has done what it was asked.

use super::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What stands for the process: it writes down what it is asked. With a file `dead` beside it, it dies.
const PROCESS: &str = r#"#!/usr/bin/python3
import json, os, socket, sys
here = os.path.dirname(os.path.abspath(sys.argv[0]))
if os.path.exists(here + '/dead'):
    sys.exit(7)
control = socket.socket(fileno=4)
def answer(request):
    if request == 'state':
        return {'state': {'drops': {'malformed': 3, 'stream-full': 4}, 'connections': [{'protocol': 'TCP[HOST_FORWARD]', 'fd': 9, 'source': ['0.0.0.0', 80], 'destination': ['10.0.2.15', 8080], 'queued': [1, 2]}]}}
    return 'done'
while True:
    data = control.recv(200000)
    if not data:
        break
    with open(here + '/asked', 'a') as asked:
        asked.write(data.decode() + '\n')
    control.send(json.dumps({'answer': answer(json.loads(data))}).encode())
"#;

struct Process {
    directory: TempDir,
}

impl Process {
    fn of(c: &Client) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netdevd-user");
        crate::testing::program(&path, PROCESS);
        *c.log.user.lock().unwrap() = path;
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What it was asked since the last look.
    fn asked(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("asked"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Client {
    /// Waits for the next event of processes and their timer.
    fn users_happen(&mut self) {
        let mut ready = Vec::new();
        self.reactor.wait(Some(Duration::from_secs(20)), &mut ready).unwrap();
        assert_eq!(ready.len(), 1, "nothing happens");
        self.state.user_ready(ready[0]);
    }

    fn pid(&mut self) -> Option<i32> {
        let all = self.ok("query-netdev-user", json!({"id": "u"}));
        all[0]["pid"].as_i64().map(|pid| pid as i32)
    }

    fn user_forwards(&mut self) -> Value {
        self.ok("query-netdev-user", json!({}))[0]["forwards"].clone()
    }

    fn user_job(&mut self) {
        let mut fds = [super::PollFd::new(self.state.completion_fd(), super::PollFlags::POLLIN)];
        assert_eq!(super::poll(&mut fds, super::PollTimeout::from(5000u16)).unwrap(), 1, "no job ends");
        self.state.completed(&mut self.events);
    }

    fn user_stands(&mut self) -> (String, String) {
        let state = self.ok("query-netdev", json!({"name": "u"}));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&state[0]["transport"]["state"]), text(&state[0]["transport"]["error"]))
    }
}

/// A port that is taken, for as long as the listener is there.
fn held() -> (std::net::TcpListener, u16) {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn kill_and_wait(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn the_network_is_told_with_every_default() {
    let mut c = Client::new();
    let process = Process::of(&c);
    c.ok("netdev_add", json!({"type": "user", "id": "u"}));
    let v4 = json!({"network": "10.0.2.0", "mask": "255.255.255.0", "host": "10.0.2.2", "dhcp_start": "10.0.2.15", "dns": "10.0.2.3"});
    let v6 = json!({"prefix": "fec0::", "length": 64, "host": "fec0::2", "dns": "fec0::3"});
    let start = &process.asked()[0]["start"];
    assert_eq!((&start["ipv4"], &start["ipv6"]), (&v4, &v6));
    assert_eq!((&start["services"], &start["search"]), (&json!([]), &json!([])));
    assert_eq!(c.line("info network"), "u: index=0,type=user,net=10.0.2.0,restrict=off\r\n");
    assert_eq!(c.user_stands(), ("ready".into(), String::new()));
    c.ok("netdev_del", json!({"id": "u"}));
    let some = json!({"type": "user", "id": "u", "net": "192.168.5.0", "restrict": true, "ipv6": false, "hostname": "h",
        "dnssearch": [{"str": "a"}, {"str": "b"}], "guestfwd": [{"str": "tcp:192.168.5.1:80-cmd:cat"}]});
    c.ok("netdev_add", some);
    assert_eq!(c.line("info network"), "u: index=0,type=user,net=192.168.0.0,restrict=on\r\n");
    let start = &process.asked()[0]["start"];
    let v4 = json!({"network": "192.168.0.0", "mask": "255.255.0.0", "host": "192.168.2.2", "dhcp_start": "192.168.2.15", "dns": "192.168.2.3"});
    assert_eq!((&start["ipv4"], &start["ipv6"]), (&v4, &Value::Null));
    assert_eq!(
        (&start["hostname"], &start["search"], &start["restricted"]),
        (&json!("h"), &json!(["a", "b"]), &json!(true))
    );
    let service = &start["services"][0];
    assert_eq!((&service["address"], &service["port"]), (&json!("192.168.5.1"), &json!(80)));
    let path = service["to"]["unix"]["path"].as_str().unwrap().to_owned();
    assert!(Path::new(&path).exists());
    c.ok("netdev_del", json!({"id": "u"}));
    assert!(!Path::new(&path).exists(), "it leaves nothing behind");
}

#[test]
fn a_start_that_fails_is_told_in_the_references_words_and_leaves_nothing() {
    let mut c = Client::new();
    let process = Process::of(&c);
    let (held, port) = held();
    let rule = format!("tcp::{port}-:1");
    let taken = json!({"type": "user", "id": "u", "hostfwd": [{"str": "tcp::0-:2"}, {"str": rule}]});
    c.refused("netdev_add", taken, &format!("Could not set up host forwarding rule '{rule}'"));
    drop(held);
    let conflict = json!({"type": "user", "id": "u", "guestfwd": [{"str": "tcp:10.0.2.2:1-cmd:x"}]});
    let desc = "Conflicting/invalid host:port in guest forwarding rule 'tcp:10.0.2.2:1-cmd:x'";
    c.refused("netdev_add", conflict, desc);
    std::fs::write(process.path("dead"), "").unwrap();
    let error = c.run("netdev_add", json!({"type": "user", "id": "u"})).unwrap_err();
    assert!(error.desc.starts_with("user: the process"), "{}", error.desc);
    std::fs::remove_file(process.path("dead")).unwrap();
    *c.log.user.lock().unwrap() = "/nonexistent/netdevd-user".into();
    let desc = "user: '/nonexistent/netdevd-user' cannot be run: No such file or directory";
    c.refused("netdev_add", json!({"type": "user", "id": "u"}), desc);
    assert_eq!(c.state.net().clients().count(), 0);
    let _again = Process::of(&c);
    c.ok("netdev_add", json!({"type": "user", "id": "u"}));
}

#[test]
fn forwards_come_and_go_by_both_kinds_of_commands() {
    let mut c = Client::new();
    let process = Process::of(&c);
    let path = process.path("socket");
    let (_held, taken) = held();
    // Three that nobody has at the moment.
    let [udp, tcp, six] = [held(), held(), held()].map(|(_, port)| port);
    assert_eq!(c.line(&format!("hostfwd_add tcp::{tcp}-:22")), "user mode network stack not in use\r\n");
    assert_eq!(c.line("info usernet"), "");
    let rule = format!("udp::{udp}-:53");
    c.ok("netdev_add", json!({"type": "user", "id": "u", "hostfwd": [{"str": rule}]}));
    assert_eq!(c.line(&format!("hostfwd_add tcp::{tcp}-:22")), "");
    assert_eq!(c.line("hostfwd_add u x"), "Invalid host forwarding rule 'x' (No : separators)\r\n");
    assert_eq!(c.line("hostfwd_add nope x"), "unrecognized netdev id 'nope'\r\n");
    let rule = format!("tcp::{taken}-:22");
    assert_eq!(
        c.line(&format!("hostfwd_add u {rule}")),
        format!("Could not set up host forwarding rule '{rule}'\r\n")
    );
    c.ok(
        "netdev-user-forward-add",
        json!({"id": "u", "host-addr": "::1", "host-port": six, "guest-port": 8080}),
    );
    c.ok("netdev-user-forward-add", json!({"id": "u", "host-path": path, "guest-port": 1}));
    let desc =
        format!("Could not set up host forwarding rule 'tcp:0.0.0.0:{taken}-:1': Address already in use");
    c.refused("netdev-user-forward-add", json!({"id": "u", "host-port": taken, "guest-port": 1}), &desc);
    assert_eq!(process.asked().len(), 5, "refused before it is asked");
    let forward = |host: &str, port: u16, guest: &str, inner: u16, protocol: &str| json!({"protocol": protocol, "host-addr": host, "host-port": port, "guest-addr": guest, "guest-port": inner});
    let unix = json!({"protocol": "tcp", "host-path": path, "guest-addr": "0.0.0.0", "guest-port": 1});
    let all = json!([
        forward("0.0.0.0", udp, "0.0.0.0", 53, "udp"),
        forward("0.0.0.0", tcp, "0.0.0.0", 22, "tcp"),
        forward("::1", six, "::", 8080, "tcp"),
        unix
    ]);
    assert_eq!(c.user_forwards(), all);
    let rule = format!("udp::{udp}");
    assert_eq!(
        c.line(&format!("hostfwd_remove u {rule}")),
        format!("host forwarding rule for {rule} removed\r\n")
    );
    assert_eq!(
        c.line(&format!("hostfwd_remove {rule}")),
        format!("host forwarding rule for {rule} not found\r\n")
    );
    assert_eq!(c.line("hostfwd_remove 53"), "invalid format\r\n");
    let rule = format!("unix:{}", path.display());
    assert_eq!(
        c.line(&format!("hostfwd_remove {rule}")),
        format!("host forwarding rule for {rule} removed\r\n")
    );
    c.ok("netdev-user-forward-remove", json!({"id": "u", "host-addr": "::1", "host-port": six}));
    c.refused("netdev-user-forward-remove", json!({"id": "u", "host-port": 80}), "there is no such forward");
    c.refused(
        "netdev-user-forward-add",
        json!({"id": "u", "guest-port": 80}),
        "'host-port' or 'host-path' is needed",
    );
    assert_eq!(c.user_forwards(), json!([forward("0.0.0.0", tcp, "0.0.0.0", 22, "tcp")]));
    let table = "Hub -1 (u):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                 TCP[HOST_FORWARD]   9               *    80       10.0.2.15  8080     1     2\r\n";
    assert_eq!(c.line("info usernet"), table);
    let drops = c.ok("query-netdev-user", json!({"id": "u"}))[0]["drops"].clone();
    assert_eq!(drops, json!({"malformed": 3, "stream-full": 4}));
}

#[test]
fn a_process_that_is_killed_is_started_again_with_its_forwards() {
    let mut c = Client::new();
    let process = Process::of(&c);
    c.ok("netdev_add", json!({"type": "user", "id": "u"}));
    assert_eq!(c.line("hostfwd_add tcp:127.0.0.1:0-:22"), "");
    let port = c.user_forwards()[0]["host-port"].as_u64().unwrap();
    let first = c.pid().unwrap();
    process.asked();
    kill_and_wait(first);
    c.users_happen();
    assert_eq!(
        c.user_stands(),
        ("failed".into(), "the process was killed by signal 9; it is started again".into())
    );
    assert_eq!(c.pid(), None);
    assert_eq!(c.line("hostfwd_add tcp::0-:3"), "Could not set up host forwarding rule 'tcp::0-:3'\r\n");
    c.users_happen();
    c.user_job();
    assert_eq!(c.user_stands(), ("ready".into(), String::new()));
    let add = &process.asked()[1]["add"];
    assert_eq!(add["listen"]["inet"]["address"], format!("127.0.0.1:{port}"));
    assert_ne!(c.pid(), Some(first));
    let event = c.events.pop().unwrap();
    assert_eq!(event.name, "NETDEV_USER_RESTARTED");
    assert_eq!(event.data, Some(json!({"netdev-id": "u", "reason": "killed by signal 9"})));
}

#[test]
fn a_process_that_dies_at_once_is_tried_again_later_and_later() {
    let mut c = Client::new();
    let process = Process::of(&c);
    c.ok("netdev_add", json!({"type": "user", "id": "u"}));
    std::fs::write(process.path("dead"), "").unwrap();
    kill_and_wait(c.pid().unwrap());
    c.users_happen();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        c.users_happen();
        pauses.push(began.elapsed());
        c.user_job();
        let (state, why) = c.user_stands();
        assert_eq!(state, "failed");
        assert!(why.starts_with("user: the process") && why.ends_with("; it is started again"), "{why}");
    }
    assert!(pauses[1] >= Duration::from_millis(200) && pauses[2] >= pauses[1] * 3 / 2, "{pauses:?}");
    std::fs::remove_file(process.path("dead")).unwrap();
    c.users_happen();
    c.user_job();
    assert_eq!(c.user_stands(), ("ready".into(), String::new()));
    c.ok("netdev_del", json!({"id": "u"}));
}
