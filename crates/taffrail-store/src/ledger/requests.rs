//! The table `api_requests`: rows to states of the merge and back, and one transaction's worth of them.
//!
//! A transaction joins all it hears in memory and writes each request once. Two rows that turn out to be one (a request
//! id by OTLP, a message id by a transcript, and a line that has both) become one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Statement, params};
use taffrail_event::ids::ROWS_PER_MS;
use taffrail_event::ledger::{
    ApiRequest, Confidence, LineUsage, RequestSighting, Settled, Speed, Told, Usage,
};
use taffrail_event::{RowId, TimestampMs};

use crate::events::to_i64;
use crate::ledger::keys::{ByKey, hash_of, key_of};
use crate::ledger::names::Memory;
use crate::ledger::sums::{Deltas, Part};
use crate::ledger::{LedgerChange, RequestNow};

/// By what the main agent is summed up.
pub(crate) const MAIN: &str = "main";
/// By what a subagent of unknown type is summed up.
pub(crate) const SUBAGENT: &str = "subagent";

/// In `ranks`, three bits for each of these.
#[derive(Clone, Copy)]
enum Rank {
    AgentType,
    Prompt,
    Model,
    Tier,
    Geo,
    QuerySource,
    Effort,
    StopReason,
    Duration,
    Ttft,
    /// Whose word the usage by OTLP is; 0 where there is none.
    Otlp,
}

const RANK_BITS: i64 = 3;
/// In `ranks`: there is a usage by transcript.
const HAS_LINE: i64 = 1 << 40;
/// In `ranks`: it is final.
const LINE_IS_FINAL: i64 = 1 << 41;
/// In `ranks`: other sessions show it.
const HAS_COPIES: i64 = 1 << 42;

fn rank_of(ranks: i64, of: Rank) -> u8 {
    u8::try_from((ranks >> (RANK_BITS * of as i64)) & 7).unwrap_or(0)
}

const fn ranked(rank: u8, of: Rank) -> i64 {
    (rank as i64) << (RANK_BITS * of as i64)
}

/// A row as it stands in the database.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: i64,
    pub(crate) state: ApiRequest,
    pub(crate) part: Part,
    /// Of its first message id and request id; none where there is none, or another row has that key.
    keys: Keys,
    /// Whether ids of it stand in `api_request_ids`.
    has_further_ids: bool,
}

/// The keys of a row's message id and request id.
type Keys = [Option<i64>; 2];

/// Requests this transaction has heard of; what the database knows of them joins when they are written.
#[derive(Default)]
pub(crate) struct Pending {
    /// None where it was joined into another one.
    slots: Vec<Option<ApiRequest>>,
    by_message: Slots,
    by_request: Slots,
}

/// Which slot an id is in.
#[derive(Default)]
struct Slots {
    by_key: HashMap<i64, usize, ByKey>,
    /// Ids whose key is that of an id in another slot.
    others: HashMap<String, usize>,
}

impl Slots {
    /// The slot of an id; `has` says whether it is in a slot.
    fn get(&self, (id, key): (&str, i64), has: impl Fn(usize) -> bool) -> Option<usize> {
        let at = *self.by_key.get(&key)?;
        if has(at) { Some(at) } else { self.others.get(id).copied() }
    }

    /// Puts an id that is in no slot yet.
    fn put(&mut self, (id, key): (&str, i64), at: usize) {
        match self.by_key.entry(key) {
            Entry::Vacant(free) => drop(free.insert(at)),
            Entry::Occupied(_) => drop(self.others.insert(id.to_owned(), at)),
        }
    }

    /// Moves an id with its slot.
    fn follow(&mut self, id: &str, from: usize, into: usize) {
        match self.by_key.get_mut(&key_of(id)) {
            Some(at) if *at == from || *at == into => *at = into,
            _ => drop(self.others.insert(id.to_owned(), into)),
        }
    }
}

/// What writing the requests touched.
#[derive(Default)]
pub(crate) struct Touched {
    pub(crate) changes: Vec<LedgerChange>,
    /// Sessions whose requests changed.
    pub(crate) sessions: BTreeSet<i64>,
    /// Sessions that show requests of others, where that changed.
    pub(crate) forks: BTreeSet<i64>,
    /// Of the last subagent without a told type: session, agent, and the name by which it is summed up.
    agent: Option<(String, String, i64)>,
}

/// What writing the requests came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) new: u64,
    pub(crate) changed: u64,
}

