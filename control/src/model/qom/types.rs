//! The object types: parents and properties (QEMU `net/filter*.c`, `net/dump.c`, `chardev/`).

/// A property as `qom-list` and `qom-list-properties` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// The name of its type.
    pub kind: &'static str,
}

/// An object type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectType {
    /// Its name.
    pub name: &'static str,
    /// What it derives from.
    pub parent: Option<&'static str>,
    /// No object is of just this type.
    pub is_abstract: bool,
    /// Its properties beyond those of its parents.
    pub own: &'static [Property],
}

const fn property(name: &'static str, kind: &'static str) -> Property {
    Property { name, kind }
}

const fn concrete(name: &'static str, parent: &'static str, own: &'static [Property]) -> ObjectType {
    ObjectType { name, parent: Some(parent), is_abstract: false, own }
}

const fn base(name: &'static str, parent: Option<&'static str>, own: &'static [Property]) -> ObjectType {
    ObjectType { name, parent, is_abstract: true, own }
}

const STRING: &str = "string";
const VNET: Property = property("vnet_hdr_support", "bool");

/// Every type there is.
pub const TYPES: &[ObjectType] = &[
    base("interface", None, &[]),
    base("user-creatable", Some("interface"), &[]),
    base("object", None, &[property("type", STRING)]),
    concrete("container", "object", &[]),
    base("machine", Some("object"), &[]),
    concrete("none-machine", "machine", &[]),
    base("chardev", Some("object"), &[]),
    concrete("chardev-null", "chardev", &[]),
    concrete(
        "chardev-socket",
        "chardev",
        &[property("connected", "bool"), property("addr", "SocketAddress")],
    ),
    base("chardev-fd", Some("chardev"), &[]),
    concrete("chardev-stdio", "chardev-fd", &[]),
    base(
        "netfilter",
        Some("object"),
        &[
            property("queue", "NetFilterDirection"),
            property("netdev", STRING),
            property("insert", STRING),
            property("status", STRING),
            property("position", STRING),
        ],
    ),
    concrete("filter-dump", "netfilter", &[property("maxlen", "uint32"), property("file", STRING)]),
    concrete(
        "filter-match",
        "netfilter",
        &[
            property("match", STRING),
            property("action", "MatchAction"),
            property("file", STRING),
            property("maxlen", "uint32"),
            property("seen", "uint64"),
            property("matched", "uint64"),
        ],
    ),
    concrete("filter-buffer", "netfilter", &[property("interval", "uint32")]),
    concrete(
        "filter-limit",
        "netfilter",
        &[
            property("bps", "uint64"),
            property("fps", "uint64"),
            property("bps-burst", "uint64"),
            property("fps-burst", "uint64"),
            property("queue-limit", "uint64"),
        ],
    ),
    concrete("filter-mirror", "netfilter", &[property("outdev", STRING), VNET]),
    concrete(
        "filter-redirector",
        "netfilter",
        &[property("outdev", STRING), property("indev", STRING), VNET],
    ),
    concrete("filter-rewriter", "netfilter", &[VNET]),
    concrete("filter-replay", "netfilter", &[]),
    concrete(
        "colo-compare",
        "object",
        &[
            VNET,
            property("iothread", "link<iothread>"),
            property("compare_timeout", "uint64"),
            property("max_queue_size", "uint32"),
            property("notify_dev", STRING),
            property("outdev", STRING),
            property("expired_scan_cycle", "uint32"),
            property("primary_in", STRING),
            property("secondary_in", STRING),
        ],
    ),
    base(
        "event-loop-base",
        Some("object"),
        &[
            property("thread-pool-min", "int"),
            property("aio-max-batch", "int"),
            property("thread-pool-max", "int"),
        ],
    ),
    concrete(
        "iothread",
        "event-loop-base",
        &[property("poll-max-ns", "int"), property("poll-grow", "int"), property("poll-shrink", "int")],
    ),
];

/// The type of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static ObjectType> {
    TYPES.iter().find(|t| t.name == name)
}

impl ObjectType {
    /// Whether it is, or derives from, the type of that name; what `object-add` makes also
    /// implements `user-creatable`.
    #[must_use]
    pub fn implements(&self, name: &str) -> bool {
        let ancestor = self.parent.and_then(find).is_some_and(|parent| parent.implements(name));
        let creatable = matches!(self.name, "netfilter" | "colo-compare" | "event-loop-base")
            && find("user-creatable").is_some_and(|t| t.implements(name));
        self.name == name || ancestor || creatable
    }

    /// Its properties, the eldest parent's first.
    #[must_use]
    pub fn properties(&self) -> Vec<Property> {
        let mut all = self.parent.and_then(find).map(Self::properties).unwrap_or_default();
        all.extend_from_slice(self.own);
        all
    }
}
