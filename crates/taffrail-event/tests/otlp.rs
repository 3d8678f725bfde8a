//! Telemetry of the real client, and of senders that know OTLP badly.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::workspace_root;
use proptest::prelude::*;
use serde_json::{Value, json};
use taffrail_event::event::{Arrival, CallStatus, Fact};
use taffrail_event::ledger::{Speed, Witness};
use taffrail_event::normalize::otlp::{self, Context, Mapped, Signal, json as wire};
use taffrail_event::redact::Redactor;
use taffrail_event::{Event, TimestampMs};

fn context() -> Context<'static> {
    Context { received: TimestampMs::clamped(common::NOW_MS), redactor: Redactor::builtin() }
}

fn take(path: &str, body: &[u8]) -> Mapped {
    match path {
        "/v1/logs" => otlp::logs(wire::logs(body).unwrap(), context()),
        "/v1/metrics" => otlp::metrics(wire::metrics(body).unwrap(), context()),
        "/v1/traces" => otlp::spans(wire::spans(body).unwrap(), context()),
        other => panic!("{other}"),
    }
}

/// Everything that a scenario's client sent as JSON.
fn scenario(name: &str) -> Mapped {
    let path = workspace_root().join("fixtures/captures").join(name).join("otlp.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut all = Mapped::default();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let Some(body) = line.get("body") else { continue };
        let mapped = take(line["path"].as_str().unwrap(), body.to_string().as_bytes());
        assert_eq!(mapped.rejected.records, 0, "{:?}", mapped.rejected);
        all.events.extend(mapped.events);
        all.telemetry.extend(mapped.telemetry);
        for (class, records) in mapped.classes {
            *all.classes.entry(class).or_default() += records;
        }
    }
    all
}

const SCENARIOS: &[&str] = &[
    "api-overload",
    "auto-mode",
    "dangerous-command",
    "failing-tests",
    "git-work",
    "interactive-session",
    "parallel-tools",
    "permission-denied",
    "quick-edit",
    "quick-edit-json-default",
    "resume-compact",
    "slash-and-skill",
    "subagents-parallel",
];

fn log(record: Value) -> Mapped {
    logs_of(&json!({}), &[record])
}

fn logs_of(resource: &Value, records: &[Value]) -> Mapped {
    let resource: Vec<Value> = resource
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
        .collect();
    let body = json!({"resourceLogs": [{"resource": {"attributes": resource}, "scopeLogs": [{
        "scope": {"name": "com.anthropic.claude_code.events"}, "logRecords": records}]}]});
    take("/v1/logs", body.to_string().as_bytes())
}

/// A record of the client with attributes as they stand in JSON.
fn record(name: &str, attributes: &[(&str, Value)]) -> Value {
    let mut all = vec![json!({"key": "session.id", "value": {"stringValue": "s"}})];
    all.extend(attributes.iter().map(|(key, value)| json!({"key": key, "value": value})));
    json!({"timeUnixNano": "1795333438102000000", "body": {"stringValue": format!("claude_code.{name}")}, "attributes": all})
}

fn only(mut mapped: Mapped) -> Event {
    assert_eq!((mapped.events.len(), mapped.rejected.records), (1, 0), "{mapped:?}");
    mapped.events.remove(0)
}

#[test]
fn every_request_of_the_captures_has_final_usage_and_the_clients_cost() {
    let mut requests = 0;
    for name in SCENARIOS {
        for event in scenario(name).events.iter().filter(|e| e.type_name == "claude_code.api_request") {
            let request = event.request.as_ref().unwrap_or_else(|| panic!("{name}: {event:?}"));
            let usage = request.usage.unwrap();
            let attributes: Value = serde_json::from_str(&event.payload.text).unwrap();
            let told = |key: &str| attributes["attributes"][key].as_u64().unwrap();
            assert_eq!(usage.input + usage.output, told("input_tokens") + told("output_tokens"));
            assert_eq!(usage.cache_write_5m + usage.cache_write_1h, told("cache_creation_tokens"));
            assert_eq!((request.told_cost_nano_usd.unwrap() + 500) / 1_000, told("cost_usd_micros") as i64);
            assert_eq!((request.witness, request.born), (Witness::OtlpLog, TimestampMs::MIN));
            assert!(
                request.is_final && request.terms.speed == Speed::Standard && request.duration_ms.is_some()
            );
            assert_eq!((event.arrival, event.source.name()), (Arrival::Recorded, "otlp"));
            requests += 1;
        }
    }
    assert_eq!(requests, 78);
}

