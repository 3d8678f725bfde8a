//! Failures by fingerprint: how often, in how many sessions, whether they were retried and resolved, and what followed.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use taffrail_analytics::digest::{Key, Kind, api_failure, error};
use taffrail_store::{AggregateQuery, ErrorExample, GroupRow, ReadError, Reader};

use super::aggregates::{
    Ask, FreshnessJson, Given, SpanJson, at, cursor_of, per_hour, percent, trend_percent,
};
use super::params::{Params, text};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Examples of one fingerprint.
const EXAMPLES_MAX: usize = 20;
/// Kinds of failures of the API that are told.
const API_FAILURES_MAX: usize = 20;
/// What followed, per group.
const NEXT_MAX: usize = 8;

/// Which failures.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ErrorsQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 24h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// The class: `timeout`, `exit_code`, ...
    class: Option<String>,
    /// The tool.
    tool: Option<String>,
    /// One fingerprint.
    fingerprint: Option<String>,
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Failures by fingerprint, the most frequent first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorGroupsJson {
    /// Over which time.
    pub(crate) window: SpanJson,
    /// How fresh this is.
    pub(crate) freshness: FreshnessJson,
    /// All of the scope, also what the page and the filters leave out.
    pub(crate) totals: ErrorTotalsJson,
    /// Failed attempts at API requests, the most frequent first.
    pub(crate) api_failures: Vec<ApiFailureJson>,
    /// The groups.
    pub(crate) items: Vec<ErrorGroupJson>,
    /// Opaque; null where nothing follows.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// Failed calls together.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorTotalsJson {
    /// Failed calls.
    pub(crate) count: i64,
    /// Of these, under no fingerprint of their own, since there are too many.
    pub(crate) other: i64,
    /// Distinct fingerprints.
    pub(crate) fingerprints: i64,
    /// Failures by the hour.
    pub(crate) rate_per_hour: f64,
    /// Against the span before; null where that had none.
    pub(crate) trend_percent: Option<f64>,
    /// Share of failures that a later success resolved.
    pub(crate) resolved_percent: Option<f64>,
}

/// Failures of one fingerprint.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorGroupJson {
    /// Hash of class, tool and the message without its variable parts.
    pub(crate) fingerprint: String,
    /// `timeout`, `exit_code`, ...
    pub(crate) class: String,
    /// The tool.
    pub(crate) tool: String,
    /// A message of it.
    pub(crate) message: String,
    /// Ever, in every scope.
    pub(crate) first_seen_ms: Option<i64>,
    /// Ever, in every scope.
    pub(crate) last_seen_ms: Option<i64>,
    /// Failed calls in the window.
    pub(crate) count: i64,
    /// Sessions whose last such failure lies in the window.
    pub(crate) sessions: i64,
    /// Failures by the hour.
    pub(crate) rate_per_hour: f64,
    /// Against the span before; null where that had none.
    pub(crate) trend_percent: Option<f64>,
    /// Failures after which the same tool and input was called again.
    pub(crate) retried: i64,
    /// Failures of a call that was itself a retry.
    pub(crate) on_retry: i64,
    /// Failures that a later success resolved.
    pub(crate) resolved: i64,
    /// Of all.
    pub(crate) resolved_percent: Option<f64>,
    /// Median time from the failure to the end of the call that resolved it.
    pub(crate) resolution_ms_p50: Option<i64>,
    /// What followed, the most frequent first.
    pub(crate) next: Vec<ErrorNextJson>,
}

/// What followed a failure, how often.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorNextJson {
    /// `retry`, `adjusted`, `other_tool`, `asked_user`, `user_prompt`, `gave_up` or `nothing`.
    pub(crate) what: String,
    /// The next tool, where a call followed.
    pub(crate) tool: Option<String>,
    /// How often.
    pub(crate) count: i64,
    /// Of what is known to have followed this group.
    pub(crate) percent: Option<f64>,
}

/// Failed attempts at API requests.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ApiFailureJson {
    /// Status code, else the class, else `unknown`.
    pub(crate) status: String,
    /// The model.
    pub(crate) model: Option<String>,
    /// Attempts.
    pub(crate) count: i64,
    /// Sessions whose last such failure lies in the window.
    pub(crate) sessions: i64,
    /// Of these, the client gave up.
    pub(crate) exhausted: i64,
    /// Time until the next attempts.
    pub(crate) retry_wait_ms: i64,
}

