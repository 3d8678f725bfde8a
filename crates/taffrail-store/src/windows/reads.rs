//! The reads themselves.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use taffrail_analytics::{Bounds, Resolution, Window};

use super::cells::Cell;
use super::read::{self, Needs, Spans};
use super::rows::{self, RowFilter};
use super::types::{
    AgentStats, CallTotals, Family as Of, Figure, Figures, GroupBy, HeatmapCell, HeatmapRows, HeatmapTool,
    Metric, Part, Series, SeriesQuery, SeriesRows, Subject, ToolStats, ToolsRows,
};
use crate::error::ReadError;
use crate::filter::Scope;
use crate::ledger::{CostBy, CostRow};
use crate::rollup::{self, CallSum, Counter, Counters, Family, OTHER, Sketches, State};
use crate::summary::Quantiles;
use crate::{
    GROUPS_READ_MAX, HEATMAP_TOOLS_MAX, HISTORY_STEPS, SERIES_GROUPS_MAX, SERIES_ROWS_MAX, TOOLS_MAX,
};

/// Weekdays times hours.
const WEEK_CELLS: usize = 7 * 24;
const HOUR_MS: i64 = 3_600_000;
/// 1970-01-01 was a Thursday, the fourth day of a week that begins on Monday.
const EPOCH_WEEKDAY: i64 = 3;

pub(crate) fn figures(
    conn: &Connection,
    window: Window,
    subject: &Subject,
    now: i64,
) -> Result<Figures, ReadError> {
    let (bounds, previous) = (window.bounds(now), window.previous(now));
    let cells = read::cells(conn, subject, window, now, Needs::ALL)?;
    let has_ledger = has_ledger(conn)?;
    let figure = |metric: Metric| {
        let family = metric.family();
        if !read::has(subject, family)
            || (family == Of::Requests && !has_ledger)
            || (metric == Metric::GitBranches && subject.part != Part::Whole)
        {
            return Figure::default();
        }
        let value = cells.total.value(metric, bounds.to - bounds.from);
        let before = cells.previous.value(metric, previous.to - previous.from);
        Figure {
            value,
            previous: before,
            trend_percent: trend(value, before),
            history: cells.steps.iter().map(|cell| cell.value(metric, bounds.step)).collect(),
        }
    };
    Ok(Figures {
        from_ms: bounds.from,
        to_ms: bounds.to,
        t_ms: bounds.steps().collect(),
        figures: Metric::ALL.iter().map(|metric| (*metric, figure(*metric))).collect(),
    })
}

/// (value - before) / before * 100; none where before is none or 0.
fn trend(value: Option<f64>, before: Option<f64>) -> Option<f64> {
    value
        .zip(before)
        .filter(|(_, before)| *before != 0.0)
        .map(|(value, before)| (value - before) / before * 100.0)
}

/// Whether the ledger has had a request.
fn has_ledger(conn: &Connection) -> Result<bool, ReadError> {
    Ok(conn.prepare_cached("SELECT 1 FROM ledger_settings WHERE key = 'priced_by'")?.exists([])?)
}

/// A group's cells.
struct Group {
    total: Cell,
    steps: Vec<Cell>,
}

impl Default for Group {
    fn default() -> Self {
        Self { total: Cell::default(), steps: vec![Cell::default(); HISTORY_STEPS] }
    }
}

impl Group {
    fn merge(&mut self, other: &Self) {
        self.total.merge(&other.total);
        self.steps.iter_mut().zip(&other.steps).for_each(|(own, other)| own.merge(other));
    }
}

type Groups = BTreeMap<String, Group>;

