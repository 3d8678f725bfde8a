//! The table `telemetry`: metrics, spans and the client's chatter, one lean row each, never twice.
//!
//! Rows belong to no session's row: a metric alone makes no session. Counts by name are kept beside them, so that
//! listing names does not read the table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_event::ids::hash_parts;
use taffrail_event::ledger::{Usage, nano_usd};
use taffrail_event::normalize::otlp::{Signal, Telemetry, Temporality};
use taffrail_event::{RowId, TimestampMs};

use crate::error::ReadError;
use crate::reader::Reader;
use crate::rows::Page;
use crate::scan;

/// Names listed, at most, most records first.
pub const TELEMETRY_NAMES_MAX: usize = 1_000;
/// The client's metric of its own cost, in dollars.
const COST_METRIC: &str = "claude_code.cost.usage";
/// The client's metric of its tokens.
const TOKEN_METRIC: &str = "claude_code.token.usage";

/// Which rows; every given part must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryFilter {
    /// The kind of record.
    pub signal: Option<Signal>,
    /// The event's, metric's or span's name.
    pub name: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// First millisecond.
    pub from: Option<TimestampMs>,
    /// One past the last millisecond.
    pub to: Option<TimestampMs>,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of `taffrail_event::normalize::otlp::Telemetry`")]
pub struct StoredTelemetry {
    /// Time-ordered; also the cursor.
    pub id: RowId,
    pub ts: TimestampMs,
    pub received: TimestampMs,
    pub signal: String,
    pub name: String,
    pub session_id: Option<String>,
    pub value: Option<f64>,
    /// `delta` or `cumulative`.
    pub temporality: Option<String>,
    pub duration_us: Option<i64>,
    /// JSON.
    pub attributes: String,
    /// JSON.
    pub detail: Option<String>,
    /// JSON.
    pub resource: String,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryName {
    /// The kind of record.
    pub signal: String,
    /// The name.
    pub name: String,
    /// How many rows.
    pub records: i64,
    /// The newest row's time.
    pub newest: TimestampMs,
}

/// What the client's metrics say of a session: a cross-check of the ledger, never a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryTotals {
    /// By model, as the client names it.
    pub models: BTreeMap<String, TelemetryModelTotal>,
}

impl TelemetryTotals {
    /// All models' cost, in nano-dollars.
    pub fn cost_nano_usd(&self) -> i64 {
        self.models.values().fold(0, |sum, model| sum.saturating_add(model.cost_nano_usd))
    }
}

/// One model's part of [`TelemetryTotals`]. The metric does not tell the five-minute from the one-hour cache: what was
/// written stands under the former.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct TelemetryModelTotal {
    pub cost_nano_usd: i64,
    pub usage: Usage,
}

/// What a transaction adds, beside the rows.
#[derive(Default)]
pub(crate) struct Added {
    names: BTreeMap<(&'static str, String), (i64, i64)>,
    /// Resources met in this transaction: a group's rows share one text.
    resources: HashMap<Arc<str>, i64>,
}

impl Added {
    /// Inserts a row; false where it is stored already.
    pub(crate) fn insert(&mut self, conn: &Connection, id: RowId, row: &Telemetry) -> rusqlite::Result<bool> {
        let resource = self.resource(conn, &row.resource)?;
        let rows = conn
            .prepare_cached(
                "INSERT INTO telemetry (id, dedup_key, received, signal, name, session_id, value, temporality, duration,
                    attributes, detail, resource) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                    ON CONFLICT (dedup_key) DO NOTHING",
            )?
            .execute(params![
                id.0,
                row.dedup_key.0,
                row.received.get(),
                row.signal.name(),
                row.name,
                row.session_id,
                row.value,
                row.temporality.map(Temporality::name),
                row.duration_us.map(crate::events::to_i64),
                row.attributes,
                row.detail,
                resource,
            ])?;
        if rows == 1 {
            let name = self.names.entry((row.signal.name(), row.name.clone())).or_insert((0, i64::MIN));
            *name = (name.0 + 1, name.1.max(row.ts.get()));
        }
        Ok(rows == 1)
    }

    fn resource(&mut self, conn: &Connection, text: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some(id) = self.resources.get(text) {
            return Ok(*id);
        }
        let hash = hash_parts(&[text.as_bytes()]);
        let found = conn
            .prepare_cached("SELECT id FROM telemetry_resources WHERE hash = ?1")?
            .query_row([hash], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                conn.prepare_cached("INSERT INTO telemetry_resources (hash, attributes) VALUES (?1, ?2)")?
                    .execute(params![hash, &**text])?;
                conn.last_insert_rowid()
            }
        };
        self.resources.insert(Arc::clone(text), id);
        Ok(id)
    }

    /// Writes the counts.
    pub(crate) fn flush(self, conn: &Connection) -> rusqlite::Result<()> {
        for ((signal, name), (records, newest)) in self.names {
            conn.prepare_cached(
                "INSERT INTO telemetry_names (signal, name, records, newest) VALUES (?1, ?2, ?3, ?4)
                    ON CONFLICT (signal, name) DO UPDATE SET records = records + excluded.records,
                        newest = max(newest, excluded.newest)",
            )?
            .execute(params![signal, name, records, newest])?;
        }
        Ok(())
    }
}

/// The row with that key.
pub(crate) fn row_of_key(conn: &Connection, row: &Telemetry) -> rusqlite::Result<RowId> {
    conn.prepare_cached("SELECT id FROM telemetry WHERE dedup_key = ?1")?
        .query_row([row.dedup_key.0], |row| row.get(0).map(RowId))
}

