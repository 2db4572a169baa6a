//! Values to the bytes that QEMU prints: ASCII only, CRLF after each message, its spacing, its
//! order of members, its doubles (QEMU `qobject/json-writer.c`).

use std::io::Write as _;

use serde_json::{Number, Value};

use super::json::is_noncharacter;
use super::order;

/// Prints one message into a buffer.
///
/// ```
/// let mut out = Vec::new();
/// let mut writer = control::qmp::emit::Writer::new(&mut out, false);
/// writer.open(b'{');
/// writer.member("return", &serde_json::json!([1, "é"]));
/// writer.close(b'}');
/// writer.end();
/// assert_eq!(out, b"{\"return\": [1, \"\\u00E9\"]}\r\n");
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    pretty: bool,
    depth: usize,
    /// The next element of the open container is not its first.
    comma: bool,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`; `pretty` puts each element on a line of its own, indented.
    pub fn new(out: &'a mut Vec<u8>, pretty: bool) -> Self {
        Self { out, pretty, depth: 0, comma: false }
    }

    /// Opens a container with `{` or `[`.
    pub fn open(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.depth += 1;
        self.comma = false;
    }

    /// Closes a container with `}` or `]`.
    pub fn close(&mut self, bracket: u8) {
        self.depth -= 1;
        self.comma = true;
        self.line();
        self.out.push(bracket);
    }

    /// Goes on to the next element of the open container.
    fn element(&mut self) {
        if self.comma {
            self.out.push(b',');
            if !self.pretty {
                self.out.push(b' ');
            }
        }
        self.comma = true;
        self.line();
    }

    /// Names the next member of the open object; its value follows.
    pub fn key(&mut self, name: &str) {
        self.element();
        string(self.out, name);
        self.out.extend_from_slice(b": ");
    }

    /// A member of the open object.
    pub fn member(&mut self, name: &str, value: &Value) {
        self.key(name);
        self.value(value);
    }

    /// A value, at the place where one is due.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Number(value) => number(self.out, value),
            Value::String(text) => string(self.out, text),
            Value::Array(items) => {
                self.open(b'[');
                for item in items {
                    self.element();
                    self.value(item);
                }
                self.close(b']');
            }
            Value::Object(map) => {
                self.open(b'{');
                if map.len() < 2 {
                    map.iter().for_each(|(name, value)| self.member(name, value));
                } else {
                    order::members(map).into_iter().for_each(|(name, value)| self.member(name, value));
                }
                self.close(b'}');
            }
        }
    }

    /// A string, at the place where a value is due.
    pub fn string(&mut self, text: &str) {
        string(self.out, text);
    }

    /// Ends the message with CRLF.
    pub fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }

    /// In pretty form, a new line at the depth of the open container.
    fn line(&mut self) {
        if self.pretty {
            self.out.extend_from_slice(b"\r\n");
            self.out.resize(self.out.len() + self.depth * 4, b' ');
        }
    }
}

/// Bytes that stand for themselves inside a string.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7E) && byte != b'"' && byte != b'\\'
}

/// A string with its quotes; everything but printable ASCII escaped.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.bytes().position(|b| !is_plain(b)).unwrap_or(rest.len());
        out.extend_from_slice(&rest.as_bytes()[..plain]);
        let mut chars = rest[plain..].chars();
        if let Some(c) = chars.next() {
            escape(out, c);
        }
        rest = chars.as_str();
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, c: char) {
    let short = match c {
        '"' | '\\' => c as u8,
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            let c = if is_noncharacter(c) { char::REPLACEMENT_CHARACTER } else { c };
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a Vec cannot fail.
                let _ = write!(out, "\\u{unit:04X}");
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn number(out: &mut Vec<u8>, number: &Number) {
    // Writing into a Vec cannot fail.
    let _ = match number.as_f64() {
        Some(value) if number.is_f64() => write!(out, "{}", double(value)),
        _ => write!(out, "{number}"),
    };
}

/// A double as C's `%.17g` prints it.
#[must_use]
pub fn double(value: f64) -> String {
    const DIGITS: i32 = 17;
    if !value.is_finite() {
        return if value.is_nan() {
            "nan".into()
        } else if value < 0.0 {
            "-inf".into()
        } else {
            "inf".into()
        };
    }
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..DIGITS).contains(&exponent) {
        let decimals = usize::try_from(DIGITS - 1 - exponent).unwrap_or(0);
        return trimmed(&format!("{value:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// Without the zeros that end a fraction, and without a point that ends it.
fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn print(value: &Value, pretty: bool) -> String {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, pretty);
        writer.value(value);
        writer.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_print_as_c_does_with_17_digits() {
        for (value, text) in [
            (1.5e3, "1500"),
            (18_446_744_073_709_551_616.0, "1.8446744073709552e+19"),
            (0.1, "0.10000000000000001"),
            (1e-5, "1.0000000000000001e-05"),
            (0.0001, "0.0001"),
            (-0.0, "-0"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123_456_789.125, "123456789.125"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (99_999_999_999_999_999.0, "1e+17"),
        ] {
            assert_eq!(double(value), text);
        }
    }

    #[test]
    fn only_ascii_goes_out() {
        let text = "a\"\\\u{8}\u{c}\n\r\t\u{1}\u{7f}é€\u{1F600}\0\u{FFFE}";
        let escaped = r#""a\"\\\b\f\n\r\t\u0001\u007F\u00E9\u20AC\uD83D\uDE00\u0000\uFFFD""#;
        assert_eq!(print(&json!(text), false), format!("{escaped}\r\n"));
    }

    #[test]
    fn spacing_and_pretty_form_are_those_of_qemu() {
        let value = json!({"return": {"a": [], "b": {}, "c": [1, {"x": "y"}]}});
        assert_eq!(
            print(&value, false),
            "{\"return\": {\"a\": [], \"b\": {}, \"c\": [1, {\"x\": \"y\"}]}}\r\n"
        );
        let pretty = "{\r\n    \"return\": {\r\n        \"a\": [\r\n        ],\r\n        \"b\": {\r\n        },\r\n        \
                      \"c\": [\r\n            1,\r\n            {\r\n                \"x\": \"y\"\r\n            }\r\n        \
                      ]\r\n    }\r\n}\r\n";
        assert_eq!(print(&value, true), pretty);
    }
}
