//! The stream: counts brackets, enforces limits, and yields one result a message.

use serde_json::Value;

use super::build::{Builder, Built};
use super::lexer::{Lexer, Token};
use super::{MAX_DEPTH, MAX_TOKEN_BYTES, MAX_TOKENS, utf8};

/// Why a message was refused; the text is the `desc` of the reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// QEMU formats a syntax error into 1024 bytes, the last of which is a zero.
const SYNTAX_TEXT: usize = 1023;

/// Most bytes of a stray token that are told. QEMU tells all of it, up to 64 MiB.
const STRAY_TEXT: usize = 64 << 10;

/// Turns chunks of bytes into JSON values.
///
/// ```
/// let mut parser = control::qmp::json::Parser::new();
/// let chunk = b"{'a': 1}[2";
/// let mut at = 0;
/// assert_eq!(parser.next(chunk, &mut at), Some(Ok(serde_json::json!({"a": 1}))));
/// assert_eq!(parser.next(chunk, &mut at), None);
/// assert_eq!(parser.next(b"]", &mut 0), Some(Ok(serde_json::json!([2]))));
/// ```
#[derive(Debug)]
pub struct Parser {
    lexer: Lexer,
    message: Message,
}

/// What is known of the message that is being read.
#[derive(Debug)]
struct Message {
    builder: Builder,
    /// The first syntax error; told when the brackets balance.
    failed: Option<String>,
    /// Open braces; negative after one too many was closed.
    braces: i64,
    /// Open brackets, likewise.
    brackets: i64,
    tokens: usize,
    bytes: usize,
}

impl Parser {
    /// A parser that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { lexer: Lexer::new(), message: Message::new() }
    }

    /// The next message of `input` from `*at` on, or its error. `None`: all of `input` is read.
    ///
    /// `*at` advances past the message, so the rest can wait. Bytes of an unfinished message are kept.
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Option<Result<Value, ParseError>> {
        while let Some(token) = self.lexer.next(input, at) {
            if let Some(result) = self.message.push(&token) {
                self.message = Message::new();
                return Some(result.map_err(ParseError));
            }
        }
        None
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Message {
    fn new() -> Self {
        Self { builder: Builder::new(), failed: None, braces: 0, brackets: 0, tokens: 0, bytes: 0 }
    }

    /// Takes one token; gives the result when the message is over.
    fn push(&mut self, token: &Token<'_>) -> Option<Result<Value, String>> {
        let length = match token {
            Token::OpenObject => {
                self.braces += 1;
                1
            }
            Token::CloseObject => {
                self.braces -= 1;
                1
            }
            Token::OpenArray => {
                self.brackets += 1;
                1
            }
            Token::CloseArray => {
                self.brackets -= 1;
                1
            }
            Token::Colon | Token::Comma => 1,
            Token::Integer(text) | Token::Float(text) | Token::Keyword(text) | Token::Text(text) => {
                text.len()
            }
            Token::Stray(text) => return Some(Err(stray(text))),
            Token::TooLong => MAX_TOKEN_BYTES,
        };
        // Order and edges as in QEMU `qobject/json-streamer.c`.
        if self.bytes + length + 1 > MAX_TOKEN_BYTES {
            return Some(Err("JSON token size limit exceeded".into()));
        }
        if self.tokens + 1 > MAX_TOKENS {
            return Some(Err("JSON token count limit exceeded".into()));
        }
        if self.braces + self.brackets > MAX_DEPTH {
            return Some(Err("JSON nesting depth limit exceeded".into()));
        }
        self.tokens += 1;
        self.bytes += length;

        let mut whole = None;
        if self.failed.is_none() {
            match self.builder.push(token) {
                Built::More => {}
                Built::Whole(value) => whole = Some(value),
                Built::Failed(text) => {
                    self.failed = Some(syntax(text));
                    self.builder = Builder::new();
                }
            }
        }
        let open = self.braces >= 0 && self.brackets >= 0 && self.braces + self.brackets > 0;
        if open {
            return None;
        }
        Some(whole.ok_or_else(|| self.failed.take().unwrap_or_else(|| syntax("premature EOI".into()))))
    }
}

/// The whole text of a syntax error, cut where QEMU cuts it.
fn syntax(mut text: String) -> String {
    if text.len() > SYNTAX_TEXT {
        let cut = (0..=SYNTAX_TEXT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
    }
    format!("JSON parse error, {text}")
}

/// The text of a lexical error. Like a C string, what is told ends at a zero byte.
fn stray(token: &[u8]) -> String {
    let end = token.iter().take(STRAY_TEXT).position(|&b| b == 0).unwrap_or(token.len().min(STRAY_TEXT));
    format!("JSON parse error, stray '{}'", utf8::lossy(&token[..end]))
}

#[cfg(test)]
mod tests;
