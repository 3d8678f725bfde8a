//! The forms of records that clients of 1.0 to 2.1 write, one by one.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::shared_dir;
use common::transcripts::{Union, read};
use serde_json::{Value, json};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{RequestSighting, Speed, Usage, Witness};
use taffrail_event::transcript::{FileFacts, FileKind, MarkKind, Parser, parse_meta};

const AT: &str = "2026-02-08T09:43:14.657Z";
const AT_MS: i64 = 1_770_543_794_657;

fn read_records(path: &str, records: &[Value]) -> Union {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    read(&FileFacts::of_path(path).unwrap(), lines.join("\n").as_bytes())
}

fn session(records: &[Value]) -> Union {
    read_records("-p/s1.jsonl", records)
}

fn assistant(usage: &Value, rest: &Value) -> Value {
    let mut record = json!({
        "type": "assistant", "uuid": "u1", "timestamp": AT, "requestId": "r1",
        "message": {"id": "m1", "model": "claude-x", "stop_reason": null, "content": [], "usage": usage},
    });
    merge(&mut record, rest);
    record
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[track_caller]
fn one(union: &Union) -> &RequestSighting {
    assert_eq!(union.requests.len(), 1, "{:#?}", union.requests);
    union.requests.values().next().unwrap()
}

#[track_caller]
fn check_usage(usage: &Value, expected: Usage) {
    assert_eq!(one(&session(&[assistant(usage, &json!({}))])).usage, Some(expected), "{usage}");
}

#[test]
fn no_token_of_the_cache_writes_is_lost() {
    let (input, output) = (3, 5);
    let of = |cache_write_5m, cache_write_1h| Usage {
        input,
        output,
        cache_write_5m,
        cache_write_1h,
        ..Usage::default()
    };
    let base = |rest: Value| {
        let mut usage = json!({"input_tokens": input, "output_tokens": output});
        merge(&mut usage, &rest);
        usage
    };
    check_usage(&base(json!({})), of(0, 0));
    check_usage(&base(json!({"cache_creation_input_tokens": 9})), of(9, 0));
    check_usage(&base(json!({"cache_creation_input_tokens": 9, "cache_creation": null})), of(9, 0));
    let split = |five: Value, hour: Value| json!({"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour});
    let both = |five: Value, hour: Value| {
        base(json!({"cache_creation_input_tokens": 9, "cache_creation": split(five, hour)}))
    };
    check_usage(&both(json!(2), json!(7)), of(2, 7));
    check_usage(&both(json!(2), json!(4)), of(5, 4));
    check_usage(&both(Value::Null, json!(4)), of(5, 4));
    check_usage(&both(json!(2), Value::Null), of(9, 0));
    check_usage(&base(json!({"cache_creation": split(json!(2), json!(4))})), of(2, 4));
    // A count that is no count is none.
    check_usage(&base(json!({"cache_creation_input_tokens": -4})), of(0, 0));
    check_usage(&base(json!({"cache_creation_input_tokens": "9"})), of(9, 0));
    check_usage(&base(json!({"cache_creation_input_tokens": 9.0})), of(9, 0));
    check_usage(&base(json!({"cache_creation_input_tokens": {"x": 1}})), of(0, 0));
}

#[test]
fn terms_and_what_else_stands_in_a_line() {
    let usage = json!({
        "input_tokens": 3, "output_tokens": 5, "speed": "fast", "service_tier": "priority", "inference_geo": "us",
        "server_tool_use": {"web_search_requests": 2},
    });
    let record = assistant(
        &usage,
        &json!({"costUSD": 0.25, "effort": "high", "message": {"stop_reason": "end_turn"}}),
    );
    let union = session(&[record]);
    let request = one(&union);
    assert_eq!(request.usage.unwrap().web_searches, 2);
    assert_eq!(request.terms.speed, Speed::Fast);
    assert_eq!(request.terms.service_tier.as_deref(), Some("priority"));
    assert_eq!(request.terms.inference_geo.as_deref(), Some("us"));
    assert_eq!(request.told_cost_nano_usd, Some(250_000_000));
    assert_eq!((request.effort.as_deref(), request.stop_reason.as_deref()), (Some("high"), Some("end_turn")));
    assert!(request.is_final);
    assert_eq!((request.ts, request.session_id.as_str()), (TimestampMs::clamped(AT_MS), "s1"));
    for geo in [json!(""), json!("not_available"), Value::Null] {
        let record =
            assistant(&json!({"input_tokens": 1, "output_tokens": 1, "inference_geo": geo}), &json!({}));
        assert_eq!(one(&session(&[record])).terms.inference_geo, None);
    }
}

#[test]
fn of_several_lines_of_a_message_the_highest_output_counts() {
    let line = |output: u64, stop: Value, second: u64| {
        let at = format!("2026-02-08T09:43:{second:02}.000Z");
        let usage = json!({"input_tokens": 3, "output_tokens": output});
        assistant(&usage, &json!({"timestamp": at, "message": {"stop_reason": stop}}))
    };
    let lines = [line(1, Value::Null, 14), line(90, json!("end_turn"), 15), line(2, Value::Null, 16)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let union = session(&order.map(|n| lines[n].clone()));
        let request = one(&union);
        assert_eq!((request.usage.unwrap().output, request.is_final), (90, true));
        assert_eq!(request.ts.get() % 60_000, 14_000);
    }
    // Provisional lines only: no last word.
    assert!(!one(&session(&[lines[0].clone(), lines[2].clone()])).is_final);
}

#[test]
fn lines_without_a_message_id_are_still_one_request_each() {
    let usage = json!({"input_tokens": 3, "output_tokens": 5});
    let union = session(&[assistant(&usage, &json!({"message": {"id": null}}))]);
    assert_eq!((one(&union).message_id.as_deref(), one(&union).request_id.as_deref()), (None, Some("r1")));
    let union = session(&[assistant(&usage, &json!({"message": {"id": null}, "requestId": null}))]);
    assert_eq!(one(&union).message_id.as_deref(), Some("uuid:u1"));
    let bare = json!({"message": {"id": null}, "requestId": null, "uuid": null});
    let (once, twice) = (assistant(&usage, &bare), assistant(&usage, &bare));
    let union = session(&[once, twice]);
    assert!(one(&union).message_id.as_deref().unwrap().starts_with("line:"));
}

#[test]
fn requests_that_the_vendor_made_within_one_are_counted_beside_it() {
    let usage = json!({
        "input_tokens": 412, "output_tokens": 531, "speed": "standard",
        "iterations": [
            {"type": "message", "input_tokens": 412, "output_tokens": 89},
            {"type": "advisor_message", "model": "claude-big", "input_tokens": 823, "output_tokens": 1612,
             "cache_read_input_tokens": 7, "cache_creation_input_tokens": 0},
            {"type": "message", "input_tokens": 1348, "output_tokens": 442},
            {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500},
        ],
    });
    let union = session(&[assistant(&usage, &json!({})), assistant(&usage, &json!({}))]);
    let shown: Vec<_> = union
        .requests
        .values()
        .map(|r| {
            (
                r.message_id.as_deref().unwrap(),
                r.model.as_str(),
                r.usage.unwrap().context(),
                r.usage.unwrap().output,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("m1", "claude-x", 412, 531),
            ("m1#advisor-1", "claude-big", 830, 1612),
            ("m1#compaction-3", "claude-x", 180_000, 3500)
        ]
    );
}

#[test]
fn what_the_client_wrote_itself_is_no_request() {
    let usage = json!({"input_tokens": 0, "output_tokens": 0});
    let record = assistant(&usage, &json!({"message": {"model": "<synthetic>"}}));
    let union = session(&[record]);
    assert!(union.requests.is_empty() && union.failures.is_empty());
    assert_eq!(union.sessions["s1"].model, None);
    let content = json!([{"type": "text", "text": "API Error: 529 {\"type\":\"error\"}"}]);
    let rest = json!({"isApiErrorMessage": true, "requestId": null, "message": {"model": "<synthetic>", "content": content}});
    let union = session(&[assistant(&usage, &rest)]);
    let failure = &union.failures[0];
    assert_eq!((failure.key.as_str(), failure.status_code, failure.exhausted), ("u1", Some(529), true));
}

#[test]
fn a_failed_attempt_in_the_spelling_of_2_0() {
    let record = json!({
        "type": "system", "subtype": "api_error", "uuid": "e1", "timestamp": AT, "sessionId": "s1",
        "error": {"status": 529, "requestID": "req_9", "error": {"type": "error",
            "error": {"type": "overloaded_error", "message": "Overloaded"}}},
        "retryInMs": 545.2778597981155, "retryAttempt": 1, "maxRetries": 10,
    });
    let union = session(&[record]);
    let failure = &union.failures[0];
    assert_eq!((failure.key.as_str(), failure.status_code), ("req_9", Some(529)));
    assert_eq!((failure.message.as_str(), failure.retry_in_ms), ("Overloaded", Some(545)));
    assert_eq!((failure.attempt, failure.attempts_max, failure.exhausted), (Some(1), Some(10), false));
}

#[test]
fn subagents_inside_the_sessions_file() {
    let usage = json!({"input_tokens": 3, "output_tokens": 5});
    // 1.0: inline, without an id.
    let union = session(&[assistant(&usage, &json!({"isSidechain": true}))]);
    assert_eq!((&one(&union).agent_id, one(&union).agent_type.as_deref()), (&None, Some("sidechain")));
    assert_eq!(union.sessions["s1"].model, None);
    // 2.0: a file beside the session's.
    let union = read_records(
        "-p/agent-b1f5.jsonl",
        &[assistant(&usage, &json!({"sessionId": "s7", "isSidechain": true}))],
    );
    assert_eq!((one(&union).agent_id.as_deref(), one(&union).session_id.as_str()), (Some("b1f5"), "s7"));
    assert_eq!(one(&union).agent_type, None);
    // 2.1: progress records.
    let inner = json!({"type": "assistant", "timestamp": AT, "requestId": "r9", "uuid": "x",
        "message": {"id": "m9", "model": "claude-small", "stop_reason": null, "usage": usage}});
    let progress = json!({"type": "progress", "timestamp": AT, "sessionId": "s1", "parentToolUseID": "toolu_1",
        "data": {"type": "agent_progress", "agentId": "a9", "message": inner}});
    let union = session(&[progress]);
    let request = one(&union);
    assert_eq!((request.witness, request.agent_id.as_deref()), (Witness::Progress, Some("a9")));
    assert_eq!((request.message_id.as_deref(), request.request_id.as_deref()), (Some("m9"), Some("r9")));
    let agent = &union.agents[&("s1".to_owned(), "a9".to_owned())];
    assert_eq!(agent.tool_use_id.as_deref(), Some("toolu_1"));
    assert_eq!(agent.first, Some(TimestampMs::clamped(AT_MS)));
}

#[test]
fn what_stands_beside_the_files_of_subagents() {
    let file = FileFacts::of_path("-p/s1/subagents/workflows/wf_1/agent-a1.meta.json").unwrap();
    let agent = parse_meta(&file, br#"{"agentType":"workflow-subagent","spawnDepth":1}"#).unwrap();
    assert_eq!((agent.session_id.as_str(), agent.agent_id.as_str()), ("s1", "a1"));
    assert_eq!((agent.agent_type.as_deref(), agent.tool_use_id), (Some("workflow-subagent"), None));
    for bad in [b"".as_slice(), b"[]", b"{", b"null", b"\xff"] {
        assert_eq!(parse_meta(&file, bad), None);
        assert_eq!(read(&file, bad).counts.bad, 1);
    }
    let journal = [
        json!({"type": "started", "key": "v2:b6", "agentId": "a1"}),
        json!({"type": "result", "key": "v2:b6", "agentId": "a1", "result": {"usage": {"input_tokens": 5}}}),
        json!({"type": "new-form", "agentId": "a2"}),
    ];
    let union = read_records("-p/s1/subagents/workflows/wf_1/journal.jsonl", &journal);
    assert_eq!((union.counts.records, union.counts.unknown, union.agents.len()), (3, 1, 2));
    assert!(union.requests.is_empty());
}

#[track_caller]
fn check_prompt(content: &Value, rest: &Value, expected: Option<&str>) {
    let mut record = json!({"type": "user", "uuid": "p1", "timestamp": AT, "message": {"content": content}});
    merge(&mut record, rest);
    let union = session(&[record]);
    let said: Vec<&str> = union.marks.iter().map(|mark| mark.summary.as_str()).collect();
    assert_eq!(said, expected.into_iter().collect::<Vec<_>>(), "{content} {rest}");
    assert_eq!(union.sessions["s1"].last_prompt.as_deref(), expected);
}

#[test]
fn a_prompt_is_what_a_person_said() {
    let none = json!({});
    check_prompt(&json!("Fix\n  it"), &none, Some("Fix it"));
    check_prompt(&json!([{"type": "text", "text": "Look"}, {"type": "image"}]), &none, Some("Look"));
    check_prompt(&json!([{"type": "image"}]), &none, Some("[image]"));
    check_prompt(&json!("List"), &json!({"origin": {"kind": "human"}, "isSidechain": true}), Some("List"));
    let expanded = "<command-message>review</command-message>\n<command-name>/review</command-name>\n<command-args>42</command-args>";
    check_prompt(&json!(expanded), &none, Some("/review 42"));
    check_prompt(&json!("Fix it"), &json!({"isMeta": true}), None);
    check_prompt(&json!("Fix it"), &json!({"isSidechain": true}), None);
    check_prompt(&json!("Fix it"), &json!({"agentId": "a1"}), None);
    check_prompt(&json!("List"), &json!({"origin": {"kind": "task-notification"}}), None);
    check_prompt(&json!("<task-notification>\n<task-id>1</task-id>"), &none, None);
    check_prompt(
        &json!("<command-name>/clear</command-name>\n<command-message>clear</command-message>"),
        &none,
        None,
    );
    check_prompt(&json!("<local-command-stdout>See ya!</local-command-stdout>"), &none, None);
    check_prompt(&json!("<bash-input>ls</bash-input>"), &none, None);
    check_prompt(&json!("<bash-stdout>a</bash-stdout>"), &none, None);
    check_prompt(
        &json!([{"type": "text", "text": "[Request interrupted by user for tool use]"}]),
        &none,
        None,
    );
    check_prompt(
        &json!([{"type": "tool_result", "content": "Fix it"}, {"type": "text", "text": "x"}]),
        &none,
        None,
    );
    for content in [json!(""), json!([]), json!(null), json!(7), json!({"x": 1})] {
        check_prompt(&content, &none, None);
    }
}

fn compactions(records: &[Value]) -> Vec<(Option<String>, Option<u64>, Option<u64>)> {
    let marks = session(records).marks;
    let compactions = marks.into_iter().filter_map(|mark| match mark.kind {
        MarkKind::Compaction { trigger, pre_tokens, post_tokens } => Some((trigger, pre_tokens, post_tokens)),
        _ => None,
    });
    compactions.collect()
}

#[test]
fn a_compaction_counts_once() {
    let boundary = json!({"type": "system", "subtype": "compact_boundary", "uuid": "c1", "timestamp": AT,
        "compactMetadata": {"trigger": "auto", "preTokens": 167_471}});
    let summary = json!({"type": "user", "uuid": "y1", "timestamp": AT, "isCompactSummary": true,
        "message": {"content": "This session is being continued"}});
    let told = (Some("auto".to_owned()), Some(167_471), None);
    let three = [boundary, summary.clone(), summary];
    assert_eq!(compactions(&three[..2]).as_slice(), std::slice::from_ref(&told));
    assert_eq!(compactions(&three[1..2]), [(None, None, None)]);
    assert_eq!(compactions(&three), [told, (None, None, None)]);
}

#[test]
fn a_title_of_ones_own_is_not_replaced_by_the_clients() {
    let summary = json!({"type": "summary", "summary": "One", "leafUuid": "x"});
    let custom = json!({"type": "custom-title", "customTitle": "Mine"});
    let ai = json!({"type": "ai-title", "aiTitle": "Its"});
    let user = json!({"type": "user", "timestamp": AT, "message": {"content": "Hi"}});
    let title = |records: &[Value]| session(records).sessions["s1"].title.clone().unwrap();
    assert_eq!(title(&[summary.clone(), user.clone()]), "One");
    assert_eq!(title(&[summary.clone(), ai.clone(), user.clone()]), "Its");
    assert_eq!(title(&[user.clone(), custom.clone(), ai.clone(), summary.clone()]), "Mine");
    assert_eq!(title(&[ai, custom, user, summary]), "Mine");
}

#[test]
fn times_may_be_missing_odd_or_run_backwards() {
    let usage = json!({"input_tokens": 3, "output_tokens": 5});
    let at = |stamp: Value, id: &str| assistant(&usage, &json!({"timestamp": stamp, "message": {"id": id}}));
    let times = |records: &[Value]| -> Vec<i64> {
        let union = session(records);
        union.requests.values().map(|request| request.ts.get() - AT_MS).collect()
    };
    assert_eq!(times(&[at(json!(AT), "a"), at(Value::Null, "b"), at(json!("soon"), "c")]), [0, 0, 0]);
    assert_eq!(times(&[at(json!(AT_MS), "a"), at(json!("2026-02-08T10:43:13.657+01:00"), "b")]), [0, -1000]);
    let union = session(&[at(json!(AT), "a"), at(json!("2026-02-08T09:43:13.657Z"), "b")]);
    assert!(union.requests.values().all(|request| request.born.get() == AT_MS), "the first in file order");
    // Before the first time stamp: when the file was changed, else not at all, but counted.
    assert_eq!(session(&[at(Value::Null, "a")]).counts.unknown, 1);
    let file =
        FileFacts { modified: Some(TimestampMs::clamped(AT_MS)), ..FileFacts::of_path("s1.jsonl").unwrap() };
    let union = read(&file, at(Value::Null, "a").to_string().as_bytes());
    assert_eq!(one(&union).ts.get(), AT_MS);
}

#[track_caller]
fn check_odd_field(kind: &str, key: &str, value: &Value) {
    let mut record = json!({"type": kind, "timestamp": AT, "message": {"id": "m1", "model": "claude-x",
        "usage": {"input_tokens": 3, "output_tokens": 5}}});
    record[key] = value.clone();
    assert_eq!(session(&[record.clone()]).counts.bad, 0, "{record}");
    for inside in ["id", "model", "usage", "content", "stop_reason"] {
        let mut record = json!({"type": kind, "timestamp": AT, "message": {"usage": {"input_tokens": 3}}});
        record["message"][inside] = value.clone();
        assert_eq!(session(&[record.clone()]).counts.bad, 0, "{record}");
    }
}

#[test]
fn fields_of_any_shape_and_keys_that_stand_twice_do_no_harm() {
    let odd =
        [json!(null), json!(true), json!(-1), json!(1e300), json!("x"), json!([{"a": 1}]), json!({"a": [1]})];
    let keys = [
        "type",
        "subtype",
        "uuid",
        "sessionId",
        "agentId",
        "isSidechain",
        "timestamp",
        "message",
        "requestId",
        "costUSD",
        "toolUseResult",
        "compactMetadata",
        "error",
        "data",
        "modelUsage",
        "totalCostUSD",
        "origin",
        "retryInMs",
    ];
    let kinds = ["assistant", "user", "system", "progress", "cost-state", "summary"];
    for kind in kinds {
        for value in &odd {
            for key in keys {
                check_odd_field(kind, key, value);
            }
        }
    }
    let twice = r#"{"type":"user","type":"assistant","timestamp":"2026-02-08T09:43:14.657Z","message":{"id":"m0","model":"x","usage":{"input_tokens":1,"output_tokens":1,"output_tokens":8},"id":"m1"}}"#;
    let union = read(&FileFacts::default(), twice.as_bytes());
    assert_eq!((one(&union).message_id.as_deref(), one(&union).usage.unwrap().output), (Some("m1"), 8));
}

#[test]
fn a_chat_of_gemini_shows_what_is_billed() {
    let document = json!({"sessionId": "g1", "startTime": AT, "messages": [
        {"id": "a", "type": "user", "timestamp": AT, "content": "x"},
        {"id": "b", "type": "gemini", "timestamp": AT, "model": "gemini-2.5-flash",
         "tokens": {"input": 100, "output": 10, "cached": 60, "thoughts": 7, "tool": 3, "total": 120}},
    ]});
    let file = FileFacts { kind: FileKind::Gemini, ..FileFacts::default() };
    let expected = Usage { input: 43, output: 17, cache_read: 60, ..Usage::default() };
    for text in [document.to_string(), serde_json::to_string_pretty(&document).unwrap()] {
        let union = read(&file, text.as_bytes());
        let request = one(&union);
        assert_eq!((request.usage, request.session_id.as_str()), (Some(expected), "g1"));
        assert_eq!((request.model.as_str(), request.is_final), ("gemini-2.5-flash", true));
        let mut parser = Parser::new(&file);
        for byte in text.as_bytes().chunks(1) {
            assert_eq!(parser.feed(byte), 1);
        }
        parser.finish(b"");
        assert_eq!(parser.take().requests.len(), 1);
    }
    let Some(shared) = shared_dir() else { return };
    let lines =
        std::fs::read(shared.join("data/multi-agent/gemini/agent-sessions-fixtures/jsonl_v040.jsonl"))
            .unwrap();
    let union = read(&file, &lines);
    let (usage, session) = (union.usage(), union.sessions.keys().next().unwrap());
    assert_eq!((usage.input, usage.cache_read, session.as_str()), (12_422, 11_502, "gemini_stage0_jsonl"));
}
