//! Schema migrations: numbered steps, each with a way back, each in one transaction.
//!
//! The version is `user_version` in the header, so it is known before any table is read; a step and its new
//! version commit together, so a killed migration stands where it stood before. Steps are append-only: a
//! released step is never edited.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::connect::{self, APPLICATION_ID, open_error};
use crate::error::MigrateError;

struct Step {
    name: &'static str,
    up: &'static str,
    down: &'static str,
    /// What SQL alone cannot do, after `up`.
    then: Option<fn(&Connection) -> rusqlite::Result<()>>,
}

/// Step `n` leads from version `n` to `n + 1`.
const STEPS: &[Step] = &[
    Step {
        name: "first",
        up: include_str!("migrations/0001_first.up.sql"),
        down: include_str!("migrations/0001_first.down.sql"),
        then: None,
    },
    Step {
        name: "ledger",
        up: include_str!("migrations/0002_ledger.up.sql"),
        down: include_str!("migrations/0002_ledger.down.sql"),
        then: None,
    },
    Step {
        name: "telemetry",
        up: include_str!("migrations/0003_telemetry.up.sql"),
        down: include_str!("migrations/0003_telemetry.down.sql"),
        then: None,
    },
    Step {
        name: "results",
        up: include_str!("migrations/0004_results.up.sql"),
        down: include_str!("migrations/0004_results.down.sql"),
        then: None,
    },
    Step {
        name: "windows",
        up: include_str!("migrations/0005_windows.up.sql"),
        down: include_str!("migrations/0005_windows.down.sql"),
        then: Some(|conn| crate::rollup::backfill(conn, now_ms())),
    },
    Step {
        name: "digests",
        up: include_str!("migrations/0006_digests.up.sql"),
        down: include_str!("migrations/0006_digests.down.sql"),
        then: None,
    },
    Step {
        name: "findings",
        up: include_str!("migrations/0007_findings.up.sql"),
        down: include_str!("migrations/0007_findings.down.sql"),
        then: None,
    },
    Step {
        name: "suggestions",
        up: include_str!("migrations/0008_suggestions.up.sql"),
        down: include_str!("migrations/0008_suggestions.down.sql"),
        then: None,
    },
];

/// The newest version known here.
#[allow(clippy::cast_possible_truncation, reason = "there are few steps")]
pub(crate) const KNOWN: u32 = STEPS.len() as u32;

const LOG: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL)";

/// Where a database stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its schema version; 0 is an empty database.
    pub current: u32,
    /// The newest version known here.
    pub known: u32,
    /// Every known step.
    pub steps: Vec<StepStatus>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStatus {
    /// The version it leads to.
    pub version: u32,
    /// What it does.
    pub name: &'static str,
    /// When it was applied, in milliseconds since the Unix epoch; none where it is pending.
    pub applied_ms: Option<i64>,
}

/// Where the database at `path` stands; changes nothing. A missing file stands at 0.
pub fn status(path: &Path) -> Result<Status, MigrateError> {
    if !path.exists() {
        return Ok(Status { current: 0, known: KNOWN, steps: step_statuses(0, &[]) });
    }
    let conn = connect::read_only(path, 0).map_err(|e| open_error(&e))?;
    Ok(status_on(&conn).map_err(|e| open_error(&e))?)
}

/// Applies every pending step; returns the status after.
pub fn up(path: &Path) -> Result<Status, MigrateError> {
    let conn = connect::read_write(path)?;
    up_on(&conn)?;
    Ok(status_on(&conn).map_err(|e| open_error(&e))?)
}

/// Goes back to version `to`, newest step first; returns the status after. The data of the tables a step
/// made goes with them.
pub fn down(path: &Path, to: u32) -> Result<Status, MigrateError> {
    if to > KNOWN {
        return Err(MigrateError::UnknownVersion { asked: to, known: KNOWN });
    }
    let conn = connect::read_write(path)?;
    loop {
        let current = version_on(&conn).map_err(|e| open_error(&e))?;
        if current <= to {
            return Ok(status_on(&conn).map_err(|e| open_error(&e))?);
        }
        let step = &STEPS[current as usize - 1];
        revert(&conn, current, step).and_then(Transaction::commit).map_err(|e| MigrateError::Step {
            version: current,
            name: step.name,
            detail: e.to_string(),
        })?;
    }
}

/// Applies every pending step on an open connection.
pub(crate) fn up_on(conn: &Connection) -> Result<(), MigrateError> {
    loop {
        let current = version_on(conn).map_err(|e| open_error(&e))?;
        let Some(step) = STEPS.get(current as usize) else { return Ok(()) };
        apply(conn, current + 1, step).and_then(Transaction::commit).map_err(|e| match open_error(&e) {
            crate::OpenError::Other { detail } => {
                MigrateError::Step { version: current + 1, name: step.name, detail }
            }
            known => MigrateError::Open(known),
        })?;
    }
}

/// The schema version of an open database.
pub(crate) fn version_on(conn: &Connection) -> rusqlite::Result<u32> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// One step in a transaction that the caller commits; the version it found is checked inside it, so that two
/// processes cannot both apply it.
fn apply<'c>(conn: &'c Connection, version: u32, step: &Step) -> rusqlite::Result<Transaction<'c>> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    if version_on(&tx)? >= version {
        return Ok(tx);
    }
    tx.execute_batch(step.up)?;
    if let Some(then) = step.then {
        then(&tx)?;
    }
    tx.execute(LOG, [])?;
    tx.execute(
        "INSERT OR REPLACE INTO schema_migrations VALUES (?1, ?2, ?3)",
        (version, step.name, now_ms()),
    )?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", version)?;
    Ok(tx)
}

fn revert<'c>(conn: &'c Connection, version: u32, step: &Step) -> rusqlite::Result<Transaction<'c>> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    if version_on(&tx)? != version {
        return Ok(tx);
    }
    tx.execute_batch(step.down)?;
    tx.execute("DELETE FROM schema_migrations WHERE version = ?1", [version])?;
    tx.pragma_update(None, "user_version", version - 1)?;
    Ok(tx)
}

fn status_on(conn: &Connection) -> rusqlite::Result<Status> {
    let current = version_on(conn)?;
    let logged =
        conn.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'schema_migrations'", [], |r| {
            r.get::<_, i64>(0)
        })?;
    let mut applied = Vec::new();
    if logged > 0 {
        let mut statement = conn.prepare("SELECT version, applied_at FROM schema_migrations")?;
        applied =
            statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    }
    Ok(Status { current, known: KNOWN, steps: step_statuses(current, &applied) })
}

fn step_statuses(current: u32, applied: &[(u32, i64)]) -> Vec<StepStatus> {
    let at = |version| applied.iter().find(|(v, _)| *v == version && version <= current).map(|(_, ms)| *ms);
    let versions = (1u32..).zip(STEPS);
    versions.map(|(version, step)| StepStatus { version, name: step.name, applied_ms: at(version) }).collect()
}

/// The log's clock: nothing is decided by it.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
