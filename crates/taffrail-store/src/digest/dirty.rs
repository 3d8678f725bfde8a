//! Dirty marks: which sessions changed since they were digested. Table `digest_dirty`.
//!
//! The mark is written in the transaction of the change, so that it survives whatever the change survives. A session that
//! is marked already is not written again: the writer remembers the marks that nobody has claimed. Whoever digests a
//! session claims it first (the writer forgets the mark, so that the next change writes it anew, with the next version),
//! reads the session after that, and takes the mark away only if it still has the version that was read.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, params};

use crate::error::ReadError;
use crate::events::to_i64;
use crate::ledger::names::Memory;

/// Marks remembered by the writer; more are forgotten, and written again when their sessions change.
const REMEMBERED_MAX: usize = 20_000;

/// Unclaimed marks, by session, with the moment of the newest change, in milliseconds since the Unix epoch.
#[derive(Default)]
pub(crate) struct Marked(HashMap<i64, i64>);

impl Marked {
    /// Forgets a mark, or that there was one; when it last changed.
    fn forget(&mut self, session: i64) -> Option<i64> {
        self.0.remove(&session)
    }

    /// Notes a change; true where its mark must be written.
    fn note(&mut self, session: i64, now_ms: i64) -> bool {
        if let Some(newest) = self.0.get_mut(&session) {
            *newest = now_ms;
            return false;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert(session, now_ms);
        true
    }
}

/// Marks sessions, by row, that the open transaction changes.
pub(crate) fn mark(
    conn: &Connection,
    memory: &mut Memory,
    sessions: impl IntoIterator<Item = i64>,
    now_ms: i64,
) -> rusqlite::Result<()> {
    for session in sessions {
        if memory.marked.note(session, now_ms) {
            write(conn, session, now_ms)?;
        }
    }
    Ok(())
}

fn write(conn: &Connection, session: i64, now_ms: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO digest_dirty (session, since, version) VALUES (?1, ?2, 1)
            ON CONFLICT DO UPDATE SET version = version + 1",
    )?
    .execute([session, now_ms])?;
    Ok(())
}

/// A session that waits for its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// Its row.
    pub session: i64,
    /// The first change that no digest has, in milliseconds since the Unix epoch.
    pub since_ms: i64,
}

/// The sessions that have waited longest.
pub(crate) fn oldest(conn: &Connection, limit: usize) -> Result<Vec<Dirty>, ReadError> {
    let mut statement =
        conn.prepare_cached("SELECT session, since FROM digest_dirty ORDER BY since, session LIMIT ?1")?;
    let rows = statement
        .query_map([to_i64(limit)], |row| Ok(Dirty { session: row.get(0)?, since_ms: row.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How long a session must be quiet, or have waited, before it is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Since its newest change, in milliseconds.
    pub quiet_ms: i64,
    /// Since its first change, in milliseconds: a busy session is not put off for ever.
    pub busy_ms: i64,
}

/// Of these, the sessions that are ripe; the next change of each writes its mark anew.
pub(crate) fn claim(memory: &mut Memory, waiting: &[Dirty], patience: Patience, now_ms: i64) -> Vec<i64> {
    let mut ripe = Vec::new();
    for dirty in waiting {
        let newest = memory.marked.0.get(&dirty.session).copied();
        // A clock that was set back must not hold a session for ever.
        let is_quiet = newest.is_none_or(|at| !(0..patience.quiet_ms).contains(&now_ms.saturating_sub(at)));
        let has_waited = !(0..patience.busy_ms).contains(&now_ms.saturating_sub(dirty.since_ms));
        if is_quiet || has_waited {
            memory.marked.forget(dirty.session);
            ripe.push(dirty.session);
        }
    }
    ripe
}

/// The version of a session's mark; none where it has none.
pub(crate) fn version(conn: &Connection, session: i64) -> rusqlite::Result<Option<i64>> {
    let mut statement = conn.prepare_cached("SELECT version FROM digest_dirty WHERE session = ?1")?;
    let mut rows = statement.query([session])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

/// Takes a mark away, if it still has the version that was read; else it waits from `now_ms` on. The caller's transaction
/// holds the digest.
pub(crate) fn clear(
    conn: &Connection,
    memory: &mut Memory,
    session: i64,
    read: Option<i64>,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let cleared = conn
        .prepare_cached("DELETE FROM digest_dirty WHERE session = ?1 AND version = ?2")?
        .execute(params![session, read])?;
    if cleared > 0 {
        memory.marked.forget(session);
    } else {
        conn.prepare_cached("UPDATE digest_dirty SET since = ?2 WHERE session = ?1")?
            .execute([session, now_ms])?;
    }
    Ok(())
}

/// How far the digests are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Sessions whose newest changes are in no digest.
    pub pending_sessions: i64,
    /// The oldest such change, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

/// How far the digests are behind.
pub(crate) fn backlog(conn: &Connection) -> Result<Backlog, ReadError> {
    let row = conn
        .prepare_cached("SELECT count(*), min(since) FROM digest_dirty")?
        .query_row([], |row| Ok(Backlog { pending_sessions: row.get(0)?, oldest_ms: row.get(1)? }))?;
    Ok(row)
}

/// The rows of sessions by the client's ids of them; those without a row are left out.
pub(crate) fn rows_of<'s>(
    conn: &Connection,
    session_ids: impl IntoIterator<Item = &'s str>,
) -> rusqlite::Result<BTreeSet<i64>> {
    let mut statement = conn.prepare_cached("SELECT id FROM sessions WHERE session_id = ?1")?;
    let mut found = BTreeSet::new();
    for id in session_ids {
        let mut rows = statement.query([id])?;
        if let Some(row) = rows.next()? {
            found.insert(row.get(0)?);
        }
    }
    Ok(found)
}
