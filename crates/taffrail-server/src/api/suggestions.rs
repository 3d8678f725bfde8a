//! What would save money or time: listed, shown as a change of a file, applied, undone, dismissed.

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use taffrail_engine::suggest::Kind;
use taffrail_event::{RowId, TimestampMs};
use taffrail_store::{StoredSuggestion, SuggestionFilter, SuggestionState};

use super::money::usd;
use super::params::{self, Params, named, text};
use crate::clock;
use crate::ingest::body;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;
use crate::suggest::worker::{self, Computed};
use crate::suggest::{self, ChangeError, ChangeJson, Desk, Places, PreviewJson};

/// The longest name of who decides, in characters.
const BY_MAX_CHARS: usize = 200;

/// What would have been saved in the last seven days.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SavingJson {
    /// US dollars a week; null where it is not known.
    usd_per_week: Option<f64>,
    /// Seconds a week; null where it is not known.
    seconds_per_week: Option<f64>,
    /// How it is computed.
    basis: String,
}

/// One suggestion.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SuggestionJson {
    id: i64,
    /// `repeated_reads`, `permission_stall`, ...
    kind: String,
    /// `open`, `applied`, `undone` or `dismissed`.
    state: &'static str,
    /// The project.
    app: String,
    /// The command, the agent's type, the tool; empty where it is about the whole project.
    subject: String,
    /// One line for a person.
    title: String,
    /// What to do.
    advice: String,
    /// `{span_ms, figures: [{name, value, unit}], parts: [{name, count}]}`.
    evidence: Value,
    /// Sessions that show it most.
    sessions: Vec<String>,
    /// Calls that show it, newest first.
    calls: Vec<i64>,
    saving: SavingJson,
    /// Whether it proposes the change of a file; `preview` tells whether that can be made now.
    has_edit: bool,
    /// When it was suggested first.
    suggested_ms: i64,
    /// When its evidence last held.
    seen_ms: i64,
    /// When a person decided.
    decided_ms: Option<i64>,
    /// Who did.
    decided_by: Option<String>,
    /// Which file was changed; null where none was.
    #[schema(value_type = Option<ChangeJson>)]
    change: Option<Value>,
    /// `{state, metric, of, length_ms, needed, before: {hits, chances, sessions, share, cost_usd, time_ms}, after,
    /// change_percent, is_cut, is_final, measured_ms}`; state is `too_early`, `measured` or `too_little_seen`. Null where
    /// nothing was applied or measured.
    effect: Option<Value>,
}

impl From<StoredSuggestion> for SuggestionJson {
    #[allow(clippy::cast_precision_loss, reason = "seconds for a person")]
    fn from(row: StoredSuggestion) -> Self {
        let of = row.suggestion;
        Self {
            id: row.id.0,
            kind: of.kind,
            state: row.state.name(),
            app: of.app,
            subject: of.subject,
            title: of.title,
            advice: of.advice,
            evidence: of.evidence,
            sessions: of.sessions,
            calls: of.calls.into_iter().map(|id| id.0).collect(),
            saving: SavingJson {
                usd_per_week: of.saving_nano_usd.map(usd),
                seconds_per_week: of.saving_ms.map(|ms| ms as f64 / 1e3),
                basis: of.basis,
            },
            has_edit: of.edit.is_some(),
            suggested_ms: row.suggested.get(),
            seen_ms: row.seen.get(),
            decided_ms: row.decided.map(TimestampMs::get),
            decided_by: row.decided_by,
            change: row.change,
            effect: row.effect,
        }
    }
}

/// A page of suggestions.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SuggestionsJson {
    items: Vec<SuggestionJson>,
    /// The cursor of the next page; null on the last.
    next_cursor: Option<String>,
    /// The last computation since the server's start; null before it. They are computed every 15 minutes.
    computed: Option<Computed>,
}

/// Which suggestions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SuggestionsQuery {
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// `open`, `applied`, `undone` or `dismissed`.
    state: Option<String>,
    /// `repeated_reads`, `permission_stall`, ...
    kind: Option<String>,
    /// The project.
    app: Option<String>,
}

/// Suggestions that match, newest first.
#[utoipa::path(
    get, path = "/api/v1/suggestions", tag = "read", params(SuggestionsQuery),
    responses((status = 200, body = SuggestionsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<SuggestionsQuery>,
) -> Result<Json<SuggestionsJson>, Problem> {
    let limit = params::limit(query.limit.as_deref())?;
    let cursor = params::cursor(query.cursor.as_deref())?;
    let kinds = Kind::ALL.map(Kind::name);
    let states = SuggestionState::ALL.map(SuggestionState::name);
    let filter = SuggestionFilter {
        kind: named("kind", text(query.kind), &kinds, |name| kinds.contains(&name).then(|| name.to_owned()))?,
        app: text(query.app),
        state: named("state", text(query.state), &states, SuggestionState::from_name)?,
    };
    let page = app.read(move |reader| reader.suggestions(&filter, cursor, limit)).await?;
    Ok(Json(SuggestionsJson {
        items: page.rows.into_iter().map(SuggestionJson::from).collect(),
        next_cursor: page.next.map(|id| id.0.to_string()),
        computed: app.suggest.last(),
    }))
}

/// Computes suggestions now, and measures what applied ones brought; waits for it.
#[utoipa::path(
    post, path = "/api/v1/suggestions/refresh", tag = "read",
    responses((status = 200, body = Option<Computed>), (status = 401, body = ProblemJson))
)]
pub(crate) async fn refresh(State(app): State<App>) -> Json<Option<Computed>> {
    Json(worker::refresh(&app).await)
}

