//! The vhost-user session, fed with messages that are right, damaged, out of order and in pieces.

#![no_main]

use engine::vhost::fuzz_session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz_session(data));
