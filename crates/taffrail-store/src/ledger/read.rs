//! Reading the ledger: sums by any keys, and the rows themselves.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params, params_from_iter, types::Value as SqlValue};
use taffrail_analytics::Bounds;
use taffrail_event::ledger::{Speed, Terms, Usage};
use taffrail_event::{RowId, TimestampMs};

use crate::error::ReadError;
use crate::filter::Scope;
use crate::ledger::names::{self, Names};
use crate::ledger::requests::{PART_COLUMNS, confidence_of, part_from_row, unsigned};
use crate::ledger::sums::{QUARTER_MS, SPILL_MS, SUM_COLUMNS, SUMS, read_sum};
use crate::ledger::{CostQuery, CostRow, CostTotals, LedgerRow, UnpricedModel};

/// A condition and its values, in the order of their question marks.
#[derive(Default)]
struct Where {
    terms: Vec<String>,
    values: Vec<SqlValue>,
}

impl Where {
    fn and(&mut self, term: impl Into<String>, value: impl Into<SqlValue>) {
        self.terms.push(term.into());
        self.values.push(value.into());
    }

    fn sql(&self) -> String {
        if self.terms.is_empty() { "1".to_owned() } else { self.terms.join(" AND ") }
    }
}

/// Where a query's sums are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// By app and user.
    Quarters,
    /// By session.
    Sessions,
    /// The rows themselves: the edges lie between the sums'.
    Rows,
}

/// The values of a group's keys, by number or text as they are stored.
type Key = (usize, Option<String>, Option<String>, Option<i64>, Option<i64>, Option<String>, Option<String>);

/// Sums by what the query groups by.
pub(crate) fn costs(conn: &Connection, query: &CostQuery) -> Result<Vec<CostRow>, ReadError> {
    let mut groups: BTreeMap<Key, CostTotals> = BTreeMap::new();
    let from = source_of(query);
    let Some((sql, values)) = costs_sql(conn, query, from)? else { return Ok(Vec::new()) };
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let by = &query.by;
    while let Some(row) = rows.next()? {
        let Some(bucket) = bucket_of(query, row.get(0)?) else { continue };
        let text = |wanted: bool, column: usize| -> rusqlite::Result<Option<String>> {
            if wanted { row.get(column) } else { Ok(None) }
        };
        let number = |wanted: bool, column: usize| -> rusqlite::Result<Option<i64>> {
            if wanted { row.get(column) } else { Ok(None) }
        };
        let key = (
            bucket,
            text(by.app, 1)?,
            text(by.user, 2)?,
            number(by.model, 3)?,
            number(by.agent, 4)?,
            text(by.session, 5)?,
            text(by.label.is_some(), 6)?,
        );
        let totals = match from {
            From::Rows => {
                let (_, part) = part_from_row(row, 7)?;
                part.sum().totals(part.ts, part.ts)
            }
            From::Quarters | From::Sessions => {
                read_sum(row, 7)?.totals(row.get(7 + SUMS)?, row.get(8 + SUMS)?)
            }
        };
        groups.entry(key).or_default().add(&totals);
    }
    name_groups(conn, groups)
}

fn name_groups(conn: &Connection, groups: BTreeMap<Key, CostTotals>) -> Result<Vec<CostRow>, ReadError> {
    let mut names = Names::new(conn);
    let mut rows = Vec::with_capacity(groups.len());
    for ((bucket, app, user, model, agent, session, label), totals) in groups {
        let (model, agent) = (names.of(model)?, names.of(agent)?);
        rows.push(CostRow { bucket, app, user, model, agent, session, label, totals });
    }
    rows.sort_by(|a, b| {
        let key = |row: &CostRow| {
            let texts = [&row.app, &row.user, &row.model, &row.agent, &row.session, &row.label];
            (row.bucket, texts.map(Option::clone))
        };
        key(a).cmp(&key(b))
    });
    Ok(rows)
}

/// The index of the last cut that is not after that moment.
fn bucket_of(query: &CostQuery, ms: i64) -> Option<usize> {
    if query.cuts.is_empty() {
        return Some(0);
    }
    query.cuts.partition_point(|cut| cut.get() <= ms).checked_sub(1)
}

