//! Tables for people: columns as wide as their longest cell, the first to the left, the others to the right.

use std::fmt::{Display, Write};

/// A table under construction.
#[derive(Debug, Default)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Adds a row; the first one is the head.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.0.push(cells.into_iter().map(Into::into).collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.0
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.0.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(line, "{cell:<width$}")?,
                    _ => write!(line, "  {cell:>width$}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
            if number == 0 {
                writeln!(f, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1)))?;
            }
        }
        Ok(())
    }
}

/// A figure with three digits: `0.59`, `15.7`, `1470`.
pub fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".into(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A ratio: `6.33x`.
pub fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{}x", figure(value)) } else { "-".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_under_a_ruled_head() {
        let mut table = Table::default();
        table.row(["what", "now"]);
        table.row(["a longer one", "7"]);
        assert_eq!(table.to_string(), "what          now\n-----------------\na longer one    7\n");
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!([0.594, 15.72, 1470.4].map(figure), ["0.59", "15.7", "1470"]);
        assert_eq!(figure(f64::NAN), "-");
    }
}
