//! What the client counted and no source shows: per session and model one derived row, `estimated`.
//!
//! The client keeps a running total per session (`cost-state`): by model, tokens and dollars. A fork's begins with its
//! parent's. What of it is neither in the ledger nor inherited was paid for requests that nobody shows (a compaction
//! without telemetry) or for output beyond what a transcript shows. It is no request; it shrinks as the requests
//! themselves arrive, and never makes a session cost more than the client's own total.
//!
//! What a fork inherited is what its parent had when the fork was begun: the parent's requests before that moment, and
//! what the parent inherited itself. Of the parent's own derived row nobody knows the moment; as much of it as the fork's
//! total needs is taken as inherited.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_event::ledger::{Confidence, Terms, Usage};
use taffrail_event::prices::PriceTable;
use taffrail_event::{RowId, TimestampMs};

use crate::events::to_i64;
use crate::ledger::names::Memory;
use crate::ledger::requests::{MAIN, PART_COLUMNS, part_from_row, unsigned};
use crate::ledger::sums::{Deltas, Part, bucket_of};
use crate::ledger::{LedgerChange, told};

/// Forks of forks that are followed.
const LINEAGE_MAX: usize = 64;

/// Tokens by kind, and dollars, that can be taken from one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Money {
    usage: [i64; 6],
    pub(crate) cost: i64,
}

impl Money {
    fn of(usage: &Usage, cost: i64) -> Self {
        let u = usage;
        let counts = [u.input, u.output, u.cache_read, u.cache_write_5m, u.cache_write_1h, u.web_searches];
        Self { usage: counts.map(to_i64), cost }
    }

    fn with(mut self, other: &Self, by: i64) -> Self {
        for (mine, theirs) in self.usage.iter_mut().zip(other.usage) {
            *mine += by * theirs;
        }
        self.cost += by * other.cost;
        self
    }

    /// This, but not less than `least` and not more than `most`, each figure by itself.
    fn between(mut self, least: &Self, most: &Self) -> Self {
        for (at, mine) in self.usage.iter_mut().enumerate() {
            *mine = (*mine).min(most.usage[at]).max(least.usage[at]);
        }
        self.cost = self.cost.min(most.cost).max(least.cost);
        self
    }

    fn usage(&self) -> Usage {
        let [input, output, cache_read, cache_write_5m, cache_write_1h, web_searches] =
            self.usage.map(unsigned);
        Usage { input, output, cache_read, cache_write_5m, cache_write_1h, web_searches }
    }
}

type ByModel = BTreeMap<String, Money>;

fn add(sums: &mut ByModel, model: String, money: &Money) {
    let sum = sums.entry(model).or_default();
    *sum = sum.with(money, 1);
}

/// By what models are compared: the client's own total names them with suffixes that requests lack.
fn key_of(prices: &PriceTable, model: &str) -> String {
    let bare = model.split_once('[').map_or(model, |(bare, _)| bare);
    prices.name_of(bare).unwrap_or(bare).to_owned()
}

/// One session's account with the client.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// The client's total; none where it is unknown.
    client: Option<ByModel>,
    /// What the ledger's requests give.
    own: ByModel,
    /// What the session had from the one it was forked from.
    pub(crate) inherited: ByModel,
}

impl Account {
    /// What was inherited, in nano-dollars.
    pub(crate) fn inherited_nano_usd(&self) -> i64 {
        self.inherited.values().map(|money| money.cost).sum()
    }

    /// What the client counted beyond the ledger and what was inherited.
    fn missing(&self) -> ByModel {
        let Some(client) = &self.client else { return ByModel::new() };
        let nothing = Money::default();
        let missing = client.iter().map(|(model, total)| {
            let own = self.own.get(model).unwrap_or(&nothing);
            let inherited = self.inherited.get(model).unwrap_or(&nothing);
            (model.clone(), total.with(own, -1).with(inherited, -1))
        });
        missing.collect()
    }
}

/// The account of a session by its row.
pub(crate) fn account(conn: &Connection, prices: &PriceTable, session: i64) -> rusqlite::Result<Account> {
    account_within(conn, prices, session, LINEAGE_MAX)
}

