//! Everything about a window at a glance, read from the rollups.
//!
//! Only what rollups cannot tell is read from rows: the history of windows whose steps are shorter than a minute, and
//! the calls in flight while there are at most [`SWEEP_CALLS_MAX`]. A session's summary is counted from its own rows,
//! which an index bounds, with the same code the writer counts with.

use std::collections::BTreeMap;

use rusqlite::{Connection, ToSql, params};
use taffrail_analytics::window::HistorySource;
use taffrail_analytics::{Bounds, Resolution, Sketch, Window};
use taffrail_event::{RowId, TimestampMs};

use crate::error::ReadError;
use crate::events::to_i64;
use crate::filter::Scope;
use crate::rollup::{self, Counter, Counters, Sketches};
use crate::{ACTIVE_MS, HISTORY_STEPS, SUMMARY_TOOLS_MAX, SWEEP_CALLS_MAX};

/// A call whose end nobody saw counts as in flight for this long, in milliseconds.
const RUNNING_MAX_MS: i64 = 3_600_000;

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
    fn of(c: &Counters) -> Self {
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
    fn of(sketch: &Sketch) -> Self {
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
        Some(session) => of_session(conn, window, session, now)?,
    };
    rows.sessions = session_totals(conn, scope, bounds)?;
    if let Some((size, window)) = crate::ledger::newest_context(conn, scope, bounds)? {
        rows.context_size = Some(size);
        rows.context_utilization = window.map(|window| size as f64 / window as f64);
    }
    let calls = flying(conn, scope, bounds, rows.totals)?;
    (rows.concurrency_avg, rows.concurrency_max) = match calls {
        Some(calls) => sweep(&calls, bounds),
        // By Little's law: the time spent in calls that ended, over the time that passed.
        None => (rows.totals.duration_ms_sum as f64 / ((bounds.to - bounds.from).max(1)) as f64, None),
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
    for segment in rollup::segments(bounds.from, bounds.to) {
        rollup::scope_rows(conn, key, segment, Sketches::Both, |row| sum.add(&row))?;
        rollup::add_tools(conn, key, segment, &mut tools)?;
        rollup::add_errors(conn, key, segment, &mut errors)?;
    }
    let mut before = Counters::default();
    for segment in rollup::segments(previous.from, previous.to) {
        rollup::scope_rows(conn, key, segment, Sketches::None, |row| {
            before.add_all(&row.counters);
            Ok(())
        })?;
    }
    let history = match window.history_source() {
        HistorySource::Rows => history_of_rows(conn, scope, bounds)?,
        HistorySource::Rollups => history_of_rollups(conn, key, bounds, window.resolution())?,
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
    fn add(&mut self, row: &rollup::ScopeRow<'_>) -> Result<(), ReadError> {
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
    rollup::scope_rows(conn, key, segment, Sketches::Durations, |row| {
        let Some(index) = bounds.step_of(row.bucket) else { return Ok(()) };
        steps[index].counters.add_all(&row.counters);
        rollup::merge_stored(&mut steps[index].durations, row.durations)
    })?;
    Ok(history(bounds, &steps))
}

/// How rows are found: those of a session by its index, all others by time. Binds app, user and session as 3, 4, 5.
struct Rows<'s> {
    app: Option<&'s str>,
    user: Option<&'s str>,
    session: Option<&'s str>,
    /// The condition, on columns without a table's name.
    in_scope: &'static str,
}

impl<'s> Rows<'s> {
    fn of(scope: &'s Scope) -> Self {
        match &scope.session {
            // An `OR` would keep SQLite from the index.
            Some(session) => Self {
                app: None,
                user: None,
                session: Some(session),
                in_scope: "?3 IS NULL AND ?4 IS NULL AND session_id = ?5",
            },
            None => Self {
                app: scope.app.as_deref(),
                user: scope.user.as_deref(),
                session: None,
                in_scope: "(?3 IS NULL OR source_app = ?3) AND (?4 IS NULL OR user = ?4) AND ?5 IS NULL",
            },
        }
    }

    fn by(&self, session_index: &'static str, else_by: &'static str) -> &'static str {
        if self.session.is_some() { session_index } else { else_by }
    }
}

/// The history of a scope that is no session, from the rows of the last minutes.
fn history_of_rows(conn: &Connection, scope: &Scope, bounds: Bounds) -> Result<Vec<StepRow>, ReadError> {
    let mut steps = empty_steps();
    let id = |ms| RowId::first_of(TimestampMs::clamped(ms)).0;
    let range = (id(bounds.history_from), id(bounds.to));
    let tables = [
        (Counter::Events, "SELECT e.id FROM events e", "e.id"),
        (
            Counter::FilesRead,
            "SELECT e.id FROM file_operations f CROSS JOIN events e ON e.id = f.event_id",
            "f.event_id",
        ),
    ];
    for (counter, rows, id) in tables {
        // The row id tells the time, so that a count by app alone reads nothing but that app's index.
        let by = if scope.app.is_some() && counter == Counter::Events { "INDEXED BY events_app" } else { "" };
        let in_app = if scope.app.is_some() { "e.source_app = ?3" } else { "?3 IS NULL" };
        let of_user = if scope.user.is_some() { "e.user = ?4" } else { "?4 IS NULL" };
        let sql = format!("{rows} {by} WHERE {id} >= ?1 AND {id} < ?2 AND {in_app} AND {of_user}");
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params![range.0, range.1, scope.app, scope.user])?;
        while let Some(row) = rows.next()? {
            if let Some(index) = bounds.step_of(RowId(row.get(0)?).ts().get()) {
                steps[index].counters.add(counter, 1);
            }
        }
    }
    ended_calls(conn, scope, bounds.history_from, bounds.to, |ended, call| {
        if let Some(index) = bounds.step_of(ended) {
            steps[index].counters.add_call(call, 1);
            steps[index].durations.add_known(call.duration_ms);
        }
    })?;
    Ok(history(bounds, &steps))
}