impl Pending {
    /// Takes in what a source tells.
    pub(crate) fn see(&mut self, sighting: RequestSighting) {
        let now = ApiRequest::from(sighting);
        let slot = |at: usize| self.slots[at].as_ref();
        let first = |ids| -> Option<(&String, i64)> { <[String]>::first(ids).map(|id| (id, key_of(id))) };
        let (message, request) = (first(&now.message_ids), first(&now.request_ids));
        let by_message = message.and_then(|(id, key)| {
            self.by_message.get((id, key), |at| slot(at).is_some_and(|slot| slot.message_ids.contains(id)))
        });
        let by_request = request.and_then(|(id, key)| {
            self.by_request.get((id, key), |at| slot(at).is_some_and(|slot| slot.request_ids.contains(id)))
        });
        let home = match (by_message, by_request) {
            (Some(a), Some(b)) if a != b => Some(self.unite(a, b)),
            (a, b) => a.or(b),
        };
        let at = home.unwrap_or(self.slots.len());
        if let (Some(id), None) = (message, by_message) {
            self.by_message.put((id.0, id.1), at);
        }
        if let (Some(id), None) = (request, by_request) {
            self.by_request.put((id.0, id.1), at);
        }
        match self.slots.get_mut(at) {
            Some(Some(request)) => request.join(now),
            _ => self.slots.push(Some(now)),
        }
    }

    /// Makes two slots one.
    fn unite(&mut self, a: usize, b: usize) -> usize {
        let (into, from) = (a.min(b), a.max(b));
        let Some(gone) = self.slots[from].take() else { return into };
        gone.message_ids.iter().for_each(|id| self.by_message.follow(id, from, into));
        gone.request_ids.iter().for_each(|id| self.by_request.follow(id, from, into));
        if let Some(request) = &mut self.slots[into] {
            request.join(gone);
        }
        into
    }

    /// Writes what is new or changed, by time. A row is written before the next is looked for, so that two that a stored
    /// row shows to be one meet in it.
    pub(crate) fn flush(
        self,
        conn: &Connection,
        memory: &mut Memory,
        deltas: &mut Deltas,
        touched: &mut Touched,
    ) -> rusqlite::Result<Written> {
        let mut slots = self.slots;
        let mut order: Vec<usize> = (0..slots.len()).filter(|at| slots[*at].is_some()).collect();
        order.sort_by_key(|at| slots[*at].as_ref().map(|request| (request.ts, &request.message_ids)));
        let mut written = Written::default();
        let mut insert = conn.prepare_cached(&INSERT_NEW)?;
        // Where the last one was new, so will be this one: it is tried without looking.
        let mut expects_new = true;
        for at in order {
            let Some(mut now) = slots[at].take() else { continue };
            let is_plain = now.message_ids.len() < 2 && now.request_ids.len() < 2;
            if expects_new && is_plain && !has_extra_ids(conn, memory)? {
                let settled = now.settle(&memory.prices);
                let part = part_of(conn, memory, &now, &settled, touched)?;
                let keys = [now.message_ids.first(), now.request_ids.first()];
                let keys = keys.map(|id| id.map(|id| key_of(id)));
                let id = RowId::first_of(now.ts).0 + place_of(&now);
                if put(conn, memory, &mut insert, (id, keys), &now, &part)? {
                    written.new += 1;
                    wrote(conn, memory, (&[], now, (id, keys)), &part, deltas, touched)?;
                    continue;
                }
            }
            let stored = find_all(conn, memory, &now)?;
            let before = stored.first().map(|one| one.state.clone());
            for one in &stored {
                now.join(one.state.clone());
            }
            expects_new = stored.is_empty();
            if stored.len() == 1 && before.as_ref() == Some(&now) {
                continue;
            }
            if stored.is_empty() {
                written.new += 1;
            } else {
                written.changed += 1;
            }
            write(conn, memory, &stored, now, deltas, touched)?;
        }
        Ok(written)
    }
}

/// Every row that has an id of the request.
fn find_all(conn: &Connection, memory: &mut Memory, now: &ApiRequest) -> rusqlite::Result<Vec<Stored>> {
    let mut found: Vec<Stored> = Vec::new();
    for (kind, ids) in [(Id::Message, &now.message_ids), (Id::Request, &now.request_ids)] {
        for id in ids {
            let is_known = |one: &Stored| match kind {
                Id::Message => one.state.message_ids.contains(id),
                Id::Request => one.state.request_ids.contains(id),
            };
            if !found.iter().any(is_known) {
                found.extend(find(conn, memory, kind, id)?);
            }
        }
    }
    Ok(found)
}

/// The kind of an id; the number is that of `api_request_ids.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    Message = 0,
    Request = 1,
}

const COLUMNS: &str = "id, ts, message_id, request_id, session, born, agent_id, agent_type, agent, prompt_id, model, input,
    output, cache_read, cache_write_5m, cache_write_1h, web_searches, cost, told_cost, confidence, sources, ranks,
    evidence, speed, service_tier, inference_geo, query_source, effort, stop_reason, duration, ttft, attempts, message_key,
    request_key";

