//! `-device`: text to the arguments of `device_add`, and the properties of the one device there is.

use super::json;
use super::opts::{Opts, is_help};
use crate::qmp::QmpError;
use crate::qmp::order;
use crate::schema::types::TypeId;
use crate::schema::{Dialect, Schema, check, typed};
use serde_json::{Map, Value};

/// The schema's name for the properties.
const PROPERTIES: &str = "VirtioNetProperties";
/// Members of `device_add` that are no properties.
const OWN: [&str; 3] = ["driver", "bus", "id"];
/// Drivers: the name in QEMU, and its short form.
const DRIVERS: [&str; 2] = ["virtio-net-pci", "virtio-net"];

/// Whether there is a driver of that name.
#[must_use]
pub fn is_driver(name: &str) -> bool {
    DRIVERS.contains(&name)
}

/// Turns the text of `-device` into the arguments of `device_add`. A text that begins with `{` is JSON.
///
/// # Errors
/// As QEMU words them.
pub fn from_cli(text: &str) -> Result<Map<String, Value>, QmpError> {
    if text.starts_with('{') {
        return json::object(text);
    }
    let mut map = Map::new();
    for (name, value) in Opts::parse(text, "driver")?.pairs {
        // Of several ids the first counts.
        if name != "id" || !map.contains_key("id") {
            map.insert(name, Value::String(value));
        }
    }
    from_strings(map)
}

/// Gives strings the types of their properties. What is no property stays a string, and is refused by name later.
///
/// # Errors
/// A string that its property cannot have.
pub fn from_strings(map: Map<String, Value>) -> Result<Map<String, Value>, QmpError> {
    let mut all = Map::new();
    for (name, value) in map {
        let one = Map::from_iter([(name.clone(), value)]);
        let known = !OWN.contains(&name.as_str()) && is_property(&name);
        match (known, properties()) {
            (true, Some((schema, id))) => {
                let one = Value::Object(one);
                check(schema, id, &one, Dialect::Keyval)?;
                if let Value::Object(one) = typed(schema, id, one, Dialect::Keyval) {
                    all.extend(one);
                }
            }
            _ => all.extend(one),
        }
    }
    Ok(all)
}

/// Checks the properties among the arguments of `device_add`, in the order in which QEMU sets them: by dictionary.
///
/// # Errors
/// The first that is unknown, or has a value of the wrong type, in QEMU's words.
pub fn check_properties(args: &Map<String, Value>) -> Result<(), QmpError> {
    for (name, value) in order::members(args) {
        if OWN.contains(&name) {
            continue;
        }
        if !is_property(name) {
            return Err(QmpError::generic(format!("Property '{}.{name}' not found", DRIVERS[0])));
        }
        if let Some((schema, id)) = properties() {
            let one = Value::Object(Map::from_iter([(name.to_owned(), value.clone())]));
            check(schema, id, &one, Dialect::Json)?;
        }
    }
    Ok(())
}

/// The text to print if `-device` asks for help: `help` lists the drivers, `DRIVER,help` the properties of one.
#[must_use]
pub fn help(text: &str) -> Option<String> {
    if text.starts_with('{') {
        return None;
    }
    let opts = Opts::parse(text, "driver").ok()?;
    let driver = opts.get("driver").unwrap_or_default();
    match opts.help {
        true if is_help(driver) => {
            Some("Network devices:\nname \"virtio-net-pci\", alias \"virtio-net\"\n".to_owned())
        }
        true if is_driver(driver) => Schema::get().struct_help("virtio-net-pci", PROPERTIES),
        _ => None,
    }
}

fn properties() -> Option<(&'static Schema, TypeId)> {
    let schema = Schema::get();
    Some((schema, schema.type_named(PROPERTIES)?))
}

fn is_property(name: &str) -> bool {
    properties().is_some_and(|(schema, id)| schema.member(id, "", name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(args: &Value) -> String {
        check_properties(args.as_object().unwrap()).unwrap_err().desc
    }

    #[test]
    fn options_get_the_types_of_their_properties() {
        let args = from_cli("virtio-net-pci,id=n0,mq=off,host_mtu=1400,speed=-1,mac=52:54:00:00:00:01,zz=1")
            .unwrap();
        let expected = json!({"driver": "virtio-net-pci", "id": "n0", "mq": false, "host_mtu": 1400, "speed": -1,
            "mac": "52:54:00:00:00:01", "zz": "1"});
        assert_eq!(Value::Object(args), expected);
        assert_eq!(from_cli("virtio-net,mq=zz").unwrap_err().desc, "Parameter 'mq' expects 'on' or 'off'");
        assert_eq!(from_cli("virtio-net,id=1x").unwrap_err().desc, "Parameter 'id' expects an identifier");
        assert_eq!(from_cli("{\"driver\":\"virtio-net\",\"mq\":true}").unwrap()["mq"], json!(true));
    }

    #[test]
    fn properties_are_refused_in_qemus_words() {
        for (args, desc) in [
            (json!({"driver": "virtio-net", "bogus": 1}), "Property 'virtio-net-pci.bogus' not found"),
            (json!({"driver": "virtio-net", "standby": true}), "Property 'virtio-net-pci.standby' not found"),
            (json!({"mq": "on"}), "Invalid parameter type for 'mq', expected: boolean"),
            (json!({"mac": 5}), "Invalid parameter type for 'mac', expected: string"),
            (json!({"mac": null}), "Invalid parameter type for 'mac', expected: string"),
            (json!({"rx_queue_size": 70000}), "Parameter 'rx_queue_size' expects uint16_t"),
            (json!({"rx_queue_size": "100"}), "Parameter 'rx_queue_size' expects uint64"),
            (json!({"vectors": -1}), "Parameter 'vectors' expects uint32_t"),
            (json!({"speed": "fast"}), "Invalid parameter type for 'speed', expected: integer"),
        ] {
            assert_eq!(refused(&args), desc);
        }
        check_properties(json!({"driver": 1, "id": 2, "bus": 3}).as_object().unwrap()).unwrap();
    }

    #[test]
    fn help_lists_the_driver_and_its_properties() {
        assert!(help("help").unwrap().contains("virtio-net-pci"));
        let text = help("virtio-net,help").unwrap();
        assert!(text.contains("chardev") && text.contains("guest_uso4"), "{text}");
        assert_eq!(help("virtio-net"), None);
    }
}