/// Every call of the scope that ended in a range, with what it counts for.
fn ended_calls(
    conn: &Connection,
    scope: &Scope,
    from: i64,
    to: i64,
    mut each: impl FnMut(i64, &crate::calls::Contribution),
) -> Result<(), ReadError> {
    let of = Rows::of(scope);
    let by = of.by("INDEXED BY tool_calls_at", "INDEXED BY tool_calls_ended");
    let sql = format!(
        "SELECT ended, tool_name, status, duration_ms FROM tool_calls {by}
            WHERE ended IS NOT NULL AND ended >= ?1 AND ended < ?2 AND {}",
        of.in_scope
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![from, to, of.app, of.user, of.session])?;
    while let Some(row) = rows.next()? {
        let ended = row.get(0)?;
        let status: String = row.get(2)?;
        let call = crate::calls::Contribution {
            ended,
            app: String::new(),
            user: String::new(),
            tool: row.get(1)?,
            status: crate::calls::status_of(&status),
            duration_ms: row.get(3)?,
        };
        each(ended, &call);
    }
    Ok(())
}

fn of_session(
    conn: &Connection,
    window: Window,
    session: &str,
    now: TimestampMs,
) -> Result<SummaryRows, ReadError> {
    let bounds = window.bounds(now.get());
    let previous = window.previous(now.get());
    let scope = Scope { session: Some(session.to_owned()), ..Scope::default() };
    let mut steps = empty_steps();
    let mut sum = Sum::default();
    let mut tools: BTreeMap<String, rollup::ToolSum> = BTreeMap::new();
    let mut errors = BTreeMap::new();
    session_events(conn, session, bounds.history_from.min(bounds.from), bounds.to, |event| {
        if let Some(index) = bounds.step_of(event.ts) {
            steps[index].counters.add_all(&event.counters);
        }
        if event.ts >= bounds.from {
            sum.counters.add_all(&event.counters);
            sum.latencies.add_known(event.latency_ms);
            if let Some(class) = event.error_class {
                *errors.entry(class).or_default() += 1;
            }
        }
    })?;
    ended_calls(conn, &scope, bounds.history_from.min(bounds.from), bounds.to, |ended, call| {
        if let Some(index) = bounds.step_of(ended) {
            steps[index].counters.add_call(call, 1);
            steps[index].durations.add_known(call.duration_ms);
        }
        if ended >= bounds.from {
            sum.counters.add_call(call, 1);
            sum.durations.add_known(call.duration_ms);
            let tool = tools.entry(call.tool.clone()).or_default();
            tool.counters.add_call(call, 1);
            tool.durations.add_known(call.duration_ms);
        }
    })?;
    let mut before = Counters::default();
    session_events(conn, session, previous.from, previous.to, |event| before.add_all(&event.counters))?;
    ended_calls(conn, &scope, previous.from, previous.to, |_, call| before.add_call(call, 1))?;
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

trait AddKnown {
    fn add_known(&mut self, value: Option<i64>);
}

impl AddKnown for Sketch {
    fn add_known(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            self.add(value as f64);
        }
    }
}