pub(crate) fn series(conn: &Connection, query: &SeriesQuery, now: i64) -> Result<SeriesRows, ReadError> {
    let bounds = query.window.bounds(now);
    let mut answer =
        SeriesRows { t_ms: bounds.steps().collect(), step_ms: bounds.step, ..SeriesRows::default() };
    let family = query.metric.family();
    if !read::has(&query.subject, family) || (family == Of::Requests && !has_ledger(conn)?) {
        return Ok(answer);
    }
    let mut groups = Groups::new();
    match query.group_by {
        GroupBy::None => {
            let needs = Needs::of(query.metric);
            let cells = read::cells(conn, &query.subject, query.window, now, needs)?;
            let group = Group { total: cells.total, steps: cells.steps };
            groups.insert(query.metric.name().to_owned(), group);
        }
        by if family == Of::Requests => groups = request_groups(conn, query, by, bounds)?,
        GroupBy::App | GroupBy::User => groups = scope_groups(conn, query, now)?,
        by @ (GroupBy::Tool | GroupBy::Agent) if family == Of::Calls => {
            (groups, answer.rows_cut) = call_groups(conn, query, by, now)?;
        }
        // Events are summed up by no tool, agent or model.
        GroupBy::Tool | GroupBy::Agent | GroupBy::Model => return Ok(answer),
    }
    let ranked = rank(groups, query.metric);
    let mut rest: Option<Group> = None;
    let mut kept = Vec::new();
    for (name, group) in ranked {
        if name != OTHER && kept.len() < SERIES_GROUPS_MAX {
            kept.push((name, group));
            continue;
        }
        answer.groups_cut += 1;
        match &mut rest {
            Some(rest) => rest.merge(&group),
            None => rest = Some(group),
        }
    }
    kept.extend(rest.map(|rest| (OTHER.to_owned(), rest)));
    let span = bounds.to - bounds.from;
    answer.series = kept
        .into_iter()
        .map(|(name, group)| Series {
            name,
            values: group.steps.iter().map(|cell| cell.value(query.metric, bounds.step)).collect(),
            total: group.total.value(query.metric, span),
        })
        .collect();
    Ok(answer)
}

/// Largest first: by calls, else events, else tokens; a group without anything is none.
fn rank(groups: Groups, metric: Metric) -> Vec<(String, Group)> {
    let size = |cell: &Cell| match metric.family() {
        Of::Calls => cell.counters.get(Counter::Calls).saturating_add(cell.counters.get(Counter::Abandoned)),
        Of::Events => cell.counters.get(Counter::Events),
        Of::Requests => i64::try_from(cell.money.usage.total()).unwrap_or(i64::MAX),
    };
    let is_alone = groups.len() == 1;
    let mut ranked: Vec<_> = groups
        .into_iter()
        .filter(|(_, group)| is_alone || group.steps.iter().chain([&group.total]).any(|cell| size(cell) > 0))
        .collect();
    ranked.sort_by(|(a, x), (b, y)| size(&y.total).cmp(&size(&x.total)).then_with(|| a.cmp(b)));
    ranked
}

/// By tool or type of agent.
fn call_groups(
    conn: &Connection,
    query: &SeriesQuery,
    by: GroupBy,
    now: i64,
) -> Result<(Groups, bool), ReadError> {
    let bounds = query.window.bounds(now);
    let mut groups = Groups::new();
    let subject = &query.subject;
    let is_fine = query.window.history_resolution() == Resolution::Fine;
    if subject.scope.session.is_some() || subject.part != Part::Whole || is_fine {
        let filter = read::filter_of(subject);
        let limit = filter.session.is_none().then_some(SERIES_ROWS_MAX);
        let from = bounds.from.min(bounds.history_from);
        let cut = rows::each_call(conn, &filter, (from, bounds.to), limit, |call| {
            let name = if by == GroupBy::Tool { &call.tool } else { &call.agent };
            let group = groups.entry(name.clone()).or_default();
            if call.ended >= bounds.from {
                group.total.add_call(call);
            }
            if let Some(step) = bounds.step_of(call.ended) {
                group.steps[step].add_call(call);
            }
        })?;
        return Ok((groups, cut));
    }
    let family = if by == GroupBy::Tool { Family::Tool } else { Family::Agent };
    let sketches = if Needs::of(query.metric).sketches { Sketches::Durations } else { Sketches::None };
    let key = read::scope_key(subject);
    let add = |groups: &mut Groups, row: &rollup::Row<'_>, step: Option<usize>| {
        let group = match groups.get_mut(row.name) {
            Some(group) => group,
            None => groups.entry(row.name.to_owned()).or_default(),
        };
        match step {
            Some(step) => group.steps[step].add_row(row),
            None => group.total.add_row(row),
        }
    };
    for segment in rollup::segments(bounds.from, bounds.to, &State::read(conn)?) {
        rollup::rows(conn, family, key, None, segment, sketches, |row| add(&mut groups, &row, None))?;
    }
    let segment = rollup::segment(query.window.history_resolution(), bounds.history_from, bounds.to);
    rollup::rows(conn, family, key, None, segment, sketches, |row| {
        bounds.step_of(row.bucket).map_or(Ok(()), |step| add(&mut groups, &row, Some(step)))
    })?;
    Ok((groups, false))
}

