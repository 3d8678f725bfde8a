//! The server's own figures, in the Prometheus text format at `/metrics`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use taffrail_event::normalize::otlp::Signal;

/// Labels of ingested events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct IngestLabels {
    /// `hook`, `legacy`, `spool`, `batch`, `otlp`.
    pub(crate) source: &'static str,
    /// `stored`, `duplicate` or the code of the refusal.
    pub(crate) outcome: &'static str,
}

/// Labels of telemetry records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OtlpLabels {
    /// `log`, `metric` or `span`.
    pub(crate) signal: &'static str,
    /// What the record turned out to be; `rejected` (nothing could be made of it), `undecodable` (a whole request), or
    /// `odd` (a field that was not as OTLP has it).
    pub(crate) class: &'static str,
}

/// Labels of answered requests; routes are patterns, so the set is bounded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HttpLabels {
    pub(crate) method: &'static str,
    pub(crate) route: String,
    pub(crate) status: u16,
}

/// Labels of refused requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    pub(crate) reason: &'static str,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// All of them.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) ingest: Family<IngestLabels, Counter>,
    pub(crate) otlp: Family<OtlpLabels, Counter>,
    pub(crate) http: Family<HttpLabels, Counter>,
    pub(crate) refused: Family<RefusedLabels, Counter>,
    pub(crate) connections_refused: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) read_seconds: Histogram,
    pub(crate) answers: Counter,
    pub(crate) live_dropped: Counter,
    pub(crate) spool_torn: Counter,
    /// Set at every scrape.
    pub(crate) now: Scraped,
}

