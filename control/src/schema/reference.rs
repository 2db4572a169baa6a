//! The reference page, `docs/reference.md`, generated from the schema.

use super::Schema;
use super::types::{Kind, Marks, Object, Type, TypeId};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The page as markdown.
#[must_use]
pub fn page(schema: &Schema) -> String {
    let mut page = Page { schema, out: String::new(), later: BTreeSet::new() };
    page.out.push_str(HEAD);
    page.union("Netdevs", "Netdev", "netdev_add", "-netdev");
    page.union("Objects", "ObjectOptions", "object-add", "-object");
    page.devices();
    page.chardevs();
    page.commands();
    page.events();
    page.types();
    page.out
}

const HEAD: &str = "# Reference

Generated from `control/qapi/`; do not edit. After a change there run
`NETDEVD_UPDATE=1 cargo test -p control reference`.

Every command, event and option, with its JSON type. On command lines `bool` is `on` or `off`, `size` takes a suffix
(K, M, G, T), a list is the option given several times. Mandatory options are in bold. Options and commands that QEMU
10.0 does not have are marked with where they come from.
";

struct Page<'s> {
    schema: &'s Schema,
    out: String,
    /// Types that tables name and that have an entry of their own at the end.
    later: BTreeSet<&'s str>,
}

impl<'s> Page<'s> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A section with one entry a value of a union's tag.
    fn union(&mut self, title: &str, type_name: &str, command: &str, option: &str) {
        let Some(id) = self.schema.type_named(type_name) else { return };
        let object = self.schema.object(id);
        self.line(&format!("\n## {title}\n\nMade by `{command}` or `{option}`. Common to all:\n"));
        self.table(object);
        let Some(union) = &object.union else { return };
        let Kind::Enum(values) = &self.schema.ty(object.members[union.tag].ty).kind else { return };
        for (value, variant) in values.iter().zip(&union.variants) {
            let Some(variant) = *variant else { continue };
            let ty = self.schema.ty(variant);
            self.line(&format!("\n### {}{}\n\n{}\n", value.name, origin(&value.marks), ty.words));
            self.table(self.schema.object(variant));
        }
    }

    /// The one device there is, and its properties.
    fn devices(&mut self) {
        let Some(id) = self.schema.type_named("VirtioNetProperties") else { return };
        let ty = self.schema.ty(id);
        let head = "Made by `device_add` or `-device`, with `driver`, `id` and these properties.";
        self.line(&format!("\n## Devices\n\n{head}\n\n### virtio-net-pci\n\n{}\n", ty.words));
        self.table(self.schema.object(id));
    }

    /// Chardevs have their options one level down, below `data`.
    fn chardevs(&mut self) {
        self.line("\n## Chardevs\n\nMade by `chardev-add` (options below `backend.data`) or `-chardev`.");
        for kind in self.schema.values("ChardevBackendKind") {
            let id =
                self.schema.type_named("ChardevBackend").and_then(|id| self.schema.variant_named(id, kind));
            let data = id.and_then(|id| self.schema.object(id).members.first());
            let Some(data) = data else { continue };
            let ty = self.schema.ty(data.ty);
            self.line(&format!(
                "\n### {kind}\n\n{}\n",
                if ty.words.is_empty() { "Swallows everything." } else { &ty.words }
            ));
            self.table(self.schema.object(data.ty));
        }
    }

    fn commands(&mut self) {
        self.line("\n## Commands");
        let schema = self.schema;
        let mut all: Vec<_> = schema.commands().collect();
        all.sort_by_key(|c| c.name);
        for c in all {
            self.line(&format!("\n### {}{}\n\n{}", c.name, origin(&c.marks), c.words));
            self.members(c.args, "Arguments");
            if schema.ty(c.returns).name != "empty" {
                let returns = self.named(c.returns);
                self.line(&format!("\nReturns {returns}."));
            }
        }
    }

    fn events(&mut self) {
        self.line("\n## Events");
        let schema = self.schema;
        let mut all: Vec<_> = schema.events().collect();
        all.sort_by_key(|e| e.name);
        for e in all {
            self.line(&format!("\n### {}{}\n\n{}", e.name, origin(&e.marks), e.words));
            self.members(e.data, "Data");
        }
    }

    /// Members of arguments or data: a table, or the section where they are.
    fn members(&mut self, id: TypeId, title: &str) {
        let schema = self.schema;
        let ty = schema.ty(id);
        if ty.name == "empty" {
            return;
        }
        match ty.name.as_str() {
            "Netdev" => return self.line(&format!("\n{title}: see [Netdevs](#netdevs).")),
            "ObjectOptions" => return self.line(&format!("\n{title}: see [Objects](#objects).")),
            _ => {}
        }
        self.line("");
        self.table(schema.object(id));
    }

    /// Types named so far, and those that they name.
    fn types(&mut self) {
        self.line("\n## Types");
        let mut done: BTreeSet<&str> = BTreeSet::from(["Netdev", "ObjectOptions", "ChardevBackend"]);
        while let Some(name) = self.later.iter().find(|name| !done.contains(*name)).copied() {
            done.insert(name);
            if let Some(id) = self.schema.type_named(name) {
                self.ty(self.schema.ty(id));
            }
        }
    }

    fn ty(&mut self, ty: &'s Type) {
        self.line(&format!("\n### {}{}\n\n{}\n", ty.name, origin(&ty.marks), ty.words));
        match &ty.kind {
            Kind::Enum(values) => {
                for v in values {
                    let words = if v.words.is_empty() { String::new() } else { format!(": {}", v.words) };
                    self.line(&format!("- `{}`{}{words}", v.name, origin(&v.marks)));
                }
            }
            Kind::Object(object) => {
                self.table(object);
                self.variants(object);
            }
            Kind::Builtin(_) | Kind::Array(_) => {}
        }
    }

    fn variants(&mut self, object: &'s Object) {
        let Some(union) = &object.union else { return };
        let tag = &object.members[union.tag];
        let Kind::Enum(values) = &self.schema.ty(tag.ty).kind else { return };
        self.line("");
        if union.variants.iter().flatten().any(|v| self.schema.ty(*v).name.starts_with("Netdev")) {
            return self.line("With the options of that kind of [netdev](#netdevs).");
        }
        for (value, variant) in values.iter().zip(&union.variants) {
            if let Some(variant) = *variant {
                let named = self.named(variant);
                self.line(&format!("- With `{}` `{}`: the members of {named}.", tag.name, value.name));
            }
        }
    }

    fn table(&mut self, object: &'s Object) {
        if object.members.is_empty() {
            return self.line("No members.");
        }
        self.line("| name | type | default | |");
        self.line("| --- | --- | --- | --- |");
        for m in &object.members {
            let name = if m.optional { m.name.to_owned() } else { format!("**{}**", m.name) };
            let ty = self.named(m.ty);
            let default = m.marks.default.unwrap_or_default();
            let mut words = m.words.replace('|', "\\|");
            for feature in &m.marks.features {
                let _ = write!(words, " *{feature}*");
            }
            self.line(&format!("| {name}{} | {ty} | {default} | {words} |", origin(&m.marks)));
        }
    }

    /// A type as a table shows it; types with an entry are linked.
    fn named(&mut self, id: TypeId) -> String {
        let ty = self.schema.ty(id);
        match &ty.kind {
            Kind::Builtin(_) => ty.name.clone(),
            Kind::Array(element) => format!("list of {}", self.named(*element)),
            Kind::Enum(_) | Kind::Object(_) => {
                self.later.insert(&ty.name);
                format!("[{}](#{})", ty.name, ty.name.to_lowercase())
            }
        }
    }
}

/// Where something comes from that not every QEMU 10.0 has.
fn origin(marks: &Marks) -> String {
    match marks.origin {
        None => String::new(),
        Some("netdevd") => " (netdevd)".to_owned(),
        Some("build") => " (not in every build of QEMU)".to_owned(),
        Some(release) => format!(" (QEMU {release})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn reference_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
        let page = page(Schema::get());
        if std::env::var_os("NETDEVD_UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "run `NETDEVD_UPDATE=1 cargo test -p control reference`");
    }
}
