//! The device's side of a split ring: beside the model, and under another side that keeps no rule.

#![no_main]

use engine::virtq::hostile::{Side, fuzz_ring};
use engine::virtq::testing::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz_ring(Format::Split, Side::Device, data));
