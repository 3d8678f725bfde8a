//! What events tell about tool calls, and how that is put together.
//!
//! A call is known by session, agent and tool use id, or where a client gives none by tool and input. Its
//! events may come in any order, twice, or never: [`merge`] gives the same state for every order and
//! repetition. The store does the same in SQL, and this is what it is held against.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error;
use super::fields::{Fields, string_of};
use crate::event::{
    BatchedCall, CallStatus, CallUpdate, ClosesCalls, ErrorInfo, Event, Fact, Issue, ToolRef,
};
use crate::ids::{TimestampMs, bounded_id, hash_parts};

/// The most calls of one batch that are looked at; the payload keeps all.
pub const BATCH_CALLS_MAX: usize = 256;

/// Evidence: a call begins.
pub const RANK_PRE: u8 = 0;
/// Evidence: its agent or session ended.
pub const RANK_CLOSED: u8 = 1;
/// Evidence: the batch it was in.
pub const RANK_BATCH: u8 = 2;
/// Evidence: PermissionDenied.
pub const RANK_DENIED: u8 = 3;
/// Evidence: a log record of the client's telemetry.
pub const RANK_TOLD: u8 = 3;
/// Evidence: its own Post event.
pub const RANK_POST: u8 = 4;

/// What an event tells about calls by name.
pub fn updates(event: &Event) -> Vec<CallUpdate> {
    let update = |tool: &ToolRef, status, rank, started, ended, duration_ms| CallUpdate {
        tool: tool.clone(),
        status,
        rank,
        started,
        ended,
        duration_ms,
    };
    let ts = event.ts;
    match &event.fact {
        Fact::ToolStart(tool) => {
            // The time of an import is no beginning: a wall time computed from it would be made up.
            let began = (!event.issues.contains(&Issue::NoTimestamp)).then_some(ts);
            vec![update(tool, CallStatus::Running, RANK_PRE, began, None, None)]
        }
        Fact::ToolEnd(tool, outcome) => {
            let started = outcome.duration_ms.map(|ms| before(ts, ms));
            vec![update(tool, outcome.status, RANK_POST, started, Some(ts), outcome.duration_ms)]
        }
        Fact::ToolTold(tool, outcome) => {
            let started = outcome.duration_ms.map(|ms| before(ts, ms));
            vec![update(tool, outcome.status, RANK_TOLD, started, Some(ts), outcome.duration_ms)]
        }
        Fact::PermissionDenied(tool) => {
            vec![update(tool, CallStatus::Denied, RANK_DENIED, None, Some(ts), None)]
        }
        Fact::ToolBatch(calls) => calls
            .iter()
            .map(|call| update(&call.tool, call.status, RANK_BATCH, None, Some(ts), None))
            .collect(),
        _ => Vec::new(),
    }
}

/// Which open calls an event ends without naming them. A SubagentStop without an agent (old payloads) ends none:
/// the main agent, whose calls those would be, goes on.
pub fn closes(event: &Event) -> ClosesCalls {
    match &event.fact {
        Fact::Stop | Fact::StopFailure => ClosesCalls::OfAgent,
        Fact::SubagentStop { .. } if event.agent_id.is_some() => ClosesCalls::OfAgent,
        Fact::SessionEnd { .. } => ClosesCalls::OfSession,
        _ => ClosesCalls::None,
    }
}

fn before(ts: TimestampMs, ms: u64) -> TimestampMs {
    TimestampMs::clamped(ts.get().saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}

/// A call, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallState {
    /// What became of it.
    pub status: CallStatus,
    /// How good the evidence for that is.
    pub rank: u8,
    /// When it began: the earliest that any event says.
    pub started: Option<TimestampMs>,
    /// When it ended, as the event says that gave the status.
    pub ended: Option<TimestampMs>,
    /// How long it took by the client's own clock, in milliseconds.
    pub duration_ms: Option<u64>,
}

impl CallState {
    /// A call of which nothing is known.
    pub const UNKNOWN: Self =
        Self { status: CallStatus::Running, rank: RANK_PRE, started: None, ended: None, duration_ms: None };
}

/// Adds what an update tells.
///
/// Each part takes the greatest of all updates in a total order, so order and repetition do not matter:
/// `(status, ended)` by rank, then by strength of the status, then by the earlier end; `started` the
/// earliest (a Pre event lies before the start that a Post event's duration tells, since it counts the
/// wait for a permission too); `duration_ms` the longest. Where inputs differ, the Post event has what ran: a hook
/// may have rewritten what Pre and batch show.
pub fn merge(state: &mut CallState, update: &CallUpdate) {
    let told = CallState {
        status: update.status,
        rank: update.rank,
        started: update.started,
        ended: update.ended,
        duration_ms: update.duration_ms,
    };
    merge_state(state, &told);
}

/// Ends a call that an event closes without naming it, if the call began by then; of several such events the
/// earliest counts, and better evidence of any time.
pub fn close(state: &mut CallState, ts: TimestampMs) {
    if state.started.is_none_or(|started| started <= ts) {
        let closed = CallState {
            status: CallStatus::Abandoned,
            rank: RANK_CLOSED,
            ended: Some(ts),
            ..CallState::UNKNOWN
        };
        merge_state(state, &closed);
    }
}

fn merge_state(state: &mut CallState, told: &CallState) {
    let evidence = |state: &CallState| {
        (state.rank, strength(state.status), state.ended.map(|ts| std::cmp::Reverse(ts.get())))
    };
    if evidence(told) > evidence(state) {
        state.rank = told.rank;
        state.status = told.status;
        state.ended = told.ended;
    }
    state.started = earliest(state.started, told.started);
    state.duration_ms = state.duration_ms.max(told.duration_ms);
}

