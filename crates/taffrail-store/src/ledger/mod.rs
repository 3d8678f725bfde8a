//! The ledger: one row per API request, merged from every source; its sums; and what transcripts tell beside it.

pub(crate) mod batch;
pub(crate) mod compactions;
mod context;
mod derived;
mod failures;
mod files;
pub(crate) mod held;
mod keys;
mod marks;
pub(crate) mod names;
mod read;
mod reconcile;
mod reprice;
mod requests;
mod rows;
mod sums;
mod told;

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use taffrail_event::TimestampMs;
use taffrail_event::prices::PriceTable;
use taffrail_event::transcript::Facts;

use crate::connect::{append_error, write_error};
use crate::error::{AppendError, ReadError, WriteError};
use crate::filter::Scope;
use crate::ledger::batch::Batch;
use crate::ledger::held::Lost;
use crate::ledger::reprice::Effects;
use crate::reader::Reader;
use crate::sessions::Changed;
use crate::store::Store;
use crate::writer::now_ms;

pub use context::ContextSize;
pub(crate) use read::{costs, each as each_request, newest_context};
pub use rows::*;
pub(crate) use sums::{QUARTER_MS, SPILL_MS};

/// Facts of one transcript file, and how far it has been read when they are stored.
#[derive(Clone, Debug)]
pub struct TranscriptChunk {
    /// The file's new state; stored with the facts or not at all.
    pub file: TranscriptFile,
    /// The facts.
    pub facts: Facts,
}

/// What became of some chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TranscriptOutcome {
    pub requests_new: u64,
    /// Known before, and changed.
    pub requests_changed: u64,
    pub marks_new: u64,
    pub sessions_new: u64,
}

impl Store {
    /// Stores facts of transcripts and waits for their commit: one transaction, all or nothing. Facts that are stored
    /// already change nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn record_transcripts(&self, chunks: Vec<TranscriptChunk>) -> Result<TranscriptOutcome, AppendError> {
        if chunks.is_empty() {
            return Ok(TranscriptOutcome::default());
        }
        let facts = chunks.iter().map(|chunk| facts_of(&chunk.facts)).sum();
        self.on_ledger(facts, facts * FACT_BYTES, move |conn, memory, hear| {
            match record(conn, memory, chunks) {
                Ok((outcome, changes)) => {
                    hear(&changes);
                    Ok(outcome)
                }
                Err(error) => {
                    memory.forget();
                    Err(append_error(&error))
                }
            }
        })?
    }

    /// Begins an import: many facts, of which a commit takes as many as the importer wants.
    pub fn import_transcripts(&self) -> Import<'_> {
        Import { store: self, lost: Lost::default(), is_told: Cell::new(false) }
    }

    /// Stores a file's state alone (its archive, an error, that it is gone).
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn note_transcript(&self, file: TranscriptFile) -> Result<(), WriteError> {
        self.change(move |conn| files::put(conn, &file))
    }

    /// Prices every row anew by `prices`, and from now on what comes. With `dry_run` nothing is changed and the effect is
    /// told; rows derived from the client's total are not among the requests of the effect, and follow.
    ///
    /// # Errors
    /// See [`WriteError`]. What was priced anew before the error stays so; [`Reader::priced_by`] still tells the old table.
    #[allow(clippy::needless_pass_by_value, reason = "the store keeps it")]
    pub fn reprice(&self, prices: Arc<PriceTable>, dry_run: bool) -> Result<Vec<RepriceEffect>, WriteError> {
        let mut effects = Effects::default();
        if dry_run {
            let other = |e: ReadError| WriteError::Other(e.to_string());
            let reader = self.reader().map_err(other)?;
            let look = |conn: &Connection| {
                let mut after = i64::MIN;
                let mut memory = names::Memory::new(Arc::clone(&prices));
                while let Some(last) = reprice::look(conn, &mut memory, after, &mut effects)? {
                    after = last;
                }
                Ok(())
            };
            reader.at_once(look).map_err(other)?;
            return Ok(effects.into_vec());
        }
        let mut after = i64::MIN;
        loop {
            let page_prices = Arc::clone(&prices);
            let mut page = std::mem::take(&mut effects);
            let (done, last) = self.reprice_step(move |conn, memory| {
                memory.price_by(&page_prices);
                let (last, changes) = reprice::apply(conn, memory, after, &mut page)?;
                Ok(((page, last), changes))
            })?;
            effects = done;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        after = i64::MIN;
        while let Some(last) = self.reprice_step(move |conn, memory| reprice::finish(conn, memory, after))? {
            after = last;
        }
        self.set_prices(&prices);
        Ok(effects.into_vec())
    }

    /// One transaction of a repricing; the listener hears what it changed.
    fn reprice_step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Connection, &mut names::Memory) -> rusqlite::Result<(T, Vec<LedgerChange>)>
        + Send
        + 'static,
    ) -> Result<T, WriteError> {
        let work =
            move |conn: &Connection, memory: &mut names::Memory, hear: &dyn Fn(&[LedgerChange])| match step(
                conn, memory,
            ) {
                Ok((value, changes)) => {
                    hear(&changes);
                    Ok(value)
                }
                Err(error) => {
                    memory.forget();
                    Err(write_error(&error))
                }
            };
        self.on_ledger(1, 0, work).map_err(|_| WriteError::Closed)?
    }
}

