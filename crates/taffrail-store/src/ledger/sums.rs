//! The sums: per 15 minutes UTC by session (`cost_sessions`), and by app and user (`cost_quarters`).
//!
//! A change of a request takes its old part out and puts its new part in, in the transaction of the change, so that the
//! sums are those of the rows after every commit. Earliest and latest cannot be taken out: where a row left a bucket,
//! that bucket's are read anew from its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, params, params_from_iter, types::Value as SqlValue};
use taffrail_event::ledger::{Confidence, Usage};
use taffrail_event::{RowId, TimestampMs};

use crate::ledger::CostTotals;

/// The length of a bucket, in milliseconds.
pub(crate) const QUARTER_MS: i64 = 15 * 60_000;

/// How far a row's id can lie behind its time, in milliseconds: where one millisecond has more rows than fit.
pub(crate) const SPILL_MS: i64 = 60_000;

/// The columns of a sum, in the order of [`Sum`].
pub(crate) const SUM_COLUMNS: [&str; SUMS] = [
    "requests",
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "web_searches",
    "cost",
    "exact_requests",
    "exact_cost",
    "repaired_requests",
    "repaired_cost",
    "lower_bound_requests",
    "lower_bound_cost",
    "estimated_requests",
    "estimated_cost",
    "unpriced_requests",
    "unpriced_cost",
];

/// How many there are.
pub(crate) const SUMS: usize = 18;
const REQUESTS: usize = 0;
const COST: usize = 7;
const BY_CONFIDENCE: usize = 8;

/// The start of the bucket of a moment.
pub(crate) const fn bucket_of(ms: i64) -> i64 {
    ms - ms.rem_euclid(QUARTER_MS)
}

/// One value per column. `estimated_requests` counts derived rows, which are no requests: it says that there is a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum(pub(crate) [i64; SUMS]);

impl Sum {
    fn add(&mut self, other: &Self, by: i64) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(by * value);
        }
    }

    /// As the reader's type.
    pub(crate) fn totals(&self, first: i64, last: i64) -> CostTotals {
        let unsigned = |at: usize| u64::try_from(self.0[at]).unwrap_or(0);
        let mut totals = CostTotals {
            requests: self.0[REQUESTS],
            usage: Usage {
                input: unsigned(1),
                output: unsigned(2),
                cache_read: unsigned(3),
                cache_write_5m: unsigned(4),
                cache_write_1h: unsigned(5),
                web_searches: unsigned(6),
            },
            cost_nano_usd: self.0[COST],
            first: Some(TimestampMs::clamped(first)),
            last: Some(TimestampMs::clamped(last)),
            ..CostTotals::default()
        };
        for (at, part) in totals.by_confidence.iter_mut().enumerate() {
            part.requests = self.0[BY_CONFIDENCE + 2 * at];
            part.cost_nano_usd = self.0[BY_CONFIDENCE + 2 * at + 1];
        }
        totals.by_confidence[Confidence::Estimated as usize].requests = 0;
        totals
    }
}

/// What one row of `api_requests` adds to the sums, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) session: i64,
    pub(crate) ts: i64,
    pub(crate) model: i64,
    pub(crate) agent: i64,
    pub(crate) usage: Usage,
    pub(crate) cost: Option<i64>,
    pub(crate) confidence: Confidence,
    /// Derived from the client's total: no request.
    pub(crate) is_derived: bool,
}

impl Part {
    const fn key(&self) -> Key {
        Key { session: self.session, bucket: bucket_of(self.ts), model: self.model, agent: self.agent }
    }

    pub(crate) fn sum(&self) -> Sum {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let usage = &self.usage;
        let mut sum = [0; SUMS];
        sum[REQUESTS] = i64::from(!self.is_derived);
        sum[1] = signed(usage.input);
        sum[2] = signed(usage.output);
        sum[3] = signed(usage.cache_read);
        sum[4] = signed(usage.cache_write_5m);
        sum[5] = signed(usage.cache_write_1h);
        sum[6] = signed(usage.web_searches);
        let at = BY_CONFIDENCE + 2 * self.confidence as usize;
        sum[at] = 1;
        if let Some(cost) = self.cost {
            sum[COST] = cost;
            sum[at + 1] = cost;
        }
        Sum(sum)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    session: i64,
    bucket: i64,
    model: i64,
    agent: i64,
}

/// What is added to one row of sums.
#[derive(Clone, Copy)]
struct Delta {
    sum: Sum,
    first: i64,
    last: i64,
    /// Whether something left it.
    has_lost: bool,
}

impl Default for Delta {
    fn default() -> Self {
        Self { sum: Sum::default(), first: i64::MAX, last: i64::MIN, has_lost: false }
    }
}

impl Delta {
    fn merge(&mut self, other: &Self, by: i64) {
        self.sum.add(&other.sum, by);
        if by > 0 {
            self.first = self.first.min(other.first);
            self.last = self.last.max(other.last);
            self.has_lost |= other.has_lost;
        } else {
            self.has_lost = true;
        }
    }

