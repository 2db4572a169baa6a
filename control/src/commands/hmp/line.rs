//! Taking a line apart (QEMU `monitor/hmp.c`).

use super::table::{COMMANDS, Entry, SUBJECTS, Word, find};

/// The words of a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The command as it was written.
    whole: String,
    words: Vec<String>,
}

impl Words {
    /// The word at that place; empty if it is missing.
    pub(super) fn text(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// Whether the word at that place is `on`.
    pub(super) fn flag(&self, at: usize) -> bool {
        self.text(at) == "on"
    }

    /// The command's name as it was written, for messages.
    pub(super) fn whole(&self) -> &str {
        &self.whole
    }
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Nothing.
    Empty,
    /// Nothing that could be run; why.
    Refused(String),
    /// A command: `netdev_add`, `info network`.
    Command(&'static str, Words),
}

/// Takes a line apart.
pub(super) fn parse(line: &str) -> Parsed {
    let line = line.trim_start_matches(is_space);
    if line.is_empty() {
        return Parsed::Empty;
    }
    let (name, mut rest) = command_name(line);
    let unknown = |end: &str| Parsed::Refused(format!("unknown command: '{}'\n", before(line, end)));
    let Some(mut entry) = find(COMMANDS, name) else { return unknown(rest) };
    let mut full = entry.names[0];
    if full == "info" {
        let subject = rest.trim_start_matches(is_space);
        if !subject.is_empty() {
            let (name, after) = command_name(subject);
            let Some((found, name)) = find(SUBJECTS, name).zip(info_name(name)) else {
                return unknown(after);
            };
            (entry, full, rest) = (found, name, after);
        }
    }
    let whole = before(line, rest).trim_end_matches(is_space).to_owned();
    match words(entry, rest) {
        Ok(words) => Parsed::Command(full, Words { whole, words }),
        Err(text) => Parsed::Refused(format!("{text}Try \"help {whole}\" for more information\n")),
    }
}

/// The full name of an `info` subject.
fn info_name(subject: &str) -> Option<&'static str> {
    ["info chardev", "info name", "info network", "info status", "info usernet", "info version"]
        .into_iter()
        .find(|name| name.strip_prefix("info ") == Some(subject))
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// The part of `line` that ends where `rest` begins.
fn before<'l>(line: &'l str, rest: &str) -> &'l str {
    &line[..line.len() - rest.len()]
}

/// A name ends at a blank or a slash.
fn command_name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| is_space(c) || c == '/').unwrap_or(text.len()))
}

/// The words that the command takes, or what is wrong with them.
fn words(entry: &Entry, mut rest: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for word in entry.words {
        rest = rest.trim_start_matches(is_space);
        let missing = || format!("{}: string expected\n", entry.label());
        match word {
            Word::Maybe | Word::MaybeText if rest.is_empty() => break,
            Word::Options if rest.is_empty() => all.push(String::new()),
            // `help info network` names two words.
            Word::Maybe => {
                all.push(rest.trim_end_matches(is_space).to_owned());
                rest = "";
            }
            Word::Text if rest.is_empty() => return Err(missing()),
            Word::Text | Word::MaybeText => {
                let (text, after) = string(rest).ok_or_else(missing)?;
                all.push(text);
                rest = after;
            }
            Word::Options => {
                let (text, after) = string(rest).ok_or_else(String::new)?;
                all.push(text);
                rest = after;
            }
            Word::Rest if rest.is_empty() => return Err(missing()),
            Word::Rest => {
                all.push(rest.trim_end_matches(is_space).to_owned());
                rest = "";
            }
            Word::Flag => {
                let (text, after) =
                    rest.split_at(rest.find(|c: char| !c.is_ascii_graphic()).unwrap_or(rest.len()));
                if !matches!(text, "on" | "off") {
                    return Err("Expected 'on' or 'off'\n".to_owned());
                }
                all.push(text.to_owned());
                rest = after;
            }
        }
    }
    if rest.trim_start_matches(is_space).is_empty() {
        Ok(all)
    } else {
        Err(format!("{}: extraneous characters at the end of line\n", entry.label()))
    }
}

/// A string, quoted or up to the next blank; none if a quoted one is broken.
fn string(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(is_space).unwrap_or(text.len()));
        return Some((word.to_owned(), rest));
    };
    let mut word = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((word, &quoted[at + 1..])),
            '\\' => word.push(match chars.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                c @ ('\\' | '\'' | '"') => c,
                _ => return None,
            }),
            c => word.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        match parse(line) {
            Parsed::Refused(text) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_refused_in_qemus_words() {
        let help = |what: &str| format!("Try \"help {what}\" for more information\n");
        assert_eq!(refused("bogus"), "unknown command: 'bogus'\n");
        assert_eq!(refused("/x"), "unknown command: ''\n");
        assert_eq!(refused("info bogus"), "unknown command: 'info bogus'\n");
        assert_eq!(refused("netdev_del"), format!("netdev_del: string expected\n{}", help("netdev_del")));
        assert_eq!(
            refused("netdev_del a b"),
            format!("netdev_del: extraneous characters at the end of line\n{}", help("netdev_del"))
        );
        assert_eq!(refused("set_link a"), format!("Expected 'on' or 'off'\n{}", help("set_link")));
        assert_eq!(
            refused(" info  network x"),
            format!("network: extraneous characters at the end of line\n{}", help("info  network"))
        );
        assert_eq!(
            refused("quit x"),
            format!("quit|q: extraneous characters at the end of line\n{}", help("quit"))
        );
        assert_eq!(refused("object_del \"a"), format!("object_del: string expected\n{}", help("object_del")));
        assert_eq!(refused("netdev_add \"a"), help("netdev_add"));
        assert_eq!(
            refused("announce_self \"a"),
            format!("announce_self: string expected\n{}", help("announce_self"))
        );
        assert_eq!(
            refused("announce_self a b c"),
            format!("announce_self: extraneous characters at the end of line\n{}", help("announce_self"))
        );
    }

    #[test]
    fn words_may_be_quoted() {
        let Parsed::Command("set_link", words) = parse("  set_link \"a \\\"b\" off ") else { panic!() };
        assert_eq!((words.text(0), words.flag(1)), ("a \"b", false));
        let Parsed::Command("announce_self", words) = parse("announce_self \"\" i") else { panic!() };
        assert_eq!((words.text(0), words.text(1)), ("", "i"));
        assert!(matches!(parse("announce_self"), Parsed::Command("announce_self", _)));
        assert_eq!(parse("  "), Parsed::Empty);
        assert!(matches!(parse("info   network  "), Parsed::Command("info network", _)));
        assert!(matches!(parse("?"), Parsed::Command("help", _)));
    }
}
