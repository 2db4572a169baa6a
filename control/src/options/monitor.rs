//! `-qmp` and `-mon`: which chardev a monitor speaks on.

use super::chardev::{self, Chardev};
use super::opts::Opts;
use crate::qmp::QmpError;
use crate::schema::boolean;

/// A monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// The chardev it speaks on.
    pub chardev: String,
    /// True for QMP, false for the human monitor.
    pub control: bool,
    /// Replies in several lines.
    pub pretty: bool,
}

/// Reads `-mon [chardev=]ID[,mode=control|readline][,pretty=on|off]`.
///
/// # Errors
/// As QEMU words them.
pub fn from_mon(text: &str) -> Result<Monitor, QmpError> {
    let opts = Opts::parse(text, "chardev")?;
    let mut monitor = Monitor { chardev: String::new(), control: false, pretty: false };
    for (name, value) in &opts.pairs {
        match name.as_str() {
            "id" | "mode" | "chardev" => {}
            "pretty" => {
                let bad = || QmpError::generic("Parameter 'pretty' expects 'on' or 'off'");
                monitor.pretty = boolean(value).ok_or_else(bad)?;
            }
            _ => return Err(QmpError::generic(format!("Invalid parameter '{name}'"))),
        }
    }
    let missing = || QmpError::generic("Parameter 'chardev' is missing");
    opts.get("chardev").ok_or_else(missing)?.clone_into(&mut monitor.chardev);
    match opts.get("mode") {
        Some("control") => monitor.control = true,
        None | Some("readline") => {}
        Some(mode) => {
            return Err(QmpError::generic(format!("Parameter 'mode' does not accept value '{mode}'")));
        }
    }
    if monitor.pretty && !monitor.control {
        return Err(QmpError::generic("'pretty' is not compatible with HMP monitors"));
    }
    Ok(monitor)
}

/// Reads `-qmp unix:PATH,server=on,wait=off | tcp:HOST:PORT,... | stdio | null | chardev:ID`: the monitor, and the
/// chardev to make for it, which is named `label`.
///
/// # Errors
/// As QEMU words them.
pub fn from_qmp(text: &str, label: &str) -> Result<(Monitor, Option<Chardev>), QmpError> {
    let monitor = |chardev: &str| Monitor { chardev: chardev.to_owned(), control: true, pretty: false };
    match text.strip_prefix("chardev:") {
        Some(id) => Ok((monitor(id), None)),
        None => Ok((monitor(label), Some(chardev::from_compat(text, label)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_names_its_chardev() {
        let monitor = from_mon("chardev=c,mode=control,pretty=on").unwrap();
        assert_eq!(monitor, Monitor { chardev: "c".to_owned(), control: true, pretty: true });
        assert!(!from_mon("c").unwrap().control);
    }

    #[test]
    fn monitor_errors_are_qemus() {
        for (text, desc) in [
            ("mode=control", "Parameter 'chardev' is missing"),
            ("chardev=x,mode=foo", "Parameter 'mode' does not accept value 'foo'"),
            ("chardev=x,foo=bar", "Invalid parameter 'foo'"),
            ("chardev=x,pretty=z", "Parameter 'pretty' expects 'on' or 'off'"),
        ] {
            assert_eq!(from_mon(text).unwrap_err().desc, desc);
        }
    }

    #[test]
    fn qmp_makes_a_chardev_or_names_one() {
        assert_eq!(from_qmp("chardev:x", "m").unwrap().1, None);
        let (monitor, chardev) = from_qmp("unix:/tmp/s,server=on,wait=off", "m0").unwrap();
        assert_eq!((monitor.chardev.as_str(), chardev.unwrap().id.as_str()), ("m0", "m0"));
    }
}
