//! `POST /v1/hooks/claude-code`: a hook's JSON in, the hook's answer out; and the same for many at once.
//!
//! What cannot be parsed is stored as what it is and answered like everything else: the agent must not be disturbed.
//! The static guard speaks here for http hooks, because there is no client that could; nothing waits for its word but
//! the commit of the event.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use taffrail_event::event::Arrival;
use taffrail_event::{EventId, TimestampMs};
use taffrail_guard::Decision;
use taffrail_store::Outcome;

use super::body::{self, Pieces};
use super::{Incoming, Raw, Verdict};
use crate::clock;
use crate::problem::Problem;
use crate::state::App;

const SOURCE: &str = "hook";
const BATCH_SOURCE: &str = "batch";
/// Header with the id that makes a second delivery the same event.
const EVENT_ID: &str = "x-taffrail-event-id";
/// Header with the time of capture, in milliseconds since the Unix epoch.
const CAPTURED_MS: &str = "x-taffrail-captured-ms";
/// An item of a batch that happened longer ago than this comes from a recording, in milliseconds.
const RECORDED_AFTER_MS: i64 = 5_000;
/// Header with the project.
const APP: &str = "x-taffrail-app";
/// Events of one transaction of a batch request.
const CHUNK_EVENTS: usize = 1_000;
/// Bytes of one transaction of a batch request.
const CHUNK_BYTES: usize = 8 << 20;
/// Events of one batch request.
const BATCH_EVENTS_MAX: usize = 100_000;

/// What a hook client is answered. Empty where there is nothing to say.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HookAnswer {
    /// For PreToolUse, when the guard has something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook_specific_output: Option<PreToolUseAnswer>,
}

/// The decision on a tool call, in Claude Code's words.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PreToolUseAnswer {
    /// Always `PreToolUse`.
    hook_event_name: &'static str,
    /// `ask` or `deny`.
    permission_decision: &'static str,
    /// One sentence.
    permission_decision_reason: String,
}

/// What became of a batch.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub(crate) struct BatchAnswer {
    /// Events that are new.
    pub(crate) stored: u64,
    /// Events that were there already.
    pub(crate) duplicates: u64,
}

/// One event of a batch.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(crate) struct BatchItem<'a> {
    /// UUID that makes a second delivery the same event; one is minted where it is missing.
    #[serde(default)]
    event_id: Option<String>,
    /// When it was captured, in milliseconds since the Unix epoch.
    #[serde(default)]
    captured_ms: Option<i64>,
    /// The project; found by the payload's directory where it is missing.
    #[serde(default)]
    app: Option<String>,
    /// Who ran the agent.
    #[serde(default)]
    user: Option<String>,
    /// Where the agent ran.
    #[serde(default)]
    host: Option<String>,
    /// The hook's JSON; a string stands for a payload that is no JSON.
    #[serde(borrow, default, deserialize_with = "even_null")]
    #[schema(value_type = Option<Object>)]
    payload: Option<&'a RawValue>,
    /// Instead of a payload: what was posted to the old server's `POST /events`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    post: Option<&'a RawValue>,
}

/// A payload `null` is one: what a hook once sent, not a field left out.
fn even_null<'de: 'a, 'a, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Stores one hook event and answers the hook.
#[utoipa::path(
    post, path = "/v1/hooks/claude-code", tag = "ingest",
    params(
        ("x-taffrail-event-id" = Option<String>, Header, description = "UUID; a second delivery with it counts once"),
        ("x-taffrail-captured-ms" = Option<i64>, Header, description = "time of capture, ms since the epoch"),
        ("x-taffrail-app" = Option<String>, Header, description = "the project"),
    ),
    request_body(content = Object, description = "the hook's stdin as it came; gzip is taken"),
    responses(
        (status = 200, body = HookAnswer, description = "committed and synced; the answer for the agent"),
        (status = 400, body = crate::problem::ProblemJson, description = "empty body or a bad header"),
        (status = 413, body = crate::problem::ProblemJson),
        (status = 503, body = crate::problem::ProblemJson, description = "queue full: try again after Retry-After"),
    )
)]
pub(crate) async fn post(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let stamp = Stamp::of(&parts.headers)?;
    let payload = body::read(&parts.headers, body, &app.config.limits).await?;
    if payload.is_empty() {
        return Err(Problem::BadRequest("the body is empty".to_owned()));
    }
    let (worker, payload_bytes) = (app.clone(), payload.len());
    let work = move || understand(&worker, &stamp, &payload);
    let (incoming, answer) = body::inline_or_blocking(payload_bytes, work).await?;
    app.ingest.commit(SOURCE, vec![incoming]).await?;
    Ok(axum::Json(answer).into_response())
}

/// What the headers say of a delivery.
struct Stamp {
    event_id: EventId,
    captured: Option<TimestampMs>,
    app: Option<String>,
}

