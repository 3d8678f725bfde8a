//! Looks into a database from outside, with plain SQL on a connection of its own: nothing here trusts the code that
//! wrote it.
//!
//! The tables are those of the store's first migration. All reads of one check run in one read transaction, so that
//! they see one point in time even while a server writes.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use taffrail_event::DedupKey;

/// At most so many of a kind are named.
const NAMED_MAX: usize = 5;

/// What is wrong with a database; nothing, if all is well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Events stored.
    pub(crate) events: u64,
    /// Promised and not there.
    pub(crate) lost: Vec<String>,
    /// Stored more than once, or never sent.
    pub(crate) doubled: Vec<String>,
    /// SQLite's own check, and totals that do not add up.
    pub(crate) broken: Vec<String>,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.broken.is_empty()
    }

    /// The first few, for a person.
    pub(crate) fn describe(&self) -> String {
        let part = |what: &str, list: &[String]| match list {
            [] => String::new(),
            list => format!("{what} {}: {}\n", list.len(), list[..list.len().min(NAMED_MAX)].join("; ")),
        };
        [part("lost", &self.lost), part("doubled", &self.doubled), part("broken", &self.broken)].concat()
    }
}

/// How thorough a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// `quick_check`.
    Quick,
    /// `integrity_check`, and every total recomputed from the events.
    Full,
}

/// Which rows there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extra<'a> {
    /// Any: writers are at work.
    Any,
    /// Only these.
    Only(&'a HashSet<DedupKey>),
}

/// How many events a database holds.
pub(crate) fn count_events(data_dir: &Path) -> Result<u64> {
    let db = open(data_dir)?;
    count(&db, "SELECT count(*) FROM events")
}

/// Rows of the lean table of telemetry.
pub(crate) fn count_telemetry(data_dir: &Path) -> Result<u64> {
    let db = open(data_dir)?;
    count(&db, "SELECT count(*) FROM telemetry")
}

/// Checks the database of `data_dir`: every key of `promised` is there unless it is in `elsewhere` (the spool).
pub(crate) fn check(
    data_dir: &Path,
    depth: Depth,
    promised: &[DedupKey],
    elsewhere: &HashSet<DedupKey>,
    extra: Extra<'_>,
) -> Result<Findings> {
    let mut db = open(data_dir)?;
    let transaction = db.transaction()?;
    let mut findings = Findings { broken: integrity(&transaction, depth)?, ..Findings::default() };
    let stored = stored_keys(&transaction)?;
    findings.events = stored.len() as u64;
    findings.lost =
        promised.iter().filter(|key| !stored.contains(*key) && !elsewhere.contains(*key)).map(hex).collect();
    if let Extra::Only(sent) = extra {
        findings.doubled.extend(stored.difference(sent).map(|key| format!("never sent: {}", hex(key))));
    }
    findings.doubled.extend(texts(
        &transaction,
        "SELECT lower(hex(event_id)) || ' ' || count(*) || ' times' FROM events GROUP BY event_id HAVING count(*) > 1",
    )?);
    if depth == Depth::Full {
        findings.broken.extend(totals(&transaction)?);
    }
    Ok(findings)
}

/// A read-only connection. The file is never changed: a server that starts next finds the same journal.
fn open(data_dir: &Path) -> Result<Connection> {
    let path = data_dir.join("taffrail.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&path, flags)
        .with_context(|| format!("cannot open {}", path.display()))?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(db)
}

fn integrity(db: &Connection, depth: Depth) -> Result<Vec<String>> {
    let sql = match depth {
        Depth::Quick => "PRAGMA quick_check",
        Depth::Full => "PRAGMA integrity_check",
    };
    let mut lines = match texts(db, sql) {
        Ok(lines) => lines,
        // A damaged file can end the check itself.
        Err(error) => vec![format!("{error:#}")],
    };
    lines.retain(|line| line != "ok");
    Ok(lines)
}

fn stored_keys(db: &Connection) -> Result<HashSet<DedupKey>> {
    let mut statement = db.prepare("SELECT dedup_key FROM events")?;
    let rows = statement.query_map([], |row| row.get::<_, [u8; 16]>(0))?;
    rows.map(|key| Ok(DedupKey(key?))).collect()
}

/// Totals that are kept while writing, beside the same recomputed from the rows: differences only.
fn totals(db: &Connection) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (what, kept, recomputed) in TOTALS {
        let (kept, recomputed) = (groups(db, kept)?, groups(db, recomputed)?);
        let names: HashSet<_> = kept.keys().chain(recomputed.keys()).collect();
        for name in names {
            let (k, r) = (kept.get(name).copied().unwrap_or(0), recomputed.get(name).copied().unwrap_or(0));
            if k != r {
                wrong.push(format!("{what} of {name:?}: {k} kept, {r} counted"));
            }
        }
    }
    for (what, sql) in ORPHANS {
        let n = count(db, sql)?;
        if n > 0 {
            wrong.push(format!("{n} {what}"));
        }
    }
    Ok(wrong)
}

