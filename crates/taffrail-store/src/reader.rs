//! Bounded reads on a pooled read-only connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::Connection;
use taffrail_analytics::Window;
use taffrail_event::prices::PriceTable;
use taffrail_event::{RowId, TimestampMs};

use crate::connect;
use crate::error::ReadError;
use crate::events::Order;
use crate::facets::Kind;
use crate::filter::{CallFilter, EventFilter, Payloads, Scope, SessionFilter};
use crate::options::Options;
use crate::rows::{
    FilterOptions, Page, StoreSize, StoredAgent, StoredCall, StoredEvent, StoredSession, TIMELINE_MAX,
    Timeline,
};
use crate::summary::SummaryRows;
use crate::{EVENTS_PAGE_MAX, SESSION_OPTIONS_MAX, calls, events, facets, migrate, sessions, summary};

/// A reader's page cache is this part of the writer's.
const READER_CACHE_PART: usize = 8;

/// Read-only connections that wait to be used.
pub(crate) struct Pool {
    path: PathBuf,
    cache_bytes: usize,
    idle_max: usize,
    idle: Mutex<Vec<Connection>>,
    prices: RwLock<Arc<PriceTable>>,
}

impl Pool {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            path: options.path.clone(),
            cache_bytes: options.cache_bytes / READER_CACHE_PART,
            idle_max: options.readers,
            idle: Mutex::default(),
            prices: RwLock::new(Arc::clone(&options.prices)),
        }
    }

    /// Closes what waits.
    pub(crate) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn set_prices(&self, prices: &Arc<PriceTable>) {
        *self.prices.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(prices);
    }

    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, conn: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max {
            idle.push(conn);
        }
    }
}

/// A read-only connection on loan from the pool. `Send`, not `Sync`. Each method sees one state of the database.
pub struct Reader {
    conn: Option<Connection>,
    pool: Arc<Pool>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.give_back(conn);
        }
    }
}

impl Reader {
    pub(crate) fn of_pool(pool: &Arc<Pool>) -> Result<Self, ReadError> {
        let conn = match pool.take() {
            Some(conn) => conn,
            None => connect::read_only(&pool.path, pool.cache_bytes)?,
        };
        Ok(Self { conn: Some(conn), pool: Arc::clone(pool) })
    }

    /// Opens a database to read only, beside whoever writes it: for commands that run without the server.
    ///
    /// # Errors
    /// As [`Store::open`](crate::Store::open); a database that was never made is [`OpenError`](crate::OpenError)`::Unwritable`.
    pub fn open(options: &Options) -> Result<Self, crate::OpenError> {
        connect::check_readable(&options.path)?;
        Self::of_pool(&Arc::new(Pool::new(options)))
            .map_err(|e| crate::OpenError::Other { detail: e.to_string() })
    }

    pub(crate) fn conn(&self) -> &Connection {
        self.conn.as_ref().expect("taken only when dropped")
    }