impl Stamp {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name: &str| {
            headers
                .get(name)
                .map(|v| v.to_str().map_err(|_| Problem::BadRequest(format!("{name} is no text"))))
        };
        let event_id = match text(EVENT_ID).transpose()? {
            Some(id) => parse_id(id)?,
            None => EventId::from_uuid(uuid::Uuid::now_v7()),
        };
        let captured = text(CAPTURED_MS).transpose()?.map(|ms| {
            ms.parse().map_err(|_| Problem::BadRequest(format!("{CAPTURED_MS} is no number of milliseconds")))
        });
        Ok(Self {
            event_id,
            captured: captured.transpose()?.map(TimestampMs::clamped),
            app: text(APP).transpose()?.filter(|app| !app.is_empty()).map(str::to_owned),
        })
    }
}

fn parse_id(id: &str) -> Result<EventId, Problem> {
    id.parse().map_err(|_| Problem::BadRequest(format!("{EVENT_ID} is no UUID")))
}

fn understand(app: &App, stamp: &Stamp, payload: &[u8]) -> (Incoming, HookAnswer) {
    let received = clock::now();
    let verdict = judge(app, payload);
    let said = (verdict.decision != Decision::Allow).then(|| Verdict {
        decision: verdict.decision.as_str(),
        rule: verdict.rule.as_deref().unwrap_or_default(),
        reason: &verdict.reason,
    });
    let event = app.ingest.understand(&Raw {
        event_id: stamp.event_id,
        // A hook is posted while the client waits for it: now is when it happened.
        captured: Some(stamp.captured.unwrap_or(received)),
        received,
        app: stamp.app.as_deref(),
        user: None,
        host: None,
        payload,
        payload_bytes: payload.len() as u64,
        truncated: false,
        hook_wall_us: None,
        verdict: said,
    });
    let decision = match verdict.decision {
        Decision::Allow | Decision::Warn => None,
        Decision::Ask => Some("ask"),
        Decision::Deny => Some("deny"),
    };
    let output = decision.map(|permission_decision| PreToolUseAnswer {
        hook_event_name: "PreToolUse",
        permission_decision,
        permission_decision_reason: verdict.reason.clone(),
    });
    (event.into(), HookAnswer { hook_specific_output: output })
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(default)]
    hook_event_name: Option<&'a str>,
    #[serde(default)]
    tool_name: Option<String>,
    #[serde(default)]
    cwd: Option<String>,
    #[serde(borrow, default)]
    tool_input: Option<&'a RawValue>,
}

/// The static guard's word on a PreToolUse; everything else it has nothing to say about.
fn judge(app: &App, payload: &[u8]) -> taffrail_guard::Verdict {
    let unreadable = || {
        let text = String::from_utf8_lossy(payload);
        let before_call = text.contains("PreToolUse");
        if before_call && taffrail_guard::mentions_recursive_delete(&text) {
            return taffrail_guard::Verdict::unparsed_delete("its payload is not readable");
        }
        taffrail_guard::Verdict::allow()
    };
    let Ok(call) = serde_json::from_slice::<Call<'_>>(payload) else { return unreadable() };
    if call.hook_event_name != Some("PreToolUse") {
        return taffrail_guard::Verdict::allow();
    }
    let Some(input) = call.tool_input else { return taffrail_guard::Verdict::allow() };
    let Ok(input) = serde_json::from_str::<Value>(input.get()) else { return unreadable() };
    let context = taffrail_guard::Context {
        cwd: call.cwd.as_deref(),
        home: app.user_home.as_deref(),
        taffrail_home: app.home.dir().to_str(),
    };
    taffrail_guard::check(call.tool_name.as_deref().unwrap_or_default(), &input, &context)
}

/// Stores many hook events: JSON lines, or one array. Chunks are committed as they come; a failure says how far it got
/// by what a repeated request finds as duplicates.
#[utoipa::path(
    post, path = "/v1/hooks/claude-code/batch", tag = "ingest",
    request_body(content = Object, description = "JSON lines, or an array, of {event_id?, captured_ms?, app?, user?, host?, payload or post}; gzip is taken"),
    responses(
        (status = 200, body = BatchAnswer, description = "all committed and synced"),
        (status = 400, body = crate::problem::ProblemJson, description = "an item that cannot be read; those before it may be stored"),
        (status = 503, body = crate::problem::ProblemJson),
    )
)]
pub(crate) async fn post_batch(
    State(app): State<App>,
    request: Request,
) -> Result<axum::Json<BatchAnswer>, Problem> {
    let (parts, body) = request.into_parts();
    let mut answer = BatchAnswer::default();
    let plain = body::encoding(&parts.headers)? == body::Encoding::Identity;
    if plain && is_json_lines(&parts.headers) {
        store_lines(&app, body, &mut answer).await?;
        return Ok(axum::Json(answer));
    }
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    let begins_array = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let mut from = 0;
    while from < bytes.len() {
        let to = if begins_array { bytes.len() } else { chunk_end(&bytes, from) };
        store_chunk(&app, bytes.slice(from..to), &mut answer).await?;
        from = to;
    }
    Ok(axum::Json(answer))
}

