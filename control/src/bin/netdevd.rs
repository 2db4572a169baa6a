//! netdevd: QEMU's network layer as a daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    control::daemon::main(std::env::args().skip(1).collect())
}