#[test]
fn every_name_of_the_captures_is_known_and_chatter_makes_no_event() {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for name in SCENARIOS {
        let mapped = scenario(name);
        assert!(!mapped.classes.contains_key(&otlp::Class::Unknown), "{name}: {:?}", mapped.classes);
        for event in &mapped.events {
            assert!(event.issues.is_empty() && !event.summary.is_empty(), "{event:?}");
            *names.entry(event.type_name.clone()).or_default() += 1;
        }
        for row in mapped.telemetry.iter().filter(|row| row.signal == Signal::Log) {
            assert!(row.session_id.is_some() && row.name.starts_with("claude_code."), "{row:?}");
        }
        for row in mapped.telemetry.iter().filter(|row| row.signal == Signal::Span) {
            assert!(row.duration_us.is_some_and(|us| us > 0), "{row:?}");
        }
        for row in mapped.telemetry.iter().filter(|row| row.signal == Signal::Metric) {
            assert!(row.value.is_some() && row.temporality == Some(otlp::Temporality::Delta), "{row:?}");
        }
    }
    let named = names.keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(
        named,
        [
            "claude_code.api_error",
            "claude_code.api_request",
            "claude_code.api_retries_exhausted",
            "claude_code.assistant_response",
            "claude_code.compaction",
            "claude_code.skill_activated",
            "claude_code.subagent_completed",
            "claude_code.tool_decision",
            "claude_code.tool_result",
            "claude_code.user_prompt",
        ]
    );
}

#[test]
fn retries_are_counted_from_spans_and_one_failure_is_one_failure() {
    let mapped = scenario("api-overload");
    let attempts =
        mapped.telemetry.iter().filter_map(|row| row.request.as_ref()?.attempts).collect::<Vec<_>>();
    // The second one began anew after its third attempt, so its own count says 1.
    assert_eq!(attempts, [3, 4]);
    let of_span = mapped.telemetry.iter().find_map(|row| row.failure.as_ref()).unwrap();
    let of_logs: Vec<_> = mapped.events.iter().filter_map(|e| e.failure.as_ref()).collect();
    assert_eq!(of_logs.len(), 1);
    assert_eq!(of_span.key, of_logs[0].key);
    assert_eq!((of_span.attempts_max, of_span.status_code, of_span.exhausted), (Some(5), Some(500), true));
    assert_eq!((of_logs[0].attempt, of_logs[0].message.as_str()), (Some(5), "Internal server error"));
}

#[test]
fn a_rejected_call_is_denied_and_a_result_tells_its_duration() {
    let mapped = scenario("dangerous-command");
    let told: Vec<_> = mapped
        .events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::ToolTold(tool, outcome) => {
                Some((tool.tool_name.as_str(), outcome.status, outcome.duration_ms))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Bash", CallStatus::Denied, None),
            ("Bash", CallStatus::Succeeded, Some(53)),
            ("Read", CallStatus::Denied, None),
            ("Bash", CallStatus::Succeeded, Some(39)),
            ("Bash", CallStatus::Failed, Some(53)),
        ]
    );
    let accepted = mapped.events.iter().find(|e| e.summary.contains("accept (config)")).unwrap();
    assert!(
        matches!(accepted.fact, Fact::Telemetry) && accepted.summary.contains("rm -rf ./build"),
        "{accepted:?}"
    );
}

#[test]
fn a_retry_has_the_same_keys_and_no_two_records_share_one() {
    let (once, again) = (scenario("subagents-parallel"), scenario("subagents-parallel"));
    let keys = |mapped: &Mapped| {
        let events = mapped.events.iter().map(|e| e.dedup_key.0);
        events.chain(mapped.telemetry.iter().map(|row| row.dedup_key.0)).collect::<Vec<_>>()
    };
    assert_eq!(keys(&once), keys(&again));
    let mut unique = keys(&once);
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), keys(&once).len());
}

