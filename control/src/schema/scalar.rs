//! Text to scalar, by the rules of QEMU's command line (`util/cutils.c`, `qapi/qapi-util.c` describe the same syntax).

/// A boolean: on, yes, true, y; off, no, false, n.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// A signed integer: blanks before it, a sign, and `0x` or `0` for base 16 or 8, as C's `strtoll` reads with base 0.
pub(crate) fn signed(text: &str) -> Option<i64> {
    let (negative, magnitude) = magnitude(text)?;
    let value = i128::from(magnitude);
    i64::try_from(if negative { -value } else { value }).ok()
}

/// An unsigned integer, written as for [`signed`]. A minus sign is refused, or wraps around as C's `strtoull` does.
pub(crate) fn unsigned(text: &str, minus: Minus) -> Option<u64> {
    match (magnitude(text)?, minus) {
        ((true, _), Minus::Refuse) => None,
        ((true, value), Minus::Wrap) => Some(value.wrapping_neg()),
        ((false, value), _) => Some(value),
    }
}

/// What a minus sign means for an unsigned integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Minus {
    /// An error.
    Refuse,
    /// The value counted down from 2^64.
    Wrap,
}

fn magnitude(text: &str) -> Option<(bool, u64)> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    // `from_str_radix` would take a sign of its own.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().map(|value| (negative, value))
}

/// A size in bytes: whole or with a decimal fraction, and a suffix B, K, M, G, T, P or E of either case.
/// Hexadecimal sizes are whole and take no suffix. A fraction of a byte is no size.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    if text.starts_with("0x") || text.starts_with("0X") {
        return unsigned(text, Minus::Refuse);
    }
    let (number, shift) = match text.char_indices().next_back()? {
        (at, letter) if letter.is_ascii_alphabetic() => {
            let power = "BKMGTPE".find(letter.to_ascii_uppercase())?;
            (&text[..at], 10 * power)
        }
        _ => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let whole = whole.checked_mul(1 << shift)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    if shift == 0 && fraction != 0.0 {
        return None;
    }
    // Below 2^60: exact enough, rounded to the nearest byte.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let part = (fraction * (1u64 << shift) as f64 + 0.5) as u64;
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_signs_and_bases() {
        assert_eq!(signed("-2147483649"), Some(-2_147_483_649));
        assert_eq!(signed(" +0x1f"), Some(31));
        assert_eq!(signed("010"), Some(8));
        assert_eq!(signed("0"), Some(0));
        assert_eq!(signed("-9223372036854775808"), Some(i64::MIN));
        for bad in ["", "-", "0x", "1x", "08", "--1", "+-1", "9223372036854775808", "1 "] {
            assert_eq!(signed(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_minus_sign_wraps_or_is_refused() {
        assert_eq!(unsigned("-1", Minus::Refuse), None);
        assert_eq!(unsigned("-1", Minus::Wrap), Some(u64::MAX));
        assert_eq!(unsigned("18446744073709551615", Minus::Refuse), Some(u64::MAX));
        assert_eq!(unsigned("18446744073709551616", Minus::Refuse), None);
    }

    #[test]
    fn sizes_take_suffixes_and_fractions() {
        assert_eq!(size("1M"), Some(1 << 20));
        assert_eq!(size("1.5k"), Some(1536));
        assert_eq!(size("0x10"), Some(16));
        assert_eq!(size("12B"), Some(12));
        assert_eq!(size("8E"), Some(1 << 63));
        for bad in ["", "M", ".", "1X", "0x10z", "1.5", "16E", "-1", "1KK", "1é"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
