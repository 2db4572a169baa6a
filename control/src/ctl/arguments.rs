//! The command line: options, and the commands between `--`.

use super::Failure;
use std::os::fd::RawFd;
use std::time::Duration;

/// What the user asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Invocation {
    /// The socket, where `-s` names it.
    pub(super) socket: Option<String>,
    /// JSON, a value a line, instead of tables.
    pub(super) json: bool,
    pub(super) action: Action,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Commands, one after the other on one connection.
    Run(Vec<Step>),
    /// Counters: once, or again and again, so many times.
    Stats { every: Option<Duration>, count: Option<u64> },
    /// Events as they come, so many.
    Events { count: Option<u64> },
    /// The list of commands.
    Commands,
    /// Help in general, or on a command, or on a kind of what it makes.
    Help { command: Option<String>, kind: Option<String> },
    /// The version.
    Version,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Step {
    pub(super) words: Vec<String>,
    /// Number of an open file that goes with it.
    pub(super) file: Option<RawFd>,
}

/// Options that may stand anywhere.
#[derive(Default)]
struct Options {
    socket: Option<String>,
    json: bool,
    every: Option<Duration>,
    count: Option<u64>,
    special: Option<Action>,
}

/// Reads the words after the program's name.
///
/// # Errors
/// [`Failure::Usage`].
pub(super) fn parse(words: impl IntoIterator<Item = String>) -> Result<Invocation, Failure> {
    let mut words = words.into_iter().peekable();
    let mut options = Options::default();
    let mut steps = vec![Step::default()];
    while let Some(word) = words.next() {
        let step = steps.last_mut().unwrap_or_else(|| unreachable!("there is always a step"));
        // A human monitor's line may hold anything.
        if word == "--" {
            steps.push(Step::default());
        } else if !word.starts_with('-') || step.words.first().is_some_and(|first| first == "hmp") {
            step.words.push(word);
        } else {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            option(name, value, &mut words, &mut options, step)?;
        }
    }
    let action = match options.special.take() {
        Some(action) => action,
        None => action(steps, &mut options)?,
    };
    if options.every.is_some() || options.count.is_some() {
        return Err(usage("-w and -n go with stats, -n with events"));
    }
    Ok(Invocation { socket: options.socket, json: options.json, action })
}

/// Takes one option, whose value may be the next word.
fn option(
    name: &str,
    value: Option<String>,
    words: &mut std::iter::Peekable<impl Iterator<Item = String>>,
    options: &mut Options,
    step: &mut Step,
) -> Result<(), Failure> {
    let mut needed = |value: Option<String>| {
        value.or_else(|| words.next()).ok_or_else(|| usage(&format!("{name} needs a value")))
    };
    match name {
        "-s" | "--socket" => options.socket = Some(needed(value)?),
        "--fd" => step.file = Some(number(name, &needed(value)?)?),
        "-n" | "--count" => options.count = Some(number(name, &needed(value)?)?),
        "-w" | "--watch" => {
            let value = value.or_else(|| words.next_if(|next| next.parse::<f64>().is_ok()));
            options.every = Some(seconds(value.as_deref().unwrap_or("1"))?);
        }
        _ if value.is_some() => return Err(usage(&format!("unknown option {name}="))),
        "--json" | "-j" => options.json = true,
        "--help" | "-h" | "-help" => options.special = Some(Action::Help { command: None, kind: None }),
        "--version" | "-V" | "-version" => options.special = Some(Action::Version),
        _ => return Err(usage(&format!("unknown option {name}"))),
    }
    Ok(())
}

