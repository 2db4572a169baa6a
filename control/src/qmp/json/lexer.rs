//! Bytes to tokens.
//!
//! Tokens inside one chunk are slices of it. Only a token that a chunk boundary cuts is copied.

use super::MAX_TOKEN_BYTES;

/// One token, with its raw text where the text matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `{`
    OpenObject,
    /// `}`
    CloseObject,
    /// `[`
    OpenArray,
    /// `]`
    CloseArray,
    /// `:`
    Colon,
    /// `,`
    Comma,
    /// Digits with an optional minus.
    Integer(&'a [u8]),
    /// A number with a fraction or an exponent.
    Float(&'a [u8]),
    /// A run of lower-case letters.
    Keyword(&'a [u8]),
    /// A string with its quotes, still escaped and not yet checked for UTF-8.
    Text(&'a [u8]),
    /// Bytes that begin no token; the last one is the culprit.
    Stray(&'a [u8]),
    /// A token outgrew [`MAX_TOKEN_BYTES`]. Its text is forgotten.
    TooLong,
}

/// Where the lexer is inside a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between tokens.
    Start,
    /// After a stray byte: skip to a byte that promises a fresh start.
    Recovery,
    /// In a string that this quote ends.
    Text(u8),
    /// After the backslash in a string that this quote ends.
    Escape(u8),
    /// After the minus.
    Minus,
    /// After a leading zero, which no digit may follow.
    Zero,
    /// In the integer part.
    Digits,
    /// After the point.
    Point,
    /// In the fraction.
    Fraction,
    /// After `e`.
    Exponent,
    /// After the sign of the exponent.
    ExponentSign,
    /// In the digits of the exponent.
    ExponentDigits,
    /// In a run of lower-case letters.
    Keyword,
}

/// What one byte does to a state inside a token.
enum Step {
    /// The byte belongs to the token.
    To(State),
    /// The byte ends the token and belongs to it.
    End,
    /// The token ended before this byte.
    EndBefore,
    /// The byte fits nothing; the token so far is stray.
    Stray,
}

/// Splits a byte stream into tokens.
#[derive(Debug)]
pub(super) struct Lexer {
    state: State,
    /// Text of a token that began in an earlier chunk.
    partial: Vec<u8>,
    /// The token in `partial` was handed out; clear it before going on.
    spent: bool,
}

/// Room that `partial` keeps between messages; a larger buffer is given back.
const KEEP: usize = 64 << 10;

impl Lexer {
    pub(super) fn new() -> Self {
        Self { state: State::Start, partial: Vec::new(), spent: false }
    }

    /// The next token of `input` from `*at` on; advances `*at`. `None`: all of `input` is read.
    ///
    /// The bytes of an unfinished token are kept, so `input` need not come again.
    pub(super) fn next<'t>(&'t mut self, input: &'t [u8], at: &mut usize) -> Option<Token<'t>> {
        if self.spent {
            self.spent = false;
            self.partial.clear();
            self.partial.shrink_to(KEEP);
        }
        let mut begin = *at;
        if self.state == State::Recovery {
            *at += input.get(*at..)?.iter().position(|&b| ends_recovery(b)).unwrap_or(input.len() - *at);
            if *at == input.len() {
                return None;
            }
            self.state = State::Start;
            begin = *at;
        }
        if self.state == State::Start {
            begin += input.get(begin..)?.iter().position(|b| !is_space(*b)).unwrap_or(input.len() - begin);
            *at = begin;
            let first = *input.get(begin)?;
            *at += 1;
            match start(first) {
                Begin::Single(token) => return Some(token),
                Begin::Inside(state) => self.state = state,
                Begin::Stray => {
                    self.state = State::Recovery;
                    return Some(Token::Stray(&input[begin..*at]));
                }
            }
        }
        self.finish(input, begin, at)
    }

    /// Reads on inside a token whose bytes in this chunk start at `begin`.
    fn finish<'t>(&'t mut self, input: &'t [u8], begin: usize, at: &mut usize) -> Option<Token<'t>> {
        // A token may hold MAX_TOKEN_BYTES; the byte after that ends it as too long.
        let limit = input.len().min(begin + (MAX_TOKEN_BYTES + 1 - self.partial.len()));
        while *at < limit {
            let was = self.state;
            if let State::Text(quote) = was {
                *at += text_run(&input[*at..limit], quote);
                if *at == limit {
                    break;
                }
            }
            match step(was, input[*at]) {
                Step::To(state) => {
                    self.state = state;
                    *at += 1;
                }
                Step::End => {
                    *at += 1;
                    self.state = State::Start;
                    return Some(token(was, self.text(&input[begin..*at])));
                }
                Step::EndBefore => {
                    self.state = State::Start;
                    return Some(token(was, self.text(&input[begin..*at])));
                }
                Step::Stray => {
                    *at += 1;
                    self.state = State::Recovery;
                    return Some(Token::Stray(self.text(&input[begin..*at])));
                }
            }
        }
        if self.partial.len() + (*at - begin) > MAX_TOKEN_BYTES {
            self.state = State::Start;
            self.partial = Vec::new();
            return Some(Token::TooLong);
        }
        self.partial.extend_from_slice(&input[begin..*at]);
        None
    }

    /// The whole text of a token that ends with `tail`.
    fn text<'t>(&'t mut self, tail: &'t [u8]) -> &'t [u8] {
        if self.partial.is_empty() {
            return tail;
        }
        self.partial.extend_from_slice(tail);
        self.spent = true;
        &self.partial
    }
}

/// What a byte between tokens begins.
enum Begin {
    Single(Token<'static>),
    Inside(State),
    Stray,
}

fn start(byte: u8) -> Begin {
    match byte {
        b'{' => Begin::Single(Token::OpenObject),
        b'}' => Begin::Single(Token::CloseObject),
        b'[' => Begin::Single(Token::OpenArray),
        b']' => Begin::Single(Token::CloseArray),
        b':' => Begin::Single(Token::Colon),
        b',' => Begin::Single(Token::Comma),
        b'"' | b'\'' => Begin::Inside(State::Text(byte)),
        b'-' => Begin::Inside(State::Minus),
        b'0' => Begin::Inside(State::Zero),
        b'1'..=b'9' => Begin::Inside(State::Digits),
        b'a'..=b'z' => Begin::Inside(State::Keyword),
        _ => Begin::Stray,
    }
}

/// What `byte` does in `state`. `Start` and `Recovery` do not come here.
fn step(state: State, byte: u8) -> Step {
    use State::*;
    match (state, byte) {
        (Text(quote), _) if byte == quote => Step::End,
        (Text(quote), b'\\') => Step::To(Escape(quote)),
        // Escapes are checked when the string is decoded: here any printable byte may follow.
        (Text(quote) | Escape(quote), 0x20..=0xFD) => Step::To(Text(quote)),
        (Minus, b'0') => Step::To(Zero),
        (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => Step::To(Digits),
        (Zero | Digits, b'.') => Step::To(Point),
        (Zero, b'0'..=b'9') => Step::Stray,
        (Point | Fraction, b'0'..=b'9') => Step::To(Fraction),
        (Digits | Fraction, b'e' | b'E') => Step::To(Exponent),
        (Exponent, b'+' | b'-') => Step::To(ExponentSign),
        (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => Step::To(ExponentDigits),
        (State::Keyword, b'a'..=b'z') => Step::To(State::Keyword),
        (Zero | Digits | Fraction | ExponentDigits | State::Keyword, _) => Step::EndBefore,
        _ => Step::Stray,
    }
}

/// The token that ends in `state`.
fn token(state: State, text: &[u8]) -> Token<'_> {
    match state {
        State::Text(_) => Token::Text(text),
        State::Zero | State::Digits => Token::Integer(text),
        State::Fraction | State::ExponentDigits => Token::Float(text),
        State::Keyword => Token::Keyword(text),
        _ => Token::Stray(text),
    }
}

/// How many bytes from the front of `bytes` are plain text of a string that `quote` ends.
fn text_run(bytes: &[u8], quote: u8) -> usize {
    let ends = |&b: &u8| b == quote || b == b'\\' || !(0x20..0xFE).contains(&b);
    bytes.iter().position(ends).unwrap_or(bytes.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Structural characters, line ends and other control characters, and bytes that UTF-8 never holds.
fn ends_recovery(byte: u8) -> bool {
    matches!(byte, b'[' | b']' | b'{' | b'}' | b':' | b',' | 0xFE | 0xFF) || (byte < 0x20 && byte != b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All tokens of `chunks`, printed.
    fn lex(chunks: &[&[u8]]) -> Vec<String> {
        let mut lexer = Lexer::new();
        let mut out = Vec::new();
        for chunk in chunks {
            let mut at = 0;
            while let Some(token) = lexer.next(chunk, &mut at) {
                out.push(format!("{token:?}"));
            }
            assert_eq!(at, chunk.len(), "a chunk is read to its end");
        }
        out
    }

    fn text(bytes: &[u8]) -> String {
        format!("{:?}", Token::Text(bytes))
    }

    #[test]
    fn a_string_cut_by_chunks_is_one_token() {
        assert_eq!(lex(&[b"'a\\", b"'b", b"' \"c\""]), [text(b"'a\\'b'"), text(b"\"c\"")]);
    }

    #[test]
    fn numbers_and_keywords_wait_for_a_delimiter() {
        assert_eq!(lex(&[b"12"]), [""; 0]);
        assert_eq!(lex(&[b"tr", b"ue "]), [format!("{:?}", Token::Keyword(b"true"))]);
        assert_eq!(
            lex(&[b"-0.5e+1,0]"]),
            [
                format!("{:?}", Token::Float(b"-0.5e+1")),
                "Comma".into(),
                format!("{:?}", Token::Integer(b"0")),
                "CloseArray".into()
            ]
        );
    }

    #[test]
    fn recovery_skips_to_structure_or_control() {
        assert_eq!(
            lex(&[b"X abc \t\"12", b" {"]),
            [format!("{:?}", Token::Stray(b"X")), "OpenObject".into()]
        );
        assert_eq!(
            lex(&[b"01\n-x"]),
            [format!("{:?}", Token::Stray(b"01")), format!("{:?}", Token::Stray(b"-x"))]
        );
    }

    #[test]
    fn a_token_beyond_the_limit_is_forgotten_at_the_byte_that_exceeds_it() {
        let mut lexer = Lexer::new();
        let chunk = vec![b'a'; 1 << 20];
        let mut read = 0;
        let mut found = None;
        while found.is_none() {
            let mut at = 0;
            found = lexer.next(&chunk, &mut at).map(|t| format!("{t:?}"));
            read += at;
        }
        assert_eq!((found.as_deref(), read), (Some("TooLong"), MAX_TOKEN_BYTES + 1));
        assert_eq!(lexer.partial.capacity(), 0);
    }
}
