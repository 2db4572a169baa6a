//! What standard output is.

use crate::fds::window;
use std::io::{IsTerminal, stdout};

/// Where output goes and how much room there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Screen {
    /// Characters a line; `None` when nobody looks at lines (a file or a pipe).
    pub columns: Option<usize>,
    /// Lines; on a terminal only.
    pub rows: Option<usize>,
}

impl Screen {
    /// Standard output. `$COLUMNS`, where it is exported, says how wide.
    #[must_use]
    pub fn standard_output() -> Self {
        let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
        if !stdout().is_terminal() {
            return Self { columns: told, rows: None };
        }
        let (columns, rows) = window(&stdout()).unwrap_or((80, 24));
        Self { columns: told.or(Some(columns)), rows: Some(rows) }
    }

    /// Whether it is a terminal.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.rows.is_some()
    }
}
