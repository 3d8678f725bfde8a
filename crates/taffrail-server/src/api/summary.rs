//! Everything about a window at a glance, and what can be filtered by.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use taffrail_analytics::window::Window;
use taffrail_event::TimestampMs;
use taffrail_store::Scope;

use super::convert::{self, Span};
use super::money;
use super::params::{self, Params, text};
use super::types::{FacetJson, FiltersJson, SessionFacetJson, SummaryJson};
use crate::clock;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// The window where none is named.
const WINDOW_DEFAULT: Window = Window::H1;

/// Which window of what.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SummaryQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 1h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
}

/// Everything about a window.
#[utoipa::path(
    get, path = "/api/v1/summary", tag = "read", params(SummaryQuery),
    responses((status = 200, body = SummaryJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn summary(
    State(app): State<App>,
    Params(query): Params<SummaryQuery>,
) -> Result<Json<SummaryJson>, Problem> {
    let window = match text(query.window) {
        None => WINDOW_DEFAULT,
        Some(name) => params::window(&name)?,
    };
    let scope = Scope { app: text(query.app), session: text(query.session), user: text(query.user) };
    Ok(Json(read(&app, window, scope).await?))
}

/// The summary of a window that ends now.
pub(crate) async fn read(app: &App, window: Window, scope: Scope) -> Result<SummaryJson, Problem> {
    let to = clock::now();
    let from = TimestampMs::clamped(window.bounds(to.get()).from);
    let step_ms = window.step_ms();
    let (rows, money) = app
        .read(move |reader| {
            Ok((reader.summary(window, &scope, to)?, money::window(reader, window, &scope, to)?))
        })
        .await?;
    let mut summary = convert::summary(rows, Span { name: window.name(), from, to, step_ms });
    if let Some(money) = money {
        summary.tokens = Some((&money.totals.usage).into());
        summary.cost = Some(money::cost_json(&money, window, to));
    }
    Ok(summary)
}

/// What can be filtered by, with how often it occurs.
#[utoipa::path(
    get, path = "/api/v1/filters", tag = "read",
    responses((status = 200, body = FiltersJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn filters(State(app): State<App>) -> Result<Json<FiltersJson>, Problem> {
    let options = app.read(|reader| reader.filter_options()).await?;
    let facets = |facets: Vec<taffrail_store::Facet>| {
        facets.into_iter().map(|f| FacetJson { value: f.value, count: f.count }).collect()
    };
    Ok(Json(FiltersJson {
        apps: facets(options.apps),
        types: facets(options.types),
        tools: facets(options.tools),
        sessions: options
            .sessions
            .into_iter()
            .map(|s| SessionFacetJson {
                session_id: s.session_id,
                app: s.app,
                last_event_ms: s.last_event.get(),
            })
            .collect(),
    }))
}
