//! Criterion by the time-stamp counter: reports are in cycles, and in cycles a frame where the throughput is frames.

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};
use engine::worker::clock::ticks;

/// Cycles of the time-stamp counter.
#[derive(Debug)]
pub(crate) struct Cycles;

impl Measurement for Cycles {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        ticks()
    }

    fn end(&self, start: u64) -> u64 {
        ticks().wrapping_sub(start)
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Formatter
    }
}

struct Formatter;

impl ValueFormatter for Formatter {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "cycles"
    }

    fn scale_throughputs(&self, _typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        // All benches that are measured so count frames.
        let Throughput::Elements(frames) = *throughput else { return "cycles" };
        values.iter_mut().for_each(|value| *value /= frames as f64);
        "cycles/frame"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "cycles"
    }
}
