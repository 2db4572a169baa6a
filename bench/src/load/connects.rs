//! TCP connections one after the other, each as short as can be: opened, a byte of the server's, closed by the server first.

use crate::failure::{Context, Failure, Result};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long a connection may take before the run has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections whose rate is told by itself, at the beginning and at the end; a tenth of all where that is less.
const PART: usize = 1000;

/// When each of the connections was done.
#[derive(Debug)]
pub struct Connects(Vec<Duration>);

/// Listens; whoever connects gets a byte and the end. Does not return but by an error.
///
/// # Errors
/// When the port is taken or the system gives no socket.
pub fn serve(at: SocketAddrV4, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let listener = TcpListener::bind(at).context(at)?;
    ready()?;
    for stream in listener.incoming() {
        // A peer that has gone already is its own matter.
        let _ = stream.context("accept")?.write_all(b"!");
    }
    Ok(())
}

/// Opens `count` connections to `to`, one after the other, and lets the server close each first.
///
/// # Errors
/// When one is refused, broken or not over in ten seconds.
pub fn run(to: SocketAddrV4, count: usize) -> Result<Connects> {
    let start = Instant::now();
    let mut done = Vec::with_capacity(count);
    for number in 0..count {
        let failed = format_args!("connection {number} to {to}").to_string();
        let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE).context(&failed)?;
        stream.set_read_timeout(Some(PATIENCE)).context(&failed)?;
        let mut said = [0; 2];
        let mut got = 0;
        loop {
            match stream.read(&mut said).context(&failed)? {
                0 if got == 1 => break,
                0 => return Err(Failure::new(format!("{failed}: ended before it said anything"))),
                bytes => got += bytes,
            }
        }
        drop(stream);
        done.push(start.elapsed());
    }
    Ok(Connects(done))
}

impl Connects {
    /// Connections a second: all, those at the beginning, those at the end.
    pub fn rates(&self) -> [f64; 3] {
        let all = self.0.len();
        let part = PART.min(all / 10).max(1);
        let at =
            |count: usize| count.checked_sub(1).and_then(|at| self.0.get(at)).copied().unwrap_or_default();
        let rate = |from: usize, to: usize| (to - from) as f64 / (at(to) - at(from)).as_secs_f64();
        [rate(0, all), rate(0, part.min(all)), rate(all - part.min(all), all)]
    }

    /// One JSON line.
    pub fn summary(&self) -> Value {
        let [all, first, last] = self.rates();
        json!({ "count": self.0.len(), "rate": all, "first": first, "last": last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn rates_are_told_of_all_of_the_beginning_and_of_the_end() {
        let mut times: Vec<Duration> = (1..=1000).map(Duration::from_millis).collect();
        times.extend((1..=9000).map(|at| Duration::from_millis(1000 + at * 2)));
        let [all, first, last] = Connects(times).rates();
        assert!((all - 10_000.0 / 19.0).abs() < 0.01 && (first - 1000.0).abs() < 0.01, "{all} {first}");
        assert!((last - 500.0).abs() < 0.01, "{last}");
        assert!(Connects(vec![Duration::from_secs(1)]).rates().map(|rate| rate == 1.0)[1]);
    }

    #[test]
    fn connections_come_one_after_the_other_and_end() {
        let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).unwrap();
        let at: SocketAddrV4 = at.to_string().parse().unwrap();
        let (ready, listening) = std::sync::mpsc::channel();
        std::thread::spawn(move || serve(at, || ready.send(()).context("ready")));
        listening.recv().unwrap();
        assert_eq!(run(at, 20).unwrap().summary()["count"], 20);
        assert!(run("127.0.0.1:1".parse().unwrap(), 1).is_err(), "nobody is there");
    }
}
