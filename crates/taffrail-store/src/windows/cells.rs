//! A cell: what one subject did in one span of time, and what metrics make of it.

use std::collections::BTreeSet;

use taffrail_analytics::Sketch;
use taffrail_event::ledger::Usage;

use super::types::{Family, Metric};
use crate::calls::Contribution;
use crate::error::ReadError;
use crate::ledger::CostTotals;
use crate::rollup::{self, Counter, Counters};
use crate::windows::rows::EventRow;

/// Everything that a metric is made of. What was not read is empty.
#[derive(Clone, Default)]
pub(crate) struct Cell {
    pub(crate) counters: Counters,
    pub(crate) durations: Sketch,
    pub(crate) latencies: Sketch,
    pub(crate) branches: BTreeSet<String>,
    pub(crate) money: CostTotals,
    /// Durations of requests; none where they were not read.
    pub(crate) requests: Option<Sketch>,
    /// Time spent in calls, and the most at once; none where there were too many to look at.
    pub(crate) flights: Option<(i64, i64)>,
}

impl Cell {
    pub(crate) fn add_row(&mut self, row: &rollup::Row<'_>) -> Result<(), ReadError> {
        self.counters.add_all(&row.counters);
        rollup::merge_stored(&mut self.durations, row.durations)?;
        rollup::merge_stored(&mut self.latencies, row.latencies)
    }

    pub(crate) fn add_event(&mut self, event: &EventRow) {
        self.counters.add_all(&event.counters);
        if let Some(ms) = event.latency_ms {
            self.latencies.add(ms as f64);
        }
        if let Some(branch) = &event.branch {
            self.branches.insert(branch.clone());
        }
    }

    pub(crate) fn add_call(&mut self, call: &Contribution) {
        self.counters.add_call(call, 1);
        if let Some(ms) = call.known_ms() {
            self.durations.add(ms as f64);
        }
    }

    /// Adds another cell of the same span.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counters.add_all(&other.counters);
        self.durations.merge(&other.durations);
        self.latencies.merge(&other.latencies);
        self.branches.extend(other.branches.iter().cloned());
        self.money.add(&other.money);
        self.requests = match (self.requests.take(), &other.requests) {
            (Some(mut own), Some(other)) => {
                own.merge(other);
                Some(own)
            }
            _ => None,
        };
        self.flights = None;
    }

    /// The metric over this cell's span, in milliseconds.
    pub(crate) fn value(&self, metric: Metric, span_ms: i64) -> Option<f64> {
        match metric.family() {
            Family::Calls => self.of_calls(metric, span_ms),
            Family::Events => self.of_events(metric, span_ms),
            Family::Requests => self.of_requests(metric, span_ms),
        }
    }

    fn count(&self, counter: Counter) -> f64 {
        self.counters.get(counter) as f64
    }

    fn of_calls(&self, metric: Metric, span_ms: i64) -> Option<f64> {
        let calls = self.count(Counter::Calls);
        let tried = calls - self.count(Counter::Denied) - self.count(Counter::Interrupted);
        match metric {
            Metric::Calls => Some(calls),
            Metric::Succeeded => Some(self.count(Counter::Succeeded)),
            Metric::Failed => Some(self.count(Counter::Failed)),
            Metric::Denied => Some(self.count(Counter::Denied)),
            Metric::Interrupted => Some(self.count(Counter::Interrupted)),
            Metric::Abandoned => Some(self.count(Counter::Abandoned)),
            Metric::ErrorRatePercent => percent(self.count(Counter::Failed), tried),
            Metric::SuccessPercent => percent(self.count(Counter::Succeeded), tried),
            Metric::DeniedPercent => percent(self.count(Counter::Denied), calls),
            Metric::ExecutionMsAvg => {
                ratio(self.count(Counter::DurationSum), self.count(Counter::DurationCount))
            }
            Metric::ExecutionMsP50 => self.durations.quantile(0.50),
            Metric::ExecutionMsP95 => self.durations.quantile(0.95),
            Metric::ExecutionMsP99 => self.durations.quantile(0.99),
            Metric::ThroughputPerMin => ratio(calls, minutes(span_ms)),
            // By Little's law where not every call could be looked at: time spent in calls that ended, over the time.
            Metric::ConcurrencyAvg => {
                let busy = self.flights.map_or(self.count(Counter::DurationSum), |(busy, _)| busy as f64);
                ratio(busy, span_ms as f64)
            }
            Metric::ConcurrencyMax => self.flights.map(|(_, most)| most as f64),
            _ => None,
        }
    }

    fn of_events(&self, metric: Metric, span_ms: i64) -> Option<f64> {
        let files = [Counter::FilesRead, Counter::FilesWritten, Counter::FilesEdited, Counter::FilesDeleted];
        let files = || files.iter().map(|counter| self.count(*counter)).sum::<f64>();
        let counter = match metric {
            Metric::Events => Counter::Events,
            Metric::Prompts => Counter::Prompts,
            Metric::Compactions => Counter::Compactions,
            Metric::FileReads => Counter::FilesRead,
            Metric::FileWrites => Counter::FilesWritten,
            Metric::FileEdits => Counter::FilesEdited,
            Metric::FileDeletes => Counter::FilesDeleted,
            Metric::LinesAdded => Counter::LinesAdded,
            Metric::LinesRemoved => Counter::LinesRemoved,
            Metric::GitOperations => Counter::GitOperations,
            Metric::GitCommits => Counter::GitCommits,
            Metric::GitInsertions => Counter::GitInsertions,
            Metric::GitDeletions => Counter::GitDeletions,
            Metric::LatencyMsAvg => return self.latencies.mean(),
            Metric::LatencyMsP50 => return self.latencies.quantile(0.50),
            Metric::LatencyMsP95 => return self.latencies.quantile(0.95),
            Metric::LatencyMsP99 => return self.latencies.quantile(0.99),
            Metric::FileOperations => return Some(files()),
            Metric::FileOperationsPerMin => return ratio(files(), minutes(span_ms)),
            Metric::GitBranches => return Some(self.branches.len() as f64),
            _ => return None,
        };
        Some(self.count(counter))
    }

    fn of_requests(&self, metric: Metric, span_ms: i64) -> Option<f64> {
        let usage: &Usage = &self.money.usage;
        let cost = || self.money.known_cost_nano_usd().map(|nano| nano as f64 / 1e9);
        match metric {
            Metric::Requests => Some(self.money.requests as f64),
            Metric::InputTokens => Some(usage.input as f64),
            Metric::OutputTokens => Some(usage.output as f64),
            Metric::CacheReadTokens => Some(usage.cache_read as f64),
            Metric::CacheWriteTokens => Some((usage.cache_write_5m + usage.cache_write_1h) as f64),
            Metric::TotalTokens => Some(usage.total() as f64),
            Metric::CostUsd => cost(),
            Metric::CostHourlyUsd => ratio(cost()? * 60.0, minutes(span_ms)),
            Metric::CacheHitPercent => percent(usage.cache_read as f64, usage.context() as f64),
            Metric::ContextTokensAvg => ratio(usage.context() as f64, self.money.requests as f64),
            Metric::RequestMsAvg => self.requests.as_ref()?.mean(),
            Metric::RequestMsP95 => self.requests.as_ref()?.quantile(0.95),
            _ => None,
        }
    }
}

fn minutes(span_ms: i64) -> f64 {
    span_ms as f64 / 60_000.0
}

/// None where there is nothing to divide by.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn percent(part: f64, whole: f64) -> Option<f64> {
    ratio(part * 100.0, whole)
}
