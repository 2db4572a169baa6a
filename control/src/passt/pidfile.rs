//! The file where passt leaves its number.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Names tried before it is given up.
const TRIES: u32 = 100;
/// Letters of a name.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// An empty file with a name that nobody has, gone with this.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    changes: Inotify,
}

impl PidFile {
    /// Makes one, `passt-XXXXXX.pid` in the directory for such files, which only its owner may write.
    pub(super) fn new() -> io::Result<Self> {
        let path = make(&std::env::temp_dir())?;
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let this = Self { path, changes };
        this.changes.add_watch(&this.path, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY)?;
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it: a number and whether its line has ended.
    pub(super) fn number(&self) -> Option<(u32, bool)> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let digits = text.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number = digits[..end].parse().ok().filter(|&number| may_be(number))?;
        Some((number, digits[end..].starts_with('\n')))
    }

    /// Readable when something was written.
    pub(super) fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Takes note of what was written, so that [`PidFile::changes`] is not readable any more.
    pub(super) fn acknowledge(&self) {
        let _ = self.changes.read_events();
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove '{}': {error}", self.path.display());
        }
    }
}

/// Whether a number may be that of a passt: it will be sent signals, which neither the first process nor we shall have.
fn may_be(number: u32) -> bool {
    i32::try_from(number).is_ok_and(|number| number > 1 && number != Pid::this().as_raw())
}

fn make(directory: &Path) -> io::Result<PathBuf> {
    static LAST: AtomicU32 = AtomicU32::new(0);
    for _ in 0..TRIES {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
        // Not secret: the file is made only where there is none.
        let mut seed = u64::from(time) << 20 ^ u64::from(std::process::id()) << 8;
        seed = seed.wrapping_add(LAST.fetch_add(1, Ordering::Relaxed).into());
        let mut name = String::from("passt-");
        for _ in 0..6 {
            name.push(char::from(LETTERS[(seed % LETTERS.len() as u64) as usize]));
            seed /= LETTERS.len() as u64;
        }
        let path = directory.join(name + ".pid");
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_names_of_their_own_and_go() {
        let (one, two) = (PidFile::new().unwrap(), PidFile::new().unwrap());
        assert_ne!(one.path(), two.path());
        let name = one.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("passt-") && name.ends_with(".pid") && name.len() == 16, "{name}");
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_number_of_another_process_is_none() {
        let file = PidFile::new().unwrap();
        for (text, expected) in [
            ("", None),
            ("x", None),
            ("0\n", None),
            ("1\n", None),
            ("-5\n", None),
            ("99999999999\n", None),
            ("12", Some((12, false))),
            ("12\n", Some((12, true))),
            (" 12 x\n", Some((12, false))),
        ] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(file.number(), expected, "{text}");
        }
        std::fs::write(file.path(), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(file.number(), None, "ourselves");
    }
}