    fn values(&self) -> impl Iterator<Item = SqlValue> + '_ {
        self.sum.0.iter().chain([&self.first, &self.last]).map(|value| SqlValue::Integer(*value))
    }
}

/// What a transaction adds to the sums.
#[derive(Default)]
pub(crate) struct Deltas {
    sessions: BTreeMap<Key, Delta>,
    /// Sessions whose app or user may have become another one.
    moved: BTreeSet<i64>,
    /// Buckets whose earliest and latest are to be read anew.
    stale: BTreeSet<i64>,
}

type QuarterKey = (i64, String, String, i64, i64);

impl Deltas {
    /// Replaces what a row adds.
    pub(crate) fn change(&mut self, old: Option<&Part>, new: Option<&Part>) {
        if old == new {
            return;
        }
        let stays = old.zip(new).is_some_and(|(old, new)| old.key() == new.key() && old.ts == new.ts);
        if let Some(old) = old {
            let delta = self.sessions.entry(old.key()).or_default();
            delta.sum.add(&old.sum(), -1);
            if !stays {
                delta.has_lost = true;
                self.stale.insert(bucket_of(old.ts));
            }
        }
        if let Some(new) = new {
            let delta = self.sessions.entry(new.key()).or_default();
            delta.sum.add(&new.sum(), 1);
            delta.first = delta.first.min(new.ts);
            delta.last = delta.last.max(new.ts);
        }
    }

    /// Looks at the session's app and user anew.
    pub(crate) fn look_at(&mut self, session: i64) {
        self.moved.insert(session);
    }

    /// Writes every touched row once.
    pub(crate) fn flush(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let sessions = std::mem::take(&mut self.sessions);
        let mut moved = std::mem::take(&mut self.moved);
        moved.extend(sessions.keys().map(|key| key.session));
        let mut quarters: BTreeMap<QuarterKey, Delta> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for session in moved {
            let place = self.move_session(conn, session, &mut quarters)?;
            places.insert(session, place);
        }
        for (key, delta) in &sessions {
            let columns = [key.session, key.bucket, key.model, key.agent].map(SqlValue::Integer);
            SESSIONS.write(conn, columns, delta)?;
            let Some((app, user)) = places.get(&key.session) else { continue };
            let quarter = (key.bucket, app.clone(), user.clone(), key.model, key.agent);
            quarters.entry(quarter).or_default().merge(delta, 1);
        }
        for ((bucket, app, user, model, agent), delta) in quarters {
            let key = [
                SqlValue::Integer(bucket),
                SqlValue::Text(app),
                SqlValue::Text(user),
                SqlValue::Integer(model),
                SqlValue::Integer(agent),
            ];
            QUARTERS.write(conn, key, &delta)?;
        }
        for bucket in std::mem::take(&mut self.stale) {
            read_edges(conn, bucket)?;
        }
        Ok(())
    }

    /// Where the session's sums stand now; what stands elsewhere is moved.
    fn move_session(
        &mut self,
        conn: &Connection,
        session: i64,
        quarters: &mut BTreeMap<QuarterKey, Delta>,
    ) -> rusqlite::Result<(String, String)> {
        let (app, user, old_app, old_user) = conn
            .prepare_cached(
                "SELECT source_app, coalesce(user, ''), ledger_app, ledger_user FROM sessions WHERE id = ?1",
            )?
            .query_row([session], |row| {
                let old: (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, old.0, old.1))
            })?;
        if old_app.as_deref() == Some(&app) && old_user.as_deref() == Some(&user) {
            return Ok((app, user));
        }
        if let (Some(old_app), Some(old_user)) = (old_app, old_user) {
            let columns = SUM_COLUMNS.join(", ");
            let sql = format!(
                "SELECT bucket, model, agent, {columns}, first, last FROM cost_sessions WHERE session = ?1"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query([session])?;
            while let Some(row) = rows.next()? {
                let (bucket, model, agent) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let delta = Delta {
                    sum: read_sum(row, 3)?,
                    first: row.get(3 + SUMS)?,
                    last: row.get(4 + SUMS)?,
                    has_lost: false,
                };
                let old = (bucket, old_app.clone(), old_user.clone(), model, agent);
                quarters.entry(old).or_default().merge(&delta, -1);
                let new = (bucket, app.clone(), user.clone(), model, agent);
                quarters.entry(new).or_default().merge(&delta, 1);
                self.stale.insert(bucket);
            }
        }
        conn.prepare_cached("UPDATE sessions SET ledger_app = ?2, ledger_user = ?3 WHERE id = ?1")?
            .execute(params![session, app, user])?;
        Ok((app, user))
    }
}

