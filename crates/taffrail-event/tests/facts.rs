//! What the real client does, held against what normalization makes of it. Each test is named after a fact of the
//! design's second section; the recordings are of client 2.1.330.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{calls_of, capture, events, normalize, normalize_value, of_type, scenarios, statuses};
use serde_json::json;
use taffrail_event::HookEvent;
use taffrail_event::event::{
    CallStatus, ClosesCalls, Event, Fact, FileOperation, FileOperationKind, Issue, PromptOrigin,
};
use taffrail_event::normalize::{calls, warnings};

fn counts(of: &[(&'static str, usize)]) -> BTreeMap<&'static str, usize> {
    of.iter().copied().collect()
}

#[test]
fn fact_01_session_start_and_setup_come_from_a_command_hook_and_are_events_like_others() {
    let events = events("setup-init");
    let setups = of_type(&events, "Setup");
    assert!(matches!(&setups[0].fact, Fact::Setup { trigger: Some(trigger) } if trigger == "init"));
    assert_eq!(setups.len(), 2);
    let starts = of_type(&events, "SessionStart");
    assert!(
        matches!(&starts[0].fact, Fact::SessionStart { start_source: Some(source) } if source == "startup")
    );
    let interactive = common::events("interactive-session");
    let start = of_type(&interactive, "SessionStart")[0];
    assert_eq!(start.model.as_deref(), Some("claude-opus-5-5"));
    assert_eq!(start.summary, "startup: claude-opus-5-5");
}

#[test]
fn fact_02_all_31_events_are_understood_also_those_no_observer_registers() {
    for kind in HookEvent::KNOWN {
        let event = normalize_value(&json!({
            "session_id": "s", "transcript_path": "/t", "cwd": "/home/user/project", "hook_event_name": kind.name(),
            "tool_name": "Bash", "tool_input": {"command": "ls"},
        }));
        assert_eq!(event.type_name, kind.name());
        assert!(!matches!(event.fact, Fact::Unknown | Fact::Malformed), "{}", kind.name());
        assert!(!event.issues.iter().any(|issue| matches!(issue, Issue::UnknownEvent(_))));
        assert_eq!(event.app, "project");
    }
}

#[test]
fn every_capture_is_understood_without_an_issue() {
    let mut total = 0;
    for scenario in scenarios() {
        for (event, recorded) in events(&scenario).iter().zip(capture(&scenario)) {
            assert_eq!(event.issues, [], "{scenario} {}", event.type_name);
            assert!(!matches!(event.fact, Fact::Unknown | Fact::Malformed));
            assert_eq!(event.ts.get(), recorded.at_ms);
            assert_eq!(event.session_id, recorded.body["session_id"]);
            assert_eq!(event.payload.text, recorded.body.to_string());
            assert!(event.app == "project" || event.app == "sub", "{}", event.app);
            total += 1;
        }
    }
    assert_eq!(total, 374);
}

#[test]
fn fact_06_a_call_may_end_with_neither_post() {
    // An Edit whose input is invalid: no Pre, no Post, only the batch.
    let failing = events("failing-tests");
    let calls = calls_of(&failing);
    assert_eq!(statuses(&calls), counts(&[("failed", 4), ("succeeded", 4)]));
    let (_, invalid) = calls.values().find(|(_, state)| state.rank == calls::RANK_BATCH).unwrap();
    assert_eq!(invalid.status, CallStatus::Failed);
    let batch = of_type(&failing, "PostToolBatch").into_iter().find(|event| event.error.is_some()).unwrap();
    let error = batch.error.as_ref().unwrap();
    assert_eq!((error.class, error.recoverable), ("invalid_input", true));
    assert_eq!(error.message, "String to replace not found in file.\nString:     return sum(xs) // len(xs)");

    // Refused by a hook, and refused for want of a permission.
    assert_eq!(
        statuses(&calls_of(&events("dangerous-command"))),
        counts(&[("denied", 2), ("failed", 1), ("succeeded", 2)])
    );
    assert_eq!(statuses(&calls_of(&events("permission-denied"))), counts(&[("denied", 2), ("succeeded", 1)]));
    // Refused by the client's own check: PermissionDenied and batch agree.
    assert_eq!(statuses(&calls_of(&events("auto-mode"))), counts(&[("denied", 1), ("succeeded", 1)]));
    // Escape: nothing shows it but the end of the session.
    assert_eq!(
        statuses(&calls_of(&events("interactive-session"))),
        counts(&[("abandoned", 1), ("succeeded", 1)])
    );
}

#[test]
fn fact_07_order_is_not_guaranteed_and_changes_nothing() {
    for scenario in scenarios() {
        let events = events(&scenario);
        let calls = calls_of(&events);
        let reversed = calls_of(events.iter().rev());
        assert_eq!(calls, reversed, "{scenario}");
        let doubled = calls_of(events.iter().chain(events.iter().rev()));
        assert_eq!(calls, doubled, "{scenario}");
        let open = calls.values().filter(|(_, state)| state.status == CallStatus::Running);
        assert_eq!(open.count(), 0, "{scenario}");
    }
    assert_eq!(statuses(&calls_of(&events("parallel-tools"))), counts(&[("failed", 1), ("succeeded", 9)]));
    assert_eq!(
        statuses(&calls_of(&events("subagents-parallel"))),
        counts(&[("failed", 1), ("succeeded", 7)])
    );
}

#[test]
fn fact_07_a_body_of_6_mb_is_one_event() {
    let content = "line of text\n".repeat(6 * 1024 * 1024 / 13);
    let body = json!({
        "session_id": "s", "cwd": "/p", "hook_event_name": "PostToolUse", "tool_name": "Read", "tool_use_id": "t",
        "tool_input": {"file_path": "/p/a"}, "tool_response": {"type": "text", "file": {"filePath": "/p/a", "content": content}},
        "duration_ms": 5,
    });
    let text = body.to_string();
    let event = normalize(text.as_bytes());
    assert_eq!(event.payload.text.len(), text.len());
    assert_eq!(event.file_operations[0].size_bytes, Some(content.len() as u64));
    assert_eq!(event.issues, []);
}

#[test]
fn fact_08_a_task_notification_is_no_human_prompt() {
    let subagents = events("subagents-parallel");
    let origins: Vec<_> = of_type(&subagents, "UserPromptSubmit")
        .iter()
        .map(|event| match event.fact {
            Fact::Prompt { origin } => origin,
            _ => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(origins, [PromptOrigin::Human, PromptOrigin::TaskNotification]);
}

#[test]
fn fact_08_compaction_sends_a_lone_subagent_stop_with_an_empty_type() {
    for scenario in ["resume-compact", "interactive-session"] {
        let events = events(scenario);
        let stops = of_type(&events, "SubagentStop");
        assert_eq!(stops.len(), 1);
        assert!(matches!(stops[0].fact, Fact::SubagentStop { compaction: true }));
        assert_eq!(stops[0].agent_type.as_deref(), Some(""));
        let compacts = of_type(&events, "PostCompact");
        assert_eq!(compacts[0].metrics.compression_events, Some(1));
    }
    let subagents = events("subagents-parallel");
    let stops = of_type(&subagents, "SubagentStop");
    assert_eq!(stops.len(), 3);
    assert!(stops.iter().all(|stop| matches!(stop.fact, Fact::SubagentStop { compaction: false })));
}

#[test]
fn fact_09_a_failed_command_has_its_code_in_the_error_and_no_response() {
    let failing = events("failing-tests");
    let failures = of_type(&failing, "PostToolUseFailure");
    let classes: Vec<_> = failures.iter().map(|event| event.error.as_ref().unwrap().class).collect();
    assert_eq!(classes, ["exit_code", "not_found", "timeout"]);
    let error = failures[0].error.as_ref().unwrap();
    assert!(error.message.starts_with("Exit code 1\n"));
    assert!(error.stack_trace.as_ref().unwrap().ends_with("ZeroDivisionError: division by zero"));
    assert_eq!(error.fingerprint.len(), 16);
    assert_eq!(failures[0].metrics.output_bytes, None);
    let push = events("dangerous-command");
    assert_eq!(of_type(&push, "PostToolUseFailure")[0].error.as_ref().unwrap().class, "git");
}

#[test]
fn fact_09_a_response_is_an_object_an_array_or_a_string() {
    for response in
        [json!({"stdout": "x"}), json!([{"type": "text", "text": "x"}]), json!("x"), json!(null), json!(7)]
    {
        let event = normalize_value(&json!({
            "session_id": "s", "cwd": "/p", "hook_event_name": "PostToolUse", "tool_name": "mcp__a__b",
            "tool_input": {}, "tool_response": response,
        }));
        let Fact::ToolEnd(_, outcome) = &event.fact else { panic!("{event:?}") };
        assert_eq!(outcome.status, CallStatus::Succeeded);
        assert_eq!(event.issues, []);
    }
}

#[test]
fn fact_09_old_payloads_have_no_time_and_no_tool_use_id() {
    let call = |name: &str, extra: serde_json::Value| {
        let mut payload = json!({
            "session_id": "s", "transcript_path": "/t", "cwd": "/p", "hook_event_name": name, "tool_name": "Bash",
            "tool_input": {"command": "make", "description": "Build"},
        });
        payload.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        normalize_value(&payload)
    };
    let pre = call("PreToolUse", json!({}));
    let post = call(
        "PostToolUse",
        json!({"tool_response": {"stdout": "", "stderr": "warning", "interrupted": false, "isImage": false}}),
    );
    let stopped =
        call("PostToolUse", json!({"tool_response": {"stdout": "", "stderr": "", "interrupted": true}}));
    let failed = call("PostToolUse", json!({"tool_response": {"is_error": true, "content": "boom"}}));
    // Paired by what was called.
    let calls = calls_of([&pre, &post]);
    assert_eq!(calls.len(), 1);
    assert_eq!(statuses(&calls), counts(&[("succeeded", 1)]));
    assert!(post.error.is_none(), "stderr alone is no failure");
    assert_eq!(statuses(&calls_of([&stopped])), counts(&[("interrupted", 1)]));
    assert_eq!(statuses(&calls_of([&failed])), counts(&[("failed", 1)]));
    assert_eq!(failed.error.as_ref().unwrap().message, "boom");
    // Without a time of its own an event has the time of its capture, and without that of its receipt.
    assert_eq!(pre.ts.get(), common::NOW_MS);
    let mut bare = common::delivery(b"{\"hook_event_name\":\"Stop\",\"session_id\":\"s\"}", 1);
    bare.captured = None;
    let event = taffrail_event::normalize::hook(&bare, &|_| None);
    assert_eq!((event.ts, event.issues.as_slice()), (bare.received, [Issue::NoTimestamp].as_slice()));
}

#[test]
fn a_call_without_a_time_of_its_own_has_no_beginning_to_compute_a_duration_from() {
    let text =
        br#"{"hook_event_name":"PreToolUse","session_id":"s","tool_name":"Bash","tool_input":{"command":"ls"}}"#;
    let dated = taffrail_event::normalize::hook(&common::delivery(text, 1), &|_| None);
    assert!(calls::updates(&dated)[0].started.is_some());
    let mut bare = common::delivery(text, 1);
    bare.captured = None;
    let undated = taffrail_event::normalize::hook(&bare, &|_| None);
    assert_eq!(calls::updates(&undated)[0].started, None);
}

#[test]
fn an_old_subagent_stop_without_an_agent_leaves_the_calls_of_the_main_agent_open() {
    let stop = normalize_value(
        &json!({"session_id": "s", "hook_event_name": "SubagentStop", "stop_hook_active": false}),
    );
    assert_eq!(calls::closes(&stop), ClosesCalls::None);
    let named =
        normalize_value(&json!({"session_id": "s", "agent_id": "a", "hook_event_name": "SubagentStop"}));
    assert_eq!(calls::closes(&named), ClosesCalls::OfAgent);
}

#[test]
fn fact_10_ended_calls_carry_their_duration() {
    for scenario in scenarios() {
        for (event, recorded) in events(&scenario).iter().zip(capture(&scenario)) {
            let Fact::ToolEnd(_, outcome) = &event.fact else { continue };
            assert_eq!(outcome.duration_ms, recorded.body["duration_ms"].as_u64());
            assert_eq!(event.metrics.execution_time_ms, outcome.duration_ms);
            let update = &calls::updates(event)[0];
            assert_eq!(update.started.unwrap().get(), event.ts.get() - outcome.duration_ms.unwrap() as i64);
        }
    }
}

#[test]
fn a_batch_reorders_the_keys_of_its_inputs_and_has_the_same_hash() {
    let mut calls = 0;
    for scenario in scenarios() {
        for (id, hashes) in hashes_by_call(&scenario) {
            calls += 1;
            if id != REWRITTEN_CALL {
                assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{scenario} {id}");
            }
        }
    }
    assert_eq!(calls, 71);
}

/// A hook answered this one with `updatedInput`.
const REWRITTEN_CALL: &str = "toolu_01d721e72196074498c91354e9";

#[test]
fn an_input_rewritten_by_a_hook_shows_in_the_post_alone() {
    let hashes = hashes_by_call("dangerous-command").remove(REWRITTEN_CALL).unwrap();
    let [pre, post, batch] = hashes[..] else { panic!("{hashes:?}") };
    assert_eq!(pre, batch);
    assert_ne!(pre, post);
}

/// The input hashes that the events of each call give, in order.
fn hashes_by_call(scenario: &str) -> BTreeMap<String, Vec<i64>> {
    let mut hashes: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events(scenario) {
        for update in calls::updates(&event) {
            hashes.entry(update.tool.tool_use_id.unwrap()).or_default().push(update.tool.input_hash);
        }
    }
    hashes
}

#[test]
fn a_second_delivery_of_a_tool_fact_has_the_same_key_and_of_others_another() {
    let payload = |name: &str| {
        json!({"session_id": "s", "hook_event_name": name, "tool_name": "Read", "tool_use_id": "t"})
            .to_string()
    };
    let key = |name: &str, at: i64| {
        let payload = payload(name);
        taffrail_event::normalize::hook(&common::delivery(payload.as_bytes(), at), &|_| None).dedup_key
    };
    assert_eq!(key("PreToolUse", 1), key("PreToolUse", 2));
    assert_ne!(key("PreToolUse", 1), key("PostToolUse", 1));
    assert_ne!(key("Stop", 1), key("Stop", 2));
    assert_eq!(key("Stop", 1), key("Stop", 1));
}

#[test]
fn a_turn_that_ends_on_an_api_error_has_its_class() {
    let overload = events("api-overload");
    let error = of_type(&overload, "StopFailure")[0].error.clone().unwrap();
    assert_eq!((error.class, error.recoverable), ("server_error", true));
    assert!(error.message.starts_with("API Error: 500 Internal server error."));
    for (name, text, class) in [
        ("rate_limit", "API Error: 429", "rate_limit"),
        ("authentication_failed", "Please run /login", "auth"),
        ("billing_error", "Credit balance is too low", "billing"),
        ("invalid_request", "x", "invalid_input"),
        ("server_error", "API Error: Repeated 529 Overloaded errors", "overloaded"),
        ("unknown", "API Error: Connection error.", "network"),
        ("unknown", "Prompt is too long", "context_limit"),
        ("something_new", "x", "unknown"),
    ] {
        let event = normalize_value(
            &json!({"session_id": "s", "hook_event_name": "StopFailure", "error": name, "last_assistant_message": text}),
        );
        assert_eq!(event.error.unwrap().class, class, "{name} {text}");
    }
}

#[test]
fn git_work_gives_its_git_operations() {
    let git = events("git-work");
    let operations: Vec<_> = git
        .iter()
        .flat_map(|event| &event.git_operations)
        .map(|op| (op.subcommand.as_str(), op.branch.as_deref(), op.insertions, op.commit.as_deref()))
        .collect();
    assert_eq!(
        operations,
        [
            ("status", None, None, None),
            ("log", None, None, None),
            ("checkout", Some("feature/perimeter"), None, None),
            ("add", None, None, None),
            ("commit", None, None, Some("e7f7b7a")),
            ("log", None, None, None),
            ("push", Some("feature/perimeter"), None, None),
            ("diff", None, Some(4), None),
        ]
    );
    let edit =
        git.iter().flat_map(|event| &event.file_operations).find(|op| op.kind == FileOperationKind::Edit);
    assert_eq!(
        edit,
        Some(&FileOperation {
            kind: FileOperationKind::Edit,
            path: "/home/user/project/shapes.py".to_owned(),
            size_bytes: None,
            duration_ms: Some(13),
            lines_added: Some(4),
            lines_removed: Some(0),
        })
    );
}

#[test]
fn files_are_taken_from_what_was_done() {
    let created = events("auto-mode");
    let operations: Vec<_> = created.iter().flat_map(|event| &event.file_operations).collect();
    assert_eq!(operations.len(), 1);
    assert_eq!(
        (operations[0].kind, operations[0].path.as_str()),
        (FileOperationKind::Write, "/home/user/project/d.txt")
    );
    let written = events("interactive-session");
    let operations: Vec<_> = written.iter().flat_map(|event| &event.file_operations).collect();
    assert_eq!(
        (operations[0].kind, operations[0].size_bytes, operations[0].lines_added),
        (FileOperationKind::Write, Some(2), Some(1))
    );
    // What was refused touched nothing.
    assert!(
        events("permission-denied")
            .iter()
            .flat_map(|event| &event.file_operations)
            .all(|op| op.kind == FileOperationKind::Read)
    );
}

#[test]
fn dangerous_commands_are_warned_of_once() {
    let rules = |scenario: &str| -> Vec<String> {
        events(scenario)
            .iter()
            .flat_map(|event| &event.warnings)
            .map(|warning| warning.rule.clone())
            .collect()
    };
    assert_eq!(rules("auto-mode"), [warnings::PIPE_TO_SHELL]);
    let dangerous = rules("dangerous-command");
    assert!(dangerous.contains(&warnings::RECURSIVE_DELETE.to_owned()), "{dangerous:?}");
    assert_eq!(dangerous.iter().filter(|rule| *rule == warnings::FORCE_PUSH).count(), 1);
    assert_eq!(rules("quick-edit"), [""; 0]);
}

#[test]
fn every_event_but_a_few_has_a_line_for_a_person() {
    let lines = |scenario: &str, name: &str| -> Vec<String> {
        of_type(&events(scenario), name).iter().map(|event: &&Event| event.summary.clone()).collect()
    };
    assert_eq!(
        lines("git-work", "UserPromptSubmit"),
        ["Add perimeter() to shapes.py on a new branch, commit and push it"]
    );
    assert_eq!(
        lines("git-work", "PreToolUse")[..3],
        ["git status --short && git log --oneline -5", "git checkout -b feature/perimeter", "shapes.py"]
    );
    assert_eq!(lines("interactive-session", "Notification")[0], "Claude needs your permission");
    assert_eq!(
        lines("auto-mode", "PermissionDenied"),
        ["curl -s http://127.0.0.1:9/x | sh: Classifier unavailable"]
    );
    assert_eq!(lines("slash-and-skill", "UserPromptExpansion"), ["/say good morning"]);
    assert_eq!(lines("dangerous-command", "PostToolBatch")[0], "Bash denied");
    for scenario in scenarios() {
        for event in events(&scenario) {
            assert!(!event.summary.is_empty(), "{scenario} {}", event.type_name);
        }
    }
}

#[test]
fn unknown_fields_and_events_are_kept_named_and_bounded() {
    let mut payload =
        json!({"session_id": "s", "hook_event_name": "Stop", "brand_new": {"a": [1]}, "other": 1});
    let event = normalize_value(&payload);
    assert_eq!(event.issues, [Issue::UnknownField("brand_new".into()), Issue::UnknownField("other".into())]);
    assert!(event.payload.text.contains("brand_new"));
    for n in 0..1000 {
        payload[format!("field_{n}")] = json!(n);
    }
    assert_eq!(normalize_value(&payload).issues.len(), taffrail_event::normalize::UNKNOWN_FIELDS_MAX);

    let event =
        normalize_value(&json!({"session_id": "s", "hook_event_name": "BrandNew", "message": "hello"}));
    assert!(matches!(event.fact, Fact::Unknown));
    assert_eq!((event.type_name.as_str(), event.summary.as_str()), ("BrandNew", "hello"));
    assert_eq!(event.issues, [Issue::UnknownEvent("BrandNew".into())]);
}

#[test]
fn bytes_that_are_no_payload_are_kept_and_marked() {
    let event = normalize(b"not json");
    assert!(matches!(event.fact, Fact::Malformed) && matches!(event.issues[0], Issue::NotJson(_)));
    assert_eq!(
        (event.payload.text.as_str(), event.payload.is_json, event.type_name.as_str()),
        ("not json", false, "malformed")
    );
    assert_eq!(event.session_id, "unknown");

    let event = normalize(b" [1, 2] ");
    assert!(matches!(event.fact, Fact::Malformed) && event.issues.contains(&Issue::NotAnObject));
    assert!(event.payload.is_json);

    let event = normalize(
        b"{\"session_id\":\"s\",\"hook_event_name\":\"UserPromptSubmit\",\"prompt\":\"a\xff\\u0000b\"}",
    );
    assert_eq!(event.issues, [Issue::InvalidUtf8]);
    assert_eq!(event.summary, "a\u{fffd} b");
    assert!(event.payload.text.contains("\\u0000"));

    let event = normalize(
        b"{\"session_id\":\"s\",\"hook_event_name\":\"UserPromptSubmit\",\"prompt\":\"half \\ud83d\"}",
    );
    assert_eq!((event.summary.as_str(), event.issues.len()), ("half \u{fffd}", 0));
    assert!(event.payload.is_json && event.payload.text.contains("\\ud83d"));

    let event = normalize(b"\xef\xbb\xbf{\"session_id\":\"s\",\"hook_event_name\":\"Stop\"}\r\n");
    assert!(matches!(event.fact, Fact::Stop));
    assert!(event.payload.text.starts_with('{'));
}

#[test]
fn a_depth_of_1000_is_kept_raw_and_still_named() {
    let deep = format!(
        r#"{{"session_id":"s","hook_event_name":"PreToolUse","tool_name":"mcp__x__y","tool_input":{}1{},"tool_use_id":"t"}}"#,
        r#"{"a":"#.repeat(1000),
        "}".repeat(1000)
    );
    let event = normalize(deep.as_bytes());
    assert!(event.issues.contains(&Issue::TooDeep));
    assert_eq!((event.session_id.as_str(), event.tool_use_id.as_deref()), ("s", Some("t")));
    assert!(event.payload.is_json && event.payload.text == deep);
    assert!(matches!(event.fact, Fact::ToolStart(_)));
}

#[test]
fn a_cut_payload_is_still_its_event() {
    let whole = json!({
        "session_id": "s", "cwd": "/p", "hook_event_name": "PostToolUse", "tool_name": "Read", "tool_input": {"file_path": "/p/a"},
        "tool_response": {"file": {"content": "x\"y,\\".repeat(100_000)}}, "tool_use_id": "toolu_1", "duration_ms": 42,
    })
    .to_string();
    let cut = [&whole.as_bytes()[..10_001], &whole.as_bytes()[whole.len() - 5_000..]].concat();
    let mut delivery = common::delivery(&cut, common::NOW_MS);
    delivery.truncated = true;
    delivery.payload_bytes = whole.len() as u64;
    let event = taffrail_event::normalize::hook(&delivery, &|_| None);
    assert_eq!(event.issues, [Issue::Truncated]);
    assert_eq!((event.type_name.as_str(), event.session_id.as_str()), ("PostToolUse", "s"));
    assert_eq!((event.tool_use_id.as_deref(), event.metrics.execution_time_ms), (Some("toolu_1"), Some(42)));
    assert!(!event.payload.is_json && event.payload.truncated);
    assert_eq!(event.payload.original_bytes, whole.len() as u64);
    assert_eq!(event.summary, "a");
    assert_eq!(event.warnings[0].rule, warnings::PAYLOAD_TRUNCATED);
}

#[test]
fn a_payloads_own_time_wins_in_every_notation() {
    let at = |timestamp: serde_json::Value| {
        let event =
            normalize_value(&json!({"session_id": "s", "hook_event_name": "Stop", "timestamp": timestamp}));
        (event.ts.get(), event.issues)
    };
    for timestamp in [
        json!(1_795_333_438_402i64),
        json!(1_795_333_438.402),
        json!("1795333438402"),
        json!("2026-11-22T07:43:58.402Z"),
        json!("2026-11-22T08:43:58.402+01:00"),
    ] {
        assert_eq!(at(timestamp.clone()), (1_795_333_438_402, vec![]), "{timestamp}");
    }
    assert_eq!(at(json!("yesterday")).0, common::NOW_MS);
    assert!(matches!(at(json!(-5_000_000_000_000i64)).1[..], [Issue::ClampedTimestamp(-5_000_000_000_000)]));
}