/// What one event of a session, or one operation of it, counts for.
struct SessionEvent {
    ts: i64,
    /// Receipt minus its own time: when it was committed is not kept per event.
    latency_ms: Option<i64>,
    counters: Counters,
    error_class: Option<String>,
}

fn session_events(
    conn: &Connection,
    session: &str,
    from: i64,
    to: i64,
    mut each: impl FnMut(SessionEvent),
) -> Result<(), ReadError> {
    let id = |ms| RowId::first_of(TimestampMs::clamped(ms)).0;
    let key = params![session, id(from), id(to)];
    let mut statement = conn.prepare_cached(
        "SELECT e.timestamp, e.received, e.flags, m.compression_events, r.error_type
            FROM events e INDEXED BY events_session
            LEFT JOIN event_metrics m ON m.event_id = e.id LEFT JOIN event_errors r ON r.event_id = e.id
            WHERE e.session_id = ?1 AND e.id >= ?2 AND e.id < ?3",
    )?;
    let mut rows = statement.query(key)?;
    while let Some(row) = rows.next()? {
        let (ts, received): (i64, i64) = (row.get(0)?, row.get(1)?);
        let mut counters = Counters::default();
        counters.set(Counter::Events, 1);
        let flags: i64 = row.get(2)?;
        counters.set(Counter::Prompts, i64::from(flags & crate::events::HUMAN_PROMPT != 0));
        counters.set(Counter::Compactions, row.get::<_, Option<i64>>(3)?.unwrap_or(0));
        each(SessionEvent {
            ts,
            latency_ms: (flags & crate::events::RECORDED == 0).then_some((received - ts).max(0)),
            counters,
            error_class: row.get(4)?,
        });
    }
    session_compactions(conn, session, from, to, &mut each)?;
    let operation = |ts, counters| SessionEvent { ts, latency_ms: None, counters, error_class: None };
    session_file_operations(conn, key, |ts, counters| each(operation(ts, counters)))?;
    session_git_operations(conn, key, |ts, counters| each(operation(ts, counters)))
}

/// Compactions that only the session's transcript tells.
fn session_compactions(
    conn: &Connection,
    session: &str,
    from: i64,
    to: i64,
    each: &mut impl FnMut(SessionEvent),
) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT m.ts FROM sessions s CROSS JOIN transcript_marks m INDEXED BY transcript_marks_session
            ON m.session = s.id WHERE s.session_id = ?1 AND m.ts >= ?2 AND m.ts < ?3 AND m.counted IS NOT NULL",
    )?;
    let mut rows = statement.query(params![session, from, to])?;
    while let Some(row) = rows.next()? {
        let mut counters = Counters::default();
        counters.set(Counter::Compactions, 1);
        each(SessionEvent { ts: row.get(0)?, latency_ms: None, counters, error_class: None });
    }
    Ok(())
}

fn session_file_operations(
    conn: &Connection,
    key: &[&dyn ToSql],
    mut each: impl FnMut(i64, Counters),
) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT f.timestamp, f.operation_type, f.lines_added, f.lines_removed
            FROM events e INDEXED BY events_session CROSS JOIN file_operations f ON f.event_id = e.id
            WHERE e.session_id = ?1 AND e.id >= ?2 AND e.id < ?3",
    )?;
    let mut rows = statement.query(key)?;
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let mut counters = Counters::default();
        let counter = match kind.as_str() {
            "read" => Counter::FilesRead,
            "write" => Counter::FilesWritten,
            "edit" => Counter::FilesEdited,
            _ => Counter::FilesDeleted,
        };
        counters.set(counter, 1);
        counters.set(Counter::LinesAdded, row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        counters.set(Counter::LinesRemoved, row.get::<_, Option<i64>>(3)?.unwrap_or(0));
        each(row.get(0)?, counters);
    }
    Ok(())
}

