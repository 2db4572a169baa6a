//! Forwarding rules as text (QEMU `slirp_hostfwd`, `slirp_guestfwd`, `hmp_hostfwd_remove`).

use super::address::{ipv4, number};
use crate::qmp::error::QmpError;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use usernet::protocol::{Forward, Listen, Transport};

/// Bytes of a unix socket's path at most.
const PATH: usize = 107;

/// A forward from the guest to something of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestForward {
    /// The rule, for messages.
    pub rule: String,
    /// The address that the guest connects to; none for the one that libslirp takes then.
    pub server: Option<Ipv4Addr>,
    /// Its port.
    pub port: u16,
    /// A command, or a chardev.
    pub to: GuestTarget,
}

/// Where a guest's connection leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestTarget {
    /// `cmd:`: a command behind each connection.
    Command(String),
    /// A chardev, in the words of `-chardev`'s old form.
    Device(String),
}

/// Reads a rule of `hostfwd=`.
///
/// # Errors
/// QEMU's words.
pub fn host_forward(rule: &str) -> Result<Forward, QmpError> {
    forward(rule).map_err(|why| QmpError::generic(format!("Invalid host forwarding rule '{rule}' ({why})")))
}

/// What QEMU says of a rule whose address cannot be had.
#[must_use]
pub fn refused(rule: &str) -> QmpError {
    QmpError::generic(format!("Could not set up host forwarding rule '{rule}'"))
}

fn forward(rule: &str) -> Result<Forward, &'static str> {
    let (protocol, rest) = rule.split_once(':').ok_or("No : separators")?;
    let (listen, rest) = match protocol {
        "" | "tcp" => inet(Transport::Tcp, rest)?,
        "udp" => inet(Transport::Udp, rest)?,
        "unix" => unix(rest)?,
        _ => return Err("Bad protocol name"),
    };
    let (address, port) = rest.split_once(':').ok_or("Missing guest address")?;
    let address = any_or(address).ok_or("Bad guest address")?;
    let port = leading_port(port, 1).ok_or("Bad guest port")?;
    Ok(Forward { listen, guest: SocketAddrV4::new(address, port).into() })
}

fn inet(transport: Transport, rest: &str) -> Result<(Listen, &str), &'static str> {
    let (address, rest) = rest.split_once(':').ok_or("Missing : separator")?;
    let address = any_or(address).ok_or("Bad host address")?;
    let (port, rest) = rest.split_once('-').ok_or("Bad host port separator")?;
    let port = leading_port(port, 0).ok_or("Bad host port")?;
    Ok((Listen::Inet { transport, address: SocketAddrV4::new(address, port).into() }, rest))
}

/// Newer than QEMU 10.0, whose words these are not.
fn unix(rest: &str) -> Result<(Listen, &str), &'static str> {
    // The guest's address has no dash, a path may.
    let (path, rest) = rest.rsplit_once('-').ok_or("Missing - separator")?;
    check_path(path)?;
    Ok((Listen::Unix { path: path.into() }, rest))
}

/// Whether a socket can be made at a path: one that lies there is replaced.
///
/// # Errors
/// Why not, in QEMU's words.
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("Missing unix socket path");
    }
    if !path.starts_with('/') {
        return Err("unix socket path must be absolute");
    }
    if path.len() > PATH {
        return Err("Unix socket path is too long");
    }
    match Path::new(path).metadata() {
        Ok(there) if !there.file_type().is_socket() => Err("file exists and it's not unix socket"),
        _ => Ok(()),
    }
}

/// Takes away the socket that another process has left where a forward listens. May wait for the file system.
pub fn make_way(forward: &Forward) {
    if let Listen::Unix { path } = &forward.listen
        && path.symlink_metadata().is_ok_and(|there| there.file_type().is_socket())
    {
        // If it stays, listening fails, and says why.
        let _ = std::fs::remove_file(path);
    }
}

fn any_or(text: &str) -> Option<Ipv4Addr> {
    if text.is_empty() { Some(Ipv4Addr::UNSPECIFIED) } else { ipv4(text) }
}

/// The port that a text begins with; what follows counts for nothing (QEMU's `qemu_strtoi` with an end).
fn leading_port(text: &str, least: u16) -> Option<u16> {
    let beginnings = (1..=text.len()).rev().filter_map(|end| text.get(..end));
    let port = beginnings.filter_map(|text| number(text, 0)).next()?;
    u16::try_from(port).ok().filter(|port| *port >= least)
}

fn port_from(text: &str, base: u32, least: u16) -> Option<u16> {
    let port = number(text, base).filter(|_| !text.is_empty());
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port >= least)
}

/// Reads a rule of `guestfwd=`.
///
/// # Errors
/// QEMU's words.
pub fn guest_forward(rule: &str) -> Result<GuestForward, QmpError> {
    let read = || {
        let (protocol, rest) = rule.split_once(':')?;
        let (server, rest) = rest.split_once(':').filter(|_| matches!(protocol, "" | "tcp"))?;
        let server = if server.is_empty() { None } else { Some(ipv4(server)?) };
        let (port, device) = rest.split_once('-')?;
        let to = match device.strip_prefix("cmd:") {
            Some(command) => GuestTarget::Command(command.to_owned()),
            None => GuestTarget::Device(device.to_owned()),
        };
        Some(GuestForward { rule: rule.to_owned(), server, port: port_from(port, 10, 1)?, to })
    };
    read().ok_or_else(|| QmpError::generic(format!("Invalid guest forwarding rule '{rule}'")))
}

