//! Bars as SVG: one panel a unit, one group a row, one bar a peer, a whisker from the least to the largest slice.

use crate::compare::stats::Spread;
use crate::compare::table::figure;
use std::fmt::Write;

/// One row of bars.
#[derive(Debug, Clone)]
pub struct Group {
    /// What stands in front of it.
    pub label: String,
    /// Its unit: rows of one unit share a panel.
    pub unit: &'static str,
    /// Whether less is better.
    pub less: bool,
    /// Each peer's value.
    pub values: Vec<(&'static str, Spread)>,
}

const WIDTH: f64 = 960.0;
/// Where bars begin; labels are to the left.
const LEFT: f64 = 210.0;
/// Longest bar; its value is written behind it.
const LENGTH: f64 = 640.0;
const BAR: f64 = 13.0;
const GROUP_GAP: f64 = 12.0;
const PANEL_HEAD: f64 = 46.0;

/// Colours that differ in lightness too, so that they survive grey print.
const COLOURS: [(&str, &str); 7] = [
    ("netdevd", "#c2410c"),
    ("qemu", "#1d4ed8"),
    ("testpmd", "#1d4ed8"),
    ("bridge", "#64748b"),
    ("slirp4netns", "#64748b"),
    ("pasta", "#0f766e"),
    ("veth", "#cbd5e1"),
];

fn colour(peer: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == peer).map_or("#0f766e", |(_, colour)| colour)
}

/// Draws the rows.
pub fn bars(rows: &[Group]) -> String {
    let mut body = String::new();
    let mut y = 20.0;
    let peers: Vec<&str> =
        rows.first().map(|row| row.values.iter().map(|(peer, _)| *peer).collect()).unwrap_or_default();
    legend(&mut body, &peers, y);
    y += 26.0;
    let mut units: Vec<&str> = Vec::new();
    for row in rows {
        if !units.contains(&row.unit) {
            units.push(row.unit);
        }
    }
    for unit in units {
        let rows: Vec<&Group> = rows.iter().filter(|row| row.unit == unit).collect();
        y = panel(&mut body, unit, &rows, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y:.0}\" \
         viewBox=\"0 0 {WIDTH} {y:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn legend(body: &mut String, peers: &[&str], y: f64) {
    for (index, peer) in peers.iter().enumerate() {
        let x = LEFT + 110.0 * index as f64;
        let fill = colour(peer);
        let _ =
            writeln!(body, "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{fill}\"/>", y - 10.0);
        let _ = writeln!(body, "<text x=\"{}\" y=\"{y}\">{peer}</text>", x + 18.0);
    }
}

/// Draws one unit's rows on a common scale; gives where the next panel begins.
fn panel(body: &mut String, unit: &str, rows: &[&Group], top: f64) -> f64 {
    let largest =
        rows.iter().flat_map(|row| row.values.iter().map(|(_, spread)| spread.max)).fold(0.0, f64::max);
    let step = nice_step(largest);
    let end = (largest / step).ceil().max(1.0) * step;
    let scale = LENGTH / end;
    let less = rows.iter().any(|row| row.less);
    let direction = if less { "less is better" } else { "more is better" };
    let _ = writeln!(
        body,
        "<text x=\"10\" y=\"{}\" font-size=\"14\" font-weight=\"bold\">{unit} <tspan font-weight=\"normal\" \
         font-size=\"12\" fill=\"#475569\">({direction})</tspan></text>",
        top + 18.0
    );
    let height: f64 = rows.iter().map(|row| row.values.len() as f64 * BAR + GROUP_GAP).sum();
    let mut mark = 0.0;
    while mark <= end + step / 2.0 {
        let x = LEFT + mark * scale;
        let (from, to) = (top + PANEL_HEAD - 8.0, top + PANEL_HEAD + height - 6.0);
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\" stroke=\"#e2e8f0\"/>"
        );
        let _ = writeln!(
            body,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\" fill=\"#64748b\">{mark}</text>",
            from - 4.0
        );
        mark += step;
    }
    let mut y = top + PANEL_HEAD;
    for row in rows {
        let middle = y + row.values.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            row.label
        );
        for (peer, spread) in &row.values {
            bar(
                body,
                peer,
                y,
                spread.median * scale,
                [spread.min * scale, spread.max * scale],
                spread.median,
            );
            y += BAR;
        }
        y += GROUP_GAP;
    }
    y + 6.0
}

fn bar(body: &mut String, peer: &str, y: f64, length: f64, whisker: [f64; 2], value: f64) {
    let fill = colour(peer);
    let _ = writeln!(
        body,
        "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{}\" fill=\"{fill}\"/>",
        BAR - 2.0
    );
    let middle = y + BAR / 2.0 - 1.0;
    let [from, to] = whisker.map(|at| LEFT + at);
    let _ = writeln!(
        body,
        "<line x1=\"{from:.1}\" y1=\"{middle:.1}\" x2=\"{to:.1}\" y2=\"{middle:.1}\" stroke=\"black\" stroke-opacity=\"0.6\"/>"
    );
    let _ = writeln!(
        body,
        "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{}</text>",
        LEFT + length.max(whisker[1]) + 5.0,
        y + BAR - 4.0,
        figure(value)
    );
}

/// A step of 1, 2 or 5 times a power of ten that cuts `largest` into four to ten parts.
fn nice_step(largest: f64) -> f64 {
    if !(largest.is_finite() && largest > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf((largest / 4.0).log10().floor());
    [5.0, 2.0, 1.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| largest / step >= 4.0)
        .unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_cut_the_scale_into_a_few_parts() {
        assert_eq!([15.7, 1470.0, 98.0, 0.9].map(nice_step), [2.0, 200.0, 20.0, 0.2]);
        assert_eq!(nice_step(0.0), 1.0);
    }

    #[test]
    fn every_peer_of_every_row_has_a_bar() {
        let spread = Spread { median: 2.0, min: 1.0, max: 3.0 };
        let row = |unit| Group {
            label: "a row".into(),
            unit,
            less: false,
            values: vec![("netdevd", spread), ("qemu", spread)],
        };
        let svg = bars(&[row("Gbit/s"), row("kpps")]);
        assert_eq!(svg.matches("fill=\"#c2410c\"").count(), 1 + 2);
        assert!(svg.contains(">Gbit/s <") && svg.contains(">kpps <"));
    }
}
