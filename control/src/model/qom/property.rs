//! Reading and writing properties of objects.

use super::{Node, Tree, types};
use crate::model::{Change, Direction, Filter, FilterOptions, Insert, Net};
use crate::qmp::error::QmpError;
use serde_json::{Map, Value, json};

/// `off` and `on` as filters spell their status.
fn status(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl Filter {
    /// A property's value.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<Value> {
        Some(match name {
            "type" => self.driver.into(),
            "queue" => self.options.queue.name().into(),
            "netdev" => self.options.netdev.clone().into(),
            "insert" => self.options.insert.name().into(),
            "status" => status(self.options.on).into(),
            "position" => self.options.position.clone().into(),
            own => self.own.get(own)?.clone(),
        })
    }
}

impl<'a> Tree<'a> {
    /// The properties of an object, its children last, as `qom-list` shows them.
    #[must_use]
    pub fn list(&self, node: Node<'a>) -> Vec<(String, String)> {
        let mut own = types::find(node.driver()).map(types::ObjectType::properties).unwrap_or_default();
        // Ours, and not in QEMU's list of a plain filter-dump.
        if matches!(node, Node::Filter(f) if f.driver == "filter-dump" && f.own.contains_key("filter")) {
            own.push(types::Property { name: "filter", kind: "string" });
        }
        if matches!(node, Node::Filter(f) if f.driver == "filter-replay" && f.own.contains_key("file")) {
            own.push(types::Property { name: "file", kind: "string" });
            own.push(types::Property { name: "pace", kind: "bool" });
        }
        let own = own.into_iter().map(|p| (p.name.to_owned(), p.kind.to_owned()));
        let children = self.children(node).into_iter();
        own.chain(children.map(|(name, child)| (name, format!("child<{}>", child.driver())))).collect()
    }

    /// The value of a property; that of a child is its path.
    ///
    /// # Errors
    /// `Property 'TYPE.NAME' not found`.
    pub fn get(&self, node: Node<'a>, property: &str) -> Result<Value, QmpError> {
        let own = match node {
            _ if property == "type" => Some(node.driver().into()),
            Node::Filter(filter) => filter.property(property),
            Node::Plain(object) => object.own.get(property).cloned(),
            Node::Chardev(chardev) => match property {
                "connected" => chardev.connected.map(Value::from),
                "addr" => chardev.addr.clone(),
                _ => None,
            },
            Node::Branch(_) => None,
        };
        let child = || self.children(node).into_iter().find(|(name, _)| name == property);
        own.or_else(|| child().map(|(_, child)| child.path().into()))
            .ok_or_else(|| not_found(&node, property))
    }

    /// Whether `qom-set` may write the property.
    ///
    /// # Errors
    /// `Property 'TYPE.NAME' not found` or `... is not writable`.
    pub fn check_writable(&self, node: Node<'a>, property: &str) -> Result<(), QmpError> {
        if matches!(node, Node::Filter(f) if f.driver == "filter-dump" && property == "filter") {
            return Ok(()); // one without an expression can get one
        }
        self.get(node, property)?;
        let fixed = ["type", "action", "seen", "matched"].contains(&property)
            || matches!(node, Node::Filter(f) if f.driver == "filter-replay" && f.own.contains_key(property));
        if matches!(node, Node::Filter(_) | Node::Plain(_)) && !fixed {
            return Ok(());
        }
        Err(QmpError::generic(format!("Property '{}.{property}' is not writable", node.driver())))
    }
}

/// QEMU's words for a property that is not there.
#[must_use]
pub fn not_found(node: &Node<'_>, property: &str) -> QmpError {
    QmpError::generic(format!("Property '{}.{property}' not found", node.driver()))
}

/// A string, or QEMU's words for something else.
///
/// # Errors
/// It is none.
pub fn string<'v>(name: &str, value: &'v Value) -> Result<&'v str, QmpError> {
    value
        .as_str()
        .ok_or_else(|| QmpError::generic(format!("Invalid parameter type for '{name}', expected: string")))
}

