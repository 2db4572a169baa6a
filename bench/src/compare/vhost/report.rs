//! Rows of all parts: what is printed, written as JSON and drawn.

use crate::compare::lab::{Lab, progress_done};
use crate::compare::plot::Group;
use crate::compare::saved::Saved;
use crate::compare::stats::{Estimate, Spread};
use crate::compare::table::{Table, figure, ratio};
use crate::compare::vhost::quads::Quads;
use crate::failure::{Failure, Result};
use serde_json::{Value, json};

/// One figure of both sides.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which part of the comparison.
    pub part: &'static str,
    /// Which rings, frames or load.
    pub case: String,
    /// What is counted, with its unit.
    pub unit: &'static str,
    /// Whether less is better.
    pub less: bool,
    /// netdevd's.
    pub ours: Option<Spread>,
    /// The peer's.
    pub theirs: Option<Spread>,
    /// How many times better, at near placement.
    pub better: Option<Estimate>,
    /// The same where the CPUs shared no cache.
    pub far: Option<Estimate>,
    /// How many times better is wanted.
    pub want: Option<f64>,
    /// Samples (quads, searches) that it rests on.
    pub samples: usize,
    /// Samples below which there is no result.
    pub least: usize,
    /// What a reader has to know.
    pub note: String,
}

impl Row {
    /// One without figures yet, which rests on these quads.
    #[must_use]
    pub fn of<S>(
        part: &'static str,
        case: &str,
        (unit, less): (&'static str, bool),
        quads: &Quads<S>,
    ) -> Self {
        Self {
            part,
            case: case.to_owned(),
            unit,
            less,
            ours: None,
            theirs: None,
            better: None,
            far: None,
            want: None,
            samples: quads.near.len(),
            least: quads.least,
            note: String::new(),
        }
    }

    /// Whether there is a result.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.samples >= self.least.max(1) && self.better.is_some()
    }

    /// Whether a target is missed, or cannot be judged.
    #[must_use]
    pub fn missed(&self) -> bool {
        self.want.is_some_and(|want| !self.stands() || self.better.is_none_or(|better| better.median < want))
    }

    fn verdict(&self) -> String {
        match (self.want, self.stands()) {
            (_, false) => "no result".into(),
            (None, true) => String::new(),
            (Some(want), true) => format!("{}{}", ratio(want), if self.missed() { " MISS" } else { "" }),
        }
    }

    fn cells(&self) -> [String; 9] {
        let median = |spread: &Option<Spread>| figure(spread.map_or(f64::NAN, |spread| spread.median));
        let shown = self.better.filter(|_| self.samples > 0);
        [
            self.case.clone(),
            self.unit.to_owned(),
            median(&self.ours),
            median(&self.theirs),
            shown.map_or("-".into(), |better| ratio(better.median)),
            shown.map_or("-".into(), |better| format!("{:.2}-{:.2}", better.low, better.high)),
            self.verdict(),
            self.samples.to_string(),
            self.note.clone(),
        ]
    }

    fn json(&self) -> Value {
        let spread = |spread: &Option<Spread>| spread.map(|spread| spread.summary());
        let estimate = |estimate: &Option<Estimate>| estimate.map(|estimate| estimate.summary());
        json!({
            "part": self.part, "case": self.case, "unit": self.unit, "less-is-better": self.less,
            "netdevd": spread(&self.ours), "peer": spread(&self.theirs), "times-better": estimate(&self.better),
            "times-better-far": estimate(&self.far), "want": self.want, "samples": self.samples,
            "result": self.stands(), "missed": self.missed(), "note": self.note,
        })
    }

    /// As bars.
    fn group(&self) -> Option<Group> {
        let [ours, theirs] = sides(self.part);
        let values = [(ours, self.ours?), (theirs, self.theirs?)];
        Some(Group { label: self.case.clone(), unit: self.unit, less: self.less, values: values.into() })
    }
}

/// What the two sides of a part are called.
fn sides(part: &str) -> [&'static str; 2] {
    match part {
        "dump" => ["with dump", "without"],
        "limit" => ["measured", "set"],
        "off" => ["filters off", "no filter"],
        "tcpdump" => ["filter-dump", "tcpdump"],
        "qemu" => ["netdevd", "qemu"],
        "coalesce" => ["netdevd", "a write each"],
        "workers" => ["2 workers", "1 worker"],
        "unicast" | "flood" => ["netdevd", "OVS-DPDK"],
        "static" => ["netdevd", "OVS flows"],
        "hub" => ["switch", "2-port hub"],
        "frames" | "tcp" => ["netdevd", "qemu"],
        "vde" => ["netdevd", "vde_plug2tap"],
        "vxlan" => ["netdevd", "kernel"],
        "rx" | "tx" | "forward" | "guest" | "full-forward" | "full-guest" => ["netdevd", "peer"],
        _ => ["netdevd", "testpmd"],
    }
}

