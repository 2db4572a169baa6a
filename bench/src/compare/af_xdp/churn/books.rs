//! Where frames and chunks are, by netdevd's counters and by the kernel's.

use super::super::lane::Lane;
use crate::compare::netns::Namespace;
use crate::compare::process::run;
use crate::compare::table::Table;
use crate::compare::vhost::duts::Netdevd;
use crate::failure::{Context, Result};
use crate::proc::Interface;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// One way of the steady path: from one interface of the load's to the other.
#[derive(Debug, Clone, Default)]
struct Way {
    /// Frames that the generator's interface took from it.
    sent: u64,
    /// Frames that the kernel counted as dropped between that interface and netdevd.
    dropped_before: u64,
    /// Frames that netdevd received.
    entered: u64,
    /// Frames that netdevd's socket was rid of.
    left: u64,
    /// Frames that the kernel counted as dropped between netdevd and the generator's other interface.
    dropped_behind: u64,
    /// Frames that this interface gave to the generator.
    arrived: u64,
}

impl Way {
    fn fields(&self) -> [u64; 6] {
        [self.sent, self.dropped_before, self.entered, self.left, self.dropped_behind, self.arrived]
    }

    fn since(&self, before: &Self) -> Self {
        let (now, then) = (self.fields(), before.fields());
        let [sent, dropped_before, entered, left, dropped_behind, arrived] =
            std::array::from_fn(|at| now[at].saturating_sub(then[at]));
        Self { sent, dropped_before, entered, left, dropped_behind, arrived }
    }

    /// Frames that nobody counts, before netdevd and behind it.
    fn unseen(&self) -> [i64; 2] {
        let missing =
            |from: u64, dropped: u64, to: u64| from.cast_signed() - dropped.cast_signed() - to.cast_signed();
        [
            missing(self.sent, self.dropped_before, self.entered),
            missing(self.left, self.dropped_behind, self.arrived),
        ]
    }
}

/// Frames of the steady path, both ways.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    ways: [Way; 2],
    /// Frames that netdevd dropped, by reason.
    named: BTreeMap<String, u64>,
}

/// What the kernel counts for a netdev's sockets as dropped before netdevd saw it.
const BEFORE: [&str; 2] = ["rx-dropped", "rx-ring-full"];

impl Account {
    /// All counters now.
    pub(super) fn read(lane: &Lane, netdevd: &mut Netdevd) -> Result<Self> {
        let stats = netdevd.ask("query-net-stats", json!({}))?;
        let ports: Vec<&Value> = stats["ports"].as_array().into_iter().flatten().collect();
        let of = |name: &str, what: &str| -> u64 {
            ports.iter().filter(|port| port["name"] == name).filter_map(|port| port[what].as_u64()).sum()
        };
        let mut named = BTreeMap::new();
        for port in
            ports.iter().filter(|port| ["a", "b", "ha", "hb"].iter().any(|name| port["name"] == *name))
        {
            for (reason, count) in port["drops"].as_object().into_iter().flatten() {
                *named.entry(reason.clone()).or_default() += count.as_u64().unwrap_or(0);
            }
        }
        let mut refused = |name: &str| -> Result<[u64; 2]> {
            let netdev = netdevd.ask("query-netdev", json!({"name": name}))?;
            let kernel = &netdev[0]["kernel"];
            let count = |what: &str| kernel[what].as_u64().unwrap_or(0);
            Ok([BEFORE.iter().map(|what| count(what)).sum(), count("tx-invalid")])
        };
        let sockets = [refused("a")?, refused("b")?];
        let (load, dut) = (lane.load.interfaces()?, lane.dut.interfaces()?);
        let find = |all: &BTreeMap<String, Interface>, name: &str| all.get(name).copied().unwrap_or_default();
        let way = |from: usize, to: usize| {
            let names = ["a", "b"];
            let (first, last) =
                (find(&load, &format!("g{}", names[from])), find(&load, &format!("g{}", names[to])));
            let (near, far) =
                (find(&dut, &format!("d{}", names[from])), find(&dut, &format!("d{}", names[to])));
            Way {
                sent: first.tx_frames + first.tx_dropped,
                dropped_before: first.tx_dropped + near.rx_dropped.max(sockets[from][0]),
                entered: of(names[from], "rx-frames"),
                left: of(names[to], "tx-frames"),
                dropped_behind: far.tx_dropped + sockets[to][1] + last.rx_dropped,
                // A veth counts as received what it then drops for want of room in a socket's ring.
                arrived: last.rx_frames.saturating_sub(last.rx_dropped),
            }
        };
        Ok(Self { ways: [way(0, 1), way(1, 0)], named })
    }

