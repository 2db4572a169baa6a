use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::qmp::emit::Writer;

/// Every result of `input`, fed in chunks of `step` bytes.
fn parse(input: &[u8], step: usize) -> Vec<Result<Value, String>> {
    let mut parser = Parser::new();
    let mut out = Vec::new();
    for chunk in input.chunks(step) {
        let mut at = 0;
        while let Some(result) = parser.next(chunk, &mut at) {
            out.push(result.map_err(|error| error.to_string()));
        }
    }
    out
}

fn error(text: &str) -> Result<Value, String> {
    Err(text.into())
}

#[test]
fn messages_need_no_separator() {
    let found = parse(b"{}[]'a'{'b': [1, 2.5, true, null]}7 ", 3);
    assert_eq!(
        found,
        [json!({}), json!([]), json!("a"), json!({"b": [1, 2.5, true, null]}), json!(7)].map(Ok)
    );
}

#[test]
fn a_syntax_error_is_told_once_its_brackets_balance() {
    let mut parser = Parser::new();
    assert_eq!(parser.next(b"{'a' 1, [nul, {'b': ", &mut 0), None);
    let end = parser.next(b"}]}", &mut 0).unwrap().unwrap_err();
    assert_eq!(end.to_string(), "JSON parse error, missing : in object pair");
}

#[test]
fn tokens_up_to_the_limit_pass() {
    let list = |items: usize| [b"[".as_slice(), &b"1,".repeat(items - 1), b"1]"].concat();
    let limit = "JSON token count limit exceeded";
    // 2 * items + 1 tokens: an odd number, so one item less than half the limit is the most.
    let found = parse(&list(MAX_TOKENS / 2 - 1), 1 << 16);
    assert!(matches!(found.as_slice(), [Ok(Value::Array(items))] if items.len() == MAX_TOKENS / 2 - 1));
    // As QEMU 10.0.2 replied to these.
    assert_eq!(parse(&list(MAX_TOKENS / 2), 1 << 16), [error(limit)]);
    let after = [error(limit), Ok(json!(1)), error("JSON parse error, expecting value")];
    assert_eq!(parse(&list(MAX_TOKENS / 2 + 1), 1 << 16), after);
}

#[test]
fn a_line_of_100_megabytes_is_an_error_and_then_forgotten() {
    let limit = "JSON token size limit exceeded";
    let mut parser = Parser::new();
    let mut errors = Vec::new();
    let mut feed = |bytes: &[u8]| {
        let mut at = 0;
        while let Some(result) = parser.next(bytes, &mut at) {
            errors.push(result.unwrap_err().to_string());
        }
    };
    feed(b"{'execute': '");
    let chunk = vec![b'a'; 1 << 20];
    (0..100).for_each(|_| feed(&chunk));
    feed(b"'}\n");
    let keyword = format!("JSON parse error, invalid keyword '{}", "a".repeat(1006));
    assert_eq!(errors, [limit, keyword.as_str(), "JSON parse error, stray ''}\n'"]);
    assert_eq!(parser.next(b" {} ", &mut 0), Some(Ok(json!({}))));
}

#[test]
fn many_small_tokens_hit_the_size_limit_together() {
    let item = format!("'{}',", "x".repeat((1 << 20) - 3));
    let found = parse(["[", &item.repeat(64)].concat().as_bytes(), 1 << 16);
    assert_eq!(found.first(), Some(&error("JSON token size limit exceeded")));
}

/// Any value that JSON can say.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::num::f64::NORMAL
            .prop_filter("prints with a point or exponent", |v| v.fract() != 0.0)
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The value as it comes back: noncharacters are not sent, so U+FFFD stands for them.
fn as_sent(value: &Value) -> Value {
    let clean = |text: &str| -> String {
        text.chars().map(|c| if utf8::is_noncharacter(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
    };
    match value {
        Value::String(text) => clean(text).into(),
        Value::Array(items) => items.iter().map(as_sent).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (clean(key), as_sent(value))).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed_back(value in value(), pretty: bool, step in 1_usize..64) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, pretty);
        writer.value(&value);
        writer.end();
        prop_assert_eq!(parse(&bytes, step), [Ok(as_sent(&value))]);
    }

    #[test]
    fn random_bytes_parse_the_same_in_any_chunks(
        input in prop::collection::vec(any::<u8>(), 0..300),
        step in 1_usize..40,
    ) {
        prop_assert_eq!(parse(&input, step), parse(&input, 1 << 20));
    }
}
