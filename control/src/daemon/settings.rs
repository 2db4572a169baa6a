//! The command line: options in QEMU's spelling, with one dash or two, the argument behind or after `=`.

use super::Fatal;
use engine::worker::idle::Idle;
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `-chardev`, in order.
    pub(super) chardevs: Vec<String>,
    /// `-netdev`, in order.
    pub(super) netdevs: Vec<String>,
    /// `-device`, in order.
    pub(super) devices: Vec<String>,
    /// `-object`, in order.
    pub(super) objects: Vec<String>,
    /// `-mon`, in order.
    pub(super) mons: Vec<String>,
    /// `-qmp` and `-qmp-pretty`, in order, with whether it is the latter.
    pub(super) qmps: Vec<(String, bool)>,
    /// `-cores`.
    pub(super) cores: Vec<usize>,
    /// `-idle`.
    pub(super) idle: Idle,
    /// `-config`.
    pub(super) configs: Vec<PathBuf>,
    /// `-daemonize`.
    pub(super) daemonize: bool,
    /// `-pidfile`.
    pub(super) pidfile: Option<PathBuf>,
    /// `-metrics`, in order.
    pub(super) metrics: Vec<String>,
    /// `-D`, `-logfile`.
    pub(super) logfile: Option<PathBuf>,
    /// `-name`.
    pub(super) name: Option<String>,
    /// `-io`: batched system calls where io_uring would be used.
    pub(super) batched: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Run with these settings.
    Run(Box<Settings>),
    /// Print this and end well.
    Print(String),
}

/// Options that take no argument.
const FLAGS: [&str; 5] = ["h", "help", "version", "daemonize", "nodefaults"];

/// Reads the arguments behind the program's name.
pub(super) fn parse(args: impl IntoIterator<Item = String>) -> Result<Action, Fatal> {
    let mut settings = Settings::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix('-').map(|a| a.strip_prefix('-').unwrap_or(a)) else {
            return Err(Fatal::new(format!("{arg}: not an option; netdevd takes no files (see -help)")));
        };
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (name.to_owned(), None),
        };
        if FLAGS.contains(&name.as_str()) {
            match name.as_str() {
                "daemonize" => settings.daemonize = true,
                "version" => return Ok(Action::Print(super::help::version())),
                "nodefaults" => {}
                _ => return Ok(Action::Print(super::help::text())),
            }
            continue;
        }
        if !super::help::knows(&name) {
            return Err(Fatal::new(format!("{arg}: invalid option")));
        }
        let value = match inline {
            Some(value) => value,
            None => args.next().ok_or_else(|| Fatal::new(format!("-{name}: requires an argument")))?,
        };
        if let Some(text) = option(&mut settings, &name, value)? {
            return Ok(Action::Print(text));
        }
    }
    Ok(Action::Run(Box::new(settings)))
}

/// Takes one option with its argument; gives the text that it asks to be printed.
fn option(settings: &mut Settings, name: &str, value: String) -> Result<Option<String>, Fatal> {
    let path = |value: &str| Some(PathBuf::from(value));
    match name {
        "netdev" => match crate::options::help("Netdev", &value) {
            Some(text) => return Ok(Some(text)),
            None => settings.netdevs.push(value),
        },
        "object" => match crate::options::help("ObjectOptions", &value) {
            Some(text) => return Ok(Some(text)),
            None => settings.objects.push(value),
        },
        "chardev" => settings.chardevs.push(value),
        "mon" => settings.mons.push(value),
        "qmp" => settings.qmps.push((value, false)),
        "qmp-pretty" => settings.qmps.push((value, true)),
        "cores" => settings.cores = cores(&value)?,
        "idle" => {
            settings.idle = match value.as_str() {
                "poll" => Idle::Poll,
                "adaptive" => Idle::Adaptive,
                _ => return Err(Fatal::option(name, &value, "choose 'adaptive' or 'poll'")),
            }
        }
        "io" => {
            settings.batched = match value.as_str() {
                "auto" => false,
                "batched" => true,
                _ => return Err(Fatal::option(name, &value, "choose 'auto' or 'batched'")),
            }
        }
        "config" => settings.configs.push(value.into()),
        "pidfile" => settings.pidfile = path(&value),
        "metrics" => settings.metrics.push(value),
        "D" | "logfile" => settings.logfile = path(&value),
        "name" => settings.name = Some(value),
        "sandbox" => match value.as_str() {
            "off" => {}
            _ => return Err(Fatal::option(name, &value, "the sandbox is not built yet; leave it 'off'")),
        },
        "device" => match crate::options::device::help(&value) {
            Some(text) => return Ok(Some(text)),
            None => settings.devices.push(value),
        },
        "nic" => {
            let why = "not built: make a netdev by -netdev and a nic on it by -device, or by -netdev nic";
            return Err(Fatal::option(name, &value, why));
        }
        _ => return Err(Fatal::new(format!("-{name}: invalid option"))),
    }
    Ok(None)
}

/// `2,3` or `2-5,8`.
fn cores(text: &str) -> Result<Vec<usize>, Fatal> {
    let bad = || Fatal::option("cores", text, "expected core numbers, for example '2,3' or '2-5'");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let from: usize = from.parse().map_err(|_| bad())?;
        let to: usize = to.parse().map_err(|_| bad())?;
        if from > to || to >= 1024 {
            return Err(bad());
        }
        cores.extend(from..=to);
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Settings {
        match parse(args.iter().map(ToString::to_string)) {
            Ok(Action::Run(settings)) => *settings,
            other => panic!("{other:?}"),
        }
    }

    fn error(args: &[&str]) -> String {
        parse(args.iter().map(ToString::to_string)).unwrap_err().to_string()
    }

    #[test]
    fn options_take_one_dash_or_two_and_keep_their_order() {
        let s = run(&["-netdev", "hubport,id=a,hubid=0", "--netdev=hubport,id=b,hubid=0", "--daemonize"]);
        assert_eq!(s.netdevs, ["hubport,id=a,hubid=0", "hubport,id=b,hubid=0"]);
        assert!(s.daemonize);
    }

    #[test]
    fn cores_are_numbers_and_ranges() {
        assert_eq!(run(&["-cores", "2,4-6"]).cores, [2, 4, 5, 6]);
        for bad in ["", "x", "3-1", "1,", "-1", "4096"] {
            assert!(error(&["-cores", bad]).starts_with("-cores"), "{bad}");
        }
    }

    #[test]
    fn what_is_not_known_or_not_built_says_so() {
        assert_eq!(error(&["-netdevs", "x"]), "-netdevs: invalid option");
        assert_eq!(error(&["-netdev"]), "-netdev: requires an argument");
        assert!(error(&["-sandbox", "on"]).contains("not built yet"));
        assert!(error(&["-nic", "tap"]).contains("not built"));
        assert!(error(&["file"]).contains("not an option"));
    }
}
