//! One event from an envelope and the top-level fields of its payload, whoever delivered them.

use serde_json::Value;

use super::fields::{Fields, string_of};
use super::{calls, error, files, git, result, summary, warnings};
use crate::HookEvent;
use crate::event::{
    Arrival, ErrorInfo, Event, Fact, Issue, Legacy, Metrics, Payload, PromptOrigin, Source, ToolOutcome,
    ToolRef,
};
use crate::ids::{DedupKey, EventId, TimestampMs, bounded_id};

/// What stands for a missing session, project or tool.
const UNKNOWN: &str = "unknown";

/// A prompt that begins so was written by the client: a background task reports.
const TASK_NOTIFICATION: &str = "<task-notification>";

/// Numbers below this are seconds since the epoch, the others milliseconds (it is the year 1973 in the one and
/// 5138 in the other).
const SECONDS_BELOW: f64 = 1e11;

/// What is known of a delivery before its fields are understood.
pub(super) struct Envelope<'a> {
    pub(super) event_id: EventId,
    pub(super) source: Source,
    pub(super) received: TimestampMs,
    /// A time that goes before the payload's own.
    pub(super) posted_ms: Option<i64>,
    /// A time that stands in where the payload has none.
    pub(super) captured: Option<TimestampMs>,
    pub(super) app: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) host: Option<&'a str>,
    pub(super) hook_wall_us: Option<u64>,
    /// A session that goes before the payload's own.
    pub(super) session_id: Option<&'a str>,
    pub(super) type_name: String,
    pub(super) kind: HookEvent,
    pub(super) payload: Payload,
    pub(super) issues: Vec<Issue>,
    pub(super) fallback: Fallback,
    pub(super) legacy: Option<Legacy>,
}

/// What stands in where the payload itself is silent.
#[derive(Default)]
pub(super) struct Fallback {
    pub(super) tool_name: Option<String>,
    pub(super) tool_use_id: Option<String>,
    pub(super) agent_id: Option<String>,
    pub(super) agent_type: Option<String>,
    pub(super) model: Option<String>,
    pub(super) error: Option<String>,
}

/// A payload as the leaves of normalization look at it.
pub(super) struct View<'a> {
    pub(super) kind: &'a HookEvent,
    pub(super) fields: &'a Fields<'a>,
    pub(super) tool_name: Option<&'a str>,
    pub(super) input: Option<&'a Value>,
    /// The JSON text of `tool_response`.
    pub(super) response: Option<&'a str>,
    /// The text of `error`.
    pub(super) error_text: Option<&'a str>,
    pub(super) cwd: Option<&'a str>,
    pub(super) duration_ms: Option<u64>,
}

/// A delivery that is no JSON object: kept as what it is.
pub(super) fn malformed(envelope: Envelope<'_>, resolve_app: &dyn Fn(&str) -> Option<String>) -> Event {
    let mut event = event(envelope, &Fields::default(), resolve_app);
    event.fact = Fact::Malformed;
    event.summary = summary::line(&event.payload.text);
    event
}

/// Understands an event as far as its fields go.
pub(super) fn event(
    mut envelope: Envelope<'_>,
    fields: &Fields<'_>,
    resolve_app: &dyn Fn(&str) -> Option<String>,
) -> Event {
    let fallback = std::mem::take(&mut envelope.fallback);
    let cwd = fields.string("cwd").filter(|cwd| !cwd.is_empty());
    let tool_name = name_of_tool(&envelope.kind, fields, fallback.tool_name, &mut envelope.issues);
    let tool_use_id = id(fields, "tool_use_id").or(fallback.tool_use_id.map(|id| bounded_id(&id)));
    let input = tool_name.as_ref().and_then(|_| fields.value("tool_input"));
    let error_text = fields.string("error").or(fallback.error);
    let view = View {
        kind: &envelope.kind,
        fields,
        tool_name: tool_name.as_deref(),
        input: input.as_ref(),
        response: fields.raw("tool_response"),
        error_text: error_text.as_deref(),
        cwd: cwd.as_deref(),
        duration_ms: fields.u64("duration_ms"),
    };
    let tool = tool_name.as_ref().map(|name| ToolRef {
        tool_name: name.clone(),
        tool_use_id: tool_use_id.clone(),
        input_hash: calls::input_hash(name, input.as_ref()),
    });
    let (fact, error) = fact(&view, tool.as_ref());
    let file_operations = files::operations(&view, &fact);
    let git_operations = git::operations(&view, &fact);
    let warnings = warnings::warnings(&view, &envelope.payload, envelope.hook_wall_us);
    let summary = summary::summary(&view, &fact, error.as_ref());
    let metrics = metrics(&view, &fact, envelope.hook_wall_us);
    let agent_type = fields.string("agent_type").or(fallback.agent_type).map(|name| bounded_id(&name));
    let agent_id = id(fields, "agent_id").or(fallback.agent_id.map(|id| bounded_id(&id)));
    let session_id = session(&mut envelope, fields);
    let ts = time(&mut envelope, fields);
    let app = app(envelope.app, cwd.as_deref(), resolve_app);
    Event {
        event_id: envelope.event_id,
        dedup_key: dedup_key(&envelope, &session_id, agent_id.as_deref(), tool_use_id.as_deref()),
        ts,
        received: envelope.received,
        source: envelope.source,
        arrival: Arrival::default(),
        app,
        session_id,
        agent_id,
        agent_type,
        prompt_id: id(fields, "prompt_id"),
        tool_use_id,
        user: envelope.user.map(bounded_id),
        host: envelope.host.map(bounded_id),
        cwd,
        model: fields.string("model").or(fallback.model).map(|name| bounded_id(&name)),
        type_name: envelope.type_name,
        tool_name,
        summary,
        fact,
        metrics,
        error,
        file_operations,
        git_operations,
        warnings,
        issues: envelope.issues,
        payload: envelope.payload,
        request: None,
        failure: None,
        labels: Vec::new(),
        legacy: envelope.legacy,
    }
}

