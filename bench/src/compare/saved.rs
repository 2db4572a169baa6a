//! A comparison's report, as files: its document and its plot.

use super::lab::Lab;
use super::plot;
use crate::failure::{Context, Result};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;

/// What was written. It is shown as the paths, one a line.
#[derive(Debug)]
pub struct Saved {
    /// The document.
    pub text: String,
    json: PathBuf,
    svg: PathBuf,
}

impl Saved {
    /// Writes `NAME.json` and `NAME.svg` where the lab's reports go.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(lab: &Lab, name: &str, document: &Value, groups: &[plot::Group]) -> Result<Self> {
        let (json, svg) = (lab.reports.join(format!("{name}.json")), lab.reports.join(format!("{name}.svg")));
        let text = serde_json::to_string_pretty(document).context("report")?;
        std::fs::write(&json, &text).context(json.display())?;
        std::fs::write(&svg, plot::bars(groups)).context(svg.display())?;
        Ok(Self { text, json, svg })
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.json.display(), self.svg.display())
    }
}
