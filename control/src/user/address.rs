//! Addresses and numbers as the C library reads them, which QEMU's options do (`inet_aton(3)`, `strtol(3)`).

use std::net::Ipv4Addr;

/// An IPv4 address of one to four numbers, each decimal, octal or hexadecimal; the last fills what is left.
#[must_use]
pub fn ipv4(text: &str) -> Option<Ipv4Addr> {
    // What follows a blank is ignored.
    let text = text.split(|c: char| c.is_ascii_whitespace()).next()?;
    let mut numbers = Vec::new();
    for part in text.split('.') {
        let starts_well = part.starts_with(|c: char| c.is_ascii_digit());
        numbers.push(u32::try_from(number(part, 0).filter(|_| starts_well)?).ok()?);
    }
    let (last, first) = numbers.split_last()?;
    let left = 32_u32.checked_sub(8 * u32::try_from(first.len()).ok()?).filter(|left| *left >= 8)?;
    if left < 32 && *last >= 1 << left || first.iter().any(|number| *number > 255) {
        return None;
    }
    let high = first.iter().zip([24, 16, 8]).fold(0, |all, (number, shift)| all | number << shift);
    Some(Ipv4Addr::from_bits(high | last))
}

/// A whole number, as `strtol` reads it to the end of the text: nothing is 0. Base 0 knows octal and hexadecimal.
#[must_use]
pub fn number(text: &str, base: u32) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let text = text.trim_start_matches([' ', '\t', '\n']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, base) = match (base, hexadecimal) {
        (0, Some(digits)) => (digits, 16),
        (0, None) if digits.starts_with('0') => (digits, 8),
        (0, None) => (digits, 10),
        (base, _) => (digits, base),
    };
    if !digits.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    let value = i64::from_str_radix(digits, base).ok()?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_c_library_reads_them() {
        let of = |text: &str| ipv4(text).map(|address| address.to_string());
        assert_eq!(of("10.0.2.15").as_deref(), Some("10.0.2.15"));
        assert_eq!(of("10.2").as_deref(), Some("10.0.0.2"));
        assert_eq!(of("0x7f.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(of("010.1.1.1").as_deref(), Some("8.1.1.1"));
        assert_eq!(of("4294967295").as_deref(), Some("255.255.255.255"));
        for wrong in ["", "x", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "1..2", "-1", "+1.2", "4294967296"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_are_read_to_the_end() {
        assert_eq!(number("0x50", 0), Some(80));
        assert_eq!(number("010", 0), Some(8));
        assert_eq!(number("010", 10), Some(10));
        assert_eq!(number("-1", 10), Some(-1));
        assert_eq!(number("", 10), Some(0));
        assert_eq!(number("1x", 0), None);
        assert_eq!(number("-", 0), None);
    }
}