/// An identifier: a string that is not empty, or a number as its text.
fn id(fields: &Fields<'_>, name: &str) -> Option<String> {
    let raw = fields.raw(name)?;
    match string_of(raw) {
        Some(text) if text.is_empty() => None,
        Some(text) => Some(bounded_id(&text)),
        None => raw.starts_with(|c: char| c.is_ascii_digit()).then(|| bounded_id(raw)),
    }
}

fn is_tool_event(kind: &HookEvent) -> bool {
    matches!(
        kind,
        HookEvent::PreToolUse
            | HookEvent::PostToolUse
            | HookEvent::PostToolUseFailure
            | HookEvent::PermissionRequest
            | HookEvent::PermissionDenied
    )
}

fn name_of_tool(
    kind: &HookEvent,
    fields: &Fields<'_>,
    fallback: Option<String>,
    issues: &mut Vec<Issue>,
) -> Option<String> {
    let name = id(fields, "tool_name").or(fallback.map(|name| bounded_id(&name)));
    if name.is_none() && is_tool_event(kind) {
        issues.push(Issue::BadField("tool_name".to_owned()));
        return Some(UNKNOWN.to_owned());
    }
    name
}

fn session(envelope: &mut Envelope<'_>, fields: &Fields<'_>) -> String {
    if let Some(posted) = envelope.session_id.filter(|id| !id.is_empty()) {
        return bounded_id(posted);
    }
    id(fields, "session_id").unwrap_or_else(|| {
        envelope.issues.push(Issue::BadField("session_id".to_owned()));
        UNKNOWN.to_owned()
    })
}

/// When it happened: as posted, as the payload says, as captured, as received.
fn time(envelope: &mut Envelope<'_>, fields: &Fields<'_>) -> TimestampMs {
    let own = envelope.posted_ms.or_else(|| fields.raw("timestamp").and_then(timestamp_ms));
    let Some(ms) = own else {
        return envelope.captured.unwrap_or_else(|| {
            envelope.issues.push(Issue::NoTimestamp);
            envelope.received
        });
    };
    let ts = TimestampMs::clamped(ms);
    if ts.get() != ms {
        envelope.issues.push(Issue::ClampedTimestamp(ms));
    }
    ts
}

