//! Help: how netdevctl is called, and what the schema says of commands.

use super::Failure;
use super::layout::wrap;
use crate::schema::Schema;
use crate::schema::types::{Command, Kind, Marks, Member, Object, TypeId};
use std::collections::VecDeque;

/// Help without a command.
pub(super) const USAGE: &str = "\
Usage: netdevctl [OPTION]... COMMAND [KEY=VALUE]... [-- COMMAND ...]...
       netdevctl [OPTION]... stats | events | commands | help

Talks to netdevd, or to anything else that speaks QMP.

Commands go to the daemon, several of them on one connection:
  COMMAND [KEY=VALUE]...  a QMP command; dots reach inside: addr.type=inet
  COMMAND '{JSON}'        the same with its arguments as JSON
  '{JSON}'                a whole QMP message
  hmp LINE                a line of the human monitor: hmp info network

And of its own:
  stats             counters: workers (shares of their time awake), ports, drops
  stats -w [SECS]   rates by the second, again and again (every second)
  events            events as they come
  commands          the commands, a line each
  help COMMAND      arguments of a command
  help netdev_add TYPE
                    options of one type of netdev (object-add and others too)

Options:
  -s, --socket ADDR   the daemon: PATH, unix:PATH or tcp:HOST:PORT; without it
                      $NETDEVD_QMP, else /run/netdevd/qmp.sock
  -j, --json          JSON instead of tables, a value a line
      --fd N          sends open file N along with this command (getfd, add-fd)
  -n, --count N       stats -w and events: end after N
  -h, --help          this text
  -V, --version       the version

Exit status: 0 done, 1 the daemon answered with an error, 2 wrong usage or no
connection.

Examples:
  netdevctl netdev_add type=tap id=t0 ifname=tap0 script=no downscript=no
  netdevctl netdev_add type=hubport id=h0 hubid=0 netdev=t0
  netdevctl object-add qom-type=filter-dump id=d0 netdev=t0 file=/tmp/t0.pcap
  netdevctl set_link name=t0 up=off
  netdevctl --fd 3 getfd fdname=f -- netdev_add type=tap id=t1 fd=f 3<>FILE
";

/// Characters a line: help fits every terminal.
const WIDTH: usize = 80;
/// Where the words of a member begin.
const WORDS: usize = 26;

/// The commands, a line each, cut to `columns`.
pub(super) fn commands(columns: Option<usize>) -> String {
    let mut all: Vec<_> = Schema::get().commands().collect();
    all.sort_by_key(|command| command.name);
    let width = all.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(width + 2));
    let line = |command: &&Command| {
        let sentence = command.words.split_inclusive(". ").next().unwrap_or_default().trim_end();
        let sentence = match sentence.chars().count() > room {
            true => sentence.chars().take(room.saturating_sub(3)).collect::<String>() + "...",
            false => sentence.to_owned(),
        };
        format!("{:width$}  {sentence}\n", command.name)
    };
    all.iter().map(line).collect()
}

/// The arguments of a command; with a kind, those of one netdev, object or chardev type.
///
/// # Errors
/// [`Failure::Usage`]: no such command or kind.
pub(super) fn command(name: &str, kind: Option<&str>) -> Result<String, Failure> {
    let schema = Schema::get();
    let unknown = || Failure::Usage(format!("no command '{name}'; netdevctl commands lists them"));
    let command = schema.command(name).ok_or_else(unknown)?;
    let mut page = Page { schema, text: String::new(), later: VecDeque::new(), named: Vec::new() };
    page.text = wrap(&format!("{name}{}: {}", origin(&command.marks), command.words), 2, WIDTH - 2) + "\n";
    match kind {
        Some(kind) => page.kind(command.name, command.args, kind)?,
        None => page.arguments(command.name, command.args),
    }
    page.types();
    Ok(page.text)
}

/// A text that grows; types that it names follow at its end.
struct Page<'s> {
    schema: &'s Schema,
    text: String,
    later: VecDeque<TypeId>,
    named: Vec<TypeId>,
}

