//! The list of bridges that may be joined: `allow NAME`, `allow all`, `deny NAME`, `deny all`, `include FILE`, `#` before a comment. A bridge
//! that is denied anywhere stays denied, one that is not allowed anywhere too (`qemu-bridge-helper.c` `parse_acl_file`).

use std::path::Path;

/// Bytes of an interface's name at most; longer ones are cut.
const NAME: usize = 15;
/// Files that include each other at most: one that includes itself must end.
const DEPTH: u32 = 8;

/// Why a list was not read.
#[derive(Debug, thiserror::Error)]
pub enum AclError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// A command without a name.
    #[error("Invalid config line: {0}")]
    Line(String),
    /// Another word than those above.
    #[error("Unknown command `{0}'")]
    Command(String),
}

/// Who may do what.
#[derive(Debug, Default)]
pub struct Acl {
    /// Names with what is said of them; no name stands for all bridges.
    rules: Vec<(bool, Option<String>)>,
}

impl Acl {
    /// Reads a list and all that it includes; included files that are not there, or that make no sense from some line on, count as far as they go.
    ///
    /// # Errors
    /// [`AclError`], of the list itself.
    pub fn read(path: &Path) -> Result<Self, AclError> {
        let mut acl = Self::default();
        acl.take(path, DEPTH)?;
        Ok(acl)
    }

    fn take(&mut self, path: &Path, depth: u32) -> Result<(), AclError> {
        let text = std::fs::read(path)?;
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let cut = line.split_once(char::is_whitespace);
            let (command, name) = cut.ok_or_else(|| AclError::Line(line.to_owned()))?;
            let name = name.trim_start();
            match command {
                "allow" | "deny" => {
                    self.rules.push((command == "allow", (name != "all").then(|| short(name))));
                }
                "include" if depth > 0 => drop(self.take(Path::new(name), depth - 1)),
                "include" => {}
                other => return Err(AclError::Command(other.to_owned())),
            }
        }
        Ok(())
    }

    /// Whether a bridge may be joined.
    #[must_use]
    pub fn allows(&self, bridge: &str) -> bool {
        let speaks = |name: &Option<String>| name.as_deref().is_none_or(|name| name == bridge);
        let mut said = self.rules.iter().filter(|(_, name)| speaks(name)).map(|(allow, _)| *allow).peekable();
        said.peek().is_some() && said.all(|allow| allow)
    }
}

fn short(name: &str) -> String {
    let mut end = name.len().min(NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Acl, AclError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Acl::read(file.path())
    }

    fn allows(text: &str, bridge: &str) -> bool {
        read(text).unwrap().allows(bridge)
    }

    #[test]
    fn nothing_is_allowed_that_is_not_said_and_a_no_wins() {
        assert!(!allows("", "br0"));
        assert!(!allows("# allow br0\n\n   # allow all\n", "br0"));
        assert!(allows("allow br0", "br0"));
        assert!(allows("  allow \t br0  \r\n", "br0"));
        assert!(!allows("allow br0", "br1"));
        assert!(allows("allow all", "br1"));
        assert!(!allows("allow all\ndeny br1", "br1"));
        assert!(!allows("deny br1\nallow br1", "br1"));
        assert!(!allows("deny all\nallow br1", "br1"));
        assert!(allows("allow all\ndeny br1", "br0"));
        assert!(allows("allow averyveryverylongname", "averyveryverylo"));
    }

    #[test]
    fn lists_include_lists_and_those_that_cannot_be_read_say_nothing() {
        let inner = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            inner.path(),
            format!("allow br0\ninclude {0}\nnonsense\nallow br9\n", inner.path().display()),
        )
        .unwrap();
        let text = format!("include {}\ninclude /nonexistent\nallow br2\n", inner.path().display());
        assert!(allows(&text, "br0"));
        assert!(allows(&text, "br2"));
        assert!(!allows(&text, "br9"), "behind a line that makes no sense");
    }

    #[test]
    fn a_list_that_makes_no_sense_is_an_error() {
        assert_eq!(read("allow").unwrap_err().to_string(), "Invalid config line: allow");
        assert_eq!(read("permit br0").unwrap_err().to_string(), "Unknown command `permit'");
        assert!(matches!(Acl::read(Path::new("/nonexistent")), Err(AclError::Read(_))));
    }
}
