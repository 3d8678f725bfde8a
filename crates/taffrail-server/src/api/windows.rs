//! Windows by API: every metric of a subject, series, heatmap, tools, agents.
//!
//! Answers of windows of a day and longer are kept for [`KEPT_MS`] at most: they are the same to the eye, and a page
//! asks for many at once. Every answer says by `as_of_ms` when it was made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use taffrail_analytics::Window;
use taffrail_event::TimestampMs;
use taffrail_store::{
    AgentStats, CallTotals, Figures, GroupBy, HeatmapCell, HeatmapRows, Metric, Part, Quantiles, ReadError,
    Reader, Scope, SeriesQuery, SeriesRows, Subject, ToolsRows,
};

use super::money::usd;
use super::params::{self, Params, text};
use super::types::QuantilesJson;
use crate::clock;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// The window where none is named.
const WINDOW_DEFAULT: Window = Window::H1;
/// How long an answer of a long window is given again, in milliseconds.
const KEPT_MS: i64 = 5_000;
/// Windows from this length on are kept, in milliseconds.
const KEPT_FROM_MS: i64 = 24 * 3_600_000;
/// Answers that are kept.
const KEPT_MAX: usize = 256;

/// Answers of long windows, by route and question.
#[derive(Default)]
pub(crate) struct Answers {
    kept: Mutex<HashMap<String, (i64, Arc<str>)>>,
}

impl Answers {
    fn get(&self, key: &str, now_ms: i64) -> Option<Arc<str>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (made_ms, text) = kept.get(key)?;
        // A clock that was set back makes nothing last longer.
        (0..KEPT_MS).contains(&(now_ms - made_ms)).then(|| Arc::clone(text))
    }

    fn keep(&self, key: String, now_ms: i64, text: Arc<str>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (made_ms, _)| (0..KEPT_MS).contains(&(now_ms - *made_ms)));
        }
        if kept.len() < KEPT_MAX {
            kept.insert(key, (now_ms, text));
        }
    }
}

/// Which window of what.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubjectQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 1h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// A type of agent, `main` for main agents; with `session` an agent of it by its id.
    agent: Option<String>,
    /// One tool.
    tool: Option<String>,
    /// One model.
    model: Option<String>,
}

impl SubjectQuery {
    fn window(&self) -> Result<Window, Problem> {
        match self.window.as_deref() {
            None | Some("") => Ok(WINDOW_DEFAULT),
            Some(name) => params::window(name),
        }
    }

    fn subject(self) -> Result<Subject, Problem> {
        let scope = Scope { app: text(self.app), session: text(self.session), user: text(self.user) };
        let parts = [
            text(self.agent).map(Part::Agent),
            text(self.tool).map(Part::Tool),
            text(self.model).map(Part::Model),
        ];
        let mut parts = parts.into_iter().flatten();
        let part = parts.next().unwrap_or_default();
        if parts.next().is_some() {
            return Err(Problem::BadRequest("give one of agent, tool and model, not several".to_owned()));
        }
        Ok(Subject { scope, part })
    }
}

/// Which window of which scope.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ScopeQuery {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 1h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
}

impl ScopeQuery {
    fn parts(self) -> Result<(Window, Scope), Problem> {
        let window = match self.window.as_deref() {
            None | Some("") => WINDOW_DEFAULT,
            Some(name) => params::window(name)?,
        };
        Ok((window, Scope { app: text(self.app), session: text(self.session), user: text(self.user) }))
    }
}

/// Answers from what is kept, else reads.
async fn answer<T: Serialize + Send + 'static>(
    app: &App,
    window: Window,
    key: String,
    read: impl FnOnce(&Reader, TimestampMs) -> Result<T, ReadError> + Send + 'static,
) -> Result<Response, Problem> {
    let now = clock::now();
    let is_kept = window.length_ms() >= KEPT_FROM_MS;
    if let Some(text) = is_kept.then(|| app.answers.get(&key, now.get())).flatten() {
        return Ok(json_response(&text));
    }
    let made = app.read(move |reader| read(reader, now)).await?;
    let text: Arc<str> = serde_json::to_string(&made).map_err(|_| Problem::Internal)?.into();
    if is_kept {
        app.answers.keep(key, now.get(), Arc::clone(&text));
    }
    Ok(json_response(&text))
}

