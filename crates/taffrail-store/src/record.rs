//! One transaction's worth of events, from row to rollup.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::Connection;
use taffrail_event::event::{CallStatus, ClosesCalls};
use taffrail_event::ids::ROWS_PER_MS;
use taffrail_event::normalize::calls as word;
use taffrail_event::normalize::otlp::Telemetry;
use taffrail_event::prices::PriceTable;
use taffrail_event::{Event, RowId, TimestampMs};

use crate::calls::{self, Call, Close, Sighting};
use crate::digest::dirty;
use crate::events;
use crate::ledger::batch::Batch;
use crate::ledger::{LedgerChange, TranscriptOutcome, compactions, names};
use crate::rollup::{self, Deltas};
use crate::sessions::Touched;
use crate::store::{Appended, Outcome};
use crate::telemetry;

/// Milliseconds whose last row id is remembered.
const ROW_IDS_CACHED_MAX: usize = 4_096;

/// What the writer remembers between transactions: only what the database also says, so it can be forgotten.
#[derive(Default)]
pub(crate) struct Memory {
    row_ids: RowIds,
    telemetry_ids: RowIds,
    rollups: rollup::Memory,
    pub(crate) ledger: names::Memory,
}

impl Memory {
    /// Remembers nothing yet; requests are priced by `prices`.
    pub(crate) fn new(prices: Arc<PriceTable>) -> Self {
        Self { ledger: names::Memory::new(prices), ..Self::default() }
    }

    /// Forgets everything: after a rollback the memory would be of what never was.
    pub(crate) fn forget(&mut self) {
        self.row_ids.next.clear();
        self.telemetry_ids.next.clear();
        self.rollups.clear();
        self.ledger.forget();
    }
}

/// A transaction in the making.
pub(crate) struct Recorder<'c, 'm> {
    conn: &'c Connection,
    memory: &'m mut Memory,
    touched: Touched,
    deltas: Deltas,
    calls: Pending,
    /// None while no event has told of a request.
    ledger: Option<Box<Batch>>,
    telemetry: telemetry::Added,
    /// Sessions whose hooks told of a compaction.
    compacted: BTreeSet<String>,
    committed_ms: i64,
}

/// Calls with an id of their own that this transaction has seen and not yet written: most begin and end within one
/// transaction, and are written once.
#[derive(Default)]
struct Pending {
    /// By session, then by agent and tool use.
    sessions: HashMap<String, HashMap<(String, String), PendingCall>>,
    /// Row ids of those that have no row yet.
    new_ids: HashSet<i64>,
}

struct PendingCall {
    /// As it is stored; none where it is new.
    stored: Option<Call>,
    now: Call,
}

impl Pending {
    /// Writes the calls of one session, by row id.
    fn write_session(&mut self, conn: &Connection, session_id: &str) -> rusqlite::Result<()> {
        self.sessions.remove(session_id).map_or(Ok(()), |calls| write(conn, calls.into_values().collect()))
    }

    /// Writes all calls, by row id.
    fn write_all(self, conn: &Connection) -> rusqlite::Result<()> {
        write(conn, self.sessions.into_values().flat_map(HashMap::into_values).collect())
    }
}

fn write(conn: &Connection, mut calls: Vec<PendingCall>) -> rusqlite::Result<()> {
    calls.sort_unstable_by_key(|call| call.now.id);
    calls.iter().try_for_each(|call| match &call.stored {
        Some(stored) => calls::update(conn, stored, &call.now),
        None => calls::insert(conn, &call.now),
    })
}

impl<'c, 'm> Recorder<'c, 'm> {
    /// Records inside a transaction that is open on `conn` and about to commit at `committed_ms`.
    pub(crate) fn new(conn: &'c Connection, memory: &'m mut Memory, committed_ms: i64) -> Self {
        let (touched, deltas, calls) = (Touched::default(), Deltas::new(committed_ms), Pending::default());
        let telemetry = telemetry::Added::default();
        let compacted = BTreeSet::new();
        Self { conn, memory, touched, deltas, calls, ledger: None, telemetry, compacted, committed_ms }
    }

