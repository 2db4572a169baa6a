//! What netdevctl does with what it was asked for.

use super::arguments::{Action, Invocation, Step, parse};
use super::order::ordered;
use super::request::{Request, request};
use super::stats::{Stats, totals};
use super::{Address, Client, Failure, Screen, address, events, help, render, watch};
use crate::fds::inherited;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// Runs netdevctl: `words` are those after the program's name, `socket` is what `$NETDEVD_QMP` says.
///
/// # Errors
/// See [`Failure`]; what was printed before stays valid.
pub fn run(
    words: impl IntoIterator<Item = String>,
    socket: Option<String>,
    screen: Screen,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Invocation { socket: option, json, action } = parse(words)?;
    let socket = option.or(socket.filter(|s| !s.is_empty())).unwrap_or_else(|| address::DEFAULT.to_owned());
    let connect = || Client::connect(&Address::parse(&socket)?);
    match action {
        Action::Help { command: None, .. } => out.write_all(help::USAGE.as_bytes())?,
        Action::Help { command: Some(command), kind } => {
            out.write_all(help::command(&command, kind.as_deref())?.as_bytes())?;
        }
        Action::Commands => out.write_all(help::commands(screen.columns).as_bytes())?,
        Action::Version => writeln!(out, "netdevctl {}", env!("CARGO_PKG_VERSION"))?,
        Action::Run(steps) => commands(&steps, connect, json, screen, out)?,
        Action::Events { count } => events::events(&mut connect()?, count, json, out)?,
        Action::Stats { every: Some(every), count } => {
            watch::watch(&mut connect()?, every, count, json, screen, out)?;
        }
        Action::Stats { every: None, count: Some(_) } => {
            return Err(Failure::Usage("stats -n goes with -w".to_owned()));
        }
        Action::Stats { every: None, count: None } => {
            let reply = connect()?.execute(r#"{"execute": "query-net-stats"}"#, None)?;
            match json {
                true => writeln!(out, "{reply}")?,
                false => out.write_all(totals(&Stats::read(&reply)?, screen.columns).as_bytes())?,
            }
        }
    }
    Ok(out.flush()?)
}

/// Sends the commands in order; the first error ends it. All are read before the first is sent.
fn commands(
    steps: &[Step],
    connect: impl FnOnce() -> Result<Client, Failure>,
    json: bool,
    screen: Screen,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut requests: Vec<(Request, Option<OwnedFd>)> = Vec::with_capacity(steps.len());
    for step in steps {
        let open = |n| inherited(n).map_err(|e| Failure::Usage(format!("--fd {n}: {}", e.desc())));
        requests.push((request(&step.words)?, step.file.map(open).transpose()?));
    }
    let mut client = connect()?;
    for (request, file) in &requests {
        let reply = client.execute(&request.line, file.as_ref().map(AsFd::as_fd))?;
        let reply = ordered(&request.command, reply);
        match json {
            true => writeln!(out, "{reply}")?,
            false => out.write_all(render::reply(&request.command, &reply, screen.columns).as_bytes())?,
        }
    }
    Ok(())
}
