//! The table `tool_calls`: one row per tool call, merged from every event that speaks of it.
//!
//! Merging does not depend on the order of arrival: better evidence wins, of equal evidence the earlier end, and
//! begin and description are those of the earliest Pre. Only calls without a `tool_use_id` (old payloads) are paired
//! by guess: a Post ends the oldest open call of the same session, agent, tool and input, a Pre takes the oldest end
//! that waits for one; so their order matters where the same call is repeated.
//!
//! A call whose agent or session ended without its end being seen is abandoned at the first such moment after it
//! was seen; its own Post, however late, still upgrades it.

use std::cmp::Reverse;

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_event::event::{CallStatus, CallUpdate, Fact};
use taffrail_event::normalize::calls::{RANK_CLOSED, RANK_POST, RANK_PRE};
use taffrail_event::{Event, RowId, TimestampMs};

use crate::error::ReadError;
use crate::events::{CLOSES_AGENT, CLOSES_SESSION};
use crate::filter::CallFilter;
use crate::rollup::DURATION_MS_MAX;
use crate::rows::{Page, StoredCall, ToolChain};
use crate::scan;
use crate::sessions::is_unknown;

/// Calls of the same agent before a call that are looked at for an overlap.
const PARALLEL_LOOKBACK: usize = 16;

/// A call as the writer holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: i64,
    pub(crate) session_id: String,
    pub(crate) agent_id: String,
    pub(crate) agent_type: Option<String>,
    pub(crate) tool_use_id: Option<String>,
    pub(crate) app: String,
    pub(crate) user: Option<String>,
    pub(crate) tool_name: String,
    pub(crate) input_hash: i64,
    pub(crate) status: CallStatus,
    pub(crate) rank: u8,
    pub(crate) started: Option<i64>,
    pub(crate) ended: Option<i64>,
    pub(crate) told_ms: Option<i64>,
    pub(crate) start_event: Option<i64>,
    pub(crate) end_event: Option<i64>,
    pub(crate) summary: String,
    pub(crate) error_type: Option<String>,
    pub(crate) result_hash: Option<i64>,
    pub(crate) output_bytes: Option<i64>,
    pub(crate) seen: i64,
}

/// One event's word on one call.
#[derive(Clone, Copy)]
pub(crate) struct Sighting<'a> {
    pub(crate) row: RowId,
    pub(crate) event: &'a Event,
    pub(crate) update: &'a CallUpdate,
}

/// What a call adds to the rollups: nothing while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contribution {
    pub(crate) ended: i64,
    pub(crate) app: String,
    pub(crate) user: String,
    pub(crate) tool: String,
    /// The type of its agent: see [`agent_name`].
    pub(crate) agent: String,
    pub(crate) status: CallStatus,
    pub(crate) duration_ms: Option<i64>,
}

impl Contribution {
    /// The wall time that counts: that of a call whose end was seen, cut at [`DURATION_MS_MAX`].
    pub(crate) fn known_ms(&self) -> Option<i64> {
        let counts = self.status != CallStatus::Abandoned;
        self.duration_ms.filter(|_| counts).map(|ms| ms.clamp(0, DURATION_MS_MAX))
    }
}

/// A moment at which open calls end: its event and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) row: RowId,
    pub(crate) ts: i64,
}

impl Call {
    /// A call of which nothing is known yet but that this event speaks of it.
    fn unknown(s: Sighting<'_>) -> Self {
        Self {
            id: s.row.0,
            session_id: s.event.session_id.clone(),
            agent_id: s.event.agent_id.clone().unwrap_or_default(),
            agent_type: s.event.agent_type.clone(),
            tool_use_id: s.update.tool.tool_use_id.clone(),
            app: s.event.app.clone(),
            user: s.event.user.clone(),
            tool_name: s.update.tool.tool_name.clone(),
            input_hash: s.update.tool.input_hash,
            status: CallStatus::Running,
            rank: 0,
            started: None,
            ended: None,
            told_ms: None,
            start_event: None,
            end_event: None,
            summary: String::new(),
            error_type: None,
            result_hash: None,
            output_bytes: None,
            seen: s.event.ts.get(),
        }
    }

