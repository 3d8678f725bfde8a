//! What the rows themselves tell, counted with the code the writer counts with: for sessions, which an index bounds, and for
//! the last minutes where the fine rollups are not there.

use rusqlite::{Connection, params};
use taffrail_event::event::CallStatus;
use taffrail_event::{RowId, TimestampMs};

use crate::calls::{Contribution, agent_name};
use crate::error::ReadError;
use crate::filter::Scope;
use crate::ledger::SPILL_MS;
use crate::rollup::{Counter, Counters};

/// Which rows; every given part must match.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowFilter<'s> {
    pub(crate) app: Option<&'s str>,
    pub(crate) user: Option<&'s str>,
    pub(crate) session: Option<&'s str>,
    /// An agent of the session; `""` is the main agent.
    pub(crate) agent_id: Option<&'s str>,
    /// Of calls alone.
    pub(crate) agent_type: Option<&'s str>,
    /// Of calls alone.
    pub(crate) tool: Option<&'s str>,
}

impl<'s> RowFilter<'s> {
    /// With a session, app and user are not looked at.
    pub(crate) fn of(scope: &'s Scope) -> Self {
        let session = scope.session.as_deref();
        let (app, user) = match session {
            Some(_) => (None, None),
            None => (scope.app.as_deref(), scope.user.as_deref()),
        };
        Self { app, user, session, ..Self::default() }
    }

    /// `INDEXED BY ...` of the index that finds the rows: that of sessions, or the other.
    const fn by(&self, session: &'static str, else_by: &'static str) -> &'static str {
        if self.session.is_some() { session } else { else_by }
    }

    /// The condition on columns of a table with that prefix; binds app, user and session as 3, 4, 5.
    fn in_scope(&self, prefix: &str) -> String {
        // An `OR` would keep SQLite from the index of sessions.
        match self.session {
            Some(_) => format!("?3 IS NULL AND ?4 IS NULL AND {prefix}session_id = ?5"),
            None => format!(
                "(?3 IS NULL OR {prefix}source_app = ?3) AND (?4 IS NULL OR {prefix}user = ?4) AND ?5 IS NULL"
            ),
        }
    }
}

/// What one event, or one operation of it, counts for.
pub(crate) struct EventRow {
    pub(crate) ts: i64,
    /// Receipt minus its own time: when it was committed is not kept per event.
    pub(crate) latency_ms: Option<i64>,
    pub(crate) counters: Counters,
    pub(crate) error_class: Option<String>,
    pub(crate) branch: Option<String>,
}

impl EventRow {
    const fn new(ts: i64, counters: Counters) -> Self {
        Self { ts, latency_ms: None, counters, error_class: None, branch: None }
    }
}

/// The first row id of that moment.
fn id(ms: i64) -> i64 {
    RowId::first_of(TimestampMs::clamped(ms)).0
}

/// Every event in a range of time, and every operation of files and git, each in a row of its own.
pub(crate) fn each_event(
    conn: &Connection,
    filter: &RowFilter<'_>,
    from: i64,
    to: i64,
    mut each: impl FnMut(EventRow),
) -> Result<(), ReadError> {
    // Where a millisecond is full an id lies behind its time.
    let (first, end) = (id(from), id(to.saturating_add(SPILL_MS)));
    let mut within = |row: EventRow| {
        if row.ts >= from && row.ts < to {
            each(row);
        }
    };
    events(conn, filter, (first, end), &mut within)?;
    file_operations(conn, filter, (first, end), &mut within)?;
    git_operations(conn, filter, (first, end), &mut within)?;
    compactions(conn, filter, from, to, &mut within)
}

