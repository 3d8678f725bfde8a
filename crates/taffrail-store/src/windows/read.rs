//! Reading the cells of a subject: from rollups, or from rows where those cannot tell.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use taffrail_analytics::window::HISTORY_STEPS;
use taffrail_analytics::{Bounds, Resolution, Sketch, Window};
use taffrail_event::{RowId, TimestampMs};

use super::cells::Cell;
use super::rows::{self, RowFilter};
use super::types::{Family as Of, Metric, Part, Subject};
use crate::error::ReadError;
use crate::ledger::{self, CostBy, CostQuery, CostRow, CostTotals, QUARTER_MS, SPILL_MS};
use crate::rollup::{self, Family, Sketches, State};
use crate::{REQUEST_ROWS_MAX, SWEEP_CALLS_MAX};

/// What has to be read for some metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) calls: bool,
    pub(crate) events: bool,
    pub(crate) sketches: bool,
    pub(crate) branches: bool,
    pub(crate) flights: bool,
    pub(crate) requests: bool,
    pub(crate) request_ms: bool,
}

impl Needs {
    pub(crate) const ALL: Self = Self {
        calls: true,
        events: true,
        sketches: true,
        branches: true,
        flights: true,
        requests: true,
        request_ms: true,
    };

    /// What that metric needs.
    pub(crate) const fn of(metric: Metric) -> Self {
        use Metric as M;
        let family = metric.family();
        Self {
            calls: matches!(family, Of::Calls),
            events: matches!(family, Of::Events),
            sketches: matches!(
                metric,
                M::ExecutionMsP50
                    | M::ExecutionMsP95
                    | M::ExecutionMsP99
                    | M::LatencyMsAvg
                    | M::LatencyMsP50
                    | M::LatencyMsP95
                    | M::LatencyMsP99
            ),
            branches: matches!(metric, M::GitBranches),
            flights: matches!(metric, M::ConcurrencyAvg | M::ConcurrencyMax),
            requests: matches!(family, Of::Requests),
            request_ms: matches!(metric, M::RequestMsAvg | M::RequestMsP95),
        }
    }
}

/// Whether the subject can have metrics of that family.
pub(crate) fn has(subject: &Subject, family: Of) -> bool {
    match (&subject.part, family) {
        (Part::Whole, _) => true,
        (Part::Tool(_), family) => family == Of::Calls,
        // One agent of a session has its own events; of a type of agents only calls are summed up.
        (Part::Agent(_), Of::Events) => subject.scope.session.is_some(),
        (Part::Agent(_), _) => true,
        (Part::Model(_), family) => family == Of::Requests,
    }
}

/// A subject in a window: as a whole, in the window before, and per step.
pub(crate) struct Cells {
    pub(crate) total: Cell,
    pub(crate) previous: Cell,
    pub(crate) steps: Vec<Cell>,
}

impl Cells {
    pub(crate) fn empty() -> Self {
        Self {
            total: Cell::default(),
            previous: Cell::default(),
            steps: vec![Cell::default(); HISTORY_STEPS],
        }
    }
}

/// The rows of a part of a scope.
pub(crate) fn filter_of(subject: &Subject) -> RowFilter<'_> {
    let mut filter = RowFilter::of(&subject.scope);
    match &subject.part {
        Part::Tool(tool) => filter.tool = Some(tool),
        Part::Agent(agent) if filter.session.is_some() => filter.agent_id = Some(agent_id(agent)),
        Part::Agent(agent) => filter.agent_type = Some(agent),
        Part::Whole | Part::Model(_) => {}
    }
    filter
}

/// Main agents have no id.
fn agent_id(agent: &str) -> &str {
    if agent == "main" { "" } else { agent }
}

pub(crate) fn scope_key(subject: &Subject) -> (&str, &str) {
    (subject.scope.app.as_deref().unwrap_or(""), subject.scope.user.as_deref().unwrap_or(""))
}

