//! Reading the aggregates and the digests.
//!
//! A query sums rows of one table over whole buckets, in Rust, and looks up the words of the keys it shows only.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_analytics::digest::{Histogram, HistogramSum, Key, Kind, OTHER};
use taffrail_event::{RowId, TimestampMs};

use crate::codec;
use crate::digest::contributions;
use crate::digest::tables::{EVERYWHERE, Grain, table};
use crate::digest::{StoredFacts, dirty};
use crate::error::ReadError;
use crate::events::to_i64;
use crate::filter::Scope;

/// Keys whose words are looked at for one page; its cursor goes on from there.
pub const KEYS_LOOKED_AT_MAX: usize = 5_000;

/// What is summed, and which groups come.
pub struct AggregateQuery<'q> {
    /// What is counted.
    pub kind: Kind,
    /// The buckets' length.
    pub grain: Grain,
    /// The first moment; its whole bucket counts.
    pub from_ms: i64,
    /// The last moment; its whole bucket counts.
    pub to_ms: i64,
    /// Project, user, session. A session's figures are by the hour, whatever the grain.
    pub scope: Scope,
    /// By which counter the groups are ordered, greatest first; then by the first.
    pub order_by: usize,
    /// Where the span begins that is summed beside it, up to its own begin; its whole bucket counts.
    pub before_ms: Option<i64>,
    /// Only groups of these names, where any are told.
    pub names: Option<&'q [String]>,
    /// Which groups come.
    pub keep: &'q dyn Fn(&Key) -> bool,
    /// How many groups come before the page; the last page's `next`.
    pub skip: usize,
    /// Groups of the page.
    pub limit: usize,
    /// Whether the histograms are read, too.
    pub with_histograms: bool,
}

/// Sums by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aggregates {
    /// The page's groups, in order.
    pub rows: Vec<GroupRow>,
    /// The `skip` of the next page; none where nothing follows.
    pub next: Option<usize>,
    /// Every group together, also those that do not come.
    pub totals: Vec<i64>,
    /// The same in the span before; zeros where none was asked for.
    pub totals_before: Vec<i64>,
    /// What of the totals is counted under no key of its own.
    pub other: Vec<i64>,
    /// How many groups there are.
    pub groups: usize,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupRow {
    /// What is counted.
    pub key: Key,
    /// A text for a person.
    pub label: String,
    /// In the order of [`Kind::counters`].
    pub counters: Vec<i64>,
    /// The same in the span before; zeros where none was asked for.
    pub before: Vec<i64>,
    /// Empty unless it was asked for.
    pub histogram: Histogram,
}

impl GroupRow {
    /// The counter at that place, 0 where there is none.
    pub fn get(&self, slot: usize) -> i64 {
        self.counters.get(slot).copied().unwrap_or(0)
    }
}

/// Sums by key as they are gathered.
#[derive(Default)]
struct Sums {
    places: HashMap<i64, usize>,
    keys: Vec<i64>,
    figures: Vec<i64>,
    width: usize,
}

impl Sums {
    fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    fn row(&mut self, key: i64) -> &mut [i64] {
        let at = *self.places.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.figures.resize(self.figures.len() + self.width, 0);
            self.keys.len() - 1
        });
        &mut self.figures[at * self.width..(at + 1) * self.width]
    }

    /// By key; zeros where there is none.
    fn find(&self, key: i64) -> Vec<i64> {
        self.places.get(&key).map_or_else(|| vec![0; self.width], |at| self.of(*at).to_vec())
    }

    fn totals(&self) -> Vec<i64> {
        let mut totals = vec![0; self.width];
        for at in 0..self.keys.len() {
            contributions::add_counters(&mut totals, self.of(at), 1);
        }
        totals
    }

    fn of(&self, at: usize) -> &[i64] {
        &self.figures[at * self.width..(at + 1) * self.width]
    }
}