fn account_within(
    conn: &Connection,
    prices: &PriceTable,
    session: i64,
    depth: usize,
) -> rusqlite::Result<Account> {
    let client = told::total_of(conn, session)?.map(|total| {
        let mut client = ByModel::new();
        for model in &total.models {
            add(&mut client, key_of(prices, &model.model), &Money::of(&model.usage, model.cost_nano_usd));
        }
        client
    });
    let own = own(conn, prices, session, i64::MAX)?;
    let mut account = Account { client, own, inherited: ByModel::new() };
    let fork: Option<(i64, i64)> = conn
        .prepare_cached(
            "SELECT forked_from, coalesce(born, started) FROM sessions WHERE id = ?1 AND forked_from <> id",
        )?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (Some((parent, born)), true) = (fork, depth > 0) else { return Ok(account) };
    let of_parent = account_within(conn, prices, parent, depth - 1)?;
    let mut least = of_parent.inherited;
    for (model, money) in self::own(conn, prices, parent, born)? {
        add(&mut least, model, &money);
    }
    let derived = derived_of(conn, parent)?;
    let nothing = Money::default();
    for (model, least) in least.clone() {
        account.inherited.insert(model, least);
    }
    let Some(client) = &account.client else { return Ok(account) };
    for (model, total) in client {
        let least = least.get(model).unwrap_or(&nothing);
        let mut most = *least;
        for (name, part) in &derived {
            if key_of(prices, name) == *model {
                most = most.with(&Money::of(&part.usage, part.cost.unwrap_or(0)), 1);
            }
        }
        let rest = total.with(account.own.get(model).unwrap_or(&nothing), -1);
        account.inherited.insert(model.clone(), rest.between(least, &most));
    }
    Ok(account)
}

/// What the requests of a session before `until` come to, by model.
fn own(conn: &Connection, prices: &PriceTable, session: i64, until: i64) -> rusqlite::Result<ByModel> {
    let mut sums = ByModel::new();
    let money = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, Money)> {
        let mut money = Money::default();
        for (at, count) in money.usage.iter_mut().enumerate() {
            *count = row.get(1 + at)?;
        }
        money.cost = row.get(7)?;
        Ok((row.get(0)?, money))
    };
    let whole = if until == i64::MAX { i64::MAX } else { bucket_of(until) };
    let mut statement = conn.prepare_cached(
        "SELECT n.name, sum(c.input), sum(c.output), sum(c.cache_read), sum(c.cache_write_5m), sum(c.cache_write_1h),
            sum(c.web_searches), sum(c.cost)
        FROM cost_sessions c JOIN names n ON n.id = c.model WHERE c.session = ?1 AND c.bucket < ?2 GROUP BY c.model",
    )?;
    for row in statement.query_map([session, whole], money)? {
        let (model, money) = row?;
        add(&mut sums, key_of(prices, &model), &money);
    }
    for (model, part) in derived_of(conn, session)? {
        if bucket_of(part.ts) < whole {
            let sum = sums.entry(key_of(prices, &model)).or_default();
            *sum = sum.with(&Money::of(&part.usage, part.cost.unwrap_or(0)), -1);
        }
    }
    if until == i64::MAX {
        return Ok(sums);
    }
    // The rest of the bucket in which it was forked; ids are ordered by time.
    let mut statement = conn.prepare_cached(
        "SELECT n.name, r.input, r.output, r.cache_read, r.cache_write_5m, r.cache_write_1h, r.web_searches,
            coalesce(r.cost, 0)
        FROM api_requests r INDEXED BY api_requests_session JOIN names n ON n.id = r.model
        WHERE r.session = ?1 AND r.id >= ?2 AND r.ts >= ?3 AND r.ts < ?4 AND r.sources <> 0",
    )?;
    let first = RowId::first_of(TimestampMs::clamped(whole)).0;
    for row in statement.query_map([session, first, whole, until], money)? {
        let (model, money) = row?;
        add(&mut sums, key_of(prices, &model), &money);
    }
    Ok(sums)
}

