//! The error of the tools: one line that says what failed and on what.

use std::fmt::Display;

/// Why a tool stopped. Tools print it and exit with status 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

/// The result of anything a tool does.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure described by `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Says what was being done when an error came up.
pub trait Context<T> {
    /// Turns the error into `what: error`.
    fn context(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}

/// Runs a tool's `main`: prints the failure and gives the exit status.
pub fn exit(tool: &str, result: Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{tool}: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}
