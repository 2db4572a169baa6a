//! `-chardev` and the `-qmp` short forms to what `chardev-add` takes.
//!
//! These use QEMU's older option syntax: `key=value` with `,,` for a comma, a leading value without key, and the short
//! boolean forms `server` and `nowait`.

use serde_json::{Map, Value, json};

/// One option string, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options(Vec<(String, String)>);

impl Options {
    /// Splits `text`. A first part without `=` is the value of `implied`.
    #[must_use]
    pub fn parse(text: &str, implied: &str) -> Self {
        let mut options = Vec::new();
        for (index, part) in split(text).into_iter().enumerate() {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None if index == 0 && !implied.is_empty() => (implied.to_owned(), part),
                None => match part.strip_prefix("no") {
                    Some(key) if !key.is_empty() && key != "delay" => (key.to_owned(), "off".to_owned()),
                    _ => (part, "on".to_owned()),
                },
            };
            options.push((key, value));
        }
        Self(options)
    }

    /// The last value of `key`, which counts.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// `on` or `off`.
    ///
    /// # Errors
    /// QEMU's sentence for anything else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.get(key) {
            None => Ok(None),
            Some("on" | "yes" | "true" | "y") => Ok(Some(true)),
            Some("off" | "no" | "false" | "n") => Ok(Some(false)),
            Some(_) => Err(format!("Parameter '{key}' expects 'on' or 'off'")),
        }
    }

    /// An integer, decimal or `0x`.
    ///
    /// # Errors
    /// QEMU's sentence for anything else.
    pub fn number(&self, key: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let number = match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map(Some).map_err(|_| format!("Parameter '{key}' expects a number"))
    }

    /// Refuses any key that is not in `known`.
    ///
    /// # Errors
    /// QEMU's sentence, naming the first one.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(format!("Invalid parameter '{key}'")),
            None => Ok(()),
        }
    }
}

/// Splits at commas; `,,` is a comma.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        let last = parts.len() - 1;
        match next {
            ',' if rest.next_if_eq(&',').is_some() => parts[last].push(','),
            ',' => parts.push(String::new()),
            other => parts[last].push(other),
        }
    }
    if parts.len() > 1 && parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    parts
}

const SOCKET_KEYS: &[&str] = &[
    "backend",
    "id",
    "path",
    "host",
    "port",
    "fd",
    "to",
    "ipv4",
    "ipv6",
    "abstract",
    "tight",
    "server",
    "wait",
    "nodelay",
    "reconnect",
    "reconnect-ms",
    "telnet",
    "tn3270",
    "websocket",
    "tls-creds",
    "tls-authz",
    "logfile",
    "logappend",
    "logtimestamp",
    "mux",
];

/// A `-chardev` option: the name, and the `backend` argument of `chardev-add`.
///
/// # Errors
/// QEMU's sentences.
pub fn chardev(text: &str) -> Result<(String, Value), String> {
    if text.trim_start().starts_with('{') {
        return from_json(text);
    }
    let options = Options::parse(text, "backend");
    let Some(id) = options.get("id") else { return Err("chardev: no id specified".to_owned()) };
    if !is_identifier(id) {
        return Err("Parameter 'id' expects an identifier\n\
                    Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
            .to_owned());
    }
    let Some(kind) = options.get("backend") else { return Err(format!("chardev: \"{id}\" missing backend")) };
    Ok((id.to_owned(), backend(kind, &options)?))
}

fn from_json(text: &str) -> Result<(String, Value), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("JSON parse error, {error}"))?;
    let id = value["id"].as_str().ok_or("Parameter 'id' is missing")?;
    let backend = value.get("backend").ok_or("Parameter 'backend' is missing")?;
    Ok((id.to_owned(), backend.clone()))
}

/// The short forms of `-qmp`: `unix:PATH,...`, `tcp:HOST:PORT,...`, `stdio`, `null`; and `chardev:ID`, which makes none.
#[derive(Debug, Clone, PartialEq)]
pub enum Short {
    /// A chardev to be made: the `backend` argument of `chardev-add`.
    New(Value),
    /// One that exists.
    Existing(String),
}

