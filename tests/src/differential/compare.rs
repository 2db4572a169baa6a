//! Judges two outcomes of one case.

use serde_json::Value;

use super::case::{Case, Step};
use super::differences::{self, Ours};
use super::side::Outcomes;

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is the same.
    Same,
    /// The same up to our answer that this type is not built yet.
    Pending(String),
    /// Different as the table of intended differences says.
    Intended,
    /// Different; the text shows where.
    Differs(String),
}

/// Commands whose list has no order.
const UNORDERED: &[&str] = &[
    "qom-list",
    "qom-list-get",
    "qom-list-properties",
    "qom-list-types",
    "query-chardev",
    "query-chardev-backends",
    "query-commands",
    "query-fdsets",
    "query-iothreads",
];

/// Compares step by step; `theirs` is the reference.
#[must_use]
pub fn judge(case: &Case, theirs: &Outcomes, ours: &Outcomes) -> Verdict {
    for ((step, theirs), ours) in case.steps.iter().zip(&theirs.steps).zip(&ours.steps) {
        let unordered = matches!(step, Step::Command(name, _) if UNORDERED.contains(&name.as_str()));
        let shape =
            |values: &[Value]| values.iter().map(|value| canonical(value, unordered)).collect::<Vec<_>>();
        let (their_shape, our_shape) = (shape(theirs), shape(ours));
        if their_shape == our_shape {
            continue;
        }
        let first = our_shape.iter().zip(&their_shape).position(|(ours, theirs)| ours != theirs);
        if let Some(at) = first
            && let Some(kind) = pending(&theirs[at], &ours[at])
        {
            return Verdict::Pending(kind);
        }
        return Verdict::Differs(shown(step, theirs, ours));
    }
    let names =
        |outcomes: &Outcomes| outcomes.events.iter().map(|event| canonical(event, false)).collect::<Vec<_>>();
    if names(theirs) != names(ours) {
        let (theirs, ours) = (names(theirs), names(ours));
        return Verdict::Differs(format!(
            "    events\n      reference: {theirs:?}\n      netdevd:   {ours:?}"
        ));
    }
    Verdict::Same
}

/// Judges our outcome of a case whose difference is intended.
#[must_use]
pub fn judge_intended(name: &str, theirs: Option<&Outcomes>, ours: &Outcomes, case: &Case) -> Verdict {
    let Some(difference) = differences::TABLE.iter().find(|entry| entry.name == name) else {
        return Verdict::Differs(format!("    no intended difference is named {name}"));
    };
    if theirs.is_some_and(|theirs| judge(case, theirs, ours) == Verdict::Same) {
        return Verdict::Differs(format!("    the intended difference {name} is none any more"));
    }
    let last = ours.steps.iter().rev().find_map(|step| step.last());
    let desc = last.and_then(|reply| reply["error"]["desc"].as_str());
    let kept = match (difference.ours, last) {
        (Ours::Refuses(text), _) => desc.is_some_and(|desc| desc.contains(text)),
        (Ours::Accepts, Some(reply)) => reply.get("return").is_some(),
        (Ours::Says(text), Some(reply)) => reply.to_string().contains(text),
        (_, None) => false,
    };
    if kept {
        return Verdict::Intended;
    }
    if let Some(kind) = desc.and_then(not_built) {
        return Verdict::Pending(kind);
    }
    Verdict::Differs(format!("    not as the table says ({:?}): {last:?}", difference.ours))
}

/// The type that ours says is not built, where the reference has got past the checks of the arguments.
fn pending(theirs: &Value, ours: &Value) -> Option<String> {
    let kind = not_built(&ours.to_string())?;
    let theirs = theirs["error"]["desc"].as_str().unwrap_or_default();
    let argument_error = theirs.starts_with("Parameter '") || theirs.starts_with("Invalid parameter type");
    (!argument_error).then_some(kind)
}

/// The type in `network backend 'TYPE' is not compiled into this binary`, if it is one that is yet to come.
fn not_built(text: &str) -> Option<String> {
    let after = |marker: &str| {
        text.split(marker).nth(1).map(|rest| rest.split(['\'', '"', '\\']).next().unwrap_or(rest))
    };
    let kind = after("network backend '").or_else(|| after("invalid object type: "))?;
    differences::PENDING.contains(&kind).then(|| kind.to_string())
}

/// One text for all values that count as the same: members sorted, descriptor numbers blanked, lists sorted where
/// they have no order.
#[must_use]
pub fn canonical(value: &Value, unordered: bool) -> String {
    match value {
        Value::Object(members) => {
            let mut texts: Vec<_> = members
                .iter()
                .map(|(key, value)| match (key.as_str(), value) {
                    ("fd", Value::Number(_)) => "\"fd\":N".to_string(),
                    _ => format!("{key:?}:{}", canonical(value, unordered)),
                })
                .collect();
            texts.sort_unstable();
            format!("{{{}}}", texts.join(","))
        }
        Value::Array(elements) => {
            let mut texts: Vec<_> = elements.iter().map(|element| canonical(element, unordered)).collect();
            if unordered {
                texts.sort_unstable();
            }
            format!("[{}]", texts.join(","))
        }
        _ => value.to_string(),
    }
}

fn shown(step: &Step, theirs: &[Value], ours: &[Value]) -> String {
    let list = |values: &[Value]| {
        values.iter().map(|value| brief(&value.to_string())).collect::<Vec<_>>().join(" | ")
    };
    let step = match step {
        Step::Raw(bytes) => format!("raw {}", String::from_utf8_lossy(bytes)),
        Step::Command(name, arguments) => format!("{name} {arguments}"),
        other => format!("{other:?}"),
    };
    format!("    {}\n      reference: {}\n      netdevd:   {}", brief(&step), list(theirs), list(ours))
}

fn brief(text: &str) -> String {
    let cut: String = text.chars().take(400).collect();
    if cut.len() < text.len() { format!("{cut}... ({} bytes)", text.len()) } else { cut }
}

#[cfg(test)]
mod tests {
    use super::{canonical, pending};
    use serde_json::json;

    #[test]
    fn member_order_never_counts_and_list_order_only_where_there_is_one() {
        assert_eq!(
            canonical(&json!({"a": 1, "b": [2, 1]}), true),
            canonical(&json!({"b": [1, 2], "a": 1}), true)
        );
        assert_ne!(canonical(&json!([2, 1]), false), canonical(&json!([1, 2]), false));
    }

    #[test]
    fn pending_holds_only_past_the_argument_checks() {
        let ours = json!({"error": {"desc": "network backend 'user' is not compiled into this binary"}});
        let early = json!({"error": {"desc": "Parameter 'net' is unexpected"}});
        let late = json!({"error": {"desc": "Failed to parse netmask"}});
        assert_eq!(pending(&early, &ours), None);
        assert_eq!(pending(&late, &ours).as_deref(), Some("user"));
        assert_eq!(pending(&json!({"return": {}}), &ours).as_deref(), Some("user"));
    }
}
