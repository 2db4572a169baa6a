//! What the user may say of a VDE switch's port, with libvdeplug's defaults (qapi/net.json `NetdevVdeOptions`, vde_plug(1)).

use super::VdeError;

/// Where libvdeplug looks for a switch when none is named.
pub(super) const USUAL: [&str; 2] = ["/var/run/vde.ctl", "/tmp/vde.ctl"];

/// Which switch, and how to join it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VdeOptions {
    /// Directory of the switch's sockets as the user wrote it: `DIRECTORY`, `vde://DIRECTORY`, either with `[port]` or
    /// `[port=N/group=NAME/mode=OCTAL]` behind it. Empty: the usual places.
    pub sock: String,
    /// Port of the switch; 0 for any that is free.
    pub port: u16,
    /// Group of the socket that the switch sends to.
    pub group: Option<String>,
    /// Permissions of that socket.
    pub mode: u32,
}

impl Default for VdeOptions {
    fn default() -> Self {
        Self { sock: String::new(), port: 0, group: None, mode: 0o700 }
    }
}

impl VdeOptions {
    /// Takes apart what is written in `sock`: what remains there is the directory alone. What stands in brackets wins, as in libvdeplug.
    pub(super) fn plain(&self) -> Result<Self, VdeError> {
        let mut plain = self.clone();
        let (scheme, rest) = self.sock.split_once("://").unwrap_or(("vde", &self.sock));
        if scheme != "vde" {
            return Err(VdeError::Scheme(scheme.to_owned()));
        }
        let (directory, words) = match rest.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
            Some((directory, words)) => (directory, words),
            None => (rest, ""),
        };
        plain.sock = directory.to_owned();
        for word in words.split('/').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or(("port", word));
            let wrong = || VdeError::Word(word.to_owned());
            match name {
                "port" => plain.port = value.parse().map_err(|_| wrong())?,
                "group" => plain.group = Some(value.to_owned()),
                "mode" => plain.mode = u32::from_str_radix(value, 8).map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(sock: &str) -> Result<VdeOptions, String> {
        let given = VdeOptions { sock: sock.into(), port: 4, ..VdeOptions::default() };
        given.plain().map_err(|error| error.to_string())
    }

    #[test]
    fn switches_are_named_as_libvdeplug_takes_them() {
        let switch = |sock: &str, port| VdeOptions { sock: sock.into(), port, ..VdeOptions::default() };
        assert_eq!(plain("/s"), Ok(switch("/s", 4)));
        assert_eq!(plain("vde:///s"), Ok(switch("/s", 4)));
        assert_eq!(plain(""), Ok(switch("", 4)));
        assert_eq!(plain("/s[5]"), Ok(switch("/s", 5)));
        assert_eq!(plain("vde:///s[port=6]"), Ok(switch("/s", 6)));
        let all = VdeOptions { sock: "/s".into(), port: 7, group: Some("users".into()), mode: 0o770 };
        assert_eq!(plain("/s[7/group=users/mode=770]"), Ok(all));
        assert_eq!(plain("/s]"), Ok(switch("/s]", 4)), "no bracket before it: a name");
    }

    #[test]
    fn what_is_no_switch_is_refused_by_name() {
        assert_eq!(
            plain("vxvde://239.0.0.1"),
            Err("Could not open vde: 'vxvde' is not a switch, only 'vde' is".into())
        );
        assert_eq!(plain("/s[x]"), Err("Could not open vde: 'x' makes no sense".into()));
        assert_eq!(plain("/s[65536]"), Err("Could not open vde: '65536' makes no sense".into()));
        assert_eq!(plain("/s[mode=9]"), Err("Could not open vde: 'mode=9' makes no sense".into()));
    }
}
