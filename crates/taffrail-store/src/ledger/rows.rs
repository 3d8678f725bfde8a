//! What the ledger is asked, and what comes out.

use std::path::PathBuf;

use taffrail_event::TimestampMs;
use taffrail_event::ledger::{Confidence, Terms, Usage};

use crate::filter::Scope;

/// How far one transcript file has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TranscriptFile {
    /// Absolute path.
    pub path: PathBuf,
    /// The session of its lines.
    pub session_id: String,
    /// The subagent, for a subagent's file.
    pub agent_id: Option<String>,
    /// Device and inode; 0 where the system has none.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// Size when it was last read, in bytes.
    pub size_bytes: u64,
    /// Modification time when it was last read, in nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Bytes of it that are taken in: up to the end of the last whole record.
    pub offset: u64,
    /// Fingerprint of what lies before the offset, in hexadecimal; the importer's own.
    pub fingerprint: String,
    /// First time stamp in file order, as of `RequestSighting::born`; none before one was seen.
    pub born: Option<TimestampMs>,
    /// What the parser must know to go on from the offset, as JSON; the parser's own.
    pub context: String,
    /// Records taken in.
    pub records: u64,
    /// Text that was no JSON object.
    pub bad: u64,
    /// Records of an unknown type.
    pub unknown: u64,
    /// Why it could not be read the last time.
    pub error: Option<String>,
    /// When it was seen to be gone.
    pub gone: Option<TimestampMs>,
    /// Where its archive is, relative to the data directory.
    pub archive: Option<String>,
    /// Size it had when it was archived, in bytes.
    pub archived_bytes: u64,
    /// When it was archived.
    pub archived: Option<TimestampMs>,
}

/// Which requests, and how they are summed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CostQuery {
    /// Project, user, session.
    pub scope: Scope,
    /// Only these sessions, where any are named.
    pub sessions: Vec<String>,
    /// Only this model.
    pub model: Option<String>,
    /// First millisecond.
    pub from: Option<TimestampMs>,
    /// One past the last millisecond.
    pub to: Option<TimestampMs>,
    /// Starts of the buckets, ascending: a row belongs to the last one that is not after it (what lies before the first
    /// is left out). Empty: one bucket. Multiples of 15 minutes are read from sums; others from the rows.
    pub cuts: Vec<TimestampMs>,
    /// Keys.
    pub by: CostBy,
}

impl CostQuery {
    /// Whether it names its sessions, so that they are looked up instead of time being walked.
    pub(crate) fn is_of_sessions(&self) -> bool {
        self.scope.session.is_some() || !self.sessions.is_empty()
    }
}

/// Keys of a sum beside the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct CostBy {
    pub app: bool,
    pub user: bool,
    pub model: bool,
    /// By the subagent's type; the main agent is `main`.
    pub agent: bool,
    pub session: bool,
    /// By the value of this label of the session.
    pub label: Option<String>,
}

/// One sum.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it; a key that was not asked for is none")]
pub struct CostRow {
    /// Index into the query's cuts; 0 where there are none.
    pub bucket: usize,
    pub app: Option<String>,
    pub user: Option<String>,
    pub model: Option<String>,
    pub agent: Option<String>,
    pub session: Option<String>,
    pub label: Option<String>,
    pub totals: CostTotals,
}

/// A sum of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostTotals {
    /// Requests; what is only derived from the client's total is none.
    pub requests: i64,
    /// Their tokens.
    pub usage: Usage,
    /// What the priced ones cost, in nano-dollars.
    pub cost_nano_usd: i64,
    /// By confidence, in the order of [`Confidence::ALL`].
    pub by_confidence: [ConfidenceTotals; 5],
    /// Earliest request.
    pub first: Option<TimestampMs>,
    /// Latest request.
    pub last: Option<TimestampMs>,
}

/// The part of a sum that is so sure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct ConfidenceTotals {
    pub requests: i64,
    pub cost_nano_usd: i64,
}

impl CostTotals {
    /// The part of that confidence.
    pub fn of(&self, confidence: Confidence) -> ConfidenceTotals {
        let at = Confidence::ALL.iter().position(|c| *c == confidence).unwrap_or(0);
        self.by_confidence[at]
    }