    /// Takes in what an event says.
    pub(crate) fn see(&mut self, s: Sighting<'_>) {
        let ts = s.event.ts.get();
        let earlier = ts < self.seen;
        let begins = is_begin(s.update) && self.start_event.is_none();
        if begins {
            self.start_event = Some(s.row.0);
            self.summary.clone_from(&s.event.summary);
        }
        // Telemetry knows no input, and not every tool's own name: any other event describes the call better.
        let told = matches!(s.event.fact, Fact::ToolTold(..));
        let describes = !told && (earlier || self.input_hash == 0) && self.start_event.is_none();
        if begins || describes {
            self.tool_name.clone_from(&s.update.tool.tool_name);
            self.input_hash = s.update.tool.input_hash;
        }
        if (earlier && self.rank <= RANK_CLOSED) || is_unknown(&self.app) {
            self.take_place(s.event);
        }
        if self.agent_type.is_none() {
            self.agent_type.clone_from(&s.event.agent_type);
        }
        self.seen = self.seen.min(ts);
        // A Post's own duration tells a begin, too; a Pre lies before it, since it counts the wait for a permission.
        self.started = match (self.started, s.update.started.map(TimestampMs::get)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.told_ms = self.told_ms.max(s.update.duration_ms.map(crate::events::to_i64));
        if s.update.rank > RANK_CLOSED {
            self.weigh_end(s);
        } else if self.summary.is_empty() && s.event.tool_name.is_some() {
            self.summary.clone_from(&s.event.summary);
        }
    }

    /// Takes the event's project and user, unless the event knows no project and the call does.
    fn take_place(&mut self, event: &Event) {
        if !is_unknown(&event.app) || is_unknown(&self.app) {
            self.app.clone_from(&event.app);
            self.user.clone_from(&event.user);
        }
    }

    /// Better evidence of the end replaces worse; of equal, the stronger status, then the earlier end.
    fn weigh_end(&mut self, s: Sighting<'_>) {
        let ended = s.update.ended.unwrap_or(s.event.ts).get();
        let new = (s.update.rank, strength(s.update.status), Reverse(Some(ended)));
        if self.rank > RANK_CLOSED && new <= (self.rank, strength(self.status), Reverse(self.ended)) {
            return;
        }
        self.rank = s.update.rank;
        self.status = s.update.status;
        self.ended = Some(ended);
        self.end_event = Some(s.row.0);
        self.error_type =
            s.event.error.as_ref().filter(|_| s.event.tool_name.is_some()).map(|e| e.class.to_owned());
        // A batch speaks of many calls; what one of them gave back is told by its own end alone.
        let own = matches!(s.event.fact, Fact::ToolEnd(..) | Fact::ToolTold(..));
        self.result_hash = s.event.metrics.result_hash.filter(|_| own);
        self.output_bytes = s.event.metrics.output_bytes.filter(|_| own).map(crate::events::to_i64);
        self.take_place(s.event);
        if self.start_event.is_none() && s.event.tool_name.is_some() {
            self.summary.clone_from(&s.event.summary);
        }
    }

    /// Whether that close would change it: it is open, or abandoned later, and was seen by then.
    fn is_closed_by(&self, close: Close) -> bool {
        self.seen <= close.ts
            && (self.rank < RANK_CLOSED
                || (self.rank == RANK_CLOSED && self.ended.is_none_or(|ended| close.ts < ended)))
    }

    /// Ends it as abandoned.
    pub(crate) fn close(&mut self, close: Close) {
        if self.is_closed_by(close) {
            self.rank = RANK_CLOSED;
            self.status = CallStatus::Abandoned;
            self.ended = Some(close.ts);
            self.end_event = Some(close.row.0);
        }
    }

    /// Whether no event has told its end.
    pub(crate) fn is_open(&self) -> bool {
        self.rank <= RANK_CLOSED
    }

    /// Told by the client, else Post minus Pre; only a Post of its own tells when it really ended.
    pub(crate) fn duration_ms(&self) -> Option<i64> {
        self.told_ms.or_else(|| match (self.started, self.ended) {
            (Some(started), Some(ended)) if self.rank >= RANK_POST => Some((ended - started).max(0)),
            _ => None,
        })
    }

    /// What it is ordered by: its begin, else what can be told of it.
    fn at(&self) -> i64 {
        self.started.unwrap_or(self.seen)
    }

    /// What it adds to the rollups.
    pub(crate) fn contribution(&self) -> Option<Contribution> {
        let ended = self.ended.filter(|_| self.status != CallStatus::Running)?;
        Some(Contribution {
            ended,
            app: self.app.clone(),
            user: self.user.clone().unwrap_or_default(),
            tool: self.tool_name.clone(),
            agent: agent_name(&self.agent_id, self.agent_type.as_deref()).to_owned(),
            status: self.status,
            duration_ms: self.duration_ms(),
        })
    }
}

/// What an agent counts as: `main`, its told type, or `subagent`.
pub(crate) fn agent_name<'t>(agent_id: &str, agent_type: Option<&'t str>) -> &'t str {
    if agent_id.is_empty() { "main" } else { agent_type.filter(|t| !t.is_empty()).unwrap_or("subagent") }
}