/// What is kept, how it is kept, how it is recomputed.
const TOTALS: &[(&str, &str, &str)] = &[
    (
        "events per minute",
        "SELECT bucket, events FROM rollup_minute WHERE app = '' AND user = ''",
        "SELECT timestamp / 60000 * 60000, count(*) FROM events GROUP BY 1",
    ),
    (
        "events per hour",
        "SELECT bucket, events FROM rollup_hour WHERE app = '' AND user = ''",
        "SELECT timestamp / 3600000 * 3600000, count(*) FROM events GROUP BY 1",
    ),
    (
        "events per app",
        "SELECT app, sum(events) FROM rollup_minute WHERE app <> '' AND user = '' GROUP BY 1",
        "SELECT source_app, count(*) FROM events GROUP BY 1",
    ),
    (
        "calls per minute",
        "SELECT bucket, calls FROM rollup_minute WHERE app = '' AND user = ''",
        "SELECT ended / 60000 * 60000, count(*) FROM tool_calls WHERE ended IS NOT NULL AND status <> 'abandoned' GROUP BY 1",
    ),
    (
        "failed calls per hour",
        "SELECT bucket, failed FROM rollup_hour WHERE app = '' AND user = ''",
        "SELECT ended / 3600000 * 3600000, count(*) FROM tool_calls WHERE ended IS NOT NULL AND status = 'failed' GROUP BY 1",
    ),
    (
        "calls per tool",
        "SELECT tool, sum(calls) FROM rollup_tool_minute WHERE app = '' AND user = '' GROUP BY 1",
        "SELECT tool_name, count(*) FROM tool_calls WHERE ended IS NOT NULL AND status <> 'abandoned' GROUP BY 1",
    ),
    (
        "abandoned calls",
        "SELECT 'all', sum(abandoned) FROM rollup_hour WHERE app = '' AND user = ''",
        "SELECT 'all', count(*) FROM tool_calls WHERE ended IS NOT NULL AND status = 'abandoned'",
    ),
    (
        "facet app",
        "SELECT value, count FROM facets WHERE kind = 'app'",
        "SELECT source_app, count(*) FROM events GROUP BY 1",
    ),
    (
        "facet type",
        "SELECT value, count FROM facets WHERE kind = 'type'",
        "SELECT hook_event_type, count(*) FROM events GROUP BY 1",
    ),
    (
        "facet tool",
        "SELECT value, count FROM facets WHERE kind = 'tool'",
        "SELECT tool_name, count(*) FROM events WHERE tool_name IS NOT NULL GROUP BY 1",
    ),
    (
        "events of a session",
        "SELECT session_id, events FROM sessions",
        "SELECT session_id, count(*) FROM events GROUP BY 1",
    ),
    (
        "calls of a session",
        "SELECT session_id, calls FROM sessions",
        "SELECT session_id, count(*) FROM tool_calls GROUP BY 1",
    ),
    (
        "identified calls",
        "SELECT 'all', count(*) FROM tool_calls WHERE tool_use_id IS NOT NULL",
        "SELECT 'all', count(*) FROM (SELECT DISTINCT session_id, coalesce(agent_id, ''), tool_use_id FROM events \
         WHERE tool_use_id IS NOT NULL AND hook_event_type IN ('PreToolUse', 'PostToolUse', 'PostToolUseFailure'))",
    ),
];

