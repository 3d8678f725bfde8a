//! Tool calls, newest first: a call's Pre and Post as one.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use taffrail_event::RowId;
use taffrail_event::event::CallStatus;
use taffrail_store::CallFilter;

use super::params::{self, Params, text};
use super::types::{CallJson, Page};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Which calls.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CallsQuery {
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// The subagent; empty for the main agent.
    agent: Option<String>,
    /// The tool.
    tool: Option<String>,
    /// `running`, `succeeded`, `failed`, `denied`, `interrupted`, `ended` or `abandoned`.
    status: Option<String>,
    /// First millisecond.
    #[param(value_type = Option<i64>)]
    from: Option<String>,
    /// One past the last millisecond.
    #[param(value_type = Option<i64>)]
    to: Option<String>,
}

/// Calls that match, newest first.
#[utoipa::path(
    get, path = "/api/v1/calls", tag = "read", params(CallsQuery),
    responses((status = 200, body = Page<CallJson>), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<CallsQuery>,
) -> Result<Json<Page<CallJson>>, Problem> {
    let limit = params::limit(query.limit.as_deref())?;
    let cursor = params::cursor(query.cursor.as_deref())?;
    let status = text(query.status);
    if let Some(status) = &status
        && CallStatus::from_name(status).is_none()
    {
        let known: Vec<&str> = CallStatus::ALL.iter().map(|s| s.name()).collect();
        return Err(Problem::BadRequest(format!(
            "status `{status}` is not known; there are {}",
            known.join(", ")
        )));
    }
    let filter = CallFilter {
        from: params::time("from", query.from.as_deref())?,
        to: params::time("to", query.to.as_deref())?,
        app: text(query.app),
        session: text(query.session),
        agent: query.agent,
        tool: text(query.tool),
        status,
    };
    let page = app.read(move |reader| reader.calls(&filter, cursor, limit)).await?;
    Ok(Json(Page::of(page)))
}

/// One call.
#[utoipa::path(
    get, path = "/api/v1/calls/{id}", tag = "read", params(("id" = i64, Path)),
    responses((status = 200, body = CallJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<CallJson>, Problem> {
    let row = params::row_id(&id, "call")?;
    // A page of one that begins just behind the id asked for.
    let behind = RowId(row.0.saturating_add(1));
    let page = app.read(move |reader| reader.calls(&CallFilter::default(), Some(behind), 1)).await?;
    let found = page.rows.into_iter().find(|call| call.id == row);
    found.map(|call| Json(call.into())).ok_or(Problem::NotFound("call"))
}
