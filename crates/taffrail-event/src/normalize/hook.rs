//! Claude Code's hook payloads.

use std::borrow::Cow;

use super::Delivery;
use super::build::{self, Envelope, Fallback};
use super::fields::{self, Cut, Fields, Read};
use crate::HookEvent;
use crate::event::{Event, Issue, Payload};
use crate::ids::bounded_id;

/// The most unknown fields that are listed; the payload keeps all.
pub const UNKNOWN_FIELDS_MAX: usize = 32;

/// The type of an event whose payload names none.
const NAMELESS: &str = "unknown";

/// The type of a delivery that is no JSON object.
const MALFORMED: &str = "malformed";

/// Normalizes one hook delivery. `resolve_app` names the project of a working directory, if it can.
pub fn hook(delivery: &Delivery<'_>, resolve_app: &dyn Fn(&str) -> Option<String>) -> Event {
    let mut issues = Vec::new();
    let text = match String::from_utf8_lossy(delivery.payload) {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        Cow::Owned(text) => {
            // A cut may go through a character; that is no fault of the sender.
            if !delivery.truncated {
                issues.push(Issue::InvalidUtf8);
            }
            Cow::Owned(text)
        }
    };
    let text = trimmed(&text);
    let readable = fields::without_lone_surrogates(text);
    let cut = if delivery.truncated { Cut::MiddleLeftOut } else { Cut::Whole };
    if delivery.truncated {
        issues.push(Issue::Truncated);
    }
    let read = fields::read(&readable, cut);
    let mut payload = Payload {
        text: text.to_owned(),
        is_json: true,
        original_bytes: delivery.payload_bytes,
        truncated: delivery.truncated,
        redactions: delivery.redactions,
    };
    match read {
        Read::Object(fields) => event(delivery, payload, issues, &fields, resolve_app),
        Read::Partial(fields) => {
            payload.is_json = !delivery.truncated && is_json(&payload.text);
            if !delivery.truncated {
                issues.push(Issue::TooDeep);
            }
            event(delivery, payload, issues, &fields, resolve_app)
        }
        Read::NotAnObject => {
            issues.push(Issue::NotAnObject);
            malformed(delivery, payload, issues, resolve_app)
        }
        Read::NotJson(why) => {
            issues.push(Issue::NotJson(why));
            payload.is_json = false;
            malformed(delivery, payload, issues, resolve_app)
        }
    }
}

/// The text without a byte order mark and without the space around it.
pub(super) fn trimmed(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_matches([' ', '\t', '\r', '\n'])
}

/// Whether a text is JSON, however deep: the parser skips without recursion.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

fn event(
    delivery: &Delivery<'_>,
    payload: Payload,
    mut issues: Vec<Issue>,
    fields: &Fields<'_>,
    resolve_app: &dyn Fn(&str) -> Option<String>,
) -> Event {
    let name = fields.str("hook_event_name");
    if name.is_none() {
        issues.push(Issue::BadField("hook_event_name".to_owned()));
    }
    let type_name = bounded_id(name.as_deref().filter(|name| !name.is_empty()).unwrap_or(NAMELESS));
    let kind = HookEvent::from_name(&type_name);
    if let HookEvent::Unknown(name) = &kind {
        issues.push(Issue::UnknownEvent(name.clone()));
    } else {
        issues.extend(unknown_fields(&kind, fields));
    }
    build::event(envelope(delivery, payload, issues, type_name, kind), fields, resolve_app)
}

fn malformed(
    delivery: &Delivery<'_>,
    payload: Payload,
    issues: Vec<Issue>,
    resolve_app: &dyn Fn(&str) -> Option<String>,
) -> Event {
    let kind = HookEvent::Unknown(MALFORMED.to_owned());
    let envelope = envelope(delivery, payload, issues, MALFORMED.to_owned(), kind);
    build::malformed(envelope, resolve_app)
}

fn envelope<'a>(
    delivery: &Delivery<'a>,
    payload: Payload,
    issues: Vec<Issue>,
    type_name: String,
    kind: HookEvent,
) -> Envelope<'a> {
    Envelope {
        event_id: delivery.event_id,
        source: delivery.source,
        received: delivery.received,
        posted_ms: None,
        captured: delivery.captured,
        app: delivery.app,
        user: delivery.user,
        host: delivery.host,
        hook_wall_us: delivery.hook_wall_us,
        session_id: None,
        type_name,
        kind,
        payload,
        issues,
        fallback: Fallback::default(),
        legacy: None,
    }
}

