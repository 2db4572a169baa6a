//! Cases as text.
//!
//! ```text
//! == hubport: a hub that nobody has yet        a case begins; a number sign starts a comment line
//! :fresh                                       flags; see [`Flags`]
//! netdev_add {"type":"hubport","id":"h","hubid":1}
//! hmp info network                             human-monitor-command
//! fd pipe                                      the next command carries this file; see [`Passed`]
//! raw {"execute":"query-name"}%0A              bytes: %XX is a byte, %{TEXT*N} repeats
//! cli -netdev tap,id=x,fd=9                    a start of its own with these arguments
//! ip link set t0 up                            iproute2 in the program's own network namespace
//! event NETDEV_STREAM_CONNECTED                waits for it
//! ```
//!
//! `$DIR` is a directory of the program's own; `$LONG` is 300 letters.

use serde_json::Value;

/// A kind of file that a command carries by `SCM_RIGHTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// `/dev/null`.
    Null,
    /// The read end of a pipe.
    Pipe,
    /// One end of a connected stream socket pair.
    Stream,
    /// One end of a connected datagram socket pair.
    Dgram,
    /// A tap without a virtio-net header.
    Tap,
    /// A tap with a virtio-net header.
    TapVnet,
}

/// One thing to do, and to compare the outcome of.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A command with its arguments (`Null`: none).
    Command(String, Value),
    /// Bytes on a connection of their own.
    Raw(Vec<u8>),
    /// Files for the next command.
    Files(Vec<Passed>),
    /// A start with these arguments.
    Cli(Vec<String>),
    /// `ip` with these words.
    Ip(Vec<String>),
    /// Waits for an event of this name.
    Event(String),
}

/// How a case runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `:fresh`: both programs start anew before and after.
    pub fresh: bool,
    /// `:greeted`: raw bytes start before negotiation (otherwise after it).
    pub greeted: bool,
    /// `:tap`: needs the right to make taps.
    pub tap: bool,
    /// `:differs NAME`: an entry of the table of intended differences.
    pub differs: Option<String>,
    /// `:args ...`: both programs start with these arguments too; implies `fresh`.
    pub arguments: Vec<String>,
}

/// A named list of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// File and title.
    pub name: String,
    /// How it runs.
    pub flags: Flags,
    /// What is done.
    pub steps: Vec<Step>,
}

/// Reads a `.cases` file.
///
/// # Errors
/// The first line that makes no sense.
pub fn parse(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end().replace("$LONG", &"x".repeat(300));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case { name: format!("{file}: {title}"), flags: Flags::default(), steps: Vec::new() });
            continue;
        }
        let case = cases.last_mut().ok_or("a line before the first title")?;
        let done = match line.strip_prefix(':') {
            Some(flag) => set(&mut case.flags, flag),
            None => step(&line).map(|step| case.steps.push(step)),
        };
        done.map_err(|problem| format!("{file}:{}: {problem}: {line}", number + 1))?;
    }
    Ok(cases)
}

fn set(flags: &mut Flags, text: &str) -> Result<(), String> {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match name {
        "fresh" => flags.fresh = true,
        "greeted" => flags.greeted = true,
        "tap" => flags.tap = true,
        "differs" => flags.differs = Some(rest.into()),
        "args" => {
            flags.fresh = true;
            flags.arguments = words(rest);
        }
        _ => return Err("unknown flag".into()),
    }
    Ok(())
}

fn step(line: &str) -> Result<Step, String> {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    Ok(match name {
        "raw" => Step::Raw(bytes(rest)?),
        "cli" => Step::Cli(words(rest)),
        "ip" => Step::Ip(words(rest)),
        "event" => Step::Event(rest.into()),
        "hmp" => Step::Command("human-monitor-command".into(), serde_json::json!({"command-line": rest})),
        "fd" => Step::Files(rest.split(' ').map(passed).collect::<Result<_, _>>()?),
        _ if rest.is_empty() => Step::Command(name.into(), Value::Null),
        _ => Step::Command(name.into(), serde_json::from_str(rest).map_err(|error| error.to_string())?),
    })
}

fn passed(name: &str) -> Result<Passed, String> {
    Ok(match name {
        "null" => Passed::Null,
        "pipe" => Passed::Pipe,
        "stream" => Passed::Stream,
        "dgram" => Passed::Dgram,
        "tap" => Passed::Tap,
        "tapvnet" => Passed::TapVnet,
        _ => return Err("unknown kind of file".into()),
    })
}

/// Words between spaces; single quotes keep spaces.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().expect("never empty").push(letter),
        }
    }
    words
}

/// Undoes `%XX` and `%{TEXT*N}`.
fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(repeat) = rest.strip_prefix('{') {
            let (inner, after) = split_repeat(repeat).ok_or("unclosed %{")?;
            let (unit, count) = inner.rsplit_once('*').ok_or("no count in %{}")?;
            let count = count.parse().map_err(|_| "a bad count in %{}")?;
            bytes.extend(self::bytes(unit)?.repeat(count));
            rest = after;
        } else {
            let digits = rest.get(..2).ok_or("a lone %")?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| "a bad %XX")?);
            rest = &rest[2..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Splits `TEXT*N}REST` after its count.
fn split_repeat(text: &str) -> Option<(&str, &str)> {
    let ends = text.match_indices('}').map(|(at, _)| at);
    let is_count =
        |at: &usize| text[..*at].rsplit_once('*').is_some_and(|(_, count)| count.parse::<usize>().is_ok());
    let at = ends.into_iter().find(is_count)?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::{Case, Flags, Step, bytes, parse, words};

    #[test]
    fn a_case_is_title_flags_and_steps() {
        let cases = parse("f", "# note\n== one\n:fresh\nquery-name\nraw a%0Ab\n\n== two\nhmp info network\n");
        let cases = cases.expect("it parses");
        assert_eq!(cases.len(), 2);
        let flags = Flags { fresh: true, ..Flags::default() };
        let steps =
            vec![Step::Command("query-name".into(), serde_json::Value::Null), Step::Raw(b"a\nb".to_vec())];
        assert_eq!(cases[0], Case { name: "f: one".into(), flags, steps });
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse("f", "== one\nquery-name {\n").expect_err("no JSON");
        assert!(error.starts_with("f:2: "), "{error}");
        assert!(parse("f", "query-name\n").is_err());
        assert!(parse("f", "== one\n:bogus\n").is_err());
    }

    #[test]
    fn bytes_are_escaped_and_repeated() {
        assert_eq!(bytes("%7B%{[*3}%{{\"a\":*2}%FF").expect("fine"), b"{[[[{\"a\":{\"a\":\xff");
        assert!(bytes("%zz").is_err());
        assert!(bytes("%{x*y").is_err());
    }

    #[test]
    fn quotes_keep_spaces_in_words() {
        assert_eq!(words("-name 'a b' c"), ["-name", "a b", "c"]);
    }
}
