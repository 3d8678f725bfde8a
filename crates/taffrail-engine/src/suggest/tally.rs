//! What is counted of one subject.

use std::collections::{BTreeMap, BTreeSet};

use super::SHOWN_MAX;
use super::kind::Kind;

/// Parts that are kept of a subject: further ones are counted in the subject alone.
pub(super) const PARTS_MAX: usize = 200;
/// Durations that are kept of a subject, the first seen.
pub(super) const SAMPLES_MAX: usize = 4_096;
/// A call is slow above so many medians of its tool ...
pub(super) const SLOW_MEDIANS: i64 = 4;
/// ... and so many milliseconds.
pub(super) const SLOW_MIN_MS: i64 = 10_000;
/// Fewer calls have no median worth the name.
const MEDIAN_MIN: usize = 20;

/// What one session shows of one subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    /// How often it happened.
    pub(super) hits: u64,
    /// How often it could have.
    pub(super) chances: u64,
    /// What it cost, in nano-dollars.
    pub(super) nano: i64,
    /// Hits whose cost is not known.
    pub(super) unpriced: u64,
    /// How long it took, in milliseconds; none where time says nothing.
    pub(super) ms: Option<i64>,
    /// Hits that speak against it.
    pub(super) against: u64,
    pub(super) tokens: i64,
    pub(super) bytes: i64,
    pub(super) calls: Vec<i64>,
    pub(super) parts: BTreeMap<String, u64>,
    pub(super) samples: Vec<i64>,
}

impl Sight {
    pub(super) fn cost(&mut self, nano: Option<i64>) {
        match nano {
            Some(nano) => self.nano = self.nano.saturating_add(nano),
            None => self.unpriced += 1,
        }
    }

    pub(super) fn time(&mut self, ms: i64) {
        self.ms = Some(self.ms.unwrap_or(0).saturating_add(ms.max(0)));
    }

    pub(super) fn part(&mut self, part: &str) {
        if self.parts.len() < PARTS_MAX || self.parts.contains_key(part) {
            *self.parts.entry(part.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn call(&mut self, id: i64) {
        if self.calls.len() == SHOWN_MAX {
            self.calls.remove(0);
        }
        self.calls.push(id);
    }

    pub(super) fn sample(&mut self, ms: i64) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(ms.max(0));
        }
    }
}

/// What all sessions show of one subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) chances: u64,
    pub(super) nano: i64,
    pub(super) unpriced: u64,
    pub(super) ms: Option<i64>,
    pub(super) against: u64,
    pub(super) tokens: i64,
    pub(super) bytes: i64,
    /// Hits by session, those that have any.
    pub(super) sessions: BTreeMap<String, u64>,
    /// The newest.
    pub(super) calls: BTreeSet<i64>,
    pub(super) parts: BTreeMap<String, u64>,
    samples: Vec<i64>,
    /// Sessions with chances.
    pub(super) seen: u64,
    pub(super) median_ms: Option<i64>,
}

/// The figure of a suggestion over a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// How often it happened.
    pub hits: u64,
    /// How often it could have.
    pub chances: u64,
    /// Sessions in which it could have.
    pub sessions: u64,
    /// Nano-dollars; none where any part is not known.
    pub nano_usd: Option<i64>,
    /// Milliseconds; none where time says nothing.
    pub ms: Option<i64>,
}

impl Metric {
    /// `hits / chances`; none without chances.
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn share(&self) -> Option<f64> {
        (self.chances > 0).then(|| self.hits as f64 / self.chances as f64)
    }
}

impl Tally {
    pub(super) fn add(&mut self, session: &str, sight: Sight) {
        self.hits += sight.hits;
        self.chances += sight.chances;
        self.nano = self.nano.saturating_add(sight.nano);
        self.unpriced += sight.unpriced;
        self.against += sight.against;
        self.tokens = self.tokens.saturating_add(sight.tokens);
        self.bytes = self.bytes.saturating_add(sight.bytes);
        if let Some(ms) = sight.ms {
            self.ms = Some(self.ms.unwrap_or(0).saturating_add(ms));
        }
        self.seen += u64::from(sight.chances > 0);
        let weight = if sight.samples.is_empty() { sight.hits } else { sight.samples.len() as u64 };
        if weight > 0 {
            *self.sessions.entry(session.to_owned()).or_default() += weight;
        }
        self.calls.extend(sight.calls);
        while self.calls.len() > SHOWN_MAX {
            self.calls.pop_first();
        }
        for (part, count) in sight.parts {
            if self.parts.len() < PARTS_MAX || self.parts.contains_key(&part) {
                *self.parts.entry(part).or_default() += count;
            }
        }
        let room = SAMPLES_MAX.saturating_sub(self.samples.len());
        self.samples.extend(sight.samples.into_iter().take(room));
    }

    /// The tally with what can be told only at the end.
    pub(super) fn settled(&self, kind: Kind) -> Self {
        let mut tally = self.clone();
        if kind != Kind::SlowTool {
            return tally;
        }
        let mut samples = std::mem::take(&mut tally.samples);
        samples.sort_unstable();
        tally.chances = samples.len() as u64;
        if samples.len() < MEDIAN_MIN {
            return tally;
        }
        let median = samples[samples.len() / 2];
        let usual = median.saturating_mul(SLOW_MEDIANS);
        tally.median_ms = Some(median);
        let slow = samples.iter().filter(|ms| **ms > usual && **ms > SLOW_MIN_MS);
        let (hits, ms) = slow.fold((0, 0i64), |(hits, sum), ms| (hits + 1, sum.saturating_add(ms - usual)));
        tally.hits = hits;
        tally.ms = Some(ms);
        tally
    }

    pub(super) fn metric(&self) -> Metric {
        Metric {
            hits: self.hits,
            chances: self.chances,
            sessions: self.seen,
            nano_usd: (self.unpriced == 0).then_some(self.nano),
            ms: self.ms,
        }
    }

    /// Parts by count, then by name.
    pub(super) fn top_parts(&self) -> Vec<(String, u64)> {
        top(&self.parts)
    }

    pub(super) fn top_sessions(&self) -> Vec<String> {
        top(&self.sessions).into_iter().map(|(session, _)| session).collect()
    }
}

fn top(counts: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = counts.iter().map(|(name, count)| (name.clone(), *count)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(SHOWN_MAX);
    all
}