impl<'s> Page<'s> {
    fn object(&self, id: TypeId) -> Option<&'s Object> {
        match &self.schema.ty(id).kind {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    fn arguments(&mut self, name: &str, id: TypeId) {
        let Some(object) = self.object(id).filter(|object| !object.members.is_empty()) else {
            self.text.push_str("\nNo arguments.\n");
            return;
        };
        self.text.push_str("\nArguments, optional ones in brackets:\n");
        self.members(0, object);
        let kinds: Vec<_> = self.branches(object).collect();
        if let (Some(tag), false) = (self.schema.tag(id), kinds.is_empty()) {
            self.text.push_str(&format!("\nFurther arguments depend on {tag}: netdevctl help {name} TYPE\n"));
            for (kind, variant) in kinds {
                self.text.push_str(&entry(kind, &self.schema.ty(variant).words));
            }
        }
    }

    /// What one branch of a union adds.
    fn kind(&mut self, name: &str, id: TypeId, kind: &str) -> Result<(), Failure> {
        let unknown =
            || Failure::Usage(format!("{name} has no type '{kind}'; netdevctl help {name} lists them"));
        let variant = self.schema.variant_named(id, kind).ok_or_else(unknown)?;
        let words = &self.schema.ty(variant).words;
        self.text.push_str(&format!("\n{}\n", wrap(&format!("{kind}: {words}"), 2, WIDTH - 2)));
        self.text.push_str("\nArguments, optional ones in brackets:\n");
        let tag = self.schema.tag(id);
        for member in self.object(id).into_iter().flat_map(|object| &object.members) {
            let written = match tag == Some(member.name) {
                true => format!("{}={kind}", member.name),
                false => self.written(member.name, member.ty),
            };
            self.member(0, &written, member);
        }
        if let Some(object) = self.object(variant) {
            self.members(0, object);
        }
        Ok(())
    }

    /// The values of a union's tag that add members.
    fn branches(&self, object: &'s Object) -> impl Iterator<Item = (&'static str, TypeId)> + use<'s> {
        let schema = self.schema;
        object.union.iter().flat_map(move |union| {
            let values = match &schema.ty(object.members[union.tag].ty).kind {
                Kind::Enum(values) => values.as_slice(),
                _ => &[],
            };
            values.iter().zip(&union.variants).filter_map(|(value, variant)| Some((value.name, (*variant)?)))
        })
    }

    fn members(&mut self, indent: usize, object: &'s Object) {
        for member in &object.members {
            let written = self.written(member.name, member.ty);
            self.member(indent, &written, member);
        }
    }

    fn member(&mut self, indent: usize, written: &str, member: &Member) {
        let written = if member.optional { format!("[{written}]") } else { written.to_owned() };
        let mut words = member.words.to_owned() + &origin(&member.marks);
        if let Some(default) = member.marks.default {
            let default = match default {
                "true" => "on",
                "false" => "off",
                other => other,
            };
            words.push_str(&format!(" Default: {default}."));
        }
        let written = format!("{:indent$}{written}", "");
        self.text.push_str(&entry(&written, &words));
    }

    /// A member as it is typed: `queues=uint32`, `hostfwd.N.str=string`, `addr.*=SocketAddress`.
    fn written(&mut self, name: &str, id: TypeId) -> String {
        let ty = self.schema.ty(id);
        match &ty.kind {
            Kind::Array(element) => self.written(&format!("{name}.N"), *element),
            Kind::Object(_) if ty.name == "String" => format!("{name}.str=string"),
            Kind::Object(_) => {
                self.name(id);
                format!("{name}.*={}", ty.name)
            }
            Kind::Builtin(_) | Kind::Enum(_) => {
                let words = self.schema.type_words(id);
                // A long choice is told below, like one that has no words of its own.
                if matches!(ty.kind, Kind::Enum(_)) && (words == ty.name || words.len() > 40) {
                    self.name(id);
                    return format!("{name}={}", ty.name);
                }
                format!("{name}={words}")
            }
        }
    }

