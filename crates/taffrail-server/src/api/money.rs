//! What the ledger's sums are as JSON, and how they are read without walking more rows than need be.
//!
//! The store keeps sums of 15 minutes; a span that begins or ends elsewhere is read as the whole quarters inside it and
//! the rows of its two ends.

use std::collections::{BTreeMap, HashMap};

use taffrail_analytics::window::{Bounds, HISTORY_STEPS, Window};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{Confidence, Usage};
use taffrail_store::{
    ConfidenceTotals, ContextSize, CostBy, CostQuery, CostRow, CostTotals, ReadError, Reader, Scope,
    UnpricedModel,
};

use super::types::{
    ConfidenceCostsJson, ConfidenceCountsJson, CostJson, CostStepJson, CostTotalsJson, TokensJson,
    UnpricedModelJson,
};

/// The length of the store's sums, in milliseconds.
pub(crate) const QUARTER_MS: i64 = 15 * 60_000;
const HOUR_MS: f64 = 3_600_000.0;
const NANO_PER_USD: f64 = 1e9;

#[allow(clippy::cast_precision_loss, reason = "dollars for a person; the ledger keeps the integer")]
pub(crate) fn usd(nano: i64) -> f64 {
    nano as f64 / NANO_PER_USD
}

/// A count as JSON has it; more than fits has never been.
fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl From<&Usage> for TokensJson {
    fn from(u: &Usage) -> Self {
        Self {
            input: count(u.input),
            output: count(u.output),
            cache_read: count(u.cache_read),
            cache_write_5m: count(u.cache_write_5m),
            cache_write_1h: count(u.cache_write_1h),
            total: count(u.total()),
            cache_hit_percent: cache_hit_percent(u),
        }
    }
}

/// read / (read + write + input) * 100; none where nothing was read or written.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn cache_hit_percent(u: &Usage) -> Option<f64> {
    (u.context() > 0).then(|| u.cache_read as f64 / u.context() as f64 * 100.0)
}

impl From<&CostTotals> for ConfidenceCountsJson {
    fn from(t: &CostTotals) -> Self {
        Self {
            exact: t.of(Confidence::Exact).requests,
            repaired: t.of(Confidence::Repaired).requests,
            lower_bound: t.of(Confidence::LowerBound).requests,
            estimated: t.of(Confidence::Estimated).requests,
            unpriced: t.of(Confidence::Unpriced).requests,
        }
    }
}

impl From<&CostTotals> for ConfidenceCostsJson {
    fn from(t: &CostTotals) -> Self {
        Self {
            exact: usd(t.of(Confidence::Exact).cost_nano_usd),
            repaired: usd(t.of(Confidence::Repaired).cost_nano_usd),
            lower_bound: usd(t.of(Confidence::LowerBound).cost_nano_usd),
            estimated: usd(t.of(Confidence::Estimated).cost_nano_usd),
        }
    }
}

impl From<&CostTotals> for CostTotalsJson {
    fn from(t: &CostTotals) -> Self {
        Self {
            input_tokens: count(t.usage.input),
            output_tokens: count(t.usage.output),
            cache_read_tokens: count(t.usage.cache_read),
            cache_write_5m_tokens: count(t.usage.cache_write_5m),
            cache_write_1h_tokens: count(t.usage.cache_write_1h),
            total_tokens: count(t.usage.total()),
            web_searches: count(t.usage.web_searches),
            requests: t.requests,
            cost_usd: t.known_cost_nano_usd().map(usd),
            confidence: t.into(),
            cost_by_confidence: t.into(),
            first_ms: t.first.map(TimestampMs::get),
            last_ms: t.last.map(TimestampMs::get),
        }
    }
}

impl From<&UnpricedModel> for UnpricedModelJson {
    fn from(m: &UnpricedModel) -> Self {
        Self { model: m.model.clone(), requests: m.requests, total_tokens: count(m.usage.total()) }
    }
}

/// The least sure part of a sum; none where there is nothing in it.
pub(crate) fn least_sure(totals: &CostTotals) -> Option<Confidence> {
    let is_there = |part: ConfidenceTotals| part.requests > 0 || part.cost_nano_usd != 0;
    Confidence::ALL.into_iter().rev().find(|confidence| is_there(totals.of(*confidence)))
}

/// As [`Reader::costs`], for a span with any ends: bucket first, then the keys.
pub(crate) fn read(reader: &Reader, query: &CostQuery) -> Result<Vec<CostRow>, ReadError> {
    let parts = parts(query);
    if let [whole] = &parts[..] {
        return reader.costs(whole);
    }
    let mut sums: BTreeMap<_, CostRow> = BTreeMap::new();
    for part in &parts {
        for row in reader.costs(part)? {
            let key = (
                row.bucket,
                row.app.clone(),
                row.user.clone(),
                row.model.clone(),
                row.agent.clone(),
                row.session.clone(),
                row.label.clone(),
            );
            match sums.get_mut(&key) {
                Some(sum) => sum.totals.add(&row.totals),
                None => {
                    sums.insert(key, row);
                }
            }
        }
    }
    Ok(sums.into_values().collect())
}

/// The whole quarters of a span and its two ends; the span as it is where that is all the same.
fn parts(query: &CostQuery) -> Vec<CostQuery> {
    let is_cut_by_quarters = query.cuts.iter().all(|cut| cut.get() % QUARTER_MS == 0);
    let up = query.from.map(|from| TimestampMs::clamped(ceil_quarter(from.get())));
    let down = query.to.map(|to| TimestampMs::clamped(to.get() - to.get().rem_euclid(QUARTER_MS)));
    let has_quarters = match (up.or(Some(TimestampMs::MIN)), down.or(Some(TimestampMs::MAX))) {
        (Some(up), Some(down)) => up < down,
        _ => false,
    };
    if !is_cut_by_quarters || !has_quarters || (up == query.from && down == query.to) {
        return vec![query.clone()];
    }
    let between =
        |from: Option<TimestampMs>, to: Option<TimestampMs>| CostQuery { from, to, ..query.clone() };
    let mut parts = vec![between(up, down)];
    if up != query.from {
        parts.push(between(query.from, up));
    }
    if down != query.to {
        parts.push(between(down, query.to));
    }
    parts
}

