//! netdevctl: the command line client of netdevd (`netdevctl --help`).

use control::ctl::{Failure, Screen, run};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    let result = match words {
        Ok(words) => {
            let socket = std::env::var("NETDEVD_QMP").ok();
            run(words, socket, Screen::standard_output(), &mut stdout().lock())
        }
        Err(word) => Err(Failure::Usage(format!("{} is no UTF-8", word.display()))),
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if failure.status() != 0 {
        // Nothing is left to tell it to if this fails.
        let _ = writeln!(stderr(), "netdevctl: {failure}");
    }
    ExitCode::from(failure.status())
}