static BY_MESSAGE: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {COLUMNS} FROM api_requests WHERE message_key = ?1 AND message_id = ?2")
});
static BY_REQUEST: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {COLUMNS} FROM api_requests WHERE request_key = ?1 AND request_id = ?2")
});
static BY_ROW: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM api_requests WHERE id = ?1"));
static PAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM api_requests NOT INDEXED WHERE id > ?1 AND sources <> 0 ORDER BY id LIMIT ?2"
    )
});

fn find(conn: &Connection, memory: &mut Memory, kind: Id, name: &str) -> rusqlite::Result<Option<Stored>> {
    let sql = match kind {
        Id::Message => &BY_MESSAGE,
        Id::Request => &BY_REQUEST,
    };
    let mut found = {
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![key_of(name), name])?;
        rows.next()?.map(|row| from_row(conn, memory, row)).transpose()?
    };
    if found.is_none() && has_extra_ids(conn, memory)? {
        let id: Option<i64> = conn
            .prepare_cached("SELECT request FROM api_request_ids WHERE kind = ?1 AND name = ?2")?
            .query_row(params![kind as i64, name], |row| row.get(0))
            .optional()?;
        if let Some(id) = id {
            let mut statement = conn.prepare_cached(&BY_ROW)?;
            let mut rows = statement.query([id])?;
            found = rows.next()?.map(|row| from_row(conn, memory, row)).transpose()?;
        }
    }
    if let Some((stored, has_copies)) = &mut found {
        read_extras(conn, memory, stored, *has_copies)?;
    }
    Ok(found.map(|(stored, _)| stored))
}

fn has_extra_ids(conn: &Connection, memory: &mut Memory) -> rusqlite::Result<bool> {
    if let Some(has) = memory.has_extra_ids {
        return Ok(has);
    }
    let has = conn.query_row("SELECT EXISTS (SELECT 1 FROM api_request_ids)", [], |row| row.get(0))?;
    memory.has_extra_ids = Some(has);
    Ok(has)
}

fn read_extras(
    conn: &Connection,
    memory: &mut Memory,
    stored: &mut Stored,
    has_copies: bool,
) -> rusqlite::Result<()> {
    if has_extra_ids(conn, memory)? {
        let mut statement =
            conn.prepare_cached("SELECT kind, name FROM api_request_ids WHERE request = ?1")?;
        let mut rows = statement.query([stored.id])?;
        while let Some(row) = rows.next()? {
            let ids = match row.get::<_, i64>(0)? {
                0 => &mut stored.state.message_ids,
                _ => &mut stored.state.request_ids,
            };
            let id: String = row.get(1)?;
            if !ids.contains(&id) {
                ids.push(id);
            }
            stored.has_further_ids = true;
        }
        stored.state.message_ids.sort();
        stored.state.request_ids.sort();
    }
    if has_copies {
        let mut statement =
            conn.prepare_cached("SELECT session FROM api_request_copies WHERE request = ?1")?;
        let mut rows = statement.query([stored.id])?;
        while let Some(row) = rows.next()? {
            stored.state.copies.push(memory.session_text(conn, row.get(0)?)?);
        }
        stored.state.copies.sort();
    }
    Ok(())
}

/// The requests after that row, by time, without further ids and copies; derived rows are left out.
pub(crate) fn page(
    conn: &Connection,
    memory: &mut Memory,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Stored>> {
    let mut statement = conn.prepare_cached(&PAGE)?;
    let mut rows = statement.query(params![after, to_i64(limit)])?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(from_row(conn, memory, row)?.0);
    }
    Ok(page)
}