/// Everything that `needs` ask for and the subject can have.
pub(crate) fn cells(
    conn: &Connection,
    subject: &Subject,
    window: Window,
    now: i64,
    needs: Needs,
) -> Result<Cells, ReadError> {
    let mut cells = Cells::empty();
    let has_calls = has(subject, Of::Calls) && needs.calls;
    let has_events = has(subject, Of::Events) && needs.events;
    let spans = Spans { bounds: window.bounds(now), previous: window.previous(now) };
    if has_calls || has_events {
        match subject.scope.session {
            Some(_) => from_rows(conn, subject, spans, &mut cells, (has_calls, has_events))?,
            None => from_rollups(conn, subject, (window, spans), &mut cells, needs)?,
        }
    }
    if has_calls && needs.flights {
        add_flights(conn, subject, spans, &mut cells)?;
    }
    if has(subject, Of::Requests) && (needs.requests || needs.request_ms) {
        add_money(conn, subject, spans, &mut cells, needs.request_ms)?;
    }
    Ok(cells)
}

/// A window and the one before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spans {
    pub(crate) bounds: Bounds,
    pub(crate) previous: Bounds,
}

impl Spans {
    /// The cells in which a moment counts.
    fn each(&self, cells: &mut Cells, ts: i64, mut add: impl FnMut(&mut Cell)) {
        let Bounds { from, to, .. } = self.bounds;
        if ts >= from && ts < to {
            add(&mut cells.total);
        } else if ts >= self.previous.from && ts < self.previous.to {
            add(&mut cells.previous);
        }
        if let (Some(step), true) = (self.bounds.step_of(ts), ts < to) {
            add(&mut cells.steps[step]);
        }
    }
}

fn from_rows(
    conn: &Connection,
    subject: &Subject,
    spans: Spans,
    cells: &mut Cells,
    (calls, events): (bool, bool),
) -> Result<(), ReadError> {
    let filter = filter_of(subject);
    let (from, to) = (spans.previous.from.min(spans.bounds.history_from), spans.bounds.to);
    if events {
        rows::each_event(conn, &filter, from, to, |event| {
            spans.each(cells, event.ts, |cell| cell.add_event(&event));
        })?;
    }
    if calls {
        rows::each_call(conn, &filter, (from, to), None, |call| {
            spans.each(cells, call.ended, |cell| cell.add_call(call));
        })?;
    }
    Ok(())
}

fn from_rollups(
    conn: &Connection,
    subject: &Subject,
    (window, spans): (Window, Spans),
    cells: &mut Cells,
    needs: Needs,
) -> Result<(), ReadError> {
    let (family, name) = match &subject.part {
        Part::Tool(tool) => (Family::Tool, Some(tool.as_str())),
        Part::Agent(agent) => (Family::Agent, Some(agent.as_str())),
        Part::Whole | Part::Model(_) => (Family::Scope, None),
    };
    let key = scope_key(subject);
    let sketches = if needs.sketches { Sketches::Both } else { Sketches::None };
    let state = State::read(conn)?;
    let branches = needs.branches && family == Family::Scope;
    for (cell, span) in [(&mut cells.total, spans.bounds), (&mut cells.previous, spans.previous)] {
        for segment in rollup::segments(span.from, span.to, &state) {
            rollup::rows(conn, family, key, name, segment, sketches, |row| cell.add_row(&row))?;
            if branches {
                rollup::add_branches(conn, key, segment, &mut cell.branches)?;
            }
        }
    }
    let bounds = spans.bounds;
    let resolution = window.history_resolution();
    let is_fine = resolution == Resolution::Fine;
    if is_fine && (family != Family::Scope || branches || bounds.history_from < state.fine_since) {
        let filter = filter_of(subject);
        if family == Family::Scope {
            rows::each_event(conn, &filter, bounds.history_from, bounds.to, |event| {
                if let Some(step) = bounds.step_of(event.ts) {
                    cells.steps[step].add_event(&event);
                }
            })?;
        }
        rows::each_call(conn, &filter, (bounds.history_from, bounds.to), None, |call| {
            if let Some(step) = bounds.step_of(call.ended) {
                cells.steps[step].add_call(call);
            }
        })?;
        return Ok(());
    }
    let segment = rollup::segment(resolution, bounds.history_from, bounds.to);
    rollup::rows(conn, family, key, name, segment, sketches, |row| {
        bounds.step_of(row.bucket).map_or(Ok(()), |step| cells.steps[step].add_row(&row))
    })?;
    if branches {
        rollup::each_branch(conn, key, segment, |bucket, branch| {
            if let Some(step) = bounds.step_of(bucket) {
                cells.steps[step].branches.insert(branch.to_owned());
            }
        })?;
    }
    Ok(())
}

