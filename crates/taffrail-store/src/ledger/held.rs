//! An import's transaction: kept open over many parts, so that a page which every part touches is written once.
//!
//! Nothing of it is acknowledged before its commit. It is committed when the import asks, and before anything else that the
//! writer is told to do: no event waits for an import's next part, and none shares its transaction.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::connect::{BULK_CHECKPOINT_PAGES, CHECKPOINT_PAGES, append_error, fold_after};
use crate::error::AppendError;
use crate::ledger::names::Memory;
use crate::ledger::{LedgerChange, TranscriptChunk, TranscriptOutcome, apply};

/// Why what an import had told before did not last; it hears of it with its next word.
pub(crate) type Lost = Arc<Mutex<Option<AppendError>>>;

/// What is told and not yet committed.
#[derive(Default)]
pub(crate) struct Held {
    /// Whose it is, while a transaction is open.
    owner: Option<Lost>,
    changes: Vec<LedgerChange>,
}

impl Held {
    /// Takes in a part. An error is of everything since the last commit: none of it is stored.
    pub(crate) fn add(
        &mut self,
        conn: &Connection,
        memory: &mut Memory,
        owner: &Lost,
        chunks: Vec<TranscriptChunk>,
        hear: &dyn Fn(&[LedgerChange]),
    ) -> Result<TranscriptOutcome, AppendError> {
        if self.owner.as_ref().is_some_and(|other| !Arc::ptr_eq(other, owner)) {
            self.commit(conn, memory, hear);
        }
        if let Some(error) = lock(owner).take() {
            return Err(error);
        }
        let took = self.begin(conn, owner).and_then(|()| apply(conn, memory, chunks));
        match took {
            Ok((outcome, changes)) => {
                self.changes.extend(changes);
                Ok(outcome)
            }
            Err(error) => {
                self.roll_back(conn, memory);
                Err(append_error(&error))
            }
        }
    }

    /// Commits what this owner told.
    pub(crate) fn settle(
        &mut self,
        conn: &Connection,
        memory: &mut Memory,
        owner: &Lost,
        hear: &dyn Fn(&[LedgerChange]),
    ) -> Result<(), AppendError> {
        self.commit(conn, memory, hear);
        lock(owner).take().map_or(Ok(()), Err)
    }

    /// Commits what is held, if anything is; where that fails, its owner is told with its next word.
    pub(crate) fn commit(&mut self, conn: &Connection, memory: &mut Memory, hear: &dyn Fn(&[LedgerChange])) {
        let Some(owner) = self.owner.take() else { return };
        let committed = conn.execute_batch("COMMIT").and_then(|()| fold_after(conn, CHECKPOINT_PAGES));
        match committed {
            Ok(()) => hear(&std::mem::take(&mut self.changes)),
            Err(error) => {
                *lock(&owner) = Some(append_error(&error));
                self.roll_back(conn, memory);
            }
        }
    }

    fn begin(&mut self, conn: &Connection, owner: &Lost) -> rusqlite::Result<()> {
        if self.owner.is_none() {
            fold_after(conn, BULK_CHECKPOINT_PAGES)?;
            conn.execute_batch("BEGIN IMMEDIATE")?;
            self.owner = Some(Arc::clone(owner));
        }
        Ok(())
    }

    fn roll_back(&mut self, conn: &Connection, memory: &mut Memory) {
        self.owner = None;
        self.changes.clear();
        memory.forget();
        // Some errors have rolled it back already.
        if !conn.is_autocommit()
            && let Err(error) = conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "an import's transaction is not rolled back");
        }
        if let Err(error) = fold_after(conn, CHECKPOINT_PAGES) {
            tracing::warn!(%error, "the bound of the WAL is not as it was");
        }
    }
}

fn lock(lost: &Lost) -> std::sync::MutexGuard<'_, Option<AppendError>> {
    lost.lock().unwrap_or_else(PoisonError::into_inner)
}
