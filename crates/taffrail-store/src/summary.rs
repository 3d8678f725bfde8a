//! Everything about a window at a glance, read from the rollups.
//!
//! Only what rollups cannot tell is read from rows: the history of windows whose steps are shorter than a minute, and
//! the calls in flight while there are at most [`SWEEP_CALLS_MAX`]. A session's summary is counted from its own rows,
//! which an index bounds, with the same code the writer counts with.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use taffrail_analytics::{Bounds, Resolution, Sketch, Window};
use taffrail_event::TimestampMs;

use crate::error::ReadError;
use crate::events::to_i64;
use crate::filter::Scope;
use crate::rollup::{self, Counter, Counters, Family, Sketches, State};
use crate::windows::rows::{self, RowFilter};
use crate::{ACTIVE_MS, HISTORY_STEPS, SUMMARY_TOOLS_MAX, SWEEP_CALLS_MAX};

/// Everything about a window; rates and shares are the server's to derive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SummaryRows {
    /// Totals of the window.
    pub totals: WindowTotals,
    /// Totals of the window of the same length before it; none where nothing was stored in it.
    pub previous: Option<WindowTotals>,
    /// Wall time of the calls that ended, in milliseconds.
    pub execution_ms: Quantiles,
    /// From the event's own time to its commit, in milliseconds.
    pub latency_ms: Quantiles,
    /// Calls in flight, time-weighted.
    pub concurrency_avg: f64,
    /// The most at once; none where the window holds more than [`SWEEP_CALLS_MAX`](crate::SWEEP_CALLS_MAX) calls.
    pub concurrency_max: Option<i64>,
    /// [`HISTORY_STEPS`](crate::HISTORY_STEPS) steps, oldest first.
    pub history: Vec<StepRow>,
    /// By tool, most calls first.
    pub tools: Vec<ToolRow>,
    /// Failures by class, most frequent first.
    pub errors: Vec<ErrorClassRow>,
    /// Sessions and agents.
    pub sessions: SessionTotals,
    /// Newest context size in the window, in tokens.
    pub context_size: Option<i64>,
    /// Its share of the model's window, 0 to 1.
    pub context_utilization: Option<f64>,
}

/// Counts of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct WindowTotals {
    /// Of any kind.
    pub events: i64,
    /// Calls that ended in the window; abandoned ones, whose end nobody saw, are not among them.
    pub calls: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub denied: i64,
    pub interrupted: i64,
    pub abandoned: i64,
    /// Of the calls whose wall time is known.
    pub duration_ms_sum: i64,
    /// How many those are.
    pub duration_count: i64,
    /// By a person.
    pub prompts: i64,
    pub compactions: i64,
    pub files: FileTotals,
    pub git: GitTotals,
}

/// File operations of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FileTotals {
    pub read: i64,
    pub write: i64,
    pub edit: i64,
    pub delete: i64,
    pub lines_added: i64,
    pub lines_removed: i64,
}

impl FileTotals {
    /// All operations.
    pub const fn total(&self) -> i64 {
        self.read + self.write + self.edit + self.delete
    }
}

/// Git operations of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct GitTotals {
    pub operations: i64,
    pub commits: i64,
    pub insertions: i64,
    pub deletions: i64,
}

/// A distribution by sketch (1 % relative error); none where it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub avg: Option<f64>,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

/// One step of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct StepRow {
    /// Start of the step, in milliseconds since the Unix epoch.
    pub t_ms: i64,
    pub events: i64,
    pub calls: i64,
    pub failed: i64,
    pub execution_ms_avg: Option<f64>,
    pub execution_ms_p95: Option<f64>,
    pub file_operations: i64,
}

/// One tool in the window.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ToolRow {
    pub tool_name: String,
    pub calls: i64,
    pub failed: i64,
    pub execution_ms: Quantiles,
}

/// One class of failure in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ErrorClassRow {
    pub class: String,
    pub count: i64,
}

/// Sessions and agents of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Sessions with an event in the window.
    pub seen: i64,
    /// Sessions with an event in the last [`ACTIVE_MS`](crate::ACTIVE_MS) before the window's end, and no end.
    pub active: i64,
    /// Agents likewise.
    pub active_agents: i64,
}

