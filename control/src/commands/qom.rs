//! `qom-*` (QEMU `qom/qom-qmp-cmds.c`).

use super::State;
use super::args::Args;
use super::state::empty;
use crate::model::Change;
use crate::model::qom::types::{self, ObjectType, TYPES};
use crate::model::qom::{ChardevNode, Node, Tree, Unresolved};
use crate::qmp::error::{ErrorClass, QmpError};
use engine::Attachments;
use serde_json::{Map, Value, json};

impl State {
    /// Runs `look` on the object at a path.
    fn with_node<T>(
        &self,
        path: &str,
        look: impl FnOnce(Tree<'_>, Node<'_>) -> Result<T, QmpError>,
    ) -> Result<T, QmpError> {
        let chardevs: Vec<ChardevNode> = self.chardev_nodes();
        let tree = Tree { net: &self.net, chardevs: &chardevs };
        match tree.resolve(path) {
            Ok(node) => look(tree, node),
            Err(_) => Err(QmpError::device_not_found(path)),
        }
    }

    /// The path of the object that a link names, which must be of that type.
    pub(super) fn object_of_type(&self, path: &str, driver: &str) -> Result<String, QmpError> {
        self.with_node(path, |_, node| match node.driver() == driver {
            true => Ok(node.path()),
            false => {
                Err(QmpError::generic(format!("Invalid parameter type for '{driver}', expected: {driver}")))
            }
        })
    }

    /// Whether there is an object at that absolute path.
    pub(super) fn is_object(&self, path: &str) -> bool {
        self.with_node(path, |_, _| Ok(())).is_ok()
    }

    pub(super) fn qom_list(&self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let path = args.text("path");
        let chardevs = self.chardev_nodes();
        let tree = Tree { net: &self.net, chardevs: &chardevs };
        match tree.resolve(path) {
            Ok(node) => Ok(tree.list(node).into_iter().map(|(n, t)| json!({"name": n, "type": t})).collect()),
            Err(Unresolved::Ambiguous) => Err(QmpError::generic(format!("Path '{path}' is ambiguous"))),
            Err(Unresolved::Missing) => Err(QmpError::device_not_found(path)),
        }
    }

    /// All properties of several objects (QEMU 10.1).
    pub(super) fn qom_list_get(&mut self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        self.count_matches();
        let paths = args.get("paths").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let one = |path: &Value| {
            self.with_node(path.as_str().unwrap_or_default(), |tree, node| {
                let property = |(name, kind): (String, String)| {
                    let mut entry = Map::new();
                    if let Ok(value) = tree.get(node, &name) {
                        entry.insert("value".into(), value);
                    }
                    entry.insert("name".into(), name.into());
                    entry.insert("type".into(), kind.into());
                    Value::Object(entry)
                };
                let properties: Vec<Value> = tree.list(node).into_iter().map(property).collect();
                Ok(json!({"properties": properties}))
            })
        };
        paths.iter().map(one).collect::<Result<Vec<_>, _>>().map(Value::from)
    }

    pub(super) fn qom_get(&mut self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        self.count_matches();
        self.with_node(args.text("path"), |tree, node| tree.get(node, args.text("property")))
    }

    pub(super) fn qom_set(&mut self, args: &Map<String, Value>) -> Result<Value, QmpError> {
        let property = args.text("property");
        let filter = self.with_node(args.text("path"), |tree, node| {
            tree.check_writable(node, property)?;
            Ok(match node {
                Node::Filter(filter) => filter.name.clone(),
                Node::Plain(object) => object.name.clone(),
                Node::Branch(_) | Node::Chardev(_) => String::new(),
            })
        })?;
        let value = args.get("value").unwrap_or(&Value::Null);
        if self.net.plain(&filter).is_some() {
            return self.set_plain(&filter, property, value);
        }
        let change = self.net.set_filter(&filter, property, value)?;
        let set = self.net.filter_named(&filter);
        if let Some((filter, handle)) = set.and_then(|f| Some((f, self.binding.filter(f.id)?))) {
            let options = &filter.options;
            handle.set(options.on, options.queue.rx(), options.queue.tx());
            let number = |value: &Value| value.as_u64().or_else(|| value.as_bool().map(u64::from));
            if let Some(number) = filter.own.get(property).and_then(number) {
                handle.tune(property, number);
            }
        }
        if change == Change::Plan {
            self.binding.commit(&self.net, Attachments::default())?;
        }
        // One that sleeps until frames become due has to look when that is now.
        self.binding.wake_all();
        Ok(empty())
    }
}

/// `qom-list-types`: concrete types unless abstract ones are asked for too.
pub(super) fn list_types(args: &Map<String, Value>) -> Value {
    let (wanted, abstract_too) = (args.maybe("implements"), args.flag("abstract") == Some(true));
    let fits =
        |t: &&ObjectType| (abstract_too || !t.is_abstract) && wanted.is_none_or(|name| t.implements(name));
    let entry = |t: &ObjectType| {
        let mut entry = Map::new();
        entry.insert("name".into(), t.name.into());
        if t.is_abstract {
            entry.insert("abstract".into(), true.into());
        }
        if let Some(parent) = t.parent {
            entry.insert("parent".into(), parent.into());
        }
        Value::Object(entry)
    };
    TYPES.iter().filter(fits).map(entry).collect()
}

/// `qom-list-properties`.
pub(super) fn list_properties(args: &Map<String, Value>) -> Result<Value, QmpError> {
    let name = args.text("typename");
    let Some(found) = types::find(name) else {
        let desc = format!("Class '{name}' not found");
        return Err(QmpError { class: ErrorClass::DeviceNotFound, desc });
    };
    if !found.implements("object") {
        return Err(QmpError::generic("Parameter 'typename' expects a QOM type"));
    }
    Ok(found.properties().iter().map(|p| json!({"name": p.name, "type": p.kind})).collect())
}
