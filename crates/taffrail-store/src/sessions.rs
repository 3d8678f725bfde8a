//! The tables `sessions` and `agents`: one row each, kept up to date by what a batch adds.
//!
//! Counts add up; begin is that of the earliest event; project and user are those of the earliest event that knows them;
//! where and how it started are those first told; the model and the newest prompt those last told. What transcripts
//! tell beside that is written by the ledger: prompts and compactions shown are the greater of both counts. A row that was
//! made before any time was told begins at the smallest time there is (1577836800000), until one is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_event::event::{ClosesCalls, Fact};
use taffrail_event::{Event, RowId, TimestampMs};

use crate::error::ReadError;
use crate::events::{is_human_prompt, to_i64};
use crate::filter::SessionFilter;
use crate::rows::{Page, SessionOption, StoredAgent, StoredSession};
use crate::scan;

/// The newest prompt kept in a session's row, in characters.
const LAST_PROMPT_MAX_CHARS: usize = 240;

/// What sources say that do not know the project.
const UNKNOWN_APPS: [&str; 2] = ["", "unknown"];

/// Whether that is no project's name but the lack of one.
pub(crate) fn is_unknown(app: &str) -> bool {
    UNKNOWN_APPS.contains(&app)
}

/// What the ledger must hear of what a batch changed.
#[derive(Default)]
pub(crate) struct Changed {
    /// Rows of sessions with requests whose app or user became another one.
    pub(crate) moved: Vec<i64>,
    /// Subagents with requests, by session and agent, whose type became known.
    pub(crate) typed: Vec<(String, String)>,
    /// Rows of every session of the batch: they are to be digested anew.
    pub(crate) rows: Vec<i64>,
}

impl Changed {
    /// Whether the ledger need not hear of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.typed.is_empty()
    }
}

/// What a batch adds to its sessions and agents.
#[derive(Default)]
pub(crate) struct Touched {
    sessions: BTreeMap<String, SessionDelta>,
    agents: BTreeMap<(String, String), AgentDelta>,
}

struct SessionDelta {
    app: String,
    /// When the event was that told the app; none while none has.
    app_at: Option<i64>,
    user: Option<String>,
    user_at: Option<i64>,
    host: Option<String>,
    cwd: Option<String>,
    model: Option<String>,
    start_source: Option<String>,
    started: i64,
    last_event: i64,
    ended: Option<i64>,
    worked: i64,
    end_reason: Option<String>,
    events: i64,
    prompts: i64,
    calls: i64,
    failed_calls: i64,
    subagents: i64,
    compactions: i64,
    last_prompt: Option<String>,
    prompted: Option<i64>,
    /// The newest end, stored or in this batch.
    closed: Option<i64>,
}

struct AgentDelta {
    agent_type: Option<String>,
    started: i64,
    last_event: i64,
    ended: Option<i64>,
    worked: i64,
    events: i64,
    calls: i64,
    failed_calls: i64,
    /// The newest close, stored or in this batch.
    closed: Option<i64>,
}

impl Touched {
    /// Takes in an event that is new.
    pub(crate) fn add(
        &mut self,
        conn: &Connection,
        event: &Event,
        closes: ClosesCalls,
    ) -> rusqlite::Result<()> {
        let ts = event.ts.get();
        let (agent, is_new_agent) = self.agent(conn, event)?;
        agent.add(event, closes == ClosesCalls::OfAgent);
        let session = self.session(conn, event)?;
        session.subagents += i64::from(is_new_agent && event.agent_id.is_some());
        session.events += 1;
        session.started = session.started.min(ts);
        session.last_event = session.last_event.max(ts);
        session.add_place(event, ts);
        first(&mut session.host, event.host.as_ref());
        first(&mut session.cwd, event.cwd.as_ref());
        if event.model.is_some() {
            session.model.clone_from(&event.model);
        }
        session.compactions += i64::from(event.metrics.compression_events.unwrap_or(0));
        session.add_fact(event, closes);
        Ok(())
    }

