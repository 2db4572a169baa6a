use proptest::prelude::*;
use serde_json::json;

use super::machine::*;
use crate::qmp::{Event, QmpError};
use serde_json::{Map, Value};

/// The few commands that the cases use.
struct Commands;

impl CommandTable for Commands {
    fn find(&self, name: &str) -> Option<CommandInfo> {
        matches!(name, "query-name" | "query-status" | "query-yank")
            .then_some(CommandInfo { allow_oob: name == "query-yank" })
    }

    fn check(&self, name: &str, args: &Map<String, Value>) -> Result<(), QmpError> {
        if name == "qmp_capabilities" {
            check_enable(args.get("enable"))?;
        }
        match args.keys().find(|key| name != "qmp_capabilities" || *key != "enable") {
            Some(key) => Err(QmpError::generic(format!("Parameter '{key}' is unexpected"))),
            None => Ok(()),
        }
    }
}

fn check_enable(enable: Option<&Value>) -> Result<(), QmpError> {
    let Some(enable) = enable else { return Ok(()) };
    let wrong = |what: &str, kind| {
        Err(QmpError::generic(format!("Invalid parameter type for '{what}', expected: {kind}")))
    };
    let Some(list) = enable.as_array() else { return wrong("enable", "array") };
    for (index, item) in list.iter().enumerate() {
        match item.as_str() {
            None => return wrong(&format!("enable[{index}]"), "string"),
            Some("oob") => {}
            Some(text) => {
                let desc = format!("Parameter 'null' does not accept value '{text}'");
                return Err(QmpError::generic(desc));
            }
        }
    }
    Ok(())
}

fn execute(command: &str) -> Result<Value, QmpError> {
    Ok(match command {
        "query-status" => json!({"running": true, "status": "running"}),
        "query-yank" => json!([{"id": "compat_monitor0", "type": "chardev"}]),
        _ => json!({}),
    })
}

/// Executes whatever is due.
fn run(session: &mut Session) {
    while let Some(request) = session.next(&Commands) {
        session.reply(request.id, execute(&request.command), request.oob);
    }
}

fn taken(session: &mut Session) -> String {
    String::from_utf8(std::mem::take(session.output())).unwrap()
}

/// A session after its negotiation; `mode` as in the table of cases.
fn session(mode: &str) -> Session {
    let mut session = Session::new(true);
    session.feed(match mode {
        "none" => b"",
        "oob" => b"{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}",
        _ => b"{'execute': 'qmp_capabilities'}",
    });
    run(&mut session);
    session.output().clear();
    session
}

/// Everything that the session says to `input`, fed in chunks that end at `cuts`.
fn talk(mode: &str, input: &[u8], cuts: &[usize]) -> String {
    let mut session = session(mode);
    let mut at = 0;
    for &cut in cuts.iter().chain([&input.len()]) {
        let cut = cut.clamp(at, input.len());
        session.feed(&input[at..cut]);
        run(&mut session);
        at = cut;
    }
    assert!(session.wants_input(), "a session without open requests takes more");
    taken(&mut session)
}