fn json_response(text: &Arc<str>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

/// Every metric of a subject.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FiguresJson {
    /// The window's name.
    window: &'static str,
    /// Its first millisecond.
    from_ms: i64,
    /// Its end.
    to_ms: i64,
    /// When this was read.
    as_of_ms: i64,
    /// Where each step of the histories begins.
    t: Vec<i64>,
    /// By the name of the metric.
    #[schema(value_type = HashMap<String, FigureJson>)]
    metrics: serde_json::Map<String, serde_json::Value>,
}

/// One metric of a subject; null where the subject cannot have it, or there is nothing to make it of.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FigureJson {
    /// Over the window.
    value: Option<f64>,
    /// Over the window before.
    previous: Option<f64>,
    /// (value - previous) / previous * 100.
    trend_percent: Option<f64>,
    /// Per step, oldest first; empty where the metric has none.
    history: Vec<Option<f64>>,
}

impl FiguresJson {
    fn of(figures: Figures, window: Window, now: TimestampMs) -> Self {
        let metrics = figures.figures.into_iter().map(|(metric, figure)| {
            let json = FigureJson {
                value: figure.value,
                previous: figure.previous,
                trend_percent: figure.trend_percent,
                history: figure.history,
            };
            // Options of numbers always have a JSON form.
            (metric.name().to_owned(), serde_json::to_value(json).unwrap_or_default())
        });
        Self {
            window: window.name(),
            from_ms: figures.from_ms,
            to_ms: figures.to_ms,
            as_of_ms: now.get(),
            t: figures.t_ms,
            metrics: metrics.collect(),
        }
    }
}

/// Every metric of a window, for a project, user, session, agent, tool or model.
#[utoipa::path(
    get, path = "/api/v1/figures", tag = "read", params(SubjectQuery),
    responses((status = 200, body = FiguresJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn figures(
    State(app): State<App>,
    Params(query): Params<SubjectQuery>,
) -> Result<Response, Problem> {
    let window = query.window()?;
    let subject = query.subject()?;
    let key = format!("figures {} {subject:?}", window.name());
    answer(&app, window, key, move |reader, now| {
        Ok(FiguresJson::of(reader.figures(window, &subject, now)?, window, now))
    })
    .await
}

/// Which series.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesParams {
    /// A metric by its name: `calls`, `error_rate_percent`, `execution_ms_p95`, `cost_usd`, ...
    metric: Option<String>,
    /// `none`, `app`, `user`, `tool`, `agent` or `model`; `none` unless told.
    group_by: Option<String>,
    /// `1m 5m 15m 1h 6h 24h 7d 30d`; 1h unless told.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// The session.
    session: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// A type of agent, `main` for main agents; with `session` an agent of it by its id.
    agent: Option<String>,
    /// One tool.
    tool: Option<String>,
    /// One model.
    model: Option<String>,
}

/// Columns: times, and as many values per series.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SeriesAnswerJson {
    metric: &'static str,
    window: &'static str,
    group_by: &'static str,
    /// When this was read.
    as_of_ms: i64,
    /// The length of a step, in milliseconds.
    step_ms: i64,
    /// Where each step begins, ascending.
    t: Vec<i64>,
    /// The largest first; `(other)` last, where there is one.
    series: Vec<SeriesJson>,
    /// Groups that are in `(other)`.
    groups_cut: usize,
    /// Whether older rows were left out.
    rows_cut: bool,
}