    /// What was counted since `before`, when nothing is under way any more, or after `patience`.
    pub(super) fn settled(
        lane: &Lane,
        netdevd: &mut Netdevd,
        before: &Self,
        patience: Duration,
    ) -> Result<Self> {
        let until = Instant::now() + patience;
        loop {
            let now = Self::read(lane, netdevd)?.since(before);
            if (now.unnamed() == 0 && now.unseen() == [0, 0]) || Instant::now() > until {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn since(self, before: &Self) -> Self {
        let [one, two] = &before.ways;
        let named = self.named.into_iter().filter_map(|(reason, count)| {
            let new = count - before.named.get(&reason).copied().unwrap_or(0);
            (new > 0).then_some((reason, new))
        });
        Self { ways: [self.ways[0].since(one), self.ways[1].since(two)], named: named.collect() }
    }

    /// Frames that netdevd received, and neither was rid of nor dropped by name.
    pub(super) fn unnamed(&self) -> i64 {
        let sum = |pick: fn(&Way) -> u64| self.ways.iter().map(pick).sum::<u64>().cast_signed();
        sum(|way| way.entered) - sum(|way| way.left) - self.named.values().sum::<u64>().cast_signed()
    }

    /// Frames that nobody counts, before netdevd and behind it.
    pub(super) fn unseen(&self) -> [i64; 2] {
        let [one, two] = self.ways.each_ref().map(Way::unseen);
        [one[0] + two[0], one[1] + two[1]]
    }

    /// Frames that the kernel gave to the generator.
    pub(super) fn arrived(&self) -> u64 {
        self.ways.iter().map(|way| way.arrived).sum()
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::default();
        table.row(["frames", "sent", "kernel", "in", "out", "kernel", "arrived", "uncounted"]);
        for (name, way) in ["a to b", "b to a"].iter().zip(&self.ways) {
            let [before, behind] = way.unseen();
            let mut cells = vec![(*name).to_owned()];
            cells.extend(way.fields().map(|count| count.to_string()));
            cells.push(format!("{before}, {behind}"));
            table.row(cells);
        }
        let named: Vec<String> =
            self.named.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let named = if named.is_empty() { "none".into() } else { named.join(", ") };
        table.row([format!("named drops: {named}; unnamed: {}", self.unnamed())]);
        table
    }

    pub(super) fn summary(&self) -> Value {
        let way = |way: &Way| {
            let [sent, dropped_before, entered, left, dropped_behind, arrived] = way.fields();
            json!({
                "sent": sent, "kernel-dropped-before": dropped_before, "in": entered, "out": left,
                "kernel-dropped-behind": dropped_behind, "arrived": arrived, "uncounted": way.unseen(),
            })
        };
        json!({
            "a-to-b": way(&self.ways[0]), "b-to-a": way(&self.ways[1]), "named": self.named, "unnamed": self.unnamed(),
        })
    }
}

/// A UMEM, and how its chunks are spread.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub(super) number: u64,
    chunks: u64,
    free: u64,
    receiving: u64,
    sending: u64,
    pub(super) lost: u64,
}

impl Memory {
    /// The UMEMs of these netdevs, which must be all that have queues there, when all chunks are found, or after `patience`.
    pub(super) fn settled(netdevd: &mut Netdevd, names: &[&str], patience: Duration) -> Result<Vec<Self>> {
        let until = Instant::now() + patience;
        loop {
            let all = Self::read(netdevd, names)?;
            if all.iter().all(|memory| memory.missing() == 0) || Instant::now() > until {
                return Ok(all);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn read(netdevd: &mut Netdevd, names: &[&str]) -> Result<Vec<Self>> {
        let mut all: BTreeMap<u64, Self> = BTreeMap::new();
        for name in names {
            let netdev = netdevd.ask("query-netdev", json!({"name": name}))?;
            for share in netdev[0]["memory"].as_array().into_iter().flatten() {
                let count = |what: &str| share[what].as_u64().unwrap_or(0);
                let memory = all.entry(count("umem")).or_default();
                let (receiving, sending) =
                    (memory.receiving + count("receiving"), memory.sending + count("sending"));
                let (number, chunks) = (count("umem"), count("chunks"));
                *memory =
                    Self { number, chunks, free: count("free"), receiving, sending, lost: count("lost") };
            }
        }
        Ok(all.into_values().collect())
    }

    /// Chunks that nobody has.
    pub(super) const fn missing(&self) -> i64 {
        let found = self.free + self.receiving + self.sending + self.lost;
        self.chunks.cast_signed() - found.cast_signed()
    }

    pub(super) fn row(&self) -> Vec<String> {
        let counts = [self.number, self.chunks, self.free, self.receiving, self.sending, self.lost];
        counts.iter().map(u64::to_string).chain([self.missing().to_string()]).collect()
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "umem": self.number, "chunks": self.chunks, "free": self.free, "receiving": self.receiving,
            "sending": self.sending, "lost": self.lost, "missing": self.missing(),
        })
    }
}

/// Interfaces of a namespace that have an XDP program.
pub(super) fn programs(namespace: &Namespace) -> Result<usize> {
    let text = run(Command::new("ip").args(["-n", namespace.name(), "-j", "link", "show"]))?;
    let links: Value = serde_json::from_str(&text).context("ip -j link")?;
    Ok(links.as_array().into_iter().flatten().filter(|link| link.get("xdp").is_some()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_counts_shows() {
        let way = |sent, dropped_before, entered, left, dropped_behind, arrived| Way {
            sent,
            dropped_before,
            entered,
            left,
            dropped_behind,
            arrived,
        };
        let before = Account { ways: [way(1, 0, 1, 1, 0, 1), Way::default()], named: BTreeMap::new() };
        let named = BTreeMap::from([("tx-full".to_owned(), 4)]);
        let now = Account { ways: [way(101, 10, 90, 86, 6, 78), way(5, 0, 5, 5, 0, 5)], named };
        let since = now.since(&before);
        assert_eq!((since.unnamed(), since.unseen()), (0, [1, 2]));
    }

    #[test]
    fn chunks_that_nobody_has_are_missing() {
        let memory = Memory { number: 0, chunks: 100, free: 50, receiving: 40, sending: 5, lost: 2 };
        assert_eq!(memory.missing(), 3);
    }
}
