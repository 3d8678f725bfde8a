//! Whatever arrives: no panic, nothing lost of the payload, nothing beyond its bound.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{delivery, normalize};
use proptest::prelude::*;
use serde_json::{Value, json};
use taffrail_event::HookEvent;
use taffrail_event::event::{Event, Fact, SUMMARY_MAX_CHARS};
use taffrail_event::normalize::{calls, files, git, hook};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(git|rm|curl) [a-z '\"$(){}<>|&;\n-]{0,40}".prop_map(Value::from),
        "Exit code [0-9]{1,3}\n.{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any_name(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Names that mean something here, and others.
fn any_name() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "session_id",
        "cwd",
        "tool_name",
        "tool_input",
        "tool_response",
        "tool_use_id",
        "agent_id",
        "agent_type",
        "prompt",
        "error",
        "is_interrupt",
        "duration_ms",
        "timestamp",
        "tool_calls",
        "command",
        "file_path",
        "content",
        "old_string",
        "new_string",
        "edits",
        "structuredPatch",
        "lines",
        "bashEditDiff",
        "files",
        "filePath",
        "changedFiles",
        "stdout",
        "stderr",
        "interrupted",
        "success",
        "file",
        "text",
        "message",
        "last_assistant_message",
        "permission_mode",
        "todos",
    ];
    prop_oneof![4 => prop::sample::select(NAMES).prop_map(str::to_owned), 1 => any::<String>()]
}

fn any_payload() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(HookEvent::KNOWN).prop_map(|kind| kind.name().to_owned());
    let tool =
        prop::sample::select(vec!["Bash", "Read", "Write", "Edit", "MultiEdit", "NotebookEdit", "Agent"]);
    let fields = prop::collection::btree_map(any_name(), any_json(), 0..10);
    (kind, tool, fields, any_json(), any_json()).prop_map(|(kind, tool, fields, input, response)| {
        let mut payload = json!({"tool_name": tool, "tool_input": input, "tool_response": response});
        payload.as_object_mut().unwrap().extend(fields);
        payload["hook_event_name"] = json!(kind);
        payload
    })
}

fn check_bounds(event: &Event) {
    assert!(event.summary.chars().count() <= SUMMARY_MAX_CHARS);
    assert!(!event.summary.contains(|c: char| c.is_control()));
    assert!(event.file_operations.len() <= files::FILE_OPERATIONS_MAX);
    assert!(event.git_operations.len() <= git::GIT_OPERATIONS_MAX);
    assert!(calls::updates(event).len() <= calls::BATCH_CALLS_MAX);
    assert!(!event.session_id.is_empty() && !event.app.is_empty() && !event.type_name.is_empty());
    if event.payload.is_json {
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(&event.payload.text).is_ok());
    }
}

proptest! {
    // A failing input belongs into a test with a name, not into a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_an_event(bytes in prop::collection::vec(any::<u8>(), 0..200), truncated in any::<bool>()) {
        let mut delivery = delivery(&bytes, common::NOW_MS);
        delivery.truncated = truncated;
        check_bounds(&hook(&delivery, &|_| None));
    }

    #[test]
    fn arbitrary_json_is_an_event_and_its_text_is_kept(json in any_json()) {
        let text = json.to_string();
        let event = normalize(text.as_bytes());
        prop_assert_eq!(&event.payload.text, &text);
        prop_assert!(event.payload.is_json);
        check_bounds(&event);
    }

    #[test]
    fn payloads_of_any_shape_are_their_event(payload in any_payload()) {
        let text = payload.to_string();
        let event = normalize(text.as_bytes());
        prop_assert_eq!(&event.payload.text, &text);
        prop_assert!(!matches!(event.fact, Fact::Unknown | Fact::Malformed));
        check_bounds(&event);
    }

    #[test]
    fn a_payload_cut_anywhere_is_still_an_event(payload in any_payload(), head in any::<prop::sample::Index>(), tail in any::<prop::sample::Index>()) {
        let text = payload.to_string();
        let (head, tail) = (head.index(text.len()), tail.index(text.len()));
        let cut = [&text.as_bytes()[..head.min(tail)], &text.as_bytes()[head.max(tail)..]].concat();
        let mut delivery = delivery(&cut, common::NOW_MS);
        delivery.truncated = true;
        check_bounds(&hook(&delivery, &|_| None));
        delivery.truncated = false;
        check_bounds(&hook(&delivery, &|_| None));
    }
}
