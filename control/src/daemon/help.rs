//! `-help` and `-version`.

/// Options that take an argument: name, argument, what it does.
const OPTIONS: [(&str, &str, &str); 17] = [
    (
        "netdev",
        "TYPE,id=ID[,...]",
        "makes a netdev, or a port of a hub or switch; '-netdev help' lists the types",
    ),
    ("object", "TYPE,id=ID,netdev=ID[,...]", "makes an object, for example a filter-dump on a netdev"),
    ("chardev", "socket|null,id=ID[,...]", "makes a character device"),
    ("mon", "chardev=ID,mode=control[,pretty=on]", "puts a QMP monitor on a character device"),
    ("qmp", "unix:PATH,server=on,wait=off", "a QMP monitor in one option; also tcp:HOST:PORT,... and stdio"),
    ("qmp-pretty", "as -qmp", "the same, with replies in several lines"),
    (
        "device",
        "virtio-net-pci,chardev=ID,netdev=ID[,...]",
        "makes a nic; '-device virtio-net-pci,help' lists its properties",
    ),
    ("nic", "...", "not built: use -netdev and -device, or -netdev nic"),
    ("cores", "LIST", "one worker on each core, pinned, for example 2,3; without it one worker, not pinned"),
    ("idle", "adaptive|poll", "idle workers sleep after a while (adaptive, the default), or never (poll)"),
    ("io", "auto|batched", "io_uring where the kernel has it (auto, the default), or plain system calls"),
    ("config", "FILE", "runs QMP commands from a file, a JSON object a line"),
    ("pidfile", "FILE", "writes the process id, and removes the file at the end"),
    ("metrics", "unix:PATH|tcp:HOST:PORT", "serves the counters as OpenMetrics text over HTTP"),
    ("logfile", "FILE", "logs to a file (also -D); SIGHUP opens it anew"),
    ("name", "TEXT", "a name for logs"),
    ("sandbox", "on|off", "not built yet: 'on' is refused"),
];

/// Whether there is an option of that name that takes an argument.
pub(super) fn knows(name: &str) -> bool {
    name == "D" || OPTIONS.iter().any(|(option, ..)| *option == name)
}

/// The text of `-version`.
pub(super) fn version() -> String {
    format!("netdevd version {} (QMP of QEMU 10.0)\n", env!("CARGO_PKG_VERSION"))
}

/// The text of `-help`.
pub(super) fn text() -> String {
    let mut text = version();
    text.push_str(
        "usage: netdevd [options]\n\n\
         QEMU's network layer as a daemon: netdevs, hubs, switches and filters on polling cores, over QMP.\n\
         Options are spelled as QEMU spells them, with one dash or two; arguments are key=value pairs\n\
         (',,' is a comma) or a JSON object.\n\n",
    );
    for (name, argument, what) in OPTIONS {
        text.push_str(&format!("  -{name} {argument}\n        {what}\n"));
    }
    text.push_str(
        "  -daemonize\n        goes to the background; the command ends when the daemon is ready\n  \
         -version, -help\n\n\
         Example: two taps on a hub, on core 2:\n  \
         netdevd -cores 2 -qmp unix:/run/netdevd/qmp.sock,server=on,wait=off \\\n    \
         -netdev tap,id=t0,ifname=tap0,script=no,downscript=no \\\n    \
         -netdev tap,id=t1,ifname=tap1,script=no,downscript=no \\\n    \
         -netdev hubport,id=h0,hubid=0,netdev=t0 -netdev hubport,id=h1,hubid=0,netdev=t1\n\n\
         SIGTERM and SIGINT end it, SIGHUP opens the log file anew. netdevctl is the client.\n\
         Every netdev type and command is described in docs/reference.md.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn help_fits_a_hundred_columns_and_names_every_option() {
        let text = super::text();
        assert!(text.lines().all(|line| line.chars().count() <= 100));
        for (name, ..) in super::OPTIONS {
            assert!(text.contains(&format!("-{name} ")), "{name}");
        }
    }
}