/// One suggestion.
#[utoipa::path(
    get, path = "/api/v1/suggestions/{id}", tag = "read", params(("id" = i64, Path)),
    responses((status = 200, body = SuggestionJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<SuggestionJson>, Problem> {
    let (found, _) = find(&app, &id).await?;
    Ok(Json(found.into()))
}

async fn find(app: &App, id: &str) -> Result<(StoredSuggestion, Places), Problem> {
    let id: RowId = params::row_id(id, "suggestion")?;
    let home = app.user_home.clone();
    let found = app
        .read(move |reader| {
            let Some(found) = reader.suggestion(id)? else { return Ok(None) };
            let places = Places::of(reader, &found.suggestion.app, home)?;
            Ok(Some((found, places)))
        })
        .await?;
    found.ok_or(Problem::NotFound("suggestion"))
}

/// What it would change: nothing is written.
#[utoipa::path(
    post, path = "/api/v1/suggestions/{id}/preview", tag = "read", params(("id" = i64, Path)),
    responses((status = 200, body = PreviewJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn preview(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<PreviewJson>, Problem> {
    let (found, places) = find(&app, &id).await?;
    let shown = tokio::task::spawn_blocking(move || suggest::preview(&found, &places)).await;
    shown.map(Json).map_err(|_| Problem::Internal)
}

/// The preview that is applied, and by whom.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct ApplyRequest {
    /// Of the preview.
    #[serde(default)]
    hash: Option<String>,
    /// Who decides.
    #[serde(default)]
    by: Option<String>,
}

/// Changes the file as the preview of that hash said.
#[utoipa::path(
    post, path = "/api/v1/suggestions/{id}/apply", tag = "read", params(("id" = i64, Path)), request_body = ApplyRequest,
    responses((status = 200, body = SuggestionJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson),
        (status = 404, body = ProblemJson))
)]
pub(crate) async fn apply(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SuggestionJson>, Problem> {
    change(app, id, request, |desk, found, places, hash| {
        let Some(hash) = hash else {
            return Err(ChangeError::Refused("the body needs the hash of a preview".to_owned()));
        };
        desk.apply(found, places, &hash)
    })
    .await
}

/// Puts the file back as it was before.
#[utoipa::path(
    post, path = "/api/v1/suggestions/{id}/undo", tag = "read", params(("id" = i64, Path)), request_body = ApplyRequest,
    responses((status = 200, body = SuggestionJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson),
        (status = 404, body = ProblemJson))
)]
pub(crate) async fn undo(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SuggestionJson>, Problem> {
    change(app, id, request, |desk, found, _, _| desk.undo(found)).await
}

/// Says that it is not wanted; it stays so when it is found again.
#[utoipa::path(
    post, path = "/api/v1/suggestions/{id}/dismiss", tag = "read", params(("id" = i64, Path)), request_body = ApplyRequest,
    responses((status = 200, body = SuggestionJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson),
        (status = 404, body = ProblemJson))
)]
pub(crate) async fn dismiss(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<SuggestionJson>, Problem> {
    change(app, id, request, |desk, found, _, _| desk.dismiss(found)).await
}

type Change = fn(&Desk<'_>, &StoredSuggestion, &Places, Option<String>) -> Result<(), ChangeError>;

async fn change(
    app: App,
    id: String,
    request: Request,
    change: Change,
) -> Result<Json<SuggestionJson>, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    let ApplyRequest { hash, by } = match bytes.is_empty() {
        true => ApplyRequest::default(),
        false => serde_json::from_slice(&bytes).map_err(|e| {
            Problem::BadRequest(format!("the body is not {{\"hash\": \"...\", \"by\": \"...\"}}: {e}"))
        })?,
    };
    if by.as_ref().is_some_and(|by| by.chars().count() > BY_MAX_CHARS) {
        return Err(Problem::BadRequest(format!("by is longer than {BY_MAX_CHARS} characters")));
    }
    let (found, places) = find(&app, &id).await?;
    let shared = app.clone();
    let done = tokio::task::spawn_blocking(move || {
        let desk = Desk {
            suggest: &shared.suggest,
            store: &shared.store,
            data_dir: shared.home.dir(),
            now: clock::now(),
            by,
        };
        change(&desk, &found, &places, hash)
    });
    match done.await.map_err(|_| Problem::Internal)? {
        Ok(()) => {}
        Err(ChangeError::Refused(detail)) => {
            let hint = "ask for a new preview; nothing was changed".to_owned();
            return Err(Problem::Refused { detail, hint });
        }
        Err(ChangeError::Write(error)) => return Err(error.into()),
    }
    let (found, _) = find(&app, &id).await?;
    Ok(Json(found.into()))
}