    /// Notes a type that the page explains later.
    fn name(&mut self, id: TypeId) {
        if !self.named.contains(&id) {
            self.named.push(id);
            self.later.push_back(id);
        }
    }

    fn types(&mut self) {
        while let Some(id) = self.later.pop_front() {
            let ty = self.schema.ty(id);
            let head = format!("{}: {}", ty.name, ty.words);
            self.text.push_str(&format!("\n{}\n", wrap(head.trim_end(), 2, WIDTH - 2)));
            match &ty.kind {
                Kind::Object(object) => {
                    self.members(0, object);
                    let tag = self.schema.tag(id).unwrap_or_default();
                    for (value, variant) in self.branches(object).collect::<Vec<_>>() {
                        self.text.push_str(&format!("  with {tag}={value}:\n"));
                        if let Some(object) = self.object(variant) {
                            self.members(2, object);
                        }
                    }
                }
                Kind::Enum(values) => {
                    let values: Vec<_> = values.iter().map(|value| value.name).collect();
                    self.text.push_str(&format!("  {}\n", wrap(&values.join(", "), 2, WIDTH - 2)));
                }
                Kind::Builtin(_) | Kind::Array(_) => {}
            }
        }
    }
}

/// `  name   words`, the words wrapped; a long name has a line of its own.
fn entry(name: &str, words: &str) -> String {
    let words = wrap(words, WORDS, WIDTH - WORDS);
    if name.len() + 4 > WORDS {
        return format!("  {name}\n{:WORDS$}{words}\n", "").trim_end().to_owned() + "\n";
    }
    format!("  {name:0$}{words}", WORDS - 2).trim_end().to_owned() + "\n"
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

    #[test]
    fn every_page_fits_80_columns() {
        let mut pages = vec![USAGE.to_owned(), commands(Some(WIDTH))];
        for c in Schema::get().commands() {
            pages.push(command(c.name, None).unwrap());
        }
        for kind in Schema::get().netdev_types() {
            pages.push(command("netdev_add", Some(kind)).unwrap());
        }
        for line in pages.iter().flat_map(|page| page.lines()) {
            assert!(line.chars().count() <= WIDTH && line == line.trim_end(), "{line:?}");
        }
    }

    #[test]
    fn a_command_is_explained_with_its_arguments() {
        let text = command("set_link", None).unwrap();
        assert!(text.contains("\n  name=string "), "{text}");
        assert!(text.contains("\n  up=on|off "), "{text}");
        assert!(command("query-status", None).unwrap().ends_with("\nNo arguments.\n"));
    }

    #[test]
    fn a_netdev_type_is_explained_with_its_options() {
        let general = command("netdev_add", None).unwrap();
        assert!(general.contains("netdevctl help netdev_add TYPE\n"), "{general}");
        let tap = command("netdev_add", Some("tap")).unwrap();
        assert!(tap.contains("\n  id=string ") && tap.contains("\n  [ifname=string] "), "{tap}");
        let stream = command("netdev_add", Some("stream")).unwrap();
        assert!(stream.contains("\n  addr.*=SocketAddress"), "{stream}");
        assert!(stream.contains("\n  with type=unix:\n"), "{stream}");
        let user = command("netdev_add", Some("user")).unwrap();
        assert!(user.contains("hostfwd.N.str=string"), "{user}");
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(command("nope", None).unwrap_err().status(), 2);
        assert_eq!(command("netdev_add", Some("nope")).unwrap_err().status(), 2);
        assert_eq!(command("quit", Some("tap")).unwrap_err().status(), 2);
    }

    #[test]
    fn the_list_has_every_command() {
        let text = commands(None);
        assert!(Schema::get().commands().all(|c| text.contains(&format!("{} ", c.name))));
    }
}
