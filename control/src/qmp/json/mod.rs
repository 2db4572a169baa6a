//! Streaming JSON parser with QEMU's extensions, limits and error texts.
//!
//! Input comes in chunks of any size; objects need no separator. The dialect is RFC 8259 and:
//! strings in single quotes, the escape `\'`, and U+0000 as the bytes `C0 80` (modified UTF-8).
//!
//! A syntax error is reported once its brackets balance, so one bad message gives one error. A byte
//! that no token can hold is reported at once, and forgets the open brackets: a client sends `0xFF`
//! to bring the parser to a known state (QEMU `docs/interop/qmp-spec`, "QGA synchronization").
//!
//! One message holds at most [`MAX_TOKEN_BYTES`], [`MAX_TOKENS`] and [`MAX_DEPTH`].

mod build;
mod lexer;
mod number;
mod parser;
mod string;
mod utf8;

pub use parser::{ParseError, Parser};
pub(crate) use utf8::is_noncharacter;

/// Largest sum of the token lengths of one message, and largest single token, in bytes
/// (QEMU `qobject/json-streamer.c`).
pub const MAX_TOKEN_BYTES: usize = 64 << 20;

/// Most tokens in one message. Whitespace is no token.
pub const MAX_TOKENS: usize = 2 << 20;

/// Most brackets and braces open at once.
pub const MAX_DEPTH: i64 = 1024;
