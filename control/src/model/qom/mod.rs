//! The object tree as `qom-*` commands see it: `/objects` (filters), `/chardevs`, `/machine`, `/backend`.
//!
//! QEMU's tree holds devices and memory too; here only what this daemon has, with the same names, types and errors
//! (QEMU `qom/object.c`, `qom/qom-qmp-cmds.c`).

pub mod property;
pub mod types;

use super::{Filter, Net, Plain};
use serde_json::Value;

/// A chardev as the tree shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChardevNode {
    /// Its id.
    pub name: String,
    /// Its object type, for example `chardev-socket`.
    pub driver: &'static str,
    /// Sockets only: whether somebody is connected.
    pub connected: Option<bool>,
    /// Sockets only: the address, as a `SocketAddress`.
    pub addr: Option<Value>,
}

/// The tree at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// Filters come from here.
    pub net: &'a Net,
    /// All chardevs.
    pub chardevs: &'a [ChardevNode],
}

/// One object of the tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node<'a> {
    /// A branch that is always there.
    Branch(&'static Branch),
    /// A filter, in `/objects`.
    Filter(&'a Filter),
    /// Another object, in `/objects`.
    Plain(&'a Plain),
    /// A chardev, in `/chardevs`.
    Chardev(&'a ChardevNode),
}

/// A branch that is always there.
#[derive(Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its path.
    pub path: &'static str,
    /// Its object type.
    pub driver: &'static str,
}

const BRANCHES: [Branch; 8] = [
    Branch { path: "/", driver: "container" },
    Branch { path: "/backend", driver: "container" },
    Branch { path: "/machine", driver: "none-machine" },
    Branch { path: "/machine/peripheral-anon", driver: "container" },
    Branch { path: "/machine/peripheral", driver: "container" },
    Branch { path: "/machine/unattached", driver: "container" },
    Branch { path: "/objects", driver: "container" },
    Branch { path: "/chardevs", driver: "container" },
];

/// Why a path names no one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    /// Nothing there.
    Missing,
    /// A partial path that fits several objects.
    Ambiguous,
}

impl<'a> Node<'a> {
    /// Its object type.
    #[must_use]
    pub const fn driver(&self) -> &'static str {
        match self {
            Self::Branch(branch) => branch.driver,
            Self::Filter(filter) => filter.driver,
            Self::Plain(object) => object.driver,
            Self::Chardev(chardev) => chardev.driver,
        }
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Branch(branch) => branch.path.to_owned(),
            Self::Filter(filter) => format!("/objects/{}", filter.name),
            Self::Plain(object) => format!("/objects/{}", object.name),
            Self::Chardev(chardev) => format!("/chardevs/{}", chardev.name),
        }
    }

    /// Whether its path ends with these components, or is just these when `whole`.
    fn fits(&self, parts: &[&str], whole: bool) -> bool {
        let (branch, leaf) = match self {
            Self::Branch(branch) => (branch.path, None),
            Self::Filter(filter) => ("/objects", Some(filter.name.as_str())),
            Self::Plain(object) => ("/objects", Some(object.name.as_str())),
            Self::Chardev(chardev) => ("/chardevs", Some(chardev.name.as_str())),
        };
        let mut own: [&str; 4] = [""; 4];
        let mut len = 0;
        for part in branch.split('/').filter(|p| !p.is_empty()).chain(leaf) {
            own[len] = part;
            len += 1;
        }
        let own = &own[..len];
        if whole { own == parts } else { own.ends_with(parts) }
    }
}

impl<'a> Tree<'a> {
    /// All objects, branches first.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        let filters = self.net.filters().map(Node::Filter);
        let plains = self.net.plains().map(Node::Plain);
        BRANCHES
            .iter()
            .map(Node::Branch)
            .chain(filters)
            .chain(plains)
            .chain(self.chardevs.iter().map(Node::Chardev))
    }

    /// The object at an absolute path, or the only one whose path ends with a partial one.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn resolve(&self, path: &str) -> Result<Node<'a>, Unresolved> {
        let whole = path.starts_with('/');
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let mut found = self.nodes().filter(|node| node.fits(&parts, whole));
        match (found.next(), found.next()) {
            (None, _) => Err(Unresolved::Missing),
            (Some(node), None) => Ok(node),
            (Some(_), Some(_)) => Err(Unresolved::Ambiguous),
        }
    }

    /// The objects just below a branch.
    pub fn children(&self, node: Node<'a>) -> Vec<(String, Node<'a>)> {
        let Node::Branch(branch) = node else { return Vec::new() };
        let prefix = if branch.path == "/" { "/".to_owned() } else { format!("{}/", branch.path) };
        let below = |other: Node<'a>| {
            let path = other.path();
            let name = path.strip_prefix(&prefix)?.to_owned();
            let direct = match other {
                Node::Branch(_) => !name.is_empty() && !name.contains('/'),
                Node::Filter(_) | Node::Plain(_) | Node::Chardev(_) => branch.path != "/",
            };
            direct.then_some((name, other))
        };
        self.nodes().filter_map(below).collect()
    }
}