fn events(
    conn: &Connection,
    filter: &RowFilter<'_>,
    (first, end): (i64, i64),
    each: &mut impl FnMut(EventRow),
) -> Result<(), ReadError> {
    let sql = format!(
        "SELECT e.timestamp, e.received, e.flags, m.compression_events, r.error_type FROM events e {}
            LEFT JOIN event_metrics m ON m.event_id = e.id LEFT JOIN event_errors r ON r.event_id = e.id
            WHERE {} AND e.id >= ?1 AND e.id < ?2 AND (?6 IS NULL OR coalesce(e.agent_id, '') = ?6)",
        filter.by("INDEXED BY events_session", "NOT INDEXED"),
        filter.in_scope("e.")
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows =
        statement.query(params![first, end, filter.app, filter.user, filter.session, filter.agent_id])?;
    while let Some(row) = rows.next()? {
        let (ts, received, flags): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let mut counters = Counters::default();
        counters.set(Counter::Events, 1);
        counters.set(Counter::Prompts, i64::from(flags & crate::events::HUMAN_PROMPT != 0));
        counters.set(Counter::Compactions, row.get::<_, Option<i64>>(3)?.unwrap_or(0));
        let live = flags & crate::events::RECORDED == 0;
        each(EventRow {
            latency_ms: live.then_some((received - ts).max(0)),
            error_class: row.get(4)?,
            ..EventRow::new(ts, counters)
        });
    }
    Ok(())
}

/// Compactions that only transcripts tell; of a scope that is no session at the minute they are counted at.
fn compactions(
    conn: &Connection,
    filter: &RowFilter<'_>,
    from: i64,
    to: i64,
    each: &mut impl FnMut(EventRow),
) -> Result<(), ReadError> {
    if filter.agent_id.is_some_and(|agent| !agent.is_empty()) {
        return Ok(());
    }
    let sql = match filter.session {
        Some(_) => {
            "SELECT m.ts FROM sessions s CROSS JOIN transcript_marks m INDEXED BY transcript_marks_session
                ON m.session = s.id WHERE ?3 IS NULL AND ?4 IS NULL AND s.session_id = ?5
                AND m.ts >= ?1 AND m.ts < ?2 AND m.counted IS NOT NULL"
        }
        None => {
            "SELECT counted FROM transcript_marks WHERE counted >= ?1 AND counted < ?2
                AND (?3 IS NULL OR counted_app = ?3) AND (?4 IS NULL OR counted_user = ?4) AND ?5 IS NULL"
        }
    };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![from, to, filter.app, filter.user, filter.session])?;
    while let Some(row) = rows.next()? {
        let mut counters = Counters::default();
        counters.set(Counter::Compactions, 1);
        each(EventRow::new(row.get(0)?, counters));
    }
    Ok(())
}

/// `FROM` and `WHERE` of what hangs on events: of a session by its events, else by time.
fn hanging_on(table: &str, filter: &RowFilter<'_>) -> String {
    let join = if filter.session.is_some() {
        format!("events e INDEXED BY events_session CROSS JOIN {table} x ON x.event_id = e.id")
    } else {
        format!("{table} x CROSS JOIN events e ON e.id = x.event_id")
    };
    let id = filter.by("e.id", "x.event_id");
    format!(
        "FROM {join} WHERE {} AND {id} >= ?1 AND {id} < ?2 AND (?6 IS NULL OR coalesce(e.agent_id, '') = ?6)",
        filter.in_scope("e.")
    )
}

fn file_operations(
    conn: &Connection,
    filter: &RowFilter<'_>,
    (first, end): (i64, i64),
    each: &mut impl FnMut(EventRow),
) -> Result<(), ReadError> {
    let sql = format!(
        "SELECT x.timestamp, x.operation_type, x.lines_added, x.lines_removed {}",
        hanging_on("file_operations", filter)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows =
        statement.query(params![first, end, filter.app, filter.user, filter.session, filter.agent_id])?;
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let mut counters = Counters::default();
        let counter = match kind.as_str() {
            "read" => Counter::FilesRead,
            "write" => Counter::FilesWritten,
            "edit" => Counter::FilesEdited,
            _ => Counter::FilesDeleted,
        };
        counters.set(counter, 1);
        counters.set(Counter::LinesAdded, row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        counters.set(Counter::LinesRemoved, row.get::<_, Option<i64>>(3)?.unwrap_or(0));
        each(EventRow::new(row.get(0)?, counters));
    }
    Ok(())
}

fn git_operations(
    conn: &Connection,
    filter: &RowFilter<'_>,
    (first, end): (i64, i64),
    each: &mut impl FnMut(EventRow),
) -> Result<(), ReadError> {
    let sql = format!(
        "SELECT x.timestamp, x.subcommand = 'commit' AND x.commit_id IS NOT NULL, x.insertions, x.deletions, x.branch {}",
        hanging_on("git_operations", filter)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows =
        statement.query(params![first, end, filter.app, filter.user, filter.session, filter.agent_id])?;
    while let Some(row) = rows.next()? {
        let mut counters = Counters::default();
        counters.set(Counter::GitOperations, 1);
        counters.set(Counter::GitCommits, row.get(1)?);
        counters.set(Counter::GitInsertions, row.get::<_, Option<i64>>(2)?.unwrap_or(0));
        counters.set(Counter::GitDeletions, row.get::<_, Option<i64>>(3)?.unwrap_or(0));
        each(EventRow { branch: row.get(4)?, ..EventRow::new(row.get(0)?, counters) });
    }
    Ok(())
}

/// Calls that ended in a range of time, with what they count for, newest first, at most `limit`; whether there are more.
pub(crate) fn each_call(
    conn: &Connection,
    filter: &RowFilter<'_>,
    (from, to): (i64, i64),
    limit: Option<usize>,
    mut each: impl FnMut(&Contribution),
) -> Result<bool, ReadError> {
    // Of a session all calls are looked at anyway: they are sorted by begin.
    let order = filter.by("", "ORDER BY ended DESC");
    let sql = format!(
        "SELECT ended, tool_name, status, duration_ms, agent_id, agent_type, source_app, coalesce(user, '')
            FROM tool_calls {} WHERE ended IS NOT NULL AND ended >= ?1 AND ended < ?2 AND {}
            AND (?6 IS NULL OR agent_id = ?6) AND (?7 IS NULL OR tool_name = ?7) {order} LIMIT ?8",
        filter.by("INDEXED BY tool_calls_at", "INDEXED BY tool_calls_ended"),
        filter.in_scope("")
    );
    let rows_max = limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![
        from,
        to,
        filter.app,
        filter.user,
        filter.session,
        filter.agent_id,
        filter.tool,
        rows_max
    ])?;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        if limit.is_some_and(|limit| seen >= limit) {
            return Ok(true);
        }
        seen += 1;
        let status = crate::calls::status_of(row.get_ref(2)?.as_str().unwrap_or(""));
        if status == CallStatus::Running {
            continue;
        }
        let agent_type = row.get_ref(5)?.as_str_or_null().unwrap_or(None);
        let agent = agent_name(row.get_ref(4)?.as_str().unwrap_or(""), agent_type);
        if filter.agent_type.is_some_and(|wanted| wanted != agent) {
            continue;
        }
        each(&Contribution {
            ended: row.get(0)?,
            app: row.get(6)?,
            user: row.get(7)?,
            tool: row.get(1)?,
            agent: agent.to_owned(),
            status,
            duration_ms: row.get(3)?,
        });
    }
    Ok(false)
}

