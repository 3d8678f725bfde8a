//! Events, newest first.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use taffrail_store::{EventFilter, Payloads};

use super::params::{self, Params, text};
use super::types::{EventJson, Page};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// The event's type, as in `type`.
    #[serde(rename = "type")]
    type_name: Option<String>,
    /// The tool.
    tool: Option<String>,
    /// The subagent; empty for the main agent.
    agent: Option<String>,
    /// A piece of summary, type, tool or app, in any case.
    q: Option<String>,
    /// First millisecond.
    #[param(value_type = Option<i64>)]
    from: Option<String>,
    /// One past the last millisecond.
    #[param(value_type = Option<i64>)]
    to: Option<String>,
    /// `false` leaves payloads out.
    payload: Option<bool>,
}

/// Events that match, newest first.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "read", params(EventsQuery),
    responses((status = 200, body = Page<EventJson>), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<EventsQuery>,
) -> Result<Json<Page<EventJson>>, Problem> {
    let limit = params::limit(query.limit.as_deref())?;
    let cursor = params::cursor(query.cursor.as_deref())?;
    let filter = EventFilter {
        from: params::time("from", query.from.as_deref())?,
        to: params::time("to", query.to.as_deref())?,
        app: text(query.app),
        session: text(query.session),
        type_name: text(query.type_name),
        tool: text(query.tool),
        agent: query.agent,
        q: text(query.q),
    };
    let payloads = if query.payload == Some(false) { Payloads::Without } else { Payloads::With };
    let page = app.read(move |reader| reader.events(&filter, cursor, limit, payloads)).await?;
    Ok(Json(Page::of(page)))
}

/// One event with its payload.
#[utoipa::path(
    get, path = "/api/v1/events/{id}", tag = "read", params(("id" = i64, Path)),
    responses((status = 200, body = EventJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<EventJson>, Problem> {
    let row = params::row_id(&id, "event")?;
    let event = app.read(move |reader| reader.event(row)).await?;
    event.map(|event| Json(event.into())).ok_or(Problem::NotFound("event"))
}
