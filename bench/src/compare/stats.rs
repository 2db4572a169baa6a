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

/// A median with the interval in which it lies nineteen times out of twenty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Resamples of a bootstrap.
const RESAMPLES: usize = 1000;

impl Estimate {
    /// Of `values`, by bootstrap; fewer than five give the least and the largest. `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let Spread { median: middle, min, max } = Spread::of(&values)?;
        if values.len() < 5 {
            return Some(Self { median: middle, low: min, high: max });
        }
        // A generator of its own with a fixed start: the same values give the same interval.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values[(state % values.len() as u64) as usize]
        };
        let mut medians: Vec<f64> =
            (0..RESAMPLES).map(|_| median(&(0..values.len()).map(|_| draw()).collect::<Vec<_>>())).collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[((medians.len() - 1) as f64 * share) as usize];
        Some(Self { median: middle, low: at(0.025), high: at(0.975) })
    }

    /// The same of the reciprocal: how many times less.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self { median: 1.0 / self.median, low: 1.0 / self.high, high: 1.0 / self.low }
    }

    /// For reports.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({ "median": self.median, "low": self.low, "high": self.high })
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
    fn an_estimate_lies_within_its_values() {
        let values: Vec<f64> = (1..=15).map(f64::from).collect();
        let estimate = Estimate::of(&values).unwrap();
        assert_eq!(estimate.median, 8.0);
        assert!((3.0..8.0).contains(&estimate.low) && (9.0..14.0).contains(&estimate.high), "{estimate:?}");
        assert_eq!(Estimate::of(&[2.0, 4.0]).map(|e| (e.median, e.low, e.high)), Some((3.0, 2.0, 4.0)));
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate { median: 2.0, low: 1.0, high: 4.0 }.inverse().low, 0.25);
    }

    #[test]
    fn half_the_latency_is_two_times_better() {
        assert_eq!(times_better(50.0, 100.0, true), 2.0);
        assert_eq!(times_better(50.0, 100.0, false), 0.5);
    }
}