/// A row, and whether other sessions show it.
fn from_row(
    conn: &Connection,
    memory: &mut Memory,
    row: &rusqlite::Row<'_>,
) -> rusqlite::Result<(Stored, bool)> {
    let ranks: i64 = row.get(21)?;
    let mut told = |column: usize, of: Rank| -> rusqlite::Result<Option<Told<String>>> {
        let Some(id) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
        Ok(Some(Told { rank: rank_of(ranks, of), value: memory.text(conn, id)? }))
    };
    let number = |column: usize, of: Rank| -> rusqlite::Result<Option<Told<u64>>> {
        let value: Option<i64> = row.get(column)?;
        Ok(value.map(|value| Told { rank: rank_of(ranks, of), value: unsigned(value) }))
    };
    let usage = usage_from_row(row, 11)?;
    let evidence: Option<Vec<u8>> = row.get(22)?;
    let (by_line, by_otlp) = evidence.as_deref().and_then(decode_evidence).unwrap_or((usage, usage));
    let otlp_rank = rank_of(ranks, Rank::Otlp);
    let ts: i64 = row.get(1)?;
    let sources: u8 = row.get(20)?;
    let prompt_id: Option<String> = row.get(9)?;
    let mut state = ApiRequest {
        message_ids: row.get::<_, Option<String>>(2)?.into_iter().collect(),
        request_ids: row.get::<_, Option<String>>(3)?.into_iter().collect(),
        ts: TimestampMs::clamped(ts),
        born: TimestampMs::clamped(row.get(5)?),
        session_id: String::new(),
        copies: Vec::new(),
        agent_id: row.get(6)?,
        agent_type: told(7, Rank::AgentType)?,
        prompt_id: prompt_id.map(|value| Told { rank: rank_of(ranks, Rank::Prompt), value }),
        model: told(10, Rank::Model)?.filter(|model| !model.value.is_empty()),
        speed: if row.get::<_, i64>(23)? == 1 { Speed::Fast } else { Speed::Standard },
        service_tier: told(24, Rank::Tier)?,
        inference_geo: told(25, Rank::Geo)?,
        query_source: told(26, Rank::QuerySource)?,
        effort: told(27, Rank::Effort)?,
        stop_reason: told(28, Rank::StopReason)?,
        duration_ms: number(29, Rank::Duration)?,
        ttft_ms: number(30, Rank::Ttft)?,
        attempts: row.get(31)?,
        told_cost_nano_usd: row.get(18)?,
        sources,
        otlp: (otlp_rank > 0).then_some(Told { rank: otlp_rank, value: by_otlp }),
        line: (ranks & HAS_LINE != 0)
            .then_some(LineUsage { usage: by_line, is_final: ranks & LINE_IS_FINAL != 0 }),
    };
    let part = Part {
        session: row.get(4)?,
        ts,
        model: row.get(10)?,
        agent: row.get(8)?,
        usage,
        cost: row.get(17)?,
        confidence: confidence_of(row.get(19)?),
        is_derived: sources == 0,
    };
    state.session_id = memory.session_text(conn, part.session)?;
    let keys = [row.get(32)?, row.get(33)?];
    Ok((Stored { id: row.get(0)?, state, part, keys, has_further_ids: false }, ranks & HAS_COPIES != 0))
}

/// The confidence of a stored number.
pub(crate) fn confidence_of(number: i64) -> Confidence {
    let at = usize::try_from(number).unwrap_or(usize::MAX);
    Confidence::ALL.get(at).copied().unwrap_or(Confidence::LowerBound)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn ranks_of(state: &ApiRequest) -> i64 {
    fn rank<T>(told: &Option<Told<T>>, of: Rank) -> i64 {
        told.as_ref().map_or(0, |told| ranked(told.rank, of))
    }
    let line = match &state.line {
        Some(line) if line.is_final => HAS_LINE | LINE_IS_FINAL,
        Some(_) => HAS_LINE,
        None => 0,
    };
    let copies = if state.copies.is_empty() { 0 } else { HAS_COPIES };
    rank(&state.agent_type, Rank::AgentType)
        | copies
        | rank(&state.prompt_id, Rank::Prompt)
        | rank(&state.model, Rank::Model)
        | rank(&state.service_tier, Rank::Tier)
        | rank(&state.inference_geo, Rank::Geo)
        | rank(&state.query_source, Rank::QuerySource)
        | rank(&state.effort, Rank::Effort)
        | rank(&state.stop_reason, Rank::StopReason)
        | rank(&state.duration_ms, Rank::Duration)
        | rank(&state.ttft_ms, Rank::Ttft)
        | rank(&state.otlp, Rank::Otlp)
        | line
}

/// Both usages as twelve numbers of seven bits a byte, the transcript's first; nothing where each that is there is the
/// row's.
fn encode_evidence(state: &ApiRequest, usage: &Usage) -> Option<Vec<u8>> {
    let line = state.line.map_or(*usage, |line| line.usage);
    let otlp = state.otlp.as_ref().map_or(*usage, |told| told.value);
    if line == *usage && otlp == *usage {
        return None;
    }
    let mut bytes = Vec::with_capacity(32);
    for u in [line, otlp] {
        let counts = [u.input, u.output, u.cache_read, u.cache_write_5m, u.cache_write_1h, u.web_searches];
        for mut count in counts {
            while count >= 0x80 {
                bytes.push((count & 0x7f) as u8 | 0x80);
                count >>= 7;
            }
            bytes.push(count as u8);
        }
    }
    Some(bytes)
}

/// The transcript's usage, where it is not the row's.
pub(crate) fn line_of_evidence(bytes: &[u8]) -> Option<Usage> {
    decode_evidence(bytes).map(|(line, _)| line)
}

/// The usage by transcript and by OTLP.
pub(crate) fn decode_evidence(bytes: &[u8]) -> Option<(Usage, Usage)> {
    let mut bytes = bytes.iter();
    let mut count = || -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = *bytes.next()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    };
    let mut usage = || -> Option<Usage> {
        Some(Usage {
            input: count()?,
            output: count()?,
            cache_read: count()?,
            cache_write_5m: count()?,
            cache_write_1h: count()?,
            web_searches: count()?,
        })
    };
    Some((usage()?, usage()?))
}