fn source_of(query: &CostQuery) -> From {
    let is_whole = |at: &TimestampMs| at.get().rem_euclid(QUARTER_MS) == 0;
    let edges = query.cuts.iter().chain(&query.from).chain(&query.to);
    if !edges.into_iter().all(is_whole) {
        From::Rows
    } else if query.is_of_sessions() || query.by.session || query.by.label.is_some() {
        From::Sessions
    } else {
        From::Quarters
    }
}

/// First and end of what is asked for, in milliseconds: what lies before the first cut is left out.
fn span_of(query: &CostQuery) -> (i64, i64) {
    let from = query.from.map_or(i64::MIN, TimestampMs::get);
    let first_cut = query.cuts.first().map_or(i64::MIN, |cut| cut.get());
    (from.max(first_cut), query.to.map_or(i64::MAX, TimestampMs::get))
}

/// Columns: moment, app, user, model, agent, session, label, then the sums, or what of a row they need.
fn costs_sql(
    conn: &Connection,
    query: &CostQuery,
    from: From,
) -> Result<Option<(String, Vec<SqlValue>)>, ReadError> {
    let (first, end) = span_of(query);
    let mut select = Where::default();
    let label = match (&query.by.label, from) {
        (Some(key), From::Sessions | From::Rows) => {
            select.values.push(SqlValue::Text(key.clone()));
            "coalesce((SELECT value FROM session_labels WHERE session = s.id AND key = ?), '')"
        }
        _ => "NULL",
    };
    let sums = SUM_COLUMNS.map(|column| format!("c.{column}")).join(", ");
    let (columns, tables, time) = match from {
        From::Quarters => (
            format!("c.bucket, c.app, c.user, c.model, c.agent, NULL, {label}, {sums}, c.first, c.last"),
            "cost_quarters c".to_owned(),
            "c.bucket",
        ),
        From::Sessions => (
            format!(
                "c.bucket, s.ledger_app, s.ledger_user, c.model, c.agent, s.session_id, {label}, {sums}, c.first, c.last"
            ),
            "sessions s CROSS JOIN cost_sessions c ON c.session = s.id".to_owned(),
            "c.bucket",
        ),
        From::Rows => {
            let join = if query.scope.session.is_some() {
                "sessions s CROSS JOIN api_requests r INDEXED BY api_requests_session ON r.session = s.id"
            } else {
                "api_requests r NOT INDEXED CROSS JOIN sessions s ON s.id = r.session"
            };
            (
                format!(
                    "r.ts, s.ledger_app, s.ledger_user, r.model, r.agent, s.session_id, {label}, {PART_COLUMNS}"
                ),
                join.to_owned(),
                "r.ts",
            )
        }
    };
    select.and(format!("{time} >= ?"), first);
    select.and(format!("{time} < ?"), end);
    if from == From::Rows {
        and_ids(&mut select, first, end);
    }
    let is_scoped = and_scope(conn, &mut select, query, from)?;
    if !is_scoped {
        return Ok(None);
    }
    Ok(Some((format!("SELECT {columns} FROM {tables} WHERE {}", select.sql()), select.values)))
}

/// Narrows rows by their ids, which are ordered by time.
fn and_ids(select: &mut Where, first: i64, end: i64) {
    let id = |ms: i64| RowId::first_of(TimestampMs::clamped(ms)).0;
    select.and("r.id >= ?", id(first));
    let below = if end > TimestampMs::MAX.get() - SPILL_MS { i64::MAX } else { id(end + SPILL_MS) };
    select.and("r.id < ?", below);
}

/// Narrows to the query's scope and model; false where nothing can match.
fn and_scope(
    conn: &Connection,
    select: &mut Where,
    query: &CostQuery,
    from: From,
) -> Result<bool, ReadError> {
    let (app, user, model) = match from {
        From::Quarters => ("c.app = ?", "c.user = ?", "c.model = ?"),
        From::Sessions => ("s.ledger_app = ?", "s.ledger_user = ?", "c.model = ?"),
        From::Rows => ("s.ledger_app = ?", "s.ledger_user = ?", "r.model = ?"),
    };
    match &query.scope.session {
        Some(session) => select.and("s.session_id = ?", session.clone()),
        None => {
            if let Some(wanted) = &query.scope.app {
                select.and(app, wanted.clone());
            }
            if let Some(wanted) = &query.scope.user {
                select.and(user, wanted.clone());
            }
        }
    }
    if !query.sessions.is_empty() {
        let ids = serde_json::Value::from(query.sessions.clone()).to_string();
        select.and("s.session_id IN (SELECT value FROM json_each(?))", ids);
    }
    if let Some(wanted) = &query.model {
        let Some(id) = names::find(conn, wanted)? else { return Ok(false) };
        select.and(model, id);
    }
    Ok(true)
}

