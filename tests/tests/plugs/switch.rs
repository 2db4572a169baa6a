//! A `vde_switch`, and a port of it that sends and receives frames as they are.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tests::wait;

/// A switch in a directory of its own, killed when dropped.
pub(crate) struct Switch {
    directory: TempDir,
    child: Child,
}

impl Switch {
    /// Starts one and waits until it takes ports.
    pub(crate) fn start() -> Self {
        let directory = tests::daemon::directory();
        let child = start(&directory);
        Self { directory, child }
    }

    /// The directory of its sockets.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("sw")
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again in the same place.
    pub(crate) fn restart(&mut self) {
        self.child = start(&self.directory);
    }

    /// Files in its directory beside its control socket: ports in use, and whatever plugs left behind.
    pub(crate) fn plugs(&self) -> usize {
        fs::read_dir(self.path())
            .map_or(0, |entries| entries.flatten().filter(|e| e.file_name() != "ctl").count())
    }
}

fn start(directory: &TempDir) -> Child {
    let path = directory.path().join("sw");
    let mut command = wait::mortal("vde_switch");
    // It ends when its standard input does.
    command.arg("-s").arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("vde_switch starts");
    let there = wait::until(wait::PATIENCE, || UnixStream::connect(path.join("ctl")).ok());
    assert!(there.is_some(), "vde_switch takes no ports");
    child
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A switch with one port, whose frames wait until the test reads them: `vde_switch` loses what it cannot hand on.
pub(crate) struct Slow {
    directory: TempDir,
    listener: UnixListener,
}

impl Slow {
    /// One that listens.
    pub(crate) fn new() -> Self {
        let directory = tests::daemon::directory();
        let listener = UnixListener::bind(directory.path().join("ctl")).expect("a control socket");
        Self { directory, listener }
    }

    /// The directory of its sockets.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().into()
    }

    /// Takes whoever asks for the port; the switch's end of it.
    pub(crate) fn take(&self) -> Plug {
        let (mut control, _) = self.listener.accept().expect("somebody connects");
        let mut request = [0; 256];
        let length = control.read(&mut request).expect("a request");
        assert!(length > 122, "{length} bytes are no request");
        let data = UnixDatagram::bind(self.path().join("001")).expect("a socket of its own");
        data.connect(path_in(&request[12..122])).expect("the socket that the request names");
        let mut answer = 1_u16.to_ne_bytes().to_vec();
        answer.extend_from_slice(self.path().join("001").as_os_str().as_bytes());
        answer.resize(110, 0);
        control.write_all(&answer).expect("the answer is sent");
        Plug { _control: control, data }
    }
}

/// The path in a `struct sockaddr_un`.
fn path_in(address: &[u8]) -> PathBuf {
    let path = address[2..].split(|byte| *byte == 0).next().unwrap_or_default();
    std::ffi::OsStr::from_bytes(path).into()
}

/// A port of a switch.
pub(crate) struct Plug {
    _control: UnixStream,
    data: UnixDatagram,
}

impl Plug {
    /// Joins any port, as libvdeplug does.
    pub(crate) fn join(switch: &Switch) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!(".test-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let path = switch.path().join(name);
        let data = UnixDatagram::bind(&path).expect("a socket in the switch's directory");
        let mut control = UnixStream::connect(switch.path().join("ctl")).expect("the switch is there");
        let mut request = Vec::new();
        for word in [0xfeed_face_u32, 3, 0] {
            request.extend_from_slice(&word.to_ne_bytes());
        }
        request.extend_from_slice(&1_u16.to_ne_bytes());
        request.extend_from_slice(path.as_os_str().as_bytes());
        request.resize(122, 0);
        request.extend_from_slice(b"test");
        control.write_all(&request).expect("the request is sent");
        let mut answer = [0; 110];
        control.read_exact(&mut answer).expect("the switch answers");
        data.connect(path_in(&answer)).expect("the switch's socket is there");
        fs::remove_file(path).expect("the socket's file is there");
        Self { _control: control, data }
    }

    /// Sends one frame; waits while the switch has no room.
    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(self.data.send(frame).expect("the frame is sent"), frame.len());
    }

    /// The next frame, if one comes within `limit`.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        self.data.set_read_timeout(Some(limit)).expect("a time limit");
        let mut frame = vec![0; 70_000];
        let length = self.data.recv(&mut frame).ok()?;
        frame.truncate(length);
        Some(frame)
    }
}
