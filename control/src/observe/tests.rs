use super::*;
use engine::port::counters::DropReason;
use engine::{QueueStats, WorkerStats};
use std::collections::{HashMap, HashSet};

/// A metric family as a reader of OpenMetrics sees it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Values by the sample's text before the value.
    samples: HashMap<String, u64>,
}

/// Reads OpenMetrics text strictly: families described before their samples and never twice, units as suffixes,
/// counters with `_total`, labels well quoted, no sample twice, nothing after `# EOF`.
fn read(text: &str) -> HashMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let mut families: HashMap<String, Family> = HashMap::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            match what {
                "TYPE" => {
                    assert!(matches!(value, "counter" | "gauge" | "info"), "{line}");
                    let family = Family { kind: value.to_owned(), ..Family::default() };
                    assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
                    current = name.to_owned();
                }
                "UNIT" => assert!(name == current && name.ends_with(&format!("_{value}")), "{line}"),
                "HELP" => families.get_mut(name).unwrap().help = value.to_owned(),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        let name = series.split('{').next().unwrap();
        let family = families.get_mut(&current).expect("a described family");
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert_eq!(name, current.clone() + suffix, "{line}");
        if let Some(list) = series[name.len()..].strip_prefix('{') {
            labels(list.strip_suffix('}').expect(line));
        }
        assert!(family.samples.insert(series.to_owned(), value.parse().expect(line)).is_none(), "{line}");
    }
    families
}

/// Reads `name="value",...`.
fn labels(mut list: &str) {
    let mut seen = HashSet::new();
    while !list.is_empty() {
        let (name, rest) = list.split_once("=\"").expect(list);
        assert!(seen.insert(name) && name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
        let mut escape = false;
        let end = rest.bytes().position(|b| {
            let quote = b == b'"' && !escape;
            escape = b == b'\\' && !escape;
            quote
        });
        let end = end.expect("a closing quote");
        list = &rest[end + 1..];
        list = if list.is_empty() { list } else { list.strip_prefix(',').expect("a comma") };
    }
}

fn sample() -> String {
    let workers = [
        WorkerStats { core: Some(2), turns: 10, frames: 5, busy: 100, ..WorkerStats::default() },
        WorkerStats { housekeeping: 7, ..WorkerStats::default() },
    ];
    let tap = [QueueStats {
        worker: Some(1),
        rx_frames: 3,
        rx_bytes: 180,
        drops: vec![(DropReason::LegFull, 4)],
        ..QueueStats::default()
    }];
    let hub = [QueueStats::default()];
    let ports = [
        Port { name: "t0", driver: "tap", queues: &tap },
        Port { name: "h\"\\\n", driver: "hubport", queues: &hub },
    ];
    let counters = vec![("captured", 9), ("lost", 1)];
    let filters = [FilterCounters { object: "d0", driver: "filter-dump", port: "t0", counters }];
    openmetrics(2_000_000_000, &workers, &ports, &filters, 6)
}

#[test]
fn the_text_is_openmetrics_and_holds_every_counter() {
    let families = read(&sample());
    let value = |family: &str, series: &str| families[family].samples[series];
    assert_eq!(value("netdevd_tsc_hertz", "netdevd_tsc_hertz"), 2_000_000_000);
    assert_eq!(
        value("netdevd_worker_ticks", r#"netdevd_worker_ticks_total{worker="0",core="2",regime="busy"}"#),
        100
    );
    assert_eq!(value("netdevd_worker_turns", r#"netdevd_worker_turns_total{worker="1",core="-1"}"#), 0);
    let series = r#"{port="t0",type="tap",queue="0"}"#;
    assert_eq!(value("netdevd_port_rx_bytes", &format!("netdevd_port_rx_bytes_total{series}")), 180);
    assert_eq!(value("netdevd_port", r#"netdevd_port_info{port="t0",type="tap",queue="0",worker="1"}"#), 1);
    let lost = r#"netdevd_filter_frames_total{object="d0",type="filter-dump",port="t0",what="lost"}"#;
    assert_eq!(value("netdevd_filter_frames", lost), 1);
    assert_eq!(value("netdevd_filter_gone_frames", "netdevd_filter_gone_frames_total"), 6);
}

#[test]
fn every_drop_reason_has_a_series_and_a_sentence() {
    let drops = &read(&sample())["netdevd_port_drops"];
    assert_eq!(drops.samples.len(), 2 * DropReason::ALL.len());
    assert_eq!(drops.samples.values().sum::<u64>(), 4);
    for reason in DropReason::ALL {
        assert!(drops.help.contains(reason.sentence()), "{}", reason.name());
    }
}

#[test]
fn an_engine_without_ports_and_captures_is_sound() {
    let families = read(&openmetrics(1, &[], &[], &[], 0));
    assert!(!families.contains_key("netdevd_filter_frames"));
    assert!(families["netdevd_port_drops"].samples.is_empty());
}

fn answer(request: &str) -> String {
    String::from_utf8(respond(request.as_bytes(), || "# EOF\n".to_owned())).unwrap()
}

#[test]
fn a_scrape_gets_the_text_with_its_length() {
    let text = answer("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert!(
        text.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n")
    );
    assert!(text.contains("\r\nContent-Length: 6\r\n") && text.ends_with("\r\n\r\n# EOF\n"), "{text}");
    assert!(answer("HEAD / HTTP/1.0\n\n").ends_with("\r\n\r\n"));
}

#[test]
fn other_requests_get_an_answer_that_says_why() {
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
        ("GET /a b HTTP/1.0\r\n\r\n", "400"),
        ("GET / HTTP/2\r\n\r\n", "505"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET /other HTTP/1.1\r\n\r\n", "404"),
    ] {
        let text = answer(request);
        assert!(text.starts_with(&format!("HTTP/1.0 {status} ")), "{request:?}: {text}");
    }
    assert!(answer(&"x".repeat(LONGEST_REQUEST + 1)).starts_with("HTTP/1.0 431 "));
}

#[test]
fn a_request_is_complete_at_its_empty_line_or_when_too_long() {
    assert!(!is_complete(b"GET / HTTP/1.0\r\n"));
    assert!(is_complete(b"GET / HTTP/1.0\r\n\r\n"));
    assert!(is_complete(b"GET / HTTP/1.0\n\n"));
    assert!(is_complete(&vec![b'x'; LONGEST_REQUEST + 1]));
}