const ROW: &str = "r.ts, r.message_id, r.request_id, s.session_id, r.agent_id, r.agent_type, r.agent, r.prompt_id,
    s.source_app, s.user, r.model, r.input, r.output, r.cache_read, r.cache_write_5m, r.cache_write_1h, r.web_searches,
    r.speed, r.service_tier, r.inference_geo, r.cost, r.told_cost, r.confidence, r.sources, r.evidence, r.query_source,
    r.effort, r.stop_reason, r.duration, r.ttft, r.attempts";

/// Every request that the query selects, oldest first, one at a time.
pub(crate) fn each(
    conn: &Connection,
    query: &CostQuery,
    each: &mut dyn FnMut(&LedgerRow),
) -> Result<(), ReadError> {
    let (first, end) = span_of(query);
    let mut select = Where::default();
    select.and("r.ts >= ?", first);
    select.and("r.ts < ?", end);
    and_ids(&mut select, first, end);
    if !and_scope(conn, &mut select, query, From::Rows)? {
        return Ok(());
    }
    let tables = if query.is_of_sessions() {
        "sessions s CROSS JOIN api_requests r INDEXED BY api_requests_session ON r.session = s.id"
    } else {
        "api_requests r NOT INDEXED CROSS JOIN sessions s ON s.id = r.session"
    };
    let sql = format!("SELECT {ROW} FROM {tables} WHERE {} ORDER BY r.id", select.sql());
    let mut names = Names::new(conn);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(select.values))?;
    while let Some(row) = rows.next()? {
        each(&ledger_row(row, &mut names)?);
    }
    Ok(())
}

fn ledger_row(row: &rusqlite::Row<'_>, names: &mut Names<'_>) -> Result<LedgerRow, ReadError> {
    let agent_id: Option<String> = row.get(4)?;
    let agent_type = match row.get(5)? {
        Some(told) => Some(told),
        None => agent_id.is_some().then(|| row.get(6)).transpose()?,
    };
    let evidence: Option<Vec<u8>> = row.get(24)?;
    let output: i64 = row.get(12)?;
    let line = evidence.as_deref().and_then(crate::ledger::requests::line_of_evidence);
    Ok(LedgerRow {
        ts: TimestampMs::clamped(row.get(0)?),
        message_id: row.get(1)?,
        request_id: row.get(2)?,
        session_id: row.get(3)?,
        agent_id,
        agent_type: names.of(agent_type)?,
        prompt_id: row.get(7)?,
        app: row.get(8)?,
        user: row.get(9)?,
        model: names.get(row.get(10)?)?.to_owned(),
        usage: Usage {
            input: unsigned(row.get(11)?),
            output: unsigned(output),
            cache_read: unsigned(row.get(13)?),
            cache_write_5m: unsigned(row.get(14)?),
            cache_write_1h: unsigned(row.get(15)?),
            web_searches: unsigned(row.get(16)?),
        },
        terms: Terms {
            speed: if row.get::<_, i64>(17)? == 1 { Speed::Fast } else { Speed::Standard },
            service_tier: names.of(row.get(18)?)?,
            inference_geo: names.of(row.get(19)?)?,
        },
        cost_nano_usd: row.get(20)?,
        told_cost_nano_usd: row.get(21)?,
        confidence: Some(confidence_of(row.get(22)?)),
        sources: row.get(23)?,
        provisional_output: line.map(|line| line.output).filter(|told| *told != unsigned(output)),
        query_source: names.of(row.get(25)?)?,
        effort: names.of(row.get(26)?)?,
        stop_reason: names.of(row.get(27)?)?,
        duration_ms: row.get(28)?,
        ttft_ms: row.get(29)?,
        attempts: row.get(30)?,
    })
}

