//! `bridge`, a tap on a bridge of the host that a helper makes (QEMU 10.0 `net_init_bridge`), and the helper of `tap`.

use super::Opening;
use super::tap::{Info, cut};
use crate::commands::args::Args;
use engine::backend::tap::{Helper, TapOptions};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Where Debian and others put QEMU's helper.
const OF_QEMU: &str = "/usr/lib/qemu/qemu-bridge-helper";
/// Ours, beside the daemon.
const OF_OURS: &str = "netdevd-bridge-helper";
/// The bridge when none is named.
const BRIDGE: &str = "br0";

/// Which helper to run for which bridge, and how `info network` tells of it.
pub(super) fn options(args: &Map<String, Value>) -> TapOptions {
    let program = args.maybe("helper").map_or_else(default_helper, str::to_owned);
    TapOptions { helper: Some(Helper { program, bridge: bridge(args) }), ..TapOptions::default() }
}

/// What to remember while it opens.
pub(super) fn opening(args: Map<String, Value>, options: &TapOptions) -> Opening {
    let line = |Helper { program, bridge }: &Helper| cut(format!("helper={program},br={bridge}"));
    Opening { info: Info::Lines(options.helper.iter().map(line).collect()), ..Opening::new("bridge", args) }
}

/// The bridge that a helper is asked for.
pub(super) fn bridge(args: &Map<String, Value>) -> String {
    args.maybe("br").unwrap_or(BRIDGE).to_owned()
}

/// QEMU's helper where it is, else ours.
fn default_helper() -> String {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join(OF_OURS));
    let found = Some(PathBuf::from(OF_QEMU)).filter(|path| path.exists());
    let found = found.or_else(|| beside().filter(|path| path.exists()));
    // With neither, the error is that of QEMU's.
    found.as_deref().unwrap_or(Path::new(OF_QEMU)).to_string_lossy().into_owned()
}