/// One series.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SeriesJson {
    /// The group; the metric where there is one series.
    name: String,
    /// Per step; null where there is nothing to show.
    values: Vec<Option<f64>>,
    /// Over the whole window.
    total: Option<f64>,
}

impl SeriesAnswerJson {
    fn of(rows: SeriesRows, query: &SeriesQuery, now: TimestampMs) -> Self {
        let series = rows.series.into_iter();
        Self {
            metric: query.metric.name(),
            window: query.window.name(),
            group_by: query.group_by.name(),
            as_of_ms: now.get(),
            step_ms: rows.step_ms,
            t: rows.t_ms,
            series: series.map(|s| SeriesJson { name: s.name, values: s.values, total: s.total }).collect(),
            groups_cut: rows.groups_cut,
            rows_cut: rows.rows_cut,
        }
    }
}

/// One metric over time.
#[utoipa::path(
    get, path = "/api/v1/series", tag = "read", params(SeriesParams),
    responses((status = 200, body = SeriesAnswerJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn series(
    State(app): State<App>,
    Params(query): Params<SeriesParams>,
) -> Result<Response, Problem> {
    let names = || Metric::ALL.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(", ");
    let metric = match text(query.metric) {
        None => return Err(Problem::BadRequest(format!("metric is missing; there are {}", names()))),
        Some(name) => Metric::parse(&name).ok_or_else(|| {
            Problem::BadRequest(format!("metric `{name}` is not known; there are {}", names()))
        })?,
    };
    let group_by = match text(query.group_by) {
        None => GroupBy::None,
        Some(name) => GroupBy::parse(&name).ok_or_else(|| {
            let known: Vec<&str> = GroupBy::ALL.iter().map(|by| by.name()).collect();
            Problem::BadRequest(format!("group_by `{name}` is not known; there are {}", known.join(", ")))
        })?,
    };
    let subject = SubjectQuery {
        window: query.window,
        app: query.app,
        session: query.session,
        user: query.user,
        agent: query.agent,
        tool: query.tool,
        model: query.model,
    };
    let window = subject.window()?;
    let query = SeriesQuery { metric, window, group_by, subject: subject.subject()? };
    let key = format!("series {query:?}");
    answer(&app, window, key, move |reader, now| {
        Ok(SeriesAnswerJson::of(reader.series(&query, now)?, &query, now))
    })
    .await
}

/// Tools by time, and calls by weekday and hour.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct HeatmapJson {
    window: &'static str,
    /// When this was read.
    as_of_ms: i64,
    /// The length of a column, in milliseconds.
    step_ms: i64,
    /// Where each column begins.
    t: Vec<i64>,
    /// Most calls first; `(other)` last, where there is one.
    tools: Vec<HeatmapToolJson>,
    /// Tools that are in `(other)`.
    tools_cut: usize,
    /// 168 cells: Monday 0 h first, UTC; null for windows shorter than a day.
    week: Option<Vec<HeatmapCellJson>>,
    /// Whether older rows were left out.
    rows_cut: bool,
}

/// One row of the heatmap.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct HeatmapToolJson {
    tool_name: String,
    /// One per column.
    cells: Vec<HeatmapCellJson>,
}

/// One cell.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct HeatmapCellJson {
    /// Calls that ended.
    calls: i64,
    failed: i64,
    /// Null where no wall time is known.
    execution_ms_avg: Option<f64>,
}

impl From<HeatmapCell> for HeatmapCellJson {
    fn from(cell: HeatmapCell) -> Self {
        Self { calls: cell.calls, failed: cell.failed, execution_ms_avg: cell.execution_ms_avg }
    }
}

impl HeatmapJson {
    fn of(rows: HeatmapRows, window: Window, now: TimestampMs) -> Self {
        let cells = |cells: Vec<HeatmapCell>| cells.into_iter().map(HeatmapCellJson::from).collect();
        let tools = rows.tools.into_iter();
        Self {
            window: window.name(),
            as_of_ms: now.get(),
            step_ms: rows.step_ms,
            t: rows.t_ms,
            tools: tools.map(|t| HeatmapToolJson { tool_name: t.tool_name, cells: cells(t.cells) }).collect(),
            tools_cut: rows.tools_cut,
            week: rows.week.map(cells),
            rows_cut: rows.rows_cut,
        }
    }
}

