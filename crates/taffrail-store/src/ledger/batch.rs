//! One transaction's worth of the ledger: what events and transcripts tell is joined, then written once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, params};
use taffrail_event::ledger::FailureSighting;
use taffrail_event::normalize::otlp::Telemetry;
use taffrail_event::transcript::{Facts, MarkKind};
use taffrail_event::{Event, TimestampMs};

use crate::digest::dirty;
use crate::ledger::names::Memory;
use crate::ledger::requests::{self, Pending, Touched};
use crate::ledger::sums::Deltas;
use crate::ledger::{
    LedgerChange, TranscriptChunk, TranscriptOutcome, compactions, derived, failures, files, marks, told,
};
use crate::rollup;
use crate::sessions::Changed;

/// What a transaction tells the ledger.
#[derive(Default)]
pub(crate) struct Batch {
    requests: Pending,
    deltas: Deltas,
    /// By session and key: the newest value.
    labels: BTreeMap<(String, String), (i64, String)>,
    marks: marks::Counts,
    failures: Vec<FailureSighting>,
    /// Subagents with requests whose type became known.
    typed: Vec<(String, String)>,
    /// Sessions of which something was told, beside requests, that their account with the client hangs on.
    accounts: BTreeSet<i64>,
    /// Sessions of which a transcript told a compaction.
    compacted: BTreeSet<i64>,
    /// Sessions of which anything was told: they are to be digested anew.
    told: BTreeSet<i64>,
}

impl Batch {
    /// Takes in what an event tells of the ledger.
    pub(crate) fn add_event(&mut self, event: &Event) {
        if let Some(request) = &event.request {
            self.requests.see((**request).clone());
        }
        self.failures.extend(event.failure.as_deref().cloned());
        for (key, value) in &event.labels {
            let said = (event.ts.get(), value.clone());
            let slot =
                self.labels.entry((event.session_id.clone(), key.clone())).or_insert_with(|| said.clone());
            if *slot < said {
                *slot = said;
            }
        }
    }

    /// Takes in what a span tells of a request.
    pub(crate) fn add_telemetry(&mut self, row: &Telemetry) {
        if let Some(request) = &row.request {
            self.requests.see((**request).clone());
        }
        self.failures.extend(row.failure.as_deref().cloned());
    }

    /// Takes in what lines of a transcript tell, and stores how far the file is read.
    pub(crate) fn add_chunk(
        &mut self,
        conn: &Connection,
        memory: &mut Memory,
        chunk: TranscriptChunk,
        outcome: &mut TranscriptOutcome,
    ) -> rusqlite::Result<()> {
        files::put(conn, &chunk.file)?;
        let facts: &Facts = &chunk.facts;
        for session in &facts.sessions {
            let (id, is_new) = told::see_session(conn, memory, session, &chunk.file)?;
            outcome.sessions_new += u64::from(is_new);
            self.deltas.look_at(id);
            self.told.insert(id);
        }
        self.accounts.extend(told::see_births(conn, memory, facts)?);
        for agent in &facts.agents {
            self.typed.extend(told::see_agent(conn, memory, agent)?);
            self.told.insert(memory.session(conn, &agent.session_id, TimestampMs::MIN.get())?);
        }
        for mark in &facts.marks {
            outcome.marks_new += u64::from(marks::see(conn, memory, mark, &mut self.marks, &mut self.told)?);
            if matches!(mark.kind, MarkKind::Compaction { .. }) {
                let session = memory.session(conn, &mark.session_id, mark.ts.get())?;
                self.accounts.insert(session);
                self.compacted.insert(session);
            }
        }
        for failure in &facts.failures {
            failures::see(conn, memory, failure, &mut self.told)?;
        }
        for total in &facts.totals {
            self.accounts.insert(told::see_total(conn, memory, total)?);
        }
        for request in chunk.facts.requests {
            self.requests.see(request);
        }
        Ok(())
    }

    /// Writes what was told; the caller commits. `changed` is what this transaction changed of sessions and agents.
    pub(crate) fn flush(
        mut self,
        conn: &Connection,
        memory: &mut Memory,
        changed: Changed,
        now_ms: i64,
        outcome: &mut TranscriptOutcome,
    ) -> rusqlite::Result<Vec<LedgerChange>> {
        let mut touched = Touched::default();
        self.marks.flush(conn)?;
        let written = self.requests.flush(conn, memory, &mut self.deltas, &mut touched)?;
        outcome.requests_new += written.new;
        outcome.requests_changed += written.changed;
        for session in changed.moved {
            self.deltas.look_at(session);
        }
        for (session_id, agent_id) in changed.typed.into_iter().chain(self.typed) {
            requests::retype(conn, memory, &session_id, &agent_id, &mut self.deltas)?;
        }
        self.deltas.flush(conn)?;
        let mut rollups = rollup::Deltas::default();
        for session in &self.compacted {
            compactions::settle(conn, *session, &mut rollups)?;
        }
        // Counters alone: no sketch is touched, so none need be remembered.
        rollups.flush(conn, &mut rollup::Memory::default())?;
        self.told.extend(&touched.sessions);
        touched.sessions.extend(&touched.forks);
        touched.sessions.extend(self.accounts);
        derived::trace(conn, &touched.forks)?;
        derived::refresh(conn, memory, touched.sessions, &mut self.deltas, &mut touched.changes)?;
        for failure in &self.failures {
            failures::see(conn, memory, failure, &mut self.told)?;
        }
        dirty::mark(conn, memory, self.told, now_ms)?;
        for ((session_id, key), (at, value)) in self.labels {
            let session = memory.session(conn, &session_id, at)?;
            conn.prepare_cached(
                "INSERT INTO session_labels (session, key, value, at) VALUES (?1, ?2, ?3, ?4)
                    ON CONFLICT DO UPDATE SET value = excluded.value, at = excluded.at
                    WHERE (excluded.at, excluded.value) > (at, value)",
            )?
            .execute(params![session, key, value, at])?;
        }
        place(conn, &mut touched.changes)?;
        Ok(touched.changes)
    }
}

/// Fills in app and user: they are the session's, and stand only now.
pub(crate) fn place(conn: &Connection, changes: &mut [LedgerChange]) -> rusqlite::Result<()> {
    let mut places: HashMap<String, (String, Option<String>)> = HashMap::new();
    for change in changes {
        if !places.contains_key(&change.session_id) {
            let place = conn
                .prepare_cached("SELECT source_app, user FROM sessions WHERE session_id = ?1")?
                .query_row([&change.session_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            places.insert(change.session_id.clone(), place);
        }
        if let Some((app, user)) = places.get(&change.session_id) {
            change.app.clone_from(app);
            change.user.clone_from(user);
        }
    }
    Ok(())
}
