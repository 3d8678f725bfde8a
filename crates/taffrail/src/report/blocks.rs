//! Five-hour blocks: how the vendor's usage limits count, as far as it can be seen from outside. Pure.
//!
//! A block begins at the full UTC hour of its first request and lasts five hours. The next one begins with the first
//! request that comes more than five hours after that begin, or more than five hours after the request before it. These
//! are the rules of the tool that made such blocks known, kept so that its users find the same blocks here; a request
//! at exactly five hours is the old block's last.

use std::collections::BTreeMap;

use taffrail_event::TimestampMs;
use taffrail_store::{CostTotals, LedgerRow};

use super::fold;

/// How long a block lasts, in milliseconds.
pub(crate) const BLOCK_MS: i64 = 5 * HOUR_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const MINUTE_MS: i64 = 60_000;
/// Blocks kept at once; older ones beyond it are left out (28 years of blocks without a pause).
pub(crate) const BLOCKS_MAX: usize = 50_000;

/// One block, or the time between two.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub(crate) start: TimestampMs,
    /// Five hours after the start; of a gap the next block's first request.
    pub(crate) end: TimestampMs,
    pub(crate) is_gap: bool,
    pub(crate) totals: CostTotals,
    pub(crate) models: BTreeMap<String, CostTotals>,
}

/// Puts requests, oldest first, into blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    last: Option<TimestampMs>,
}

impl Blocks {
    pub(crate) fn add(&mut self, row: &LedgerRow) {
        let open = self.blocks.last().map(|block| block.start).zip(self.last);
        match open {
            Some((start, last)) => {
                let since_last = row.ts.get() - last.get();
                if row.ts.get() - start.get() > BLOCK_MS || since_last > BLOCK_MS {
                    if since_last > BLOCK_MS {
                        self.push_gap(last, row.ts);
                    }
                    self.begin(row.ts);
                }
            }
            None => self.begin(row.ts),
        }
        if let Some(block) = self.blocks.last_mut() {
            fold::add_request(&mut block.totals, row);
            fold::add_request(block.models.entry(row.model.clone()).or_default(), row);
        }
        self.last = Some(row.ts);
    }

    /// The blocks, oldest first.
    pub(crate) fn into_blocks(mut self) -> Vec<Block> {
        let beyond = self.blocks.len().saturating_sub(BLOCKS_MAX);
        self.blocks.drain(..beyond);
        self.blocks
    }

    fn begin(&mut self, first: TimestampMs) {
        let start = first.get().div_euclid(HOUR_MS) * HOUR_MS;
        self.blocks.push(Block {
            start: TimestampMs::clamped(start),
            end: TimestampMs::clamped(start + BLOCK_MS),
            ..Block::default()
        });
    }

    fn push_gap(&mut self, last: TimestampMs, next: TimestampMs) {
        let start = TimestampMs::clamped(last.get() + BLOCK_MS);
        self.blocks.push(Block { start, end: next, is_gap: true, ..Block::default() });
    }
}

/// How fast a block is used up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Burn {
    /// All tokens.
    pub(crate) tokens_per_minute: f64,
    /// Input and output alone: what is read from the cache or written to it makes the first figure large.
    pub(crate) tokens_per_minute_without_cache: f64,
    pub(crate) usd_per_hour: f64,
}

/// What the block comes to if it goes on like this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Projection {
    pub(crate) tokens: u64,
    pub(crate) cost_nano_usd: i64,
}

impl Block {
    /// Whether it runs at `now`.
    pub(crate) fn is_active(&self, now: TimestampMs) -> bool {
        !self.is_gap && self.start <= now && now < self.end
    }

    pub(crate) fn minutes_left(&self, now: TimestampMs) -> i64 {
        (self.end.get() - now.get()).max(0) / MINUTE_MS
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.totals.usage.total()
    }

    /// The mean from its first request to `now`, of a running block with two requests or more: one alone has no rate.
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    pub(crate) fn burn(&self, now: TimestampMs) -> Option<Burn> {
        let first = self.totals.first.filter(|_| self.is_active(now) && self.totals.requests > 1)?;
        // Less than a minute says nothing of a minute.
        let minutes = (now.get() - first.get()).max(MINUTE_MS) as f64 / MINUTE_MS as f64;
        let usage = &self.totals.usage;
        let own = usage.input.saturating_add(usage.output);
        Some(Burn {
            tokens_per_minute: usage.total() as f64 / minutes,
            tokens_per_minute_without_cache: own as f64 / minutes,
            usd_per_hour: self.totals.cost_nano_usd as f64 / 1e9 / minutes * 60.0,
        })
    }