#[test]
fn numbers_come_as_text_and_truth_as_a_word() {
    let event = only(log(record(
        "tool_result",
        &[
            ("tool_name", json!({"stringValue": "Bash"})),
            ("tool_use_id", json!({"stringValue": "toolu_1"})),
            ("success", json!({"boolValue": false})),
            ("duration_ms", json!({"doubleValue": 12.7})),
            ("error", json!({"stringValue": "Exit code 1\nboom"})),
        ],
    )));
    let Fact::ToolTold(tool, outcome) = &event.fact else { panic!("{event:?}") };
    assert_eq!((tool.input_hash, outcome.status, outcome.duration_ms), (0, CallStatus::Failed, Some(12)));
    assert_eq!(event.error.unwrap().class, "exit_code");
}

#[test]
fn a_request_without_its_parts_keeps_the_whole_as_five_minute_writes() {
    let event = only(log(record(
        "api_request",
        &[
            ("request_id", json!({"stringValue": "req_1"})),
            ("model", json!({"stringValue": "m"})),
            ("output_tokens", json!({"intValue": "7"})),
            ("cache_creation_tokens", json!({"stringValue": "100"})),
            ("cache_creation_1h_tokens", json!({"intValue": 30})),
            ("cost_usd_micros", json!({"intValue": 5})),
            ("speed", json!({"stringValue": "fast"})),
        ],
    )));
    let request = event.request.unwrap();
    let usage = request.usage.unwrap();
    assert_eq!((usage.output, usage.cache_write_5m, usage.cache_write_1h), (7, 70, 30));
    assert_eq!((request.told_cost_nano_usd, request.terms.speed), (Some(5_000), Speed::Fast));
}

#[test]
fn a_secret_is_in_no_part_of_an_event_or_row() {
    let secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let event =
        only(log(record("user_prompt", &[("prompt", json!({"stringValue": format!("use {secret}")}))])));
    assert!(!format!("{event:?}").contains(secret) && event.payload.redactions > 0, "{event:?}");
    assert!(event.summary.starts_with("use [REDACTED"), "{}", event.summary);

    let mapped = log(record("hook_registered", &[("x", json!({"stringValue": secret}))]));
    assert!(!format!("{:?}", mapped.telemetry).contains(secret));
    let span = json!({"resourceSpans": [{"resource": {"attributes": [{"key": "x", "value": {"stringValue": secret}}]},
        "scopeSpans": [{"spans": [{"name": "claude_code.tool", "spanId": "0a",
            "attributes": [{"key": "full_command", "value": {"stringValue": format!("curl -H {secret}")}}],
            "events": [{"name": "tool.output", "attributes": [{"key": "o", "value": {"stringValue": secret}}]}]}]}]}]});
    let mapped = take("/v1/traces", span.to_string().as_bytes());
    assert!(mapped.telemetry.len() == 1 && !format!("{mapped:?}").contains(secret), "{mapped:?}");
}

#[test]
fn what_a_resource_says_of_the_work_is_a_label_and_the_rest_is_not() {
    let resource = json!({"service.name": "claude-code", "os.type": "linux", "host.name": "box", "user.email": "a@b.c",
        "department": "web", "team.id": "42", "process.pid": "1", "telemetry.sdk.name": "x"});
    let event = only(logs_of(&resource, &[record("user_prompt", &[])]));
    let labels = [("department", "web"), ("team.id", "42")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(event.labels, labels);
    assert_eq!(
        (event.user.as_deref(), event.host.as_deref(), event.app.as_str()),
        (Some("a@b.c"), Some("box"), "unknown")
    );
}

#[test]
fn an_unknown_name_is_kept_with_a_line_and_a_record_of_no_session_makes_none() {
    let event = only(log(record(
        "brand_new",
        &[("colour", json!({"stringValue": "blue"})), ("n", json!({"intValue": 3}))],
    )));
    assert!(
        matches!(event.fact, Fact::Telemetry) && event.summary == "colour=blue · n=3",
        "{}",
        event.summary
    );
    assert!(event.payload.text.contains("\"colour\":\"blue\""));

    let foreign = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "hello"}, "severityText": "WARN"}]}]}]});
    let mapped = take("/v1/logs", foreign.to_string().as_bytes());
    assert_eq!((mapped.events.len(), mapped.telemetry.len()), (0, 1));
    assert_eq!((mapped.telemetry[0].name.as_str(), mapped.telemetry[0].session_id.as_ref()), ("log", None));
}

