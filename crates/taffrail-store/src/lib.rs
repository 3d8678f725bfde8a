//! The only SQL: the embedded SQLite store, its migrations, its writer and its readers.
//!
//! One file in WAL mode, one writer thread that commits whatever waits as one group, and a small pool of
//! read-only connections. Everything here is synchronous; a caller on an async runtime uses [`Store::submit`],
//! whose callback says when its events are committed and synced, and runs reads on a blocking thread.
//!
//! Limits: [`QUEUE_BYTES_MAX`] and `Options::queue_events` bound the queue, [`BATCH_EVENTS_MAX`] a transaction,
//! [`EVENTS_PAGE_MAX`] a page, [`SCAN_ROWS_MAX`] what a text search reads for one page.

mod calls;
mod codec;
mod connect;
mod digest;
pub mod disler;
mod error;
mod events;
mod facets;
mod filter;
mod findings;
mod hourly;
mod ledger;
pub mod migrate;
mod options;
mod queue;
mod reader;
mod record;
mod rollup;
mod rows;
mod scan;
mod sessions;
mod store;
mod suggestions;
mod summary;
mod telemetry;
pub mod themes;
mod windows;
mod writer;

pub use digest::*;
pub use error::{AppendError, MigrateError, OpenError, QueueFull, ReadError, WriteError};
pub use filter::{CallFilter, EventFilter, Payloads, Scope, SessionFilter};
pub use findings::{
    BUNDLE_MAX_BYTES, FINDINGS_MAX, Finding, FindingCounts, FindingFilter, FindingSeverity, FindingState,
    MODELS_KEPT, Model, StoredFinding, Told,
};
pub use hourly::{SUM_STEPS_MAX, StepSums, SumStep};
pub use ledger::*;
pub use options::{Durability, LedgerListener, OnLedger, Options};
pub use reader::Reader;
pub use rows::*;
pub use store::{Appended, Done, Outcome, Store};
pub use suggestions::{
    OPEN_KEPT_MS, SUGGESTIONS_MAX, StoredSuggestion, Suggestion, SuggestionFilter, SuggestionMove,
    SuggestionState,
};
pub use summary::{
    ErrorClassRow, FileTotals, GitTotals, Quantiles, SessionTotals, StepRow, SummaryRows, ToolRow,
    WindowTotals,
};

pub use windows::*;

pub use telemetry::{
    StoredTelemetry, TELEMETRY_NAMES_MAX, TelemetryFilter, TelemetryModelTotal, TelemetryName,
    TelemetryTotals,
};

/// Events in one transaction of the writer, at most.
pub const BATCH_EVENTS_MAX: usize = 1_000;

/// Bytes of payload that may wait for the writer.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Events that may wait for the writer, by default.
pub const QUEUE_EVENTS_MAX: usize = 20_000;

/// Rows of one page, at most.
pub const EVENTS_PAGE_MAX: usize = 1_000;

/// Rows a text search reads for one page, at most; the page's cursor goes on from there.
pub const SCAN_ROWS_MAX: usize = 20_000;

/// Sessions offered as filter options, newest first.
pub const SESSION_OPTIONS_MAX: usize = 300;

/// Steps in the history of a summary.
pub use taffrail_analytics::window::HISTORY_STEPS;

/// Tools in the table of a summary, most calls first.
pub const SUMMARY_TOOLS_MAX: usize = 50;

/// Calls that `concurrency_max` sweeps; a window with more has none.
pub const SWEEP_CALLS_MAX: usize = 10_000;

/// Series of a chart, at most; the rest is one more, `(other)`.
pub const SERIES_GROUPS_MAX: usize = 12;

/// Rows that a series by group reads where rollups cannot tell its steps apart, newest first.
pub const SERIES_ROWS_MAX: usize = 20_000;

/// Requests of a window and the one before it of which durations are read; with more there are none.
pub const REQUEST_ROWS_MAX: usize = 20_000;

/// Apps or users that a series by them looks at, the newest first.
pub const GROUPS_READ_MAX: usize = 50;

/// Tools of a heatmap, at most; the rest is one more, `(other)`.
pub const HEATMAP_TOOLS_MAX: usize = 30;

/// Tools in the answer of `Reader::tools`, at most.
pub const TOOLS_MAX: usize = 200;

/// An agent or session is active while its newest event is at most this old, in milliseconds.
pub const ACTIVE_MS: i64 = 5 * 60_000;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