impl WindowTotals {
    pub(crate) fn of(c: &Counters) -> Self {
        Self {
            events: c.get(Counter::Events),
            calls: c.get(Counter::Calls),
            succeeded: c.get(Counter::Succeeded),
            failed: c.get(Counter::Failed),
            denied: c.get(Counter::Denied),
            interrupted: c.get(Counter::Interrupted),
            abandoned: c.get(Counter::Abandoned),
            duration_ms_sum: c.get(Counter::DurationSum),
            duration_count: c.get(Counter::DurationCount),
            prompts: c.get(Counter::Prompts),
            compactions: c.get(Counter::Compactions),
            files: FileTotals {
                read: c.get(Counter::FilesRead),
                write: c.get(Counter::FilesWritten),
                edit: c.get(Counter::FilesEdited),
                delete: c.get(Counter::FilesDeleted),
                lines_added: c.get(Counter::LinesAdded),
                lines_removed: c.get(Counter::LinesRemoved),
            },
            git: GitTotals {
                operations: c.get(Counter::GitOperations),
                commits: c.get(Counter::GitCommits),
                insertions: c.get(Counter::GitInsertions),
                deletions: c.get(Counter::GitDeletions),
            },
        }
    }
}

impl Quantiles {
    /// The mean by the counters, the rest by the sketch.
    pub(crate) fn of_calls(counters: &Counters, durations: &Sketch) -> Self {
        let count = counters.get(Counter::DurationCount);
        let avg = (count > 0).then(|| counters.get(Counter::DurationSum) as f64 / count as f64);
        Self { avg, ..Self::of(durations) }
    }

    pub(crate) fn of(sketch: &Sketch) -> Self {
        Self {
            avg: sketch.mean(),
            p50: sketch.quantile(0.50),
            p95: sketch.quantile(0.95),
            p99: sketch.quantile(0.99),
        }
    }
}

/// Everything about a window that ends at `now`.
pub(crate) fn read(
    conn: &Connection,
    window: Window,
    scope: &Scope,
    now: TimestampMs,
) -> Result<SummaryRows, ReadError> {
    let bounds = window.bounds(now.get());
    let mut rows = match &scope.session {
        None => of_scope(conn, window, scope, now)?,
        Some(_) => of_session(conn, window, scope, now)?,
    };
    rows.sessions = session_totals(conn, scope, bounds)?;
    if let Some((size, window)) = crate::ledger::newest_context(conn, scope, bounds)? {
        rows.context_size = Some(size);
        rows.context_utilization = window.map(|window| size as f64 / window as f64);
    }
    let span = (bounds.to - bounds.from).max(1) as f64;
    (rows.concurrency_avg, rows.concurrency_max) = match flying(conn, scope, bounds, rows.totals)? {
        Some(calls) => {
            let (busy_ms, most) = rows::sweep(&calls, bounds.from, bounds.to);
            (busy_ms as f64 / span, Some(most))
        }
        // By Little's law: the time spent in calls that ended, over the time that passed.
        None => (rows.totals.duration_ms_sum as f64 / span, None),
    };
    Ok(rows)
}

fn of_scope(
    conn: &Connection,
    window: Window,
    scope: &Scope,
    now: TimestampMs,
) -> Result<SummaryRows, ReadError> {
    let bounds = window.bounds(now.get());
    let previous = window.previous(now.get());
    let key = (scope.app.as_deref().unwrap_or(""), scope.user.as_deref().unwrap_or(""));
    let mut sum = Sum::default();
    let mut tools = BTreeMap::new();
    let mut errors = BTreeMap::new();
    let state = State::read(conn)?;
    for segment in rollup::segments(bounds.from, bounds.to, &state) {
        rollup::rows(conn, Family::Scope, key, None, segment, Sketches::Both, |row| sum.add(&row))?;
        rollup::add_named(conn, Family::Tool, key, segment, Sketches::Durations, &mut tools)?;
        rollup::add_errors(conn, key, segment, &mut errors)?;
    }
    let mut before = Counters::default();
    for segment in rollup::segments(previous.from, previous.to, &state) {
        rollup::rows(conn, Family::Scope, key, None, segment, Sketches::None, |row| {
            before.add_all(&row.counters);
            Ok(())
        })?;
    }
    let history = if window.history_resolution() == Resolution::Fine && bounds.history_from < state.fine_since
    {
        history_of_rows(conn, scope, bounds)?
    } else {
        history_of_rollups(conn, key, bounds, window.history_resolution())?
    };
    let before = WindowTotals::of(&before);
    Ok(SummaryRows {
        totals: WindowTotals::of(&sum.counters),
        previous: (before.events > 0 || before.calls > 0).then_some(before),
        execution_ms: Quantiles::of(&sum.durations),
        latency_ms: Quantiles::of(&sum.latencies),
        history,
        tools: tool_rows(tools.into_iter().map(|(tool, sum)| (tool, sum.counters, sum.durations))),
        errors: error_rows(errors),
        ..SummaryRows::default()
    })
}

