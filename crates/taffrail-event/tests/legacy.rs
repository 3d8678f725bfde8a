//! What senders of the old server's route post.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use serde_json::{Map, Value, json};
use taffrail_event::event::{CallStatus, Event, Fact, Issue};
use taffrail_event::normalize::{LegacyPost, legacy};
use taffrail_event::{EventId, Source, TimestampMs};

fn post(id: &[u8], kind: &str, payload: &Value, fields: Value) -> Event {
    let text = payload.to_string();
    let Value::Object(fields) = fields else { panic!() };
    legacy(
        LegacyPost {
            event_id: EventId::derived(&[id]),
            received: TimestampMs::clamped(common::NOW_MS),
            source_app: "demo",
            session_id: "posted",
            hook_event_type: kind,
            timestamp_ms: Some(1_795_333_438_402),
            payload: &text,
            fields,
            redactions: 0,
            payload_bytes: text.len() as u64,
        },
        &|_| Some("never asked".to_owned()),
    )
}

#[test]
fn a_post_is_read_as_the_hook_payload_it_holds() {
    let payload = json!({"session_id": "inner", "tool_name": "Bash", "tool_input": {"command": "false"}, "error": "Exit code 1"});
    let event = post(
        b"1",
        "PostToolUseFailure",
        &payload,
        json!({"tool_use_id": "t", "agent_id": "a", "model_name": "m", "chat": [1]}),
    );
    assert_eq!(
        (event.source, event.app.as_str(), event.session_id.as_str()),
        (Source::Legacy, "demo", "posted")
    );
    assert_eq!(event.ts.get(), 1_795_333_438_402);
    assert_eq!(
        (event.tool_use_id.as_deref(), event.agent_id.as_deref(), event.model.as_deref()),
        (Some("t"), Some("a"), Some("m"))
    );
    let Fact::ToolEnd(_, outcome) = &event.fact else { panic!("{event:?}") };
    assert_eq!(outcome.status, CallStatus::Failed);
    assert_eq!(event.error.as_ref().unwrap().class, "exit_code");
    assert_eq!(event.legacy.as_ref().unwrap().fields["chat"], json!([1]));
    assert_eq!(event.issues, []);
}

#[test]
fn any_type_and_any_payload_is_an_event() {
    for payload in [json!({"x": 1}), json!([1, 2]), json!("text"), json!(7), json!(true)] {
        let event = post(b"1", "Deploy finished ✓", &payload, json!({}));
        assert!(matches!(event.fact, Fact::Unknown));
        assert_eq!(event.type_name, "Deploy finished ✓");
        assert_eq!(event.payload.text, payload.to_string());
        assert!(event.payload.is_json);
        assert_eq!(event.issues, [Issue::UnknownEvent("Deploy finished ✓".to_owned())]);
    }
    let event = post(b"1", "Stop", &json!("no object"), json!({}));
    assert!(matches!(event.fact, Fact::Stop) && event.issues.is_empty());
}

#[test]
fn two_identical_posts_are_two_events_unless_they_name_a_call() {
    let payload = json!({"tool_name": "Read", "tool_input": {}});
    let one = |id: &[u8], fields: Value| post(id, "PreToolUse", &payload, fields).dedup_key;
    assert_ne!(one(b"1", json!({})), one(b"2", json!({})));
    assert_eq!(one(b"1", json!({"tool_use_id": "t"})), one(b"2", json!({"tool_use_id": "t"})));
    let free = |id: &[u8]| post(id, "Custom", &json!({}), json!({"tool_use_id": "t"})).dedup_key;
    assert_ne!(free(b"1"), free(b"2"));
}

#[test]
fn a_capture_posted_by_the_old_sender_tells_the_same_calls() {
    for scenario in common::scenarios() {
        let native = common::events(&scenario);
        let posted: Vec<Event> = common::capture(&scenario)
            .iter()
            .map(|recorded| {
                let text = recorded.body.to_string();
                legacy(
                    LegacyPost {
                        event_id: EventId::derived(&[text.as_bytes(), &recorded.at_ms.to_le_bytes()]),
                        received: TimestampMs::clamped(common::NOW_MS),
                        source_app: "project",
                        session_id: recorded.body["session_id"].as_str().unwrap(),
                        hook_event_type: recorded.body["hook_event_name"].as_str().unwrap(),
                        timestamp_ms: Some(recorded.at_ms),
                        payload: &text,
                        fields: Map::new(),
                        redactions: 0,
                        payload_bytes: text.len() as u64,
                    },
                    &|_| None,
                )
            })
            .collect();
        assert_eq!(common::calls_of(&native), common::calls_of(&posted));
        for (a, b) in native.iter().zip(&posted) {
            assert_eq!((&a.summary, &a.error, a.dedup_key), (&b.summary, &b.error, b.dedup_key));
        }
    }
}
