//! Names of ports (net/netmap_user.h `nm_parse`, libnetmap's nmreq.c).
//!
//! ```text
//! netmap:eth0      all ring pairs of the NIC     netmap:eth0-2   the third pair
//! netmap:eth0^     those of the host's stack     netmap:eth0^1   the second pair of these
//! netmap:eth0*     both                          vale0:1         port 1 of the switch vale0
//! netmap:x{1       a pipe's master side          netmap:x}1      its slave side
//! .../xzrtRT@2     flags, and the memory's id
//! ```

use super::abi;
use super::abi::{OldRequest, Register};

/// What is to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// The name for the kernel, with the side and number of a pipe.
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) ring: u16,
    pub(super) flags: u64,
    pub(super) mem_id: u16,
}

impl Port {
    /// Reads a name. Without a prefix it is that of an interface, which `nm_open` would not know.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let vale = text.starts_with("vale");
        let name = if vale { text } else { text.strip_prefix("netmap:").unwrap_or(text) };
        let end = name.find(['-', '*', '^', '/', '@']).unwrap_or(name.len());
        let (name, mut rest) = name.split_at(end);
        let base = name.split(['{', '}']).next().unwrap_or_default();
        if base.is_empty() || name.len() >= abi::NAME || name.contains('\0') {
            return None;
        }
        if vale {
            let (bridge, port) = base.strip_prefix("vale")?.split_once(':')?;
            if !is_identifier(bridge) || !is_identifier(port) {
                return None;
            }
        }
        if base.len() < name.len() && !is_identifier(name.get(base.len() + 1..)?) {
            return None;
        }
        let mut port = Self { name: name.to_owned(), mode: abi::REG_ALL_NIC, ring: 0, flags: 0, mem_id: 0 };
        match rest.chars().next() {
            Some('^') => {
                (port.mode, rest) = (abi::REG_SW, rest.get(1..)?);
                if rest.starts_with(|c: char| c.is_ascii_digit()) {
                    port.mode = abi::REG_ONE_SW;
                    (port.ring, rest) = ring(rest)?;
                }
            }
            Some('*') => (port.mode, rest) = (abi::REG_NIC_SW, rest.get(1..)?),
            Some('-') => {
                port.mode = abi::REG_ONE_NIC;
                (port.ring, rest) = ring(rest.get(1..)?)?;
            }
            _ => {}
        }
        port.suffix(rest)?;
        Some(port)
    }

    /// Flags and the memory's id, in this order, each at most once.
    fn suffix(&mut self, mut rest: &str) -> Option<()> {
        if let Some(flags) = rest.strip_prefix('/') {
            let end = flags.find('@').unwrap_or(flags.len());
            let (flags, behind) = flags.split_at(end);
            if flags.is_empty() && behind.is_empty() {
                return None;
            }
            for flag in flags.chars() {
                self.flags |= match flag {
                    'x' => abi::EXCLUSIVE,
                    'z' => abi::ZCOPY_MON,
                    't' => abi::MONITOR_TX,
                    'r' => abi::MONITOR_RX,
                    'R' => abi::RX_RINGS_ONLY,
                    'T' => abi::TX_RINGS_ONLY,
                    _ => return None,
                };
            }
            rest = behind;
        }
        match rest.strip_prefix('@') {
            Some(id) => self.mem_id = id.parse().ok().filter(|id| *id > 0)?,
            None if rest.is_empty() => {}
            None => return None,
        }
        Some(())
    }

    /// A port of a VALE switch, which may have headers in front of frames.
    pub(super) fn is_vale(&self) -> bool {
        self.name.starts_with("vale")
    }

    fn pipe(&self) -> Option<usize> {
        self.name.find(['{', '}'])
    }

    /// The whole of a NIC, whose ring pairs can each have a file of their own.
    pub(super) fn can_split(&self) -> bool {
        self.mode == abi::REG_ALL_NIC
            && !self.is_vale()
            && self.pipe().is_none()
            && self.flags & !(abi::EXCLUSIVE) == 0
    }

    /// The request's body.
    pub(super) fn register(&self) -> Register {
        Register {
            mem_id: self.mem_id,
            ringid: self.ring,
            mode: self.mode,
            flags: self.flags | abi::ACCEPT_VNET_HDR,
            ..Register::default()
        }
    }

    /// The old request: pipes have a mode, and their number is that of a ring. None where it cannot say it.
    pub(super) fn old(&self) -> Option<OldRequest> {
        let (name, mode, ring) = match self.pipe() {
            Some(at) => {
                let master = self.name.get(at..)?.starts_with('{');
                let number = self.name.get(at + 1..)?.parse().ok().filter(|n| *n < abi::RING_MASK)?;
                let mode = if master { abi::REG_PIPE_MASTER } else { abi::REG_PIPE_SLAVE };
                (self.name.get(..at)?, mode, number)
            }
            None => (self.name.as_str(), self.mode, self.ring),
        };
        let mut request = OldRequest {
            name: fill(name)?,
            ringid: ring,
            arg2: self.mem_id,
            flags: mode | (self.flags | abi::ACCEPT_VNET_HDR) as u32,
            ..OldRequest::default()
        };
        request.version = u32::from(abi::APIS[0]);
        Some(request)
    }
}

