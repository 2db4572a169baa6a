//! The same lines to QEMU 10.0 and to netdevd bring the same class, description and return.
//!
//! `NETDEVD_UNDER_TEST=oracle` compares the reference with itself, which finds cases that are not deterministic;
//! `NETDEVD_CASES=TEXT` runs only cases whose name contains the text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use tests::daemon::Program;
use tests::differential::case::{self, Case};
use tests::differential::compare::{self, Verdict};
use tests::differential::schema::{Comparison, Schema};
use tests::differential::side::Side;
use tests::differential::{differences, table};
use tests::skip::{Need, check_quietly, ready};

/// The program that stands where netdevd stands.
fn subject() -> Program {
    match std::env::var("NETDEVD_UNDER_TEST").as_deref() {
        Ok("oracle") => Program::Oracle,
        _ => Program::Netdevd,
    }
}

fn load() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut paths: Vec<_> =
        fs::read_dir(directory).expect("tests/cases").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let file = path.file_stem().and_then(|stem| stem.to_str()).expect("a file name").to_string();
        let text = fs::read_to_string(&path).expect("a readable file");
        let made = match path.extension().and_then(|extension| extension.to_str()) {
            Some("cases") => case::parse(&file, &text),
            Some("options") => table::cases(&file, &text),
            _ => Ok(Vec::new()),
        };
        cases.extend(made.unwrap_or_else(|problem| panic!("{problem}")));
    }
    for entry in differences::TABLE {
        let used = cases.iter().any(|case| case.flags.differs.as_deref() == Some(entry.name));
        assert!(used, "no case shows the intended difference {}: {}", entry.name, entry.reason);
    }
    let wanted = std::env::var("NETDEVD_CASES").unwrap_or_default();
    cases.retain(|case| case.name.contains(&wanted));
    let mut names = BTreeSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two cases are named {}", case.name);
        assert!(!case.steps.is_empty(), "{} does nothing", case.name);
    }
    cases
}

#[test]
fn every_case_gets_the_answers_of_the_reference() {
    if !ready("differential", &[Need::Oracle, Need::Namespaces]) {
        return;
    }
    let taps = check_quietly(Need::Tap).is_ok() && check_quietly(Need::Root).is_ok();
    let (mut reference, mut ours) = (Side::new(Program::Oracle), Side::new(subject()));
    let (started, cases) = (Instant::now(), load());
    let (mut same, mut intended, mut skipped) = (0, 0, 0);
    let mut different = Vec::new();
    for case in &cases {
        if case.flags.tap && !taps {
            skipped += 1;
            continue;
        }
        let begun = Instant::now();
        let verdict = run(case, &mut reference, &mut ours);
        if begun.elapsed().as_secs() >= 2 {
            println!("slow: {} took {:.1} s", case.name, begun.elapsed().as_secs_f32());
        }
        match verdict {
            Verdict::Same => same += 1,
            Verdict::Intended => intended += 1,
            Verdict::Differs(how) => different.push(format!("  {}\n{how}", case.name)),
        }
    }
    println!(
        "differential: {} cases in {:.1} s: {same} the same, {intended} intended differences, \
         {skipped} skipped (no taps), {} different",
        cases.len(),
        started.elapsed().as_secs_f32(),
        different.len()
    );
    if skipped > 0 {
        tests::skip::record("differential: cases with taps", "needs root and /dev/net/tun");
    }
    assert!(different.is_empty(), "{} cases differ:\n{}", different.len(), different.join("\n"));
}

fn run(case: &Case, reference: &mut Side, ours: &mut Side) -> Verdict {
    let Some(name) = &case.flags.differs else {
        let theirs = reference.run(case);
        let broken = theirs.steps.iter().flatten().find(|reply| reply.is_string());
        if let Some(how) = broken {
            return Verdict::Differs(format!("    the reference itself {how}"));
        }
        return compare::judge(case, &theirs, &ours.run(case));
    };
    if subject() == Program::Oracle {
        return Verdict::Intended;
    }
    let survives = differences::TABLE.iter().any(|entry| entry.name == name && entry.reference_survives);
    let theirs = survives.then(|| reference.run(case));
    compare::judge_intended(name, theirs.as_ref(), &ours.run(case), case)
}

#[test]
fn introspection_agrees_on_what_both_have() {
    if !ready("introspection", &[Need::Oracle, Need::Namespaces]) {
        return;
    }
    let (mut reference, mut ours) = (Side::new(Program::Oracle), Side::new(subject()));
    let theirs = reference.ask("query-qmp-schema", Value::Null);
    let our = ours.ask("query-qmp-schema", Value::Null);
    let (theirs, our) = (Schema::new(&theirs), Schema::new(&our));
    assert_eq!(our.dangling(), Vec::<String>::new(), "types that the schema names but does not hold");
    let mut comparison = Comparison::new(&theirs, &our);
    for meta in ["command", "event"] {
        for name in theirs.names(meta).intersection(&our.names(meta)) {
            comparison.entity(name);
        }
    }
    let excused = |line: &&String| differences::SCHEMA.iter().any(|(prefix, _)| line.starts_with(prefix));
    let found: Vec<_> = comparison.found.iter().filter(|line| !excused(line)).collect();
    assert!(found.is_empty(), "{} differences:\n{found:#?}", found.len());
}

#[test]
fn our_commands_are_the_references_or_in_the_table() {
    if !ready("commands", &[Need::Oracle, Need::Namespaces]) {
        return;
    }
    let (mut reference, mut ours) = (Side::new(Program::Oracle), Side::new(subject()));
    let names = |side: &mut Side| -> BTreeSet<String> {
        let list = side.ask("query-commands", Value::Null);
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["name"].as_str().map(String::from))
            .collect()
    };
    let (theirs, our) = (names(&mut reference), names(&mut ours));
    for name in our.difference(&theirs) {
        assert!(
            differences::EXTRA_COMMANDS.iter().any(|(extra, _)| extra == name),
            "{name} is not in the table"
        );
    }
    let extra = differences::EXTRA_COMMANDS.iter().map(|(extra, _)| extra);
    for name in differences::COMMANDS.iter().chain(extra.filter(|_| subject() == Program::Netdevd)) {
        assert!(our.contains(*name), "{name} is missing");
    }
}

#[test]
fn our_object_types_have_the_references_parents() {
    if !ready("object types", &[Need::Oracle, Need::Namespaces]) {
        return;
    }
    let (mut reference, mut ours) = (Side::new(Program::Oracle), Side::new(subject()));
    for arguments in [json!({}), json!({"implements": "netfilter"}), json!({"abstract": true})] {
        let types = |side: &mut Side| -> BTreeMap<String, String> {
            let list = side.ask("qom-list-types", arguments.clone());
            let list = list.as_array().cloned().unwrap_or_default();
            list.iter().map(|entry| (entry["name"].to_string(), compare::canonical(entry, false))).collect()
        };
        let (theirs, our) = (types(&mut reference), types(&mut ours));
        assert!(
            our.contains_key("\"filter-dump\"") || arguments["abstract"] == true,
            "filter-dump is missing"
        );
        // Extensions have no counterpart.
        let extensions = ["\"filter-limit\"", "\"filter-match\""];
        for (name, entry) in our.iter().filter(|(name, _)| !extensions.contains(&name.as_str())) {
            assert_eq!(theirs.get(name), Some(entry), "{name} with {arguments}");
        }
    }
}
