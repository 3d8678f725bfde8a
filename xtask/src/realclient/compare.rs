//! Holding what Taffrail stored against what the client sent. Pure.

use super::recorder::Recorded;
use super::scenario::Expect;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// An event as the API gives it, reduced to what is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    key: Key,
    duration_ms: Option<u64>,
    /// The payload, where nothing in it was replaced or left out.
    payload: Option<Value>,
}

/// What tells events apart; equal keys are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    event: String,
    session_id: String,
    agent_id: String,
    prompt_id: String,
    tool_use_id: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.event)?;
        if !self.tool_use_id.is_empty() {
            write!(f, " {}", self.tool_use_id)?;
        }
        Ok(())
    }
}

/// The result for one scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Sent, by the independent recorder.
    pub(crate) truth: usize,
    /// Stored.
    pub(crate) stored: usize,
    /// Sent, but not stored.
    pub(crate) missing: Vec<String>,
    /// Stored, but not sent.
    pub(crate) extra: Vec<String>,
    /// Tool calls whose stored duration is not the client's `duration_ms`.
    pub(crate) durations: Vec<String>,
    /// Stored with a payload that nobody sent.
    pub(crate) payloads: Vec<String>,
}

impl Comparison {
    /// Every difference, in words; none when both sides agree in everything.
    pub(crate) fn differences(&self) -> Vec<String> {
        let kinds = [
            ("missing", &self.missing),
            ("extra", &self.extra),
            ("duration", &self.durations),
            ("payload", &self.payloads),
        ];
        kinds.iter().flat_map(|(kind, all)| all.iter().map(move |one| format!("{kind}: {one}"))).collect()
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// The key of a recorded delivery, and its duration where it carries one.
fn of_recorded(recorded: &Recorded) -> Stored {
    let body = &recorded.body;
    Stored {
        key: Key {
            event: text(body, "hook_event_name"),
            session_id: text(body, "session_id"),
            agent_id: text(body, "agent_id"),
            prompt_id: text(body, "prompt_id"),
            tool_use_id: text(body, "tool_use_id"),
        },
        duration_ms: body["duration_ms"].as_u64(),
        payload: Some(body.clone()),
    }
}

/// Reads one item of `/api/v1/events`.
pub(crate) fn of_item(item: &Value) -> Stored {
    Stored {
        key: Key {
            event: text(item, "type"),
            session_id: text(item, "session_id"),
            agent_id: text(item, "agent_id"),
            prompt_id: text(item, "prompt_id"),
            tool_use_id: text(item, "tool_use_id"),
        },
        duration_ms: item["metrics"]["execution_time_ms"].as_u64(),
        payload: (item["payload_truncated"] == false && item["redactions"] == 0)
            .then(|| item["payload"].clone()),
    }
}

/// Compares as multisets: every delivery once, nothing besides.
pub(crate) fn compare(truth: &[Recorded], stored: &[Stored]) -> Comparison {
    let sent: Vec<Stored> = truth.iter().map(of_recorded).collect();
    let mut balance: BTreeMap<&Key, i64> = BTreeMap::new();
    for event in &sent {
        *balance.entry(&event.key).or_default() += 1;
    }
    for event in stored {
        *balance.entry(&event.key).or_default() -= 1;
    }
    let named = |wanted: fn(i64) -> bool| {
        balance.iter().filter(|(_, n)| wanted(**n)).map(|(key, n)| format!("{key} x{}", n.abs())).collect()
    };
    Comparison {
        truth: sent.len(),
        stored: stored.len(),
        missing: named(|n| n > 0),
        extra: named(|n| n < 0),
        durations: durations(&sent, stored),
        payloads: payloads(&sent, stored),
    }
}

/// Unknown fields are kept: the whole payload comes back as it was sent.
fn payloads(sent: &[Stored], stored: &[Stored]) -> Vec<String> {
    let altered = |event: &&Stored| {
        let same_key = || sent.iter().filter(|other| other.key == event.key);
        event.payload.is_some()
            && same_key().count() > 0
            && same_key().all(|other| other.payload != event.payload)
    };
    stored.iter().filter(altered).map(|event| format!("{} came back altered", event.key)).collect()
}

fn durations(sent: &[Stored], stored: &[Stored]) -> Vec<String> {
    let timed = sent.iter().filter(|event| event.duration_ms.is_some());
    timed
        .filter_map(|event| {
            let found = stored.iter().find(|other| other.key == event.key)?;
            let differs = found.duration_ms != event.duration_ms;
            differs.then(|| format!("{}: {:?} ms, not {:?}", event.key, found.duration_ms, event.duration_ms))
        })
        .collect()
}

/// What the scenario should have caused and did not.
pub(crate) fn unmet(expect: &Expect, truth: &[Recorded], unused_turns: usize) -> Vec<String> {
    let mut problems = Vec::new();
    for (event, wanted) in &expect.events {
        let found = truth.iter().filter(|recorded| recorded.event() == event).count();
        if found < *wanted {
            problems.push(format!("the client sent {found} {event}, expected {wanted}"));
        }
    }
    if unused_turns != expect.unused_turns {
        problems.push(format!("{unused_turns} turns unused, expected {}", expect.unused_turns));
    }
    for path in expect.present.iter().filter(|path| !path.exists()) {
        problems.push(format!("{} is gone", path.display()));
    }
    for path in expect.absent.iter().filter(|path| path.exists()) {
        problems.push(format!("{} is there", path.display()));
    }
    problems
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn sent(event: &str, tool: &str, duration_ms: Option<u64>) -> Recorded {
        let mut body = json!({"hook_event_name": event, "session_id": "s", "tool_use_id": tool});
        if let Some(ms) = duration_ms {
            body["duration_ms"] = json!(ms);
        }
        Recorded { captured_ms: 0, body }
    }

    fn item(event: &str, tool: &str, duration_ms: Option<u64>) -> Stored {
        of_item(&json!({
            "type": event, "session_id": "s", "tool_use_id": tool, "redactions": 0,
            "metrics": {"execution_time_ms": duration_ms}, "payload_truncated": false,
            "payload": sent(event, tool, duration_ms).body,
        }))
    }

    #[test]
    fn the_same_on_both_sides_agrees_in_any_order() {
        let truth = [sent("Stop", "", None), sent("PostToolUse", "t", Some(5)), sent("Stop", "", None)];
        let stored = [item("PostToolUse", "t", Some(5)), item("Stop", "", None), item("Stop", "", None)];
        let result = compare(&truth, &stored);
        assert_eq!(result.differences(), [""; 0]);
        assert_eq!((result.truth, result.stored), (3, 3));
    }

    #[test]
    fn a_lost_a_doubled_and_a_strange_event_are_found() {
        let truth = [sent("Stop", "", None), sent("PreToolUse", "t", None), sent("SessionEnd", "", None)];
        let stored = [item("Stop", "", None), item("Stop", "", None), item("PreToolUse", "other", None)];
        let result = compare(&truth, &stored);
        assert_eq!(result.missing, ["PreToolUse t x1", "SessionEnd x1"]);
        assert_eq!(result.extra, ["PreToolUse other x1", "Stop x1"]);
        assert_eq!(result.differences()[0], "missing: PreToolUse t x1");
    }

    #[test]
    fn a_wrong_or_lost_duration_is_found() {
        let truth = [sent("PostToolUse", "a", Some(5)), sent("PostToolUse", "b", Some(6))];
        let stored = [item("PostToolUse", "a", Some(4)), item("PostToolUse", "b", None)];
        assert_eq!(compare(&truth, &stored).durations.len(), 2);
    }

    #[test]
    fn an_altered_payload_is_found_unless_it_says_so() {
        let mut stored = item("Stop", "", None);
        stored.payload = Some(json!({"hook_event_name": "Stop"}));
        assert_eq!(compare(&[sent("Stop", "", None)], &[stored.clone()]).payloads.len(), 1);
        stored.payload = None;
        assert_eq!(compare(&[sent("Stop", "", None)], &[stored]).differences(), [""; 0]);
    }

    #[test]
    fn what_a_scenario_should_cause_is_checked() {
        let expect: Expect = serde_json::from_value(json!({
            "events": {"Stop": 2}, "present": ["/nonexistent/a"], "absent": ["/"],
        }))
        .unwrap();
        let problems = unmet(&expect, &[sent("Stop", "", None)], 1);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }
}