fn is_json_lines(headers: &HeaderMap) -> bool {
    let kind =
        headers.get(axum::http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/x-ndjson") || kind.starts_with("application/jsonl")
}

/// Stores lines as they come, so that a body is never held as a whole.
async fn store_lines(app: &App, body: Body, answer: &mut BatchAnswer) -> Result<(), Problem> {
    let mut pieces = Pieces::new(body, &app.config.limits);
    let mut waiting = Vec::new();
    while let Some(piece) = pieces.next().await? {
        waiting.extend_from_slice(&piece);
        if waiting.len() < CHUNK_BYTES / 8 {
            continue;
        }
        if let Some(end) = memchr_last(&waiting) {
            let rest = waiting.split_off(end);
            store_chunk(app, Bytes::from(std::mem::replace(&mut waiting, rest)), answer).await?;
        }
    }
    store_chunk(app, Bytes::from(waiting), answer).await
}

/// One past the last line end.
fn memchr_last(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|b| *b == b'\n').map(|at| at + 1)
}

/// One past the line end at which a chunk is large enough.
fn chunk_end(bytes: &[u8], from: usize) -> usize {
    let least = bytes.len().min(from + CHUNK_BYTES / 8);
    bytes[least..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| least + at + 1)
}

async fn store_chunk(app: &App, bytes: Bytes, answer: &mut BatchAnswer) -> Result<(), Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let worker = app.clone();
    let work = move || read_items(&worker, &bytes);
    let events = tokio::task::spawn_blocking(work).await.map_err(|_| Problem::Internal)??;
    let mut events = events.into_iter();
    loop {
        let chunk: Vec<Incoming> = events.by_ref().take(CHUNK_EVENTS).collect();
        if chunk.is_empty() {
            return Ok(());
        }
        let appended = app.ingest.commit(BATCH_SOURCE, chunk).await?;
        let stored = appended.iter().filter(|a| a.outcome == Outcome::Stored).count();
        answer.stored += stored as u64;
        answer.duplicates += (appended.len() - stored) as u64;
        if answer.stored + answer.duplicates > BATCH_EVENTS_MAX as u64 {
            return Err(Problem::BadRequest(format!("more than {BATCH_EVENTS_MAX} events in one request")));
        }
    }
}

fn read_items(app: &App, bytes: &[u8]) -> Result<Vec<Incoming>, Problem> {
    let bad = |e: serde_json::Error| Problem::BadRequest(format!("an item of the batch cannot be read: {e}"));
    let mut events = Vec::new();
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        let items: Vec<BatchItem<'_>> = serde_json::from_slice(bytes).map_err(bad)?;
        for item in &items {
            events.push(read_item(app, item)?);
        }
        return Ok(events);
    }
    for item in serde_json::Deserializer::from_slice(bytes).into_iter::<BatchItem<'_>>() {
        events.push(read_item(app, &item.map_err(bad)?)?);
    }
    Ok(events)
}

fn read_item(app: &App, item: &BatchItem<'_>) -> Result<Incoming, Problem> {
    let mut incoming = understand_item(app, item)?;
    let event = &mut incoming.event;
    if event.received.get() - event.ts.get() > RECORDED_AFTER_MS {
        event.arrival = Arrival::Recorded;
    }
    Ok(incoming)
}

fn understand_item(app: &App, item: &BatchItem<'_>) -> Result<Incoming, Problem> {
    let event_id = match &item.event_id {
        Some(id) => parse_id(id)?,
        None => EventId::from_uuid(uuid::Uuid::now_v7()),
    };
    if let Some(post) = item.post {
        let incoming = app.ingest.understand_post(event_id, post.get(), clock::now());
        return incoming.map_err(|refusal| Problem::BadRequest(refusal.message().to_owned()));
    }
    let Some(payload) = item.payload else {
        return Err(Problem::BadRequest("an item of the batch has neither payload nor post".to_owned()));
    };
    let text = serde_json::from_str::<String>(payload.get());
    let payload = text.as_deref().unwrap_or(payload.get()).as_bytes();
    let event = app.ingest.understand(&Raw {
        event_id,
        captured: item.captured_ms.map(TimestampMs::clamped),
        received: clock::now(),
        app: item.app.as_deref().filter(|app| !app.is_empty()),
        user: item.user.as_deref(),
        host: item.host.as_deref(),
        payload,
        payload_bytes: payload.len() as u64,
        truncated: false,
        hook_wall_us: None,
        verdict: None,
    });
    Ok(event.into())
}