    /// What requests are priced by.
    pub(crate) fn prices(&self) -> Arc<PriceTable> {
        Arc::clone(&self.pool.prices.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// One state of the database for everything that `read` looks at.
    pub(crate) fn at_once<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let tx = self.conn().unchecked_transaction()?;
        let value = read(&tx)?;
        tx.finish()?;
        Ok(value)
    }

    /// Events that match, newest first; `cursor` is the last page's `next`. `limit` is cut at [`EVENTS_PAGE_MAX`].
    pub fn events(
        &self,
        filter: &EventFilter,
        cursor: Option<RowId>,
        limit: usize,
        payloads: Payloads,
    ) -> Result<Page<StoredEvent>, ReadError> {
        let range = crate::scan::id_range(filter.from, filter.to, cursor);
        self.at_once(|conn| events::list(conn, filter, range, Order::NewestFirst, limit, payloads))
    }

    /// Events that match, oldest first, with a row id above `after`; `next` is the `after` of the next read. An event
    /// that comes late has a row id of its own time, so a tail by `after` does not see it.
    pub fn events_after(
        &self,
        filter: &EventFilter,
        after: RowId,
        limit: usize,
        payloads: Payloads,
    ) -> Result<Page<StoredEvent>, ReadError> {
        let (below, from) = crate::scan::id_range(filter.from, filter.to, None);
        let range = (below, from.max(RowId(after.0.saturating_add(1))));
        self.at_once(|conn| events::list(conn, filter, range, Order::OldestFirst, limit, payloads))
    }

    /// One event with its payload.
    pub fn event(&self, row: RowId) -> Result<Option<StoredEvent>, ReadError> {
        self.at_once(|conn| event(conn, row, Payloads::With))
    }

    /// One event as a live frame needs it.
    pub fn event_with(&self, row: RowId, payloads: Payloads) -> Result<Option<StoredEvent>, ReadError> {
        self.at_once(|conn| event(conn, row, payloads))
    }

    /// The newest events with payload and legacy fields, oldest first. `limit` is cut at [`EVENTS_PAGE_MAX`].
    pub fn recent(&self, limit: usize) -> Result<Vec<StoredEvent>, ReadError> {
        self.at_once(|conn| events::recent(conn, limit.min(EVENTS_PAGE_MAX)))
    }

    /// What can be filtered by.
    pub fn filter_options(&self) -> Result<FilterOptions, ReadError> {
        self.at_once(|conn| {
            Ok(FilterOptions {
                apps: facets::list(conn, Kind::App)?,
                types: facets::list(conn, Kind::Type)?,
                tools: facets::list(conn, Kind::Tool)?,
                sessions: sessions::newest(conn, SESSION_OPTIONS_MAX)?,
            })
        })
    }

    /// Sessions that match, newest event first; `cursor` is the last page's `next` (opaque).
    pub fn sessions(
        &self,
        filter: &SessionFilter,
        cursor: Option<RowId>,
        limit: usize,
    ) -> Result<Page<StoredSession>, ReadError> {
        self.at_once(|conn| sessions::list(conn, filter, cursor, limit))
    }

    /// One session.
    pub fn session(&self, session_id: &str) -> Result<Option<StoredSession>, ReadError> {
        sessions::get(self.conn(), session_id)
    }

    /// The agents of a session, main agent first, then by start.
    pub fn agents(&self, session_id: &str) -> Result<Vec<StoredAgent>, ReadError> {
        sessions::agents(self.conn(), session_id)
    }

    /// Calls that match, newest first; `cursor` is the last page's `next`.
    pub fn calls(
        &self,
        filter: &CallFilter,
        cursor: Option<RowId>,
        limit: usize,
    ) -> Result<Page<StoredCall>, ReadError> {
        self.at_once(|conn| calls::list(conn, filter, cursor, limit))
    }

    /// One session as it went; none where it is unknown.
    pub fn timeline(&self, session_id: &str) -> Result<Option<Timeline>, ReadError> {
        self.at_once(|conn| {
            let Some(session) = sessions::get(conn, session_id)? else { return Ok(None) };
            let calls = calls::of_session(conn, session_id, TIMELINE_MAX)?;
            let marks = events::marks_of_session(conn, session_id, TIMELINE_MAX)?;
            let cut = calls.len() == TIMELINE_MAX || marks.len() == TIMELINE_MAX;
            Ok(Some(Timeline { agents: sessions::agents(conn, session_id)?, session, calls, marks, cut }))
        })
    }

    /// Everything about a window that ends at `now`.
    pub fn summary(&self, window: Window, scope: &Scope, now: TimestampMs) -> Result<SummaryRows, ReadError> {
        self.at_once(|conn| summary::read(conn, window, scope, now))
    }

    /// How big the database is.
    pub fn size(&self) -> Result<StoreSize, ReadError> {
        let conn = self.conn();
        let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let bytes = |path: PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        let page_bytes = u64::try_from(pragma("page_size")?).unwrap_or(0);
        Ok(StoreSize {
            db_bytes: bytes(self.pool.path.clone()),
            wal_bytes: bytes(connect::beside(&self.pool.path, "-wal")),
            free_bytes: u64::try_from(pragma("freelist_count")?).unwrap_or(0) * page_bytes,
            events: facets::total(conn)?,
            sessions: conn.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))?,
            schema_version: migrate::version_on(conn)?,
        })
    }
}

/// One event with its tool chain.
pub(crate) fn event(
    conn: &Connection,
    row: RowId,
    payloads: Payloads,
) -> Result<Option<StoredEvent>, ReadError> {
    let mut event = events::read(conn, row, payloads)?;
    if let Some(event) = &mut event {
        event.tool_chain = events::tool_chain(conn, event)?;
    }
    Ok(event)
}
