//! Tests of the store as a whole: what is written, merged, summed up, read back and refused.

mod digest;
mod findings;
mod hourly;
mod ledger;
mod model;
mod opening;
mod reading;
mod suggestions;
mod telemetry;
mod windows;
mod writing;

use serde_json::{Map, Value};
use taffrail_event::event::{
    Arrival, CallStatus, ErrorInfo, Fact, Legacy, Metrics, Payload, PromptOrigin, ToolOutcome, ToolRef,
};
use taffrail_event::ids::{DedupKey, EventId, TimestampMs};
use taffrail_event::{Event, Source};
use tempfile::TempDir;

use crate::{Options, Store};

/// A quarter past ten on some day, in milliseconds.
const T0: i64 = 1_795_342_500_000;

/// A store in its own directory.
struct Bed {
    dir: TempDir,
    store: Store,
}

impl Bed {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&options(&dir)).unwrap();
        Self { dir, store }
    }

    fn reopen(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = Store::open(&options(&dir)).unwrap();
        Self { dir, store }
    }
}

fn options(dir: &TempDir) -> Options {
    Options::new(dir.path().join("taffrail.db"))
}

/// An event of session "s" in app "app" by "ann" at `T0 + ms`, with a stamp that makes it one of its own.
fn event(ms: i64, type_name: &str, fact: Fact) -> Event {
    let event_id = EventId::derived(&[type_name.as_bytes(), &ms.to_le_bytes()]);
    Event {
        event_id,
        dedup_key: DedupKey::of_delivery("s", event_id),
        ts: TimestampMs::clamped(T0 + ms),
        received: TimestampMs::clamped(T0 + ms + 3),
        source: Source::Hook,
        arrival: Arrival::Live,
        app: "app".to_owned(),
        session_id: "s".to_owned(),
        agent_id: None,
        agent_type: None,
        prompt_id: None,
        tool_use_id: None,
        user: Some("ann".to_owned()),
        host: Some("host".to_owned()),
        cwd: Some("/project".to_owned()),
        model: None,
        type_name: type_name.to_owned(),
        tool_name: None,
        summary: format!("{type_name} at {ms}"),
        fact,
        metrics: Metrics::default(),
        error: None,
        file_operations: Vec::new(),
        git_operations: Vec::new(),
        warnings: Vec::new(),
        issues: Vec::new(),
        payload: Payload {
            text: format!("{{\"hook_event_name\":\"{type_name}\",\"ms\":{ms}}}"),
            is_json: true,
            original_bytes: 40,
            truncated: false,
            redactions: 0,
        },
        request: None,
        failure: None,
        labels: Vec::new(),
        legacy: None,
    }
}

fn tool(id: Option<&str>, name: &str) -> ToolRef {
    ToolRef { tool_name: name.to_owned(), tool_use_id: id.map(str::to_owned), input_hash: 7 }
}

fn pre(ms: i64, id: Option<&str>, name: &str) -> Event {
    of_tool(event(ms, "PreToolUse", Fact::ToolStart(tool(id, name))), id, name)
}

fn post(ms: i64, id: Option<&str>, name: &str, duration_ms: Option<u64>) -> Event {
    let outcome = ToolOutcome { status: CallStatus::Succeeded, duration_ms };
    of_tool(event(ms, "PostToolUse", Fact::ToolEnd(tool(id, name), outcome)), id, name)
}

fn failure(ms: i64, id: Option<&str>, name: &str) -> Event {
    let outcome = ToolOutcome { status: CallStatus::Failed, duration_ms: Some(20) };
    let mut event =
        of_tool(event(ms, "PostToolUseFailure", Fact::ToolEnd(tool(id, name), outcome)), id, name);
    event.error = Some(ErrorInfo {
        class: "timeout",
        message: "it took too long".to_owned(),
        stack_trace: None,
        recoverable: true,
        retry_count: 0,
        fingerprint: "00112233aabbccdd".to_owned(),
    });
    event
}

fn of_tool(mut event: Event, id: Option<&str>, name: &str) -> Event {
    event.tool_name = Some(name.to_owned());
    event.tool_use_id = id.map(str::to_owned);
    if let Some(id) = id {
        event.dedup_key =
            DedupKey::of_tool_fact(&event.session_id, event.agent_id.as_deref(), id, &event.type_name);
    }
    event
}

fn prompt(ms: i64) -> Event {
    event(ms, "UserPromptSubmit", Fact::Prompt { origin: PromptOrigin::Human })
}

fn of_agent(mut event: Event, agent: &str) -> Event {
    event.agent_id = Some(agent.to_owned());
    event.agent_type = Some("Explore".to_owned());
    if let Some(id) = &event.tool_use_id {
        event.dedup_key = DedupKey::of_tool_fact(&event.session_id, Some(agent), id, &event.type_name);
    }
    event
}

fn of_session(mut event: Event, session: &str) -> Event {
    event.session_id = session.to_owned();
    event.dedup_key = match &event.tool_use_id {
        Some(id) => DedupKey::of_tool_fact(session, event.agent_id.as_deref(), id, &event.type_name),
        None => DedupKey::of_delivery(session, event.event_id),
    };
    event
}

fn with_legacy(mut event: Event, fields: &[(&str, Value)]) -> Event {
    let fields: Map<String, Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    event.source = Source::Legacy;
    event.legacy = Some(Legacy { fields });
    event
}

#[test]
fn sqlite_has_the_wal_reset_fix() {
    assert!(rusqlite::version_number() >= 3_051_003, "SQLite {} is too old", rusqlite::version());
}
