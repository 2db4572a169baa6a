//! Medians and ratios.

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Median, least and largest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of `values`; `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        Some(Self {
            median: median(values),
            min: finite().reduce(f64::min)?,
            max: finite().reduce(f64::max)?,
        })
    }

    /// For reports.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// How many times `ours` is better than `theirs`: their quotient, turned round where less is better.
pub fn times_better(ours: f64, theirs: f64, less_is_better: bool) -> f64 {
    if less_is_better { theirs / ours } else { ours / theirs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_what_is_no_number() {
        assert_eq!(median(&[3.0, f64::NAN, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn half_the_latency_is_two_times_better() {
        assert_eq!(times_better(50.0, 100.0, true), 2.0);
        assert_eq!(times_better(50.0, 100.0, false), 0.5);
    }
}
