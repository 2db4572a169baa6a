//! Number tokens to values: int64, else uint64, else double, as QEMU's QNum.

use serde_json::{Number, Value};

/// The value of an integer token.
pub(super) fn integer(text: &[u8]) -> Value {
    let text = ascii(text);
    if let Ok(value) = text.parse::<i64>() {
        return value.into();
    }
    match text.parse::<u64>() {
        Ok(value) => value.into(),
        Err(_) => float(text.as_bytes()),
    }
}

/// The value of a float token. Beyond the range of a double it is the largest double: JSON has no
/// infinity (QEMU echoes one as `inf`, which no client can parse).
pub(super) fn float(text: &[u8]) -> Value {
    let value = ascii(text).parse::<f64>().unwrap_or(0.0).clamp(f64::MIN, f64::MAX);
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// The lexer lets only ASCII into a number.
fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_the_first_type_that_holds_them() {
        assert_eq!(integer(b"-9223372036854775808"), Value::from(i64::MIN));
        assert_eq!(integer(b"18446744073709551615"), Value::from(u64::MAX));
        assert_eq!(integer(b"18446744073709551616"), Value::from(18_446_744_073_709_551_616.0_f64));
        assert_eq!(integer(b"-9223372036854775809"), Value::from(-9_223_372_036_854_775_809.0_f64));
        assert_eq!(integer(b"-0"), Value::from(0));
        assert_eq!(float(b"-1e999"), Value::from(f64::MIN));
    }
}