#[test]
fn names_of_enums_null_lists_and_odd_numbers_lose_nothing() {
    let body = json!({"resourceMetrics": [{"resource": null, "scopeMetrics": [{"scope": null, "metrics": [
        {"name": "a", "sum": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE", "isMonotonic": true,
            "dataPoints": [{"attributes": null, "timeUnixNano": 1795333438102000000u64, "asDouble": "NaN"},
                {"timeUnixNano": "1795333438103000000", "asInt": "9007199254740993"}]}},
        {"name": "b", "gauge": {"dataPoints": null}},
        {"name": "c", "histogram": {"aggregationTemporality": "DELTA", "dataPoints": [
            {"timeUnixNano": "1795333438104000000", "count": "3", "sum": 1.5, "bucketCounts": ["1", 2], "explicitBounds": [0.5]}]}},
        {"name": "d"},
        {"name": "e", "sum": {"dataPoints": [{"timeUnixNano": "1"}]}},
        7
    ]}]}, null]});
    let mapped = take("/v1/metrics", body.to_string().as_bytes());
    assert_eq!(mapped.rejected.records, 3, "no data, no value, no object: {:?}", mapped.rejected);
    let rows: Vec<_> = mapped.telemetry.iter().map(|r| (r.name.as_str(), r.value, r.temporality)).collect();
    let (cumulative, delta) = (Some(otlp::Temporality::Cumulative), Some(otlp::Temporality::Delta));
    assert_eq!(
        rows,
        [("a", None, cumulative), ("a", Some(9_007_199_254_740_992.0), cumulative), ("c", Some(1.5), delta)]
    );
    let detail = |at: usize| mapped.telemetry[at].detail.as_deref().unwrap_or_default();
    assert!(detail(0).contains("\"value\":\"NaN\"") && detail(1).contains("9007199254740993"));
    assert!(detail(2).contains("\"bucket_counts\":[1,2]"), "{}", detail(2));

    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x", "spanId": "AB", "kind": "SPAN_KIND_CLIENT",
        "status": {"code": "STATUS_CODE_ERROR"}, "events": null, "links": null}]}]}]});
    let mapped = take("/v1/traces", spans.to_string().as_bytes());
    let detail = mapped.telemetry[0].detail.as_deref().unwrap();
    assert!(
        detail.contains("\"kind\":3") && detail.contains("\"status_code\":2") && detail.contains("\"ab\""),
        "{detail}"
    );
}

#[test]
fn what_is_no_object_is_refused_and_what_is_empty_is_nothing() {
    for bad in ["", "5", "[]", "null", "{\"resourceLogs\":[", "\u{0}"] {
        assert!(wire::logs(bad.as_bytes()).is_err(), "{bad}");
    }
    for empty in ["{}", "{\"resourceLogs\":null}", "{\"resourceLogs\":7}", "{\"unknown\":[1]}"] {
        assert_eq!(wire::logs(empty.as_bytes()).unwrap().records(), 0, "{empty}");
    }
    let nested = |depth: usize| {
        let (open, close) = ("{\"arrayValue\":{\"values\":[".repeat(depth), "]}}".repeat(depth));
        format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{open}{close}}}]}}]}}]}}")
    };
    assert_eq!(wire::logs(nested(20).as_bytes()).unwrap().records(), 1);
    assert!(wire::logs(nested(5_000).as_bytes()).is_err());
}