fn session_git_operations(
    conn: &Connection,
    key: &[&dyn ToSql],
    mut each: impl FnMut(i64, Counters),
) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT g.timestamp, g.subcommand = 'commit' AND g.commit_id IS NOT NULL, g.insertions, g.deletions
            FROM events e INDEXED BY events_session CROSS JOIN git_operations g ON g.event_id = e.id
            WHERE e.session_id = ?1 AND e.id >= ?2 AND e.id < ?3",
    )?;
    let mut rows = statement.query(key)?;
    while let Some(row) = rows.next()? {
        let mut counters = Counters::default();
        counters.set(Counter::GitOperations, 1);
        counters.set(Counter::GitCommits, row.get(1)?);
        counters.set(Counter::GitInsertions, row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        counters.set(Counter::GitDeletions, row.get::<_, Option<i64>>(3)?.unwrap_or(0));
        each(row.get(0)?, counters);
    }
    Ok(())
}

fn session_totals(conn: &Connection, scope: &Scope, bounds: Bounds) -> Result<SessionTotals, ReadError> {
    let since = bounds.to - ACTIVE_MS;
    let of = Rows::of(scope);
    let running = "(s.ended IS NULL OR s.ended < s.worked)";
    let in_scope = if of.session.is_some() {
        "?3 IS NULL AND ?4 IS NULL AND s.session_id = ?5"
    } else {
        "(?3 IS NULL OR s.source_app = ?3) AND (?4 IS NULL OR s.user = ?4) AND ?5 IS NULL"
    };
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE s.last_event >= ?6 AND {running}) FROM sessions s {}
            WHERE s.last_event >= ?1 AND s.started < ?2 AND {in_scope}",
        of.by("", "INDEXED BY sessions_last")
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
        of.by("", "INDEXED BY agents_last")
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
    let of = Rows::of(scope);
    // By time the calls of all scopes are walked, so it is their number that counts.
    let walked = match (of.session, of.app.or(of.user)) {
        (None, Some(_)) => totals_of_all(conn, bounds)?,
        _ => totals,
    };
    if walked.calls + walked.abandoned > to_i64(SWEEP_CALLS_MAX) {
        return Ok(None);
    }
    let sql = format!(
        "SELECT at, ended FROM tool_calls {by} WHERE ended IS NOT NULL AND ended >= ?1 AND at < ?2 AND {in_scope}
        UNION ALL
        SELECT at, min(?2, at + {RUNNING_MAX_MS}) FROM tool_calls INDEXED BY tool_calls_open
            WHERE rank <= 1 AND rank = 0 AND at < ?2 AND at + {RUNNING_MAX_MS} >= ?1 AND {in_scope}
        LIMIT {}",
        SWEEP_CALLS_MAX + 1,
        by = of.by("INDEXED BY tool_calls_at", "INDEXED BY tool_calls_ended"),
        in_scope = of.in_scope,
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![bounds.from, bounds.to, of.app, of.user, of.session], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let calls = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((calls.len() <= SWEEP_CALLS_MAX).then_some(calls))
}

fn totals_of_all(conn: &Connection, bounds: Bounds) -> Result<WindowTotals, ReadError> {
    let mut sum = Counters::default();
    for segment in rollup::segments(bounds.from, bounds.to) {
        rollup::scope_rows(conn, ("", ""), segment, Sketches::None, |row| {
            sum.add_all(&row.counters);
            Ok(())
        })?;
    }
    Ok(WindowTotals::of(&sum))
}

/// Time-weighted average and maximum of the calls in flight. A call that ends as another begins does not overlap it.
fn sweep(calls: &[(i64, i64)], bounds: Bounds) -> (f64, Option<i64>) {
    let mut edges = Vec::with_capacity(calls.len() * 2);
    let mut busy_ms = 0;
    for (at, ended) in calls {
        let (at, ended) = (bounds.from.max(*at), bounds.to.min(*ended));
        if at < ended {
            busy_ms += ended - at;
            edges.extend([(at, 1), (ended, -1)]);
        }
    }
    edges.sort_unstable();
    let (mut flying, mut most) = (0, 0);
    for (_, change) in edges {
        flying += change;
        most = most.max(flying);
    }
    (busy_ms as f64 / (bounds.to - bounds.from).max(1) as f64, Some(most))
}
