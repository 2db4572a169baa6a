//! Help texts of the command line: `-netdev help`, `-netdev tap,help` and their like.

use super::Schema;
use super::types::{Kind, Member, TypeId};
use std::fmt::Write;

/// QEMU lists netdev types in this order; any others follow.
const NETDEV_ORDER: [&str; 12] = [
    "socket",
    "stream",
    "dgram",
    "hubport",
    "tap",
    "user",
    "l2tpv3",
    "vde",
    "bridge",
    "netmap",
    "af-xdp",
    "vhost-user",
];

impl Schema {
    /// The netdev types that `netdev_add` can be asked for, in QEMU's order of help.
    #[must_use]
    pub fn netdev_types(&self) -> Vec<&'static str> {
        let mut types: Vec<_> =
            self.values("NetClientDriver").filter(|t| !matches!(*t, "none" | "nic")).collect();
        types.sort_by_key(|t| NETDEV_ORDER.iter().position(|o| o == t).unwrap_or(NETDEV_ORDER.len()));
        types
    }

    /// The text of `-netdev help`, in QEMU's words.
    #[must_use]
    pub fn netdev_help(&self) -> String {
        self.netdev_types()
            .iter()
            .fold("Available netdev backend types:\n".to_owned(), |text, ty| text + ty + "\n")
    }

    /// The text of `help` for `Netdev`, `ObjectOptions` or `ChardevBackend`.
    #[must_use]
    pub fn list_help(&self, type_name: &str) -> Option<String> {
        let (title, values) = match type_name {
            "Netdev" => return Some(self.netdev_help()),
            "ObjectOptions" => ("List of user creatable objects:\n", "ObjectType"),
            "ChardevBackend" => ("Available chardev backend types: \n", "ChardevBackendKind"),
            _ => return None,
        };
        Some(self.values(values).fold(title.to_owned(), |text, value| text + "  " + value + "\n"))
    }

    /// The options of one netdev or object type, a line each.
    #[must_use]
    pub fn type_help(&self, type_name: &str, kind: &str) -> Option<String> {
        let variant = self.variant_named(self.type_named(type_name)?, kind)?;
        Some(self.options_help(kind, variant))
    }

    /// The members of an object type, a line each, as the options of `kind`.
    #[must_use]
    pub fn struct_help(&self, kind: &str, type_name: &str) -> Option<String> {
        Some(self.options_help(kind, self.type_named(type_name)?))
    }

    fn options_help(&self, kind: &str, id: TypeId) -> String {
        let mut text = format!("{kind}: {}\n\n{kind} options:\n", self.ty(id).words);
        for member in &self.object(id).members {
            let name = format!("{}=<{}>", member.name, self.type_words(member.ty));
            let _ = write!(text, "  {name:<30} {}", member.words);
            match member.marks.default {
                _ if !member.optional => text.push_str(" (mandatory)"),
                Some(default) => {
                    let _ = write!(text, " (default {default})");
                }
                None => {}
            }
            text.push('\n');
        }
        text
    }

    /// A type in words: `string`, `on|off`, `uint32`, `native|skb`, `list of string`.
    pub(crate) fn type_words(&self, id: TypeId) -> String {
        let ty = self.ty(id);
        match &ty.kind {
            Kind::Builtin(_) if ty.name == "str" => "string".to_owned(),
            Kind::Builtin(_) if ty.name == "bool" => "on|off".to_owned(),
            Kind::Enum(values) if values.len() < 8 => {
                values.iter().map(|v| v.name).collect::<Vec<_>>().join("|")
            }
            Kind::Builtin(_) | Kind::Enum(_) => ty.name.clone(),
            Kind::Array(element) => format!("list of {}", self.type_words(*element)),
            Kind::Object(_) if ty.name == "String" => "string".to_owned(),
            Kind::Object(_) => ty.name.clone(),
        }
    }

    /// Name of the tag of a union.
    #[must_use]
    pub fn tag(&self, id: TypeId) -> Option<&'static str> {
        let object = self.object(id);
        object.union.as_ref().map(|u| object.members[u.tag].name)
    }

    /// The type that adds members to a union for a value of its tag.
    #[must_use]
    pub fn variant_named(&self, id: TypeId, value: &str) -> Option<TypeId> {
        let object = self.object(id);
        let union = object.union.as_ref()?;
        let Kind::Enum(values) = &self.ty(object.members[union.tag].ty).kind else { return None };
        union.variants[values.iter().position(|v| v.name == value)?]
    }

    /// A member of a union whose tag has a value, or of a plain object.
    #[must_use]
    pub fn member(&self, id: TypeId, value: &str, name: &str) -> Option<&Member> {
        let variant =
            self.variant_named(id, value).map(|v| self.object(v).members.as_slice()).unwrap_or_default();
        self.object(id).members.iter().chain(variant).find(|m| m.name == name)
    }
}