    /// The newest moment at which open calls of that event's agent ended, if there is one.
    pub(crate) fn closed(&mut self, conn: &Connection, event: &Event) -> rusqlite::Result<Option<i64>> {
        let of_agent = self.agent(conn, event)?.0.closed;
        Ok(self.session(conn, event)?.closed.max(of_agent))
    }

    /// Takes in that a call was added or changed its status; the call's event is in this batch.
    pub(crate) fn add_calls(&mut self, session_id: &str, agent_id: &str, calls: i64, failed: i64) {
        if let Some(session) = self.sessions.get_mut(session_id) {
            session.calls += calls;
            session.failed_calls += failed;
        }
        if let Some(agent) = self.agents.get_mut(&(session_id.to_owned(), agent_id.to_owned())) {
            agent.calls += calls;
            agent.failed_calls += failed;
        }
    }

    fn session(&mut self, conn: &Connection, event: &Event) -> rusqlite::Result<&mut SessionDelta> {
        match self.sessions.entry(event.session_id.clone()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let closed = conn
                    .prepare_cached("SELECT ended FROM sessions WHERE session_id = ?1")?
                    .query_row([&event.session_id], |row| row.get::<_, Option<i64>>(0))
                    .optional()?;
                Ok(entry.insert(SessionDelta::new(event, closed.flatten())))
            }
        }
    }

    /// The agent's row, and whether this event is the first of it.
    fn agent(&mut self, conn: &Connection, event: &Event) -> rusqlite::Result<(&mut AgentDelta, bool)> {
        let agent_id = event.agent_id.clone().unwrap_or_default();
        match self.agents.entry((event.session_id.clone(), agent_id)) {
            Entry::Occupied(entry) => Ok((entry.into_mut(), false)),
            Entry::Vacant(entry) => {
                let (session_id, agent_id) = entry.key();
                let closed = conn
                    .prepare_cached("SELECT ended FROM agents WHERE session_id = ?1 AND agent_id = ?2")?
                    .query_row([session_id, agent_id], |row| row.get::<_, Option<i64>>(0))
                    .optional()?;
                let is_new = closed.is_none();
                Ok((entry.insert(AgentDelta::new(event, closed.flatten())), is_new))
            }
        }
    }

    /// Writes what was added.
    pub(crate) fn flush(self, conn: &Connection) -> rusqlite::Result<Changed> {
        let mut changed = Changed::default();
        for (session_id, delta) in &self.sessions {
            let (row, moved) = delta.upsert(conn, session_id)?;
            changed.rows.push(row);
            changed.moved.extend(moved.then_some(row));
        }
        for ((session_id, agent_id), delta) in &self.agents {
            if delta.upsert(conn, session_id, agent_id)? {
                changed.typed.push((session_id.clone(), agent_id.clone()));
            }
        }
        Ok(changed)
    }
}

fn first(slot: &mut Option<String>, value: Option<&String>) {
    if slot.is_none() {
        *slot = value.cloned();
    }
}

/// Whether it shows that the agent works: what makes an ended session a running one again.
fn is_work(event: &Event) -> bool {
    matches!(
        event.fact,
        Fact::SessionStart { .. } | Fact::Prompt { .. } | Fact::ToolStart(_) | Fact::SubagentStart
    )
}

impl SessionDelta {
    fn new(event: &Event, closed: Option<i64>) -> Self {
        Self {
            app: event.app.clone(),
            app_at: None,
            user: None,
            user_at: None,
            host: None,
            cwd: None,
            model: None,
            start_source: None,
            started: event.ts.get(),
            last_event: event.ts.get(),
            ended: None,
            worked: 0,
            end_reason: None,
            events: 0,
            prompts: 0,
            calls: 0,
            failed_calls: 0,
            subagents: 0,
            compactions: 0,
            last_prompt: None,
            prompted: None,
            closed,
        }
    }

