//! Reads the text form of the schema (`control/qapi/README.md`) into definitions, line by line.

use super::types::Marks;

/// What a definition defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Enum,
    Struct,
    Union,
    Command,
    Event,
}

/// A definition as written; names are not looked up yet.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    pub(super) keyword: Keyword,
    pub(super) name: &'static str,
    pub(super) words: Vec<&'static str>,
    pub(super) marks: Marks,
    /// `: BASE` of a struct.
    pub(super) base: Option<&'static str>,
    /// `on TAG` of a union.
    pub(super) tag: Option<&'static str>,
    /// `(STRUCT)` of a command.
    pub(super) args: Option<&'static str>,
    /// `-> type` of a command.
    pub(super) returns: Option<&'static str>,
    pub(super) parts: Vec<Part>,
}

/// An indented line of a definition.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Value { name: &'static str, marks: Marks, words: &'static str },
    Member { name: &'static str, optional: bool, ty: &'static str, marks: Marks, words: &'static str },
    Case { value: &'static str, ty: &'static str },
}

/// Reads one file.
///
/// # Errors
/// The number and text of a line that fits no form.
pub(super) fn read(text: &'static str) -> Result<Vec<Definition>, String> {
    let mut all: Vec<Definition> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bad = || format!("line {}: {line}", number + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(inner) = line.strip_prefix("  ") else {
            all.push(header(line).ok_or_else(bad)?);
            continue;
        };
        let definition = all.last_mut().ok_or_else(bad)?;
        if let Some(words) = inner.strip_prefix("| ") {
            definition.words.push(words);
        } else {
            definition.parts.push(part(definition.keyword, inner.trim()).ok_or_else(bad)?);
        }
    }
    Ok(all)
}

/// A line at the margin.
fn header(line: &'static str) -> Option<Definition> {
    let (keyword, rest) = token(line)?;
    let keyword = match keyword {
        "enum" => Keyword::Enum,
        "struct" => Keyword::Struct,
        "union" => Keyword::Union,
        "command" => Keyword::Command,
        "event" => Keyword::Event,
        _ => return None,
    };
    let (name, mut rest) = token(rest)?;
    let mut definition = Definition {
        keyword,
        name,
        words: Vec::new(),
        marks: Marks::default(),
        base: None,
        tag: None,
        args: None,
        returns: None,
        parts: Vec::new(),
    };
    while let Some((word, after)) = token(rest) {
        let place = match word {
            ":" => &mut definition.base,
            "on" => &mut definition.tag,
            "->" => &mut definition.returns,
            _ if word.starts_with('(') => {
                definition.args = Some(word.strip_prefix('(')?.strip_suffix(')')?);
                rest = after;
                continue;
            }
            _ => break,
        };
        let (value, after) = token(after)?;
        *place = Some(value);
        rest = after;
    }
    let (marks, left) = marks(rest);
    definition.marks = marks;
    left.is_empty().then_some(definition)
}

/// An indented line, without its indent.
fn part(keyword: Keyword, line: &'static str) -> Option<Part> {
    if keyword == Keyword::Enum {
        let (name, rest) = token(line)?;
        let (marks, words) = marks(rest);
        return Some(Part::Value { name, marks, words });
    }
    let (name, rest) = line.split_once(':')?;
    if let Some(value) = name.strip_prefix("case ") {
        return Some(Part::Case { value, ty: rest.trim() });
    }
    let (ty, rest) = token(rest)?;
    let (marks, words) = marks(rest);
    let optional = name.ends_with('?');
    Some(Part::Member { name: name.trim_end_matches('?'), optional, ty, marks, words })
}

/// The marks at the start of `text`, and the words after them.
fn marks(mut text: &'static str) -> (Marks, &'static str) {
    let mut marks = Marks::default();
    while let Some((word, rest)) = token(text) {
        if let Some(default) = word.strip_prefix('=') {
            marks.default = Some(default);
        } else if let Some(feature) = word.strip_prefix('+') {
            marks.features.push(feature);
        } else if let Some(origin) = word.strip_prefix('@') {
            marks.origin = Some(origin);
        } else if word == "oob" {
            marks.oob = true;
        } else if word == "open" {
            marks.open = true;
        } else {
            break;
        }
        text = rest;
    }
    (marks, text.trim())
}

/// The first word and what follows it.
fn token(text: &'static str) -> Option<(&'static str, &'static str)> {
    let text = text.trim_start();
    let end = text.find(' ').unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}