/// What a request adds to the sums; its session has a row after this.
fn part_of(
    conn: &Connection,
    memory: &mut Memory,
    now: &ApiRequest,
    settled: &Settled,
    touched: &mut Touched,
) -> rusqlite::Result<Part> {
    let ts = now.ts.get();
    Ok(Part {
        session: memory.session(conn, &now.session_id, ts)?,
        ts,
        model: memory.name(conn, now.model_name())?,
        agent: agent_of(conn, memory, now, touched)?,
        usage: settled.usage,
        cost: settled.cost_nano_usd,
        confidence: settled.confidence,
        is_derived: false,
    })
}

/// Writes one request that is new or changed, in place of its rows.
fn write(
    conn: &Connection,
    memory: &mut Memory,
    stored: &[Stored],
    now: ApiRequest,
    deltas: &mut Deltas,
    touched: &mut Touched,
) -> rusqlite::Result<()> {
    let settled = now.settle(&memory.prices);
    let part = part_of(conn, memory, &now, &settled, touched)?;
    let id = match stored {
        [one] if one.part.ts == part.ts => {
            let keys = keys_of(conn, Some(one), &now)?;
            let stays = keys == one.keys
                && part.session == one.part.session
                && now.message_ids.first() == one.state.message_ids.first()
                && now.request_ids.first() == one.state.request_ids.first();
            let mut update = conn.prepare_cached(if stays { &UPDATE_REST } else { &UPDATE })?;
            put(conn, memory, &mut update, (one.id, keys), &now, &part)?;
            (one.id, keys)
        }
        _ => {
            for old in stored {
                conn.prepare_cached("DELETE FROM api_requests WHERE id = ?1")?.execute([old.id])?;
            }
            let keys = keys_of(conn, None, &now)?;
            (insert(conn, memory, keys, &now, &part)?, keys)
        }
    };
    wrote(conn, memory, (stored, now, id), &part, deltas, touched)
}

/// The keys of a row's first ids, as far as no other row has them.
fn keys_of(conn: &Connection, stored: Option<&Stored>, now: &ApiRequest) -> rusqlite::Result<Keys> {
    let before = |kind: Id| {
        stored.map(|one| match kind {
            Id::Message => one.state.message_ids.first(),
            Id::Request => one.state.request_ids.first(),
        })
    };
    let mut keys = [None; 2];
    for (kind, ids, sql) in [
        (Id::Message, &now.message_ids, "SELECT id FROM api_requests WHERE message_key = ?1"),
        (Id::Request, &now.request_ids, "SELECT id FROM api_requests WHERE request_key = ?1"),
    ] {
        let Some(first) = ids.first() else { continue };
        keys[kind as usize] = match stored {
            Some(one) if before(kind) == Some(Some(first)) => one.keys[kind as usize],
            _ => {
                let key = key_of(first);
                let owner: Option<i64> =
                    conn.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
                owner.is_none_or(|owner| stored.is_some_and(|one| one.id == owner)).then_some(key)
            }
        };
    }
    Ok(keys)
}

/// What follows from a row that was written: what hangs on it, the sums, and who must hear.
fn wrote(
    conn: &Connection,
    memory: &mut Memory,
    (stored, now, (id, keys)): (&[Stored], ApiRequest, (i64, Keys)),
    part: &Part,
    deltas: &mut Deltas,
    touched: &mut Touched,
) -> rusqlite::Result<()> {
    write_extras(conn, memory, stored, (&now, id, keys), touched)?;
    touched.sessions.insert(part.session);
    let mut cost_before = 0;
    for old in stored {
        cost_before += old.part.cost.unwrap_or(0);
        touched.sessions.insert(old.part.session);
    }
    for old in stored.iter().skip(1) {
        deltas.change(Some(&old.part), None);
    }
    deltas.change(stored.first().map(|old| &old.part), Some(part));
    if !memory.is_heard {
        return Ok(());
    }
    touched.changes.push(LedgerChange {
        app: String::new(),
        user: None,
        model: now.model_name().to_owned(),
        ts: now.ts,
        is_new: stored.is_empty(),
        cost_before_nano_usd: cost_before,
        cost_nano_usd: part.cost.unwrap_or(0),
        tokens: part.usage.total(),
        confidence: part.confidence,
        request: Some(RequestNow {
            id,
            usage: part.usage,
            cost_nano_usd: part.cost,
            duration_ms: now.duration_ms.as_ref().map(|told| told.value),
            context_window: memory.context_window(part.model, now.model_name()),
            query_source: now.query_source.as_ref().map(|told| told.value.clone()),
        }),
        session_id: now.session_id,
        agent_id: now.agent_id,
    });
    Ok(())
}