/// The derived rows of a session, by model.
fn derived_of(conn: &Connection, session: i64) -> rusqlite::Result<Vec<(String, Part)>> {
    Ok(derived_rows(conn, session)?.into_iter().map(|(_, model, part)| (model, part)).collect())
}

fn derived_rows(conn: &Connection, session: i64) -> rusqlite::Result<Vec<(i64, String, Part)>> {
    let sql = format!(
        "SELECT n.name, {PART_COLUMNS} FROM api_requests r INDEXED BY api_requests_derived
            JOIN names n ON n.id = r.model WHERE r.sources = 0 AND r.session = ?1"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([session], |row| {
        let (id, part) = part_from_row(row, 1)?;
        Ok((id, row.get(0)?, part))
    })?;
    rows.collect()
}

/// Finds the sessions anew that these were forked from: of those whose requests a session shows, the one begun last
/// before it.
pub(crate) fn trace(conn: &Connection, sessions: &BTreeSet<i64>) -> rusqlite::Result<()> {
    for session in sessions {
        conn.prepare_cached(
            "UPDATE sessions SET forked_from = (
                SELECT p.id FROM sessions p, sessions s WHERE s.id = ?1 AND p.id IN (
                    SELECT r.session FROM api_request_copies c JOIN api_requests r ON r.id = c.request
                        WHERE c.session = ?1)
                    AND (coalesce(p.born, p.started), p.session_id) < (coalesce(s.born, s.started), s.session_id)
                ORDER BY coalesce(p.born, p.started) DESC, p.session_id DESC LIMIT 1)
            WHERE id = ?1",
        )?
        .execute([session])?;
    }
    Ok(())
}

/// Writes the derived rows of these sessions, and of what was forked from them, anew.
pub(crate) fn refresh(
    conn: &Connection,
    memory: &mut Memory,
    touched: BTreeSet<i64>,
    deltas: &mut Deltas,
    changes: &mut Vec<LedgerChange>,
) -> rusqlite::Result<()> {
    let has_totals: bool = conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM client_totals)")?
        .query_row([], |row| row.get(0))?;
    if !has_totals {
        return Ok(());
    }
    for session in with_forks(conn, touched)? {
        let has_total: bool = conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM client_totals WHERE session = ?1)")?
            .query_row([session], |row| row.get(0))?;
        if has_total {
            refresh_one(conn, memory, session, deltas, changes)?;
            // What a fork inherits is read from the sums.
            deltas.flush(conn)?;
        }
    }
    Ok(())
}

/// These sessions and their forks, parents first.
fn with_forks(conn: &Connection, touched: BTreeSet<i64>) -> rusqlite::Result<Vec<i64>> {
    let mut all: Vec<i64> = touched.into_iter().collect();
    let mut known: BTreeSet<i64> = all.iter().copied().collect();
    let mut next = 0;
    while let Some(session) = all.get(next).copied() {
        let mut statement = conn.prepare_cached("SELECT id FROM sessions WHERE forked_from = ?1")?;
        for fork in statement.query_map([session], |row| row.get::<_, i64>(0))? {
            let fork = fork?;
            if known.insert(fork) {
                all.push(fork);
            }
        }
        next += 1;
    }
    if all.len() < 2 {
        return Ok(all);
    }
    let mut born = Vec::with_capacity(all.len());
    for session in all {
        let key: (i64, String) = conn
            .prepare_cached("SELECT coalesce(born, started), session_id FROM sessions WHERE id = ?1")?
            .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))?;
        born.push((key, session));
    }
    born.sort();
    Ok(born.into_iter().map(|(_, session)| session).collect())
}

