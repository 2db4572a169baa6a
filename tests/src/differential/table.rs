//! Cases made from tables of options.
//!
//! ```text
//! netdev_add {"type":"hubport","id":"x"}
//!   hubid int32 required
//!   netdev str
//! chardev-add {"id":"x","backend":{"type":"file","data":{}}} at /backend/data
//!   out str required
//! ```
//!
//! Each option becomes a dozen cases: missing, of every wrong JSON type, out of its range, given twice; and each
//! command one with a member that it does not know. None of them may create anything.

use serde_json::{Map, Value, json};

use super::case::{Case, Flags, Step};

/// One line of a table.
#[derive(Debug)]
struct Member {
    name: String,
    kind: String,
    required: bool,
}

/// One command of a table, with what it needs to be otherwise valid.
#[derive(Debug)]
struct Stanza {
    command: String,
    base: Value,
    /// JSON pointer of the object that holds the options.
    place: String,
    members: Vec<Member>,
}

/// Reads an `.options` file and makes its cases.
///
/// # Errors
/// The first line that makes no sense.
pub fn cases(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut stanzas: Vec<Stanza> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let problem = |what: &str| format!("{file}:{}: {what}", number + 1);
        let fields: Vec<_> = line.split_whitespace().collect();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with(' ') {
            let (command, rest) = line.split_once(' ').ok_or_else(|| problem("no arguments"))?;
            let (base, place) = rest.split_once(" at ").unwrap_or((rest, ""));
            let base = serde_json::from_str(base).map_err(|error| problem(&error.to_string()))?;
            stanzas.push(Stanza { command: command.into(), base, place: place.into(), members: Vec::new() });
            continue;
        }
        let stanza = stanzas.last_mut().ok_or_else(|| problem("an option before a command"))?;
        let (name, kind) = fields.first().zip(fields.get(1)).ok_or_else(|| problem("no kind"))?;
        let required = fields.get(2) == Some(&"required");
        wrong(kind).ok_or_else(|| problem("unknown kind"))?;
        stanza.members.push(Member { name: (*name).into(), kind: (*kind).into(), required });
    }
    Ok(stanzas.iter().flat_map(|stanza| stanza.cases(file)).collect())
}

impl Stanza {
    fn cases(&self, file: &str) -> Vec<Case> {
        let title = format!("{file}: {} {}{}", self.command, self.base, self.place);
        let mut cases = Vec::new();
        let mut add = |name: String, step: Step| {
            cases.push(Case { name: format!("{title} {name}"), flags: Flags::default(), steps: vec![step] });
        };
        let valid = self.valid();
        add("with an unknown member".into(), self.with(&valid, "bogus", json!(1)));
        for member in &self.members {
            let name = &member.name;
            if member.required {
                let mut missing = valid.clone();
                missing.shift_remove(name);
                add(format!("without {name}"), self.step(&missing));
            }
            for value in wrong(&member.kind).unwrap_or_default() {
                add(format!("{name} = {value}"), self.with(&valid, name, value));
            }
            add(format!("{name} twice"), self.twice(&valid, member));
        }
        cases
    }

    /// The required options with a value each.
    fn valid(&self) -> Map<String, Value> {
        let required = self.members.iter().filter(|member| member.required);
        required.map(|member| (member.name.clone(), sample(&member.kind))).collect()
    }

    fn step(&self, options: &Map<String, Value>) -> Step {
        let mut arguments = self.base.clone();
        let place = arguments.pointer_mut(&self.place).and_then(Value::as_object_mut);
        place.expect("the place of the options is an object").extend(options.clone());
        Step::Command(self.command.clone(), arguments)
    }

    fn with(&self, valid: &Map<String, Value>, name: &str, value: Value) -> Step {
        let mut options = valid.clone();
        options.insert(name.into(), value);
        self.step(&options)
    }

    /// The option under a name that nothing else has, then renamed in the text: JSON values hold no key twice.
    fn twice(&self, valid: &Map<String, Value>, member: &Member) -> Step {
        let mut options = valid.clone();
        options.insert(member.name.clone(), sample(&member.kind));
        options.insert("@twice".into(), sample(&member.kind));
        let Step::Command(command, arguments) = self.step(&options) else {
            unreachable!("step() makes commands")
        };
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        Step::Raw(text.replace("@twice", &member.name).into_bytes())
    }
}

