//! The rows: rings, stations, and to whom they send.

/// Guests.
pub const PORTS: u32 = 3;

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Packed rings.
    pub packed: bool,
    /// Stations, evenly behind all ports and at least one behind each.
    pub macs: u32,
    /// To whom they send, in the words of `pktgen --to-macs`.
    to: &'static str,
}

impl Case {
    /// The rows of a part.
    #[must_use]
    pub fn of(part: &str) -> Vec<Self> {
        let kinds: &[(u32, &'static str)] = match part {
            "static" => &[(64, "next")],
            "flood" => &[(1, "unknown"), (64, "unknown"), (4096, "unknown"), (64, "broadcast")],
            _ => &[(1, "all"), (64, "all"), (4096, "all")],
        };
        let both = |&(macs, to)| [false, true].map(|packed| Self { packed, macs, to });
        kinds.iter().flat_map(both).collect()
    }

    /// Whether every frame leaves at all other ports. Only the first port sends then: two that flood a third give it more than it
    /// can take.
    #[must_use]
    pub fn floods(&self) -> bool {
        matches!(self.to, "unknown" | "broadcast")
    }

    fn format(&self) -> &'static str {
        if self.packed { "packed" } else { "split" }
    }

    /// What `--only` names: `split-64`, `packed-64-broadcast`.
    #[must_use]
    pub fn id(&self) -> String {
        let to = if self.to == "broadcast" { "-broadcast" } else { "" };
        format!("{}-{}{to}", self.format(), self.macs)
    }

    /// For tables.
    #[must_use]
    pub fn name(&self) -> String {
        let (s, to) = (if self.macs == 1 { "" } else { "s" }, self.to);
        let to = if to == "broadcast" { ", broadcast" } else { "" };
        format!("{} {} MAC{s}{to}", self.format(), self.macs)
    }

    /// Options of `pktgen`.
    #[must_use]
    pub fn pktgen(&self) -> Vec<String> {
        let mut words: Vec<String> = ["--size", "64", "--macs"].map(str::to_owned).into();
        words.extend([self.macs.div_ceil(PORTS).to_string(), "--to-macs".into(), self.to.into()]);
        words.extend(self.packed.then(|| "--packed".to_owned()));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_part_has_a_name_of_its_own() {
        for (part, count) in [("unicast", 6), ("static", 2), ("flood", 8), ("hub", 6)] {
            let mut ids: Vec<String> = Case::of(part).iter().map(Case::id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), count, "{part}");
        }
        assert!(Case::of("flood").iter().all(Case::floods) && !Case::of("static").iter().any(Case::floods));
    }
}