/// The name by which the request is summed up.
fn agent_of(
    conn: &Connection,
    memory: &mut Memory,
    now: &ApiRequest,
    touched: &mut Touched,
) -> rusqlite::Result<i64> {
    if let Some(told) = &now.agent_type {
        return memory.name(conn, &told.value);
    }
    let Some(agent_id) = &now.agent_id else { return memory.name(conn, MAIN) };
    if let Some((session, agent, name)) = &touched.agent
        && (session, agent) == (&now.session_id, agent_id)
    {
        return Ok(*name);
    }
    let name = agent_in_table(conn, memory, &now.session_id, agent_id, now.ts)?;
    touched.agent = Some((now.session_id.clone(), agent_id.clone(), name));
    Ok(name)
}

/// By what its row says an agent is summed up; where it has none, or no type, its row then says that requests wait for it.
fn agent_in_table(
    conn: &Connection,
    memory: &mut Memory,
    session_id: &str,
    agent_id: &str,
    ts: TimestampMs,
) -> rusqlite::Result<i64> {
    let of_agent: Option<Option<String>> = conn
        .prepare_cached("SELECT agent_type FROM agents WHERE session_id = ?1 AND agent_id = ?2")?
        .query_row([session_id, agent_id], |row| row.get(0))
        .optional()?;
    match of_agent {
        Some(Some(agent_type)) if !agent_type.is_empty() => return memory.name(conn, &agent_type),
        Some(_) => {}
        None => {
            conn.prepare_cached("UPDATE sessions SET subagents = subagents + 1 WHERE session_id = ?1")?
                .execute([session_id])?;
        }
    }
    conn.prepare_cached(
        "INSERT INTO agents (session_id, agent_id, started, last_event, worked, events, calls, failed_calls, untyped)
            VALUES (?1, ?2, ?3, ?3, 0, 0, 0, 0, 1)
            ON CONFLICT DO UPDATE SET untyped = 1",
    )?
    .execute(params![session_id, agent_id, ts.get()])?;
    memory.name(conn, SUBAGENT)
}

/// The columns of a row as [`put`] binds them.
const PUT: [&str; 36] = [
    "id",
    "ts",
    "message_id",
    "message_key",
    "request_id",
    "request_key",
    "session",
    "born",
    "agent_id",
    "agent_type",
    "agent",
    "prompt_id",
    "model",
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "web_searches",
    "cost",
    "told_cost",
    "confidence",
    "sources",
    "ranks",
    "evidence",
    "speed",
    "service_tier",
    "inference_geo",
    "query_source",
    "effort",
    "stop_reason",
    "duration",
    "ttft",
    "attempts",
    "context_window",
    "priced_by",
];
/// From here on no column is in an index that requests are found by.
const PUT_REST: usize = 7;

fn insert_sql(conflict: &str) -> String {
    let places: Vec<String> = (1..=PUT.len()).map(|n| format!("?{n}")).collect();
    format!("INSERT INTO api_requests ({}) VALUES ({}) {conflict}", PUT.join(", "), places.join(", "))
}

fn update_sql(from: usize) -> String {
    let set = |(at, column): (usize, &&str)| format!("{column} = ?{}", at + 1);
    let sets: Vec<String> = PUT.iter().enumerate().skip(from).map(set).collect();
    format!("UPDATE api_requests SET {} WHERE id = ?1", sets.join(", "))
}

/// Leaves everything as it is where the place or a key is taken.
static INSERT_NEW: LazyLock<String> = LazyLock::new(|| insert_sql("ON CONFLICT DO NOTHING"));
/// Leaves everything as it is where the place is taken; a key that is taken is an error.
static INSERT_AT: LazyLock<String> = LazyLock::new(|| insert_sql("ON CONFLICT (id) DO NOTHING"));
static UPDATE: LazyLock<String> = LazyLock::new(|| update_sql(1));
/// Leaves time, ids and session, so that no index is written.
static UPDATE_REST: LazyLock<String> = LazyLock::new(|| update_sql(PUT_REST));