fn refresh_one(
    conn: &Connection,
    memory: &mut Memory,
    session: i64,
    deltas: &mut Deltas,
    changes: &mut Vec<LedgerChange>,
) -> rusqlite::Result<()> {
    let account = account(conn, &memory.prices, session)?;
    let stored = derived_rows(conn, session)?;
    let mut wanted: BTreeMap<i64, (String, Part)> = BTreeMap::new();
    for (model, missing) in account.missing() {
        let ts = moment_of(conn, memory, session, &model)?;
        let usage = missing.usage();
        let quote = memory.prices.quote(&model, &usage, &Terms::default(), TimestampMs::clamped(ts));
        let cost = quote.map_or(0, |quote| quote.total_nano_usd).min(missing.cost);
        if cost > 0 {
            let part = Part {
                session,
                ts,
                model: memory.name(conn, &model)?,
                agent: memory.name(conn, MAIN)?,
                usage,
                cost: Some(cost),
                confidence: Confidence::Estimated,
                is_derived: true,
            };
            wanted.insert(part.model, (model, part));
        }
    }
    for (id, model, old) in stored {
        let new = wanted.remove(&old.model).map(|(_, part)| part);
        if new.as_ref() == Some(&old) {
            continue;
        }
        conn.prepare_cached("DELETE FROM api_requests WHERE id = ?1")?.execute([id])?;
        if let Some(new) = &new {
            put(conn, memory, new)?;
        }
        deltas.change(Some(&old), new.as_ref());
        changes.push(change(conn, &model, Some(&old), new.as_ref())?);
    }
    for (model, new) in wanted.into_values() {
        put(conn, memory, &new)?;
        deltas.change(None, Some(&new));
        changes.push(change(conn, &model, None, Some(&new))?);
    }
    Ok(())
}

/// When it was paid, as well as can be known: at the newest compaction, else with the model's newest request.
fn moment_of(conn: &Connection, memory: &mut Memory, session: i64, model: &str) -> rusqlite::Result<i64> {
    let model = memory.name(conn, model)?;
    conn.prepare_cached(
        "SELECT coalesce(
            (SELECT max(ts) FROM transcript_marks WHERE session = ?1 AND kind = 'compaction'),
            (SELECT max(last) FROM cost_sessions WHERE session = ?1 AND model = ?2 AND requests > 0),
            (SELECT max(last) FROM cost_sessions WHERE session = ?1 AND requests > 0),
            (SELECT last_event FROM sessions WHERE id = ?1))",
    )?
    .query_row([session, model], |row| row.get(0))
}

fn put(conn: &Connection, memory: &mut Memory, part: &Part) -> rusqlite::Result<()> {
    let priced_by = memory.priced_by(conn)?;
    let u = &part.usage;
    let mut id = RowId::first_of(TimestampMs::clamped(part.ts)).0;
    loop {
        let rows = conn
            .prepare_cached(
                "INSERT INTO api_requests (id, ts, session, born, agent, model, input, output, cache_read,
                    cache_write_5m, cache_write_1h, web_searches, cost, confidence, sources, ranks, speed, priced_by)
                VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, 0, 0, ?14)
                ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                id,
                part.ts,
                part.session,
                part.agent,
                part.model,
                to_i64(u.input),
                to_i64(u.output),
                to_i64(u.cache_read),
                to_i64(u.cache_write_5m),
                to_i64(u.cache_write_1h),
                to_i64(u.web_searches),
                part.cost,
                part.confidence as i64,
                priced_by
            ])?;
        if rows == 1 {
            return Ok(());
        }
        id += 1;
    }
}

fn change(
    conn: &Connection,
    model: &str,
    old: Option<&Part>,
    new: Option<&Part>,
) -> rusqlite::Result<LedgerChange> {
    let (session, ts) = new.or(old).map_or((0, 0), |part| (part.session, part.ts));
    let session_id = conn
        .prepare_cached("SELECT session_id FROM sessions WHERE id = ?1")?
        .query_row([session], |row| row.get(0))?;
    let cost = |part: Option<&Part>| part.and_then(|part| part.cost).unwrap_or(0);
    Ok(LedgerChange {
        session_id,
        agent_id: None,
        app: String::new(),
        user: None,
        model: model.to_owned(),
        ts: TimestampMs::clamped(ts),
        is_new: old.is_none(),
        cost_before_nano_usd: cost(old),
        cost_nano_usd: cost(new),
        tokens: new.map_or(0, |part| part.usage.total()),
        confidence: Confidence::Estimated,
        request: None,
    })
}