/// One fingerprint with examples.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorDetailJson {
    /// Over which time the group is.
    pub(crate) window: SpanJson,
    /// How fresh the group is; the examples are as they are stored now.
    pub(crate) freshness: FreshnessJson,
    /// Null where the window has none.
    pub(crate) group: Option<ErrorGroupJson>,
    /// The newest, newest first, of every time and scope.
    pub(crate) examples: Vec<ErrorExampleJson>,
}

/// One failure.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorExampleJson {
    /// The event that told of it: `/api/v1/events/{id}`.
    pub(crate) event: i64,
    /// When.
    pub(crate) ts_ms: i64,
    /// The project.
    pub(crate) app: String,
    /// Who ran the agent.
    pub(crate) user: Option<String>,
    /// The session.
    pub(crate) session_id: String,
    /// The subagent; null for the main agent.
    pub(crate) agent_id: Option<String>,
    /// The tool.
    pub(crate) tool: Option<String>,
    /// The client's id of the call.
    pub(crate) tool_use_id: Option<String>,
    /// One line for a person.
    pub(crate) summary: String,
    /// The class.
    pub(crate) class: String,
    /// The message.
    pub(crate) message: String,
    /// The stack trace inside the message.
    pub(crate) stack_trace: Option<String>,
    /// Whether trying again, or otherwise, can help.
    pub(crate) recoverable: bool,
    /// Attempts before this one, where the source tells.
    pub(crate) retry_count: i64,
    /// Whether a later success resolved it.
    pub(crate) resolved: bool,
    /// From the failure to the end of the call that resolved it.
    pub(crate) resolution_ms: Option<i64>,
}

impl From<ErrorExample> for ErrorExampleJson {
    fn from(e: ErrorExample) -> Self {
        Self {
            event: e.event.0,
            ts_ms: e.ts_ms,
            app: e.app,
            user: e.user,
            session_id: e.session_id,
            agent_id: e.agent_id,
            tool: e.tool_name,
            tool_use_id: e.tool_use_id,
            summary: e.summary,
            class: e.class,
            message: e.message,
            stack_trace: e.stack_trace,
            recoverable: e.recoverable,
            retry_count: e.retry_count,
            resolved: e.resolved,
            resolution_ms: e.resolution_ms,
        }
    }
}

/// Failures by fingerprint, the most frequent first.
#[utoipa::path(
    get, path = "/api/v1/errors", tag = "read", params(ErrorsQuery),
    responses((status = 200, body = ErrorGroupsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<ErrorsQuery>,
) -> Result<Json<ErrorGroupsJson>, Problem> {
    let ask = Ask::of(Given {
        window: query.window,
        app: query.app,
        session: query.session,
        user: query.user,
        limit: query.limit,
        cursor: query.cursor,
    })?;
    let wanted =
        Wanted { class: text(query.class), tool: text(query.tool), fingerprint: text(query.fingerprint) };
    app.read(move |reader| read(reader, &ask, &wanted)).await.map(Json)
}

/// Which groups come.
#[derive(Debug, Default)]
struct Wanted {
    class: Option<String>,
    tool: Option<String>,
    fingerprint: Option<String>,
}

impl Wanted {
    fn keeps(&self, key: &Key) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.class, &key.detail) && is(&self.tool, &key.tool)
    }
}

fn read(reader: &Reader, ask: &Ask, wanted: &Wanted) -> Result<ErrorGroupsJson, ReadError> {
    let keep = |key: &Key| wanted.keeps(key);
    let names = wanted.fingerprint.clone().map(|fingerprint| vec![fingerprint]);
    let found = reader.aggregates(&AggregateQuery {
        before_ms: Some(ask.before_ms()),
        names: names.as_deref(),
        with_histograms: true,
        ..ask.query(Kind::Error, error::COUNT, &keep)
    })?;
    let next = next_of(reader, ask, &found.rows)?;
    let (count, before) = (at(&found.totals, error::COUNT), at(&found.totals_before, error::COUNT));
    let totals = ErrorTotalsJson {
        count,
        other: at(&found.other, error::COUNT),
        fingerprints: i64::try_from(found.groups).unwrap_or(i64::MAX),
        rate_per_hour: per_hour(count, ask.hours()),
        trend_percent: trend_percent(count, before),
        resolved_percent: percent(at(&found.totals, error::RESOLVED), count),
    };
    let items = groups(reader, ask, found.rows, next)?;
    Ok(ErrorGroupsJson {
        window: ask.span(),
        freshness: FreshnessJson::of(reader.digest_backlog()?, ask.to_ms),
        totals,
        api_failures: api_failures(reader, ask)?,
        items,
        next_cursor: cursor_of(found.next),
    })
}