/// A new row at the first free id of its millisecond, begun at a place that its ids decide.
fn insert(
    conn: &Connection,
    memory: &mut Memory,
    keys: Keys,
    now: &ApiRequest,
    part: &Part,
) -> rusqlite::Result<i64> {
    let mut place = place_of(now);
    let first = RowId::first_of(now.ts).0;
    let mut statement = conn.prepare_cached(&INSERT_AT)?;
    for tried in 0.. {
        let id = first + tried / ROWS_PER_MS * ROWS_PER_MS + place;
        if put(conn, memory, &mut statement, (id, keys), now, part)? {
            return Ok(id);
        }
        place = (place + 1) % ROWS_PER_MS;
    }
    Ok(first)
}

/// Where in its millisecond a row lies: rows of one millisecond rarely meet, without reading who is there.
fn place_of(now: &ApiRequest) -> i64 {
    let name = now.message_ids.first().or(now.request_ids.first()).map_or("", String::as_str);
    i64::try_from(hash_of(name) >> 52).unwrap_or(0)
}

/// Writes all columns of a row; false where its place or a key is taken.
fn put(
    conn: &Connection,
    memory: &mut Memory,
    statement: &mut Statement<'_>,
    (id, keys): (i64, Keys),
    now: &ApiRequest,
    part: &Part,
) -> rusqlite::Result<bool> {
    fn text(told: &Option<Told<String>>) -> Option<&str> {
        told.as_ref().map(|told| told.value.as_str())
    }
    fn number(told: &Option<Told<u64>>) -> Option<i64> {
        told.as_ref().map(|told| to_i64(told.value))
    }
    fn word(word: Option<&str>) -> ValueRef<'_> {
        word.map_or(ValueRef::Null, |word| ValueRef::Text(word.as_bytes()))
    }
    fn count(count: Option<i64>) -> ValueRef<'static> {
        count.map_or(ValueRef::Null, ValueRef::Integer)
    }
    let usage = &part.usage;
    let agent_type = memory.name_of(conn, text(&now.agent_type))?;
    let tier = memory.name_of(conn, text(&now.service_tier))?;
    let geo = memory.name_of(conn, text(&now.inference_geo))?;
    let query_source = memory.name_of(conn, text(&now.query_source))?;
    let effort = memory.name_of(conn, text(&now.effort))?;
    let stop_reason = memory.name_of(conn, text(&now.stop_reason))?;
    let priced_by = memory.priced_by(conn)?;
    let window = memory.context_window(part.model, now.model_name());
    let evidence = encode_evidence(now, usage);
    let values: [ValueRef<'_>; PUT.len()] = [
        ValueRef::Integer(id),
        ValueRef::Integer(part.ts),
        word(now.message_ids.first().map(String::as_str)),
        count(keys[Id::Message as usize]),
        word(now.request_ids.first().map(String::as_str)),
        count(keys[Id::Request as usize]),
        ValueRef::Integer(part.session),
        ValueRef::Integer(now.born.get()),
        word(now.agent_id.as_deref()),
        count(agent_type),
        ValueRef::Integer(part.agent),
        word(text(&now.prompt_id)),
        ValueRef::Integer(part.model),
        ValueRef::Integer(to_i64(usage.input)),
        ValueRef::Integer(to_i64(usage.output)),
        ValueRef::Integer(to_i64(usage.cache_read)),
        ValueRef::Integer(to_i64(usage.cache_write_5m)),
        ValueRef::Integer(to_i64(usage.cache_write_1h)),
        ValueRef::Integer(to_i64(usage.web_searches)),
        count(part.cost),
        count(now.told_cost_nano_usd),
        ValueRef::Integer(part.confidence as i64),
        ValueRef::Integer(i64::from(now.sources)),
        ValueRef::Integer(ranks_of(now)),
        evidence.as_deref().map_or(ValueRef::Null, ValueRef::Blob),
        ValueRef::Integer(i64::from(now.speed == Speed::Fast)),
        count(tier),
        count(geo),
        count(query_source),
        count(effort),
        count(stop_reason),
        count(number(&now.duration_ms)),
        count(number(&now.ttft_ms)),
        count(now.attempts.map(i64::from)),
        count(window),
        ValueRef::Integer(priced_by),
    ];
    // What is not bound is NULL: a third of a row is.
    statement.clear_bindings();
    for (place, value) in (1..).zip(values).filter(|(_, value)| *value != ValueRef::Null) {
        statement.raw_bind_parameter::<usize, _>(place, ToSqlOutput::Borrowed(value))?;
    }
    Ok(statement.raw_execute()? == 1)
}