pub(crate) fn aggregates(conn: &Connection, query: &AggregateQuery<'_>) -> Result<Aggregates, ReadError> {
    let source = Source::of(conn, query)?;
    let begin = query.grain.bucket(query.from_ms);
    let sums = source.sums(conn, query, begin, query.to_ms)?;
    let before = match query.before_ms {
        Some(from) => source.sums(conn, query, query.grain.bucket(from), begin.saturating_sub(1))?,
        None => Sums::new(sums.width),
    };
    let other = key_id(conn, &Key { kind: query.kind, name: OTHER.to_owned(), ..Key::default() })?;
    let named = query.names.map(|names| ids_of_names(conn, query.kind, names)).transpose()?;
    let is_shown = |at: usize| {
        let key = sums.keys[at];
        sums.of(at).iter().any(|value| *value != 0)
            && Some(key) != other
            && named.as_ref().is_none_or(|named| named.contains(&key))
    };
    let mut order: Vec<usize> = (0..sums.keys.len()).filter(|at| is_shown(*at)).collect();
    let figure = |at: usize, slot: usize| sums.of(at).get(slot).copied().unwrap_or(0);
    let rank = |at: usize| (Reverse(figure(at, query.order_by)), Reverse(figure(at, 0)), sums.keys[at]);
    order.sort_unstable_by_key(|at| rank(*at));
    let mut found = Aggregates {
        groups: order.len(),
        totals: sums.totals(),
        totals_before: before.totals(),
        other: other.map_or_else(|| vec![0; sums.width], |other| sums.find(other)),
        ..Aggregates::default()
    };
    for (looked, at) in order.iter().enumerate().skip(query.skip) {
        if found.rows.len() >= query.limit || looked - query.skip >= KEYS_LOOKED_AT_MAX {
            found.next = Some(looked);
            break;
        }
        let id = sums.keys[*at];
        let (key, label) = words(conn, query.kind, id)?;
        if !(query.keep)(&key) {
            continue;
        }
        let histogram =
            if query.with_histograms { source.histogram(conn, query, id)? } else { Histogram::default() };
        let counters = sums.of(*at).to_vec();
        found.rows.push(GroupRow { key, label, counters, before: before.find(id), histogram });
    }
    Ok(found)
}

fn ids_of_names(conn: &Connection, kind: Kind, names: &[String]) -> Result<HashSet<i64>, ReadError> {
    let mut statement = conn.prepare_cached("SELECT id FROM digest_keys WHERE kind = ?1 AND name = ?2")?;
    let mut ids = HashSet::new();
    for name in names {
        for id in statement.query_map(params![kind as i64, name], |row| row.get(0))? {
            ids.insert(id?);
        }
    }
    Ok(ids)
}

/// Where the figures of a scope stand.
enum Source {
    Places(Vec<i64>),
    Session(Vec<contributions::Entry>),
}

