//! Logs: lines on standard error or in a file that SIGHUP opens anew. Only control logs; workers count.

use super::Fatal;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where logs go.
#[derive(Clone, Default)]
pub(super) struct Logs {
    file: Option<(PathBuf, Arc<Mutex<File>>)>,
}

impl Logs {
    /// Begins to log. `NETDEVD_LOG` filters, as `RUST_LOG` does elsewhere.
    pub(super) fn start(path: Option<&Path>) -> Result<Self, Fatal> {
        let logs = match path {
            None => Self::default(),
            Some(path) => {
                let shown = path.display().to_string();
                let failed = |e: io::Error| Fatal::option("logfile", &shown, e);
                let path = std::path::absolute(path).map_err(failed)?;
                let file = open(&path).map_err(failed)?;
                Self { file: Some((path, Arc::new(Mutex::new(file)))) }
            }
        };
        let filter = EnvFilter::try_from_env("NETDEVD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false);
        // A second subscriber in one process (tests) is none.
        let _ = lines.with_writer(logs.clone()).try_init();
        Ok(logs)
    }

    /// Opens the file anew, after somebody has moved it away.
    pub(super) fn reopen(&self) {
        let Some((path, file)) = &self.file else { return };
        match open(path) {
            Ok(new) => {
                if let Ok(mut file) = file.lock() {
                    *file = new;
                }
                tracing::info!("log file opened anew");
            }
            Err(error) => tracing::error!("cannot open {} anew: {error}; the old file stays", path.display()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// One line on its way out.
pub(super) struct Line(Option<Arc<Mutex<File>>>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(file) => match file.lock() {
                Ok(mut file) => file.write(bytes),
                Err(_) => Ok(bytes.len()),
            },
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.file.as_ref().map(|(_, file)| file.clone()))
    }
}