/// Further ids, and the other sessions that show it.
fn write_extras(
    conn: &Connection,
    memory: &mut Memory,
    stored: &[Stored],
    (now, id, keys): (&ApiRequest, i64, Keys),
    touched: &mut Touched,
) -> rusqlite::Result<()> {
    let had_copies = stored.iter().any(|old| !old.state.copies.is_empty());
    if had_copies || !now.copies.is_empty() {
        touched.forks.insert(memory.session(conn, &now.session_id, now.ts.get())?);
        for old in stored {
            conn.prepare_cached("DELETE FROM api_request_copies WHERE request = ?1")?.execute([old.id])?;
        }
        for copy in &now.copies {
            let session = memory.session(conn, copy, now.ts.get())?;
            touched.forks.insert(session);
            conn.prepare_cached("INSERT INTO api_request_copies (session, request) VALUES (?1, ?2)")?
                .execute([session, id])?;
        }
    }
    for old in stored.iter().filter(|old| old.has_further_ids) {
        conn.prepare_cached("DELETE FROM api_request_ids WHERE request = ?1")?.execute([old.id])?;
    }
    let mut has_further = false;
    for (kind, ids) in [(Id::Message, &now.message_ids), (Id::Request, &now.request_ids)] {
        // The first is found by the row's own key, where it has one.
        for name in ids.iter().skip(usize::from(keys[kind as usize].is_some())) {
            has_further = true;
            conn.prepare_cached("INSERT INTO api_request_ids (kind, name, request) VALUES (?1, ?2, ?3)")?
                .execute(params![kind as i64, name, id])?;
        }
    }
    if !has_further {
        return Ok(());
    }
    memory.has_extra_ids = Some(true);
    Ok(())
}

/// Sums the requests of a subagent up by its type, which has become known, where no source of theirs tells one.
pub(crate) fn retype(
    conn: &Connection,
    memory: &mut Memory,
    session_id: &str,
    agent_id: &str,
    deltas: &mut Deltas,
) -> rusqlite::Result<()> {
    let agent_type: String = conn
        .prepare_cached(
            "SELECT coalesce(agent_type, '') FROM agents WHERE session_id = ?1 AND agent_id = ?2",
        )?
        .query_row([session_id, agent_id], |row| row.get(0))?;
    let agent = memory.name(conn, if agent_type.is_empty() { SUBAGENT } else { &agent_type })?;
    let sql = format!(
        "SELECT {PART_COLUMNS} FROM sessions s CROSS JOIN api_requests r INDEXED BY api_requests_session
            ON r.session = s.id WHERE s.session_id = ?1 AND r.agent_id = ?2 AND r.agent_type IS NULL AND r.agent <> ?3"
    );
    let parts = conn
        .prepare_cached(&sql)?
        .query_map(params![session_id, agent_id, agent], |row| part_from_row(row, 0))?
        .collect::<rusqlite::Result<Vec<(i64, Part)>>>()?;
    for (id, part) in parts {
        conn.prepare_cached("UPDATE api_requests SET agent = ?2 WHERE id = ?1")?.execute([id, agent])?;
        deltas.change(Some(&part), Some(&Part { agent, ..part }));
    }
    conn.prepare_cached("UPDATE agents SET untyped = 0 WHERE session_id = ?1 AND agent_id = ?2")?
        .execute([session_id, agent_id])?;
    Ok(())
}

/// What of a row the sums need.
pub(crate) const PART_COLUMNS: &str =
    "r.id, r.session, r.ts, r.model, r.agent, r.input, r.output, r.cache_read,
    r.cache_write_5m, r.cache_write_1h, r.web_searches, r.cost, r.confidence, r.sources";

/// A row's id and what the sums need of it, in columns from `at` on.
pub(crate) fn part_from_row(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<(i64, Part)> {
    let part = Part {
        session: row.get(at + 1)?,
        ts: row.get(at + 2)?,
        model: row.get(at + 3)?,
        agent: row.get(at + 4)?,
        usage: usage_from_row(row, at + 5)?,
        cost: row.get(at + 11)?,
        confidence: confidence_of(row.get(at + 12)?),
        is_derived: row.get::<_, i64>(at + 13)? == 0,
    };
    Ok((row.get(at)?, part))
}

/// The six counts in columns from `at` on.
pub(crate) fn usage_from_row(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Usage> {
    let count = |column: usize| Ok::<_, rusqlite::Error>(unsigned(row.get(at + column)?));
    Ok(Usage {
        input: count(0)?,
        output: count(1)?,
        cache_read: count(2)?,
        cache_write_5m: count(3)?,
        cache_write_1h: count(4)?,
        web_searches: count(5)?,
    })
}
