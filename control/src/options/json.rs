//! Options written as a JSON object on a command line.

use crate::qmp::QmpError;
use crate::qmp::json::Parser;
use serde_json::{Map, Value};

/// Reads one JSON object, single quotes allowed as over QMP.
///
/// # Errors
/// As QEMU words them.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, QmpError> {
    let mut parser = Parser::new();
    let mut at = 0;
    let bytes = text.as_bytes();
    match parser.next(bytes, &mut at) {
        None => Err(QmpError::generic("JSON parse error, premature EOI")),
        Some(Err(error)) => Err(QmpError::generic(error.to_string())),
        Some(Ok(_)) if !bytes[at..].iter().all(u8::is_ascii_whitespace) => {
            Err(QmpError::generic("Expecting at most one JSON value"))
        }
        Some(Ok(Value::Object(map))) => Ok(map),
        Some(Ok(_)) => Err(QmpError::generic("Expecting a JSON object")),
    }
}