fn strength(status: CallStatus) -> usize {
    CallStatus::ALL.iter().position(|s| *s == status).unwrap_or(0)
}

fn earliest(a: Option<TimestampMs>, b: Option<TimestampMs>) -> Option<TimestampMs> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// First eight bytes of SHA-256 over tool name and input. The input is hashed with its keys sorted, since a
/// PostToolBatch gives the same input with its keys in another order.
pub fn input_hash(tool_name: &str, input: Option<&Value>) -> i64 {
    let mut canonical = Vec::new();
    write_canonical(input.unwrap_or(&Value::Null), &mut canonical);
    let digest = hash_parts(&[tool_name.as_bytes(), &canonical]);
    let mut head = [0u8; 8];
    head.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(head)
}

/// JSON without space and with sorted keys. Recursion is bounded by the parser's own depth limit.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            out.push(b'{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_scalar(key, out);
                out.push(b':');
                write_canonical(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    // Writing a scalar into memory cannot fail, and a hash of less than all is still a hash.
    let _ = serde_json::to_writer(out, value);
}

#[derive(Deserialize)]
struct WireCall<'a> {
    #[serde(default)]
    tool_name: String,
    tool_input: Option<Value>,
    tool_use_id: Option<String>,
    #[serde(borrow)]
    tool_response: Option<&'a RawValue>,
}

/// The calls of a PostToolBatch, and the failure that only it shows, if one of them was refused as invalid.
pub(super) fn batch(fields: &Fields<'_>) -> (Vec<BatchedCall>, Option<ErrorInfo>) {
    let raw = fields.raw("tool_calls").unwrap_or("[]");
    let wire: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
    let mut calls = Vec::with_capacity(wire.len().min(BATCH_CALLS_MAX));
    let mut failure = None;
    for raw in wire.into_iter().take(BATCH_CALLS_MAX) {
        let Ok(call) = serde_json::from_str::<WireCall<'_>>(raw.get()) else { continue };
        let text = call.tool_response.map(|raw| response_text(raw.get())).unwrap_or_default();
        let status = error::status_of_result(&text);
        if failure.is_none() && text.starts_with(error::TOOL_USE_ERROR) {
            failure = Some(error::of_tool_use_error(&call.tool_name, &text));
        }
        calls.push(BatchedCall {
            tool: ToolRef {
                input_hash: input_hash(&call.tool_name, call.tool_input.as_ref()),
                tool_name: bounded_id(&call.tool_name),
                tool_use_id: call.tool_use_id.filter(|id| !id.is_empty()).map(|id| bounded_id(&id)),
            },
            status,
        });
    }
    (calls, failure)
}

/// What a tool result says: a string, or the first text of a list of content blocks.
fn response_text(raw: &str) -> String {
    #[derive(Deserialize)]
    struct Block {
        text: Option<String>,
    }
    if raw.starts_with('[') {
        let blocks: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
        let first = blocks.first().and_then(|block| serde_json::from_str::<Block>(block.get()).ok());
        return first.and_then(|block| block.text).unwrap_or_default();
    }
    string_of(raw).map(std::borrow::Cow::into_owned).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_update() -> impl Strategy<Value = CallUpdate> {
        let ts = prop::option::of((1_700_000_000_000i64..1_700_000_000_050).prop_map(TimestampMs::clamped));
        (prop::sample::select(CallStatus::ALL), 0u8..5, ts.clone(), ts, prop::option::of(0u64..50)).prop_map(
            |(status, rank, started, ended, duration_ms)| CallUpdate {
                tool: ToolRef { tool_name: "Bash".to_owned(), tool_use_id: None, input_hash: 0 },
                status,
                rank,
                started,
                ended,
                duration_ms,
            },
        )
    }

    fn merged<'a>(updates: impl IntoIterator<Item = &'a CallUpdate>) -> CallState {
        let mut state = CallState::UNKNOWN;
        for update in updates {
            merge(&mut state, update);
        }
        state
    }

    proptest! {
        #[test]
        fn merging_depends_neither_on_order_nor_on_repetition(
            (updates, shuffled) in prop::collection::vec(any_update(), 0..8)
                .prop_flat_map(|updates| (Just(updates.clone()), Just(updates).prop_shuffle())),
            again in any::<prop::sample::Index>(),
        ) {
            let once = merged(&updates);
            prop_assert_eq!(&once, &merged(&shuffled));
            prop_assert_eq!(&once, &merged(updates.iter().chain(&shuffled)));
            if !updates.is_empty() {
                let extra = &updates[again.index(updates.len())];
                prop_assert_eq!(&once, &merged(shuffled.iter().chain([extra])));
            }
        }
    }

    #[test]
    fn the_order_of_keys_does_not_change_the_hash_and_everything_else_does() {
        let hash = |tool: &str, input: Value| input_hash(tool, Some(&input));
        let one = hash("Edit", json!({"a": 1, "b": {"c": [1, "x"], "d": null}}));
        assert_eq!(one, hash("Edit", json!({"b": {"d": null, "c": [1, "x"]}, "a": 1})));
        assert_ne!(one, hash("Write", json!({"a": 1, "b": {"c": [1, "x"], "d": null}})));
        assert_ne!(one, hash("Edit", json!({"a": 1, "b": {"c": ["x", 1], "d": null}})));
        assert_ne!(hash("Edit", json!({"a": "1"})), hash("Edit", json!({"a": 1})));
        assert_ne!(input_hash("Edit", None), hash("Edit", json!({})));
    }
}
