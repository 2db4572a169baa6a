//! A latency histogram: log-linear buckets, 1/128 of the value wide, as HDR histograms have them.

/// Buckets to a power of two, as a power of two.
const STEP_BITS: u32 = 7;
const STEPS: u64 = 1 << STEP_BITS;

/// Counts of durations in nanoseconds. A quantile is exact to 0.8 % (below 128 ns to 1 ns).
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; bucket(u64::MAX) + 1], count: 0, max: 0 }
    }
}

/// The bucket of `value`: values below [`STEPS`] have one each, then every power of two has `STEPS` buckets.
fn bucket(value: u64) -> usize {
    let Some(shift) = (63 - (value | 1).leading_zeros()).checked_sub(STEP_BITS) else {
        return value as usize;
    };
    (((u64::from(shift) + 1) << STEP_BITS) + (value >> shift) - STEPS) as usize
}

/// The largest value that falls into bucket `index`.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = (index >> STEP_BITS) - 1;
    let first = (STEPS + (index & (STEPS - 1))) << shift;
    first + ((1 << shift) - 1)
}

impl Histogram {
    /// Counts one duration of `ns` nanoseconds.
    pub fn add(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.max = self.max.max(ns);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Durations counted so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest duration, exact, in nanoseconds.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The duration that `share` (0 to 1) of all are not longer than, in nanoseconds; 0 when nothing was counted.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(index).min(self.max);
            }
        }
        self.max
    }

    /// Quantiles in microseconds, as the tools print them.
    pub fn summary(&self) -> serde_json::Value {
        let us = |share| self.quantile(share) as f64 / 1e3;
        serde_json::json!({
            "count": self.count, "p50-us": us(0.5), "p90-us": us(0.9), "p99-us": us(0.99), "p999-us": us(0.999),
            "max-us": self.max as f64 / 1e3,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_whose_bounds_hold_it() {
        for value in (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, (1 << bit) | 1]).chain([u64::MAX])
        {
            let index = bucket(value);
            assert!(upper(index) >= value && (index == 0 || upper(index - 1) < value), "{value} in {index}");
        }
    }

    #[test]
    fn quantiles_of_a_uniform_run_are_within_one_bucket() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|ns| histogram.add(ns));
        for share in [0.01, 0.5, 0.99, 0.999] {
            let (got, want) = (histogram.quantile(share) as f64, 100_000.0 * share);
            assert!((got - want).abs() <= want / 128.0 + 1.0, "{share}: {got} for {want}");
        }
        assert_eq!(histogram.quantile(1.0), 100_000);
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        assert_eq!(Histogram::default().quantile(0.99), 0);
    }
}
