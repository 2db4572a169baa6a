//! Dotted keys: `stream,id=x,addr.type=inet,addr.host=h` to nested JSON with strings for scalars, as QEMU's keyval
//! parser reads them (`util/keyval.c`). Objects whose keys are all numbers are lists.

use super::opts::{is_help, take_value};
use crate::qmp::QmpError;
use serde_json::{Map, Value};

/// Reads `text`; JSON if it begins with `{`. A first word without `=` is the value of `implied`.
///
/// # Errors
/// As QEMU words them.
pub fn parse(text: &str, implied: &str) -> Result<Map<String, Value>, QmpError> {
    if text.starts_with('{') {
        return super::json::object(text);
    }
    let mut root = Map::new();
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let word = &rest[..end];
        let (key, value);
        if rest[end..].starts_with('=') {
            key = word;
            (value, rest) = take_value(&rest[end + 1..]);
        } else if is_help(word) {
            return Err(QmpError::generic("Help is not available for this option"));
        } else if first && !implied.is_empty() {
            key = implied;
            (value, rest) = take_value(rest);
        } else {
            return Err(QmpError::generic(format!("Expected '=' after parameter '{word}'")));
        }
        first = false;
        put(&mut root, key, value)?;
    }
    lists(root)
}

/// Reads words of the form `key=value`, each to its end: a comma is a comma.
///
/// # Errors
/// As for [`parse`].
pub fn parse_words<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Map<String, Value>, QmpError> {
    let mut root = Map::new();
    for word in words {
        let missing = || QmpError::generic(format!("Expected '=' after parameter '{word}'"));
        let (key, value) = word.split_once('=').ok_or_else(missing)?;
        put(&mut root, key, value.to_owned())?;
    }
    lists(root)
}

/// Puts a value at a dotted key.
fn put(root: &mut Map<String, Value>, key: &str, value: String) -> Result<(), QmpError> {
    let fragments: Vec<&str> = key.split('.').collect();
    if !fragments.iter().enumerate().all(|(at, fragment)| is_fragment(fragment, at == 0)) {
        return Err(QmpError::generic(format!("Invalid parameter '{key}'")));
    }
    let mut map = root;
    let (last, parents) = fragments.split_last().unwrap_or((&"", &[]));
    for (depth, fragment) in parents.iter().enumerate() {
        let below = map.entry(*fragment).or_insert_with(|| Value::Object(Map::new()));
        map = match below {
            Value::Object(below) => below,
            _ => return Err(mixed(&fragments[..=depth])),
        };
    }
    // Of several values of one key the last counts, but a key cannot be both a value and an object.
    if matches!(map.insert((*last).to_owned(), Value::String(value)), Some(Value::Object(_))) {
        return Err(mixed(&fragments));
    }
    Ok(())
}

fn mixed(fragments: &[&str]) -> QmpError {
    QmpError::generic(format!("Parameters '{}.*' used inconsistently", fragments.join(".")))
}

/// Whether a part of a key is a member's name or, below the first, a list index.
fn is_fragment(fragment: &str, first: bool) -> bool {
    let mut bytes = fragment.bytes();
    match bytes.next() {
        Some(b) if b.is_ascii_alphabetic() => {
            bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        }
        Some(b) if b.is_ascii_digit() && !first => fragment.parse::<i32>().is_ok(),
        _ => false,
    }
}

/// Turns objects whose keys are all numbers into lists, from the inside out.
fn lists(root: Map<String, Value>) -> Result<Map<String, Value>, QmpError> {
    let mut out = Map::new();
    for (key, value) in root {
        let value = list(&key, value)?;
        out.insert(key, value);
    }
    Ok(out)
}

fn list(path: &str, value: Value) -> Result<Value, QmpError> {
    let Value::Object(map) = value else { return Ok(value) };
    let numbers = map.keys().filter(|key| key.starts_with(|c: char| c.is_ascii_digit())).count();
    if numbers != 0 && numbers != map.len() {
        return Err(mixed(&[path]));
    }
    let mut out = Map::new();
    for (key, value) in map {
        let value = list(&format!("{path}.{key}"), value)?;
        out.insert(key, value);
    }
    if numbers == 0 {
        return Ok(Value::Object(out));
    }
    let mut elements: Vec<(i32, Value)> = Vec::new();
    for (key, value) in out {
        let at = key.parse().unwrap_or_default();
        // `0` and `00` are one element; the last counts.
        elements.retain(|(other, _)| *other != at);
        elements.push((at, value));
    }
    elements.sort_by_key(|(at, _)| *at);
    for (expected, (at, _)) in (0..).zip(&elements) {
        if expected != *at {
            return Err(QmpError::generic(format!("Parameter '{path}.{expected}' missing")));
        }
    }
    Ok(elements.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Value {
        parse(text, "type").map(Value::Object).unwrap()
    }

    fn refused(text: &str) -> String {
        parse(text, "type").unwrap_err().desc
    }

    #[test]
    fn dots_nest_and_numbers_make_lists() {
        assert_eq!(
            parsed("stream,id=x,addr.type=inet,addr.port=1,,2"),
            json!({"type": "stream", "id": "x", "addr": {"type": "inet", "port": "1,2"}})
        );
        assert_eq!(parsed("a=1,a=2"), json!({"a": "2"}));
        assert_eq!(parsed("l.1=b,l.0.str=a"), json!({"l": [{"str": "a"}, "b"]}));
    }

    #[test]
    fn json_is_taken_as_it_is() {
        assert_eq!(parsed("{'type': 'tap', 'queues': 1}"), json!({"type": "tap", "queues": 1}));
    }

    #[test]
    fn errors_are_qemus() {
        for (text, desc) in [
            ("a,b", "Expected '=' after parameter 'b'"),
            ("a,=5", "Invalid parameter ''"),
            ("a,b.-=5", "Invalid parameter 'b.-'"),
            ("a,b..c=5", "Invalid parameter 'b..c'"),
            ("a,9=5", "Invalid parameter '9'"),
            ("a,b=5,b.c=4", "Parameters 'b.*' used inconsistently"),
            ("a,b.c=5,b=4", "Parameters 'b.*' used inconsistently"),
            ("a,b.0=5,b.c=4", "Parameters 'b.*' used inconsistently"),
            ("a,b.1=5", "Parameter 'b.0' missing"),
            ("a,help", "Help is not available for this option"),
        ] {
            assert_eq!(refused(text), desc, "{text}");
        }
    }
}