/// Whether it is a Pre event's word.
fn is_begin(update: &CallUpdate) -> bool {
    update.rank == RANK_PRE && update.started.is_some()
}

fn strength(status: CallStatus) -> usize {
    CallStatus::ALL.iter().position(|s| *s == status).unwrap_or(0)
}

const COLUMNS: &str =
    "id, session_id, agent_id, agent_type, tool_use_id, source_app, user, tool_name, input_hash, status,
    rank, started, ended, told_ms, start_event, end_event, summary, error_type, seen, result_hash,
    output_bytes";

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Call> {
    let status: String = row.get(9)?;
    Ok(Call {
        id: row.get(0)?,
        session_id: row.get(1)?,
        agent_id: row.get(2)?,
        agent_type: row.get(3)?,
        tool_use_id: row.get(4)?,
        app: row.get(5)?,
        user: row.get(6)?,
        tool_name: row.get(7)?,
        input_hash: row.get(8)?,
        status: status_of(&status),
        rank: row.get(10)?,
        started: row.get(11)?,
        ended: row.get(12)?,
        told_ms: row.get(13)?,
        start_event: row.get(14)?,
        end_event: row.get(15)?,
        summary: row.get(16)?,
        error_type: row.get(17)?,
        seen: row.get(18)?,
        result_hash: row.get(19)?,
        output_bytes: row.get(20)?,
    })
}

/// The status of that name; one this version does not know is an end that tells no more.
pub(crate) fn status_of(name: &str) -> CallStatus {
    CallStatus::from_name(name).unwrap_or(CallStatus::Ended)
}

/// The call that a sighting speaks of, as stored; none where it is new.
pub(crate) fn find(conn: &Connection, s: Sighting<'_>) -> rusqlite::Result<Option<Call>> {
    let agent = s.event.agent_id.as_deref().unwrap_or("");
    let tool = &s.update.tool;
    if let Some(id) = &tool.tool_use_id {
        let sql = format!(
            "SELECT {COLUMNS} FROM tool_calls WHERE session_id = ?1 AND agent_id = ?2 AND tool_use_id = ?3"
        );
        return conn
            .prepare_cached(&sql)?
            .query_row(params![s.event.session_id, agent, id], from_row)
            .optional();
    }
    let same =
        "session_id = ?1 AND tool_name = ?2 AND input_hash = ?3 AND agent_id = ?4 AND tool_use_id IS NULL";
    let which = if is_begin(s.update) {
        "start_event IS NULL AND ended >= ?5 ORDER BY ended, id"
    } else {
        "rank <= 1 AND seen <= ?5 ORDER BY seen, id"
    };
    let sql = format!("SELECT {COLUMNS} FROM tool_calls WHERE {same} AND {which} LIMIT 1");
    conn.prepare_cached(&sql)?
        .query_row(
            params![s.event.session_id, tool.tool_name, tool.input_hash, agent, s.event.ts.get()],
            from_row,
        )
        .optional()
}

/// A new row's beginnings; its id is the event's where that is free (a batch can bring several calls at once).
/// `is_promised` knows the ids of calls that are not written yet.
pub(crate) fn begin_row(
    conn: &Connection,
    s: Sighting<'_>,
    is_promised: impl Fn(i64) -> bool,
) -> rusqlite::Result<Call> {
    let mut call = Call::unknown(s);
    let mut taken = conn.prepare_cached("SELECT 1 FROM tool_calls WHERE id = ?1")?;
    while is_promised(call.id) || taken.exists([call.id])? {
        call.id += 1;
    }
    Ok(call)
}

/// Inserts the call.
pub(crate) fn insert(conn: &Connection, call: &Call) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO tool_calls (id, status, rank, started, ended, told_ms, duration_ms, start_event, end_event, summary,
            error_type, source_app, user, agent_type, session_id, agent_id, tool_use_id, tool_name, input_hash, seen, at,
            result_hash, output_bytes)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)",
    )?
    .execute(params![
        call.id,
        call.status.name(),
        call.rank,
        call.started,
        call.ended,
        call.told_ms,
        call.duration_ms(),
        call.start_event,
        call.end_event,
        call.summary,
        call.error_type,
        call.app,
        call.user,
        call.agent_type,
        call.session_id,
        call.agent_id,
        call.tool_use_id,
        call.tool_name,
        call.input_hash,
        call.seen,
        call.at(),
        call.result_hash,
        call.output_bytes,
    ])?;
    Ok(())
}