    /// What it will have at its end, at the rate of [`Self::burn`].
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn projection(&self, now: TimestampMs) -> Option<Projection> {
        let burn = self.burn(now)?;
        let minutes = (self.end.get() - now.get()).max(0) as f64 / MINUTE_MS as f64;
        let tokens = (burn.tokens_per_minute * minutes).round() as u64;
        let cost = (burn.usd_per_hour * 1e9 / 60.0 * minutes).round() as i64;
        Some(Projection {
            tokens: self.tokens().saturating_add(tokens),
            cost_nano_usd: self.totals.cost_nano_usd.saturating_add(cost),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use taffrail_event::ledger::{Confidence, Usage};

    /// 2026-11-22T10:20:00Z.
    const NOON_ISH: i64 = 1_795_342_800_000;

    fn at(minutes: i64) -> TimestampMs {
        TimestampMs::clamped(NOON_ISH + minutes * MINUTE_MS)
    }

    fn request(ts: TimestampMs) -> LedgerRow {
        LedgerRow {
            ts,
            model: "m".to_owned(),
            usage: Usage { input: 100, output: 20, cache_read: 880, ..Usage::default() },
            cost_nano_usd: Some(1_000_000_000),
            confidence: Some(Confidence::Exact),
            sources: 1,
            ..LedgerRow::default()
        }
    }

    fn blocks(times: impl IntoIterator<Item = TimestampMs>) -> Vec<Block> {
        let mut blocks = Blocks::default();
        for ts in times {
            blocks.add(&request(ts));
        }
        blocks.into_blocks()
    }

    /// Start and end of each block in minutes from the first request, its requests, and whether it is a gap.
    #[track_caller]
    fn check(minutes: &[i64], expected: &[(i64, i64, i64, bool)]) {
        let found: Vec<_> = blocks(minutes.iter().copied().map(at))
            .iter()
            .map(|b| {
                let from = |t: TimestampMs| (t.get() - NOON_ISH) / MINUTE_MS;
                (from(b.start), from(b.end), b.totals.requests, b.is_gap)
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_block_begins_at_the_full_hour_and_its_last_request_may_be_at_exactly_five_hours() {
        // The first request is at twenty past: the block ends 280 minutes after it.
        check(&[0, 100, 280], &[(-20, 280, 3, false)]);
        check(&[0, 100, 281], &[(-20, 280, 2, false), (280, 580, 1, false)]);
    }

    #[test]
    fn a_pause_of_exactly_five_hours_is_no_gap() {
        // From 14:00 to 19:00: the block is over, but nothing lies between.
        check(&[0, 220, 520], &[(-20, 280, 2, false), (520, 820, 1, false)]);
        check(&[0, 220, 521], &[(-20, 280, 2, false), (520, 521, 0, true), (520, 820, 1, false)]);
        // The only way to a pause of exactly five hours inside one block: a request on the hour.
        check(&[40, 340], &[(40, 340, 2, false)]);
    }

    #[test]
    fn a_running_block_has_a_rate_and_says_where_it_leads() {
        let block = &blocks([at(0), at(20), at(40)])[0];
        let now = at(60);
        assert!(block.is_active(now) && !block.is_active(at(280)) && !block.is_active(at(-30)));
        let burn = block.burn(now).unwrap();
        assert_eq!(burn.tokens_per_minute, 50.0);
        assert_eq!(burn.tokens_per_minute_without_cache, 6.0);
        assert_eq!(burn.usd_per_hour, 3.0);
        assert_eq!(block.minutes_left(now), 220);
        let projection = block.projection(now).unwrap();
        assert_eq!((projection.tokens, projection.cost_nano_usd), (14_000, 14_000_000_000));
    }

    #[test]
    fn one_request_has_no_rate_and_a_finished_block_neither() {
        assert_eq!(blocks([at(0)])[0].burn(at(1)), None);
        assert_eq!(blocks([at(0), at(1)])[0].burn(at(300)), None);
        // Two requests within a second are not taken for sixty times as many a minute.
        assert_eq!(blocks([at(0), at(0)])[0].burn(at(0)).unwrap().tokens_per_minute, 2_000.0);
    }

    #[test]
    fn money_without_a_request_counts_as_money_only() {
        let mut blocks = Blocks::default();
        blocks.add(&LedgerRow {
            sources: 0,
            confidence: Some(Confidence::Estimated),
            cost_nano_usd: Some(5),
            ..request(at(0))
        });
        let totals = blocks.into_blocks()[0].totals;
        assert_eq!((totals.requests, totals.cost_nano_usd), (0, 5));
        assert_eq!(totals.of(Confidence::Estimated).cost_nano_usd, 5);
    }

    proptest! {
        #[test]
        fn every_request_is_in_one_block_and_blocks_do_not_overlap(
            mut minutes in prop::collection::vec(0i64..6_000, 1..80),
        ) {
            minutes.sort_unstable();
            let blocks = blocks(minutes.iter().copied().map(at));
            let requests: i64 = blocks.iter().map(|b| b.totals.requests).sum();
            prop_assert_eq!(requests as usize, minutes.len());
            for block in blocks.iter().filter(|b| !b.is_gap) {
                prop_assert_eq!(block.start.get() % HOUR_MS, 0);
                let (first, last) = (block.totals.first.unwrap(), block.totals.last.unwrap());
                prop_assert!(first.get() - block.start.get() < HOUR_MS);
                prop_assert!(block.start <= first && last <= block.end);
            }
            let real: Vec<&Block> = blocks.iter().filter(|b| !b.is_gap).collect();
            for pair in real.windows(2) {
                prop_assert!(pair[0].totals.last.unwrap() < pair[1].totals.first.unwrap());
            }
        }
    }
}
