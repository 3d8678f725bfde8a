//! What the tests over recordings share.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests; each test file uses its own part"
)]

pub mod transcripts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use taffrail_event::event::ClosesCalls;
use taffrail_event::normalize::calls::{self, CallState};
use taffrail_event::normalize::{Delivery, hook};
use taffrail_event::{Event, EventId, Source, TimestampMs};

/// The time at which every test lives, in milliseconds since the epoch.
pub const NOW_MS: i64 = 1_795_400_000_000;

pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The folder of real payloads, which is not part of the repository: `TAFFRAIL_SHARED`, else `../shared` beside the
/// checkout. Says loudly when it is absent.
pub fn shared_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("TAFFRAIL_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| workspace_root().join("../shared"));
    if dir.join("data/hook-payloads").is_dir() {
        return Some(dir);
    }
    eprintln!("!!! NOT TESTED: no real payloads in {}; set TAFFRAIL_SHARED", dir.display());
    None
}

/// One recorded delivery.
pub struct Recorded {
    pub at_ms: i64,
    pub body: Value,
}

/// The deliveries of a capture, in order of arrival.
pub fn capture(scenario: &str) -> Vec<Recorded> {
    let path = workspace_root().join("fixtures/captures").join(scenario).join("hooks.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            Recorded { at_ms: (line["t"].as_f64().unwrap() * 1000.0) as i64, body: line["body"].take() }
        })
        .collect()
}

/// Every capture of the repository.
pub fn scenarios() -> Vec<String> {
    let dir = workspace_root().join("fixtures/captures");
    let folders = std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The real payloads, one JSON text each.
pub fn real_payloads(shared: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for project in std::fs::read_dir(shared.join("data/hook-payloads")).unwrap() {
        let project = project.unwrap().path();
        for file in std::fs::read_dir(project).unwrap() {
            files.push(file.unwrap().path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|ext| ext == "jsonl"));
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

pub fn delivery(payload: &[u8], at_ms: i64) -> Delivery<'_> {
    Delivery {
        event_id: EventId::derived(&[payload, &at_ms.to_le_bytes()]),
        source: Source::Hook,
        captured: Some(TimestampMs::clamped(at_ms)),
        received: TimestampMs::clamped(NOW_MS),
        app: None,
        user: None,
        host: None,
        payload,
        payload_bytes: payload.len() as u64,
        truncated: false,
        redactions: 0,
        hook_wall_us: None,
    }
}

pub fn normalize(payload: &[u8]) -> Event {
    hook(&delivery(payload, NOW_MS), &|_| None)
}

pub fn normalize_value(payload: &Value) -> Event {
    normalize(payload.to_string().as_bytes())
}

/// A capture as events.
pub fn events(scenario: &str) -> Vec<Event> {
    capture(scenario)
        .iter()
        .map(|recorded| hook(&delivery(recorded.body.to_string().as_bytes(), recorded.at_ms), &|_| None))
        .collect()
}

pub fn of_type<'a>(events: &'a [Event], type_name: &str) -> Vec<&'a Event> {
    events.iter().filter(|event| event.type_name == type_name).collect()
}

/// Which call: session, agent, and the client's id or the tool with its input.
pub type CallKey = (String, Option<String>, String);

/// The calls that events tell of, put together as the store does it.
pub fn calls_of<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeMap<CallKey, (String, CallState)> {
    let mut calls: BTreeMap<CallKey, (String, CallState)> = BTreeMap::new();
    let mut closes = Vec::new();
    for event in events {
        for update in calls::updates(event) {
            let id = update.tool.tool_use_id.clone().unwrap_or_else(|| update.tool.input_hash.to_string());
            let key = (event.session_id.clone(), event.agent_id.clone(), id);
            let (_, state) =
                calls.entry(key).or_insert_with(|| (update.tool.tool_name.clone(), CallState::UNKNOWN));
            calls::merge(state, &update);
        }
        closes.push((calls::closes(event), event));
    }
    for (which, event) in closes {
        for ((session, agent, _), (_, state)) in &mut calls {
            let is_meant = match which {
                ClosesCalls::None => false,
                ClosesCalls::OfAgent => *session == event.session_id && *agent == event.agent_id,
                ClosesCalls::OfSession => *session == event.session_id,
            };
            if is_meant {
                calls::close(state, event.ts);
            }
        }
    }
    calls
}

/// How many calls of each status.
pub fn statuses(calls: &BTreeMap<CallKey, (String, CallState)>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (_, state) in calls.values() {
        *counts.entry(state.status.name()).or_default() += 1;
    }
    counts
}