/// Which tools are used when.
#[utoipa::path(
    get, path = "/api/v1/heatmap", tag = "read", params(ScopeQuery),
    responses((status = 200, body = HeatmapJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn heatmap(
    State(app): State<App>,
    Params(query): Params<ScopeQuery>,
) -> Result<Response, Problem> {
    let (window, scope) = query.parts()?;
    let key = format!("heatmap {} {scope:?}", window.name());
    answer(&app, window, key, move |reader, now| {
        Ok(HeatmapJson::of(reader.heatmap(window, &scope, now)?, window, now))
    })
    .await
}

/// What became of calls.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CallTotalsJson {
    /// Those that ended.
    calls: i64,
    succeeded: i64,
    failed: i64,
    denied: i64,
    interrupted: i64,
    /// Their end was not seen; not among the calls.
    abandoned: i64,
    /// failed / (calls - denied - interrupted) * 100; null where nothing is left to divide by.
    error_rate_percent: Option<f64>,
    /// Wall time of all of them.
    duration_ms: i64,
}

impl From<CallTotals> for CallTotalsJson {
    fn from(totals: CallTotals) -> Self {
        Self {
            calls: totals.ended,
            succeeded: totals.succeeded,
            failed: totals.failed,
            denied: totals.denied,
            interrupted: totals.interrupted,
            abandoned: totals.abandoned,
            error_rate_percent: totals.error_rate_percent(),
            duration_ms: totals.duration_ms_sum,
        }
    }
}

fn quantiles(quantiles: Quantiles) -> QuantilesJson {
    QuantilesJson { avg: quantiles.avg, p50: quantiles.p50, p95: quantiles.p95, p99: quantiles.p99 }
}

/// The tools of a window.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ToolsJson {
    window: &'static str,
    /// When this was read.
    as_of_ms: i64,
    /// Calls of all tools, those left out too.
    calls: i64,
    /// Most calls first.
    items: Vec<ToolStatsJson>,
    /// Tools that are left out.
    items_cut: usize,
    /// Always null: there is one page.
    next_cursor: Option<String>,
}

/// One tool in a window.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ToolStatsJson {
    tool_name: String,
    #[serde(flatten)]
    totals: CallTotalsJson,
    /// Its share of all calls.
    share_percent: f64,
    /// Wall time, in milliseconds.
    execution_ms: QuantilesJson,
    /// Its calls in the window before.
    previous_calls: i64,
    /// Null where there were none before.
    trend_percent: Option<f64>,
    /// Calls per step, oldest first.
    history: Vec<i64>,
}

impl ToolsJson {
    fn of(rows: ToolsRows, window: Window, now: TimestampMs) -> Self {
        let items = rows.tools.into_iter().map(|tool| ToolStatsJson {
            tool_name: tool.tool_name,
            totals: tool.calls.into(),
            share_percent: tool.share_percent,
            execution_ms: quantiles(tool.execution_ms),
            previous_calls: tool.previous_calls,
            trend_percent: tool.trend_percent,
            history: tool.history,
        });
        Self {
            window: window.name(),
            as_of_ms: now.get(),
            calls: rows.calls,
            items: items.collect(),
            items_cut: rows.tools_cut,
            next_cursor: None,
        }
    }
}

