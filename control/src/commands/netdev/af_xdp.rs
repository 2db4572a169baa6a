//! What the options of `af-xdp` mean together (QEMU 10.1 `net_init_af_xdp`).

use super::Opening;
use super::tap::Info;
use crate::commands::args::Args;
use crate::commands::fd::Fds;
use crate::qmp::error::QmpError;
use engine::backend::af_xdp::{AfXdpOptions, Filter, Given, XdpMode, link};
use serde_json::{Map, Value};

/// Queues that the kernel can have at an interface (`MAX_QUEUES` of no driver is larger).
const QUEUES: i64 = 4096;

/// Checks which options may stand together, in QEMU's order and words, and says what to open. Workers are not chosen yet: there is one entry a queue.
pub(super) fn options(
    args: &Map<String, Value>,
    fds: &mut Fds,
    monitor: u64,
) -> Result<AfXdpOptions, QmpError> {
    let refuse = |desc: String| Err(QmpError::generic(desc));
    let ifname = args.text("ifname");
    if let Err(errno) = link(ifname) {
        let why = crate::apply::backends::strerror(&errno.into());
        return refuse(format!("failed to get ifindex for '{ifname}': {why}"));
    }
    let (queues, start) = (args.int("queues").unwrap_or(1), args.int("start-queue").unwrap_or(0).max(0));
    if !(1..=QUEUES).contains(&queues) {
        return refuse(format!("invalid number of queues ({queues}) for '{ifname}'"));
    }
    let (inhibit, sockets, map) =
        (args.flag("inhibit") == Some(true), args.maybe("sock-fds"), args.maybe("map-path"));
    if inhibit && sockets.is_none() && map.is_none() {
        return refuse("'inhibit=on' requires 'sock-fds' or 'map-path'".into());
    }
    if !inhibit && (sockets.is_some() || map.is_some()) {
        return refuse("'sock-fds' and 'map-path' require 'inhibit=on'".into());
    }
    if sockets.is_some() && map.is_some() {
        return refuse("'sock-fds' and 'map-path' are mutually exclusive".into());
    }
    let first = args.int("map-start-index");
    if map.is_none() && first.is_some() {
        return refuse("'map-start-index' requires 'map-path'".into());
    }
    let first = first.unwrap_or(0);
    if first < 0 {
        return refuse(format!("'map-start-index' cannot be negative ({first})"));
    }
    let only = filter(args)?;
    if inhibit && only != Filter::default() {
        return refuse("'only-mac', 'only-ethertype' and 'only-vlan' are invalid with 'inhibit=on'".into());
    }
    let given = match (sockets, map) {
        (Some(list), _) => Some(Given::Sockets(named(list, queues, args, fds, monitor)?)),
        (None, Some(path)) => Some(Given::Map(path.into(), first as u32)),
        (None, None) => None,
    };
    Ok(AfXdpOptions {
        ifname: ifname.to_owned(),
        mode: match args.maybe("mode") {
            Some("native") => Some(XdpMode::Native),
            Some(_) => Some(XdpMode::Generic),
            None => None,
        },
        force_copy: args.flag("force-copy") == Some(true),
        start_queue: u32::try_from(start).unwrap_or(u32::MAX),
        workers: vec![0; queues as usize],
        given,
        only,
        busy_poll: false,
    })
}

/// Sockets by number or by their names from `getfd`.
fn named(
    list: &str,
    queues: i64,
    args: &Map<String, Value>,
    fds: &mut Fds,
    monitor: u64,
) -> Result<Vec<std::os::fd::OwnedFd>, QmpError> {
    let names: Vec<&str> = list.split(':').filter(|_| !list.is_empty()).collect();
    if names.len() as i64 != queues {
        return Err(QmpError::generic(format!("expected {queues} socket fds, got {}", names.len())));
    }
    names.into_iter().map(|name| Ok(fds.named_or_numbered(monitor, args.text("id"), name)?.0)).collect()
}

/// The extension by which the kernel keeps what is not for us.
fn filter(args: &Map<String, Value>) -> Result<Filter, QmpError> {
    let mac = match args.maybe("only-mac") {
        Some(text) => Some(crate::commands::nic::mac(text, false).ok_or_else(|| {
            QmpError::generic("Parameter 'only-mac' expects a hardware address, such as 52:54:00:12:34:56")
        })?),
        None => None,
    };
    let small = |name: &str, most: u64| match args.uint(name) {
        Some(n) if n > most => {
            Err(QmpError::generic(format!("Parameter '{name}' expects a value of at most {most}")))
        }
        n => Ok(n.map(|n| n as u16)),
    };
    Ok(Filter { mac, ethertype: small("only-ethertype", 0xffff)?, vlan: small("only-vlan", 4094)? })
}

/// What to remember while it opens.
pub(super) fn opening(args: Map<String, Value>, options: &AfXdpOptions) -> Opening {
    let line = |queue| format!("af-xdp{queue} to {}", options.ifname);
    Opening {
        info: Info::Lines((0..options.workers.len()).map(line).collect()),
        workers: options.workers.clone(),
        again: options.again(),
        ..Opening::new("af-xdp", args)
    }
}
