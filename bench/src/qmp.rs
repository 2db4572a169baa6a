//! A small QMP client over a unix socket: commands one by one, or raw lines for rate measurements.

use crate::failure::{Context, Failure, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one reply may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection after `qmp_capabilities`.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Qmp {
    /// Connects, waiting up to `wait` for the socket to appear, and negotiates.
    ///
    /// # Errors
    /// When nobody listens in time or what answers is no QMP server.
    pub fn connect(path: &Path, wait: Duration) -> Result<Self> {
        let deadline = Instant::now() + wait;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error).context(path.display()),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE)).context("read timeout")?;
        let mut qmp = Self { reader: BufReader::with_capacity(1 << 16, stream), line: Vec::new() };
        let greeting = qmp.read_value()?;
        if greeting.get("QMP").is_none() {
            return Err(Failure::new(format!("{} is no QMP socket: {greeting}", path.display())));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Sends one command and waits for what it returns. Events on the way are dropped.
    ///
    /// # Errors
    /// The server's error (class and description), or a broken connection.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut request = json!({ "execute": command });
        if arguments.as_object().is_some_and(|map| !map.is_empty()) {
            request["arguments"] = arguments;
        }
        self.send(format!("{request}\n").as_bytes())?;
        loop {
            let mut reply = self.read_value()?;
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = reply.get("error") {
                return Err(Failure::new(format!("{command}: {} ({})", error["desc"], error["class"])));
            }
        }
    }

    /// Sends bytes as they are: whole commands, a line each.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.get_mut().write_all(bytes).context("QMP write")
    }

    /// Waits for the next reply without parsing it; events are skipped.
    ///
    /// # Errors
    /// When the reply is an error, or the connection is broken.
    pub fn skip_reply(&mut self) -> Result<()> {
        loop {
            self.read_line()?;
            if self.line.starts_with(b"{\"return\"") {
                return Ok(());
            }
            // Servers may put an id first; only then is the line worth a parse.
            let value: Value = serde_json::from_slice(&self.line).context("QMP reply")?;
            if value.get("error").is_some() {
                return Err(Failure::new(value.to_string()));
            }
            if value.get("return").is_some() {
                return Ok(());
            }
        }
    }

    fn read_value(&mut self) -> Result<Value> {
        self.read_line()?;
        serde_json::from_slice(&self.line).context("QMP reply")
    }

    fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        match self.reader.read_until(b'\n', &mut self.line) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Failure::new(format!("no QMP reply within {} s", PATIENCE.as_secs())))
            }
            Err(error) => Err(error).context("QMP read"),
            Ok(0) => Err(Failure::new("the QMP server closed the connection")),
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn commands_are_answered_and_events_between_them_dropped() {
        let directory = std::env::temp_dir().join(format!("bench-qmp-{}", std::process::id()));
        let listener = UnixListener::bind(&directory).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            lines.next();
            stream.write_all(b"{\"return\": {}}\r\n").unwrap();
            lines.next();
            stream.write_all(b"{\"event\": \"X\"}\r\n{\"return\": {\"a\": 1}}\r\n").unwrap();
            lines.next();
            stream.write_all(b"{\"error\": {\"class\": \"C\", \"desc\": \"no\"}}\r\n").unwrap();
        });
        let mut qmp = Qmp::connect(&directory, Duration::from_secs(5)).unwrap();
        std::fs::remove_file(&directory).unwrap();
        assert_eq!(qmp.execute("query-x", json!({})), Ok(json!({"a": 1})));
        assert_eq!(qmp.execute("query-y", json!({})), Err(Failure::new("query-y: \"no\" (\"C\")")));
        server.join().unwrap();
    }
}