/// The sum whose columns begin at `at`.
pub(crate) fn read_sum(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Sum> {
    let mut sum = Sum::default();
    for (offset, value) in sum.0.iter_mut().enumerate() {
        *value = row.get(at + offset)?;
    }
    Ok(sum)
}

/// The statements of one table, put together once.
struct Statements {
    upsert: String,
    delete: String,
}

impl Statements {
    fn of(table: &str, keys: &[&str]) -> Self {
        let columns = [keys, &SUM_COLUMNS, &["first", "last"]].concat();
        let places = vec!["?"; columns.len()].join(", ");
        let sets: Vec<String> =
            SUM_COLUMNS.iter().map(|column| format!("{column} = {column} + excluded.{column}")).collect();
        let wheres: Vec<String> = keys.iter().map(|column| format!("{column} = ?")).collect();
        Self {
            upsert: format!(
                "INSERT INTO {table} ({}) VALUES ({places}) ON CONFLICT DO UPDATE SET {},
                    first = min(first, excluded.first), last = max(last, excluded.last)",
                columns.join(", "),
                sets.join(", ")
            ),
            delete: format!(
                "DELETE FROM {table} WHERE {} AND requests = 0 AND estimated_requests = 0",
                wheres.join(" AND ")
            ),
        }
    }

    fn write<const N: usize>(
        &self,
        conn: &Connection,
        key: [SqlValue; N],
        delta: &Delta,
    ) -> rusqlite::Result<()> {
        let values = key.iter().cloned().chain(delta.values());
        conn.prepare_cached(&self.upsert)?.execute(params_from_iter(values))?;
        if delta.has_lost {
            conn.prepare_cached(&self.delete)?.execute(params_from_iter(key))?;
        }
        Ok(())
    }
}

static SESSIONS: LazyLock<Statements> =
    LazyLock::new(|| Statements::of("cost_sessions", &["session", "bucket", "model", "agent"]));
static QUARTERS: LazyLock<Statements> =
    LazyLock::new(|| Statements::of("cost_quarters", &["bucket", "app", "user", "model", "agent"]));

/// Reads the earliest and latest of every row of a bucket anew.
fn read_edges(conn: &Connection, bucket: i64) -> rusqlite::Result<()> {
    let id = |ms| RowId::first_of(TimestampMs::clamped(ms)).0;
    let mut statement = conn.prepare_cached(
        "SELECT session, model, agent, min(ts), max(ts) FROM api_requests
            WHERE id >= ?1 AND id < ?2 AND ts >= ?3 AND ts < ?4 GROUP BY session, model, agent",
    )?;
    let end = bucket + QUARTER_MS;
    let mut rows = statement.query(params![id(bucket), id(end + SPILL_MS), bucket, end])?;
    let mut quarters: BTreeMap<QuarterKey, (i64, i64)> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (session, model, agent): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (first, last): (i64, i64) = (row.get(3)?, row.get(4)?);
        conn.prepare_cached(
            "UPDATE cost_sessions SET first = ?5, last = ?6
                WHERE session = ?1 AND bucket = ?2 AND model = ?3 AND agent = ?4",
        )?
        .execute(params![session, bucket, model, agent, first, last])?;
        let place = conn
            .prepare_cached("SELECT ledger_app, ledger_user FROM sessions WHERE id = ?1")?
            .query_row([session], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .optional()?;
        let Some((app, user)) = place else { continue };
        let edges = quarters.entry((bucket, app, user, model, agent)).or_insert((first, last));
        *edges = (edges.0.min(first), edges.1.max(last));
    }
    for ((bucket, app, user, model, agent), (first, last)) in quarters {
        conn.prepare_cached(
            "UPDATE cost_quarters SET first = ?6, last = ?7
                WHERE bucket = ?1 AND app = ?2 AND user = ?3 AND model = ?4 AND agent = ?5",
        )?
        .execute(params![bucket, app, user, model, agent, first, last])?;
    }
    Ok(())
}
