//! Replies as tables.

use super::layout::{Table, wrap};
use serde_json::{Map, Value};

/// The reply to `command` as text for people. Each switch of `query-switch` is shown by itself, as it is made of lists.
pub(super) fn reply(command: &str, value: &Value, columns: Option<usize>) -> String {
    match (command, value) {
        ("query-switch", Value::Array(all)) => {
            all.iter().map(|switch| render(switch, columns)).collect::<Vec<_>>().join("\n")
        }
        (_, value) => render(value, columns),
    }
}

/// A value as text for people: nothing for the empty reply, text as it is, objects as lines of name and value, lists
/// of objects as tables; what is wider than `columns` is wrapped, or shown an object at a time.
pub(super) fn render(value: &Value, columns: Option<usize>) -> String {
    match value {
        Value::Object(map) => object(map, columns),
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_object) => objects(list, columns),
        Value::Array(list) => list.iter().map(|value| cell(value) + "\n").collect(),
        Value::String(text) => lines(text),
        other => cell(other) + "\n",
    }
}

/// The text of the human monitor, whose lines end like a terminal's.
fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    match text.is_empty() || text.ends_with('\n') {
        true => text,
        false => text + "\n",
    }
}

fn object(map: &Map<String, Value>, columns: Option<usize>) -> String {
    let mut flat = Vec::new();
    let mut tables = Vec::new();
    for (name, value) in map {
        match value {
            Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_object) => {
                tables.push((name, list));
            }
            value => flatten(name, value, &mut flat),
        }
    }
    let mut text = pairs(&flat, columns);
    for (name, list) in tables {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{name}:\n{}", objects(list, columns)));
    }
    text
}

/// Lines of name and value.
fn pairs(flat: &[(String, String)], columns: Option<usize>) -> String {
    let width = flat.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(width + 2).max(16));
    let line = |(name, value): &(String, String)| {
        let value = wrap(value, width + 2, room);
        format!("{name:width$}  {value}").trim_end().to_owned() + "\n"
    };
    flat.iter().map(line).collect()
}

fn objects(list: &[Value], columns: Option<usize>) -> String {
    let rows: Vec<Vec<(String, String)>> = list
        .iter()
        .map(|value| {
            let mut flat = Vec::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                flatten(name, value, &mut flat);
            }
            flat
        })
        .collect();
    let mut titles: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !titles.contains(&name.as_str()) {
            titles.push(name);
        }
    }
    let mut table = Table::new(titles.iter().copied());
    for row in &rows {
        let value = |title: &&str| row.iter().find(|(name, _)| name == title).map_or("", |(_, value)| value);
        table.row(titles.iter().map(value));
    }
    if columns.is_none_or(|columns| table.width() <= columns) {
        return table.text(columns);
    }
    rows.iter().map(|row| pairs(row, columns)).collect::<Vec<_>>().join("\n")
}

/// Members of members get dotted names, as they are typed on the command line; an empty object has none to show.
fn flatten(name: &str, value: &Value, flat: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (member, value) in map {
                flatten(&format!("{name}.{member}"), value, flat);
            }
        }
        value => flat.push((name.to_owned(), cell(value))),
    }
}

/// A value in one line. Control characters could confuse a terminal.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Array(list) if list.iter().all(|v| !v.is_object() && !v.is_array()) => {
            list.iter().map(cell).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_replies_print_nothing_and_texts_print_as_they_are() {
        assert_eq!(render(&json!({}), None), "");
        assert_eq!(render(&json!([]), None), "");
        assert_eq!(render(&json!("a\r\n b\r\n"), None), "a\n b\n");
        assert_eq!(render(&json!("t0"), None), "t0\n");
        assert_eq!(render(&json!(true), None), "true\n");
    }

    #[test]
    fn an_object_is_lines_of_name_and_value() {
        let version = json!({"qemu": {"micro": 2, "major": 10}, "package": ""});
        assert_eq!(render(&version, None), "qemu.micro  2\nqemu.major  10\npackage\n");
    }

    #[test]
    fn a_list_is_a_table_of_all_names() {
        let list = json!([
            {"id": "a", "up": true, "filters": ["f", "g"]},
            {"id": "bb", "up": false, "info": {"state": "ready", "none": {}}},
        ]);
        assert_eq!(
            render(&list, Some(80)),
            "id  up     filters  info.state\n\
             a   true   f,g\n\
             bb  false           ready\n"
        );
    }

    #[test]
    fn a_table_that_does_not_fit_is_shown_an_entry_at_a_time() {
        let list = json!([{"id": "a", "path": "0123456789"}, {"id": "b", "path": "x"}]);
        assert_eq!(render(&list, Some(12)), "id    a\npath  0123456789\n\nid    b\npath  x\n");
    }

    #[test]
    fn lists_within_an_object_are_tables_below_it() {
        let stats = json!({"hz": 5, "workers": [{"worker": 0}], "ports": []});
        assert_eq!(render(&stats, None), "hz     5\nports\n\nworkers:\nworker\n     0\n");
    }

    #[test]
    fn each_switch_is_shown_with_its_tables() {
        let switch = |id| json!({"switchid": id, "ports": [{"name": "p0"}], "macs": []});
        let one = |id| format!("switchid  {id}\nmacs\n\nports:\nname\np0\n");
        let all = reply("query-switch", &json!([switch(1), switch(2)]), None);
        assert_eq!(all, format!("{}\n{}", one(1), one(2)));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(render(&json!({"name": "a\u{1b}[2J"}), None), "name  a?[2J\n");
    }
}
