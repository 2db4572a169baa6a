//! `iothread` objects (QEMU `iothread.c`, `event-loop-base.c`): a name that `colo-compare` asks for. Here every comparison has a thread of its own.

use crate::commands::args::Args;
use crate::qmp::error::QmpError;
use serde_json::{Map, Value, json};

/// QEMU's default of `thread-pool-max`, and of `poll-max-ns`.
const DEFAULTS: [(&str, i64); 6] = [
    ("thread-pool-min", 0),
    ("aio-max-batch", 0),
    ("thread-pool-max", 64),
    ("poll-max-ns", 32768),
    ("poll-grow", 0),
    ("poll-shrink", 0),
];

/// The properties of a new thread.
pub(super) fn properties(args: &Map<String, Value>) -> Result<Map<String, Value>, QmpError> {
    let mut own = DEFAULTS.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    for (name, _) in DEFAULTS {
        if let Some(number) = args.int(name) {
            check(name, number)?;
            own = with(own, name, number);
        }
    }
    check_pool(&own)?;
    Ok(own)
}

/// Sets one property.
pub(super) fn set(own: &mut Map<String, Value>, name: &str, value: &Value) -> Result<(), QmpError> {
    let number = value.as_i64().ok_or_else(|| {
        QmpError::generic(format!("Invalid parameter type for '{name}', expected: integer"))
    })?;
    check(name, number)?;
    let changed = with(own.clone(), name, number);
    check_pool(&changed)?;
    *own = changed;
    Ok(())
}

fn with(mut own: Map<String, Value>, name: &str, number: i64) -> Map<String, Value> {
    own.insert(name.to_owned(), json!(number));
    own
}

fn check(name: &str, number: i64) -> Result<(), QmpError> {
    if number < 0 {
        return Err(QmpError::generic(format!("{name} value must be in range [0, {}]", i64::MAX)));
    }
    Ok(())
}

fn check_pool(own: &Map<String, Value>) -> Result<(), QmpError> {
    let (least, most) = (own.int("thread-pool-min").unwrap_or(0), own.int("thread-pool-max").unwrap_or(0));
    if most == 0 || least > most || most > i64::from(i32::MAX) {
        return Err(QmpError::generic("bad thread-pool-min/thread-pool-max values"));
    }
    Ok(())
}