/// An unsigned number, or QEMU's words for something else.
fn uint64(name: &str, value: &Value) -> Result<u64, QmpError> {
    let number = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    number.ok_or_else(|| QmpError::generic(format!("Parameter '{name}' expects uint64")))
}

/// An unsigned 32-bit number, or QEMU's words for something else.
///
/// # Errors
/// It is none.
pub fn uint32(name: &str, value: &Value) -> Result<u32, QmpError> {
    u32::try_from(uint64(name, value)?)
        .map_err(|_| QmpError::generic(format!("Parameter '{name}' expects uint32_t")))
}

impl FilterOptions {
    /// Reads the common properties of a new filter out of arguments whose JSON types have been checked.
    ///
    /// # Errors
    /// The status is neither `on` nor `off`.
    pub fn from_arguments(args: &Map<String, Value>) -> Result<Self, QmpError> {
        let text = |name: &str| args.get(name).and_then(Value::as_str);
        Ok(Self {
            netdev: text("netdev").unwrap_or_default().to_owned(),
            queue: text("queue").and_then(Direction::parse).unwrap_or(Direction::All),
            on: text("status").map_or(Ok(true), parse_status)?,
            position: text("position").unwrap_or("tail").to_owned(),
            insert: text("insert").and_then(Insert::parse).unwrap_or(Insert::Behind),
        })
    }
}

fn parse_status(text: &str) -> Result<bool, QmpError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(QmpError::generic("Invalid value for netfilter status, should be 'on' or 'off'")),
    }
}

impl Net {
    /// `qom-set` on a filter whose property exists. Only `status` and `queue` change what happens to frames; the rest
    /// is reported back and has no further effect, as in QEMU.
    ///
    /// # Errors
    /// The value has the wrong type or is out of range.
    pub fn set_filter(&mut self, name: &str, property: &str, value: &Value) -> Result<Change, QmpError> {
        let Some(filter) = self.filter_mut(name) else {
            return Err(QmpError::device_not_found(name));
        };
        let options = &mut filter.options;
        match property {
            "status" => {
                let on = parse_status(string(property, value)?)?;
                return Ok(if std::mem::replace(&mut options.on, on) == on {
                    Change::Nothing
                } else {
                    Change::Plan
                });
            }
            "queue" => {
                let text = string(property, value)?;
                let queue = Direction::parse(text).ok_or_else(|| {
                    QmpError::generic(format!("Parameter 'queue' does not accept value '{text}'"))
                })?;
                let old = std::mem::replace(&mut options.queue, queue);
                return Ok(if old == queue { Change::Nothing } else { Change::Plan });
            }
            "netdev" => options.netdev = string(property, value)?.to_owned(),
            "position" => options.position = string(property, value)?.to_owned(),
            "insert" => {
                options.insert = Insert::parse(string(property, value)?).ok_or_else(|| {
                    QmpError::generic("Invalid value for netfilter insert, should be 'before' or 'behind'")
                })?;
            }
            "maxlen" | "interval" => {
                let number = uint32(property, value)?;
                check_number(filter.driver, property, number)?;
                filter.own.insert(property.to_owned(), json!(number));
            }
            "bps" | "fps" | "bps-burst" | "fps-burst" | "queue-limit" => {
                filter.own.insert(property.to_owned(), json!(uint64(property, value)?));
            }
            "vnet_hdr_support" => {
                let bad = || {
                    QmpError::generic(format!("Invalid parameter type for '{property}', expected: boolean"))
                };
                filter.own.insert(property.to_owned(), value.as_bool().ok_or_else(bad)?.into());
            }
            _ => {
                filter.own.insert(property.to_owned(), string(property, value)?.into());
            }
        }
        Ok(Change::Nothing)
    }
}

/// The numbers that a filter's own property refuses.
///
/// # Errors
/// `maxlen` or `interval` is 0.
pub fn check_number(driver: &str, property: &str, number: u32) -> Result<(), QmpError> {
    match (property, number) {
        ("maxlen", 0) => Err(QmpError::generic(format!("Property '{driver}.maxlen' doesn't take value '0'"))),
        ("interval", 0) => {
            Err(QmpError::generic(format!("Property '{driver}.interval' requires a positive value")))
        }
        _ => Ok(()),
    }
}
