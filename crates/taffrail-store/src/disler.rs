//! Reads the database of the old server (`events.db`), every vintage of it: columns that came later may be missing,
//! and columns this version does not know are handed on.
//!
//! The file is opened read-only and never changed. Limits: [`PAGE_ROWS`] rows and about [`PAGE_BYTES`] at a time.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Map, Value};

/// Rows of one page, at most.
pub const PAGE_ROWS: usize = 500;
/// A page ends after the row that reaches this, in bytes of text.
pub const PAGE_BYTES: usize = 8 << 20;
/// How long a page waits while the old server writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the old database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DislerError {
    /// It is no such database.
    #[error("this is no database of the old server: {0}\nhint: name its events.db")]
    NotOne(String),
    /// SQLite failed.
    #[error(
        "the old database cannot be read: {0}\nhint: where its folder is read-only, copy events.db and events.db-wal and import the copy"
    )]
    Sqlite(#[from] rusqlite::Error),
}

/// The old database, open for reading.
pub struct OldDatabase {
    conn: Connection,
    has_themes: bool,
}

/// One row of the old `events` table.
#[derive(Clone, Debug, PartialEq)]
pub struct OldEvent {
    /// Its row id.
    pub id: i64,
    /// Every column but `id`, by name, in the table's order; null ones are left out. Text stays text.
    pub columns: Map<String, Value>,
}

impl OldDatabase {
    /// Opens the file for reading.
    ///
    /// # Errors
    /// It is no SQLite file, or has no `events` table of the old shape.
    pub fn open(path: &Path) -> Result<Self, DislerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let columns = columns_of(&conn, "events")?;
        for needed in ["id", "source_app", "session_id", "hook_event_type", "payload", "timestamp"] {
            if !columns.iter().any(|column| column == needed) {
                return Err(DislerError::NotOne(format!("its table events has no column {needed}")));
            }
        }
        let has_themes = columns_of(&conn, "themes")?.iter().any(|column| column == "name");
        Ok(Self { conn, has_themes })
    }

    /// How many events it holds.
    ///
    /// # Errors
    /// SQLite's.
    pub fn count(&self) -> Result<u64, DislerError> {
        let count: i64 = self.conn.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The next events after that row id, in the order they were stored; empty at the end.
    ///
    /// # Errors
    /// SQLite's.
    pub fn events_after(&self, id: i64) -> Result<Vec<OldEvent>, DislerError> {
        let mut statement =
            self.conn.prepare_cached("SELECT * FROM events WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query((id, i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX)))?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let mut columns = columns_in(row, &names, &mut bytes)?;
            let id = columns.shift_remove("id").and_then(|id| id.as_i64()).unwrap_or_default();
            events.push(OldEvent { id, columns });
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(events)
    }

    /// The themes, as the columns of their table.
    ///
    /// # Errors
    /// SQLite's.
    pub fn themes(&self) -> Result<Vec<Map<String, Value>>, DislerError> {
        if !self.has_themes {
            return Ok(Vec::new());
        }
        let mut statement = self.conn.prepare("SELECT * FROM themes ORDER BY rowid")?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([])?;
        let mut themes = Vec::new();
        while let Some(row) = rows.next()? {
            themes.push(columns_in(row, &names, &mut 0)?);
        }
        Ok(themes)
    }
}

fn columns_of(conn: &Connection, table: &str) -> Result<Vec<String>, DislerError> {
    let names = || -> rusqlite::Result<Vec<String>> {
        let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
        statement.query_map([table], |row| row.get(0))?.collect()
    };
    names().map_err(|e| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            DislerError::NotOne(e.to_string())
        }
        _ => DislerError::Sqlite(e),
    })
}

fn columns_in(row: &Row<'_>, names: &[String], bytes: &mut usize) -> rusqlite::Result<Map<String, Value>> {
    let mut columns = Map::new();
    for (at, name) in names.iter().enumerate() {
        let value = match row.get_ref(at)? {
            ValueRef::Null => continue,
            ValueRef::Integer(n) => Value::from(n),
            ValueRef::Real(n) => Value::from(n),
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                *bytes += text.len();
                Value::from(String::from_utf8_lossy(text))
            }
        };
        columns.insert(name.clone(), value);
    }
    Ok(columns)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn database(schema: &str, rows: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        Connection::open(&path).unwrap().execute_batch(&format!("{schema};{rows}")).unwrap();
        (dir, path)
    }

    #[test]
    fn the_oldest_vintage_and_one_from_the_future_are_read() {
        let old = "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, source_app TEXT NOT NULL,
            session_id TEXT NOT NULL, hook_event_type TEXT NOT NULL, payload TEXT NOT NULL, timestamp INTEGER NOT NULL)";
        let (_dir, path) = database(old, "INSERT INTO events VALUES (3, 'a', 's', 'Stop', '{}', 7)");
        let db = OldDatabase::open(&path).unwrap();
        let events = db.events_after(0).unwrap();
        assert_eq!((events.len(), events[0].id, db.count().unwrap()), (1, 3, 1));
        assert_eq!(events[0].columns["timestamp"], 7);
        assert!(db.events_after(3).unwrap().is_empty() && db.themes().unwrap().is_empty());

        let new = format!(
            "{old}; ALTER TABLE events ADD COLUMN chat TEXT; ALTER TABLE events ADD COLUMN later REAL"
        );
        let (_dir, path) =
            database(&new, "INSERT INTO events VALUES (1, 'a', 's', 'Stop', '{}', 7, NULL, 1.5)");
        let events = OldDatabase::open(&path).unwrap().events_after(0).unwrap();
        assert_eq!(events[0].columns["later"], 1.5);
        assert!(!events[0].columns.contains_key("chat"));
    }

    #[test]
    fn another_database_and_no_database_are_refused_with_a_hint() {
        let (dir, path) = database("CREATE TABLE other (id INTEGER)", "");
        let message = |path: &Path| OldDatabase::open(path).err().unwrap().to_string();
        assert!(message(&path).contains("hint:"));
        let text = dir.path().join("text");
        std::fs::write(&text, "no database, but long enough to be looked at as one: ".repeat(20)).unwrap();
        assert!(message(&text).contains("hint:"));
    }
}
