//! How a store is opened.

use std::path::PathBuf;
use std::sync::Arc;

use taffrail_event::prices::PriceTable;

use crate::QUEUE_EVENTS_MAX;
use crate::ledger::LedgerChange;

/// Called with what a commit changed in the ledger.
pub type OnLedger = dyn Fn(&[LedgerChange]) + Send + Sync;

/// Hears what a commit changed in the ledger, on the writer's thread; keep it short.
#[derive(Clone)]
pub struct LedgerListener(pub Arc<OnLedger>);

impl std::fmt::Debug for LedgerListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerListener")
    }
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: `synchronous=FULL`, every commit is synced before its callback.
    #[default]
    Commit,
    /// The death of the process, not of the machine: `synchronous=NORMAL`; a power cut can lose the newest commits.
    Process,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file.
    pub path: PathBuf,
    /// What a commit survives.
    pub durability: Durability,
    /// Events that may wait for the writer.
    pub queue_events: usize,
    /// Page cache of the writer, in bytes; each reader has an eighth of it.
    pub cache_bytes: usize,
    /// Read-only connections kept open; more are opened while all are in use.
    pub readers: usize,
    /// What requests are priced by when they come.
    pub prices: Arc<PriceTable>,
    /// Who hears of the ledger's changes.
    pub on_ledger: Option<LedgerListener>,
}

impl Options {
    /// The defaults for the database at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::Commit,
            queue_events: QUEUE_EVENTS_MAX,
            cache_bytes: 32 * 1024 * 1024,
            readers: 4,
            prices: PriceTable::builtin(),
            on_ledger: None,
        }
    }
}