fn add_flights(
    conn: &Connection,
    subject: &Subject,
    spans: Spans,
    cells: &mut Cells,
) -> Result<(), ReadError> {
    let filter = filter_of(subject);
    let (bounds, previous) = (spans.bounds, spans.previous);
    for (span, is_now) in [((bounds.from, bounds.to), true), ((previous.from, previous.to), false)] {
        // Whatever ended since then is walked: what was in flight at the end of the span ended after it.
        if filter.session.is_none() && calls_of_all(conn, (span.0, bounds.to))? > SWEEP_CALLS_MAX {
            continue;
        }
        let Some(flights) = rows::flights(conn, &filter, span, SWEEP_CALLS_MAX)? else { continue };
        let total = rows::sweep(&flights, span.0, span.1);
        if !is_now {
            cells.previous.flights = Some(total);
            continue;
        }
        cells.total.flights = Some(total);
        for (start, cell) in bounds.steps().zip(&mut cells.steps) {
            cell.flights = Some(rows::sweep(&flights, start, (start + bounds.step).min(bounds.to)));
        }
    }
    Ok(())
}

/// How many calls ended in a span, of all scopes: by time all of them would be walked.
fn calls_of_all(conn: &Connection, (from, to): (i64, i64)) -> Result<usize, ReadError> {
    let mut sum = rollup::Counters::default();
    for segment in rollup::segments(from, to, &State::read(conn)?) {
        rollup::rows(conn, Family::Scope, ("", ""), None, segment, Sketches::None, |row| {
            sum.add_all(&row.counters);
            Ok(())
        })?;
    }
    let ended = sum.get(rollup::Counter::Calls) + sum.get(rollup::Counter::Abandoned);
    Ok(usize::try_from(ended).unwrap_or(0))
}

/// The query of a subject's requests.
pub(crate) fn cost_query(subject: &Subject) -> CostQuery {
    let model = match &subject.part {
        Part::Model(model) => Some(model.clone()),
        _ => None,
    };
    CostQuery { scope: subject.scope.clone(), model, ..CostQuery::default() }
}

fn add_money(
    conn: &Connection,
    subject: &Subject,
    spans: Spans,
    cells: &mut Cells,
    with_durations: bool,
) -> Result<(), ReadError> {
    if subject.scope.session.is_some() {
        return add_session_money(conn, subject, spans, cells);
    }
    let query = cost_query(subject);
    let by_agent = match &subject.part {
        Part::Agent(agent) => Some(agent.as_str()),
        _ => None,
    };
    let is_of = |row: &CostRow| by_agent.is_none_or(|agent| row.agent.as_deref() == Some(agent));
    let by = CostBy { agent: by_agent.is_some(), ..CostBy::default() };
    let (bounds, previous) = (spans.bounds, spans.previous);
    for (cell, span) in [(&mut cells.total, bounds), (&mut cells.previous, previous)] {
        for row in costs(conn, &query, &by, (span.from, span.to), &[])?.iter().filter(|row| is_of(row)) {
            cell.money.add(&row.totals);
        }
    }
    for row in costs(conn, &query, &by, (bounds.history_from, bounds.to), &step_cuts(bounds))? {
        if let Some(step) = cells.steps.get_mut(row.bucket).filter(|_| is_of(&row)) {
            step.money.add(&row.totals);
        }
    }
    let requests = cells.total.money.requests.saturating_add(cells.previous.money.requests);
    if with_durations && requests <= i64::try_from(REQUEST_ROWS_MAX).unwrap_or(i64::MAX) {
        add_request_durations(conn, &query, by_agent, spans, cells)?;
    }
    Ok(())
}

/// Of a session the rows themselves are read: they tell agents apart, and durations.
fn add_session_money(
    conn: &Connection,
    subject: &Subject,
    spans: Spans,
    cells: &mut Cells,
) -> Result<(), ReadError> {
    let from = spans.previous.from.min(spans.bounds.history_from);
    let ms = TimestampMs::clamped;
    let query = CostQuery { from: Some(ms(from)), to: Some(ms(spans.bounds.to)), ..cost_query(subject) };
    let agent = match &subject.part {
        Part::Agent(agent) => Some(agent_id(agent)),
        _ => None,
    };
    for cell in [&mut cells.total, &mut cells.previous].into_iter().chain(&mut cells.steps) {
        cell.requests = Some(Sketch::new());
    }
    ledger::each_request(conn, &query, &mut |row| {
        if agent.is_some_and(|agent| row.agent_id.as_deref().unwrap_or("") != agent) {
            return;
        }
        let totals = CostTotals::of_row(row);
        spans.each(cells, row.ts.get(), |cell| {
            cell.money.add(&totals);
            add_duration(cell, row.duration_ms);
        });
    })
}