/// By app or user: each has rows of its own.
fn scope_groups(conn: &Connection, query: &SeriesQuery, now: i64) -> Result<Groups, ReadError> {
    let mut groups = Groups::new();
    let subject = &query.subject;
    if subject.scope.session.is_some() {
        return Ok(groups);
    }
    let is_app = query.group_by == GroupBy::App;
    let wanted = if is_app { &subject.scope.app } else { &subject.scope.user };
    let names = match wanted {
        Some(name) => vec![name.clone()],
        None => scope_names(conn, is_app, query.window.previous(now).from)?,
    };
    // A group's own flights would be looked for among the calls of all.
    let needs = Needs { flights: false, ..Needs::of(query.metric) };
    for name in names {
        let mut scope = subject.scope.clone();
        *(if is_app { &mut scope.app } else { &mut scope.user }) = Some(name.clone());
        let of = Subject { scope, part: subject.part.clone() };
        let cells = read::cells(conn, &of, query.window, now, needs)?;
        groups.insert(name, Group { total: cells.total, steps: cells.steps });
    }
    Ok(groups)
}

/// Apps or users with a session since then, by the newest, at most [`GROUPS_READ_MAX`].
fn scope_names(conn: &Connection, is_app: bool, since: i64) -> Result<Vec<String>, ReadError> {
    let column = if is_app { "source_app" } else { "user" };
    let sql = format!(
        "SELECT {column} FROM sessions INDEXED BY sessions_last WHERE last_event >= ?1 AND coalesce({column}, '') <> ''
            GROUP BY {column} ORDER BY max(last_event) DESC LIMIT ?2"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows =
        statement.query_map(params![since, crate::events::to_i64(GROUPS_READ_MAX)], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Requests by app, user, model or type of agent.
fn request_groups(
    conn: &Connection,
    query: &SeriesQuery,
    by: GroupBy,
    bounds: Bounds,
) -> Result<Groups, ReadError> {
    let mut groups = Groups::new();
    if by == GroupBy::Tool {
        return Ok(groups);
    }
    let keys = CostBy {
        app: by == GroupBy::App,
        user: by == GroupBy::User,
        model: by == GroupBy::Model,
        agent: by == GroupBy::Agent || matches!(query.subject.part, Part::Agent(_)),
        ..CostBy::default()
    };
    let wanted = |row: &CostRow| match &query.subject.part {
        Part::Agent(agent) => row.agent.as_deref() == Some(agent),
        _ => true,
    };
    let name = |row: CostRow| {
        let name = match by {
            GroupBy::App => row.app,
            GroupBy::User => row.user,
            GroupBy::Model => row.model,
            _ => row.agent,
        };
        name.unwrap_or_default()
    };
    let costs = read::cost_query(&query.subject);
    for row in read::costs(conn, &costs, &keys, (bounds.from, bounds.to), &[])?.into_iter().filter(wanted) {
        let totals = row.totals;
        groups.entry(name(row)).or_default().total.money.add(&totals);
    }
    let span = (bounds.history_from, bounds.to);
    for row in read::costs(conn, &costs, &keys, span, &read::step_cuts(bounds))?.into_iter().filter(wanted) {
        let (totals, bucket) = (row.totals, row.bucket);
        let group = groups.entry(name(row)).or_default();
        if let Some(step) = group.steps.get_mut(bucket) {
            step.money.add(&totals);
        }
    }
    Ok(groups)
}

/// Sums of one row of a heatmap.
#[derive(Clone)]
struct HeatRow {
    calls: i64,
    cells: Vec<Counters>,
}

impl Default for HeatRow {
    fn default() -> Self {
        Self { calls: 0, cells: vec![Counters::default(); HISTORY_STEPS] }
    }
}

impl HeatRow {
    fn add(&mut self, step: usize, counters: &Counters) {
        self.calls = self.calls.saturating_add(counters.get(Counter::Calls));
        self.cells[step].add_all(counters);
    }
}

pub(crate) fn heatmap(
    conn: &Connection,
    window: Window,
    scope: &Scope,
    now: i64,
) -> Result<HeatmapRows, ReadError> {
    let bounds = window.bounds(now);
    let mut sums: BTreeMap<String, HeatRow> = BTreeMap::new();
    let mut answer =
        HeatmapRows { t_ms: bounds.steps().collect(), step_ms: bounds.step, ..HeatmapRows::default() };
    let subject = Subject { scope: scope.clone(), part: Part::Whole };
    let mut week = (window >= Window::H24).then(|| vec![Counters::default(); WEEK_CELLS]);
    if scope.session.is_some() || window.history_resolution() == Resolution::Fine {
        let filter = RowFilter::of(scope);
        let limit = filter.session.is_none().then_some(SERIES_ROWS_MAX);
        let from = bounds.history_from.min(bounds.from);
        answer.rows_cut = rows::each_call(conn, &filter, (from, bounds.to), limit, |call| {
            let mut counters = Counters::default();
            counters.add_call(call, 1);
            if let Some(step) = bounds.step_of(call.ended) {
                sums.entry(call.tool.clone()).or_default().add(step, &counters);
            }
            if let (Some(week), true) = (&mut week, call.ended >= bounds.from) {
                week[hour_of_week(call.ended)].add_all(&counters);
            }
        })?;
    } else {
        let key = read::scope_key(&subject);
        let segment = rollup::segment(window.history_resolution(), bounds.history_from, bounds.to);
        rollup::rows(conn, Family::Tool, key, None, segment, Sketches::None, |row| {
            if let Some(step) = bounds.step_of(row.bucket) {
                match sums.get_mut(row.name) {
                    Some(sum) => sum.add(step, &row.counters),
                    None => sums.entry(row.name.to_owned()).or_default().add(step, &row.counters),
                }
            }
            Ok(())
        })?;
        if let Some(week) = &mut week {
            let hours = rollup::segments(bounds.from, bounds.to, &State::NO_DAYS);
            for segment in hours {
                rollup::rows(conn, Family::Scope, key, None, segment, Sketches::None, |row| {
                    week[hour_of_week(row.bucket)].add_all(&row.counters);
                    Ok(())
                })?;
            }
        }
    }
    let mut rows: Vec<_> = sums.into_iter().filter(|(_, row)| row.calls > 0).collect();
    rows.sort_by(|(a, x), (b, y)| (a == OTHER).cmp(&(b == OTHER)).then(y.calls.cmp(&x.calls)).then(a.cmp(b)));
    let keep = rows.iter().take_while(|(name, _)| name != OTHER).count().min(HEATMAP_TOOLS_MAX);
    let mut rest = HeatRow::default();
    for (_, row) in rows.split_off(keep) {
        answer.tools_cut += 1;
        row.cells.iter().enumerate().for_each(|(step, counters)| rest.add(step, counters));
    }
    if answer.tools_cut > 0 {
        rows.push((OTHER.to_owned(), rest));
    }
    let cells = |cells: &[Counters]| cells.iter().map(heat_cell).collect();
    answer.tools = rows
        .iter()
        .map(|(name, row)| HeatmapTool { tool_name: name.clone(), cells: cells(&row.cells) })
        .collect();
    answer.week = week.map(|week| cells(&week));
    Ok(answer)
}

fn heat_cell(counters: &Counters) -> HeatmapCell {
    let count = counters.get(Counter::DurationCount);
    HeatmapCell {
        calls: counters.get(Counter::Calls),
        failed: counters.get(Counter::Failed),
        execution_ms_avg: (count > 0).then(|| counters.get(Counter::DurationSum) as f64 / count as f64),
    }
}

/// Monday 0:00 UTC is 0.
fn hour_of_week(ms: i64) -> usize {
    let hours = ms.div_euclid(HOUR_MS);
    let weekday = (hours.div_euclid(24) + EPOCH_WEEKDAY).rem_euclid(7);
    usize::try_from(weekday * 24 + hours.rem_euclid(24)).unwrap_or(0)
}

/// Sums by name in a window, and calls in the window before.
struct Named {
    now: BTreeMap<String, CallSum>,
    before: BTreeMap<String, CallSum>,
}

fn named(conn: &Connection, family: Family, scope: &Scope, spans: Spans) -> Result<Named, ReadError> {
    let mut named = Named { now: BTreeMap::new(), before: BTreeMap::new() };
    let (bounds, previous) = (spans.bounds, spans.previous);
    if scope.session.is_some() {
        rows::each_call(conn, &RowFilter::of(scope), (previous.from, bounds.to), None, |call| {
            let name = if family == Family::Tool { &call.tool } else { &call.agent };
            let sums = if call.ended >= bounds.from { &mut named.now } else { &mut named.before };
            let sum = sums.entry(name.clone()).or_default();
            sum.counters.add_call(call, 1);
            if let Some(ms) = call.known_ms() {
                sum.durations.add(ms as f64);
            }
        })?;
        return Ok(named);
    }
    let key = (scope.app.as_deref().unwrap_or(""), scope.user.as_deref().unwrap_or(""));
    let state = State::read(conn)?;
    for segment in rollup::segments(bounds.from, bounds.to, &state) {
        rollup::add_named(conn, family, key, segment, Sketches::Durations, &mut named.now)?;
    }
    for segment in rollup::segments(previous.from, previous.to, &state) {
        rollup::add_named(conn, family, key, segment, Sketches::None, &mut named.before)?;
    }
    Ok(named)
}

fn call_totals(c: &Counters) -> CallTotals {
    CallTotals {
        ended: c.get(Counter::Calls),
        succeeded: c.get(Counter::Succeeded),
        failed: c.get(Counter::Failed),
        denied: c.get(Counter::Denied),
        interrupted: c.get(Counter::Interrupted),
        abandoned: c.get(Counter::Abandoned),
        duration_ms_sum: c.get(Counter::DurationSum),
        duration_count: c.get(Counter::DurationCount),
    }
}

fn share(part: i64, whole: i64) -> f64 {
    if whole > 0 { part as f64 / whole as f64 * 100.0 } else { 0.0 }
}

pub(crate) fn tools(
    conn: &Connection,
    window: Window,
    scope: &Scope,
    now: i64,
) -> Result<ToolsRows, ReadError> {
    let spans = Spans { bounds: window.bounds(now), previous: window.previous(now) };
    let named = named(conn, Family::Tool, scope, spans)?;
    let calls = named.now.values().map(|sum| sum.counters.get(Counter::Calls)).sum();
    let subject = Subject { scope: scope.clone(), part: Part::Whole };
    let query = SeriesQuery { metric: Metric::Calls, window, group_by: GroupBy::Tool, subject };
    let (steps, _) = call_groups(conn, &query, GroupBy::Tool, now)?;
    let mut tools: Vec<ToolStats> = named
        .now
        .iter()
        .filter(|(_, sum)| sum.counters.get(Counter::Calls) + sum.counters.get(Counter::Abandoned) > 0)
        .map(|(name, sum)| {
            let totals = call_totals(&sum.counters);
            let previous = named.before.get(name).map_or(0, |sum| sum.counters.get(Counter::Calls));
            let history =
                |cells: &Group| cells.steps.iter().map(|cell| cell.counters.get(Counter::Calls)).collect();
            ToolStats {
                tool_name: name.clone(),
                calls: totals,
                share_percent: share(totals.ended, calls),
                execution_ms: Quantiles::of_calls(&sum.counters, &sum.durations),
                previous_calls: previous,
                trend_percent: trend(Some(totals.ended as f64), Some(previous as f64)),
                history: steps.get(name).map_or_else(|| vec![0; HISTORY_STEPS], history),
            }
        })
        .collect();
    tools.sort_by(|a, b| b.calls.ended.cmp(&a.calls.ended).then_with(|| a.tool_name.cmp(&b.tool_name)));
    let tools_cut = tools.len().saturating_sub(TOOLS_MAX);
    tools.truncate(TOOLS_MAX);
    Ok(ToolsRows { tools, tools_cut, calls })
}

pub(crate) fn agent_stats(
    conn: &Connection,
    window: Window,
    scope: &Scope,
    now: i64,
) -> Result<Vec<AgentStats>, ReadError> {
    let spans = Spans { bounds: window.bounds(now), previous: window.previous(now) };
    let named = named(conn, Family::Agent, scope, spans)?;
    let calls = named.now.values().map(|sum| sum.counters.get(Counter::Calls)).sum();
    let mut stats: BTreeMap<String, AgentStats> = BTreeMap::new();
    for (name, sum) in &named.now {
        let totals = call_totals(&sum.counters);
        let agent = AgentStats {
            calls: totals,
            share_percent: share(totals.ended, calls),
            execution_ms: Quantiles::of_calls(&sum.counters, &sum.durations),
            previous_calls: named.before.get(name).map_or(0, |sum| sum.counters.get(Counter::Calls)),
            ..AgentStats::default()
        };
        stats.insert(name.clone(), agent);
    }
    for (name, count) in agents_seen(conn, scope, spans.bounds)? {
        stats.entry(name).or_default().agents = count;
    }
    let query = read::cost_query(&Subject { scope: scope.clone(), part: Part::Whole });
    let by = CostBy { agent: true, ..CostBy::default() };
    for row in read::costs(conn, &query, &by, (spans.bounds.from, spans.bounds.to), &[])? {
        let agent = stats.entry(row.agent.unwrap_or_default()).or_default();
        agent.requests += row.totals.requests;
        agent.tokens = agent.tokens.saturating_add_unsigned(row.totals.usage.total());
        if row.totals.requests > 0 || row.totals.cost_nano_usd != 0 {
            agent.cost_nano_usd = match (agent.cost_nano_usd, row.totals.known_cost_nano_usd()) {
                (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
                (sum, more) => sum.or(more),
            };
        }
    }
    let mut stats: Vec<AgentStats> =
        stats.into_iter().map(|(agent_type, agent)| AgentStats { agent_type, ..agent }).collect();
    stats.retain(|a| {
        a.agents > 0 || a.requests > 0 || a.calls.ended > 0 || a.calls.abandoned > 0 || a.tokens > 0
    });
    stats.sort_by(|a, b| b.calls.ended.cmp(&a.calls.ended).then_with(|| a.agent_type.cmp(&b.agent_type)));
    Ok(stats)
}

/// Agents of each type with an event in the window.
fn agents_seen(conn: &Connection, scope: &Scope, bounds: Bounds) -> Result<Vec<(String, i64)>, ReadError> {
    let (by, in_scope) = match &scope.session {
        Some(_) => ("", "?3 IS NULL AND ?4 IS NULL AND a.session_id = ?5"),
        None => (
            "INDEXED BY agents_last",
            "(?3 IS NULL OR s.source_app = ?3) AND (?4 IS NULL OR s.user = ?4) AND ?5 IS NULL",
        ),
    };
    let (app, user) = match &scope.session {
        Some(_) => (None, None),
        None => (scope.app.as_deref(), scope.user.as_deref()),
    };
    let join =
        if app.is_some() || user.is_some() { "JOIN sessions s ON s.session_id = a.session_id" } else { "" };
    let in_scope = if join.is_empty() && scope.session.is_none() {
        "?3 IS NULL AND ?4 IS NULL AND ?5 IS NULL"
    } else {
        in_scope
    };
    let sql = format!(
        "SELECT CASE WHEN a.agent_id = '' THEN 'main' ELSE coalesce(nullif(a.agent_type, ''), 'subagent') END, count(*)
            FROM agents a {by} {join} WHERE a.last_event >= ?1 AND a.started < ?2 AND {in_scope} GROUP BY 1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![bounds.from, bounds.to, app, user, scope.session], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
