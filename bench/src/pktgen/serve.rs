//! Slices on demand: a line of JSON asks for one, a line of JSON answers. Between slices nothing runs, so a harness can read
//! counters of the other side, freeze it, and measure another one.

use super::end::End;
use super::frame::Shape;
use super::slice::{Role, Slice, run};
use crate::failure::{Context, Failure, Result};
use engine::worker::clock::Clock;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Duration;

/// Says `{"ready": true}` on `output`, then answers each line of `input` until it ends.
///
/// # Errors
/// A line that is no request, and those of [`run`].
pub fn serve(
    ends: &mut [End],
    shape: &Shape,
    clock: &Clock,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<()> {
    let mut say = |value: &Value| -> Result<()> {
        writeln!(output, "{value}").and_then(|()| output.flush()).context("standard output")
    };
    say(&json!({"ready": true}))?;
    for line in input.lines() {
        let line = line.context("standard input")?;
        let slice = parse(&line)?;
        say(&run(ends, shape, clock, &slice)?.json())?;
    }
    Ok(())
}

/// Reads a request: `{"role": "both", "rate": 1e6, "warm": 0.01, "secs": 0.2, "stamps": false, "verify": false}`.
fn parse(line: &str) -> Result<Slice> {
    let value: Value = serde_json::from_str(line).context(line)?;
    let seconds = |name: &str| Duration::try_from_secs_f64(value[name].as_f64().unwrap_or(0.0)).context(name);
    let flag = |name: &str| value[name].as_bool().unwrap_or(false);
    Ok(Slice {
        role: value["role"].as_str().map_or(Ok(Role::Both), role)?,
        rate: value["rate"].as_f64(),
        warm: seconds("warm")?,
        duration: seconds("secs")?,
        stamps: flag("stamps"),
        verify: flag("verify"),
        ..Slice::default()
    })
}

/// A role by its name.
pub(super) fn role(name: &str) -> Result<Role> {
    Ok(match name {
        "both" => Role::Both,
        "forward" => Role::Forward,
        "sink" => Role::Sink,
        "reflect" => Role::Reflect,
        _ => return Err(Failure::new(format!("role {name}: both, forward, sink or reflect"))),
    })
}

impl std::str::FromStr for Role {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self> {
        role(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_what_differs_from_a_closed_loop() {
        let slice = parse(r#"{"role": "forward", "rate": 2e6, "secs": 0.2, "stamps": true}"#).unwrap();
        assert_eq!((slice.role, slice.rate, slice.stamps), (Role::Forward, Some(2e6), true));
        assert_eq!(slice.duration, Duration::from_millis(200));
        assert_eq!(parse("{}").unwrap().rate, None);
        assert!(
            parse("now").is_err() && parse(r#"{"role": "x"}"#).is_err() && parse(r#"{"secs": -1}"#).is_err()
        );
    }
}
