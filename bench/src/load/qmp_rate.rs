//! How many QMP commands a second a server answers.

use crate::failure::{Failure, Result};
use crate::histogram::Histogram;
use crate::qmp::Qmp;
use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Which commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `netdev_add` and `netdev_del` of a hubport, in turn.
    Hubport,
    /// `query-commands`.
    QueryCommands,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Hubport, Self::QueryCommands];

    /// Command number `n` of a run.
    fn line(self, n: usize) -> String {
        let pair = n / 2;
        match self {
            Self::QueryCommands => "{\"execute\":\"query-commands\"}\n".into(),
            Self::Hubport if n.is_multiple_of(2) => format!(
                "{{\"execute\":\"netdev_add\",\"arguments\":{{\"type\":\"hubport\",\"id\":\"rate{pair}\",\"hubid\":77}}}}\n"
            ),
            Self::Hubport => {
                format!("{{\"execute\":\"netdev_del\",\"arguments\":{{\"id\":\"rate{pair}\"}}}}\n")
            }
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hubport => "netdev_add/del",
            Self::QueryCommands => "query-commands",
        })
    }
}

impl FromStr for Kind {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let all = Self::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| Failure::new(format!("one of {all}")))
    }
}

/// What a run showed.
#[derive(Debug, Clone)]
pub struct Rate {
    /// Commands answered a second.
    pub per_second: f64,
    /// Time from sending a group to its last answer.
    pub times: Histogram,
}

/// Sends groups of `depth` commands, each group when the one before is answered, for `duration`.
///
/// # Errors
/// When a command is answered by an error, or the connection breaks.
pub fn measure(qmp: &mut Qmp, kind: Kind, depth: usize, duration: Duration) -> Result<Rate> {
    // Whole add/del pairs a lap; a depth of one walks through the same lines singly.
    let lines: Vec<String> = (0..depth.next_multiple_of(2)).map(|n| kind.line(n)).collect();
    let groups: Vec<String> = lines.chunks(depth.max(1)).map(<[String]>::concat).collect();
    let (mut times, mut answered) = (Histogram::default(), 0_u64);
    let start = Instant::now();
    while start.elapsed() < duration {
        for (group, lines) in groups.iter().zip(lines.chunks(depth.max(1))) {
            let asked = Instant::now();
            qmp.send(group.as_bytes())?;
            for _ in lines {
                qmp.skip_reply()?;
            }
            times.add(asked.elapsed().as_nanos() as u64);
            answered += lines.len() as u64;
        }
    }
    Ok(Rate { per_second: answered as f64 / start.elapsed().as_secs_f64(), times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubport_lines_add_and_delete_the_same_id() {
        assert!(Kind::Hubport.line(4).contains("\"id\":\"rate2\",\"hubid\""));
        assert!(Kind::Hubport.line(5).contains("netdev_del") && Kind::Hubport.line(5).contains("rate2"));
    }

    #[test]
    fn kinds_are_named_as_they_are_printed() {
        assert!(Kind::ALL.into_iter().all(|kind| kind.to_string().parse() == Ok(kind)));
        assert!("query-x".parse::<Kind>().is_err());
    }
}