impl Source {
    fn of(conn: &Connection, query: &AggregateQuery<'_>) -> Result<Self, ReadError> {
        let scope = &query.scope;
        if let Some(session) = &scope.session {
            let bytes: Option<(Vec<u8>, String, String)> = conn
                .prepare_cached(
                    "SELECT d.contributions, p.app, p.user FROM session_digests d JOIN digest_places p ON p.id = d.place
                        WHERE d.session_id = ?1 ORDER BY d.session DESC LIMIT 1",
                )?
                .query_row([session], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let is =
                |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
            let entries = match bytes {
                Some((bytes, app, user)) if is(&scope.app, &app) && is(&scope.user, &user) => {
                    contributions::decode(&bytes).ok_or_else(|| {
                        ReadError::BadRow("the contributions of a session are damaged".to_owned())
                    })?
                }
                _ => Vec::new(),
            };
            let of_kind = |entry: &contributions::Entry| entry.kind == query.kind;
            return Ok(Self::Session(entries.into_iter().filter(of_kind).collect()));
        }
        if scope.app.is_none() && scope.user.is_none() {
            return Ok(Self::Places(vec![EVERYWHERE]));
        }
        let mut statement = conn.prepare_cached(
            "SELECT id FROM digest_places WHERE (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR user = ?2) ORDER BY id",
        )?;
        let places = statement.query_map(params![scope.app, scope.user], |row| row.get(0))?;
        Ok(Self::Places(places.collect::<rusqlite::Result<_>>()?))
    }

    /// Over the buckets that begin in `from..=to`.
    fn sums(
        &self,
        conn: &Connection,
        query: &AggregateQuery<'_>,
        from: i64,
        to: i64,
    ) -> Result<Sums, ReadError> {
        let columns = query.kind.counters();
        let mut sums = Sums::new(columns.len());
        match self {
            Self::Session(entries) => {
                for entry in entries.iter().filter(|entry| (from..=to).contains(&entry.hour_ms)) {
                    for (sum, value) in sums.row(entry.key).iter_mut().zip(&entry.counters) {
                        *sum = sum.wrapping_add(*value);
                    }
                }
            }
            Self::Places(places) => {
                let sql = format!(
                    "SELECT key, {} FROM {} WHERE place = ?1 AND bucket >= ?2 AND bucket <= ?3",
                    columns.join(", "),
                    table(query.kind, query.grain)
                );
                let mut statement = conn.prepare_cached(&sql)?;
                for place in places {
                    let mut rows = statement.query([*place, from, to])?;
                    while let Some(row) = rows.next()? {
                        for (at, sum) in sums.row(row.get(0)?).iter_mut().enumerate() {
                            *sum = sum.wrapping_add(row.get::<_, i64>(at + 1)?);
                        }
                    }
                }
            }
        }
        Ok(sums)
    }

    fn histogram(
        &self,
        conn: &Connection,
        query: &AggregateQuery<'_>,
        key: i64,
    ) -> Result<Histogram, ReadError> {
        if query.kind.histogram().is_none() {
            return Ok(Histogram::default());
        }
        match self {
            Self::Session(entries) => {
                let span = query.grain.bucket(query.from_ms)..=query.to_ms;
                let of_key =
                    |entry: &&contributions::Entry| entry.key == key && span.contains(&entry.hour_ms);
                let mut sum = Histogram::default();
                entries.iter().filter(of_key).for_each(|entry| sum.add(&entry.histogram));
                Ok(sum)
            }
            Self::Places(places) => {
                let sql = format!(
                    "SELECT histogram FROM {} WHERE place = ?1 AND bucket = ?2 AND key = ?3",
                    table(query.kind, query.grain)
                );
                let mut statement = conn.prepare_cached(&sql)?;
                let mut sum = HistogramSum::default();
                for place in places {
                    let mut bucket = query.grain.bucket(query.from_ms);
                    while bucket <= query.to_ms {
                        let mut rows = statement.query([*place, bucket, key])?;
                        if let Some(row) = rows.next()? {
                            let bytes =
                                row.get_ref(0)?.as_blob_or_null().unwrap_or_default().unwrap_or_default();
                            sum.add_bytes(bytes).map_err(|e| ReadError::BadRow(e.to_string()))?;
                        }
                        bucket = bucket.saturating_add(query.grain.ms());
                    }
                }
                Ok(sum.finish())
            }
        }
    }
}

fn key_id(conn: &Connection, key: &Key) -> Result<Option<i64>, ReadError> {
    Ok(conn
        .prepare_cached(
            "SELECT id FROM digest_keys WHERE kind = ?1 AND name = ?2 AND tool = ?3 AND detail = ?4",
        )?
        .query_row(params![key.kind as i64, key.name, key.tool, key.detail], |row| row.get(0))
        .optional()?)
}

fn words(conn: &Connection, kind: Kind, id: i64) -> Result<(Key, String), ReadError> {
    Ok(conn.prepare_cached("SELECT tool, name, detail, label FROM digest_keys WHERE id = ?1")?.query_row(
        [id],
        |row| {
            let key = Key { kind, tool: row.get(0)?, name: row.get(1)?, detail: row.get(2)? };
            Ok((key, row.get(3)?))
        },
    )?)
}

pub(crate) fn facts(conn: &Connection, session_id: &str) -> Result<Option<StoredFacts>, ReadError> {
    let found = conn
        .prepare_cached(
            "SELECT facts_codec, facts_bytes, facts, digested, cut, session FROM session_digests WHERE session_id = ?1
                ORDER BY session DESC LIMIT 1",
        )?
        .query_row([session_id], |row| {
            Ok((
                row.get::<_, u8>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, Vec<u8>>(2)?,
                (row.get::<_, i64>(3)?, row.get::<_, i64>(4)?, row.get::<_, i64>(5)?),
            ))
        })
        .optional()?;
    let Some((codec, bytes, data, (digested_ms, cut, session))) = found else { return Ok(None) };
    let bad = |e: &dyn std::fmt::Display| ReadError::BadRow(e.to_string());
    let bytes = usize::try_from(bytes).map_err(|e| bad(&e))?;
    let text = codec::decode(codec, bytes, &data).map_err(|e| bad(&e))?;
    let facts = serde_json::from_str(&text).map_err(|e| bad(&e))?;
    Ok(Some(StoredFacts { facts, digested_ms, cut, is_pending: dirty::version(conn, session)?.is_some() }))
}

/// Apps of which digests tell, by name, at most `limit`.
pub(crate) fn apps(conn: &Connection, limit: usize) -> Result<Vec<String>, ReadError> {
    let mut statement =
        conn.prepare_cached("SELECT DISTINCT app FROM digest_places ORDER BY app LIMIT ?1")?;
    let rows = statement.query_map([to_i64(limit)], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Where the newest sessions of an app worked, newest first.
pub(crate) fn directories(
    conn: &Connection,
    app: Option<&str>,
    sessions: usize,
) -> Result<Vec<(String, String)>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT source_app, cwd FROM sessions WHERE ?1 IS NULL OR source_app = ?1 ORDER BY last_event DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![app, to_i64(sessions)], |row| {
        Ok((row.get(0)?, row.get::<_, Option<String>>(1)?))
    })?;
    let mut found: Vec<(String, String)> = Vec::new();
    for row in rows {
        if let (app, Some(cwd)) = row?
            && !found.iter().any(|(_, known)| *known == cwd)
        {
            found.push((app, cwd));
        }
    }
    Ok(found)
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct ErrorExample {
    /// The event that told of it.
    pub event: RowId,
    pub ts_ms: i64,
    pub app: String,
    pub user: Option<String>,
    pub session_id: String,
    pub agent_id: Option<String>,
    pub tool_name: Option<String>,
    pub tool_use_id: Option<String>,
    pub summary: String,
    pub class: String,
    pub message: String,
    pub stack_trace: Option<String>,
    pub recoverable: bool,
    pub retry_count: i64,
    pub resolved: bool,
    pub resolution_ms: Option<i64>,
}

pub(crate) fn error_examples(
    conn: &Connection,
    fingerprint: &str,
    limit: usize,
) -> Result<Vec<ErrorExample>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT e.id, e.timestamp, e.source_app, e.user, e.session_id, e.agent_id, e.tool_name, e.tool_use_id, e.summary,
            r.error_type, r.error_message, r.stack_trace, r.recoverable, r.retry_count, r.resolved, r.resolution_time
        FROM event_errors r INDEXED BY event_errors_fingerprint JOIN events e ON e.id = r.event_id
        WHERE r.fingerprint = ?1 ORDER BY r.event_id DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![fingerprint, to_i64(limit)], |row| {
        Ok(ErrorExample {
            event: RowId(row.get(0)?),
            ts_ms: row.get(1)?,
            app: row.get(2)?,
            user: row.get(3)?,
            session_id: row.get(4)?,
            agent_id: row.get(5)?,
            tool_name: row.get(6)?,
            tool_use_id: row.get(7)?,
            summary: row.get(8)?,
            class: row.get(9)?,
            message: row.get(10)?,
            stack_trace: row.get(11)?,
            recoverable: row.get(12)?,
            retry_count: row.get(13)?,
            resolved: row.get(14)?,
            resolution_ms: row.get(15)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn error_seen(conn: &Connection, fingerprint: &str) -> Result<Option<(i64, i64)>, ReadError> {
    // Two looks at the ends of an index each; one statement for both would read all of it.
    let end = |sql| -> Result<Option<i64>, ReadError> {
        let id: Option<i64> = conn.prepare_cached(sql)?.query_row([fingerprint], |row| row.get(0))?;
        Ok(id.map(|id| RowId(id).ts()).map(TimestampMs::get))
    };
    let first = end("SELECT min(event_id) FROM event_errors WHERE fingerprint = ?1")?;
    let last = end("SELECT max(event_id) FROM event_errors WHERE fingerprint = ?1")?;
    Ok(first.zip(last))
}
