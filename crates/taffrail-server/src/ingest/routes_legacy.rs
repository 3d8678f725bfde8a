//! The old contract's event routes, in the old server's words, statuses and order of fields.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taffrail_event::RowId;
use taffrail_event::redact::Redactor;
use taffrail_store::{Outcome, WriteError};

use super::body;
use super::legacy::{Echo, Refusal, fresh_id};
use crate::api::params::Params;
use crate::clock;
use crate::human;
use crate::problem::Problem;
use crate::state::App;

const SOURCE: &str = "legacy";
/// How many events the old page asks for.
pub(crate) const RECENT_DEFAULT: usize = 300;
/// How many it can get.
const RECENT_MAX: usize = 1_000;

/// An error of the old contract.
fn old_error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// Stores an event of the old sender and returns it with id and timestamp.
#[utoipa::path(
    post, path = "/events", tag = "old contract",
    request_body(content = Object, description = "{source_app, session_id, hook_event_type, payload, timestamp?, chat?, summary?, humanInTheLoop?, model_name?, ...}"),
    responses(
        (status = 200, body = Object, description = "the posted object plus id and timestamp; committed and synced"),
        (status = 400, body = Object, description = "{\"error\":\"Missing required fields\"} or {\"error\":\"Invalid request\"}"),
        (status = 503, body = crate::problem::ProblemJson),
    )
)]
pub(crate) async fn post_event(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    let received = clock::now();
    let (worker, body_bytes) = (app.clone(), bytes.len());
    let understand = move || {
        let text = String::from_utf8_lossy(&bytes);
        // A byte order mark is no JSON, but the old server's parser took it.
        worker.ingest.understand_post(fresh_id(), text.trim_start_matches('\u{feff}'), received)
    };
    let understood = body::inline_or_blocking(body_bytes, understand).await?;
    let incoming = match understood {
        Ok(incoming) => incoming,
        Err(refusal @ (Refusal::MissingFields | Refusal::Invalid)) => {
            app.metrics.count(SOURCE, "bad_request", 1);
            return Ok(old_error(StatusCode::BAD_REQUEST, refusal.message()));
        }
    };
    let mut echo = incoming.echo.clone().unwrap_or_default();
    let appended = app.ingest.commit(SOURCE, vec![incoming]).await?;
    if let Some(appended) = appended.first() {
        debug_assert!(matches!(appended.outcome, Outcome::Stored | Outcome::Duplicate));
        echo.set_id(appended.row_id.0);
    }
    Ok(Json(echo).into_response())
}

#[derive(Deserialize)]
pub(crate) struct RecentQuery {
    limit: Option<String>,
}

/// The newest events, oldest first.
#[utoipa::path(
    get, path = "/events/recent", tag = "old contract",
    params(("limit" = Option<usize>, Query, description = "default 300, at most 1,000")),
    responses((status = 200, body = Vec<Object>))
)]
pub(crate) async fn recent(
    State(app): State<App>,
    Params(query): Params<RecentQuery>,
) -> Result<Json<Vec<Echo>>, Problem> {
    let limit = query.limit.and_then(|l| parse_int(&l)).unwrap_or(RECENT_DEFAULT);
    Ok(Json(recent_echoes(&app, limit.min(RECENT_MAX)).await?))
}

/// As JavaScript's `parseInt`: leading digits count, none is no number.
fn parse_int(text: &str) -> Option<usize> {
    let digits: String = text.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

pub(crate) async fn recent_echoes(app: &App, limit: usize) -> Result<Vec<Echo>, Problem> {
    app.read(move |reader| Ok(reader.recent(limit)?.iter().map(Echo::of_stored).collect())).await
}

/// What the old page filters by.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct FilterOptions {
    source_apps: Vec<String>,
    session_ids: Vec<String>,
    hook_event_types: Vec<String>,
}

/// What can be filtered by.
#[utoipa::path(
    get, path = "/events/filter-options", tag = "old contract",
    responses((status = 200, body = FilterOptions))
)]
pub(crate) async fn filter_options(State(app): State<App>) -> Result<Json<FilterOptions>, Problem> {
    let options = app.read(|reader| reader.filter_options()).await?;
    let mut session_ids: Vec<String> = options.sessions.into_iter().map(|s| s.session_id).collect();
    session_ids.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Json(FilterOptions {
        source_apps: options.apps.into_iter().map(|f| f.value).collect(),
        session_ids,
        hook_event_types: options.types.into_iter().map(|f| f.value).collect(),
    }))
}

/// A person's answer to an agent's question: stored, sent to the agent, shown to everybody.
#[utoipa::path(
    post, path = "/events/{id}/respond", tag = "old contract",
    params(("id" = i64, Path)),
    request_body(content = Object, description = "{response?, permission?, choice?, hookEvent, respondedBy?}"),
    responses(
        (status = 200, body = Object, description = "the event with humanInTheLoopStatus"),
        (status = 400, body = Object), (status = 404, body = Object),
    )
)]
pub(crate) async fn respond(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(row) = id.parse::<i64>().ok().filter(|_| id.bytes().all(|b| b.is_ascii_digit())) else {
        return Ok(old_error(StatusCode::NOT_FOUND, "Event not found"));
    };
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    let Ok(Value::Object(mut response)) = serde_json::from_slice(&bytes) else {
        return Ok(old_error(StatusCode::BAD_REQUEST, Refusal::Invalid.message()));
    };
    let responded_ms = clock::now_ms();
    response.insert("respondedAt".to_owned(), json!(responded_ms));
    let status =
        json!({ "status": "responded", "respondedAt": responded_ms, "response": redacted(&response) });
    let store = app.store.clone();
    let stored = tokio::task::spawn_blocking(move || store.respond(RowId(row), &status))
        .await
        .map_err(|_| Problem::Internal)?
        .map_err(|e| problem_of(&e))?;
    let Some(event) = stored else {
        return Ok(old_error(StatusCode::NOT_FOUND, "Event not found"));
    };
    let url =
        event.legacy.as_ref().and_then(|fields| fields.get("humanInTheLoop")?.get("responseWebSocketUrl"));
    if let Some(url) = url.and_then(Value::as_str)
        && let Err(error) = human::deliver(url, &Value::Object(response)).await
    {
        // The answer is stored; an agent that is gone does not make it fail.
        tracing::warn!(%error, "the answer did not reach the agent");
    }
    let echo = Echo::of_stored(&event);
    app.hub.changed(&echo);
    Ok(Json(echo).into_response())
}

/// What is stored of an answer; the agent gets it as it was given.
fn redacted(response: &serde_json::Map<String, Value>) -> Value {
    let text = Value::Object(response.clone()).to_string();
    serde_json::from_str(&Redactor::builtin().redact(&text).text).unwrap_or(Value::Null)
}

pub(crate) fn problem_of(error: &WriteError) -> Problem {
    match error {
        WriteError::DiskFull(_) => Problem::DiskFull,
        WriteError::Closed => Problem::Stopping,
        WriteError::Conflict(_) | WriteError::Other(_) => Problem::Store(error.to_string()),
    }
}
