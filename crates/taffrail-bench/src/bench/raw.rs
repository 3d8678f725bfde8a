//! The floor of every ingest figure: SQLite given the finished rows.
//!
//! Every row of every table of a database that the store has written is read into memory; then the same rows go into a
//! new database with the same schema, the same indexes and the same settings, by prepared statements, so many
//! transactions. That leaves out all that makes an event into rows: parsing, hashing, compressing, merging calls,
//! looking for duplicates. Rows that the store updates again and again (sessions, totals) are inserted once, finished.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

/// As the store has it: pages in the WAL after which a commit folds them in.
const CHECKPOINT_PAGES: i64 = 4_000;
/// As the store has it by default.
const CACHE_KIB: i64 = 32 * 1024;

/// A database's content.
#[derive(Debug)]
pub(super) struct Rows {
    schema: Vec<String>,
    tables: Vec<Table>,
    page_bytes: i64,
}

#[derive(Debug)]
struct Table {
    insert: String,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    /// Reads all of it, each table in the order of its key.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let db = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut schema = Vec::new();
        let mut names = Vec::new();
        {
            let mut statement = db.prepare(
                "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' \
                 ORDER BY type = 'index', rowid",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                schema.push(row.get(2)?);
                if row.get::<_, String>(0)? == "table" {
                    names.push(row.get::<_, String>(1)?);
                }
            }
        }
        let tables = names.iter().map(|name| Table::read(&db, name)).collect::<Result<_>>()?;
        let page_bytes = db.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        Ok(Self { schema, tables, page_bytes })
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.tables.iter().map(|table| table.rows.len()).sum()
    }

    /// Inserts all into a new database at `path` in `batches` transactions; the time of that alone.
    pub(super) fn insert(&self, path: &Path, batches: usize) -> Result<Duration> {
        let mut db = Connection::open(path)?;
        db.pragma_update(None, "page_size", self.page_bytes)?;
        db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.set_prepared_statement_cache_capacity(self.tables.len() + 8);
        for sql in &self.schema {
            db.execute_batch(sql)?;
        }
        let begun = Instant::now();
        for batch in 0..batches {
            let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for table in &self.tables {
                let n = table.rows.len();
                let part = &table.rows[n * batch / batches..n * (batch + 1) / batches];
                if part.is_empty() {
                    continue;
                }
                let mut insert = transaction.prepare_cached(&table.insert)?;
                for row in part {
                    insert.execute(params_from_iter(row))?;
                }
            }
            transaction.commit()?;
        }
        Ok(begun.elapsed())
    }
}

impl Table {
    fn read(db: &Connection, name: &str) -> Result<Self> {
        let mut statement = db.prepare(&format!("SELECT * FROM \"{name}\""))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((0..columns).map(|at| row.get(at)).collect::<rusqlite::Result<Vec<Value>>>()?);
        }
        let marks = vec!["?"; columns].join(", ");
        Ok(Self { insert: format!("INSERT INTO \"{name}\" VALUES ({marks})"), rows: found })
    }
}