/// A value of this kind that is fine.
fn sample(kind: &str) -> Value {
    match kind {
        "str" => json!("a"),
        "bool" => json!(true),
        "strings" => json!([{"str": "a"}]),
        "names" => json!(["a"]),
        "address" => json!({"type": "unix", "path": "/a"}),
        "object" => json!({}),
        _ => json!(1),
    }
}

/// Values that this kind refuses (64-bit kinds take negative numbers and wrap them), or `None` for an unknown kind.
fn wrong(kind: &str) -> Option<Vec<Value>> {
    let not_a_number = vec![json!("1"), json!(true), json!(1.5), json!(null), json!([]), json!({})];
    let beyond = |range: Vec<Value>| Some([not_a_number.clone(), range].concat());
    match kind {
        "str" => Some(vec![json!(1), json!(true), json!(null), json!([]), json!({}), json!(1.5)]),
        "bool" => Some(vec![json!("on"), json!(1), json!(null), json!([]), json!({})]),
        "enum" => Some(vec![json!("bogus"), json!(""), json!(1), json!(true), json!(null), json!([])]),
        "int" => beyond(vec![json!(9_223_372_036_854_775_808_u64)]),
        "int32" => beyond(vec![json!(2_147_483_648_i64), json!(-2_147_483_649_i64), json!(1e30)]),
        "uint32" => beyond(vec![json!(-1), json!(4_294_967_296_u64)]),
        "uint16" => beyond(vec![json!(-1), json!(65536)]),
        "uint64" => beyond(vec![json!(1.844_674_407_370_955_2e19)]),
        "size" => beyond(vec![json!("1M"), json!(1.844_674_407_370_955_2e19)]),
        "strings" => Some(vec![
            json!("a"),
            json!({}),
            json!(null),
            json!(["a"]),
            json!([{}]),
            json!([{"str": 1}]),
            json!([{"str": "a"}, {"str": null}]),
            json!([{"str": "a", "x": 1}]),
        ]),
        "names" => Some(vec![json!("a"), json!({}), json!(null), json!([1]), json!(["a", null])]),
        "object" => Some(vec![json!("a"), json!(1), json!(null), json!([])]),
        "address" => Some(vec![
            json!("a"),
            json!(1),
            json!(null),
            json!([]),
            json!({}),
            json!({"type": "bogus"}),
            json!({"type": 1}),
            json!({"type": "inet"}),
            json!({"type": "inet", "host": "a"}),
            json!({"type": "inet", "host": 1, "port": "1"}),
            json!({"type": "inet", "host": "a", "port": 1}),
            json!({"type": "inet", "host": "a", "port": "1", "to": 65536}),
            json!({"type": "inet", "host": "a", "port": "1", "ipv4": "on"}),
            json!({"type": "inet", "host": "a", "port": "1", "bogus": 1}),
            json!({"type": "unix"}),
            json!({"type": "unix", "path": 1}),
            json!({"type": "unix", "path": "a", "abstract": 1}),
            json!({"type": "unix", "path": "a", "bogus": 1}),
            json!({"type": "vsock", "cid": 1, "port": "1"}),
            json!({"type": "vsock", "cid": "1"}),
            json!({"type": "fd"}),
            json!({"type": "fd", "str": 1}),
            json!({"type": "fd", "str": "a", "path": "b"}),
        ]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, cases};

    #[test]
    fn an_option_becomes_many_cases() {
        let table = "netdev_add {\"type\":\"hubport\",\"id\":\"x\"}\n  hubid int32 required\n  netdev str\n";
        let cases = cases("t", table).expect("it parses");
        assert!(cases.len() > 15, "{}", cases.len());
        assert!(cases.iter().any(|case| case.name.ends_with(" without hubid")));
        let twice = cases.iter().find(|case| case.name.ends_with("netdev twice")).expect("it is there");
        let Step::Raw(bytes) = &twice.steps[0] else { panic!("raw bytes") };
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(text.matches("\"netdev\"").count(), 2, "{text}");
    }

    #[test]
    fn a_bad_table_is_refused() {
        assert!(cases("t", "  hubid int32\n").is_err());
        assert!(cases("t", "netdev_add {}\n  hubid bogus\n").is_err());
    }
}
