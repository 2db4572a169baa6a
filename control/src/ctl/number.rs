//! Numbers for people.

/// A count in at most five characters or so: exact below 10,000, else with a decimal prefix (`12.3k`, `4.56G`).
pub(super) fn short(value: f64) -> String {
    // The next prefix takes over where four digits would round up to it.
    const LIMIT: f64 = 999.5;
    if value < 9999.5 {
        let whole = value.fract() == 0.0 || value >= 9.95;
        return if whole { format!("{value:.0}") } else { format!("{value:.1}") };
    }
    let mut scaled = value / 1e3;
    let mut prefixes = ["k", "M", "G", "T", "P"].into_iter().chain(std::iter::repeat("E"));
    let mut prefix = prefixes.next().unwrap_or_default();
    while scaled >= LIMIT && prefix != "E" {
        scaled /= 1e3;
        prefix = prefixes.next().unwrap_or_default();
    }
    let digits = match scaled {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$}{prefix}")
}

/// A share in percent; `-` where there is no whole.
pub(super) fn percent(part: f64, whole: f64) -> String {
    match whole > 0.0 {
        true => format!("{:.1}", part / whole * 100.0),
        false => "-".to_owned(),
    }
}

/// A mean; `-` of nothing.
pub(super) fn mean(sum: f64, count: f64) -> String {
    match count > 0.0 {
        true => format!("{:.0}", sum / count),
        false => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (9.96, "10"),
            (9999.0, "9999"),
            (9999.9, "10.0k"),
            (123_456.0, "123k"),
            (999_499.0, "999k"),
            (999_999.0, "1.00M"),
            (4.567e9, "4.57G"),
            (2e19, "20.0E"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn shares_and_means_of_nothing_are_dashes() {
        assert_eq!((percent(1.0, 8.0).as_str(), percent(0.0, 0.0).as_str()), ("12.5", "-"));
        assert_eq!((mean(10.0, 4.0).as_str(), mean(10.0, 0.0).as_str()), ("2", "-"));
    }
}