/// Reads a short form.
///
/// # Errors
/// QEMU's sentences.
pub fn short(text: &str) -> Result<Short, String> {
    if let Some(id) = text.strip_prefix("chardev:") {
        return Ok(Short::Existing(id.to_owned()));
    }
    if let Some(rest) = text.strip_prefix("unix:") {
        let options = Options::parse(rest, "path");
        return backend("socket", &options).map(Short::New);
    }
    if let Some(rest) = text.strip_prefix("tcp:") {
        let (address, options) = match rest.split_once(',') {
            Some((address, options)) => (address, Options::parse(options, "")),
            None => (rest, Options(Vec::new())),
        };
        let Some((host, port)) = address.rsplit_once(':') else {
            return Err(format!("parse error: {text}: write tcp:HOST:PORT"));
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let mut options = options;
        options.0.push(("host".to_owned(), host.to_owned()));
        options.0.push(("port".to_owned(), port.to_owned()));
        return backend("socket", &options).map(Short::New);
    }
    match text {
        "stdio" | "null" => Ok(Short::New(json!({"type": text, "data": {}}))),
        other => {
            let kind = other.split([':', ',']).next().unwrap_or(other);
            Err(format!(
                "'{kind}' is not a valid char driver: use unix:PATH, tcp:HOST:PORT, stdio or chardev:ID"
            ))
        }
    }
}

fn backend(kind: &str, options: &Options) -> Result<Value, String> {
    match kind {
        "socket" => Ok(json!({"type": "socket", "data": socket(options)?})),
        "null" | "stdio" => {
            options.only(&["backend", "id", "signal", "mux", "logfile", "logappend", "logtimestamp"])?;
            let mut data = Map::new();
            if let Some(file) = options.get("logfile") {
                data.insert("logfile".to_owned(), json!(file));
            }
            Ok(json!({"type": kind, "data": data}))
        }
        other => Err(format!("'{other}' is not a valid char driver name")),
    }
}

fn socket(options: &Options) -> Result<Value, String> {
    options.only(SOCKET_KEYS)?;
    if options.flag("mux")? == Some(true) {
        return Err("'mux' is not supported by netdevd".to_owned());
    }
    let mut data = Map::new();
    let given = ["path", "fd", "host", "port"].map(|key| options.get(key));
    let address = match given {
        [Some(path), None, None, None] => {
            let mut unix = Map::from_iter([("path".to_owned(), json!(path))]);
            for key in ["abstract", "tight"] {
                if let Some(flag) = options.flag(key)? {
                    unix.insert(key.to_owned(), json!(flag));
                }
            }
            json!({"type": "unix", "data": unix})
        }
        [None, Some(fd), None, None] => json!({"type": "fd", "data": {"str": fd}}),
        [None, None, Some(_), None] => return Err("chardev: socket: no port given".to_owned()),
        [None, None, host, Some(port)] => {
            let mut inet = Map::from_iter([
                ("host".to_owned(), json!(host.unwrap_or_default())),
                ("port".to_owned(), json!(port)),
            ]);
            for key in ["ipv4", "ipv6"] {
                if let Some(flag) = options.flag(key)? {
                    inet.insert(key.to_owned(), json!(flag));
                }
            }
            if let Some(to) = options.number("to")? {
                inet.insert("to".to_owned(), json!(to));
            }
            json!({"type": "inet", "data": inet})
        }
        [None, None, None, None] => return Err("chardev: socket: no path, host or fd given".to_owned()),
        _ => return Err("None or one of 'path', 'fd' or 'host' option required.".to_owned()),
    };
    data.insert("addr".to_owned(), address);
    // On the command line a socket connects unless told otherwise; chardev-add has it the other way round.
    let server = options.flag("server")?.unwrap_or(false);
    data.insert("server".to_owned(), json!(server));
    for key in ["wait", "nodelay", "telnet", "tn3270", "websocket"] {
        if let Some(flag) = options.flag(key)? {
            data.insert(key.to_owned(), json!(flag));
        }
    }
    if options.flag("delay")? == Some(false) {
        data.insert("nodelay".to_owned(), json!(true));
    }
    for key in ["reconnect", "reconnect-ms"] {
        if let Some(number) = options.number(key)? {
            data.insert(key.to_owned(), json!(number));
        }
    }
    for key in ["tls-creds", "tls-authz", "logfile"] {
        if let Some(text) = options.get(key) {
            data.insert(key.to_owned(), json!(text));
        }
    }
    Ok(Value::Object(data))
}

/// QEMU's rule for names: a letter, then letters, digits, `-`, `.`, `_`.
#[must_use]
pub fn is_identifier(id: &str) -> bool {
    let mut bytes = id.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_commas_are_commas() {
        let options = Options::parse("/tmp/a,,b,server,nowait", "path");
        assert_eq!(options.get("path"), Some("/tmp/a,b"));
        assert_eq!(options.flag("server"), Ok(Some(true)));
        assert_eq!(options.flag("wait"), Ok(Some(false)));
    }

    #[test]
    fn a_socket_becomes_what_chardev_add_takes() {
        let (id, value) = chardev("socket,id=c0,path=/p,server=on,wait=off").unwrap();
        assert_eq!(id, "c0");
        assert_eq!(
            value,
            json!({"type": "socket", "data": {
                "addr": {"type": "unix", "data": {"path": "/p"}}, "server": true, "wait": false}})
        );
        let Short::New(value) = short("tcp:[::1]:4444,server=on").unwrap() else { panic!() };
        assert_eq!(value["data"]["addr"]["data"], json!({"host": "::1", "port": "4444"}));
    }

    #[test]
    fn mistakes_are_named_as_qemu_names_them() {
        let text = |text| chardev(text).unwrap_err();
        assert_eq!(text("socket"), "chardev: no id specified");
        assert_eq!(text("id=a"), "chardev: \"a\" missing backend");
        assert_eq!(text("foo,id=a"), "'foo' is not a valid char driver name");
        assert_eq!(text("socket,id=a,path=/z,foo=1"), "Invalid parameter 'foo'");
        assert_eq!(text("socket,id=a,path=/z,server=zz"), "Parameter 'server' expects 'on' or 'off'");
        assert_eq!(text("socket,id=a,host=h"), "chardev: socket: no port given");
        assert_eq!(
            text("socket,id=a,path=/z,host=1"),
            "None or one of 'path', 'fd' or 'host' option required."
        );
        assert!(text("socket,id=2a,path=/z").starts_with("Parameter 'id' expects an identifier"));
    }
}
