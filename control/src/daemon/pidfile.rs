//! `-pidfile`: the process id in a file that is locked while the daemon runs.

use super::Fatal;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file; dropping it removes it.
pub(super) struct Pidfile {
    path: PathBuf,
    file: Flock<File>,
}

impl Pidfile {
    /// Writes the file. One that a dead daemon left is taken over.
    pub(super) fn write(path: &Path) -> Result<Self, Fatal> {
        let shown = path.display().to_string();
        let failed = |why: &dyn std::fmt::Display| Fatal::option("pidfile", &shown, why);
        // Absolute, since the daemon leaves its directory.
        let path = std::path::absolute(path).map_err(|e| failed(&e))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(|e| failed(&e))?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| failed(&"another daemon holds it; stop that one or choose another file"))?;
        let pid = std::process::id();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{pid}\n").as_bytes()))
            .map_err(|e| failed(&e))?;
        Ok(Self { path, file })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // What somebody else has put there since then stays.
        let ours = self.file.metadata().map(|m| (m.dev(), m.ino()));
        let there = std::fs::metadata(&self.path).map(|m| (m.dev(), m.ino()));
        if let (Ok(ours), Ok(there)) = (ours, there)
            && ours == there
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
