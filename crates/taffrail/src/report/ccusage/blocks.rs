//! Five-hour blocks: one begins at the full UTC hour of its first entry and ends with its length, or with a pause as long.

use jiff::tz::TimeZone;

use super::entry::Entry;
use super::rows::{Counts, Range};
use super::time;

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: f64 = 60_000.0;
/// `--recent` goes back so far.
pub(super) const RECENT_MS: i64 = 3 * 24 * HOUR_MS;

#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    /// None for a gap.
    pub(super) of: Option<Content>,
}

/// What a block that is no gap holds.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    pub(super) entries: usize,
    pub(super) counts: Counts,
    pub(super) cost: f64,
    /// Indexes, in the order in which they came.
    pub(super) models: Vec<u32>,
    pub(super) is_active: bool,
    pub(super) limit_reset_ms: Option<i64>,
}

/// How fast a block is being used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Burn {
    pub(super) tokens_per_minute: f64,
    /// Without the cache.
    pub(super) own_tokens_per_minute: f64,
    pub(super) cost_per_hour: f64,
}

/// What it comes to if it goes on like this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Projection {
    pub(super) tokens: u64,
    pub(super) cost: f64,
    pub(super) remaining_minutes: u64,
}

/// The blocks of all entries, with the gaps between them.
pub(super) fn all(mut entries: Vec<Entry>, hours: f64, now_ms: i64) -> Vec<Block> {
    let length = (hours * HOUR_MS as f64) as i64;
    entries.sort_by_key(|entry| entry.at_ms);
    let mut blocks = Vec::new();
    let mut rest = &entries[..];
    while let Some(first) = rest.first() {
        let start_ms = first.at_ms.div_euclid(HOUR_MS) * HOUR_MS;
        let pauses =
            |pair: &[Entry]| pair[1].at_ms - pair[0].at_ms > length || pair[1].at_ms - start_ms > length;
        let count = rest.windows(2).position(pauses).map_or(rest.len(), |at| at + 1);
        let (own, others) = rest.split_at(count);
        let end_ms = start_ms.saturating_add(length);
        let content = content(own, end_ms, length, now_ms);
        let last_ms = content.last_ms;
        blocks.push(Block { start_ms, end_ms, of: Some(content) });
        if let Some(next) = others.first().filter(|next| next.at_ms - last_ms > length) {
            blocks.push(Block { start_ms: last_ms.saturating_add(length), end_ms: next.at_ms, of: None });
        }
        rest = others;
    }
    blocks
}

fn content(entries: &[Entry], end_ms: i64, length: i64, now_ms: i64) -> Content {
    let (first_ms, last_ms) = (entries[0].at_ms, entries[entries.len() - 1].at_ms);
    let mut content = Content {
        first_ms,
        last_ms,
        entries: entries.len(),
        counts: Counts::default(),
        cost: 0.0,
        models: Vec::new(),
        is_active: now_ms - last_ms < length && now_ms < end_ms,
        limit_reset_ms: entries.iter().find_map(|entry| entry.limit_reset_ms),
    };
    for entry in entries {
        content.counts.add_entry(entry);
        content.cost += entry.cost;
        if let Some(model) = entry.model.filter(|model| !content.models.contains(model)) {
            content.models.push(model);
        }
    }
    content
}

impl Block {
    pub(super) fn is_active(&self) -> bool {
        self.of.as_ref().is_some_and(|of| of.is_active)
    }

    /// Whether it began on a day of the range.
    pub(super) fn is_in(&self, range: Range<'_>, zone: &TimeZone) -> bool {
        range.has(time::day(self.start_ms, zone))
    }

    /// Only of the block that is running; none where all its entries are of one moment.
    pub(super) fn burn(&self) -> Option<Burn> {
        let of = self.of.as_ref().filter(|of| of.is_active)?;
        let minutes = (of.last_ms - of.first_ms) as f64 / MINUTE_MS;
        (minutes > 0.0).then(|| Burn {
            tokens_per_minute: of.counts.total() as f64 / minutes,
            own_tokens_per_minute: (of.counts.input + of.counts.output) as f64 / minutes,
            cost_per_hour: of.cost / minutes * 60.0,
        })
    }

    pub(super) fn projection(&self, now_ms: i64) -> Option<Projection> {
        let (of, burn) = (self.of.as_ref()?, self.burn()?);
        let remaining = ((self.end_ms - now_ms) as f64 / MINUTE_MS).round();
        let tokens = of.counts.total() as f64 + burn.tokens_per_minute * remaining;
        let cost = of.cost + burn.cost_per_hour / 60.0 * remaining;
        Some(Projection {
            tokens: tokens.round() as u64,
            cost: (cost * 100.0).round() / 100.0,
            remaining_minutes: remaining as u64,
        })
    }
}

/// The most tokens of a block that is over: what `--token-limit max` means.
pub(super) fn most_tokens(blocks: &[Block]) -> u64 {
    let over = blocks.iter().filter_map(|block| block.of.as_ref()).filter(|of| !of.is_active);
    over.map(|of| of.counts.total()).max().unwrap_or(0)
}
