//! What the health page and the metrics say of transcripts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use taffrail_event::transcript::Counts;

use crate::metrics::Scraped;

/// Files that are kept in mind as unreadable.
const UNREADABLE_MAX: usize = 1_000;
/// Of them, named on the health page.
const UNREADABLE_SHOWN: usize = 20;

/// Figures since the start; cheap to keep and to read.
#[derive(Default)]
pub(crate) struct Status {
    pub(crate) tailing: AtomicBool,
    /// Whether all that was there at the start is taken in.
    pub(crate) caught_up: AtomicBool,
    /// Files of the roots at the last look.
    pub(crate) files: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bad: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) archived_files: AtomicU64,
    pub(crate) archived_bytes: AtomicU64,
    pub(crate) archive_stored_bytes: AtomicU64,
    /// From the last write to a file to its commit, of the newest one that was followed, in milliseconds.
    pub(crate) lag_ms: AtomicU64,
    pub(crate) roots: Mutex<Vec<RootStatus>>,
    unreadable: Mutex<BTreeMap<PathBuf, String>>,
    /// Why the newest pass of the tail did not go to its end.
    refused: Mutex<Option<String>>,
}

/// One root.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RootStatus {
    pub(crate) path: PathBuf,
    /// `watched`, `polled` (no watch could be set) or `missing`.
    pub(crate) state: &'static str,
}

impl Status {
    pub(crate) fn count(&self, counts: &Counts) {
        self.records.fetch_add(counts.records, Ordering::Relaxed);
        self.bad.fetch_add(counts.bad, Ordering::Relaxed);
        self.unknown.fetch_add(counts.unknown, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, path: &Path, error: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if unreadable.len() < UNREADABLE_MAX || unreadable.contains_key(path) {
            unreadable.insert(path.to_owned(), error.to_owned());
        }
    }

    pub(crate) fn mended(&self, path: &Path) {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// Keeps in mind how a pass of the tail ended; whether that is news.
    pub(crate) fn pass_ended(&self, refused: Option<String>) -> bool {
        let mut before = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *before != refused;
        *before = refused;
        news
    }

    /// Forgets unreadable files below a folder that `still` does not name.
    pub(crate) fn keep_unreadable(&self, folder: &Path, still: &dyn Fn(&Path) -> bool) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.retain(|path, _| !path.starts_with(folder) || still(path));
    }

    pub(crate) fn set_gauges(&self, now: &Scraped) {
        let of = |figure: &AtomicU64| i64::try_from(figure.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        now.transcript_files.set(of(&self.files));
        now.transcript_bytes.set(of(&self.bytes));
        now.transcript_records.set(of(&self.records));
        now.transcript_bad.set(of(&self.bad));
        now.transcript_unknown.set(of(&self.unknown));
        now.transcript_errors.set(of(&self.errors));
        let lag = Duration::from_millis(self.lag_ms.load(Ordering::Relaxed));
        now.transcript_lag_seconds.set(lag.as_secs_f64());
    }

    /// For the health page: what to say where something is wrong, and the figures.
    pub(crate) fn report(&self) -> (Option<String>, serde_json::Value) {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let named: Vec<_> = unreadable
            .iter()
            .take(UNREADABLE_SHOWN)
            .map(|(path, error)| serde_json::json!({ "path": path, "error": error }))
            .collect();
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = refused.map(|error| format!("transcripts cannot be taken in: {error}"));
        let wrong = unreadable.first_key_value().map(|(path, error)| match unreadable.len() {
            1 => format!("a transcript cannot be read: {}: {error}", path.display()),
            n => format!("{n} transcripts cannot be read, such as {}: {error}", path.display()),
        });
        let evidence = serde_json::json!({
            "tail": self.tailing.load(Ordering::Relaxed), "caught_up": self.caught_up.load(Ordering::Relaxed),
            "roots": *self.roots.lock().unwrap_or_else(PoisonError::into_inner),
            "files": of(&self.files), "unreadable_files": unreadable.len(), "unreadable": named,
            "bytes_since_start": of(&self.bytes), "records_since_start": of(&self.records),
            "bad_since_start": of(&self.bad), "unknown_since_start": of(&self.unknown),
            "errors_since_start": of(&self.errors), "lag_ms": of(&self.lag_ms),
            "archived_files": of(&self.archived_files), "archived_bytes": of(&self.archived_bytes),
            "archive_stored_bytes": of(&self.archive_stored_bytes),
        });
        (refused.or(wrong), evidence)
    }
}