    /// Stores one event, unless its fact is stored already.
    pub(crate) fn add(&mut self, event: &Event) -> rusqlite::Result<Appended> {
        let row_id = self.memory.row_ids.peek(self.conn, event.ts, events::last_in)?;
        if !events::insert(self.conn, row_id, event)? {
            let row_id = events::row_of_key(self.conn, event)?;
            return Ok(Appended { row_id, outcome: Outcome::Duplicate });
        }
        self.memory.row_ids.take(row_id);
        events::insert_details(self.conn, row_id, event, &self.memory.ledger.prices)?;
        let closes = word::closes(event);
        self.touched.add(self.conn, event, closes)?;
        self.deltas.add_event(event, self.committed_ms);
        for update in &word::updates(event) {
            self.see(Sighting { row: row_id, event, update })?;
        }
        self.close(row_id, event, closes)?;
        if event.metrics.compression_events.is_some_and(|count| count > 0) {
            self.compacted.insert(event.session_id.clone());
        }
        if event.request.is_some() || event.failure.is_some() || !event.labels.is_empty() {
            self.ledger.get_or_insert_default().add_event(event);
        }
        Ok(Appended { row_id, outcome: Outcome::Stored })
    }

    /// Stores one telemetry row, unless it is stored already.
    pub(crate) fn add_telemetry(&mut self, row: &Telemetry) -> rusqlite::Result<Appended> {
        let row_id = self.memory.telemetry_ids.peek(self.conn, row.ts, telemetry::last_in)?;
        if !self.telemetry.insert(self.conn, row_id, row)? {
            let row_id = telemetry::row_of_key(self.conn, row)?;
            return Ok(Appended { row_id, outcome: Outcome::Duplicate });
        }
        self.memory.telemetry_ids.take(row_id);
        if row.request.is_some() || row.failure.is_some() {
            let ledger = self.ledger.get_or_insert_default();
            ledger.add_telemetry(row);
        }
        Ok(Appended { row_id, outcome: Outcome::Stored })
    }

    /// Writes what was summed up; the caller commits. Gives what changed in the ledger.
    pub(crate) fn finish(mut self) -> rusqlite::Result<Vec<LedgerChange>> {
        self.calls.write_all(self.conn)?;
        let changed = self.touched.flush(self.conn)?;
        self.telemetry.flush(self.conn)?;
        for session_id in &self.compacted {
            let session = self.memory.ledger.session(self.conn, session_id, self.committed_ms)?;
            compactions::settle(self.conn, session, &mut self.deltas)?;
        }
        self.deltas.flush(self.conn, &mut self.memory.rollups)?;
        dirty::mark(self.conn, &mut self.memory.ledger, changed.rows.iter().copied(), self.committed_ms)?;
        if self.ledger.is_none() && changed.is_empty() {
            return Ok(Vec::new());
        }
        let ledger = self.ledger.unwrap_or_default();
        let mut outcome = TranscriptOutcome::default();
        ledger.flush(self.conn, &mut self.memory.ledger, changed, self.committed_ms, &mut outcome)
    }

    fn see(&mut self, sighting: Sighting<'_>) -> rusqlite::Result<()> {
        let Some(use_id) = sighting.update.tool.tool_use_id.as_deref() else {
            return self.see_nameless(sighting);
        };
        let session_id = &sighting.event.session_id;
        let key = (sighting.event.agent_id.clone().unwrap_or_default(), use_id.to_owned());
        let pending = self.calls.sessions.get_mut(session_id).and_then(|calls| calls.remove(&key));
        let (stored, before) = match pending {
            Some(pending) => (pending.stored, Some(pending.now)),
            None => {
                let stored = calls::find(self.conn, sighting)?;
                (stored.clone(), stored)
            }
        };
        let now = self.next_state(before.as_ref(), sighting)?;
        self.account(before.as_ref(), &now);
        if stored.is_none() {
            self.calls.new_ids.insert(now.id);
        }
        let calls = match self.calls.sessions.get_mut(session_id) {
            Some(calls) => calls,
            None => self.calls.sessions.entry(session_id.clone()).or_default(),
        };
        calls.insert(key, PendingCall { stored, now });
        Ok(())
    }

