//! Flat options: `tap,id=x,ifname=y`, as QEMU's `QemuOpts` reads them (`util/qemu-option.c`).

use super::id;
use crate::qmp::QmpError;

/// Options in the order given; a name may come several times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opts {
    /// Name and value.
    pub pairs: Vec<(String, String)>,
    /// `help` or `?` stood among them.
    pub help: bool,
}

impl Opts {
    /// Reads options. A first one without `=` is the value of `implied`; a later one is a boolean in its deprecated
    /// short form (`name`, `noname`), which is logged. `,,` in a value is a comma.
    ///
    /// # Errors
    /// An `id` that is no identifier; everything else is taken as it stands.
    pub fn parse(text: &str, implied: &str) -> Result<Self, QmpError> {
        let mut opts = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['=', ',']).unwrap_or(rest.len());
            let (name, value);
            if rest[end..].starts_with('=') {
                name = rest[..end].to_owned();
                (value, rest) = take_value(&rest[end + 1..]);
            } else if opts.pairs.is_empty() && !opts.help && !implied.is_empty() {
                name = implied.to_owned();
                (value, rest) = take_value(rest);
                opts.help |= is_help(&value);
            } else {
                let word = &rest[..end];
                rest = rest[end..].strip_prefix(',').unwrap_or_default();
                if is_help(word) {
                    opts.help = true;
                    continue;
                }
                (name, value) = short_form(word);
                tracing::warn!("short-form boolean option '{word}' deprecated; use {name}={value} instead");
            }
            opts.pairs.push((name, value));
        }
        if let Some((_, value)) = opts.pairs.iter().find(|(name, _)| name == "id") {
            id::check("id", value)?;
        }
        Ok(opts)
    }

    /// The value of `name`; of several the last.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The name under which `id` was first given.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == "id").map(|(_, value)| value.as_str())
    }

    /// Takes `name` out, all of it.
    pub fn remove(&mut self, name: &str) {
        self.pairs.retain(|(n, _)| n != name);
    }
}

/// Whether a word asks for help.
pub(super) fn is_help(word: &str) -> bool {
    matches!(word, "help" | "?")
}

/// A value up to a single comma, and what follows that comma.
pub(super) fn take_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(',').unwrap_or(rest.len());
        value.push_str(&rest[..end]);
        match rest[end..].strip_prefix(',') {
            None => return (value, ""),
            Some(after) => match after.strip_prefix(',') {
                Some(more) => {
                    value.push(',');
                    rest = more;
                }
                None => return (value, after),
            },
        }
    }
}

fn short_form(word: &str) -> (String, String) {
    match word.strip_prefix("no") {
        Some(name) => (name.to_owned(), "off".to_owned()),
        None => (word.to_owned(), "on".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        Opts::parse(text, "type").unwrap().pairs
    }

    fn own(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_first_word_is_the_implied_option() {
        assert_eq!(pairs("tap,id=x,ifname=y"), own(&[("type", "tap"), ("id", "x"), ("ifname", "y")]));
        assert_eq!(pairs("id=x"), own(&[("id", "x")]));
        assert_eq!(pairs(",id=x"), own(&[("type", ""), ("id", "x")]));
        assert_eq!(pairs(""), own(&[]));
    }

    #[test]
    fn two_commas_are_one_in_a_value() {
        assert_eq!(
            pairs("socket,listen=a,,b,,,id=x"),
            own(&[("type", "socket"), ("listen", "a,b,"), ("id", "x")])
        );
        assert_eq!(pairs("a,,b"), own(&[("type", "a,b")]));
        assert_eq!(pairs("a,b==,,"), own(&[("type", "a"), ("b", "=,")]));
    }

    #[test]
    fn short_forms_are_booleans() {
        assert_eq!(
            pairs("user,restrict,noipv6"),
            own(&[("type", "user"), ("restrict", "on"), ("ipv6", "off")])
        );
    }

    #[test]
    fn an_id_must_be_an_identifier() {
        let error = Opts::parse("tap,id=9", "type").unwrap_err();
        assert_eq!(error.desc, "Parameter 'id' expects an identifier");
    }

    #[test]
    fn help_is_noticed_anywhere() {
        assert!(Opts::parse("help", "type").unwrap().help);
        assert!(Opts::parse("tap,?", "type").unwrap().help);
        assert!(!Opts::parse("tap,id=help", "type").unwrap().help);
    }
}
