//! What goes wrong with chardevs, in QEMU's words.

use crate::qmp::error::QmpError;

/// Why a chardev could not be added, used or removed. `Display` is what a QMP client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChardevError {
    /// `chardev-add` of a name that is taken (or about to be).
    #[error("Chardev with id '{0}' already exists")]
    Exists(String),
    /// The backend could not be made.
    #[error("Failed to add chardev '{id}': {why}")]
    Failed {
        /// The chardev's name.
        id: String,
        /// What failed; alone it is the command line's message.
        why: String,
    },
    /// No chardev of that name, said to `chardev-remove`.
    #[error("Chardev '{0}' not found")]
    NotFound(String),
    /// `chardev-remove` of a chardev that has a user.
    #[error("Chardev '{0}' is busy")]
    Busy(String),
    /// No chardev of that name, said to one who wants to use it.
    #[error("chardev \"{0}\" not found")]
    NoSuch(String),
    /// A second user for one chardev.
    #[error("chardev '{0}' is already in use")]
    InUse(String),
}

impl ChardevError {
    /// The message for the command line, which names the option already.
    #[must_use]
    pub fn on_command_line(&self) -> String {
        match self {
            Self::Failed { why, .. } => why.clone(),
            Self::Exists(id) => format!("Duplicate ID '{id}' for chardev"),
            other => other.to_string(),
        }
    }
}

impl From<ChardevError> for QmpError {
    fn from(error: ChardevError) -> Self {
        Self::generic(error.to_string())
    }
}