    /// A call without an id is paired by what stands in the database, so it is written at once.
    fn see_nameless(&mut self, sighting: Sighting<'_>) -> rusqlite::Result<()> {
        let before = calls::find(self.conn, sighting)?;
        let now = self.next_state(before.as_ref(), sighting)?;
        match &before {
            Some(before) => calls::update(self.conn, before, &now)?,
            None => calls::insert(self.conn, &now)?,
        }
        self.account(before.as_ref(), &now);
        Ok(())
    }

    fn next_state(&mut self, before: Option<&Call>, sighting: Sighting<'_>) -> rusqlite::Result<Call> {
        let mut call = match before {
            Some(call) => call.clone(),
            None => calls::begin_row(self.conn, sighting, |id| self.calls.new_ids.contains(&id))?,
        };
        call.see(sighting);
        self.close_if_over(&mut call, sighting.event)?;
        Ok(call)
    }

    /// An open call that arrives after the end of its agent is closed by it.
    fn close_if_over(&mut self, call: &mut Call, event: &Event) -> rusqlite::Result<()> {
        if !call.is_open() || self.touched.closed(self.conn, event)?.is_none_or(|closed| closed < call.seen) {
            return Ok(());
        }
        if let Some(close) = calls::first_close(self.conn, &call.session_id, &call.agent_id, call.seen)? {
            call.close(close);
        }
        Ok(())
    }

    fn close(&mut self, row: RowId, event: &Event, closes: ClosesCalls) -> rusqlite::Result<()> {
        let agent = match closes {
            ClosesCalls::None => return Ok(()),
            ClosesCalls::OfAgent => Some(event.agent_id.as_deref().unwrap_or("")),
            ClosesCalls::OfSession => None,
        };
        self.calls.write_session(self.conn, &event.session_id)?;
        let close = Close { row, ts: event.ts.get() };
        for before in calls::closed_by(self.conn, &event.session_id, agent, close)? {
            let mut call = before.clone();
            call.close(close);
            calls::update(self.conn, &before, &call)?;
            self.account(Some(&before), &call);
        }
        Ok(())
    }

    fn account(&mut self, before: Option<&Call>, after: &Call) {
        let has_failed = |call: &Call| call.status == CallStatus::Failed;
        let is_new = i64::from(before.is_none());
        let failed = i64::from(has_failed(after)) - i64::from(before.is_some_and(has_failed));
        if is_new != 0 || failed != 0 {
            self.touched.add_calls(&after.session_id, &after.agent_id, is_new, failed);
        }
        let before = before.and_then(Call::contribution);
        self.deltas.change_call(before.as_ref(), after.contribution().as_ref());
    }
}

/// The highest id of a table in a half-open range.
type LastIn = fn(&Connection, RowId, RowId) -> rusqlite::Result<Option<RowId>>;

/// Hands out row ids: the next free one of an event's millisecond, or of a following one where that is full.
#[derive(Default)]
struct RowIds {
    /// Per millisecond, the next free id.
    next: HashMap<i64, i64>,
}

impl RowIds {
    /// The next free id; it stays free until it is taken.
    fn peek(&mut self, conn: &Connection, ts: TimestampMs, last_in: LastIn) -> rusqlite::Result<RowId> {
        let mut ms = ts.get();
        loop {
            let first = RowId::first_of(TimestampMs::clamped(ms));
            let end = RowId(first.0 + ROWS_PER_MS);
            let next = match self.next.get(&ms) {
                Some(next) => *next,
                None => last_in(conn, first, end)?.map_or(first.0, |last| last.0 + 1),
            };
            if self.next.len() >= ROW_IDS_CACHED_MAX {
                self.next.clear();
            }
            self.next.insert(ms, next);
            if next < end.0 || ms >= TimestampMs::MAX.get() {
                return Ok(RowId(next));
            }
            ms += 1;
        }
    }

    fn take(&mut self, id: RowId) {
        self.next.insert(id.ts().get(), id.0 + 1);
    }
}
