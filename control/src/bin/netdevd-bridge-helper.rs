//! netdevd-bridge-helper: makes a tap on a bridge for whoever may have one, as qemu-bridge-helper does.

use std::io::{Write, stderr};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Err(error) = control::bridge_helper::run(&words) else { return ExitCode::SUCCESS };
    // Nothing is left to tell it to if this fails.
    let _ = writeln!(stderr(), "{error}");
    ExitCode::FAILURE
}