#[derive(Default)]
struct Sum {
    counters: Counters,
    durations: Sketch,
    latencies: Sketch,
}

impl Sum {
    fn add(&mut self, row: &rollup::Row<'_>) -> Result<(), ReadError> {
        self.counters.add_all(&row.counters);
        rollup::merge_stored(&mut self.durations, row.durations)?;
        rollup::merge_stored(&mut self.latencies, row.latencies)
    }
}

fn tool_rows(sums: impl Iterator<Item = (String, Counters, Sketch)>) -> Vec<ToolRow> {
    let mut tools: Vec<ToolRow> = sums
        .map(|(tool_name, counters, durations)| ToolRow {
            tool_name,
            calls: counters.get(Counter::Calls),
            failed: counters.get(Counter::Failed),
            execution_ms: Quantiles::of(&durations),
        })
        .filter(|tool| tool.calls > 0)
        .collect();
    tools.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.tool_name.cmp(&b.tool_name)));
    tools.truncate(SUMMARY_TOOLS_MAX);
    tools
}

fn error_rows(sums: BTreeMap<String, i64>) -> Vec<ErrorClassRow> {
    let mut errors: Vec<_> = sums.into_iter().map(|(class, count)| ErrorClassRow { class, count }).collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.class.cmp(&b.class)));
    errors
}

/// A step while it is summed up.
#[derive(Default)]
struct Step {
    counters: Counters,
    durations: Sketch,
}

fn history(bounds: Bounds, steps: &[Step]) -> Vec<StepRow> {
    let rows = bounds.steps().zip(steps).map(|(t_ms, step)| {
        let totals = WindowTotals::of(&step.counters);
        StepRow {
            t_ms,
            events: totals.events,
            calls: totals.calls,
            failed: totals.failed,
            execution_ms_avg: (totals.duration_count > 0)
                .then(|| totals.duration_ms_sum as f64 / totals.duration_count as f64),
            execution_ms_p95: step.durations.quantile(0.95),
            file_operations: totals.files.total(),
        }
    });
    rows.collect()
}

fn empty_steps() -> Vec<Step> {
    (0..HISTORY_STEPS).map(|_| Step::default()).collect()
}

fn history_of_rollups(
    conn: &Connection,
    key: (&str, &str),
    bounds: Bounds,
    resolution: Resolution,
) -> Result<Vec<StepRow>, ReadError> {
    let mut steps = empty_steps();
    let segment = rollup::segment(resolution, bounds.history_from, bounds.to);
    rollup::rows(conn, Family::Scope, key, None, segment, Sketches::Durations, |row| {
        let Some(index) = bounds.step_of(row.bucket) else { return Ok(()) };
        steps[index].counters.add_all(&row.counters);
        rollup::merge_stored(&mut steps[index].durations, row.durations)
    })?;
    Ok(history(bounds, &steps))
}

/// The history of a scope that is no session, from the rows of the last minutes.
fn history_of_rows(conn: &Connection, scope: &Scope, bounds: Bounds) -> Result<Vec<StepRow>, ReadError> {
    let mut steps = empty_steps();
    let filter = RowFilter::of(scope);
    rows::each_event(conn, &filter, bounds.history_from, bounds.to, |event| {
        if let Some(index) = bounds.step_of(event.ts) {
            steps[index].counters.add_all(&event.counters);
        }
    })?;
    rows::each_call(conn, &filter, (bounds.history_from, bounds.to), None, |call| {
        if let Some(index) = bounds.step_of(call.ended) {
            steps[index].counters.add_call(call, 1);
            add_known(&mut steps[index].durations, call.known_ms());
        }
    })?;
    Ok(history(bounds, &steps))
}

