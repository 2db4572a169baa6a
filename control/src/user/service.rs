//! Services in the guest's network that commands of the host answer: a private unix socket, and a command behind each connection to it
//! (libslirp `fork_exec`). Among them `smbd` (QEMU `slirp_smb`).

use super::rule::words;
use crate::qmp::error::QmpError;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{AccessFlags, Uid, User, access, mkdtemp};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Where Debian and others put it.
const SMBD: &str = "/usr/sbin/smbd";
/// Pause after a connection could not be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// A directory that nobody else may enter, gone with this.
#[derive(Debug)]
pub struct Private(PathBuf);

impl Private {
    /// Makes one.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> nix::Result<Self> {
        mkdtemp(&std::env::temp_dir().join("netdevd-user.XXXXXX")).map(Self)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("'{}' is left behind: {error}", self.0.display());
        }
    }
}

/// What a command's input and output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plug {
    /// The connection itself, a unix socket.
    Unix,
    /// A TCP socket of the loopback, and two threads that copy: smbd asks for the address at the other end.
    Inet,
}

/// A socket with a command behind each connection. Commands that run when it goes end with their connections.
#[derive(Debug)]
pub struct CommandServer {
    listener: Arc<UnixListener>,
    path: PathBuf,
}

impl CommandServer {
    /// Listens at `path`; `line` is split into words, and no shell sees it.
    ///
    /// # Errors
    /// The system's.
    pub fn new(netdev: &str, path: PathBuf, line: &str, plug: Plug) -> std::io::Result<Self> {
        let listener = Arc::new(UnixListener::bind(&path)?);
        let (netdev, line, of_thread) = (netdev.to_owned(), line.to_owned(), Arc::clone(&listener));
        thread::Builder::new().name("netdevd-guestfwd".into()).spawn(move || {
            serve(&netdev, &of_thread, &line, plug);
        })?;
        Ok(Self { listener, path })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for CommandServer {
    fn drop(&mut self) {
        // Ends the thread's wait.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

fn serve(netdev: &str, listener: &UnixListener, line: &str, plug: Plug) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let plugged = match plug {
                    Plug::Unix => Ok(OwnedFd::from(stream)),
                    Plug::Inet => inet(stream).map_err(|error| error.to_string()),
                };
                if let Err(why) = plugged.and_then(|file| run(file, line)) {
                    tracing::warn!("netdev '{netdev}': guestfwd command '{line}': {why}");
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
            Err(error) => {
                tracing::warn!("netdev '{netdev}': guestfwd: {error}");
                thread::sleep(PAUSE);
            }
        }
    }
}

/// A TCP socket whose bytes are those of `stream`.
fn inet(stream: UnixStream) -> std::io::Result<OwnedFd> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    // Somebody else may have been faster.
    let theirs = loop {
        let (theirs, from) = listener.accept()?;
        if from == ours.local_addr()? {
            break theirs;
        }
    };
    ours.set_nodelay(true)?;
    let ends = (OwnedFd::from(stream), OwnedFd::from(ours));
    let others = (ends.1.try_clone()?, ends.0.try_clone()?);
    for (from, to) in [ends, others] {
        thread::Builder::new().name("netdevd-smb".into()).spawn(move || {
            let (mut from, mut to) = (File::from(from), File::from(to));
            // An end on one side is one on the other, in this direction only.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
        })?;
    }
    Ok(theirs.into())
}

/// Runs the command over a connection, which is its input, output and standard error.
fn run(file: OwnedFd, line: &str) -> Result<(), String> {
    let all = words(line).ok_or("no command")?;
    let (program, arguments) = all.split_first().ok_or("no command")?;
    let copy = || file.try_clone().map(Stdio::from).map_err(|error| error.to_string());
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(copy()?).stdout(copy()?).stderr(copy()?);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    drop((command, file));
    // Somebody has to take note of its end.
    let waiter = move || drop(child.wait());
    thread::Builder::new()
        .name("netdevd-guestfwd".into())
        .spawn(waiter)
        .map_err(|error| error.to_string())?;
    Ok(())
}

/// Writes a configuration for an SMB server that shows `directory`, into `private`; the command that serves one connection by it.
///
/// # Errors
/// QEMU's words.
pub fn smb(private: &Path, directory: &str) -> Result<String, QmpError> {
    let dir = private.display();
    let conf = private.join("smb.conf");
    let user = user_name()?;
    let text = format!(
        "[global]\nprivate dir={dir}\ninterfaces=127.0.0.1\nbind interfaces only=yes\npid directory={dir}\n\
         lock directory={dir}\nstate directory={dir}\ncache directory={dir}\nncalrpc dir={dir}/ncalrpc\n\
         log file={dir}/log.smbd\nsmb passwd file={dir}/smbpasswd\nsecurity = user\nmap to guest = Bad User\n\
         load printers = no\nprinting = bsd\ndisable spoolss = yes\nusershare max shares = 0\n\
         [qemu]\npath={directory}\nread only=no\nguest ok=yes\nforce user={user}\n"
    );
    fs::write(&conf, text).map_err(|error| {
        let why = crate::apply::backends::strerror(&error);
        let conf = conf.display();
        QmpError::generic(format!("Could not create samba server configuration file '{conf}': {why}"))
    })?;
    Ok(format!("{SMBD} -l {dir} -s {}", conf.display()))
}

fn user_name() -> Result<String, QmpError> {
    let user = User::from_uid(Uid::effective()).ok().flatten();
    user.map(|user| user.name).ok_or_else(|| QmpError::generic("Failed to retrieve user name"))
}

/// Whether there is an SMB server, and the directory that it is to show.
///
/// # Errors
/// QEMU's words, in its order.
pub fn check_smb(directory: &str) -> Result<(), QmpError> {
    user_name()?;
    if access(SMBD, AccessFlags::F_OK).is_err() {
        return Err(QmpError::generic(format!("Could not find '{SMBD}', please install it")));
    }
    if directory.contains('\n') {
        return Err(QmpError::generic(format!(
            "Error accessing shared directory '{directory}': Invalid argument"
        )));
    }
    access(directory, AccessFlags::R_OK | AccessFlags::X_OK).map_err(|errno| {
        QmpError::generic(format!("Error accessing shared directory '{directory}': {}", errno.desc()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn each_connection_has_a_command_of_its_own_and_no_shell() {
        for plug in [Plug::Unix, Plug::Inet] {
            with_a_command_each(plug);
        }
    }

    fn with_a_command_each(plug: Plug) {
        let private = Private::new().unwrap();
        let server =
            CommandServer::new("u", private.path().join("s"), "sh -c 'cat; echo \"$0\"' '$HOME *'", plug)
                .unwrap();
        for text in ["one", "two"] {
            let mut stream = UnixStream::connect(server.path()).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = String::new();
            stream.read_to_string(&mut back).unwrap();
            assert_eq!(back, format!("{text}$HOME *\n"));
        }
    }

    #[test]
    fn a_command_that_is_none_closes_the_connection_and_nothing_else() {
        let private = Private::new().unwrap();
        let path = private.path().to_owned();
        let server = CommandServer::new("u", path.join("s"), "/nonexistent/x", Plug::Inet).unwrap();
        for _ in 0..2 {
            let mut back = Vec::new();
            UnixStream::connect(server.path()).unwrap().read_to_end(&mut back).unwrap();
            assert!(back.is_empty());
        }
        drop((server, private));
        assert!(!path.exists());
    }

    #[test]
    fn the_configuration_of_smbd_is_qemus() {
        let private = Private::new().unwrap();
        let line = smb(private.path(), "/srv/a b").unwrap();
        let dir = private.path().to_str().unwrap();
        assert_eq!(line, format!("/usr/sbin/smbd -l {dir} -s {dir}/smb.conf"));
        let text = fs::read_to_string(private.path().join("smb.conf")).unwrap();
        assert!(text.starts_with(&format!("[global]\nprivate dir={dir}\n")), "{text}");
        assert!(text.contains("\n[qemu]\npath=/srv/a b\nread only=no\nguest ok=yes\nforce user="), "{text}");
        let here = private.path().join("none");
        if Path::new(SMBD).exists() {
            let desc = check_smb(here.to_str().unwrap()).unwrap_err().desc;
            assert_eq!(
                desc,
                format!("Error accessing shared directory '{}': No such file or directory", here.display())
            );
        } else {
            assert_eq!(
                check_smb("/").unwrap_err().desc,
                "Could not find '/usr/sbin/smbd', please install it"
            );
        }
    }
}