fn groups(
    reader: &Reader,
    ask: &Ask,
    rows: Vec<GroupRow>,
    mut next: HashMap<String, Vec<ErrorNextJson>>,
) -> Result<Vec<ErrorGroupJson>, ReadError> {
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let count = row.get(error::COUNT);
        let seen = reader.error_seen(&row.key.name)?;
        items.push(ErrorGroupJson {
            first_seen_ms: seen.map(|(first, _)| first),
            last_seen_ms: seen.map(|(_, last)| last),
            count,
            sessions: row.get(error::SESSIONS),
            rate_per_hour: per_hour(count, ask.hours()),
            trend_percent: trend_percent(count, at(&row.before, error::COUNT)),
            retried: row.get(error::RETRIED),
            on_retry: row.get(error::ON_RETRY),
            resolved: row.get(error::RESOLVED),
            resolved_percent: percent(row.get(error::RESOLVED), count),
            resolution_ms_p50: row.histogram.median(),
            next: next.remove(&row.key.name).unwrap_or_default(),
            fingerprint: row.key.name,
            class: row.key.detail,
            tool: row.key.tool,
            message: row.label,
        });
    }
    Ok(items)
}

/// What followed the failures of these groups, by fingerprint.
fn next_of(
    reader: &Reader,
    ask: &Ask,
    rows: &[GroupRow],
) -> Result<HashMap<String, Vec<ErrorNextJson>>, ReadError> {
    let names: Vec<String> = rows.iter().map(|row| row.key.name.clone()).collect();
    let all = |_: &Key| true;
    let found = reader.aggregates(&AggregateQuery {
        names: Some(&names),
        skip: 0,
        limit: usize::MAX,
        ..ask.query(Kind::ErrorNext, 0, &all)
    })?;
    let mut next: HashMap<String, Vec<ErrorNextJson>> = HashMap::new();
    for row in found.rows {
        let count = row.get(0);
        let tool = text(Some(row.key.tool));
        let one = ErrorNextJson { what: row.key.detail, tool, count, percent: None };
        next.entry(row.key.name).or_default().push(one);
    }
    for list in next.values_mut() {
        let whole = list.iter().map(|one| one.count).sum();
        list.iter_mut().for_each(|one| one.percent = percent(one.count, whole));
        list.truncate(NEXT_MAX);
    }
    Ok(next)
}

fn api_failures(reader: &Reader, ask: &Ask) -> Result<Vec<ApiFailureJson>, ReadError> {
    let all = |_: &Key| true;
    let found = reader.aggregates(&AggregateQuery {
        skip: 0,
        limit: API_FAILURES_MAX,
        ..ask.query(Kind::ApiFailure, api_failure::COUNT, &all)
    })?;
    let json = |row: GroupRow| ApiFailureJson {
        count: row.get(api_failure::COUNT),
        sessions: row.get(api_failure::SESSIONS),
        exhausted: row.get(api_failure::EXHAUSTED),
        retry_wait_ms: row.get(api_failure::RETRY_WAIT_MS),
        status: row.key.name,
        model: text(Some(row.key.detail)),
    };
    Ok(found.rows.into_iter().map(json).collect())
}

/// Which window of one fingerprint.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ErrorQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 24h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
}

/// Failures of one fingerprint, with the newest examples.
#[utoipa::path(
    get, path = "/api/v1/errors/{fingerprint}", tag = "read", params(("fingerprint" = String, Path), ErrorQuery),
    responses((status = 200, body = ErrorDetailJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson),
        (status = 404, body = ProblemJson))
)]
pub(crate) async fn one(
    State(app): State<App>,
    Path(fingerprint): Path<String>,
    Params(query): Params<ErrorQuery>,
) -> Result<Json<ErrorDetailJson>, Problem> {
    let ask = Ask::of(Given {
        window: query.window,
        app: query.app,
        session: query.session,
        user: query.user,
        ..Given::default()
    })?;
    let found = app
        .read(move |reader| {
            let examples = reader.error_examples(&fingerprint, EXAMPLES_MAX)?;
            let wanted = Wanted { fingerprint: Some(fingerprint), ..Wanted::default() };
            let mut groups = read(reader, &ask, &wanted)?;
            let group = (!groups.items.is_empty()).then(|| groups.items.swap_remove(0));
            Ok((group, examples, groups.window, groups.freshness))
        })
        .await?;
    let (group, examples, window, freshness) = found;
    if group.is_none() && examples.is_empty() {
        return Err(Problem::NotFound("error"));
    }
    let examples = examples.into_iter().map(ErrorExampleJson::from).collect();
    Ok(Json(ErrorDetailJson { window, freshness, group, examples }))
}
