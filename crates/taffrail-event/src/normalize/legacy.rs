//! What senders of the old server's `POST /events` post.
//!
//! The type is any string, the payload any JSON: normally a hook payload, for known types read as one.

use serde_json::{Map, Value};

use super::build::{self, Envelope, Fallback};
use super::fields::{self, Cut, Fields, Read};
use super::hook::{is_json, trimmed};
use crate::HookEvent;
use crate::event::{Event, Issue, Legacy, Payload, Source};
use crate::ids::{EventId, TimestampMs, bounded_id};

/// One post, taken apart by the route that received it and already redacted.
#[derive(Clone, Debug)]
pub struct LegacyPost<'a> {
    /// Minted on receipt, or derived from a row of the old database.
    pub event_id: EventId,
    /// Now.
    pub received: TimestampMs,
    /// The project.
    pub source_app: &'a str,
    /// The session; it counts more than the payload's own.
    pub session_id: &'a str,
    /// The type, as posted.
    pub hook_event_type: &'a str,
    /// When it happened, in milliseconds since the Unix epoch, if posted.
    pub timestamp_ms: Option<i64>,
    /// The payload's JSON text.
    pub payload: &'a str,
    /// Every other top-level field, in the order posted.
    pub fields: Map<String, Value>,
    /// Secrets replaced in it.
    pub redactions: u32,
    /// The payload's true size in bytes.
    pub payload_bytes: u64,
}

/// Normalizes one post to the old server's route.
pub fn legacy(post: LegacyPost<'_>, resolve_app: &dyn Fn(&str) -> Option<String>) -> Event {
    let text = trimmed(post.payload);
    let readable = fields::without_lone_surrogates(text);
    let mut issues = Vec::new();
    let mut is_json_text = true;
    let payload_fields = match fields::read(&readable, Cut::Whole) {
        Read::Object(fields) => fields,
        Read::Partial(fields) => {
            issues.push(Issue::TooDeep);
            is_json_text = is_json(text);
            fields
        }
        Read::NotAnObject => Fields::default(),
        Read::NotJson(why) => {
            issues.push(Issue::NotJson(why));
            is_json_text = false;
            Fields::default()
        }
    };
    let kind = HookEvent::from_name(post.hook_event_type);
    if let HookEvent::Unknown(name) = &kind {
        issues.push(Issue::UnknownEvent(bounded_id(name)));
    }
    let envelope = Envelope {
        event_id: post.event_id,
        source: Source::Legacy,
        received: post.received,
        posted_ms: post.timestamp_ms,
        captured: None,
        app: Some(post.source_app),
        user: None,
        host: None,
        hook_wall_us: None,
        session_id: Some(post.session_id),
        type_name: bounded_id(post.hook_event_type),
        kind,
        payload: Payload {
            text: text.to_owned(),
            is_json: is_json_text,
            original_bytes: post.payload_bytes,
            truncated: false,
            redactions: post.redactions,
        },
        issues,
        fallback: fallback(&post.fields),
        legacy: Some(Legacy { fields: post.fields }),
    };
    build::event(envelope, &payload_fields, resolve_app)
}

/// What the old sender repeats beside the payload.
fn fallback(fields: &Map<String, Value>) -> Fallback {
    let string =
        |name: &str| fields.get(name).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
    Fallback {
        tool_name: string("tool_name"),
        tool_use_id: string("tool_use_id"),
        agent_id: string("agent_id"),
        agent_type: string("agent_type"),
        model: string("model_name"),
        error: string("error"),
    }
}