    /// The earliest event that knows app, or user, tells it; of two at one moment the smaller name counts.
    fn add_place(&mut self, event: &Event, ts: i64) {
        let is_earlier =
            |at: Option<i64>, known: &str, told: &str| at.is_none_or(|at| (ts, told) < (at, known));
        if !is_unknown(&event.app) && is_earlier(self.app_at, &self.app, &event.app) {
            self.app_at = Some(ts);
            self.app.clone_from(&event.app);
        }
        if let Some(user) = &event.user
            && is_earlier(self.user_at, self.user.as_deref().unwrap_or(""), user)
        {
            self.user_at = Some(ts);
            self.user = Some(user.clone());
        }
    }

    fn add_fact(&mut self, event: &Event, closes: ClosesCalls) {
        let ts = event.ts.get();
        if is_work(event) {
            self.worked = self.worked.max(ts);
        }
        if is_human_prompt(event) {
            self.prompts += 1;
            if self.prompted.is_none_or(|at| at <= ts) {
                self.prompted = Some(ts);
                self.last_prompt = Some(event.summary.chars().take(LAST_PROMPT_MAX_CHARS).collect());
            }
        }
        match &event.fact {
            Fact::SessionStart { start_source } => first(&mut self.start_source, start_source.as_ref()),
            Fact::SessionEnd { reason } if self.ended.is_none_or(|at| at <= ts) => {
                self.end_reason.clone_from(reason);
            }
            _ => {}
        }
        if closes == ClosesCalls::OfSession {
            self.ended = self.ended.max(Some(ts));
            self.closed = self.closed.max(Some(ts));
        }
    }