/// Models without a price, most tokens first.
pub(crate) fn unpriced(conn: &Connection) -> Result<Vec<UnpricedModel>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT n.name, sum(c.requests), sum(c.input), sum(c.output), sum(c.cache_read), sum(c.cache_write_5m),
            sum(c.cache_write_1h), sum(c.web_searches), min(c.first), max(c.last)
        FROM cost_quarters c JOIN names n ON n.id = c.model WHERE c.unpriced_requests > 0 GROUP BY c.model",
    )?;
    let rows = statement.query_map([], |row| {
        let count = |column| Ok::<_, rusqlite::Error>(unsigned(row.get(column)?));
        Ok(UnpricedModel {
            model: row.get(0)?,
            requests: row.get(1)?,
            usage: Usage {
                input: count(2)?,
                output: count(3)?,
                cache_read: count(4)?,
                cache_write_5m: count(5)?,
                cache_write_1h: count(6)?,
                web_searches: count(7)?,
            },
            first: TimestampMs::clamped(row.get(8)?),
            last: TimestampMs::clamped(row.get(9)?),
        })
    })?;
    let mut models = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    models.sort_by(|a, b| b.usage.total().cmp(&a.usage.total()).then_with(|| a.model.cmp(&b.model)));
    Ok(models)
}

/// The fingerprint of the price table of history.
pub(crate) fn priced_by(conn: &Connection) -> Result<Option<String>, ReadError> {
    Ok(conn
        .prepare_cached("SELECT value FROM ledger_settings WHERE key = 'priced_by'")?
        .query_row([], |row| row.get(0))
        .optional()?)
}

/// Sessions that are looked at for the newest context of a scope, newest first.
const CONTEXT_SESSIONS_MAX: i64 = 20;

/// The context of the newest request of a main agent in the scope and window, in tokens, and the model's window. Side
/// requests (titles, compactions) are none of the conversation: a transcript shows only what is, OTLP names the source.
pub(crate) fn newest_context(
    conn: &Connection,
    scope: &Scope,
    bounds: Bounds,
) -> Result<Option<(i64, Option<i64>)>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT id FROM sessions INDEXED BY sessions_last
            WHERE last_event >= ?1 AND started < ?2 AND ledger_app IS NOT NULL
            AND (?3 IS NULL OR source_app = ?3) AND (?4 IS NULL OR user = ?4)
            ORDER BY last_event DESC LIMIT ?5",
    )?;
    let mut of_session = conn.prepare_cached("SELECT id FROM sessions WHERE session_id = ?1")?;
    let sessions = match &scope.session {
        Some(session) => {
            of_session.query_map([session], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
        }
        None => statement
            .query_map(params![bounds.from, bounds.to, scope.app, scope.user, CONTEXT_SESSIONS_MAX], |row| {
                row.get(0)
            })?
            .collect::<rusqlite::Result<Vec<i64>>>()?,
    };
    let id = |ms| RowId::first_of(TimestampMs::clamped(ms)).0;
    let mut newest: Option<(i64, i64, Option<i64>)> = None;
    for session in sessions {
        let found = conn
            .prepare_cached(
                "SELECT r.id, r.input + r.cache_read + r.cache_write_5m + r.cache_write_1h, r.context_window
                    FROM api_requests r INDEXED BY api_requests_session LEFT JOIN names n ON n.id = r.query_source
                    WHERE r.session = ?1 AND r.id >= ?2 AND r.id < ?3 AND r.sources <> 0 AND r.agent_id IS NULL
                    AND r.agent_type IS NULL
                    AND (r.sources & 1 OR n.name LIKE 'sdk%' OR n.name LIKE 'repl_main_thread%')
                    AND r.input + r.cache_read + r.cache_write_5m + r.cache_write_1h > 0
                    ORDER BY r.id DESC LIMIT 1",
            )?
            .query_row([session, id(bounds.from), id(bounds.to)], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        newest = newest.max(found);
    }
    Ok(newest.map(|(_, size, window)| (size, window.filter(|window| *window > 0))))
}