fn add_duration(cell: &mut Cell, duration_ms: Option<i64>) {
    if let (Some(sketch), Some(ms)) = (&mut cell.requests, duration_ms) {
        sketch.add(ms as f64);
    }
}

fn add_request_durations(
    conn: &Connection,
    query: &CostQuery,
    agent: Option<&str>,
    spans: Spans,
    cells: &mut Cells,
) -> Result<(), ReadError> {
    let id = |ms: i64| RowId::first_of(TimestampMs::clamped(ms)).0;
    let from = spans.previous.from.min(spans.bounds.history_from);
    for cell in [&mut cells.total, &mut cells.previous].into_iter().chain(&mut cells.steps) {
        cell.requests = Some(Sketch::new());
    }
    let mut statement = conn.prepare_cached(
        "SELECT r.ts, r.duration FROM api_requests r NOT INDEXED CROSS JOIN sessions s ON s.id = r.session
            WHERE r.id >= ?1 AND r.id < ?2 AND r.duration IS NOT NULL
            AND (?3 IS NULL OR s.ledger_app = ?3) AND (?4 IS NULL OR s.ledger_user = ?4)
            AND (?5 IS NULL OR r.model = (SELECT id FROM names WHERE name = ?5))
            AND (?6 IS NULL OR r.agent = (SELECT id FROM names WHERE name = ?6))",
    )?;
    let mut rows = statement.query(params![
        id(from),
        id(spans.bounds.to.saturating_add(SPILL_MS)),
        query.scope.app,
        query.scope.user,
        query.model,
        agent
    ])?;
    while let Some(row) = rows.next()? {
        let (ts, duration) = (row.get(0)?, row.get(1)?);
        spans.each(cells, ts, |cell| add_duration(cell, duration));
    }
    Ok(())
}

/// Sums of a span with any ends: its whole quarters as sums, its ends as rows.
pub(crate) fn costs(
    conn: &Connection,
    query: &CostQuery,
    by: &CostBy,
    (from, to): (i64, i64),
    cuts: &[i64],
) -> Result<Vec<CostRow>, ReadError> {
    let ms = TimestampMs::clamped;
    let part = |from: i64, to: i64| CostQuery {
        from: Some(ms(from)),
        to: Some(ms(to)),
        cuts: cuts.iter().map(|cut| ms(*cut)).collect(),
        by: by.clone(),
        ..query.clone()
    };
    let (up, down) = (ceil_quarter(from), to - to.rem_euclid(QUARTER_MS));
    let by_quarters = cuts.iter().all(|cut| cut.rem_euclid(QUARTER_MS) == 0);
    if !by_quarters || up >= down {
        return ledger::costs(conn, &part(from, to));
    }
    let mut sums: BTreeMap<_, CostRow> = BTreeMap::new();
    for (from, to) in [(up, down), (from, up), (down, to)].into_iter().filter(|(from, to)| from < to) {
        for row in ledger::costs(conn, &part(from, to))? {
            let keys = [&row.app, &row.user, &row.model, &row.agent].map(Clone::clone);
            match sums.get_mut(&(row.bucket, keys.clone())) {
                Some(sum) => sum.totals.add(&row.totals),
                None => {
                    sums.insert((row.bucket, keys), row);
                }
            }
        }
    }
    Ok(sums.into_values().collect())
}

fn ceil_quarter(ms: i64) -> i64 {
    ms + (-ms).rem_euclid(QUARTER_MS)
}

/// Where the steps of a history begin. A sum of a quarter belongs to the step it begins in, as a rollup does.
pub(crate) fn step_cuts(bounds: Bounds) -> Vec<i64> {
    let place = |(index, start): (usize, i64)| match index {
        _ if bounds.step < QUARTER_MS => start,
        // The first also has what lies before its first whole quarter.
        0 => start - start.rem_euclid(QUARTER_MS),
        _ => ceil_quarter(start),
    };
    bounds.steps().enumerate().map(place).collect()
}
