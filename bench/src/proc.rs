//! What the kernel tells about a process and its network namespace, read from `/proc/PID`.

use crate::failure::{Context, Failure, Result};
use std::collections::BTreeMap;
use std::fs;

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).context(path)
}

/// Nanoseconds that all threads of `pid` spent on a CPU (kernel work in their name included).
///
/// # Errors
/// When the process is gone.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    schedstat(pid, 0, |_| true)
}

/// Nanoseconds that those threads of `pid` whose name `counts` were ready to run and another one had their CPU.
///
/// # Errors
/// When the process is gone.
pub fn waited_ns(pid: u32, counts: impl Fn(&str) -> bool) -> Result<u64> {
    schedstat(pid, 1, counts)
}

/// The id and CPU time in nanoseconds of the first thread of `pid` whose name `is` wanted.
///
/// # Errors
/// When the process is gone or has no such thread.
pub fn thread(pid: u32, is: impl Fn(&str) -> bool) -> Result<(u32, u64)> {
    let path = format!("/proc/{pid}/task");
    for task in fs::read_dir(&path).context(&path)?.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let tid = task.file_name().to_str().and_then(|word| word.parse().ok());
        if let Some(tid) = tid.filter(|_| is(name.trim_end())) {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let ns = stat.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            return Ok((tid, ns));
        }
    }
    Err(Failure::new(format!("{path}: no such thread")))
}

/// The sum of a field of `/proc/PID/task/*/schedstat` over the threads whose name `counts`.
fn schedstat(pid: u32, field: usize, counts: impl Fn(&str) -> bool) -> Result<u64> {
    let path = format!("/proc/{pid}/task");
    let mut total = 0;
    for task in fs::read_dir(&path).context(&path)?.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if !counts(name.trim_end()) {
            continue;
        }
        // A thread may end between the listing and the read.
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        total += stat.split_whitespace().nth(field).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

/// Hundredths of a second that `cpu` has been idle since the start (`/proc/stat`).
///
/// # Errors
/// When there is no such CPU.
pub fn idle_ticks(cpu: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    parse_idle(&text, cpu).ok_or_else(|| Failure::new(format!("no cpu{cpu} in /proc/stat")))
}

/// Idle time proper and idle time that waits for a disk.
fn parse_idle(text: &str, cpu: usize) -> Option<u64> {
    let values = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")))?;
    let values: Vec<u64> = values.split_whitespace().map_while(|word| word.parse().ok()).collect();
    Some(values.get(3)? + values.get(4)?)
}

/// UDP counters of a namespace (`/proc/net/snmp`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Udp {
    /// Datagrams put into a socket's queue and later read.
    pub delivered: u64,
    /// Datagrams that reached a socket whose queue was full.
    pub rcvbuf_errors: u64,
}

impl Udp {
    /// Datagrams that reached a socket, read or not.
    pub fn arrived(&self) -> u64 {
        self.delivered + self.rcvbuf_errors
    }
}

/// Reads the UDP counters of the namespace in which `pid` runs.
///
/// # Errors
/// When the process is gone.
pub fn udp(pid: u32) -> Result<Udp> {
    parse_udp(&read(pid, "net/snmp")?).ok_or_else(|| Failure::new("no Udp lines in /proc/net/snmp"))
}

fn parse_udp(text: &str) -> Option<Udp> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let field = |name| {
        let at = names.split(' ').position(|word| word == name)?;
        values.split(' ').nth(at)?.parse().ok()
    };
    Some(Udp { delivered: field("InDatagrams")?, rcvbuf_errors: field("RcvbufErrors")? })
}

/// Datagrams for which the UDP socket on local port `port`, in the namespace in which `pid` runs, had no room.
///
/// # Errors
/// When the process is gone or there is no such socket.
pub fn socket_drops(pid: u32, port: u16) -> Result<u64> {
    let drops = parse_drops(&read(pid, "net/udp")?, port);
    drops.ok_or_else(|| Failure::new(format!("no UDP socket on port {port}")))
}

fn parse_drops(text: &str, port: u16) -> Option<u64> {
    let local = format!(":{port:04X}");
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.nth(1).filter(|address| address.ends_with(&local))?;
        words.next_back()?.parse().ok()
    })
}

/// Counters of one interface (`/proc/net/dev`), from the kernel's side: what a tap's user reads is its `tx`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interface {
    /// Frames that left the stack through the device.
    pub tx_frames: u64,
    /// Frames that the device's queue had no room for.
    pub tx_dropped: u64,
    /// Frames that came to the stack, or to whoever has the device's queue in its place.
    pub rx_frames: u64,
    /// Frames that nobody had room for.
    pub rx_dropped: u64,
}

/// Reads the interface counters in the text of `/proc/net/dev`.
pub fn interfaces(text: &str) -> BTreeMap<String, Interface> {
    let rows = text.lines().filter_map(|line| line.split_once(':'));
    rows.map(|(name, values)| {
        let values: Vec<u64> = values.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        let column = |at: usize| values.get(at).copied().unwrap_or(0);
        let counters = Interface {
            tx_frames: column(9),
            tx_dropped: column(11),
            rx_frames: column(1),
            rx_dropped: column(3),
        };
        (name.trim().to_string(), counters)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_counters_are_found_by_name() {
        let text = "Ip: a\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 7 1 5 9 4\nUdpLite: x\n";
        assert_eq!(parse_udp(text), Some(Udp { delivered: 7, rcvbuf_errors: 4 }));
    }

    #[test]
    fn drops_of_a_socket_are_found_by_its_port() {
        let text = "   sl  local_address rem_address   st ... drops\n   \
                    9: 0100007F:5209 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7 2 0000 3\n  \
                    11: 0100007F:520B 0100007F:5209 07 00000000:00000900 00:00000000 00000000     0        0 8 2 0000 42\n";
        assert_eq!([0x520b, 0x5209, 1].map(|port| parse_drops(text, port)), [Some(42), Some(3), None]);
    }

    #[test]
    fn interface_counters_come_from_their_columns() {
        let text = "Inter-| head\n face |bytes\n  tap0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let want = Interface { tx_frames: 10, tx_dropped: 12, rx_frames: 2, rx_dropped: 4 };
        assert_eq!(interfaces(text).get("tap0"), Some(&want));
    }

    #[test]
    fn idle_time_is_found_by_cpu() {
        let text = "cpu  9 9 9 9 9\ncpu0 1 2 3 40 5 6 7\ncpu10 1 2 3 70 8 6 7\n";
        assert_eq!([0, 10, 1].map(|cpu| parse_idle(text, cpu)), [Some(45), Some(78), None]);
    }

    #[test]
    fn own_cpu_time_grows() {
        assert!(cpu_ns(std::process::id()).unwrap() > 0);
        assert!(thread(std::process::id(), |_| true).is_ok_and(|(tid, _)| tid > 0));
        assert!(thread(std::process::id(), |_| false).is_err());
    }
}