/// What one fact takes in memory, about, in bytes.
const FACT_BYTES: usize = 512;

fn facts_of(facts: &Facts) -> usize {
    let lists = [
        facts.requests.len(),
        facts.failures.len(),
        facts.marks.len(),
        facts.sessions.len(),
        facts.agents.len(),
        facts.totals.len(),
    ];
    lists.iter().sum::<usize>().max(1)
}

/// One transaction: all of the chunks, or none.
fn record(
    conn: &Connection,
    memory: &mut names::Memory,
    chunks: Vec<TranscriptChunk>,
) -> rusqlite::Result<(TranscriptOutcome, Vec<LedgerChange>)> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let applied = apply(&tx, memory, chunks)?;
    tx.commit()?;
    Ok(applied)
}

/// Writes chunks inside a transaction that is open.
fn apply(
    conn: &Connection,
    memory: &mut names::Memory,
    chunks: Vec<TranscriptChunk>,
) -> rusqlite::Result<(TranscriptOutcome, Vec<LedgerChange>)> {
    let mut outcome = TranscriptOutcome::default();
    let mut batch = Batch::default();
    for chunk in chunks {
        batch.add_chunk(conn, memory, chunk, &mut outcome)?;
    }
    let changes = batch.flush(conn, memory, Changed::default(), now_ms(), &mut outcome)?;
    Ok((outcome, changes))
}

/// An import under way. What it told last is committed when this goes, but only [`Import::commit`] says whether it was.
pub struct Import<'a> {
    store: &'a Store,
    lost: Lost,
    is_told: Cell<bool>,
}

impl Import<'_> {
    /// Takes in facts of transcripts, to be committed later: by [`Import::commit`], or before anything else that the store
    /// is told. Facts that are stored already change nothing.
    ///
    /// # Errors
    /// See [`AppendError`]. None of these chunks is stored, and of those since the last [`Import::commit`] nobody knows:
    /// to tell them again is safe.
    pub fn add(&self, chunks: Vec<TranscriptChunk>) -> Result<TranscriptOutcome, AppendError> {
        if chunks.is_empty() {
            return Ok(TranscriptOutcome::default());
        }
        let facts = chunks.iter().map(|chunk| facts_of(&chunk.facts)).sum();
        let owner = Arc::clone(&self.lost);
        self.is_told.set(true);
        self.store.on_held(facts, facts * FACT_BYTES, move |held, conn, memory, hear| {
            held.add(conn, memory, &owner, chunks, hear)
        })?
    }

    /// Commits what was told since the last commit.
    ///
    /// # Errors
    /// See [`AppendError`]: of what was told since then nobody knows whether it is stored.
    pub fn commit(&self) -> Result<(), AppendError> {
        if !self.is_told.replace(false) {
            return Ok(());
        }
        let owner = Arc::clone(&self.lost);
        self.store.on_held(1, 0, move |held, conn, memory, hear| held.settle(conn, memory, &owner, hear))?
    }
}