/// A name with zeros behind it, if it fits with one.
pub(super) fn fill<const N: usize>(name: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    bytes.get_mut(..N - 1)?.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(bytes)
}

/// A ring's number, and what follows.
fn ring(text: &str) -> Option<(u16, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok().filter(|n| *n < abi::RING_MASK)?, rest))
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, mode: u32, ring: u16, flags: u64, mem_id: u16) -> Option<Port> {
        Some(Port { name: name.into(), mode, ring, flags, mem_id })
    }

    #[test]
    fn names_mean_what_nm_open_makes_of_them() {
        for (text, expected) in [
            ("netmap:eth0", port("eth0", abi::REG_ALL_NIC, 0, 0, 0)),
            ("eth0", port("eth0", abi::REG_ALL_NIC, 0, 0, 0)),
            ("netmap:eth0.5-3", port("eth0.5", abi::REG_ONE_NIC, 3, 0, 0)),
            ("netmap:eth0^", port("eth0", abi::REG_SW, 0, 0, 0)),
            ("netmap:eth0^2", port("eth0", abi::REG_ONE_SW, 2, 0, 0)),
            ("netmap:eth0*/x", port("eth0", abi::REG_NIC_SW, 0, abi::EXCLUSIVE, 0)),
            ("netmap:eth0/rz@7", port("eth0", abi::REG_ALL_NIC, 0, abi::MONITOR_RX | abi::ZCOPY_MON, 7)),
            ("netmap:eth0-4094/RT", port("eth0", abi::REG_ONE_NIC, 4094, 0x6000, 0)),
            ("netmap:x{12", port("x{12", abi::REG_ALL_NIC, 0, 0, 0)),
            ("vale0:1}3@2", port("vale0:1}3", abi::REG_ALL_NIC, 0, 0, 2)),
            ("vale0:1", port("vale0:1", abi::REG_ALL_NIC, 0, 0, 0)),
            ("vale_a:vi0", port("vale_a:vi0", abi::REG_ALL_NIC, 0, 0, 0)),
        ] {
            assert_eq!(Port::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "netmap:",
            "vale0",
            "vale0:a b",
            "vale!:1",
            "netmap:eth0-",
            "netmap:eth0-4095",
            "netmap:eth0-x",
            "netmap:eth0/q",
            "netmap:eth0/",
            "netmap:eth0@0",
            "netmap:eth0@",
            "netmap:eth0@65536",
            "netmap:eth0*x",
            "netmap:x{1!",
            "netmap:eth0^/",
            "netmap:eth0@2@3",
            "netmap:a234567890123456789012345678901234567890123456789012345678901234",
        ] {
            assert_eq!(Port::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_old_request_has_a_mode_for_pipes_and_short_names() {
        let old = Port::parse("netmap:x}12").and_then(|port| port.old()).unwrap();
        assert_eq!((&old.name[..2], old.ringid, old.flags & 0xf), (&b"x\0"[..], 12, abi::REG_PIPE_SLAVE));
        assert_eq!((old.version, old.cmd), (14, 0));
        let old = Port::parse("netmap:eth0-5/x@9").and_then(|port| port.old()).unwrap();
        assert_eq!((old.ringid, old.flags, old.arg2), (5, 4 | 0x800 | 0x8000, 9));
        let long = Port::parse("netmap:a234567890123456").unwrap();
        assert!(long.old().is_none(), "it would be cut");
        assert!(Port::parse("netmap:x{abc").unwrap().old().is_none(), "a pipe without a number");
    }
}