/// The highest row id in that half-open range.
pub(crate) fn last_in(conn: &Connection, from: RowId, to: RowId) -> rusqlite::Result<Option<RowId>> {
    conn.prepare_cached("SELECT max(id) FROM telemetry WHERE id >= ?1 AND id < ?2")?
        .query_row([from.0, to.0], |row| row.get::<_, Option<i64>>(0))
        .map(|id| id.map(RowId))
}

impl Reader {
    /// Telemetry rows that match, newest first; `cursor` is the last page's `next`.
    pub fn telemetry(
        &self,
        filter: &TelemetryFilter,
        cursor: Option<RowId>,
        limit: usize,
    ) -> Result<Page<StoredTelemetry>, ReadError> {
        list(self.conn(), filter, cursor, limit)
    }

    /// Every name with its count, most records first, at most [`TELEMETRY_NAMES_MAX`].
    pub fn telemetry_names(&self) -> Result<Vec<TelemetryName>, ReadError> {
        let mut statement = self.conn().prepare_cached(
            "SELECT signal, name, records, newest FROM telemetry_names ORDER BY records DESC, signal, name LIMIT ?1",
        )?;
        let rows = statement.query_map([crate::events::to_i64(TELEMETRY_NAMES_MAX)], |row| {
            Ok(TelemetryName {
                signal: row.get(0)?,
                name: row.get(1)?,
                records: row.get(2)?,
                newest: TimestampMs::clamped(row.get(3)?),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What the client's own metrics of cost and tokens add up to: deltas are summed, of a cumulative series its highest
    /// point counts.
    pub fn telemetry_totals(&self, session_id: &str) -> Result<TelemetryTotals, ReadError> {
        totals(self.conn(), session_id)
    }
}

const COLUMNS: &str =
    "t.id, t.received, t.signal, t.name, t.session_id, t.value, t.temporality, t.duration, t.attributes,
    t.detail, r.attributes";

fn list(
    conn: &Connection,
    filter: &TelemetryFilter,
    cursor: Option<RowId>,
    limit: usize,
) -> Result<Page<StoredTelemetry>, ReadError> {
    let (below, from) = scan::id_range(filter.from, filter.to, cursor);
    // One narrow index is enough: a session has thousands of rows, and a name's rows lie in order of time.
    let (index, condition) = match (&filter.session, &filter.name) {
        (Some(_), _) => ("telemetry_session", "t.session_id = ?3"),
        (None, Some(_)) => ("telemetry_name", "t.name = ?3"),
        (None, None) => ("", "?3 IS NULL"),
    };
    let indexed = if index.is_empty() { "NOT INDEXED".to_owned() } else { format!("INDEXED BY {index}") };
    let sql = format!(
        "SELECT {COLUMNS} FROM telemetry t {indexed} CROSS JOIN telemetry_resources r ON r.id = t.resource
            WHERE {condition} AND t.id < ?1 AND t.id >= ?2 ORDER BY t.id DESC"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let key = filter.session.as_ref().or(filter.name.as_ref());
    let rows = statement.query(params![below.0, from.0, key])?;
    scan::page(rows, limit, |row| {
        let stored = from_row(row)?;
        let keep = filter.signal.is_none_or(|signal| signal.name() == stored.signal)
            && filter.name.as_ref().is_none_or(|name| *name == stored.name);
        Ok((stored.id, keep.then_some(stored)))
    })
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredTelemetry> {
    let id = RowId(row.get(0)?);
    Ok(StoredTelemetry {
        id,
        ts: id.ts(),
        received: TimestampMs::clamped(row.get(1)?),
        signal: row.get(2)?,
        name: row.get(3)?,
        session_id: row.get(4)?,
        value: row.get(5)?,
        temporality: row.get(6)?,
        duration_us: row.get(7)?,
        attributes: row.get(8)?,
        detail: row.get(9)?,
        resource: row.get(10)?,
    })
}

fn totals(conn: &Connection, session_id: &str) -> Result<TelemetryTotals, ReadError> {
    // A cumulative series begins anew with each process: its start stands in the detail.
    let mut statement = conn.prepare_cached(
        "SELECT name, json_extract(attributes, '$.model'), json_extract(attributes, '$.type'), sum(amount) FROM (
            SELECT name, attributes,
                iif(temporality = 'cumulative', max(value), sum(value)) AS amount
            FROM telemetry INDEXED BY telemetry_session
            WHERE session_id = ?1 AND signal = 'metric' AND name IN (?2, ?3) AND value IS NOT NULL
            GROUP BY name, temporality, attributes, json_extract(detail, '$.start_time_unix_nano')
        ) GROUP BY 1, 2, 3",
    )?;
    let mut rows = statement.query(params![session_id, COST_METRIC, TOKEN_METRIC])?;
    let mut totals = TelemetryTotals::default();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let text = |at: usize| -> rusqlite::Result<String> {
            Ok(match row.get_ref(at)? {
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                _ => String::new(),
            })
        };
        let (model, kind, amount) = (text(1)?, text(2)?, row.get::<_, f64>(3)?);
        let total = totals.models.entry(model).or_default();
        if name == COST_METRIC {
            total.cost_nano_usd = total.cost_nano_usd.saturating_add(nano_usd(amount).unwrap_or(0));
            continue;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let tokens = amount.round() as u64;
        match kind.as_str() {
            "input" => total.usage.input = tokens,
            "output" => total.usage.output = tokens,
            "cacheRead" => total.usage.cache_read = tokens,
            "cacheCreation" => total.usage.cache_write_5m = tokens,
            _ => {}
        }
    }
    Ok(totals)
}