/// A table a part.
#[must_use]
pub fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut parts: Vec<&str> = rows.iter().map(|row| row.part).collect();
    parts.dedup();
    for part in parts {
        let mut table = Table::default();
        let [ours, theirs] = sides(part);
        table.row([part, "", ours, theirs, "better", "95 %", "want", "n", ""]);
        rows.iter().filter(|row| row.part == part).for_each(|row| table.row(row.cells()));
        text.push_str(&format!("{table}\n"));
    }
    text
}

/// All rows for the report.
#[must_use]
pub fn json(rows: &[Row]) -> Value {
    rows.iter().map(Row::json).collect()
}

/// All rows with figures as bars.
#[must_use]
pub fn groups(rows: &[Row]) -> Vec<Group> {
    rows.iter().filter(|row| row.stands()).filter_map(Row::group).collect()
}

/// Rows as they come, and what could not be had.
#[derive(Debug, Default)]
pub struct Made {
    rows: Vec<Row>,
    failed: Vec<String>,
}

/// How rows are shown.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The name of the comparison and of its files.
    pub what: &'static str,
    /// It was a quick look.
    pub quick: bool,
    /// Print JSON instead of the tables.
    pub json: bool,
    /// Fail when a target is missed or cannot be judged.
    pub check: bool,
    /// What the tables do not say.
    pub legend: &'static str,
}

impl Made {
    /// Shows the rows that `fill` adds, also those made before it was interrupted.
    ///
    /// # Errors
    /// Those of `fill`; no room; with `check` also when a target is missed.
    pub fn show(lab: &Lab, how: &How, fill: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut made = Self::default();
        let filled = fill(&mut made);
        if let Err(failure) = &filled {
            made.failed.push(failure.to_string());
        }
        if filled.is_ok() || !made.rows.is_empty() {
            let published = made.publish(lab, how);
            return filled.and(published);
        }
        filled
    }

    /// Adds the rows of `label`. One row that cannot be had does not take the others with it.
    ///
    /// # Errors
    /// An interrupt.
    pub fn add(&mut self, lab: &Lab, label: &str, rows: Result<Vec<Row>>) -> Result<()> {
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(failure) => {
                lab.go_on()?;
                progress_done();
                eprintln!("{label}: {failure}");
                self.failed.push(format!("{label}: {failure}"));
            }
        }
        Ok(())
    }

    /// Writes them as JSON and as bars, and prints them.
    ///
    /// # Errors
    /// No room; with `check` also when a target is missed.
    fn publish(&self, lab: &Lab, how: &How) -> Result<()> {
        progress_done();
        let what = format!("compare {}", how.what);
        let value =
            json!({"what": what, "quick": how.quick, "rows": json(&self.rows), "failed": self.failed});
        let saved = Saved::write(lab, how.what, &value, &groups(&self.rows))?;
        if how.json {
            println!("{}", saved.text);
        } else {
            print!("{}", tables(&self.rows));
            self.failed.iter().for_each(|failure| println!("failed: {failure}"));
            println!("{}\n{saved}", how.legend);
        }
        let missed = self.failed.len() + self.rows.iter().filter(|row| row.missed()).count();
        match how.check && missed > 0 {
            true => Err(Failure::new(format!("{missed} targets are missed or have no result"))),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(samples: usize, better: f64) -> Row {
        let spread = Spread { median: 1.0, min: 1.0, max: 1.0 };
        Row {
            part: "cycles",
            case: "split-64".into(),
            unit: "cycles",
            less: true,
            ours: Some(spread),
            theirs: Some(spread),
            better: Estimate::of(&[better]),
            far: None,
            want: Some(2.0),
            samples,
            least: 5,
            note: String::new(),
        }
    }

    #[test]
    fn a_row_of_too_few_samples_has_no_result_and_misses_its_target() {
        assert!(row(4, 3.0).missed() && tables(&[row(4, 3.0)]).contains("no result"));
        assert!(!row(5, 3.0).missed() && row(5, 1.9).missed());
        assert!(tables(&[row(5, 1.9)]).contains("MISS"));
        assert!(groups(&[row(4, 3.0)]).is_empty());
    }
}
