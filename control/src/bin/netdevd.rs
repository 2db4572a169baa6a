//! netdevd: QEMU's network layer as a daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    control::daemon::main(&args)
}
