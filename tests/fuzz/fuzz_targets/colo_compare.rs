//! A comparison, fed with what two sides send: framed frames in pieces, whole, damaged and cut.

#![no_main]

use engine::colo::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz(data));
