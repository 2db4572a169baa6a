//! From the words of a command to the line that is sent.

use super::Failure;
use crate::options;
use crate::options::keyval;
use crate::qmp::json::Parser;
use crate::schema::Schema;
use serde_json::{Map, Value, json};

/// One command, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Its name, where it has one.
    pub(super) command: String,
    /// The message as JSON text.
    pub(super) line: String,
}

/// Reads `NAME`, `NAME key=value...`, `NAME '{...}'`, `hmp LINE` or a whole message.
///
/// # Errors
/// [`Failure::Usage`]: arguments that the schema refuses, in its words.
pub(super) fn request(words: &[String]) -> Result<Request, Failure> {
    let Some((name, rest)) = words.split_first() else {
        return Err(Failure::Usage("a command is missing".to_owned()));
    };
    if name.starts_with('{') {
        return whole(name, rest);
    }
    let (name, arguments) = match name.as_str() {
        "hmp" => ("human-monitor-command", hmp(rest)?),
        name => (name, arguments(name, rest)?),
    };
    let message = match arguments.is_empty() {
        true => json!({"execute": name}),
        false => json!({"execute": name, "arguments": arguments}),
    };
    Ok(Request { command: name.to_owned(), line: message.to_string() })
}

/// A message that goes out as it is; the daemon would wait for the rest of an unfinished one for ever.
fn whole(text: &str, rest: &[String]) -> Result<Request, Failure> {
    let mut at = 0;
    match Parser::new().next(text.as_bytes(), &mut at) {
        Some(Ok(message)) if rest.is_empty() && text[at..].trim().is_empty() => {
            let command = message.get("execute").or(message.get("exec-oob")).and_then(Value::as_str);
            Ok(Request { command: command.unwrap_or_default().to_owned(), line: text.to_owned() })
        }
        Some(Ok(_)) => Err(Failure::Usage("one JSON message a command; -- separates commands".to_owned())),
        Some(Err(error)) => Err(Failure::Usage(error.to_string())),
        None => Err(Failure::Usage("the JSON message does not end".to_owned())),
    }
}

fn hmp(words: &[String]) -> Result<Map<String, Value>, Failure> {
    match words.is_empty() {
        true => Err(Failure::Usage("hmp needs a command line, such as 'info network'".to_owned())),
        false => Ok(Map::from_iter([("command-line".to_owned(), words.join(" ").into())])),
    }
}

fn arguments(command: &str, words: &[String]) -> Result<Map<String, Value>, Failure> {
    let usage = |desc: String| {
        let hint = if Schema::get().command(command).is_some() {
            format!(" (see netdevctl help {command})")
        } else {
            String::new()
        };
        Failure::Usage(format!("{command}: {desc}{hint}"))
    };
    if let [text] = words
        && text.starts_with('{')
    {
        // JSON has its own types: the daemon checks it.
        return keyval::parse(text, "").map_err(|e| usage(e.desc));
    }
    let words = words.iter().map(String::as_str);
    if Schema::get().command(command).is_some() {
        return options::arguments(command, words).map_err(|e| usage(e.desc));
    }
    // Another daemon may know it. Without a schema a value is what it is as JSON, else a string.
    let untyped = keyval::parse_words(words).map_err(|e| usage(e.desc))?;
    Ok(untyped.into_iter().map(|(key, value)| (key, guessed(value))).collect())
}

fn guessed(value: Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Value::Array(list) => list.into_iter().map(guessed).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, guessed(v))).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(words: &[&str]) -> Value {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        serde_json::from_str(&request(&words).unwrap().line).unwrap()
    }

    fn refused(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        request(&words).unwrap_err().to_string()
    }

    #[test]
    fn words_become_typed_arguments() {
        assert_eq!(
            sent(&["netdev_add", "type=tap", "id=t0", "script=no", "queues=2", "vnet_hdr=off"]),
            json!({"execute": "netdev_add", "arguments":
                {"type": "tap", "id": "t0", "script": "no", "queues": 2, "vnet_hdr": false}})
        );
        let stream = sent(&["netdev_add", "type=stream", "id=s", "addr.type=unix", "addr.path=/a,b"]);
        assert_eq!(stream["arguments"]["addr"], json!({"type": "unix", "path": "/a,b"}));
        assert_eq!(sent(&["query-status"]), json!({"execute": "query-status"}));
    }

    #[test]
    fn json_hmp_and_whole_messages_go_through() {
        let add = sent(&["netdev_add", "{'type': 'user', 'id': 'u'}"]);
        assert_eq!(add["arguments"], json!({"type": "user", "id": "u"}));
        let hmp = sent(&["hmp", "info", "network"]);
        assert_eq!(hmp["arguments"], json!({"command-line": "info network"}));
        assert_eq!(sent(&[r#"{"exec-oob": "x", "id": 1}"#]), json!({"exec-oob": "x", "id": 1}));
    }

    #[test]
    fn commands_of_another_daemon_are_sent_as_they_look() {
        let words = ["device-sync-config", "id=n0", "n=3", "on=true", "a.0=x"];
        assert_eq!(sent(&words)["arguments"], json!({"id": "n0", "n": 3, "on": true, "a": ["x"]}));
    }

    #[test]
    fn wrong_words_are_refused_with_the_reason() {
        assert_eq!(
            refused(&["set_link", "up=on"]),
            "set_link: Parameter 'name' is missing (see netdevctl help set_link)"
        );
        assert!(
            refused(&["netdev_add", "tap"]).starts_with("netdev_add: Expected '=' after parameter 'tap'")
        );
        assert_eq!(refused(&[]), "a command is missing");
        assert_eq!(refused(&[r#"{"execute": "#]), "the JSON message does not end");
        assert!(refused(&["{} {}"]).contains("one JSON message"));
        assert!(refused(&["hmp"]).contains("info network"));
    }
}
