//! Tables and wrapped text.

/// Rows under titles, in aligned columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Blanks between columns.
const GAP: usize = 2;

impl Table {
    pub(super) fn new<T: Into<String>>(titles: impl IntoIterator<Item = T>) -> Self {
        Self { titles: titles.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are titles.
    pub(super) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Characters of the longest line.
    pub(super) fn width(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.titles.iter().map(|title| length(title)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        widths
    }

    /// The table as text. Columns of numbers are aligned to the right. Where the whole is wider than `columns`, the
    /// last column is wrapped.
    pub(super) fn text(&self, columns: Option<usize>) -> String {
        let widths = self.widths();
        let number = |at: usize| self.rows.iter().all(|row| row.get(at).is_none_or(|cell| is_number(cell)));
        let right: Vec<bool> = (0..widths.len()).map(number).collect();
        let before_last: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
        let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(before_last).max(16));
        let mut text = String::new();
        for row in std::iter::once(&self.titles).chain(&self.rows) {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if at > 0 {
                    line.push_str(&" ".repeat(GAP));
                }
                let pad = " ".repeat(width.saturating_sub(length(cell)));
                let last = at + 1 == row.len();
                match right[at] {
                    true => line.extend([pad.as_str(), cell]),
                    false if last => line.push_str(&wrap(cell, before_last, room)),
                    false => line.extend([cell, pad.as_str()]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn is_number(cell: &str) -> bool {
    let digits = cell.trim_start_matches('-').trim_end_matches(['k', 'M', 'G', 'T', 'P', 'E']);
    cell.is_empty() || cell == "-" || digits.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Breaks text at blanks into lines of at most `room` characters, where words allow; lines after the first are
/// indented.
pub(super) fn wrap(text: &str, indent: usize, room: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 && column + 1 + length(word) > room {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut table = Table::new(["name", "frames", "note"]);
        table.row(["t0", "12", "a"]);
        table.row(["hub0port0", "3.4k", ""]);
        assert_eq!(table.width(), 23);
        assert_eq!(
            table.text(None),
            "name       frames  note\n\
             t0             12  a\n\
             hub0port0    3.4k\n"
        );
    }

    #[test]
    fn a_last_column_that_is_too_wide_is_wrapped() {
        let mut table = Table::new(["k", "v"]);
        table.row(["a", "one two three four five"]);
        assert_eq!(table.text(Some(20)), "k  v\na  one two three\n   four five\n");
    }

    #[test]
    fn wrapping_keeps_words_whole() {
        assert_eq!(wrap("aa bb cc", 1, 5), "aa bb\n cc");
        assert_eq!(wrap("aaaaaaaa b", 0, 5), "aaaaaaaa\nb");
    }
}
