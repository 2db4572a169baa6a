//! Where frames went: netdevd's own counters beside the kernel's queues at both ends.

use crate::failure::{Context, Result};
use crate::qmp::Qmp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Frames counted by netdevd (`query-net-stats`), all ports together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engine {
    /// Frames read from ports.
    pub entered: u64,
    /// Frames given to ports.
    pub left: u64,
    /// Frames dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// TSC ticks from a poll that returned frames to the end of their transmission.
    pub busy_ticks: u64,
}

impl Engine {
    /// Asks for the counters now.
    ///
    /// # Errors
    /// When the server does not know `query-net-stats`.
    pub fn read(qmp: &mut Qmp) -> Result<Self> {
        let stats = qmp.execute("query-net-stats", json!({})).context("loss account")?;
        Ok(Self::parse(&stats))
    }

    pub(crate) fn parse(stats: &Value) -> Self {
        let mut engine = Self::default();
        let list = |name: &str| stats[name].as_array().cloned().unwrap_or_default();
        for port in list("ports") {
            engine.entered += port["rx-frames"].as_u64().unwrap_or(0);
            engine.left += port["tx-frames"].as_u64().unwrap_or(0);
            for (reason, count) in port["drops"].as_object().into_iter().flatten() {
                *engine.drops.entry(reason.clone()).or_default() += count.as_u64().unwrap_or(0);
            }
        }
        for worker in list("workers") {
            engine.busy_ticks += worker["ticks"]["busy"].as_u64().unwrap_or(0);
        }
        engine
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let drops = self.drops.iter().map(|(reason, count)| {
            (reason.clone(), count.saturating_sub(before.drops.get(reason).copied().unwrap_or(0)))
        });
        Self {
            entered: self.entered.saturating_sub(before.entered),
            left: self.left.saturating_sub(before.left),
            drops: drops.filter(|(_, count)| *count > 0).collect(),
            busy_ticks: self.busy_ticks.saturating_sub(before.busy_ticks),
        }
    }

    /// Frames that entered and neither left nor were dropped by name. Only meaningful where each frame has one way
    /// out (a hub of two ports), and when nothing is under way.
    pub fn unaccounted(&self) -> i64 {
        self.entered.cast_signed() - self.left.cast_signed() - self.drops.values().sum::<u64>().cast_signed()
    }

    /// Adds another stretch of time.
    pub fn add(&mut self, other: &Self) {
        self.entered += other.entered;
        self.left += other.left;
        self.busy_ticks += other.busy_ticks;
        for (reason, count) in &other.drops {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
    }

    /// For reports.
    pub fn summary(&self) -> Value {
        json!({
            "in": self.entered, "out": self.left, "drops": self.drops, "unaccounted": self.unaccounted(),
            "busy-ticks": self.busy_ticks,
        })
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let drops: Vec<_> = self.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let drops = if drops.is_empty() { "none".into() } else { drops.join(", ") };
        format!(
            "in {}, out {}, named drops: {drops}; unaccounted {}",
            self.entered,
            self.left,
            self.unaccounted()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_entered_and_neither_left_nor_was_named_is_unaccounted() {
        let stats = json!({
            "workers": [{"ticks": {"busy": 70}}],
            "ports": [
                {"rx-frames": 10, "tx-frames": 1, "drops": {"tx-full": 2}},
                {"rx-frames": 1, "tx-frames": 6, "drops": {"tx-full": 1, "leg-full": 0}},
            ],
        });
        let engine = Engine::parse(&stats).since(&Engine::default());
        assert_eq!((engine.entered, engine.left, engine.busy_ticks), (11, 7, 70));
        assert_eq!(engine.drops, BTreeMap::from([("tx-full".to_string(), 3)]));
        assert_eq!(engine.unaccounted(), 1);
    }
}
