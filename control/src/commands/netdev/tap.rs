//! What the options of `tap` mean together (QEMU 10.0 `net_init_tap`).

use super::Opening;
use super::bridge::bridge;
use crate::apply::Opened;
use crate::commands::args::Args;
use crate::commands::fd::Fds;
use crate::qmp::error::QmpError;
use engine::backend::tap::{GivenFd, Helper, TapOptions, VhostOptions};
use serde_json::{Map, Value};
use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock};

/// The longest description of a client that QEMU keeps, in bytes.
const INFO_MAX: usize = 255;

/// How `info network` describes a tap, as far as the options say.
#[derive(Debug)]
pub(in crate::commands) enum Info {
    /// By name: interface and scripts.
    Named { script: String, down: String },
    /// By file: the numbers.
    Files(Vec<RawFd>),
    /// One a queue, of another type of netdev.
    Lines(Vec<String>),
    /// One that is known when it is open.
    Told(Arc<OnceLock<String>>),
}

/// Checks which options may stand together, in QEMU's order and words.
pub(super) fn check(args: &Map<String, Value>) -> Result<(), QmpError> {
    let has = |name: &str| args.contains_key(name);
    let any = |names: &[&str]| names.iter().any(|name| has(name));
    let by_name = any(&["ifname", "script", "downscript", "vnet_hdr", "queues"]);
    let refuse = |desc: &str| Err(QmpError::generic(desc));
    if has("fd") {
        if by_name || any(&["helper", "fds", "vhostfds"]) {
            return refuse(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=",
            );
        }
    } else if has("fds") {
        if by_name || any(&["helper", "vhostfd"]) {
            return refuse(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=",
            );
        }
        let count = |name: &str| args.text(name).split(':').filter(|part| !part.is_empty()).count();
        if has("vhostfds") && count("fds") != count("vhostfds") {
            return refuse("The number of fds passed does not match the number of vhostfds passed");
        }
        if args.text("fds").is_empty() {
            // QEMU 10.0 aborts here; these are the words of 11.1.
            return refuse("no fds passed");
        }
    } else if has("helper") {
        if by_name || has("vhostfds") {
            return refuse(
                "ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=",
            );
        }
    } else if has("vhostfds") {
        return refuse("vhostfds= is invalid if fds= wasn't specified");
    } else if args.uint("queues") == Some(0) {
        // As with `fds`.
        return refuse("queues must be greater than zero");
    }
    Ok(())
}

/// What vhost-net is to do, if anything: looked at after the tap's own files, as in QEMU. `vhostforce` counts where `vhost` is not given.
fn vhost(args: &Map<String, Value>, fds: &mut Fds, monitor: u64) -> Result<Option<VhostOptions>, QmpError> {
    let names: Vec<&str> = match (args.maybe("vhostfd"), args.maybe("vhostfds")) {
        (Some(fd), _) => vec![fd],
        (None, Some(list)) => list.split(':').filter(|part| !part.is_empty()).collect(),
        (None, None) => Vec::new(),
    };
    let asked = args.flag("vhost").unwrap_or(!names.is_empty() || args.flag("vhostforce") == Some(true));
    if !asked {
        return match names.is_empty() {
            true => Ok(None),
            false => Err(QmpError::generic("vhostfd(s)= is not valid without vhost")),
        };
    }
    let named = |name| fds.named_or_numbered(monitor, args.text("id"), name).map(|(fd, _)| fd);
    let fds = names.into_iter().map(named).collect::<Result<_, _>>()?;
    let busy = args.uint("poll-us").map_or(0, |us| u32::try_from(us).unwrap_or(u32::MAX));
    Ok(Some(VhostOptions { fds, busy }))
}

/// What to open, after [`check`]. Files that a client named are used up even if the rest fails, as in QEMU.
pub(super) fn options(
    args: &Map<String, Value>,
    fds: &mut Fds,
    monitor: u64,
) -> Result<TapOptions, QmpError> {
    let names: Vec<&str> = match (args.maybe("fd"), args.maybe("fds")) {
        (Some(fd), _) => vec![fd],
        (None, Some(list)) => {
            // An empty part at the end counts for nothing, as in QEMU.
            let list = list.strip_suffix(':').filter(|rest| !rest.is_empty()).unwrap_or(list);
            list.split(':').collect()
        }
        (None, None) => Vec::new(),
    };
    let mut given = Vec::with_capacity(names.len());
    for name in names {
        let (fd, number) = fds.named_or_numbered(monitor, args.text("id"), name)?;
        given.push(GivenFd { fd, number });
    }
    let vhost = vhost(args, fds, monitor)?;
    let text = |name: &str| args.maybe(name).map(str::to_owned);
    Ok(TapOptions {
        ifname: text("ifname"),
        fds: given,
        // Without a helper, `br` is taken and not used, as in QEMU.
        helper: text("helper").map(|program| Helper { program, bridge: bridge(args) }),
        vnet_hdr: args.flag("vnet_hdr"),
        sndbuf: args.uint("sndbuf"),
        vhost,
        queues: args.uint("queues").map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        script: text("script"),
        downscript: text("downscript"),
    })
}

/// What to remember while it opens.
pub(super) fn opening(args: Map<String, Value>, options: &TapOptions) -> Opening {
    let info = if let Some(helper) = &options.helper {
        Info::Lines(vec![cut(format!("helper={}", helper.program))])
    } else if options.fds.is_empty() {
        Info::Named {
            script: options.script.as_deref().unwrap_or("/etc/qemu-ifup").to_owned(),
            down: options.downscript.as_deref().unwrap_or("/etc/qemu-ifdown").to_owned(),
        }
    } else {
        Info::Files(options.fds.iter().map(|given| given.number).collect())
    };
    Opening {
        // Of those that are opened by name only.
        down: options.downscript_path().filter(|_| matches!(info, Info::Named { .. })).map(str::to_owned),
        info,
        ..Opening::new("tap", args)
    }
}

impl Info {
    /// One description a queue.
    pub(super) fn lines(&self, opened: &Opened) -> Vec<String> {
        match self {
            Self::Lines(lines) => lines.clone(),
            Self::Told(line) => vec![line.get().cloned().unwrap_or_default()],
            Self::Files(numbers) => numbers.iter().map(|fd| format!("fd={fd}")).collect(),
            Self::Named { script, down } => {
                let ifname = opened.ifname.as_deref().unwrap_or_default();
                // The scripts are those of the first queue.
                let line = |queue| match queue {
                    0 => cut(format!("ifname={ifname},script={script},downscript={down}")),
                    _ => format!("ifname={ifname},script=no,downscript=no"),
                };
                (0..opened.queues.len()).map(line).collect()
            }
        }
    }
}

/// Cuts a description where QEMU does, but never inside a character.
pub(super) fn cut(mut text: String) -> String {
    let mut end = text.len().min(INFO_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
