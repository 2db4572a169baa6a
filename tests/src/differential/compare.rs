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
    let last = ours.steps.last().map(Vec::as_slice).unwrap_or_default();
    let refused =
        last.iter().any(|reply| reply.get("error").is_some() || reply.pointer("/cli/outcome/exit").is_some());
    let text = last.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
    let kept = match difference.ours {
        Ours::Refuses(words) => refused && text.contains(words),
        Ours::Accepts => last.iter().all(|reply| reply.get("return").is_some()) && !last.is_empty(),
        Ours::Says(words) => text.contains(words),
    };
    if kept {
        return Verdict::Intended;
    }
    Verdict::Differs(format!("    not as the table says ({:?}): {}", difference.ours, brief(&text)))
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
    use super::canonical;
    use serde_json::json;

    #[test]
    fn member_order_never_counts_and_list_order_only_where_there_is_one() {
        assert_eq!(
            canonical(&json!({"a": 1, "b": [2, 1]}), true),
            canonical(&json!({"b": [1, 2], "a": 1}), true)
        );
        assert_ne!(canonical(&json!([2, 1]), false), canonical(&json!([1, 2]), false));
    }
}