/// JSON that looks like OTLP in places.
fn soup() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "NaN",
            "-1",
            "1e400",
            "claude_code.api_request",
            "claude_code.tool_result",
            "<REDACTED>"
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "resourceLogs",
        "resourceMetrics",
        "resourceSpans",
        "resource",
        "scope",
        "scopeLogs",
        "scopeMetrics",
        "scopeSpans",
        "logRecords",
        "metrics",
        "spans",
        "attributes",
        "key",
        "value",
        "stringValue",
        "intValue",
        "doubleValue",
        "arrayValue",
        "kvlistValue",
        "values",
        "bytesValue",
        "body",
        "timeUnixNano",
        "startTimeUnixNano",
        "name",
        "sum",
        "gauge",
        "dataPoints",
        "asDouble",
        "asInt",
        "events",
        "status",
        "code",
        "kind",
        "traceId",
    ]);
    leaf.prop_recursive(7, 96, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// Attributes of every name that the mapping reads, with values of every kind.
fn attribute_soup() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "session.id",
        "event.name",
        "event.sequence",
        "request_id",
        "tool_use_id",
        "tool_name",
        "success",
        "duration_ms",
        "error",
        "error_type",
        "cost_usd",
        "cost_usd_micros",
        "input_tokens",
        "output_tokens",
        "cache_creation_tokens",
        "cache_creation_1h_tokens",
        "attempt",
        "status_code",
        "model",
        "speed",
        "agent_id",
        "tool_parameters",
        "prompt",
        "prompt_length",
        "decision",
        "source",
        "total_attempts",
        "user.email",
        "query_source",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|n| json!({"intValue": n})),
        any::<i64>().prop_map(|n| json!({"intValue": n.to_string()})),
        any::<f64>().prop_map(|n| json!({"doubleValue": n})),
        any::<bool>().prop_map(|b| json!({"boolValue": b})),
        ".{0,16}".prop_map(|s| json!({"stringValue": s})),
        prop::sample::select(vec![
            "reject",
            "user_abort",
            "true",
            "false",
            "{\"command\":1}",
            "NaN",
            "18446744073709551615"
        ])
        .prop_map(|s| json!({"stringValue": s})),
        soup(),
    ];
    prop::collection::vec((names, value).prop_map(|(key, value)| json!({"key": key, "value": value})), 0..12)
        .prop_map(Value::from)
}

fn check_mapped(mapped: &Mapped, records: usize) {
    assert_eq!(mapped.events.len() + mapped.telemetry.len() + mapped.rejected.records, records);
    for event in &mapped.events {
        assert!(event.summary.chars().count() <= taffrail_event::event::SUMMARY_MAX_CHARS);
        assert!(serde_json::from_str::<Value>(&event.payload.text).is_ok(), "{}", event.payload.text);
    }
    for row in &mapped.telemetry {
        let texts = [Some(row.attributes.as_str()), row.detail.as_deref(), Some(&*row.resource)];
        for text in texts.into_iter().flatten() {
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
        assert!(row.value.is_none_or(f64::is_finite));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_soup_makes_it_fail(soup in soup()) {
        let text = json!({"resourceLogs": soup, "resourceMetrics": soup, "resourceSpans": soup}).to_string();
        let export = wire::logs(text.as_bytes());
        if let Ok(export) = export {
            let records = export.records() + export.rejected.records;
            check_mapped(&otlp::logs(export, context()), records);
        }
        let export = wire::metrics(text.as_bytes());
        if let Ok(export) = export {
            let records = export.records() + export.rejected.records;
            check_mapped(&otlp::metrics(export, context()), records);
        }
        let export = wire::spans(text.as_bytes());
        if let Ok(export) = export {
            let records = export.records() + export.rejected.records;
            check_mapped(&otlp::spans(export, context()), records);
        }
    }

    #[test]
    fn no_attributes_make_it_fail(
        name in prop::sample::select(vec!["api_request", "api_error", "tool_result", "tool_decision", "user_prompt",
            "compaction", "subagent_completed", "hook_registered", "new", "llm_request"]),
        attributes in attribute_soup(),
        nanos in any::<u64>(),
    ) {
        let record = json!({"body": {"stringValue": format!("claude_code.{name}")}, "timeUnixNano": nanos.to_string(),
            "attributes": attributes});
        let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).to_string();
        check_mapped(&take("/v1/logs", body.as_bytes()), 1);
        let span = json!({"name": format!("claude_code.{name}"), "startTimeUnixNano": nanos, "attributes": attributes,
            "events": [{"name": "gen_ai.request.attempt", "attributes": attributes}]});
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string();
        check_mapped(&take("/v1/traces", body.as_bytes()), 1);
    }
}
