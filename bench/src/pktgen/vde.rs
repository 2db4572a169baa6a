//! A plug of a `vde_switch`: its control socket is told the path of ours for frames and answers with that of its own. Frames are datagrams.
//! (VDE 2, `src/vde_switch/datasock.c`, version 3 of the request.)

use crate::failure::{Context, Failure, Result};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MAGIC: u32 = 0xfeed_face;
const VERSION: u32 = 3;
const NEW_CONTROL: u32 = 0;
/// Bytes of a `sockaddr_un`: the family, then a path that ends with a zero.
const ADDRESS: usize = 110;

/// What keeps a plug in: the switch closes its port when this goes.
#[derive(Debug)]
pub(super) struct Plug {
    _control: UnixStream,
    _directory: TempDir,
}

/// Plugs into the switch whose control directory is `at`: a connected socket that does not block.
///
/// # Errors
/// There is no switch.
pub(super) fn plug(at: &Path) -> Result<(UnixDatagram, Plug)> {
    let directory = tempfile::tempdir().context("a directory")?;
    let own = directory.path().join("plug");
    let socket = UnixDatagram::bind(&own).context(own.display())?;
    let control = at.join("ctl");
    let mut control = UnixStream::connect(&control).context(control.display())?;
    control.write_all(&request(&own)?).context("vde_switch")?;
    let mut answer = [0; ADDRESS];
    control.read_exact(&mut answer).context("vde_switch refuses a port")?;
    let data = path(&answer);
    socket.connect(&data).context(data.display())?;
    socket.set_nonblocking(true).context(data.display())?;
    Ok((socket, Plug { _control: control, _directory: directory }))
}

fn request(own: &Path) -> Result<Vec<u8>> {
    let words = [MAGIC, VERSION, NEW_CONTROL];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend((libc::AF_UNIX as u16).to_ne_bytes());
    let mut name = own.as_os_str().as_bytes().to_vec();
    if name.len() >= ADDRESS - 2 {
        return Err(Failure::new(format!("{}: too long for a socket", own.display())));
    }
    name.resize(ADDRESS - 2, 0);
    bytes.extend(name);
    bytes.extend(b"pktgen\0");
    Ok(bytes)
}

fn path(address: &[u8; ADDRESS]) -> PathBuf {
    let name = address.get(2..).unwrap_or_default();
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    PathBuf::from(OsStr::from_bytes(name.get(..len).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_plug_sends_to_where_the_switch_says() {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("ctl")).unwrap();
        let data = home.path().join("001.7");
        let port = UnixDatagram::bind(&data).unwrap();
        let switch = std::thread::spawn(move || {
            let (mut control, _) = listener.accept().unwrap();
            let mut asked = [0; 12 + ADDRESS];
            control.read_exact(&mut asked).unwrap();
            let mut answer = request(&data).unwrap().split_off(12);
            answer.truncate(ADDRESS);
            control.write_all(&answer).unwrap();
            (asked, control)
        });
        let (socket, _plug) = plug(home.path()).unwrap();
        let (asked, _control) = switch.join().unwrap();
        assert_eq!(asked[..12], [MAGIC, VERSION, NEW_CONTROL].map(u32::to_ne_bytes).concat());
        let own = path(asked[12..].try_into().unwrap());
        socket.send(b"frame").unwrap();
        let mut buffer = [0; 16];
        let (len, from) = port.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.as_pathname()), (&b"frame"[..], Some(own.as_path())));
    }
}