/// Reads what `hostfwd_remove` takes: `[tcp|udp]:[hostaddr]:hostport`, and of ours `unix:PATH`.
#[must_use]
pub fn listen(text: &str) -> Option<Listen> {
    let (protocol, rest) = text.split_once(':')?;
    let transport = match protocol {
        "" | "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "unix" => return Some(Listen::Unix { path: rest.into() }),
        _ => return None,
    };
    let (address, port) = rest.split_once(':')?;
    let port = port_from(port, 10, 0)?;
    Some(Listen::Inet { transport, address: SocketAddrV4::new(any_or(address)?, port).into() })
}

/// A rule in words, for those that were not given as text.
#[must_use]
pub fn text(forward: &Forward) -> String {
    let Forward { listen, guest } = forward;
    match listen {
        Listen::Unix { path } => format!("unix:{}-{guest}", path.display()),
        Listen::Inet { transport, address } => {
            let transport = match transport {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
            };
            format!("{transport}:{address}-{}", guest_text(guest))
        }
    }
}

fn guest_text(guest: &SocketAddr) -> String {
    if guest.ip().is_unspecified() { format!(":{}", guest.port()) } else { guest.to_string() }
}

/// A command line as words, as a shell would split it, with nothing replaced (GLib `g_shell_parse_argv`). None for none, or an open quote.
#[must_use]
pub fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            // A comment, where a word would begin.
            '#' if word.is_none() => {
                letters.by_ref().find(|letter| *letter == '\n');
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        letter => word.push(letter),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => match letters.next()? {
                            '\n' => {}
                            letter if "\"\\$`".contains(letter) => word.push(letter),
                            letter => word.extend(['\\', letter]),
                        },
                        letter => word.push(letter),
                    }
                }
            }
            '\\' => match letters.next()? {
                '\n' => {}
                letter => word.get_or_insert_default().push(letter),
            },
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_host_are_read() {
        let of = |rule: &str| host_forward(rule).map_or_else(|error| error.desc, |forward| text(&forward));
        assert_eq!(of("tcp::2222-:22"), "tcp:0.0.0.0:2222-:22");
        assert_eq!(of(":127.0.0.1:0-10.0.2.15:22"), "tcp:127.0.0.1:0-10.0.2.15:22");
        assert_eq!(of("udp::0x35-:53"), "udp:0.0.0.0:53-:53");
        assert_eq!(of("unix:/tmp/a-b-:22"), "unix:/tmp/a-b-0.0.0.0:22");
        let invalid = |rule: &str, why: &str| {
            assert_eq!(of(rule), format!("Invalid host forwarding rule '{rule}' ({why})"));
        };
        invalid("x", "No : separators");
        invalid("sctp::1-:1", "Bad protocol name");
        invalid("tcp:1", "Missing : separator");
        invalid("tcp:x:1-:1", "Bad host address");
        invalid("tcp::1", "Bad host port separator");
        invalid("tcp::65536-:1", "Bad host port");
        invalid("tcp::1-1", "Missing guest address");
        invalid("tcp::1-x:1", "Bad guest address");
        invalid("tcp::1-:0", "Bad guest port");
        invalid("tcp::1-:x", "Bad guest port");
        invalid("tcp::-:1", "Bad host port");
        assert_eq!(of("tcp::1x-:2y"), "tcp:0.0.0.0:1-:2", "what follows a number counts for nothing");
        invalid("unix:a-:1", "unix socket path must be absolute");
        invalid("unix:-:1", "Missing unix socket path");
        invalid("unix:/dev/null-:1", "file exists and it's not unix socket");
        invalid(&format!("unix:/{}-:1", "x".repeat(200)), "Unix socket path is too long");
    }

    #[test]
    fn rules_of_the_guest_are_read() {
        let rule = guest_forward("tcp:10.0.2.100:80-cmd:cat /x").unwrap();
        assert_eq!((rule.server, rule.port), (Some(Ipv4Addr::new(10, 0, 2, 100)), 80));
        assert_eq!(rule.to, GuestTarget::Command("cat /x".into()));
        assert_eq!(guest_forward("::1-unix:/x").unwrap().to, GuestTarget::Device("unix:/x".into()));
        for wrong in ["x", "udp::1-cmd:x", "tcp:x:1-cmd:x", "tcp::0-cmd:x", "tcp::1", "tcp::1x-cmd:x"] {
            let desc = guest_forward(wrong).unwrap_err().desc;
            assert_eq!(desc, format!("Invalid guest forwarding rule '{wrong}'"));
        }
    }

    #[test]
    fn what_is_removed_is_named_by_where_it_listens() {
        let tcp = host_forward("tcp::22-:22").unwrap().listen;
        assert_eq!(listen(":0.0.0.0:22"), Some(tcp));
        assert_eq!(listen("unix:/a"), Some(Listen::Unix { path: "/a".into() }));
        for wrong in ["", "22", "tcp:22", "sctp::22", "tcp:x:22", "tcp::x", "tcp::"] {
            assert_eq!(listen(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn command_lines_are_split_and_nothing_is_replaced() {
        let of = |line: &str| words(line).unwrap_or_default();
        assert_eq!(of("cat  -n\t'a b' \"c\\\" $x\" d\\ e"), ["cat", "-n", "a b", "c\" $x", "d e"]);
        assert_eq!(of("sh -c 'echo $HOME; ls *'"), ["sh", "-c", "echo $HOME; ls *"]);
        assert_eq!(of("a '' # rest"), ["a", ""]);
        for wrong in ["", "  ", "'a", "\"a", "a\\"] {
            assert_eq!(words(wrong), None, "{wrong}");
        }
    }
}