fn of_session(
    conn: &Connection,
    window: Window,
    scope: &Scope,
    now: TimestampMs,
) -> Result<SummaryRows, ReadError> {
    let bounds = window.bounds(now.get());
    let previous = window.previous(now.get());
    let filter = RowFilter::of(scope);
    let mut steps = empty_steps();
    let (mut sum, mut before) = (Sum::default(), Counters::default());
    let mut tools: BTreeMap<String, rollup::CallSum> = BTreeMap::new();
    let mut errors = BTreeMap::new();
    rows::each_event(conn, &filter, previous.from, bounds.to, |event| {
        if let Some(index) = bounds.step_of(event.ts) {
            steps[index].counters.add_all(&event.counters);
        }
        if event.ts < previous.to {
            before.add_all(&event.counters);
            return;
        }
        sum.counters.add_all(&event.counters);
        add_known(&mut sum.latencies, event.latency_ms);
        if let Some(class) = event.error_class {
            *errors.entry(class).or_default() += 1;
        }
    })?;
    rows::each_call(conn, &filter, (previous.from, bounds.to), None, |call| {
        if let Some(index) = bounds.step_of(call.ended) {
            steps[index].counters.add_call(call, 1);
            add_known(&mut steps[index].durations, call.known_ms());
        }
        if call.ended < previous.to {
            before.add_call(call, 1);
            return;
        }
        sum.counters.add_call(call, 1);
        add_known(&mut sum.durations, call.known_ms());
        let tool = tools.entry(call.tool.clone()).or_default();
        tool.counters.add_call(call, 1);
        add_known(&mut tool.durations, call.known_ms());
    })?;
    let before = WindowTotals::of(&before);
    Ok(SummaryRows {
        totals: WindowTotals::of(&sum.counters),
        previous: (before.events > 0 || before.calls > 0).then_some(before),
        execution_ms: Quantiles::of(&sum.durations),
        latency_ms: Quantiles::of(&sum.latencies),
        history: history(bounds, &steps),
        tools: tool_rows(tools.into_iter().map(|(tool, sum)| (tool, sum.counters, sum.durations))),
        errors: error_rows(errors),
        ..SummaryRows::default()
    })
}

fn add_known(sketch: &mut Sketch, value: Option<i64>) {
    if let Some(value) = value {
        sketch.add(value as f64);
    }
}

fn session_totals(conn: &Connection, scope: &Scope, bounds: Bounds) -> Result<SessionTotals, ReadError> {
    let since = bounds.to - ACTIVE_MS;
    let of = RowFilter::of(scope);
    let running = "(s.ended IS NULL OR s.ended < s.worked)";
    let in_scope = if of.session.is_some() {
        "?3 IS NULL AND ?4 IS NULL AND s.session_id = ?5"
    } else {
        "(?3 IS NULL OR s.source_app = ?3) AND (?4 IS NULL OR s.user = ?4) AND ?5 IS NULL"
    };
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE s.last_event >= ?6 AND {running}) FROM sessions s {}
            WHERE s.last_event >= ?1 AND s.started < ?2 AND {in_scope}",
        if of.session.is_some() { "" } else { "INDEXED BY sessions_last" }
    );
    let (seen, active) = conn
        .prepare_cached(&sql)?
        .query_row(params![bounds.from, bounds.to, of.app, of.user, of.session, since], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let sql = format!(
        "SELECT count(*) FROM agents a {} JOIN sessions s ON s.session_id = a.session_id
            WHERE a.last_event >= ?1 AND a.started < ?2 AND {in_scope} AND {running}
            AND (a.agent_id = '' OR a.ended IS NULL OR a.ended < a.worked)",
        if of.session.is_some() { "" } else { "INDEXED BY agents_last" }
    );
    let active_agents = conn
        .prepare_cached(&sql)?
        .query_row(params![since, bounds.to, of.app, of.user, of.session], |row| row.get(0))?;
    Ok(SessionTotals { seen, active, active_agents })
}

/// Begin and end of every call in flight in the window; none where there are too many to look at.
fn flying(
    conn: &Connection,
    scope: &Scope,
    bounds: Bounds,
    totals: WindowTotals,
) -> Result<Option<Vec<(i64, i64)>>, ReadError> {
    let filter = RowFilter::of(scope);
    // By time the calls of all scopes are walked, so it is their number that counts.
    let walked = match (filter.session, filter.app.or(filter.user)) {
        (None, Some(_)) => totals_of_all(conn, bounds)?,
        _ => totals,
    };
    if walked.calls + walked.abandoned > to_i64(SWEEP_CALLS_MAX) {
        return Ok(None);
    }
    rows::flights(conn, &filter, (bounds.from, bounds.to), SWEEP_CALLS_MAX)
}

fn totals_of_all(conn: &Connection, bounds: Bounds) -> Result<WindowTotals, ReadError> {
    let mut sum = Counters::default();
    for segment in rollup::segments(bounds.from, bounds.to, &State::read(conn)?) {
        rollup::rows(conn, Family::Scope, ("", ""), None, segment, Sketches::None, |row| {
            sum.add_all(&row.counters);
            Ok(())
        })?;
    }
    Ok(WindowTotals::of(&sum))
}