/// Writes what changed. What stands in indexes is named only where it is new: SQLite rewrites the entries of every
/// index whose columns an update names.
pub(crate) fn update(conn: &Connection, before: &Call, call: &Call) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "UPDATE tool_calls SET status = ?2, started = ?3, told_ms = ?4, duration_ms = ?5, end_event = ?6, summary = ?7,
            error_type = ?8, source_app = ?9, user = ?10, agent_type = ?11, seen = ?12, result_hash = ?13,
            output_bytes = ?14 WHERE id = ?1",
    )?
    .execute(params![
        call.id,
        call.status.name(),
        call.started,
        call.told_ms,
        call.duration_ms(),
        call.end_event,
        call.summary,
        call.error_type,
        call.app,
        call.user,
        call.agent_type,
        call.seen,
        call.result_hash,
        call.output_bytes,
    ])?;
    if (before.rank, before.ended) != (call.rank, call.ended) {
        conn.prepare_cached("UPDATE tool_calls SET rank = ?2, ended = ?3 WHERE id = ?1")?
            .execute(params![call.id, call.rank, call.ended])?;
    }
    let described = |call: &Call| (call.at(), call.start_event, call.tool_name.clone(), call.input_hash);
    if described(before) != described(call) {
        conn.prepare_cached(
            "UPDATE tool_calls SET at = ?2, start_event = ?3, tool_name = ?4, input_hash = ?5 WHERE id = ?1",
        )?
        .execute(params![call.id, call.at(), call.start_event, call.tool_name, call.input_hash])?;
    }
    Ok(())
}

/// The calls that a close ends; of one agent, or of the whole session.
pub(crate) fn closed_by(
    conn: &Connection,
    session_id: &str,
    agent_id: Option<&str>,
    close: Close,
) -> rusqlite::Result<Vec<Call>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tool_calls WHERE rank <= 1 AND rank IN (0, 1) AND session_id = ?1
            AND (?2 IS NULL OR agent_id = ?2) AND seen <= ?3 ORDER BY id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![session_id, agent_id, close.ts], from_row)?;
    let mut calls = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    calls.retain(|call| call.is_closed_by(close));
    Ok(calls)
}

/// The first event at or after `seen` that ended the open calls of that agent.
pub(crate) fn first_close(
    conn: &Connection,
    session_id: &str,
    agent_id: &str,
    seen: i64,
) -> rusqlite::Result<Option<Close>> {
    conn.prepare_cached(
        "SELECT id, timestamp FROM events INDEXED BY events_session WHERE session_id = ?1 AND id >= ?2
            AND timestamp >= ?3 AND (flags & ?4 <> 0 OR (flags & ?5 <> 0 AND coalesce(agent_id, '') = ?6))
            ORDER BY id LIMIT 1",
    )?
    .query_row(
        params![
            session_id,
            RowId::first_of(TimestampMs::clamped(seen)).0,
            seen,
            CLOSES_SESSION,
            CLOSES_AGENT,
            agent_id
        ],
        |row| Ok(Close { row: RowId(row.get(0)?), ts: row.get(1)? }),
    )
    .optional()
}

fn stored(conn: &Connection, call: Call) -> Result<StoredCall, ReadError> {
    let tool_chain = chain(conn, &call)?;
    let ms = TimestampMs::clamped;
    Ok(StoredCall {
        id: RowId(call.id),
        duration_ms: call.duration_ms(),
        started: call.started.map(ms),
        ended: call.ended.map(ms),
        tool_use_id: call.tool_use_id,
        app: call.app,
        user: call.user,
        session_id: call.session_id,
        agent_id: Some(call.agent_id).filter(|id| !id.is_empty()),
        agent_type: call.agent_type,
        tool_name: call.tool_name,
        input_hash: call.input_hash,
        summary: call.summary,
        status: call.status,
        start_event: call.start_event.map(RowId),
        end_event: call.end_event.map(RowId),
        error_type: call.error_type,
        tool_chain,
    })
}