fn ceil_quarter(ms: i64) -> i64 {
    ms + (-ms).rem_euclid(QUARTER_MS)
}

/// One sum of everything that matches.
pub(crate) fn total(reader: &Reader, query: &CostQuery) -> Result<CostTotals, ReadError> {
    let query = CostQuery { cuts: Vec::new(), by: CostBy::default(), ..query.clone() };
    Ok(sum(&read(reader, &query)?))
}

pub(crate) fn sum(rows: &[CostRow]) -> CostTotals {
    let mut totals = CostTotals::default();
    rows.iter().for_each(|row| totals.add(&row.totals));
    totals
}

/// Money and tokens of a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct WindowMoney {
    pub(crate) totals: CostTotals,
    /// Of the window before.
    pub(crate) previous: CostTotals,
    pub(crate) history: Vec<CostTotals>,
}

/// Reads a window that ends at `now`; none before the ledger's first request.
pub(crate) fn window(
    reader: &Reader,
    window: Window,
    scope: &Scope,
    now: TimestampMs,
) -> Result<Option<WindowMoney>, ReadError> {
    if reader.priced_by()?.is_none() {
        return Ok(None);
    }
    let (bounds, before) = (window.bounds(now.get()), window.previous(now.get()));
    let of = |from: i64, to: i64| CostQuery {
        scope: scope.clone(),
        from: Some(TimestampMs::clamped(from)),
        to: Some(TimestampMs::clamped(to)),
        ..CostQuery::default()
    };
    // A request of this very millisecond belongs to the window.
    let to = bounds.to + 1;
    let steps = CostQuery { cuts: step_cuts(bounds), ..of(bounds.history_from, to) };
    let mut history = vec![CostTotals::default(); HISTORY_STEPS];
    for row in read(reader, &steps)? {
        if let Some(step) = history.get_mut(row.bucket) {
            step.add(&row.totals);
        }
    }
    Ok(Some(WindowMoney {
        totals: total(reader, &of(bounds.from, to))?,
        previous: total(reader, &of(before.from, before.to))?,
        history,
    }))
}

/// Where the steps of a history begin. A sum of the store belongs to the step it begins in, as a rollup does.
fn step_cuts(bounds: Bounds) -> Vec<TimestampMs> {
    let place = |(index, start): (usize, i64)| match index {
        _ if bounds.step < QUARTER_MS => start,
        // The first also has what lies before its first whole quarter.
        0 => start - start.rem_euclid(QUARTER_MS),
        _ => ceil_quarter(start),
    };
    bounds.steps().enumerate().map(place).map(TimestampMs::clamped).collect()
}

/// Rates by the true length of the window.
pub(crate) fn cost_json(money: &WindowMoney, window: Window, now: TimestampMs) -> CostJson {
    let (bounds, before) = (window.bounds(now.get()), window.previous(now.get()));
    let hourly = |totals: &CostTotals, bounds: &Bounds| {
        #[allow(clippy::cast_precision_loss, reason = "a span of days")]
        let hours = (bounds.to - bounds.from).max(1) as f64 / HOUR_MS;
        totals.known_cost_nano_usd().map(|nano| usd(nano) / hours)
    };
    let (now_hourly, before_hourly) = (hourly(&money.totals, &bounds), hourly(&money.previous, &before));
    let trend = now_hourly.zip(before_hourly).filter(|(_, before)| *before > 0.0);
    CostJson {
        total_cost_usd: money.totals.known_cost_nano_usd().map(usd),
        cost_hourly_usd: now_hourly,
        trend_percent: trend.map(|(now, before)| (now - before) / before * 100.0),
        requests: money.totals.requests,
        unpriced_requests: money.totals.of(Confidence::Unpriced).requests,
        confidence: (&money.totals).into(),
        cost_by_confidence: (&money.totals).into(),
        history: bounds
            .steps()
            .zip(&money.history)
            .map(|(t_ms, step)| CostStepJson {
                t_ms,
                requests: step.requests,
                tokens: count(step.usage.total()),
                cost_usd: step.known_cost_nano_usd().map(usd),
            })
            .collect(),
    }
}

/// What the ledger has of some sessions, by id; a session without a request is not there.
#[derive(Debug, Default)]
pub(crate) struct SessionsMoney {
    pub(crate) costs: HashMap<String, CostTotals>,
    pub(crate) contexts: HashMap<String, ContextSize>,
}

impl SessionsMoney {
    /// Two reads for any number of sessions: from their sums, and of the newest request of each.
    pub(crate) fn read(reader: &Reader, ids: Vec<String>) -> Result<Self, ReadError> {
        Ok(Self { contexts: reader.contexts(&ids)?, costs: of_sessions(reader, ids)? })
    }
}

/// What sessions have cost, by id, in one read.
pub(crate) fn of_sessions(
    reader: &Reader,
    ids: Vec<String>,
) -> Result<HashMap<String, CostTotals>, ReadError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let query = CostQuery {
        sessions: ids,
        by: CostBy { session: true, ..CostBy::default() },
        ..CostQuery::default()
    };
    let rows = reader.costs(&query)?;
    Ok(rows.into_iter().filter_map(|row| Some((row.session?, row.totals))).collect())
}
