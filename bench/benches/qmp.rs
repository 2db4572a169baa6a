//! What one QMP command costs before and after its execution: parse, checks, reply.

use std::hint::black_box;

use control::qmp::emit::Writer;
use control::qmp::json::Parser;
use control::qmp::{CommandInfo, CommandTable, QmpError, Session};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, Value, json};

/// Knows every command and likes all arguments, so that only the session is measured.
struct Anything;

impl CommandTable for Anything {
    fn find(&self, _: &str) -> Option<CommandInfo> {
        Some(CommandInfo { allow_oob: false })
    }

    fn check(&self, _: &str, _: &Map<String, Value>) -> Result<(), QmpError> {
        Ok(())
    }
}

const ADD: &str = r#"{"execute": "netdev_add", "arguments": {"type": "hubport", "id": "port17", "hubid": 3}, "id": "libvirt-42"}"#;

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("qmp/parse");
    let long = format!(r#"{{"execute": "getfd", "arguments": {{"fdname": "{}"}}}}"#, "x".repeat(64 << 10));
    for (name, text) in [("netdev_add", ADD), ("string of 64 KiB", long.as_str())] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            let mut parser = Parser::new();
            b.iter(|| black_box(parser.next(black_box(text.as_bytes()), &mut 0)));
        });
    }
    group.finish();
}

fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("qmp/session");
    group.throughput(Throughput::Elements(1));
    let ready = || {
        let mut session = Session::new(true);
        session.feed(b"{'execute': 'qmp_capabilities'}");
        assert_eq!(session.next(&Anything), None);
        session.output().clear();
        session
    };
    group.bench_function("netdev_add", |b| {
        let mut session = ready();
        b.iter(|| {
            session.feed(black_box(ADD.as_bytes()));
            if let Some(request) = session.next(&Anything) {
                session.reply(request.id, Ok(Value::Object(Map::new())), request.oob);
            }
            black_box(session.output()).clear();
        });
    });
    group.throughput(Throughput::Elements(64));
    group.bench_function("netdev_add, 64 pipelined", |b| {
        let mut session = ready();
        let batch = ADD.repeat(64);
        b.iter(|| {
            session.feed(black_box(batch.as_bytes()));
            while let Some(request) = session.next(&Anything) {
                session.reply(request.id, Ok(Value::Object(Map::new())), request.oob);
            }
            black_box(session.output()).clear();
        });
    });
    group.finish();
}

fn emit(c: &mut Criterion) {
    let commands: Vec<Value> = (0..242).map(|n| json!({"name": format!("query-something-{n}")})).collect();
    let commands = Value::Array(commands);
    c.bench_function("qmp/emit/query-commands", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            Writer::new(&mut out, false).value(black_box(&commands));
            black_box(&out);
        });
    });
}

criterion_group!(benches, parse, session, emit);
criterion_main!(benches);