/// The call's neighbours among its agent's calls, by begin. An overlap is looked for in the next call and the
/// [`PARALLEL_LOOKBACK`] before.
fn chain(conn: &Connection, call: &Call) -> Result<ToolChain, ReadError> {
    let key = params![call.session_id, call.agent_id, call.at(), call.id];
    let next: Option<(String, i64)> = conn
        .prepare_cached(
            "SELECT tool_name, at FROM tool_calls WHERE session_id = ?1 AND agent_id = ?2 AND (at, id) > (?3, ?4)
                ORDER BY at, id LIMIT 1",
        )?
        .query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let mut previous_tool = None;
    let mut overlaps_earlier = false;
    let sql = format!(
        "SELECT tool_name, ended FROM tool_calls WHERE session_id = ?1 AND agent_id = ?2 AND (at, id) < (?3, ?4)
            ORDER BY at DESC, id DESC LIMIT {PARALLEL_LOOKBACK}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(key)?;
    while let Some(row) = rows.next()? {
        if previous_tool.is_none() {
            previous_tool = Some(row.get(0)?);
        }
        overlaps_earlier |= row.get::<_, Option<i64>>(1)?.is_none_or(|ended| ended > call.at());
        if overlaps_earlier {
            break;
        }
    }
    let overlaps_next = next.as_ref().is_some_and(|(_, at)| call.ended.is_none_or(|ended| *at < ended));
    Ok(ToolChain {
        previous_tool,
        next_tool: next.map(|(tool, _)| tool),
        is_parallel: overlaps_earlier || overlaps_next,
    })
}

/// The chain of the call that an event speaks of.
pub(crate) fn chain_of_use(
    conn: &Connection,
    session_id: &str,
    agent_id: Option<&str>,
    tool_use_id: &str,
) -> Result<Option<ToolChain>, ReadError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tool_calls WHERE session_id = ?1 AND agent_id = ?2 AND tool_use_id = ?3"
    );
    let call = conn
        .prepare_cached(&sql)?
        .query_row(params![session_id, agent_id.unwrap_or(""), tool_use_id], from_row)
        .optional()?;
    call.map(|call| chain(conn, &call)).transpose()
}

/// Calls that match, newest first.
pub(crate) fn list(
    conn: &Connection,
    filter: &CallFilter,
    cursor: Option<RowId>,
    limit: usize,
) -> Result<Page<StoredCall>, ReadError> {
    let (below, from) = scan::id_range(filter.from, filter.to, cursor);
    let by_session = filter.session.is_some();
    let sql = if by_session {
        format!(
            "SELECT {COLUMNS} FROM tool_calls INDEXED BY tool_calls_at WHERE session_id = ?1
                AND (?2 IS NULL OR agent_id = ?2) AND id < ?3 AND id >= ?4 ORDER BY id DESC"
        )
    } else {
        format!(
            "SELECT {COLUMNS} FROM tool_calls NOT INDEXED WHERE (?1 IS NULL OR session_id = ?1)
                AND (?2 IS NULL OR agent_id = ?2) AND id < ?3 AND id >= ?4 ORDER BY id DESC"
        )
    };
    let matches = |call: &Call| {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&filter.app, &call.app)
            && is(&filter.tool, &call.tool_name)
            && is(&filter.status, call.status.name())
    };
    let mut statement = conn.prepare_cached(&sql)?;
    // The agent is matched below, so that a scan for a rare one stays bounded.
    let agent = filter.agent.as_deref().filter(|_| by_session);
    let rows = statement.query(params![filter.session, agent, below.0, from.0])?;
    let wanted_agent = |call: &Call| filter.agent.as_deref().is_none_or(|agent| agent == call.agent_id);
    let page = scan::page(rows, limit, |row| {
        let call = from_row(row)?;
        let keep = matches(&call) && wanted_agent(&call);
        Ok((RowId(call.id), keep.then_some(call)))
    })?;
    let rows = page.rows.into_iter().map(|call| stored(conn, call)).collect::<Result<_, _>>()?;
    Ok(Page { rows, next: page.next })
}

/// The newest `limit` calls of a session, by begin.
pub(crate) fn of_session(
    conn: &Connection,
    session_id: &str,
    limit: usize,
) -> Result<Vec<StoredCall>, ReadError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM (SELECT * FROM tool_calls INDEXED BY tool_calls_at WHERE session_id = ?1
            ORDER BY at DESC, id DESC LIMIT ?2) ORDER BY at, id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let calls = statement
        .query_map(params![session_id, crate::events::to_i64(limit)], from_row)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    calls.into_iter().map(|call| stored(conn, call)).collect()
}

/// Every call as the writer holds it, by id.
#[cfg(test)]
pub(crate) fn all(conn: &Connection) -> rusqlite::Result<Vec<Call>> {
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM tool_calls ORDER BY id"))?;
    statement.query_map([], from_row)?.collect()
}
