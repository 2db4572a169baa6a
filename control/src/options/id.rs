//! Names that users give to netdevs and objects.

use crate::qmp::error::QmpError;

/// Whether `id` is an identifier: an ASCII letter, then letters, digits, `-`, `.`, `_`; of any length.
#[must_use]
pub fn well_formed(id: &str) -> bool {
    let mut bytes = id.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Checks that `id` is an identifier; `parameter` names it in the error.
///
/// # Errors
/// In QEMU's words.
pub fn check(parameter: &str, id: &str) -> Result<(), QmpError> {
    if well_formed(id) {
        Ok(())
    } else {
        Err(QmpError::generic(format!("Parameter '{parameter}' expects an identifier")))
    }
}

#[cfg(test)]
mod tests {
    use super::well_formed;

    #[test]
    fn identifiers_begin_with_a_letter() {
        for good in ["a", "Z9", "a-b.c_d", &"x".repeat(300)] {
            assert!(well_formed(good), "{good}");
        }
        for bad in ["", "9a", "-a", "_a", "a b", "a/b", "é", "aé"] {
            assert!(!well_formed(bad), "{bad}");
        }
    }
}
