//! String tokens to text: escapes and UTF-8 (QEMU `qobject/json-parser.c`, its texts).

use super::utf8;

/// Decodes a string token. `raw` begins and ends with its quote.
///
/// # Errors
/// The text that follows `JSON parse error, `: an unknown escape, `\u` that names no character, or
/// invalid UTF-8. The first one from the left is told.
pub(super) fn decode(raw: &[u8]) -> Result<String, String> {
    let inner = &raw[1..raw.len() - 1];
    if inner.iter().all(|&b| b < 0x80 && b != b'\\') {
        return Ok(String::from_utf8_lossy(inner).into_owned());
    }
    let mut text = String::with_capacity(inner.len());
    let mut at = 0;
    while let Some(&byte) = inner.get(at) {
        if byte != b'\\' {
            let (c, taken) = utf8::code_point(&inner[at..]);
            text.push(c.ok_or_else(|| "invalid UTF-8 sequence in string".to_owned())?);
            at += taken;
            continue;
        }
        // A lone backslash cannot end a token: it would have escaped the quote.
        let (c, taken) = match inner.get(at + 1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(&c @ (b'"' | b'\'' | b'\\' | b'/')) => (char::from(c), 2),
            // The closing quote may stand among the four bytes after `\u`, so it is handed in.
            Some(b'u') => unicode_escape(&raw[at + 1..])?,
            _ => return Err("invalid escape sequence in string".to_owned()),
        };
        text.push(c);
        at += taken;
    }
    Ok(text)
}

/// The character of the escape at the front of `bytes`, and how many bytes it takes: six, or
/// twelve for a surrogate pair.
fn unicode_escape(bytes: &[u8]) -> Result<(char, usize), String> {
    let invalid = || {
        let shown = &bytes[..bytes.len().min(6)];
        format!("{} is not a valid Unicode character", utf8::lossy(shown))
    };
    let first = hex4(bytes.get(2..6)).ok_or_else(invalid)?;
    if !(0xD800..0xDC00).contains(&first) {
        return match char::from_u32(first) {
            Some(c) if !utf8::is_noncharacter(c) => Ok((c, 6)),
            _ => Err(invalid()),
        };
    }
    if bytes.get(6..8) != Some(b"\\u") {
        return Err(invalid());
    }
    let second = hex4(bytes.get(8..12)).filter(|u| (0xDC00..0xE000).contains(u)).ok_or_else(invalid)?;
    match char::from_u32(0x1_0000 + ((first & 0x3FF) << 10) + (second & 0x3FF)) {
        Some(c) if !utf8::is_noncharacter(c) => Ok((c, 12)),
        // Of a pair that names a noncharacter, QEMU shows both halves.
        _ => Err(format!("{} is not a valid Unicode character", utf8::lossy(&bytes[..12]))),
    }
}

/// Four hexadecimal digits.
fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_pairs_decode() {
        assert_eq!(decode(br#""a\"\'\\\/\b\f\n\r\t""#).unwrap(), "a\"'\\/\u{8}\u{c}\n\r\t");
        assert_eq!(decode(br#"'\u00e9\uD83D\uDE00\u0000'"#).unwrap(), "é\u{1F600}\0");
        assert_eq!(decode("'é€'".as_bytes()).unwrap(), "é€");
    }

    #[test]
    fn a_bad_escape_is_shown_with_up_to_six_bytes_of_the_token() {
        let shown = |raw: &[u8]| decode(raw).unwrap_err();
        assert_eq!(shown(br#""\u12""#), r#"\u12" is not a valid Unicode character"#);
        assert_eq!(shown(br#""\uD800\uDC0""#), r"\uD800 is not a valid Unicode character");
        assert_eq!(shown(br#""\uFFFE""#), r"\uFFFE is not a valid Unicode character");
        assert_eq!(shown(br#""\q""#), "invalid escape sequence in string");
        assert_eq!(shown(b"\"\x80\""), "invalid UTF-8 sequence in string");
    }
}
