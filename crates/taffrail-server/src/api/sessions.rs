//! Sessions, newest event first, and one session as it went.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use taffrail_store::{CostTotals, ReadError, Reader, SessionFilter, StoredAgent};

use super::costs;
use super::ledger::{MarkJson, Told};
use super::money::SessionsMoney;
use super::params::{self, Params, text};
use super::types::{AgentJson, CallJson, EventJson, Page, SessionJson};
use crate::clock;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Which sessions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SessionsQuery {
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// The project.
    app: Option<String>,
    /// Who ran it.
    user: Option<String>,
    /// Newest event at or after this millisecond.
    #[param(value_type = Option<i64>)]
    from: Option<String>,
    /// First event before this millisecond.
    #[param(value_type = Option<i64>)]
    to: Option<String>,
}

/// One session as it went.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TimelineJson {
    /// The session.
    pub(crate) session: SessionJson,
    /// Its agents, the main one first.
    pub(crate) agents: Vec<AgentJson>,
    /// Its calls, by begin.
    pub(crate) calls: Vec<CallJson>,
    /// What is no call: prompts, stops, compactions, notifications; without payload, oldest first.
    pub(crate) marks: Vec<EventJson>,
    /// What only its transcript tells: prompts, compactions and starts of subagents that no hook and no call shows, oldest
    /// first.
    pub(crate) transcript_marks: Vec<MarkJson>,
    /// Whether older calls or marks were left out.
    pub(crate) cut: bool,
}

/// Sessions that match, newest event first.
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "read", params(SessionsQuery),
    responses((status = 200, body = Page<SessionJson>), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<SessionsQuery>,
) -> Result<Json<Page<SessionJson>>, Problem> {
    let limit = params::limit(query.limit.as_deref())?;
    let cursor = params::cursor(query.cursor.as_deref())?;
    let filter = SessionFilter {
        from: params::time("from", query.from.as_deref())?,
        to: params::time("to", query.to.as_deref())?,
        app: text(query.app),
        user: text(query.user),
    };
    let (page, ledger) = app
        .read(move |reader| {
            let page = reader.sessions(&filter, cursor, limit)?;
            let ids = page.rows.iter().map(|session| session.session_id.clone()).collect();
            Ok((page, SessionsMoney::read(reader, ids)?))
        })
        .await?;
    let now = clock::now();
    Ok(Json(Page {
        items: page.rows.into_iter().map(|session| SessionJson::of(session, &ledger, now)).collect(),
        next_cursor: page.next.map(|id| id.0.to_string()),
    }))
}

/// One session.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}", tag = "read", params(("id" = String, Path)),
    responses((status = 200, body = SessionJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<SessionJson>, Problem> {
    let session = app
        .read(move |reader| {
            let ledger = SessionsMoney::read(reader, vec![id.clone()])?;
            Ok(reader.session(&id)?.map(|session| SessionJson::of(session, &ledger, clock::now())))
        })
        .await?;
    session.map(Json).ok_or(Problem::NotFound("session"))
}

/// One session as it went: its agents, its calls and what happened beside them.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/timeline", tag = "read", params(("id" = String, Path)),
    responses((status = 200, body = TimelineJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn timeline(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<TimelineJson>, Problem> {
    let timeline = app.read(move |reader| read_timeline(reader, &id)).await?;
    timeline.map(Json).ok_or(Problem::NotFound("session"))
}

fn read_timeline(reader: &Reader, id: &str) -> Result<Option<TimelineJson>, ReadError> {
    let Some(timeline) = reader.timeline(id)? else { return Ok(None) };
    let ledger = SessionsMoney::read(reader, vec![id.to_owned()])?;
    let told = Told::by(
        timeline.marks.iter().map(|mark| (mark.type_name.as_str(), mark.ts, mark.prompt_id.clone())),
        timeline.calls.iter().map(|call| call.tool_use_id.clone()),
    );
    let marks: Vec<MarkJson> = reader.transcript_marks(id)?.into_iter().map(MarkJson::from).collect();
    Ok(Some(TimelineJson {
        session: SessionJson::of(timeline.session, &ledger, clock::now()),
        agents: with_costs(reader, id, timeline.agents)?,
        calls: timeline.calls.into_iter().map(CallJson::from).collect(),
        marks: timeline.marks.into_iter().map(EventJson::from).collect(),
        transcript_marks: marks.into_iter().filter(|mark| !told.has(mark)).collect(),
        cut: timeline.cut,
    }))
}

/// The agents with what each has cost.
fn with_costs(reader: &Reader, id: &str, agents: Vec<StoredAgent>) -> Result<Vec<AgentJson>, ReadError> {
    let mut costs: HashMap<Option<String>, CostTotals> = HashMap::new();
    for row in reader.ledger(id)? {
        if let Some(confidence) = row.confidence {
            let totals = costs::totals_of(&row, confidence);
            costs.entry(row.agent_id).or_default().add(&totals);
        }
    }
    let of = |agent: StoredAgent| {
        let cost = costs.get(&agent.agent_id);
        AgentJson::of(agent, cost)
    };
    Ok(agents.into_iter().map(of).collect())
}

/// The agents of a session, the main one first.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/agents", tag = "read", params(("id" = String, Path)),
    responses((status = 200, body = Page<AgentJson>), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn agents(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Page<AgentJson>>, Problem> {
    let agents = app
        .read(move |reader| match reader.session(&id)? {
            Some(_) => with_costs(reader, &id, reader.agents(&id)?).map(Some),
            None => Ok(None),
        })
        .await?
        .ok_or(Problem::NotFound("session"))?;
    Ok(Json(Page { items: agents, next_cursor: None }))
}
