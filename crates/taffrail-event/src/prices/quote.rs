//! The arithmetic: integers throughout, one rounding at the end, and nothing that can overflow or panic.
//!
//! A rate is pico-dollars a token, a multiplier thousandths; the sum is kept in pico-dollars times a thousand for each of
//! the three multipliers. 2^64 tokens at the largest rate are below 2^98; with all multipliers at their largest the
//! product may leave 2^127 and then saturates, long after the result in nano-dollars has.

use super::name::Place;
use super::row::{Factor, PriceRow, Rate, Rates, Tier, TierKind};
use crate::ledger::{Speed, Terms, Usage};

/// What one request costs, by kind, in nano-dollars. The kinds add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct Quote {
    pub total_nano_usd: i64,
    pub input_nano_usd: i64,
    pub output_nano_usd: i64,
    pub cache_read_nano_usd: i64,
    pub cache_write_nano_usd: i64,
    pub web_search_nano_usd: i64,
}

/// The name of the batch service tier.
const BATCH: &str = "batch";
/// Three multipliers of a thousand each.
const FACTOR_SCALE: i128 = 1_000_000_000;
const PICO_PER_NANO: i128 = 1_000;

/// The price of a request by this row; none where the row does not tell a rate that it needs.
pub(super) fn quote(row: &PriceRow, usage: &Usage, terms: &Terms, place: Place) -> Option<Quote> {
    let factor = factor(row, terms, place)?;
    let tokens = |kind: fn(&Rates) -> Option<Rate>, count: u64| {
        Some(pico_usd(row, usage, kind, count)?.saturating_mul(factor))
    };
    let input = tokens(|r| Some(r.input), usage.input)?;
    let output = tokens(|r| Some(r.output), usage.output)?;
    let cache_read = tokens(|r| r.cache_read, usage.cache_read)?;
    let cache_write = tokens(|r| r.cache_write_5m, usage.cache_write_5m)?
        .saturating_add(tokens(|r| r.cache_write_1h, usage.cache_write_1h)?);
    let search_rate = if usage.web_searches == 0 { 0 } else { row.web_search_pico_usd? };
    let web_search =
        i128::from(usage.web_searches).saturating_mul(i128::from(search_rate)).saturating_mul(FACTOR_SCALE);
    Some(rounded([input, output, cache_read, cache_write, web_search]))
}

/// Rounds the sum once and gives each kind its part of it: the difference between two roundings of the running sum, so
/// that the parts add up and each is less than a nano-dollar off.
fn rounded(kinds: [i128; 5]) -> Quote {
    let mut sum: i128 = 0;
    let mut before = 0;
    let [input, output, cache_read, cache_write, web_search] = kinds.map(|kind| {
        sum = sum.saturating_add(kind);
        let now = nano_usd(sum);
        now - std::mem::replace(&mut before, now)
    });
    Quote {
        total_nano_usd: before,
        input_nano_usd: input,
        output_nano_usd: output,
        cache_read_nano_usd: cache_read,
        cache_write_nano_usd: cache_write,
        web_search_nano_usd: web_search,
    }
}

/// To the nearest nano-dollar, halves up; what is larger than can be said is the largest.
fn nano_usd(scaled: i128) -> i64 {
    const UNIT: i128 = PICO_PER_NANO * FACTOR_SCALE;
    i64::try_from(scaled.saturating_add(UNIT / 2) / UNIT).unwrap_or(i64::MAX)
}

/// The product of the multipliers, times [`FACTOR_SCALE`].
fn factor(row: &PriceRow, terms: &Terms, place: Place) -> Option<i128> {
    let speed = match terms.speed {
        Speed::Standard => Factor::ONE,
        Speed::Fast => row.fast?,
    };
    let tier = match terms.service_tier.as_deref() {
        Some(BATCH) => row.batch?,
        _ => Factor::ONE,
    };
    let geo = match place {
        Place::Government => row.bedrock_gov?,
        Place::Region => row.bedrock_regional.unwrap_or(Factor::ONE),
        Place::Anywhere => terms
            .inference_geo
            .as_deref()
            .and_then(|geo| row.geo.iter().find(|(name, _)| name == geo))
            .map_or(Factor::ONE, |(_, factor)| *factor),
    };
    Some([speed, tier, geo].into_iter().map(|f| i128::from(f.0)).product())
}

/// Tokens of one kind at their rates, in pico-dollars. No tokens cost nothing, whatever their rate.
fn pico_usd(row: &PriceRow, usage: &Usage, kind: fn(&Rates) -> Option<Rate>, count: u64) -> Option<i128> {
    if count == 0 {
        return Some(0);
    }
    let at = |tokens: u64, rates: &Rates| Some(i128::from(tokens).saturating_mul(i128::from(kind(rates)?.0)));
    match row.tier_kind {
        TierKind::WholeRequest => {
            let over = |tier: &&Tier| usage.context() > tier.above;
            at(count, row.tiers.iter().rev().find(over).map_or(&row.rates, |tier| &tier.rates))
        }
        TierKind::Marginal => {
            let (mut left, mut sum) = (count, 0_i128);
            for tier in row.tiers.iter().rev().filter(|tier| count > tier.above) {
                sum = sum.saturating_add(at(left - tier.above, &tier.rates)?);
                left = tier.above;
            }
            Some(sum.saturating_add(at(left, &row.rates)?))
        }
    }
}
