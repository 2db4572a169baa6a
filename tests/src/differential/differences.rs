//! The one table of intended differences from QEMU 10.0, each with its reason.

/// What netdevd does instead.
#[derive(Debug, Clone, Copy)]
pub enum Ours {
    /// The last command fails with a text that contains this.
    Refuses(&'static str),
    /// The last command succeeds.
    Accepts,
    /// The last reply contains this.
    Says(&'static str),
}

/// One intended difference; cases name it by `:differs NAME`.
#[derive(Debug)]
pub struct Difference {
    /// Its name in the cases.
    pub name: &'static str,
    /// Why it is meant.
    pub reason: &'static str,
    /// Whether the reference survives the case; where it aborts or hangs, only ours runs.
    pub reference_survives: bool,
    /// What ours does.
    pub ours: Ours,
}

/// Every intended difference in replies.
pub const TABLE: &[Difference] = &[
    Difference {
        name: "hubport-netdev-in-use",
        reason: "QEMU aborts when a hubport names a netdev that has a peer; an error is of more use",
        reference_survives: false,
        ours: Ours::Refuses("in use"),
    },
    Difference {
        name: "tap-queues-zero",
        reason: "QEMU 10.0 aborts on queues=0; ours says what 11.1 says",
        reference_survives: false,
        ours: Ours::Refuses("queues must be greater than zero"),
    },
    Difference {
        name: "tap-queues-beyond-int",
        reason: "QEMU 10.0 aborts on a number of queues beyond its int",
        reference_survives: false,
        ours: Ours::Refuses("could not configure /dev/net/tun"),
    },
    Difference {
        name: "tap-fds-empty",
        reason: "QEMU 10.0 aborts on fds=''; ours says what 11.1 says",
        reference_survives: false,
        ours: Ours::Refuses("no fds passed"),
    },
    Difference {
        name: "filter-multiqueue",
        reason: "QEMU refuses filters on several queues; ours sees all of them",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "helper-sends-nothing",
        reason: "QEMU 10.0 takes its standard input for the tap that the helper did not send, and closes it",
        reference_survives: false,
        ours: Ours::Refuses("the bridge helper sent none"),
    },
    Difference {
        name: "vde-schemes",
        reason: "libvdeplug loads a module for each kind of network; here only switches are joined",
        reference_survives: true,
        ours: Ours::Refuses("'null' is not a switch"),
    },
    Difference {
        name: "position-of-no-filter",
        reason: "QEMU aborts when position=id= names an object that is no filter",
        reference_survives: false,
        ours: Ours::Refuses("not found"),
    },
    Difference {
        name: "user-bootfile",
        reason: "QEMU aborts in libslirp when bootfile has 128 characters or more",
        reference_survives: false,
        ours: Ours::Refuses("bootfile"),
    },
    Difference {
        name: "vhost-user-blocks",
        reason: "QEMU's monitor hangs until the back-end of a vhost-user netdev has connected; ours never blocks",
        reference_survives: false,
        ours: Ours::Accepts,
    },
    Difference {
        name: "vhost-user-chardev-in-use",
        reason: "QEMU tells its standard error only that the chardev has a user",
        reference_survives: true,
        ours: Ours::Refuses("chardev 'compat_monitor0' is already in use"),
    },
    Difference {
        name: "version",
        reason: "the greeting and query-version name netdevd as the package, and a 10.0 micro version of our own choice",
        reference_survives: true,
        ours: Ours::Says("netdevd"),
    },
    Difference {
        name: "netdev-help",
        reason: "the list of types holds those that Debian leaves out",
        reference_survives: true,
        ours: Ours::Says("hubport\\r\\ntap\\r\\n"),
    },
    Difference {
        name: "infinite-number",
        reason: "QEMU writes a number beyond the range of doubles as `inf`, which is no JSON; ours writes the largest",
        reference_survives: true,
        ours: Ours::Says("1.7976931348623157e+308"),
    },
    Difference {
        name: "first-processor",
        reason: "qmp-shell -H names processor 0, which QEMU without a machine has not",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "doubled-comma-before-id",
        reason: "QEMU looks for the id in a first pass that does not know doubled commas",
        reference_survives: true,
        ours: Ours::Says("Parameter 'id' is missing"),
    },
    Difference {
        name: "fds-names-first",
        reason: "all names of a list are looked up before the first file is touched",
        reference_survives: true,
        ours: Ours::Refuses("File descriptor named 'nope' has not been found"),
    },
    Difference {
        name: "cli-duplicate-id",
        reason: "on the command line QEMU's option parser refuses a second id in words of its own",
        reference_survives: true,
        ours: Ours::Refuses("Duplicate ID 'x'"),
    },
    Difference {
        name: "passt-is-built",
        reason: "Debian's QEMU 10.0 lacks passt; ours has it, with the words of a QEMU that has",
        reference_survives: true,
        ours: Ours::Refuses("Error creating daemon: Failed to execute child process"),
    },
    Difference {
        name: "netmap-is-built",
        reason: "Debian's QEMU 10.0 lacks netmap; ours has it, with the words of a QEMU that has",
        reference_survives: true,
        ours: Ours::Refuses("Failed to nm_open() vale0:1: No such file or directory"),
    },
    Difference {
        name: "af-xdp-is-built",
        reason: "Debian's QEMU 10.0 lacks af-xdp; ours has it, with the words of a QEMU that has",
        reference_survives: true,
        ours: Ours::Refuses("failed to get ifindex for 'nosuch0': No such device"),
    },
    Difference {
        name: "switchport",
        reason: "learning switches are an extension; QEMU has hubs only",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "vxlan",
        reason: "VXLAN is an extension; QEMU has L2TPv3 only",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "nic-is-built",
        reason: "QEMU's nics come from -nic and device_add; here netdev_add makes one too, which needs a socket for its guest's VMM",
        reference_survives: true,
        ours: Ours::Says("Parameter 'addr' is missing"),
    },
    Difference {
        name: "nic-listens",
        reason: "netdev_add type=nic makes a nic that listens for a VMM",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "device-needs-a-chardev",
        reason: "QEMU without a machine has no bus for a nic; ours needs none, but a chardev where the guest's VMM connects",
        reference_survives: true,
        ours: Ours::Says("Parameter 'chardev' is missing"),
    },
    Difference {
        name: "device-needs-no-machine",
        reason: "the guest is a VMM's, behind the chardev",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "nic-set-netdev",
        reason: "QEMU cannot give a nic another netdev; its users have to restart the guest",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "dgram-info-hosts",
        reason: "QEMU writes the local host of a dgram netdev in both places",
        reference_survives: true,
        ours: Ours::Says("udp=0.0.0.0:7314/127.0.0.1:7315"),
    },
    Difference {
        name: "query-netdev",
        reason: "reading netdevs back is an extension; QEMU has no such command",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "query-net-stats",
        reason: "per-port counters are an extension; QEMU has no such command",
        reference_survives: true,
        ours: Ours::Accepts,
    },
    Difference {
        name: "colo-same-chardev",
        reason: "QEMU 10.0 aborts on every colo-compare that cannot be made; ours says why",
        reference_survives: false,
        ours: Ours::Refuses("could not be same for compare module"),
    },
    Difference {
        name: "colo-no-chardev",
        reason: "QEMU 10.0 aborts on every colo-compare that cannot be made; ours says why",
        reference_survives: false,
        ours: Ours::Refuses("Device 'a' not found"),
    },
    Difference {
        name: "colo-not-reconnectable",
        reason: "QEMU 10.0 aborts on every colo-compare that cannot be made; ours says why",
        reference_survives: false,
        ours: Ours::Refuses("is not reconnectable"),
    },
    Difference {
        name: "colo-in-use",
        reason: "QEMU 10.0 aborts on every colo-compare that cannot be made; ours says why",
        reference_survives: false,
        ours: Ours::Refuses("chardev 'a' is already in use"),
    },
    Difference {
        name: "colo-no-thread",
        reason: "QEMU 10.0 aborts on every colo-compare that cannot be made; ours says why",
        reference_survives: false,
        ours: Ours::Refuses("Device 't' not found"),
    },
    Difference {
        name: "colo-no-timeout",
        reason: "QEMU 10.0 aborts on every colo-compare that cannot be made; ours says why",
        reference_survives: false,
        ours: Ours::Refuses("requires a positive value"),
    },
];

/// Commands of ours that QEMU does not have, with the reason.
pub const EXTRA_COMMANDS: &[(&str, &str)] = &[
    ("nic-set-netdev", "another netdev for a nic whose guest runs"),
    ("qom-list-get", "in QEMU since 10.1: properties with their values in one go"),
    ("query-netdev", "every netdev and nic with options, peer, link state, transport and filters"),
    ("query-net-stats", "counters of workers and ports"),
    ("query-net-stats-reset", "zeroes those counters"),
    ("query-filter", "filters with their counters"),
    ("query-colo-compare", "colo-compare objects with their counters"),
    ("query-netdev-user", "user netdevs with their forwards and connections"),
    ("netdev-user-forward-add", "a forward of a user netdev, IPv6 and unix sockets too"),
    ("netdev-user-forward-remove", "ends one"),
    ("query-switch", "learning switches with their ports, VLANs and stations"),
];

/// Commands that clients of a network daemon rely on, all of which ours must have.
pub const COMMANDS: &[&str] = &[
    "add-fd",
    "announce-self",
    "chardev-add",
    "chardev-remove",
    "closefd",
    "device_add",
    "device_del",
    "getfd",
    "human-monitor-command",
    "netdev_add",
    "netdev_del",
    "object-add",
    "object-del",
    "qmp_capabilities",
    "qom-get",
    "qom-list",
    "qom-list-properties",
    "qom-list-types",
    "qom-set",
    "query-chardev",
    "query-commands",
    "query-fdsets",
    "query-name",
    "query-qmp-schema",
    "query-rx-filter",
    "query-status",
    "query-version",
    "quit",
    "remove-fd",
    "set_link",
];

/// Places in the schema (`command.member...`, a prefix) where the two may have different members, with the reason.
pub const SCHEMA: &[(&str, &str)] = &[
    ("chardev-add.backend", "netdevd has the chardev backends that carry QMP, frames and vhost-user only"),
    (
        "object-add",
        "netdevd has the network filters and what they use; QEMU's other objects belong to a machine",
    ),
    (
        "netdev_add",
        "types that Debian leaves out, and members that are extensions (initial link, hub backlog)",
    ),
];
