//! `human-monitor-command`: command lines of QEMU's human monitor that concern the network.
//!
//! Text goes out with CRLF line ends, errors as `Error: ...`, as `monitor/hmp.c` has it.

mod info;
mod line;
mod table;

use super::args::Args;
use super::{Context, Outcome, State};
use crate::options::{self, id::well_formed, opts::Opts};
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::schema::{self, Dialect, Schema};
use line::{Parsed, Words};
use serde_json::{Map, Value};

/// A bad id, with the hint that only people get.
const BAD_ID: &str = "Error: Parameter 'id' expects an identifier\n\
    Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n";

/// The text that stands for a QMP reply.
pub(super) fn reply(result: Result<Value, QmpError>) -> String {
    match result {
        Ok(Value::String(text)) => crlf(&text),
        Ok(_) => String::new(),
        Err(error) => crlf(&format!("Error: {error}\n")),
    }
}

/// Line ends as the human monitor writes them.
fn crlf(text: &str) -> String {
    text.replace('\n', "\r\n")
}

/// An object with these members.
fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl State {
    /// Runs a line; its errors are text too, so the QMP reply is an error only for `cpu-index`.
    pub(super) fn human_monitor_command(
        &mut self,
        cx: &mut Context<'_>,
        args: &Map<String, Value>,
    ) -> Outcome {
        // There is no CPU, but `qmp-shell -H` always names the first.
        if args.get("cpu-index").is_some_and(|index| *index != 0) {
            return Err(QmpError::generic("Parameter 'cpu-index' expects a CPU number")).into();
        }
        match line::parse(args.text("command-line")) {
            Parsed::Empty => Ok("".into()).into(),
            Parsed::Refused(text) => Ok(crlf(&text).into()).into(),
            Parsed::Command(name, words) => match self.run_line(cx, name, &words) {
                Answer::Text(text) => Ok(crlf(&text).into()).into(),
                Answer::Reply(Outcome::Done(result)) => Ok(reply(result).into()).into(),
                Answer::Reply(Outcome::Later(ticket)) => {
                    self.human.insert(ticket);
                    Outcome::Later(ticket)
                }
            },
        }
    }

    fn run_line(&mut self, cx: &mut Context<'_>, name: &str, words: &Words) -> Answer {
        let first = words.text(0);
        match name {
            "info network" => Answer::Text(self.info_network()),
            "info chardev" => Answer::Text(self.info_chardev()),
            "info version" => Answer::Text(info::version()),
            "info status" => Answer::Text("VM status: running\n".into()),
            "info name" => Answer::Text(String::new()),
            "info usernet" => Answer::Reply(self.info_usernet()),
            "info" => Answer::Text(table::help("info").unwrap_or_default()),
            "help" => Answer::Text(match table::help(first) {
                Some(text) => text,
                None => format!("unknown command: '{first}'\n"),
            }),
            "hostfwd_add" => Answer::Reply(self.forward_line(true, first, words.text(1))),
            "hostfwd_remove" => Answer::Reply(self.forward_line(false, first, words.text(1))),
            "netdev_add" => self.netdev_add_line(cx, first, words.whole()),
            "device_add" => self.device_add_line(first, words.whole(), cx.events),
            "device_del" => Answer::Reply(self.device_del(&object([("id", first.into())]))),
            "netdev_del" => Answer::Reply(self.netdev_del(&object([("id", first.into())]), cx.events)),
            "object_add" => self.object_add_line(first),
            "object_del" => Answer::Reply(self.object_del(&object([("id", first.into())]))),
            "announce_self" => Answer::Reply(Ok(self.announce_self_line(first, words.text(1))).into()),
            "set_link" => {
                let args = object([("name", first.into()), ("up", words.flag(1).into())]);
                Answer::Reply(self.set_link(&args, cx.events).into())
            }
            "chardev-remove" => Answer::Reply(self.chardev_remove(&object([("id", first.into())])).into()),
            "getfd" => {
                let args = object([("fdname", first.into())]);
                Answer::Reply(self.fds.getfd(cx.monitor, cx.received, &args).into())
            }
            "closefd" => {
                Answer::Reply(self.fds.closefd(cx.monitor, &object([("fdname", first.into())])).into())
            }
            "quit" => Answer::Reply(Ok(self.quit(cx.events)).into()),
            _ => Answer::Text(format!("unknown command: '{name}'\n")),
        }
    }

    /// QEMU keeps the options of a netdev added here in a list of their own, which refuses a bad or repeated id before
    /// the command proper sees it; what it says goes to the log, and the monitor gets a pointer to the help.
    fn netdev_add_line(&mut self, cx: &mut Context<'_>, text: &str, line: &str) -> Answer {
        let refused = Answer::Text(format!("Try \"help {line}\" for more information\n"));
        let Ok(opts) = Opts::parse(text, "type") else { return refused };
        if opts.id().is_some_and(|id| self.by_line.contains(id) && self.net.check_free(id).is_err()) {
            return refused;
        }
        let asks = matches!(opts.get("type"), Some("help" | "?"));
        if let Some(help) = options::help("Netdev", if asks { "help" } else { text }) {
            return Answer::Text(help);
        }
        if text.starts_with('{') {
            // The human monitor reads no JSON: this is a type, and no id.
            return Answer::Reply(Err(QmpError::generic("Parameter 'id' is missing")).into());
        }
        match options::from_cli("Netdev", text) {
            Ok(args) => {
                let name = args.text("id").to_owned();
                let outcome = self.netdev_add(cx.monitor, args, cx.events);
                if !matches!(outcome, Outcome::Done(Err(_))) {
                    self.by_line.insert(name);
                }
                Answer::Reply(outcome)
            }
            Err(error) => Answer::Reply(Err(error).into()),
        }
    }

    fn device_add_line(&mut self, text: &str, line: &str, events: &mut Vec<Event>) -> Answer {
        if Opts::parse(text, "driver").is_err() {
            return Answer::Text(format!("Try \"help {line}\" for more information\n"));
        }
        if let Some(help) = options::device::help(text) {
            return Answer::Text(help);
        }
        Answer::Reply(options::device::from_cli(text).and_then(|args| self.device_add(args, events)).into())
    }

    fn object_add_line(&mut self, text: &str) -> Answer {
        if let Some(help) = options::help("ObjectOptions", text) {
            return Answer::Text(help);
        }
        match object_arguments(text) {
            Ok(args) if !well_formed(args.text("id")) => Answer::Text(BAD_ID.to_owned()),
            Ok(args) => Answer::Reply(self.object_add(&args)),
            Err(error) => Answer::Reply(Err(error).into()),
        }
    }
}

/// The human monitor reads objects with dotted keys, where the command line takes flat options.
fn object_arguments(text: &str) -> Result<Map<String, Value>, QmpError> {
    let schema = Schema::get();
    let Some(id) = schema.type_named("ObjectOptions").filter(|_| !text.starts_with('{')) else {
        return options::from_cli("ObjectOptions", text);
    };
    let value = Value::Object(options::keyval::parse(text, "qom-type")?);
    schema::check(schema, id, &value, Dialect::Keyval)?;
    match schema::typed(schema, id, value, Dialect::Keyval) {
        Value::Object(args) => Ok(args),
        _ => Ok(Map::new()),
    }
}

/// What a line came to.
enum Answer {
    /// Text, with plain line ends.
    Text(String),
    /// The answer of the QMP command behind it.
    Reply(Outcome),
}
