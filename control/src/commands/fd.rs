//! File descriptors that clients hand over: named ones of a monitor, and sets (QEMU `monitor/fds.c`).

use super::args::Args;
use super::state::empty;
use crate::fds::inherited;
use crate::qmp::error::QmpError;
use nix::errno::Errno;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// All files that clients handed over and nobody uses yet.
#[derive(Debug, Default)]
pub(super) struct Fds {
    /// By monitor, then by name.
    named: HashMap<u64, HashMap<String, OwnedFd>>,
    /// Sets by number; a set is never empty.
    sets: BTreeMap<i64, Vec<Member>>,
}

/// A file of a set.
#[derive(Debug)]
struct Member {
    file: OwnedFd,
    opaque: Option<String>,
}

/// The first file that came with the command; the others are closed, as in QEMU.
fn take(received: &mut Vec<OwnedFd>) -> Result<OwnedFd, QmpError> {
    let first = received.drain(..).next();
    first.ok_or_else(|| QmpError::generic("No file descriptor supplied via SCM_RIGHTS"))
}

impl Fds {
    /// `getfd`: keeps a file under a name; an older one of that name is closed.
    pub(super) fn getfd(
        &mut self,
        monitor: u64,
        received: &mut Vec<OwnedFd>,
        args: &Map<String, Value>,
    ) -> Result<Value, QmpError> {
        let file = take(received)?;
        let name = args.text("fdname");
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(QmpError::generic("Parameter 'fdname' expects a name not starting with a digit"));
        }
        self.named.entry(monitor).or_default().insert(name.to_owned(), file);
        Ok(empty())
    }

    /// `closefd`.
    pub(super) fn closefd(&mut self, monitor: u64, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let name = args.text("fdname");
        match self.named.get_mut(&monitor).and_then(|files| files.remove(name)) {
            Some(_) => Ok(empty()),
            None => Err(QmpError::generic(format!("File descriptor named '{name}' not found"))),
        }
    }

    /// `add-fd`: a set of that number, or the lowest free one.
    pub(super) fn add_fd(
        &mut self,
        received: &mut Vec<OwnedFd>,
        args: &Map<String, Value>,
    ) -> Result<Value, QmpError> {
        let file = take(received)?;
        let set = match args.int("fdset-id") {
            Some(id) if id < 0 => {
                return Err(QmpError::generic("Parameter 'fdset-id' expects a non-negative value"));
            }
            Some(id) => id,
            None => (0..).zip(self.sets.keys()).take_while(|(free, id)| free == *id).count() as i64,
        };
        let number = file.as_raw_fd();
        let opaque = args.maybe("opaque").map(str::to_owned);
        self.sets.entry(set).or_default().push(Member { file, opaque });
        Ok(json!({"fd": number, "fdset-id": set}))
    }

    /// `remove-fd`: one file of a set, or the whole set.
    pub(super) fn remove_fd(&mut self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let (set, fd) = (args.int("fdset-id").unwrap_or(-1), args.int("fd"));
        let not_found = || {
            let fd = fd.map(|fd| format!(", fd:{fd}")).unwrap_or_default();
            QmpError::generic(format!("File descriptor named 'fdset-id:{set}{fd}' not found"))
        };
        let members = self.sets.get_mut(&set).ok_or_else(not_found)?;
        if let Some(fd) = fd {
            let at =
                members.iter().position(|m| i64::from(m.file.as_raw_fd()) == fd).ok_or_else(not_found)?;
            members.remove(at);
        } else {
            members.clear();
        }
        if members.is_empty() {
            self.sets.remove(&set);
        }
        Ok(empty())
    }

    /// `query-fdsets`: the largest number first, as QEMU has it.
    pub(super) fn query(&self) -> Value {
        let member = |m: &Member| {
            let mut entry = Map::new();
            entry.insert("fd".into(), m.file.as_raw_fd().into());
            if let Some(opaque) = &m.opaque {
                entry.insert("opaque".into(), opaque.clone().into());
            }
            Value::Object(entry)
        };
        let set = |(id, members): (&i64, &Vec<Member>)| json!({"fds": members.iter().map(member).collect::<Vec<_>>(), "fdset-id": id});
        self.sets.iter().rev().map(set).collect()
    }

    /// A monitor went: its named files are closed; with the `last` one all sets.
    pub(super) fn forget(&mut self, monitor: u64, last: bool) {
        self.named.remove(&monitor);
        if last {
            self.sets.clear();
        }
    }

    /// The file that an option such as `fd=` names. A name is that of `getfd` on this monitor, and used up; a number
    /// is a file of a set (duplicated) or one that the daemon was started with (taken). Also gives the number to show.
    ///
    /// # Errors
    /// QEMU's words; `id` is the netdev that wants the file.
    pub(super) fn named_or_numbered(
        &mut self,
        monitor: u64,
        id: &str,
        text: &str,
    ) -> Result<(OwnedFd, RawFd), QmpError> {
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            let file = self.named.get_mut(&monitor).and_then(|files| files.remove(text));
            let missing = || QmpError::generic(format!("File descriptor named '{text}' has not been found"));
            let file = file.ok_or_else(missing)?;
            let number = file.as_raw_fd();
            return Ok((file, number));
        }
        let bad = || QmpError::generic(format!("Invalid file descriptor number '{text}'"));
        let number: RawFd = text.parse().map_err(|_| bad())?;
        let mut members = self.sets.values().flatten();
        let taken = match members.find(|m| m.file.as_raw_fd() == number) {
            Some(member) => {
                member.file.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
            }
            None => inherited(number),
        };
        taken.map(|file| (file, number)).map_err(|errno| {
            let why = crate::apply::backends::strerror(&errno.into());
            QmpError::generic(format!("{id}: Can't use file descriptor {number}: {why}"))
        })
    }
}
