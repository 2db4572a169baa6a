//! The socket on which a daemon of Open vSwitch takes commands (ovs-appctl(8)): JSON-RPC, one request at a time.

use crate::failure::{Context, Failure, Result};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection.
#[derive(Debug)]
pub struct Unixctl {
    stream: BufReader<UnixStream>,
}

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Unixctl {
    /// Connects to the socket `path`.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context(path.display())?;
        stream.set_read_timeout(Some(PATIENCE)).context(path.display())?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Gives a command; its answer.
    ///
    /// # Errors
    /// It is refused, or not answered in time.
    pub fn call(&mut self, command: &str) -> Result<String> {
        let request = json!({"id": 0, "method": command, "params": []});
        self.stream.get_mut().write_all(request.to_string().as_bytes()).context(command)?;
        // Answers end where their object does.
        let mut answers = serde_json::Deserializer::from_reader(&mut self.stream).into_iter::<Value>();
        let answer = answers.next().ok_or_else(|| Failure::new(format!("{command}: no answer")))?;
        let answer = answer.context(command)?;
        match answer["result"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(Failure::new(format!("{command}: {}", answer["error"]))),
        }
    }
}

/// What polling threads did (`dpif-netdev/pmd-stats-show`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Polling {
    /// Frames that came in.
    pub frames: f64,
    /// TSC cycles of turns that found frames.
    pub busy: f64,
    /// Frames whose flow had to be asked for.
    pub upcalls: f64,
}

impl Polling {
    /// Adds up what is told of the polling threads; the main thread, which is told of too, moves nothing of ours.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut sum = Self::default();
        let mut polls = false;
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if !line.starts_with(' ') {
                polls = name.starts_with("pmd thread");
            }
            let value = value.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
            let Some(value) = value.filter(|_| polls) else { continue };
            match name.trim() {
                "packets received" => sum.frames += value,
                "processing cycles" => sum.busy += value,
                "miss with success upcall" | "miss with failed upcall" => sum.upcalls += value,
                _ => {}
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    const TEXT: &str = "pmd thread numa_id 0 core_id 0:\n  packets received: 1000\n  packet recirculations: 0\n  \
        avg. datapath passes per packet: 1.00\n  emc hits: 990\n  miss with success upcall: 7\n  miss with failed upcall: 1\n  \
        idle cycles: 500 (20.00%)\n  processing cycles: 223000 (80.00%)\n  avg cycles per packet: 223.50 (223500/1000)\n\
        main thread:\n  packets received: 5\n  processing cycles: 77 (1.00%)\n";

    #[test]
    fn polling_threads_are_added_up_without_the_main_one() {
        let want = Polling { frames: 1000.0, busy: 223_000.0, upcalls: 8.0 };
        assert_eq!(Polling::parse(TEXT), want);
    }

    #[test]
    fn an_answer_ends_with_its_object_and_an_error_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ctl");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = [0; 512];
            for answer in
                [r#"{"error":null,"id":0,"result":"yes"}"#, r#"{"error":"no such","id":0,"result":null}"#]
            {
                let n = stream.read(&mut heard).unwrap();
                assert!(String::from_utf8_lossy(&heard[..n]).contains("\"method\":\"ask\""));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut ctl = Unixctl::connect(&path).unwrap();
        assert_eq!(ctl.call("ask").unwrap(), "yes");
        assert!(ctl.call("ask").unwrap_err().to_string().contains("no such"));
        daemon.join().unwrap();
    }
}