    /// Gives the row, and whether it has requests that stand under another app or user.
    fn upsert(&self, conn: &Connection, session_id: &str) -> rusqlite::Result<(i64, bool)> {
        conn.prepare_cached(
            "INSERT INTO sessions (session_id, source_app, user, host, cwd, model, start_source, started, last_event,
                ended, worked, end_reason, events, prompts, calls, failed_calls, subagents, compactions, last_prompt,
                prompted, app_at, user_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                ?22)
            ON CONFLICT (session_id) DO UPDATE SET
                source_app = iif(excluded.app_at IS NOT NULL AND (source_app IN ('', 'unknown')
                    OR (excluded.app_at, excluded.source_app) < (coalesce(app_at, started), source_app)),
                    excluded.source_app, source_app),
                app_at = iif(excluded.app_at IS NOT NULL AND (source_app IN ('', 'unknown')
                    OR (excluded.app_at, excluded.source_app) < (coalesce(app_at, started), source_app)),
                    excluded.app_at, app_at),
                user = iif(excluded.user_at IS NOT NULL AND (user IS NULL
                    OR (excluded.user_at, excluded.user) < (coalesce(user_at, started), user)),
                    excluded.user, user),
                user_at = iif(excluded.user_at IS NOT NULL AND (user IS NULL
                    OR (excluded.user_at, excluded.user) < (coalesce(user_at, started), user)),
                    excluded.user_at, user_at),
                host = coalesce(host, excluded.host),
                cwd = coalesce(cwd, excluded.cwd),
                model = coalesce(excluded.model, model),
                start_source = coalesce(start_source, excluded.start_source),
                started = iif(started = 1577836800000, excluded.started, min(started, excluded.started)),
                last_event = max(last_event, excluded.last_event),
                end_reason = iif(excluded.ended >= coalesce(ended, 0), excluded.end_reason, end_reason),
                ended = nullif(max(coalesce(ended, 0), coalesce(excluded.ended, 0)), 0),
                worked = max(worked, excluded.worked),
                events = events + excluded.events,
                prompts = prompts + excluded.prompts,
                calls = calls + excluded.calls,
                failed_calls = failed_calls + excluded.failed_calls,
                subagents = subagents + excluded.subagents,
                compactions = compactions + excluded.compactions,
                last_prompt = iif(excluded.prompted >= coalesce(prompted, 0), excluded.last_prompt, last_prompt),
                prompted = nullif(max(coalesce(prompted, 0), coalesce(excluded.prompted, 0)), 0)
            RETURNING id, coalesce(ledger_app <> source_app OR ledger_user <> coalesce(user, ''), 0)",
        )?
        .query_row(params![
            session_id,
            self.app,
            self.user,
            self.host,
            self.cwd,
            self.model,
            self.start_source,
            self.started,
            self.last_event,
            self.ended,
            self.worked,
            self.end_reason,
            self.events,
            self.prompts,
            self.calls,
            self.failed_calls,
            self.subagents,
            self.compactions,
            self.last_prompt,
            self.prompted,
            self.app_at,
            self.user_at,
        ], |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

impl AgentDelta {
    fn new(event: &Event, closed: Option<i64>) -> Self {
        let ts = event.ts.get();
        Self {
            agent_type: None,
            started: ts,
            last_event: ts,
            ended: None,
            worked: 0,
            events: 0,
            calls: 0,
            failed_calls: 0,
            closed,
        }
    }

    fn add(&mut self, event: &Event, closes: bool) {
        let ts = event.ts.get();
        self.events += 1;
        self.started = self.started.min(ts);
        self.last_event = self.last_event.max(ts);
        first(&mut self.agent_type, event.agent_type.as_ref());
        if is_work(event) {
            self.worked = self.worked.max(ts);
        }
        if closes {
            self.ended = self.ended.max(Some(ts));
            self.closed = self.closed.max(Some(ts));
        }
    }

    /// Whether it has requests that wait for its type, and its type is known.
    fn upsert(&self, conn: &Connection, session_id: &str, agent_id: &str) -> rusqlite::Result<bool> {
        conn.prepare_cached(
            "INSERT INTO agents (session_id, agent_id, agent_type, started, last_event, ended, worked, events, calls,
                failed_calls)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
            ON CONFLICT (session_id, agent_id) DO UPDATE SET
                agent_type = coalesce(agent_type, excluded.agent_type),
                started = iif(started = 1577836800000, excluded.started, min(started, excluded.started)),
                last_event = max(last_event, excluded.last_event),
                ended = nullif(max(coalesce(ended, 0), coalesce(excluded.ended, 0)), 0),
                worked = max(worked, excluded.worked),
                events = events + excluded.events,
                calls = calls + excluded.calls,
                failed_calls = failed_calls + excluded.failed_calls
            RETURNING untyped AND coalesce(agent_type, '') <> ''",
        )?
        .query_row(params![
            session_id,
            agent_id,
            self.agent_type,
            self.started,
            self.last_event,
            self.ended,
            self.worked,
            self.events,
            self.calls,
            self.failed_calls,
        ], |row| row.get(0))
    }
}

const COLUMNS: &str = "session_id, source_app, user, host, cwd, model, start_source, started, last_event,
    iif(ended >= worked, ended, NULL), iif(ended >= worked, end_reason, NULL), events, max(prompts, told_prompts),
    calls, failed_calls, subagents, max(compactions, told_compactions), last_prompt, id, title, git_branch,
    client_version, (SELECT f.session_id FROM sessions f WHERE f.id = sessions.forked_from)";

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredSession> {
    let ms = TimestampMs::clamped;
    Ok(StoredSession {
        session_id: row.get(0)?,
        app: row.get(1)?,
        user: row.get(2)?,
        host: row.get(3)?,
        cwd: row.get(4)?,
        model: row.get(5)?,
        start_source: row.get(6)?,
        started: ms(row.get(7)?),
        last_event: ms(row.get(8)?),
        ended: row.get::<_, Option<i64>>(9)?.map(ms),
        end_reason: row.get(10)?,
        events: row.get(11)?,
        prompts: row.get(12)?,
        calls: row.get(13)?,
        failed_calls: row.get(14)?,
        subagents: row.get(15)?,
        compactions: row.get(16)?,
        last_prompt: row.get(17)?,
        title: row.get(19)?,
        git_branch: row.get(20)?,
        client_version: row.get(21)?,
        forked_from: row.get(22)?,
    })
}

/// Sessions that match, newest event first. The cursor is the place in that order: the newest event's time, then
/// the row, as one number.
pub(crate) fn list(
    conn: &Connection,
    filter: &SessionFilter,
    cursor: Option<RowId>,
    limit: usize,
) -> Result<Page<StoredSession>, ReadError> {
    // Sessions count in thousands, so the row's low bits and the millisecond make a place that is unique enough:
    // a session that shares both with another is not skipped, as the row is compared as well.
    let (last, row) = cursor.map_or((i64::MAX, i64::MAX), unpack);
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions WHERE (last_event, id & {ROW_MASK}) < (?1, ?2) AND last_event <= ?1
            AND last_event >= ?3 AND started < ?4 ORDER BY last_event DESC, id & {ROW_MASK} DESC"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let from = filter.from.map_or(i64::MIN, TimestampMs::get);
    let to = filter.to.map_or(i64::MAX, TimestampMs::get);
    let rows = statement.query(params![last, row, from, to])?;
    scan::page(rows, limit, |row| {
        let session = from_row(row)?;
        let keep = filter.app.as_ref().is_none_or(|app| *app == session.app)
            && filter.user.as_ref().is_none_or(|user| Some(user) == session.user.as_ref());
        Ok((pack(session.last_event, row.get(18)?), keep.then_some(session)))
    })
}

/// Bits of the row that fit beside a millisecond.
const ROW_MASK: i64 = (1 << 12) - 1;

fn pack(last_event: TimestampMs, row: i64) -> RowId {
    RowId(RowId::first_of(last_event).0 | (row & ROW_MASK))
}

fn unpack(cursor: RowId) -> (i64, i64) {
    (cursor.ts().get(), cursor.0 & ROW_MASK)
}

/// One session.
pub(crate) fn get(conn: &Connection, session_id: &str) -> Result<Option<StoredSession>, ReadError> {
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE session_id = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row([session_id], from_row).optional()?)
}

