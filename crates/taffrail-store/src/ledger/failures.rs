//! The table `api_failures`: attempts that failed, each once by its key.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{FailureSighting, Witness};

use crate::error::ReadError;
use crate::events::to_i64;
use crate::ledger::StoredFailure;
use crate::ledger::names::Memory;
use crate::ledger::requests::unsigned;

/// Takes in what a source tells. A fork copies the line: of the sessions that show it, the one begun first has it.
/// `told` hears of the sessions whose failures changed.
pub(crate) fn see(
    conn: &Connection,
    memory: &mut Memory,
    failure: &FailureSighting,
    told: &mut BTreeSet<i64>,
) -> rusqlite::Result<()> {
    let session = memory.session(conn, &failure.session_id, failure.ts.get())?;
    told.insert(session);
    let owner: Option<i64> = conn
        .prepare_cached("SELECT session FROM api_failures WHERE key = ?1")?
        .query_row([&failure.key], |row| row.get(0))
        .optional()?;
    told.extend(owner);
    conn.prepare_cached(
        "INSERT INTO api_failures (key, witness, session, ts, agent_id, model, status_code, message, attempt,
            attempts_max, retry_in, exhausted) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
        ON CONFLICT (key) DO UPDATE SET
            session = (SELECT id FROM sessions WHERE id IN (session, excluded.session)
                ORDER BY coalesce(born, started), session_id LIMIT 1),
            witness = min(witness, excluded.witness),
            ts = min(ts, excluded.ts),
            agent_id = coalesce(min(agent_id, excluded.agent_id), agent_id, excluded.agent_id),
            model = coalesce(min(model, excluded.model), model, excluded.model),
            status_code = coalesce(max(status_code, excluded.status_code), status_code, excluded.status_code),
            message = max(message, excluded.message),
            attempt = coalesce(max(attempt, excluded.attempt), attempt, excluded.attempt),
            attempts_max = coalesce(max(attempts_max, excluded.attempts_max), attempts_max, excluded.attempts_max),
            retry_in = coalesce(max(retry_in, excluded.retry_in), retry_in, excluded.retry_in),
            exhausted = max(exhausted, excluded.exhausted)",
    )?
    .execute(params![
        failure.key,
        failure.witness.bit(),
        session,
        failure.ts.get(),
        failure.agent_id,
        failure.model,
        failure.status_code,
        failure.message,
        failure.attempt,
        failure.attempts_max,
        failure.retry_in_ms.map(to_i64),
        failure.exhausted,
    ])?;
    Ok(())
}

/// Those of a session, oldest first.
pub(crate) fn of_session(conn: &Connection, session_id: &str) -> Result<Vec<StoredFailure>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT f.key, f.witness, f.ts, f.agent_id, f.model, f.status_code, f.message, f.attempt, f.attempts_max,
            f.retry_in, f.exhausted
        FROM sessions s CROSS JOIN api_failures f INDEXED BY api_failures_session ON f.session = s.id
        WHERE s.session_id = ?1 ORDER BY f.ts, f.key",
    )?;
    let rows = statement.query_map([session_id], |row| {
        let bit: u8 = row.get(1)?;
        Ok(StoredFailure {
            failure: FailureSighting {
                witness: Witness::ALL.into_iter().find(|w| w.bit() == bit).unwrap_or(Witness::Transcript),
                ts: TimestampMs::clamped(row.get(2)?),
                key: row.get(0)?,
                session_id: session_id.to_owned(),
                agent_id: row.get(3)?,
                model: row.get(4)?,
                status_code: row.get(5)?,
                message: row.get(6)?,
                attempt: row.get(7)?,
                attempts_max: row.get(8)?,
                retry_in_ms: row.get::<_, Option<i64>>(9)?.map(unsigned),
                exhausted: row.get(10)?,
            },
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