/// What the words ask for; options that belong to it are taken.
fn action(mut steps: Vec<Step>, options: &mut Options) -> Result<Action, Failure> {
    if steps.iter().any(|step| step.words.is_empty()) {
        return Err(usage("a command is missing"));
    }
    let single = steps.len() == 1;
    let words = steps[0].words.as_slice();
    let own = matches!(words[0].as_str(), "stats" | "events" | "commands" | "help");
    if !own || !single {
        let misplaced =
            |step: &Step| matches!(step.words[0].as_str(), "stats" | "events" | "commands" | "help");
        if let Some(step) = steps.iter().find(|step| misplaced(step)) {
            return Err(usage(&format!("{} cannot be one of several commands", step.words[0])));
        }
        return Ok(Action::Run(steps));
    }
    let most = if words[0] == "help" { 3 } else { 1 };
    if let Some(word) = words.get(most) {
        return Err(usage(&format!("{}: unexpected '{word}'", words[0])));
    }
    if steps[0].file.is_some() {
        return Err(usage("--fd goes with a command"));
    }
    let mut words = steps.remove(0).words.into_iter();
    Ok(match words.next().as_deref() {
        Some("stats") => Action::Stats { every: options.every.take(), count: options.count.take() },
        Some("events") => Action::Events { count: options.count.take() },
        Some("commands") => Action::Commands,
        _ => Action::Help { command: words.next(), kind: words.next() },
    })
}

fn number<N: std::str::FromStr>(name: &str, text: &str) -> Result<N, Failure> {
    text.parse().map_err(|_| usage(&format!("{name} takes a number, not '{text}'")))
}

fn seconds(text: &str) -> Result<Duration, Failure> {
    let value: f64 = number("-w", text)?;
    match Duration::try_from_secs_f64(value) {
        // Shorter would measure the daemon's answers more than its traffic.
        Ok(every) if every >= Duration::from_millis(10) => Ok(every),
        _ => Err(usage(&format!("-w takes seconds, at least 0.01, not '{text}'"))),
    }
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Invocation {
        parse(text.split(' ').map(str::to_owned)).unwrap()
    }

    fn refused(text: &str) -> String {
        let error = parse(text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned)).unwrap_err();
        assert_eq!(error.status(), 2);
        error.to_string()
    }

    fn step(text: &str, file: Option<RawFd>) -> Step {
        Step { words: text.split(' ').map(str::to_owned).collect(), file }
    }

    #[test]
    fn options_stand_before_or_behind_the_command() {
        let before = parsed("-s /x --json set_link name=a up=off");
        assert_eq!(before, parsed("set_link name=a up=off --socket=/x -j"));
        assert_eq!(before.socket.as_deref(), Some("/x"));
        assert_eq!(before.action, Action::Run(vec![step("set_link name=a up=off", None)]));
    }

    #[test]
    fn dashes_separate_commands_and_files_go_with_theirs() {
        assert_eq!(
            parsed("--fd 3 getfd fdname=t -- netdev_add type=tap fd=t").action,
            Action::Run(vec![step("getfd fdname=t", Some(3)), step("netdev_add type=tap fd=t", None)])
        );
        assert_eq!(parsed("hmp x -a --json").action, Action::Run(vec![step("hmp x -a --json", None)]));
    }

    #[test]
    fn watching_has_an_interval_and_a_count() {
        let stats = |ms: u64, count| Action::Stats { every: Some(Duration::from_millis(ms)), count };
        assert_eq!(parsed("stats -w").action, stats(1000, None));
        assert_eq!(parsed("stats -w 0.5 -n 3").action, stats(500, Some(3)));
        assert_eq!(parsed("-w stats").action, stats(1000, None));
        assert_eq!(parsed("events -n 1").action, Action::Events { count: Some(1) });
    }

    #[test]
    fn help_and_version_need_nothing_else() {
        assert_eq!(parsed("--version").action, Action::Version);
        assert_eq!(parsed("-h").action, Action::Help { command: None, kind: None });
        let help = Action::Help { command: Some("netdev_add".into()), kind: Some("tap".into()) };
        assert_eq!(parsed("help netdev_add tap").action, help);
    }

    #[test]
    fn mistakes_are_named() {
        for (words, text) in [
            ("", "a command is missing"),
            ("a --", "a command is missing"),
            ("--frob", "unknown option --frob"),
            ("quit -s", "-s needs a value"),
            ("quit --fd x", "--fd takes a number, not 'x'"),
            ("quit -n 3", "-w and -n go with stats, -n with events"),
            ("events -w", "-w and -n go with stats, -n with events"),
            ("stats -w 0", "-w takes seconds, at least 0.01, not '0'"),
            ("stats t0", "stats: unexpected 't0'"),
            ("quit -- stats", "stats cannot be one of several commands"),
        ] {
            assert_eq!(refused(words), text);
        }
    }
}
