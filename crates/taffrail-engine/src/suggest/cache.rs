//! The prompt cache: lost to a pause, or to a beginning that changes.
//!
//! A context is lost where a request reads less than half of the context of the agent's request before, on the same model,
//! though its own context did not shrink: what is missing was written again.

use taffrail_analytics::trace::Request;

use super::kind::Kind;
use super::view::{Rates, Sights, View, context, cost, has_shrunk};

/// How long a five-minute write lives, in milliseconds.
const SHORT_TTL_MS: i64 = 5 * 60_000;
/// How long a one-hour write lives, in milliseconds.
const LONG_TTL_MS: i64 = 60 * 60_000;
/// Fewer tokens written again are no loss worth telling.
const LOST_MIN_TOKENS: i64 = 5_000;

/// A context that was written again.
struct Loss {
    tokens: i64,
    gap_ms: i64,
}

/// What was lost between two requests of one agent.
fn loss(before: &Request, request: &Request) -> Option<Loss> {
    if before.model != request.model || has_shrunk(before, request) {
        return None;
    }
    let written = request.cache_write_5m.saturating_add(request.cache_write_1h);
    let missing = context(before).saturating_sub(request.cache_read);
    let is_lost = request.cache_read.saturating_mul(2) < context(before);
    let tokens = missing.min(written);
    (is_lost && tokens >= LOST_MIN_TOKENS)
        .then(|| Loss { tokens, gap_ms: request.ts_ms.saturating_sub(before.ts_ms) })
}

pub(super) fn see(view: &View<'_>, sights: &mut Sights) {
    for asked in view.asked.values() {
        if let Some((first, rates)) = asked.requests.first() {
            see_write(first, rates.as_ref(), sights);
        }
        for pair in asked.requests.windows(2) {
            let [(before, _), (request, rates)] = pair else { continue };
            see_pair(before, request, rates.as_ref(), sights);
        }
    }
}

fn see_pair(before: &Request, request: &Request, rates: Option<&Rates>, sights: &mut Sights) {
    let loss = loss(before, request);
    for kind in [Kind::CacheShortTtl, Kind::CachePrefixChange, Kind::IdleCacheLoss] {
        sights.of(kind, "").chances += 1;
    }
    let lost = loss.as_ref().map_or(0, |loss| loss.tokens);
    let rewritten = |rates: &Rates| cost(lost, rates.write_of(request).saturating_sub(rates.read));
    let mut hit = |kind: Kind, nano: Option<i64>| {
        let sight = sights.of(kind, "");
        sight.hits += 1;
        sight.tokens = sight.tokens.saturating_add(lost);
        sight.cost(nano);
        sight.part(&request.model);
    };
    match loss.as_ref().map(|loss| loss.gap_ms) {
        // Between pauses everything else is written at the dearer rate, if writes are to live for an hour.
        Some(gap) if gap > SHORT_TTL_MS && gap <= LONG_TTL_MS && request.cache_write_5m > 0 => {
            let rest = request.cache_write_5m.saturating_sub(lost);
            hit(Kind::CacheShortTtl, rates.map(|r| rewritten(r).saturating_sub(dearer(rest, r))));
            return;
        }
        Some(gap) if gap > LONG_TTL_MS => hit(Kind::IdleCacheLoss, rates.map(rewritten)),
        Some(gap) if gap <= SHORT_TTL_MS => hit(Kind::CachePrefixChange, rates.map(rewritten)),
        _ => {}
    }
    see_write(request, rates, sights);
}

/// A write that was for five minutes would cost more for an hour.
fn see_write(request: &Request, rates: Option<&Rates>, sights: &mut Sights) {
    if request.cache_write_5m > 0 {
        let sight = sights.of(Kind::CacheShortTtl, "");
        match rates {
            Some(rates) => sight.nano = sight.nano.saturating_sub(dearer(request.cache_write_5m, rates)),
            None => sight.unpriced += 1,
        }
    }
}

/// What tokens cost more when they are written for an hour.
fn dearer(tokens: i64, rates: &Rates) -> i64 {
    cost(tokens, rates.write_1h.saturating_sub(rates.write_5m))
}
