//! Tokens to a value, by a stack of the containers that are open.

use serde_json::{Map, Value};

use super::lexer::Token;
use super::{number, string};

/// A container that is not closed yet.
#[derive(Debug)]
enum Open {
    Array(Vec<Value>),
    /// The key is there while its value is awaited.
    Object(Map<String, Value>, Option<String>),
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A value.
    Value,
    /// The first value of an array, or its end.
    FirstValue,
    /// A key.
    Key,
    /// The first key of an object, or its end.
    FirstKey,
    /// The colon after a key.
    Colon,
    /// A comma, or the end of the container.
    Separator,
}

/// Builds one value. After the first error all further tokens are ignored.
#[derive(Debug)]
pub(super) struct Builder {
    open: Vec<Open>,
    expect: Expect,
}

/// What a token did.
pub(super) enum Built {
    /// More tokens are needed.
    More,
    /// The value is whole.
    Whole(Value),
    /// The text that follows `JSON parse error, `.
    Failed(String),
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), expect: Expect::Value }
    }

    /// Takes the next token of a value. Not for [`Token::Stray`] and [`Token::TooLong`].
    pub(super) fn push(&mut self, token: &Token<'_>) -> Built {
        match self.try_push(token) {
            Ok(None) => Built::More,
            Ok(Some(value)) => Built::Whole(value),
            Err(text) => Built::Failed(text),
        }
    }

    fn try_push(&mut self, token: &Token<'_>) -> Result<Option<Value>, String> {
        match self.expect {
            Expect::Colon if *token == Token::Colon => {
                self.expect = Expect::Value;
                Ok(None)
            }
            Expect::Colon => Err("missing : in object pair".into()),
            Expect::Separator => self.separator(token),
            Expect::FirstKey if *token == Token::CloseObject => self.close(),
            Expect::FirstValue if *token == Token::CloseArray => self.close(),
            // QEMU reads a key as any value, and then refuses all but strings.
            Expect::Value | Expect::FirstValue | Expect::Key | Expect::FirstKey => self.value(token),
        }
    }

    fn separator(&mut self, token: &Token<'_>) -> Result<Option<Value>, String> {
        match (self.open.last(), token) {
            (Some(Open::Array(_)), Token::CloseArray) | (Some(Open::Object(..)), Token::CloseObject) => {
                self.close()
            }
            (Some(Open::Array(_)), Token::Comma) => {
                self.expect = Expect::Value;
                Ok(None)
            }
            (Some(Open::Object(..)), Token::Comma) => {
                self.expect = Expect::Key;
                Ok(None)
            }
            (Some(Open::Object(..)), _) => Err("expected separator in dict".into()),
            _ => Err("expected separator in list".into()),
        }
    }

    fn value(&mut self, token: &Token<'_>) -> Result<Option<Value>, String> {
        let value = match token {
            Token::OpenObject => {
                self.open.push(Open::Object(Map::new(), None));
                self.expect = Expect::FirstKey;
                return Ok(None);
            }
            Token::OpenArray => {
                self.open.push(Open::Array(Vec::new()));
                self.expect = Expect::FirstValue;
                return Ok(None);
            }
            Token::Text(raw) => Value::String(string::decode(raw)?),
            Token::Integer(text) => number::integer(text),
            Token::Float(text) => number::float(text),
            Token::Keyword(b"true") => Value::Bool(true),
            Token::Keyword(b"false") => Value::Bool(false),
            Token::Keyword(b"null") => Value::Null,
            Token::Keyword(text) => {
                return Err(format!("invalid keyword '{}'", String::from_utf8_lossy(text)));
            }
            _ => return Err("expecting value".into()),
        };
        self.place(value)
    }

    fn close(&mut self) -> Result<Option<Value>, String> {
        match self.open.pop() {
            Some(Open::Array(items)) => self.place(Value::Array(items)),
            Some(Open::Object(members, _)) => self.place(Value::Object(members)),
            None => Err("expecting value".into()),
        }
    }

    /// Puts a finished value where it belongs; gives it back if it is the outermost.
    fn place(&mut self, value: Value) -> Result<Option<Value>, String> {
        match self.open.last_mut() {
            None => {
                self.expect = Expect::Value;
                return Ok(Some(value));
            }
            Some(Open::Array(items)) => items.push(value),
            Some(Open::Object(members, key)) => match (key.take(), value) {
                (Some(key), value) => {
                    // The duplicate is told after its value was read, so errors in there come first.
                    if members.insert(key, value).is_some() {
                        return Err("duplicate key".into());
                    }
                }
                (None, Value::String(text)) => {
                    *key = Some(text);
                    self.expect = Expect::Colon;
                    return Ok(None);
                }
                (None, _) => return Err("key is not a string in object".into()),
            },
        }
        self.expect = Expect::Separator;
        Ok(None)
    }
}
