//! Command lines of the tools: `--key value`, `--flag` and plain words, in any order.

use crate::failure::{Context, Failure, Result};
use std::str::FromStr;

/// Words of a command line that nobody has taken yet.
#[derive(Debug)]
pub struct Args(Vec<String>);

impl Args {
    /// The words after the program's name.
    pub fn from_env() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The given words; for tests.
    pub fn of(words: &[&str]) -> Self {
        Self(words.iter().map(ToString::to_string).collect())
    }

    /// Takes the flag `name`; whether it was there.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|word| word == name);
        found.map(|at| self.0.remove(at)).is_some()
    }

    /// Takes `name` and the value behind it.
    ///
    /// # Errors
    /// When the value is missing or does not parse.
    pub fn value<T: FromStr>(&mut self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let Some(at) = self.0.iter().position(|word| word == name) else { return Ok(None) };
        self.0.remove(at);
        if at == self.0.len() {
            return Err(Failure::new(format!("{name} needs a value")));
        }
        let word = self.0.remove(at);
        word.parse().map(Some).context(format_args!("{name} {word}"))
    }

    /// Takes the first word that is no option.
    pub fn word(&mut self) -> Option<String> {
        let at = self.0.iter().position(|word| !word.starts_with("--"))?;
        Some(self.0.remove(at))
    }

    /// Fails when words are left over.
    ///
    /// # Errors
    /// Names the first word that nobody took.
    pub fn finish(self) -> Result<()> {
        match self.0.first() {
            Some(word) => Err(Failure::new(format!("unknown argument {word} (--help lists them)"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_in_any_order_and_leftovers_are_named() {
        let mut args = Args::of(&["tap", "--rounds", "3", "--quick", "--odd"]);
        assert!(args.flag("--quick"));
        assert_eq!(args.value::<u32>("--rounds"), Ok(Some(3)));
        assert_eq!(args.word().as_deref(), Some("tap"));
        assert_eq!(args.finish(), Err(Failure::new("unknown argument --odd (--help lists them)")));
    }

    #[test]
    fn a_missing_or_bad_value_is_an_error() {
        assert!(Args::of(&["--rounds"]).value::<u32>("--rounds").is_err());
        assert!(Args::of(&["--rounds", "many"]).value::<u32>("--rounds").is_err());
    }
}