/// Rows that must not be there.
const ORPHANS: &[(&str, &str)] = &[
    (
        "events without a payload",
        "SELECT count(*) FROM events WHERE id NOT IN (SELECT event_id FROM payloads)",
    ),
    (
        "payloads without an event",
        "SELECT count(*) FROM payloads WHERE event_id NOT IN (SELECT id FROM events)",
    ),
    (
        "metrics without an event",
        "SELECT count(*) FROM event_metrics WHERE event_id NOT IN (SELECT id FROM events)",
    ),
    (
        "errors without an event",
        "SELECT count(*) FROM event_errors WHERE event_id NOT IN (SELECT id FROM events)",
    ),
    (
        "file operations without an event",
        "SELECT count(*) FROM file_operations WHERE event_id NOT IN (SELECT id FROM events)",
    ),
    (
        "git operations without an event",
        "SELECT count(*) FROM git_operations WHERE event_id NOT IN (SELECT id FROM events)",
    ),
];

fn groups(db: &Connection, sql: &str) -> Result<HashMap<String, i64>> {
    let mut statement = db.prepare(sql).with_context(|| sql.to_owned())?;
    let mut rows = statement.query([])?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next()? {
        let name = match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(n) => n.to_string(),
            other => other.as_str().unwrap_or("").to_owned(),
        };
        // A sum over nothing is null.
        found.insert(name, row.get::<_, Option<i64>>(1)?.unwrap_or(0));
    }
    Ok(found)
}

fn texts(db: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn count(db: &Connection, sql: &str) -> Result<u64> {
    let n: i64 = db.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

fn hex(key: &DedupKey) -> String {
    key.0.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::fill;
    use crate::scratch::Scratch;
    use crate::workload::{Fleet, FleetOptions};
    use taffrail_store::{Options, Store};

    const SEED: u64 = 5;

    /// A database of some events that the store wrote, tampered with by `sql`, and what a check finds.
    fn findings(tamper: &str) -> Findings {
        let scratch = Scratch::new("check-test").unwrap();
        let path = scratch.path().join("taffrail.db");
        let store = Store::open(&Options::new(&path)).unwrap();
        let mut fleet = Fleet::new(FleetOptions::load(SEED));
        let events: Vec<_> = (0..600).map(|_| fill::event(&fleet.step(), SEED)).collect();
        let keys: Vec<_> = events.iter().map(|event| event.dedup_key).collect();
        store.append(events).unwrap();
        store.close();
        Connection::open(&path).unwrap().execute_batch(tamper).unwrap();
        let sent = keys.iter().copied().collect();
        check(scratch.path(), Depth::Full, &keys, &HashSet::new(), Extra::Only(&sent)).unwrap()
    }

    #[test]
    fn what_the_store_wrote_is_clean() {
        let found = findings("");
        assert!(found.is_clean(), "{}", found.describe());
        assert_eq!(found.events, 600);
    }

    #[test]
    fn a_lost_event_is_seen() {
        let found = findings("DELETE FROM events WHERE id = (SELECT max(id) FROM events)");
        assert_eq!(found.lost.len(), 1);
        assert!(!found.broken.is_empty(), "its payload and its share of the totals are left over");
    }

    #[test]
    fn a_doubled_event_is_seen() {
        let found = findings(
            "CREATE TEMP TABLE one AS SELECT * FROM events LIMIT 1; \
             UPDATE one SET id = id + 1, dedup_key = randomblob(16); INSERT OR IGNORE INTO events SELECT * FROM one;",
        );
        assert_eq!(found.doubled.len(), 2, "{}", found.describe());
    }

    #[test]
    fn a_wrong_total_is_seen() {
        for table in ["rollup_minute", "rollup_hour"] {
            let found =
                findings(&format!("UPDATE {table} SET events = events + 1 WHERE app = '' AND user = ''"));
            assert!(!found.broken.is_empty(), "{table}");
        }
        assert!(!findings("UPDATE sessions SET calls = calls + 1").broken.is_empty());
        assert!(!findings("UPDATE facets SET count = count + 1").broken.is_empty());
    }

    #[test]
    fn a_damaged_file_is_seen() {
        let found =
            findings("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'events_app'");
        assert!(!found.broken.is_empty());
    }
}
