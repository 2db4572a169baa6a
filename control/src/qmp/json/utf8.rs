//! Modified UTF-8 as QEMU checks it (QEMU `util/unicode.c`): U+0000 is `C0 80`, noncharacters and
//! surrogates are invalid, and an invalid sequence ends where its continuation bytes end.

/// The code point at the front of `bytes` (`None` if invalid) and how many bytes it takes.
/// `bytes` must not be empty.
pub(super) fn code_point(bytes: &[u8]) -> (Option<char>, usize) {
    let first = bytes[0];
    if first < 0x80 {
        return (Some(char::from(first)), 1);
    }
    let length = first.leading_ones() as usize;
    // 0x80..0xC0 continue nothing; 0xFE and 0xFF start nothing.
    if !(2..=6).contains(&length) {
        return (None, 1);
    }
    let mut value = u32::from(first) & (0x7F >> length);
    for taken in 1..length {
        match bytes.get(taken) {
            Some(&next) if next & 0xC0 == 0x80 => value = (value << 6) | u32::from(next & 0x3F),
            _ => return (None, taken),
        }
    }
    let least = [0x80, 0x800, 0x1_0000, 0x20_0000, 0x400_0000][length - 2];
    let shortest = value >= least || (value == 0 && length == 2);
    (char::from_u32(value).filter(|&c| shortest && !is_noncharacter(c)), length)
}

/// One of Unicode's 66 code points that never stand for a character.
pub(crate) fn is_noncharacter(c: char) -> bool {
    let value = u32::from(c);
    (0xFDD0..=0xFDEF).contains(&value) || value & 0xFFFE == 0xFFFE
}

/// `bytes` as text, each invalid sequence as one U+FFFD.
pub(super) fn lossy(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let (c, taken) = code_point(bytes);
        text.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
        bytes = &bytes[taken..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_sequences_agree_with_rust() {
        for c in ['a', '\u{7f}', 'é', '€', '\u{1F600}', '\u{10FFFD}'] {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            assert_eq!(code_point(bytes), (Some(c), bytes.len()));
        }
        assert_eq!(code_point(b"\xC0\x80"), (Some('\0'), 2));
    }

    #[test]
    fn invalid_sequences_take_their_continuation_bytes() {
        for (bytes, taken) in [
            (&b"\x80"[..], 1),
            (b"\xFE\x80", 1),
            (b"\xC0\x81", 2),         // overlong
            (b"\xED\xA0\x80", 3),     // surrogate
            (b"\xEF\xBF\xBF", 3),     // noncharacter
            (b"\xF4\x90\x80\x80", 4), // beyond U+10FFFF
            (b"\xF8\x88\x80\x80\x80", 5),
            (b"\xFD\x80\x80\x80\x80\x80\x80", 6),
            (b"\xE2\x82", 2),
            (b"\xE2\x82 ", 2),
        ] {
            assert_eq!(code_point(bytes), (None, taken), "{bytes:x?}");
        }
        assert_eq!(lossy(b"a\xE2\x82\xFFb"), "a\u{FFFD}\u{FFFD}b");
    }
}