/// The fields that any event may carry.
const COMMON_FIELDS: &[&str] = &[
    "session_id",
    "transcript_path",
    "cwd",
    "hook_event_name",
    "permission_mode",
    "prompt_id",
    "agent_id",
    "agent_type",
    "effort",
    "timestamp",
];

/// The fields of each event beside the common ones (client 2.1.330, its documentation, and payloads since 2025-07).
fn own_fields(kind: &HookEvent) -> &'static [&'static str] {
    match kind {
        HookEvent::SessionStart => &[
            "source",
            "model",
            "session_title",
            "seconds_since_last_response",
            "context_tokens",
            "prompt_cache_likely_expired",
            "estimated_cache_write_usd",
        ],
        HookEvent::Setup => &["trigger"],
        HookEvent::UserPromptSubmit => &["prompt", "session_title"],
        HookEvent::UserPromptExpansion => {
            &["expansion_type", "command_name", "command_args", "command_source", "prompt"]
        }
        HookEvent::PreToolUse => &["tool_name", "tool_input", "tool_use_id"],
        HookEvent::PermissionRequest => &["tool_name", "tool_input", "tool_use_id", "permission_suggestions"],
        HookEvent::PermissionDenied => &["tool_name", "tool_input", "tool_use_id", "reason"],
        HookEvent::PostToolUse => &["tool_name", "tool_input", "tool_response", "tool_use_id", "duration_ms"],
        HookEvent::PostToolUseFailure => {
            &["tool_name", "tool_input", "tool_use_id", "error", "is_interrupt", "duration_ms"]
        }
        HookEvent::PostToolBatch => &["tool_calls"],
        HookEvent::Notification => &["message", "title", "notification_type"],
        HookEvent::MessageDisplay => &["turn_id", "message_id", "index", "final", "delta"],
        HookEvent::SubagentStart => &[],
        HookEvent::SubagentStop => &[
            "stop_hook_active",
            "agent_transcript_path",
            "last_assistant_message",
            "background_tasks",
            "session_crons",
        ],
        HookEvent::TaskCreated | HookEvent::TaskCompleted => {
            &["task_id", "task_subject", "task_description", "teammate_name", "team_name"]
        }
        HookEvent::Stop => {
            &["stop_hook_active", "last_assistant_message", "background_tasks", "session_crons"]
        }
        HookEvent::StopFailure => &["error", "error_details", "last_assistant_message"],
        HookEvent::TeammateIdle => &["teammate_name", "team_name"],
        HookEvent::InstructionsLoaded => {
            &["file_path", "memory_type", "load_reason", "globs", "trigger_file_path", "parent_file_path"]
        }
        HookEvent::ConfigChange => &["source", "file_path"],
        HookEvent::CwdChanged => &["old_cwd", "new_cwd"],
        HookEvent::DirectoryAdded => &["directory", "source"],
        HookEvent::FileChanged => &["file_path", "event"],
        HookEvent::WorktreeCreate => &["name", "worktree_name"],
        HookEvent::WorktreeRemove => &["worktree_path"],
        HookEvent::PreCompact => &["trigger", "custom_instructions"],
        HookEvent::PostCompact => &["trigger", "compact_summary"],
        HookEvent::Elicitation => {
            &["mcp_server_name", "message", "mode", "url", "elicitation_id", "requested_schema"]
        }
        HookEvent::ElicitationResult => &["mcp_server_name", "action", "mode", "elicitation_id", "content"],
        HookEvent::SessionEnd => &["reason"],
        HookEvent::Unknown(_) => &[],
    }
}

/// Each unknown field once, the first [`UNKNOWN_FIELDS_MAX`] of them.
fn unknown_fields(kind: &HookEvent, fields: &Fields<'_>) -> Vec<Issue> {
    let own = own_fields(kind);
    let mut unknown: Vec<Issue> = Vec::new();
    for name in fields.names() {
        if unknown.len() >= UNKNOWN_FIELDS_MAX {
            break;
        }
        if COMMON_FIELDS.contains(&name) || own.contains(&name) {
            continue;
        }
        let issue = Issue::UnknownField(bounded_id(name));
        if !unknown.contains(&issue) {
            unknown.push(issue);
        }
    }
    unknown
}