/// Milliseconds since the epoch from a number of seconds or milliseconds, or a time as RFC 3339 writes it.
fn timestamp_ms(raw: &str) -> Option<i64> {
    let text = string_of(raw);
    let text = text.as_deref().unwrap_or(raw);
    if let Ok(number) = text.parse::<f64>() {
        let ms = if number.abs() < SECONDS_BELOW { number * 1000.0 } else { number };
        // The cast saturates, and what is out of range is clamped and marked by the caller.
        return ms.is_finite().then_some(ms as i64);
    }
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

fn app(set: Option<&str>, cwd: Option<&str>, resolve_app: &dyn Fn(&str) -> Option<String>) -> String {
    let named = set.filter(|app| !app.is_empty()).map(str::to_owned);
    let resolved = || cwd.and_then(resolve_app).filter(|app| !app.is_empty());
    let basename = || {
        let name = cwd?.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    bounded_id(&named.or_else(resolved).or_else(basename).unwrap_or_else(|| UNKNOWN.to_owned()))
}

fn dedup_key(
    envelope: &Envelope<'_>,
    session: &str,
    agent: Option<&str>,
    tool_use: Option<&str>,
) -> DedupKey {
    match tool_use {
        Some(tool_use) if is_tool_event(&envelope.kind) => {
            DedupKey::of_tool_fact(session, agent, tool_use, envelope.kind.name())
        }
        _ => DedupKey::of_delivery(session, envelope.event_id),
    }
}

fn fact(view: &View<'_>, tool: Option<&ToolRef>) -> (Fact, Option<ErrorInfo>) {
    let fields = view.fields;
    let tool = || {
        tool.cloned().unwrap_or_else(|| ToolRef {
            tool_name: UNKNOWN.to_owned(),
            tool_use_id: None,
            input_hash: 0,
        })
    };
    let fact = match view.kind {
        HookEvent::SessionStart => Fact::SessionStart { start_source: fields.string("source") },
        HookEvent::Setup => Fact::Setup { trigger: fields.string("trigger") },
        HookEvent::SessionEnd => Fact::SessionEnd { reason: fields.string("reason") },
        HookEvent::UserPromptSubmit => Fact::Prompt { origin: prompt_origin(fields) },
        HookEvent::UserPromptExpansion => {
            Fact::PromptExpansion { command_name: fields.string("command_name") }
        }
        HookEvent::PreToolUse => Fact::ToolStart(tool()),
        HookEvent::PostToolUse | HookEvent::PostToolUseFailure => {
            let (status, error) = error::of_call(view);
            return (Fact::ToolEnd(tool(), ToolOutcome { status, duration_ms: view.duration_ms }), error);
        }
        HookEvent::PermissionRequest => Fact::PermissionRequest(tool()),
        HookEvent::PermissionDenied => Fact::PermissionDenied(tool()),
        HookEvent::PostToolBatch => {
            let (calls, error) = calls::batch(fields);
            return (Fact::ToolBatch(calls), error);
        }
        HookEvent::Notification => {
            Fact::Notification { notification_type: fields.string("notification_type") }
        }
        HookEvent::MessageDisplay => Fact::MessageDisplay,
        HookEvent::SubagentStart => Fact::SubagentStart,
        HookEvent::SubagentStop => {
            Fact::SubagentStop { compaction: fields.str("agent_type").is_some_and(|name| name.is_empty()) }
        }
        HookEvent::TaskCreated => Fact::TaskCreated { task_id: id(fields, "task_id") },
        HookEvent::TaskCompleted => Fact::TaskCompleted { task_id: id(fields, "task_id") },
        HookEvent::Stop => Fact::Stop,
        HookEvent::StopFailure => return (Fact::StopFailure, Some(error::of_stop(view))),
        HookEvent::TeammateIdle => Fact::TeammateIdle,
        HookEvent::InstructionsLoaded => Fact::InstructionsLoaded,
        HookEvent::ConfigChange => Fact::ConfigChange,
        HookEvent::CwdChanged => Fact::CwdChanged,
        HookEvent::DirectoryAdded => Fact::DirectoryAdded,
        HookEvent::FileChanged => Fact::FileChanged,
        HookEvent::WorktreeCreate => Fact::WorktreeCreate,
        HookEvent::WorktreeRemove => Fact::WorktreeRemove,
        HookEvent::PreCompact => Fact::PreCompact,
        HookEvent::PostCompact => Fact::PostCompact,
        HookEvent::Elicitation => Fact::Elicitation,
        HookEvent::ElicitationResult => Fact::ElicitationResult,
        HookEvent::Unknown(_) => Fact::Unknown,
    };
    (fact, None)
}

fn prompt_origin(fields: &Fields<'_>) -> PromptOrigin {
    match fields.str("prompt") {
        Some(prompt) if prompt.trim_start().starts_with(TASK_NOTIFICATION) => PromptOrigin::TaskNotification,
        _ => PromptOrigin::Human,
    }
}

fn metrics(view: &View<'_>, fact: &Fact, hook_wall_us: Option<u64>) -> Metrics {
    let ended = matches!(fact, Fact::ToolEnd(..));
    Metrics {
        execution_time_ms: view.duration_ms.filter(|_| ended),
        agent_rss_bytes: None,
        compression_events: matches!(fact, Fact::PostCompact).then_some(1),
        output_bytes: view.response.filter(|_| ended).map(|raw| raw.len() as u64),
        result_hash: view.response.or(view.error_text).filter(|_| ended).map(result::hash),
        hook_wall_us,
    }
}
