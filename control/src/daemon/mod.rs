//! The daemon: command line, start-up order, the event loop, and the end.
//!
//! ```text
//! settings -> (detach) -> signals blocked -> engine -> chardevs, netdevs, objects, config -> monitors -> ready
//!          -> loop: signals, completions, chardevs, monitors, metrics -> shutdown
//! ```

mod chardevs;
mod detach;
mod executor;
mod help;
mod logs;
mod metrics;
mod pidfile;
mod place;
mod run;
mod settings;
mod start;

pub use run::main;

/// What ends the daemon before it is ready: a message for standard error, without the program's name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(String);

impl Fatal {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// An error of an option, which is named with its argument as QEMU does.
    fn option(name: &str, argument: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("-{name} {argument}: {why}"))
    }
}