    /// What one row adds.
    pub(crate) fn of_row(row: &LedgerRow) -> Self {
        // What is only derived from the client's total is no request.
        let requests = i64::from(row.sources != 0);
        let mut totals = Self {
            requests,
            usage: row.usage,
            cost_nano_usd: row.cost_nano_usd.unwrap_or(0),
            first: Some(row.ts),
            last: Some(row.ts),
            ..Self::default()
        };
        if let Some(confidence) = row.confidence {
            let at = Confidence::ALL.iter().position(|c| *c == confidence).unwrap_or(0);
            totals.by_confidence[at] =
                ConfidenceTotals { requests, cost_nano_usd: row.cost_nano_usd.unwrap_or(0) };
        }
        totals
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.usage.input += other.usage.input;
        self.usage.output += other.usage.output;
        self.usage.cache_read += other.usage.cache_read;
        self.usage.cache_write_5m += other.usage.cache_write_5m;
        self.usage.cache_write_1h += other.usage.cache_write_1h;
        self.usage.web_searches += other.usage.web_searches;
        self.cost_nano_usd += other.cost_nano_usd;
        for (mine, theirs) in self.by_confidence.iter_mut().zip(&other.by_confidence) {
            mine.requests += theirs.requests;
            mine.cost_nano_usd += theirs.cost_nano_usd;
        }
        self.first = match (self.first, other.first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.last = self.last.max(other.last);
    }

    /// What it cost, in nano-dollars; none where there were requests and not one had a price.
    pub fn known_cost_nano_usd(&self) -> Option<i64> {
        let unpriced = self.of(Confidence::Unpriced).requests;
        (unpriced == 0 || self.requests > unpriced || self.cost_nano_usd != 0).then_some(self.cost_nano_usd)
    }
}

/// One API request, as all sources together tell it.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of `taffrail_event::ledger::RequestSighting`")]
pub struct LedgerRow {
    pub message_id: Option<String>,
    pub request_id: Option<String>,
    pub ts: TimestampMs,
    pub session_id: String,
    pub agent_id: Option<String>,
    pub agent_type: Option<String>,
    pub prompt_id: Option<String>,
    pub app: String,
    pub user: Option<String>,
    pub model: String,
    pub usage: Usage,
    pub terms: Terms,
    /// None where it is unpriced.
    pub cost_nano_usd: Option<i64>,
    pub told_cost_nano_usd: Option<i64>,
    pub confidence: Option<Confidence>,
    /// Bits of [`taffrail_event::ledger::Witness`]; 0 for what is only derived from the client's total.
    pub sources: u8,
    /// The output that the transcript gave, where another source gave the final one.
    pub provisional_output: Option<u64>,
    pub query_source: Option<String>,
    pub effort: Option<String>,
    pub stop_reason: Option<String>,
    pub duration_ms: Option<i64>,
    pub ttft_ms: Option<i64>,
    pub attempts: Option<i64>,
}

/// One session's totals by who tells them.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct Reconciliation {
    pub session_id: String,
    pub app: String,
    pub last: Option<TimestampMs>,
    /// All of it, as the ledger has it.
    pub ledger: CostTotals,
    /// What the transcript alone gives.
    pub transcript_nano_usd: Option<i64>,
    pub transcript_requests: i64,
    /// What OTLP alone gives: the client's own figures.
    pub otlp_nano_usd: Option<i64>,
    pub otlp_requests: i64,
    /// The client's own running total (`cost-state`), and what of it a fork had inherited.
    pub client_nano_usd: Option<i64>,
    pub inherited_nano_usd: i64,
    /// `client - inherited - ledger`; none without a client's total or where a request is unpriced.
    pub drift_nano_usd: Option<i64>,
    /// Attempts that failed.
    pub failed_attempts: i64,
}

/// A model of which requests were seen and no price is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct UnpricedModel {
    pub model: String,
    pub requests: i64,
    pub usage: Usage,
    pub first: TimestampMs,
    pub last: TimestampMs,
}

/// What another price table would change, by model and UTC month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct RepriceEffect {
    pub model: String,
    /// `2026-11`.
    pub month: String,
    pub requests: i64,
    /// Requests whose cost differs.
    pub changed: i64,
    pub before_nano_usd: i64,
    pub after_nano_usd: i64,
    pub unpriced_before: i64,
    pub unpriced_after: i64,
}

/// A mark as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMark {
    /// As it was told.
    pub mark: taffrail_event::transcript::Mark,
}

/// A failed API request as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFailure {
    /// As it was told.
    pub failure: taffrail_event::ledger::FailureSighting,
}

/// What a commit changed in the ledger, for whoever shows or watches it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct LedgerChange {
    pub session_id: String,
    pub agent_id: Option<String>,
    pub app: String,
    pub user: Option<String>,
    pub model: String,
    pub ts: TimestampMs,
    /// Whether the request was not known before.
    pub is_new: bool,
    pub cost_before_nano_usd: i64,
    pub cost_nano_usd: i64,
    pub tokens: u64,
    pub confidence: Confidence,
    /// The request as it is now; none where no request of its own changed but what is derived, or its price.
    pub request: Option<RequestNow>,
}

/// A request as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct RequestNow {
    /// Its row, time-ordered.
    pub id: i64,
    pub usage: Usage,
    /// None where it is unpriced.
    pub cost_nano_usd: Option<i64>,
    pub duration_ms: Option<u64>,
    /// The model's, in tokens.
    pub context_window: Option<i64>,
    /// Why the client asked.
    pub query_source: Option<String>,
}