/// Gauges and totals that are read when someone asks.
#[derive(Default)]
pub(crate) struct Scraped {
    pub(crate) queue_events: Gauge,
    pub(crate) queue_bytes: Gauge,
    pub(crate) spool_frames: Gauge,
    pub(crate) spool_dropped: Gauge,
    pub(crate) live_clients: Gauge,
    pub(crate) db_bytes: Gauge,
    pub(crate) wal_bytes: Gauge,
    pub(crate) disk_free_bytes: Gauge,
    pub(crate) events: Gauge,
    pub(crate) commits: Gauge,
    pub(crate) commit_seconds_max: FloatGauge,
    pub(crate) uptime_seconds: FloatGauge,
    pub(crate) resident_bytes: Gauge,
    pub(crate) transcript_files: Gauge,
    pub(crate) transcript_bytes: Gauge,
    pub(crate) transcript_records: Gauge,
    pub(crate) transcript_bad: Gauge,
    pub(crate) transcript_unknown: Gauge,
    pub(crate) transcript_errors: Gauge,
    pub(crate) transcript_lag_seconds: FloatGauge,
    pub(crate) digest_pending_sessions: Gauge,
    pub(crate) digest_oldest_seconds: FloatGauge,
    pub(crate) digest_sessions: Gauge,
    pub(crate) digest_failures: Gauge,
    pub(crate) digest_seconds: FloatGauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let fast = || Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        let mut metrics = Self {
            registry: Registry::with_prefix("taffrail"),
            ingest: Family::default(),
            otlp: Family::default(),
            http: Family::default(),
            refused: Family::default(),
            connections_refused: Counter::default(),
            commit_seconds: fast(),
            read_seconds: fast(),
            answers: Counter::default(),
            live_dropped: Counter::default(),
            spool_torn: Counter::default(),
            now: Scraped::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("ingest_events", "Events by source and what became of them", self.ingest.clone());
        r.register(
            "otlp_records",
            "Telemetry records by signal and what they turned out to be",
            self.otlp.clone(),
        );
        r.register("http_requests", "Requests by route and status", self.http.clone());
        r.register("http_refused", "Requests answered with a problem, by its code", self.refused.clone());
        r.register("connections_refused", "Connections over the cap", self.connections_refused.clone());
        r.register_with_unit(
            "ingest_commit",
            "From a batch's submission to its commit",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        r.register_with_unit("read", "Database reads of the API", Unit::Seconds, self.read_seconds.clone());
        r.register("hook_answers", "Questions of the hook client answered", self.answers.clone());
        r.register("live_dropped", "Frames that slow readers were spared", self.live_dropped.clone());
        r.register("spool_torn", "Spool files that held no whole frame", self.spool_torn.clone());
        let s = &self.now;
        r.register("queue_events", "Events waiting for the writer", s.queue_events.clone());
        r.register("queue_bytes", "Payload bytes waiting for the writer", s.queue_bytes.clone());
        r.register("spool_frames", "Frames waiting in the spool", s.spool_frames.clone());
        r.register("spool_dropped_events", "Events the hook client could not keep", s.spool_dropped.clone());
        r.register("live_clients", "Readers of the stream", s.live_clients.clone());
        r.register("db_bytes", "Size of the database", s.db_bytes.clone());
        r.register("wal_bytes", "Size of the write-ahead log", s.wal_bytes.clone());
        r.register("disk_free_bytes", "Free space on the data directory's disk", s.disk_free_bytes.clone());
        r.register("events", "Events in the database", s.events.clone());
        r.register("commits", "Transactions since the start", s.commits.clone());
        r.register("commit_seconds_max", "Slowest commit since the start", s.commit_seconds_max.clone());
        r.register("uptime_seconds", "Since the start", s.uptime_seconds.clone());
        r.register("resident_bytes", "Memory of this process", s.resident_bytes.clone());
        r.register("transcript_files", "Transcripts in the followed folders", s.transcript_files.clone());
        r.register(
            "transcript_bytes",
            "Bytes of transcripts read since the start",
            s.transcript_bytes.clone(),
        );
        r.register(
            "transcript_records",
            "Records of transcripts since the start",
            s.transcript_records.clone(),
        );
        r.register("transcript_bad", "Text of transcripts that was no record", s.transcript_bad.clone());
        r.register("transcript_unknown", "Records of an unknown type", s.transcript_unknown.clone());
        r.register("transcript_errors", "Failed tries to read a transcript", s.transcript_errors.clone());
        r.register(
            "transcript_lag_seconds",
            "From the last write to a transcript to its commit",
            s.transcript_lag_seconds.clone(),
        );
        r.register(
            "digest_pending_sessions",
            "Sessions whose newest changes are in no digest yet",
            s.digest_pending_sessions.clone(),
        );
        r.register(
            "digest_oldest_seconds",
            "Age of the oldest change that is in no digest yet",
            s.digest_oldest_seconds.clone(),
        );
        r.register(
            "digest_sessions",
            "Digests of sessions written since the start",
            s.digest_sessions.clone(),
        );
        r.register("digest_failures", "Failed tries to digest a session", s.digest_failures.clone());
        r.register("digest_seconds", "Time spent on digests since the start", s.digest_seconds.clone());
    }

    pub(crate) fn count(&self, source: &'static str, outcome: &'static str, events: usize) {
        self.ingest.get_or_create(&IngestLabels { source, outcome }).inc_by(events as u64);
    }

    pub(crate) fn count_otlp(&self, signal: Signal, class: &'static str, records: usize) {
        if records > 0 {
            let labels = OtlpLabels { signal: signal.name(), class };
            self.otlp.get_or_create(&labels).inc_by(records as u64);
        }
    }

    pub(crate) fn count_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// Events with that outcome, over all sources.
    pub(crate) fn events_with(&self, outcome: &'static str) -> u64 {
        ["hook", "legacy", "spool", "batch", "otlp"]
            .into_iter()
            .filter_map(|source| self.ingest.get(&IngestLabels { source, outcome }).map(|c| c.get()))
            .sum()
    }

    pub(crate) fn observe_commit(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// The text of a scrape.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Resident memory of this process in bytes, where the system tells.
pub(crate) fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