/// The tools of a window.
#[utoipa::path(
    get, path = "/api/v1/tools", tag = "read", params(ScopeQuery),
    responses((status = 200, body = ToolsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn tools(
    State(app): State<App>,
    Params(query): Params<ScopeQuery>,
) -> Result<Response, Problem> {
    let (window, scope) = query.parts()?;
    let key = format!("tools {} {scope:?}", window.name());
    answer(&app, window, key, move |reader, now| {
        Ok(ToolsJson::of(reader.tools(window, &scope, now)?, window, now))
    })
    .await
}

/// The types of agents of a window.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AgentsJson {
    window: &'static str,
    /// When this was read.
    as_of_ms: i64,
    /// Most calls first.
    items: Vec<AgentStatsJson>,
    /// Always null: there is one page.
    next_cursor: Option<String>,
}

/// One type of agent in a window.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AgentStatsJson {
    /// `main`, the told type, or `subagent`.
    agent_type: String,
    /// Agents of it with an event in the window.
    agents: i64,
    #[serde(flatten)]
    totals: CallTotalsJson,
    /// Their share of all calls.
    share_percent: f64,
    /// Wall time, in milliseconds.
    execution_ms: QuantilesJson,
    /// Calls in the window before.
    previous_calls: i64,
    /// API requests.
    requests: i64,
    /// Tokens of all kinds.
    tokens: i64,
    /// US dollars; null where no request has a price.
    cost_usd: Option<f64>,
}

impl From<AgentStats> for AgentStatsJson {
    fn from(stats: AgentStats) -> Self {
        Self {
            agent_type: stats.agent_type,
            agents: stats.agents,
            totals: stats.calls.into(),
            share_percent: stats.share_percent,
            execution_ms: quantiles(stats.execution_ms),
            previous_calls: stats.previous_calls,
            requests: stats.requests,
            tokens: stats.tokens,
            cost_usd: stats.cost_nano_usd.map(usd),
        }
    }
}

/// What each type of agent does and costs.
#[utoipa::path(
    get, path = "/api/v1/agents", tag = "read", params(ScopeQuery),
    responses((status = 200, body = AgentsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn agents(
    State(app): State<App>,
    Params(query): Params<ScopeQuery>,
) -> Result<Response, Problem> {
    let (window, scope) = query.parts()?;
    let key = format!("agents {} {scope:?}", window.name());
    answer(&app, window, key, move |reader, now| {
        let items = reader.agent_stats(window, &scope, now)?.into_iter().map(AgentStatsJson::from).collect();
        Ok(AgentsJson { window: window.name(), as_of_ms: now.get(), items, next_cursor: None })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(agent: Option<&str>, tool: Option<&str>) -> SubjectQuery {
        let text = |value: Option<&str>| value.map(str::to_owned);
        SubjectQuery {
            window: None,
            app: Some(String::new()),
            session: None,
            user: None,
            agent: text(agent),
            tool: text(tool),
            model: None,
        }
    }

    #[test]
    fn a_subject_has_one_part() {
        let subject = query(None, Some("Bash")).subject().unwrap_or_default();
        assert_eq!((subject.part, subject.scope), (Part::Tool("Bash".to_owned()), Scope::default()));
        assert_eq!(query(Some(""), None).subject().map(|s| s.part).unwrap_or_default(), Part::Whole);
        assert!(query(Some("main"), Some("Bash")).subject().is_err());
    }

    #[test]
    fn answers_are_kept_for_a_while_and_not_without_end() {
        let answers = Answers::default();
        for n in 0..KEPT_MAX + 10 {
            answers.keep(n.to_string(), 1_000, "{}".into());
        }
        assert_eq!(answers.get("0", 1_000 + KEPT_MS - 1).as_deref(), Some("{}"));
        assert_eq!(answers.get("0", 1_000 + KEPT_MS), None);
        assert_eq!(answers.get("0", 999), None, "the clock was set back");
        assert_eq!(answers.get(&(KEPT_MAX + 1).to_string(), 1_000), None);
        answers.keep("new".to_owned(), 1_000 + KEPT_MS, "1".into());
        assert_eq!(answers.get("new", 1_000 + KEPT_MS).as_deref(), Some("1"));
    }
}
