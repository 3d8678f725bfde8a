//! Words that repeat in every row, kept once: table `names`. And what the writer remembers of the ledger.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use taffrail_event::prices::PriceTable;

use crate::digest::dirty::Marked;
use crate::digest::tables::Keys;
use crate::error::ReadError;
use crate::events::to_i64;
use crate::ledger::keys::ByKey;

/// Names, and sessions, remembered by the writer; more are forgotten and read again.
const REMEMBERED_MAX: usize = 20_000;

/// What the writer remembers of the ledger between transactions: only what the database also says, and the prices.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) prices: Arc<PriceTable>,
    names: HashMap<String, i64>,
    names_by_id: HashMap<i64, String>,
    sessions: HashMap<String, i64>,
    sessions_by_id: HashMap<i64, String>,
    fingerprint: Option<i64>,
    /// By the number of a model's name.
    windows: HashMap<i64, Option<i64>, ByKey>,
    /// Whether requests with more than one id of a kind exist.
    pub(crate) has_extra_ids: Option<bool>,
    /// Whether anybody hears of changes.
    pub(crate) is_heard: bool,
    /// Sessions that are marked to be digested.
    pub(crate) marked: Marked,
    pub(crate) digest_keys: Keys,
}

impl Memory {
    pub(crate) fn new(prices: Arc<PriceTable>) -> Self {
        Self { prices, ..Self::default() }
    }

    /// Prices what comes from now on by another table.
    pub(crate) fn price_by(&mut self, prices: &Arc<PriceTable>) {
        self.prices = Arc::clone(prices);
        self.fingerprint = None;
        self.windows.clear();
    }

    /// Forgets what the database says.
    pub(crate) fn forget(&mut self) {
        *self = Self { is_heard: self.is_heard, ..Self::new(Arc::clone(&self.prices)) };
    }

    /// The number of a name, given to it where it has none.
    pub(crate) fn name(&mut self, conn: &Connection, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.names.get(name) {
            return Ok(*id);
        }
        let found = conn
            .prepare_cached("SELECT id FROM names WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                conn.prepare_cached("INSERT INTO names (name) VALUES (?1)")?.execute([name])?;
                conn.last_insert_rowid()
            }
        };
        if self.names.len() >= REMEMBERED_MAX {
            self.names.clear();
        }
        self.names.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The number of a name that may be missing.
    pub(crate) fn name_of(&mut self, conn: &Connection, name: Option<&str>) -> rusqlite::Result<Option<i64>> {
        name.map(|name| self.name(conn, name)).transpose()
    }

    /// The name of a number.
    pub(crate) fn text(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<String> {
        text_of(&mut self.names_by_id, conn, "SELECT name FROM names WHERE id = ?1", id)
    }

    /// The id by which the client knows a session.
    pub(crate) fn session_text(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<String> {
        text_of(&mut self.sessions_by_id, conn, "SELECT session_id FROM sessions WHERE id = ?1", id)
    }

    /// The row of a session, made where there is none: a request can be known before anything else of its session.
    pub(crate) fn session(&mut self, conn: &Connection, session_id: &str, ts: i64) -> rusqlite::Result<i64> {
        if let Some(id) = self.sessions.get(session_id) {
            return Ok(*id);
        }
        let found = conn
            .prepare_cached("SELECT id FROM sessions WHERE session_id = ?1")?
            .query_row([session_id], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                conn.prepare_cached(
                    "INSERT INTO sessions (session_id, source_app, started, last_event, worked, events, prompts, calls,
                        failed_calls, subagents, compactions) VALUES (?1, 'unknown', ?2, ?2, 0, 0, 0, 0, 0, 0, 0)",
                )?
                .execute(params![session_id, ts])?;
                conn.last_insert_rowid()
            }
        };
        if self.sessions.len() >= REMEMBERED_MAX {
            self.sessions.clear();
        }
        self.sessions.insert(session_id.to_owned(), id);
        Ok(id)
    }

    /// The context window of a model, by the number of its name and the name.
    pub(crate) fn context_window(&mut self, id: i64, model: &str) -> Option<i64> {
        if self.windows.len() >= REMEMBERED_MAX {
            self.windows.clear();
        }
        *self.windows.entry(id).or_insert_with(|| self.prices.context_window(model).map(to_i64))
    }

    /// The number of the price table's fingerprint; the first one is that of history.
    pub(crate) fn priced_by(&mut self, conn: &Connection) -> rusqlite::Result<i64> {
        if let Some(id) = self.fingerprint {
            return Ok(id);
        }
        let fingerprint = self.prices.fingerprint();
        conn.execute(
            "INSERT INTO ledger_settings (key, value) VALUES ('priced_by', ?1) ON CONFLICT DO NOTHING",
            [&fingerprint],
        )?;
        let id = self.name(conn, &fingerprint)?;
        self.fingerprint = Some(id);
        Ok(id)
    }
}

fn text_of(
    known: &mut HashMap<i64, String>,
    conn: &Connection,
    sql: &'static str,
    id: i64,
) -> rusqlite::Result<String> {
    if let Some(text) = known.get(&id) {
        return Ok(text.clone());
    }
    let text: String = conn.prepare_cached(sql)?.query_row([id], |row| row.get(0))?;
    if known.len() >= REMEMBERED_MAX {
        known.clear();
    }
    known.insert(id, text.clone());
    Ok(text)
}

/// Names by number, as a reader meets them.
pub(crate) struct Names<'c> {
    conn: &'c Connection,
    known: HashMap<i64, String>,
}

impl<'c> Names<'c> {
    pub(crate) fn new(conn: &'c Connection) -> Self {
        Self { conn, known: HashMap::new() }
    }

    /// The name of a number.
    pub(crate) fn get(&mut self, id: i64) -> Result<&str, ReadError> {
        if !self.known.contains_key(&id) {
            let name = self
                .conn
                .prepare_cached("SELECT name FROM names WHERE id = ?1")?
                .query_row([id], |row| row.get(0))?;
            self.known.insert(id, name);
        }
        Ok(self.known.get(&id).map_or("", String::as_str))
    }

    /// The name of a number that may be missing.
    pub(crate) fn of(&mut self, id: Option<i64>) -> Result<Option<String>, ReadError> {
        id.map(|id| self.get(id).map(str::to_owned)).transpose()
    }
}

/// The number of a name, if it has one.
pub(crate) fn find(conn: &Connection, name: &str) -> Result<Option<i64>, ReadError> {
    Ok(conn
        .prepare_cached("SELECT id FROM names WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}
