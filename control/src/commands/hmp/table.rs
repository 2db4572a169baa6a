//! The lines that are understood, and their help.

/// The kind of a word that a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A string, perhaps quoted.
    Text,
    /// The same, and it may be missing.
    MaybeText,
    /// All the rest of the line, which may be missing.
    Maybe,
    /// Options; they may be missing too, which the command itself refuses.
    Options,
    /// All the rest of the line.
    Rest,
    /// `on` or `off`.
    Flag,
}

/// A command.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its names; the first is the one that matters, `|` between them in messages.
    pub names: &'static [&'static str],
    /// What it takes.
    pub words: &'static [Word],
    /// The same for people.
    pub usage: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn entry(
    names: &'static [&'static str],
    words: &'static [Word],
    usage: &'static str,
    help: &'static str,
) -> Entry {
    Entry { names, words, usage, help }
}

/// The commands, by name.
pub(super) const COMMANDS: &[Entry] = &[
    entry(
        &["announce_self"],
        &[Word::MaybeText, Word::MaybeText],
        "[interfaces] [id]",
        "announce the guests of all nics, or of those named with commas between them",
    ),
    entry(&["chardev-remove"], &[Word::Text], "id", "remove a chardev that nobody uses"),
    entry(&["closefd"], &[Word::Text], "name", "close a file descriptor that getfd kept"),
    entry(&["device_add"], &[Word::Options], "driver[,property=value...]", "make a device: a nic"),
    entry(&["device_del"], &[Word::Text], "id", "remove a device"),
    entry(&["getfd"], &[Word::Text], "name", "keep the file descriptor that came with the command"),
    entry(&["help", "?"], &[Word::Maybe], "[command]", "tell the commands, or one of them"),
    entry(
        &["hostfwd_add"],
        &[Word::Text, Word::MaybeText],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
        "forward a port of the host to the guest of a user netdev",
    ),
    entry(
        &["hostfwd_remove"],
        &[Word::Text, Word::MaybeText],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        "remove such a forward",
    ),
    entry(&["info"], &[Word::Maybe], "[subject]", "tell the state of something"),
    entry(&["netdev_add"], &[Word::Options], "type,id=name[,option=value...]", "make a netdev"),
    entry(&["netdev_del"], &[Word::Text], "id", "remove a netdev"),
    entry(
        &["object_add"],
        &[Word::Rest],
        "type,id=name[,option=value...]",
        "make an object, such as a filter",
    ),
    entry(&["object_del"], &[Word::Text], "id", "remove an object"),
    entry(&["quit", "q"], &[], "", "end the daemon"),
    entry(
        &["set_link"],
        &[Word::Text, Word::Flag],
        "name on|off",
        "raise or lower the link of a netdev or nic",
    ),
];

/// The subjects of `info`.
pub(super) const SUBJECTS: &[Entry] = &[
    entry(&["chardev"], &[], "", "the chardevs"),
    entry(&["name"], &[], "", "the name of the daemon"),
    entry(&["network"], &[], "", "hubs, netdevs, nics and their filters"),
    entry(&["status"], &[], "", "whether frames move"),
    entry(&["usernet"], &[], "", "the connections of user netdevs"),
    entry(&["version"], &[], "", "the version"),
];

/// The entry of that name.
pub(super) fn find(entries: &'static [Entry], name: &str) -> Option<&'static Entry> {
    entries.iter().find(|e| e.names.contains(&name))
}

impl Entry {
    /// The name, with its other names.
    pub(super) fn label(&self) -> String {
        self.names.join("|")
    }

    fn line(&self, prefix: &str) -> String {
        format!("{prefix}{} {} -- {}\n", self.label(), self.usage, self.help)
    }
}

/// The help on a command, on a subject, or on everything for an empty name; none if there is nothing of that name.
pub(super) fn help(name: &str) -> Option<String> {
    let all = |entries: &'static [Entry], prefix: &str| entries.iter().map(|e| e.line(prefix)).collect();
    let mut words = name.split_whitespace();
    match (words.next(), words.next()) {
        (None, _) => Some(all(COMMANDS, "")),
        (Some("info"), None) => Some(all(SUBJECTS, "info ")),
        (Some("info"), Some(subject)) => find(SUBJECTS, subject).map(|e| e.line("info ")),
        (Some(command), _) => find(COMMANDS, command).map(|e| e.line("")),
    }
}