/// How long a call whose end nobody saw counts as in flight, in milliseconds.
const RUNNING_MAX_MS: i64 = 3_600_000;

/// Begin and end of every call in flight in a range; none where more than `limit` would have to be looked at.
pub(crate) fn flights(
    conn: &Connection,
    filter: &RowFilter<'_>,
    (from, to): (i64, i64),
    limit: usize,
) -> Result<Option<Vec<(i64, i64)>>, ReadError> {
    let which = format!(
        "{} AND (?6 IS NULL OR agent_id = ?6) AND (?7 IS NULL OR tool_name = ?7)",
        filter.in_scope("")
    );
    let sql = format!(
        "SELECT at, ended, agent_id, agent_type FROM tool_calls {by}
            WHERE ended IS NOT NULL AND ended >= ?1 AND at < ?2 AND {which}
        UNION ALL
        SELECT at, min(?2, at + {RUNNING_MAX_MS}), agent_id, agent_type FROM tool_calls INDEXED BY tool_calls_open
            WHERE rank <= 1 AND rank = 0 AND at < ?2 AND at + {RUNNING_MAX_MS} >= ?1 AND {which}
        LIMIT ?8",
        by = filter.by("INDEXED BY tool_calls_at", "INDEXED BY tool_calls_ended"),
    );
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![
        from,
        to,
        filter.app,
        filter.user,
        filter.session,
        filter.agent_id,
        filter.tool,
        rows_max
    ])?;
    let mut calls = Vec::new();
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        seen += 1;
        if seen > limit {
            return Ok(None);
        }
        if let Some(wanted) = filter.agent_type {
            let agent_type = row.get_ref(3)?.as_str_or_null().unwrap_or(None);
            if agent_name(row.get_ref(2)?.as_str().unwrap_or(""), agent_type) != wanted {
                continue;
            }
        }
        calls.push((row.get(0)?, row.get(1)?));
    }
    Ok(Some(calls))
}

/// Time spent in calls between two moments, in milliseconds, and the most in flight at once. A call that ends as another
/// begins does not overlap it.
pub(crate) fn sweep(calls: &[(i64, i64)], from: i64, to: i64) -> (i64, i64) {
    let mut edges = Vec::with_capacity(calls.len() * 2);
    let mut busy_ms = 0;
    for (at, ended) in calls {
        let (at, ended) = (from.max(*at), to.min(*ended));
        if at < ended {
            busy_ms += ended - at;
            edges.extend([(at, 1), (ended, -1)]);
        }
    }
    edges.sort_unstable();
    let (mut flying, mut most) = (0, 0);
    for (_, change) in edges {
        flying += change;
        most = most.max(flying);
    }
    (busy_ms, most)
}
