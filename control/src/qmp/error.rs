//! QMP errors: a class that clients may branch on, and a description for people.

use serde_json::{Value, json};

/// Error classes of QMP (QEMU `qapi/error.json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Everything without a class of its own.
    GenericError,
    /// No such command, or not now.
    CommandNotFound,
    /// No device, netdev or path of that name.
    DeviceNotFound,
    /// The device is not active.
    DeviceNotActive,
    /// KVM is missing a capability.
    KVMMissingCap,
}

impl ErrorClass {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::KVMMissingCap => "KVMMissingCap",
        }
    }
}

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{desc}")]
pub struct QmpError {
    /// What clients may branch on.
    pub class: ErrorClass,
    /// What people read.
    pub desc: String,
}

impl QmpError {
    /// A `GenericError`.
    #[must_use]
    pub fn generic(desc: impl Into<String>) -> Self {
        Self { class: ErrorClass::GenericError, desc: desc.into() }
    }

    /// `DeviceNotFound` in QEMU's words.
    #[must_use]
    pub fn device_not_found(name: &str) -> Self {
        Self { class: ErrorClass::DeviceNotFound, desc: format!("Device '{name}' not found") }
    }

    /// The value of the `error` member.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"class": self.class.name(), "desc": self.desc})
    }
}