/// The newest sessions, to choose from.
pub(crate) fn newest(conn: &Connection, limit: usize) -> Result<Vec<SessionOption>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT session_id, source_app, last_event FROM sessions ORDER BY last_event DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([to_i64(limit)], |row| {
        Ok(SessionOption {
            session_id: row.get(0)?,
            app: row.get(1)?,
            last_event: TimestampMs::clamped(row.get(2)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The agents of a session, main agent first, then by start, at most a page of them. The main agent ends with
/// the session; a subagent with its own stop, or with the session.
pub(crate) fn agents(conn: &Connection, session_id: &str) -> Result<Vec<StoredAgent>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT a.session_id, a.agent_id, a.agent_type, a.started, a.last_event,
            coalesce(iif(a.agent_id <> '' AND a.ended >= a.worked, a.ended, NULL),
                     iif(s.ended >= s.worked, s.ended, NULL)),
            a.events, a.calls, a.failed_calls, a.description, a.tool_use_id,
            (SELECT m.agent_id FROM transcript_marks m INDEXED BY transcript_marks_session
                WHERE m.session = s.id AND m.kind = 'spawn' AND m.tool_use_id = a.tool_use_id)
        FROM agents a JOIN sessions s ON s.session_id = a.session_id
        WHERE a.session_id = ?1 ORDER BY a.agent_id <> '', a.started, a.agent_id LIMIT ?2",
    )?;
    let ms = TimestampMs::clamped;
    let rows = statement.query_map(params![session_id, to_i64(crate::EVENTS_PAGE_MAX)], |row| {
        Ok(StoredAgent {
            session_id: row.get(0)?,
            agent_id: row.get::<_, Option<String>>(1)?.filter(|id| !id.is_empty()),
            agent_type: row.get(2)?,
            started: ms(row.get(3)?),
            last_event: ms(row.get(4)?),
            ended: row.get::<_, Option<i64>>(5)?.map(ms),
            events: row.get(6)?,
            calls: row.get(7)?,
            failed_calls: row.get(8)?,
            description: row.get(9)?,
            tool_use_id: row.get(10)?,
            parent_id: row.get(11)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
