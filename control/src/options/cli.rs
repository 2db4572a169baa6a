//! `-netdev`, `-object`, `-chardev` and their kin: text to arguments as QMP would have them.

use super::json;
use super::keyval;
use super::opts::{Opts, is_help};
use crate::qmp::QmpError;
use crate::schema::types::{Kind, TypeId};
use crate::schema::{Dialect, Schema, check, typed};
use serde_json::{Map, Value, json};

/// Turns an option's text into checked arguments: `Netdev` for `netdev_add`, `ObjectOptions` for `object-add`.
///
/// A text that begins with `{` is JSON. A netdev of type `stream` or `dgram` has dotted keys, everything else flat
/// options, as in QEMU 10.0; and dotted keys has a `switchport`, which QEMU does not know.
///
/// # Errors
/// As QEMU words them.
pub fn from_cli(type_name: &str, text: &str) -> Result<Map<String, Value>, QmpError> {
    let schema = Schema::get();
    let id =
        schema.type_named(type_name).ok_or_else(|| QmpError::generic(format!("no type '{type_name}'")))?;
    let tag = schema.tag(id).unwrap_or_default();
    let (value, dialect) = if text.starts_with('{') {
        (json::object(text)?, Dialect::Json)
    } else if type_name == "Netdev" && has_dotted_keys(text) {
        (keyval::parse(text, tag)?, Dialect::Keyval)
    } else {
        let mut opts = Opts::parse(text, tag)?;
        if type_name == "Netdev" {
            split_ipv6_net(&mut opts)?;
        }
        (tree(schema, id, opts), Dialect::Options)
    };
    let value = Value::Object(value);
    check(schema, id, &value, dialect)?;
    match if dialect == Dialect::Json { value } else { typed(schema, id, value, dialect) } {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// Arguments of a command from words `key=value` with dotted keys, checked and typed: what `netdevctl set_link
/// name=t0 up=off` sends. A value of free type is JSON where it can be, else a string.
///
/// # Errors
/// As QEMU words them for dotted keys; an unknown command is named.
pub fn arguments<'w>(
    command: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Result<Map<String, Value>, QmpError> {
    let schema = Schema::get();
    let unknown = || QmpError::generic(format!("The command {command} has not been found"));
    let found = schema.command(command).ok_or_else(unknown)?;
    let id = found.args;
    if found.marks.open {
        return super::device::from_strings(keyval::parse_words(words)?);
    }
    let value = Value::Object(keyval::parse_words(words)?);
    check(schema, id, &value, Dialect::Keyval)?;
    match typed(schema, id, value, Dialect::Keyval) {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// The text to print if an option asks for help: `help` lists the types, `TYPE,help` the options of one.
#[must_use]
pub fn help(type_name: &str, text: &str) -> Option<String> {
    if text.starts_with('{') {
        return None;
    }
    let schema = Schema::get();
    let tag = schema.tag(schema.type_named(type_name)?)?;
    let opts = Opts::parse(text, tag).ok()?;
    let kind = opts.get(tag).unwrap_or_default();
    match opts.help {
        false => None,
        true if is_help(kind) => schema.list_help(type_name),
        true => schema.type_help(type_name, kind),
    }
}

/// Whether a `-netdev` text is read with dotted keys.
fn has_dotted_keys(text: &str) -> bool {
    let opts = Opts::parse(text, "type").unwrap_or_default();
    matches!(opts.get("type"), Some("stream" | "dgram" | "switchport"))
}

/// `ipv6-net=PREFIX[/LENGTH]` stands for two options; it exists on command lines only.
fn split_ipv6_net(opts: &mut Opts) -> Result<(), QmpError> {
    let Some(net) = opts.get("ipv6-net").map(str::to_owned) else { return Ok(()) };
    let (prefix, length) = net.split_once('/').unwrap_or((&net, "64"));
    let length: u64 =
        length.parse().map_err(|_| QmpError::generic("parameter 'ipv6-net' expects a number after '/'"))?;
    opts.remove("ipv6-net");
    opts.pairs.push(("ipv6-prefix".to_owned(), prefix.to_owned()));
    opts.pairs.push(("ipv6-prefixlen".to_owned(), length.to_string()));
    Ok(())
}

/// Flat options as the object that the type describes: repeated lists collect, of other repeated options the last
/// counts.
fn tree(schema: &Schema, id: TypeId, opts: Opts) -> Map<String, Value> {
    let tag = schema.tag(id).unwrap_or_default();
    let kind = opts.get(tag).unwrap_or_default().to_owned();
    let mut map = Map::new();
    for (name, value) in opts.pairs {
        // Of several ids the first counts.
        if name == "id" && map.contains_key("id") {
            continue;
        }
        let ty = schema.member(id, &kind, &name).map(|m| &schema.ty(m.ty).kind);
        let Some(Kind::Array(element)) = ty else {
            map.insert(name, Value::String(value));
            continue;
        };
        let value = match schema.ty(*element).kind {
            // Lists of wrapped strings take the bare string.
            Kind::Object(_) => json!({"str": value}),
            _ => Value::String(value),
        };
        if let Value::Array(list) = map.entry(name).or_insert_with(|| json!([])) {
            list.push(value);
        }
    }
    map
}