/// `testdata/session.jsonl`: input and what QEMU 10.0.2 said to it, byte for byte. In `input`, a
/// character stands for one byte. `mode` is what was negotiated before.
#[test]
fn every_case_gets_the_bytes_that_qemu_sent() {
    let table = include_str!("../testdata/session.jsonl");
    let mut wrong = Vec::new();
    for line in table.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = |member: &str| case[member].as_str().unwrap();
        let mut input: Vec<u8> = text("input").chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        // Each case was ended so, to bring the parser to a known state.
        input.extend_from_slice(b"\xFF\n");
        let lines = case["output"].as_array().unwrap().iter();
        let expected: String = lines.map(|line| format!("{}\r\n", line.as_str().unwrap())).collect();
        let got = talk(text("mode"), &input, &[]);
        if got != expected {
            wrong.push(format!("{line}\n QEMU: {expected}\n ours: {got}"));
        }
    }
    assert!(table.lines().count() > 2000);
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_greeting_offers_what_the_transport_can() {
    let version = json!({"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "p"});
    for (oob, list) in [(true, "[\"oob\"]"), (false, "[]")] {
        let mut session = Session::new(oob);
        session.greet(&version);
        let greeting = format!(
            "{{\"QMP\": {{\"version\": {{\"qemu\": {{\"micro\": 2, \"minor\": 0, \"major\": 10}}, \"package\": \"p\"}}, \
             \"capabilities\": {list}}}}}\r\n"
        );
        assert_eq!(taken(&mut session), greeting);
    }
}

#[test]
fn a_capability_that_was_not_offered_is_refused() {
    let mut session = Session::new(false);
    session.feed(b"{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
    run(&mut session);
    let refusal =
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Capability oob not available\"}}\r\n";
    assert_eq!(taken(&mut session), refusal);
    assert!(!session.is_negotiated());
}

#[test]
fn without_oob_the_next_command_waits_unparsed() {
    let mut session = session("plain");
    session.feed(b"{'execute': 'query-name', 'id': 1}{'execute': 'nosuch'} {'execute': 'query-status'");
    let first = session.next(&Commands).unwrap();
    assert_eq!((first.command.as_str(), &first.id, first.oob), ("query-name", &Some(json!(1)), false));
    assert_eq!(session.next(&Commands), None);
    assert!(!session.wants_input());
    assert_eq!(taken(&mut session), "", "the error waits for its turn");
    session.reply(first.id, Ok(json!({})), first.oob);
    assert_eq!(session.next(&Commands), None);
    assert!(session.wants_input());
    assert_eq!(
        taken(&mut session),
        "{\"return\": {}, \"id\": 1}\r\n{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command \
         nosuch has not been found\"}}\r\n"
    );
    session.feed(b"}");
    assert_eq!(session.next(&Commands).unwrap().command, "query-status");
}

#[test]
fn with_oob_eight_wait_in_order_and_an_urgent_one_overtakes() {
    let mut session = session("oob");
    let in_band = |id: usize| format!("{{'execute': 'query-name', 'id': {id}}}").into_bytes();
    session.feed(&in_band(0));
    let first = session.next(&Commands).unwrap();
    for id in 1..QUEUE {
        session.feed(&in_band(id));
    }
    assert!(session.wants_input());
    session.feed(b"{'exec-oob': 'query-yank', 'id': 'urgent'}");
    let urgent = session.next(&Commands).unwrap();
    assert_eq!((urgent.id.clone(), urgent.oob), (Some(json!("urgent")), true));
    assert_eq!(session.next(&Commands), None, "the in-band one is still in execution");
    session.reply(urgent.id, Ok(json!([])), urgent.oob);
    assert_eq!(session.next(&Commands), None, "an urgent reply does not end the in-band one");

    session.feed(&in_band(QUEUE));
    assert!(!session.wants_input(), "the queue is full");
    session.feed(b"{'exec-oob': 'query-yank', 'id': 'late'}");
    assert_eq!(session.next(&Commands), None, "what is not read cannot overtake");
    assert_eq!(taken(&mut session), "{\"return\": [], \"id\": \"urgent\"}\r\n");

    session.reply(first.id, Ok(json!({})), false);
    let mut order = Vec::new();
    while let Some(request) = session.next(&Commands) {
        order.push(request.id.clone().unwrap());
        session.reply(request.id, Ok(json!({})), request.oob);
    }
    let mut expected: Vec<Value> = (1..=QUEUE).map(Value::from).collect();
    expected.insert(1, json!("late"));
    assert_eq!(order, expected, "it is read as soon as one leaves the queue");
}

#[test]
fn events_are_told_only_after_negotiation() {
    let event = Event::shutdown("host-qmp-quit", (1, 2));
    let mut fresh = session("none");
    fresh.event(&event);
    assert_eq!(taken(&mut fresh), "");
    let mut ready = session("plain");
    ready.event(&event);
    assert!(
        taken(&mut ready).starts_with("{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\"")
    );
}

#[test]
fn errors_print_with_their_class_and_pretty_form_indents() {
    let mut session = session("plain");
    session.set_pretty(true);
    session.reply(Some(Value::Null), Err(QmpError::device_not_found("x")), false);
    assert_eq!(
        taken(&mut session),
        "{\r\n    \"id\": null,\r\n    \"error\": {\r\n        \"class\": \"DeviceNotFound\",\r\n        \
         \"desc\": \"Device 'x' not found\"\r\n    }\r\n}\r\n"
    );
}

#[test]
fn buffers_of_a_large_message_are_given_back() {
    let mut session = session("plain");
    session.feed(b"{'execute': 'query-name', 'id': 1}");
    let first = session.next(&Commands).unwrap();
    session.feed(format!("{{'execute': 'query-name', 'id': '{}'}}", "x".repeat(1 << 20)).as_bytes());
    session.reply(first.id, Ok(json!({})), false);
    run(&mut session);
    assert!(session.output().len() > 1 << 20);
    session.output().clear();
    assert!(session.output().capacity() <= KEEP && session.input.capacity() <= KEEP);
}

#[test]
fn nesting_of_1024_is_the_limit() {
    let nested = |depth: usize| talk("plain", &[b"[".repeat(depth), b"]".repeat(depth)].concat(), &[]);
    assert_eq!(
        nested(1024),
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"QMP input must be a JSON object\"}}\r\n"
    );
    let deep = nested(10_000);
    assert!(deep.starts_with(
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON nesting depth limit exceeded\"}}\r\n"
    ));
}

/// Bytes that are often nearly QMP.
fn nearly_qmp() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "'", "\"", "\\", "\\u00e9", "\\uD83D", "\n", " ", "1", "-0.5e1", "tru",
            "true", "null", "'k'", "'execute': 'query-name'", "'id': 7", "'arguments': {}", "é",
            "{'execute': 'query-name', 'id': [1.5, 'x']}", "{'execute': 'nosuch'}", "{'exec-oob': 'query-yank'}",
            "{'execute': 'qmp_capabilities'}",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        input in nearly_qmp(),
        mut cuts in prop::collection::vec(0_usize..200, 0..8),
        mode in prop::sample::select(vec!["none", "plain"]),
    ) {
        cuts.sort_unstable();
        let bytes: Vec<usize> = (0..input.len()).collect();
        let whole = talk(mode, &input, &[]);
        prop_assert_eq!(&talk(mode, &input, &cuts), &whole);
        prop_assert_eq!(&talk(mode, &input, &bytes), &whole);
    }

    /// How far an urgent message overtakes depends on the cuts, but the replies are the same.
    #[test]
    fn with_oob_cuts_change_only_the_order(input in nearly_qmp()) {
        let sorted = |cuts: &[usize]| {
            let said = talk("oob", &input, cuts);
            let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let bytes: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(sorted(&bytes), sorted(&[]));
    }

    #[test]
    fn every_line_is_ascii_json_with_crlf(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let said = talk("plain", &input, &[]);
        prop_assert!(said.is_ascii());
        prop_assert!(said.is_empty() || said.ends_with("\r\n"));
        for line in said.split_terminator("\r\n") {
            prop_assert!(serde_json::from_str::<Value>(line).is_ok(), "{}", line);
        }
    }
}