impl Drop for Import<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.commit() {
            tracing::warn!(%error, "the end of an import is not stored");
        }
    }
}

impl Reader {
    /// Sums of the ledger, by what the query groups by: bucket first, then the keys in the order of [`CostBy`]. An
    /// unknown user, or a label that a session lacks, is `""`. What is only derived from the client's total counts with
    /// its tokens and cost, and as no request.
    pub fn costs(&self, query: &CostQuery) -> Result<Vec<CostRow>, ReadError> {
        self.at_once(|conn| costs(conn, query))
    }

    /// The requests of a session, oldest first.
    pub fn ledger(&self, session_id: &str) -> Result<Vec<LedgerRow>, ReadError> {
        let scope = Scope { session: Some(session_id.to_owned()), ..Scope::default() };
        let query = CostQuery { scope, ..CostQuery::default() };
        let mut rows = Vec::new();
        self.each_request(&query, &mut |row| rows.push(row.clone()))?;
        Ok(rows)
    }

    /// Every request of a span, oldest first, to `each`: no more than one row is held. The query's keys and cuts are not
    /// looked at, but for what lies before the first cut.
    pub fn each_request(&self, query: &CostQuery, each: &mut dyn FnMut(&LedgerRow)) -> Result<(), ReadError> {
        self.at_once(|conn| each_request(conn, query, each))
    }

    /// What the sources say of a session's total; none where it is unknown.
    pub fn reconcile(&self, session_id: &str) -> Result<Option<Reconciliation>, ReadError> {
        self.at_once(|conn| reconcile::session(conn, &self.prices(), session_id))
    }

    /// As [`Self::reconcile`] for every session with a request or a client's total that was at work in the span, newest
    /// first. The figures are the whole session's.
    pub fn reconcile_all(
        &self,
        from: Option<TimestampMs>,
        to: Option<TimestampMs>,
    ) -> Result<Vec<Reconciliation>, ReadError> {
        self.at_once(|conn| reconcile::all(conn, &self.prices(), from, to))
    }

    /// Models without a price, most tokens first.
    pub fn unpriced(&self) -> Result<Vec<UnpricedModel>, ReadError> {
        self.at_once(read::unpriced)
    }

    /// Prompts, compactions and starts of subagents that transcripts tell of a session, oldest first.
    pub fn transcript_marks(&self, session_id: &str) -> Result<Vec<StoredMark>, ReadError> {
        marks::of_session(self.conn(), session_id)
    }

    /// Failed API requests of a session, oldest first.
    pub fn api_failures(&self, session_id: &str) -> Result<Vec<StoredFailure>, ReadError> {
        failures::of_session(self.conn(), session_id)
    }

    /// How full the main agent's context is, by session; a session without a request of it is not there.
    pub fn contexts(&self, sessions: &[String]) -> Result<HashMap<String, ContextSize>, ReadError> {
        self.at_once(|conn| context::of_sessions(conn, sessions))
    }

    /// How far a transcript has been read.
    pub fn transcript_file(&self, path: &Path) -> Result<Option<TranscriptFile>, ReadError> {
        files::get(self.conn(), path)
    }

    /// Every known transcript, by path.
    pub fn transcript_files(&self) -> Result<Vec<TranscriptFile>, ReadError> {
        files::list(self.conn())
    }

    /// The fingerprint of the price table by which history is priced; none before the first row.
    pub fn priced_by(&self) -> Result<Option<String>, ReadError> {
        read::priced_by(self.conn())
    }
}
