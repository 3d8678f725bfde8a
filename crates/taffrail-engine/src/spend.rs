//! What was spent since a moment, in bounded memory.

use crate::finding::Cost;

/// Points of the curve that are kept; when it is full every second one of the older half goes: totals stay exact, and so do
/// the moments of the newest, older ones become coarser.
const POINTS_MAX: usize = 128;

/// A running total at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Point {
    at_ms: i64,
    nano_usd: i64,
    requests: u64,
    unpriced: u64,
}

/// What a telling of a request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) nano_usd: i64,
    /// It was not seen before.
    pub(crate) is_new: bool,
    /// One more without a price, or one less.
    pub(crate) unpriced: i64,
}

impl Change {
    /// From what was known of its cost (none where it was not seen) to what is.
    pub(crate) fn of(before: Option<Option<i64>>, now: Option<i64>) -> Self {
        let known = before.flatten().unwrap_or(0);
        // A price that is known does not go away.
        let after = now.unwrap_or(known);
        let was_unpriced = before == Some(None);
        let is_unpriced = now.is_none() && before.flatten().is_none();
        Self {
            nano_usd: after.saturating_sub(known),
            is_new: before.is_none(),
            unpriced: i64::from(is_unpriced) - i64::from(was_unpriced),
        }
    }
}

/// The requests of one agent, or one session, as a curve of running totals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spend {
    points: Vec<Point>,
}

impl Spend {
    /// Adds what a request cost, or what is now known to be different of one seen before.
    pub(crate) fn add(&mut self, at_ms: i64, change: Change) {
        let last = self.last();
        let total = last.unwrap_or_default();
        let point = Point {
            at_ms: last.map_or(at_ms, |last| last.at_ms.max(at_ms)),
            nano_usd: total.nano_usd.saturating_add(change.nano_usd),
            requests: total.requests.saturating_add(u64::from(change.is_new)),
            unpriced: total.unpriced.saturating_add_signed(change.unpriced),
        };
        if self.points.len() >= POINTS_MAX {
            let mut nth = 0;
            self.points.retain(|_| {
                nth += 1;
                nth % 2 == 0 || nth > POINTS_MAX / 2
            });
        }
        self.points.push(point);
    }

    fn last(&self) -> Option<Point> {
        self.points.last().copied()
    }

    /// What was spent after `since_ms`.
    pub(crate) fn since(&self, since_ms: i64) -> Cost {
        let Some(last) = self.last() else { return Cost::default() };
        let after = self.points.partition_point(|point| point.at_ms <= since_ms);
        let before = after.checked_sub(1).and_then(|at| self.points.get(at)).copied().unwrap_or_default();
        Cost::of(
            last.nano_usd.saturating_sub(before.nano_usd),
            last.requests.saturating_sub(before.requests),
            last.unpriced.saturating_sub(before.unpriced),
        )
    }

    /// When something was first spent after `since_ms`.
    pub(crate) fn first_after(&self, since_ms: i64) -> Option<i64> {
        self.points.get(self.points.partition_point(|point| point.at_ms <= since_ms)).map(|point| point.at_ms)
    }

    /// All of it.
    pub(crate) fn total(&self) -> Cost {
        self.since(i64::MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_came_after_counts() {
        let mut spend = Spend::default();
        spend.add(10, Change::of(None, Some(5)));
        spend.add(20, Change::of(None, None));
        spend.add(30, Change::of(None, Some(7)));
        spend.add(30, Change::of(Some(Some(7)), Some(8)));
        assert_eq!(spend.since(10), Cost::of(8, 2, 1));
        assert_eq!(spend.since(30), Cost::of(0, 0, 0));
        assert_eq!(spend.since(i64::MIN), Cost::of(13, 3, 1));
    }

    #[test]
    fn a_price_that_comes_later_takes_the_place_of_none() {
        let mut spend = Spend::default();
        spend.add(10, Change::of(None, None));
        assert_eq!(spend.total(), Cost::of(0, 1, 1));
        spend.add(20, Change::of(Some(None), Some(9)));
        assert_eq!(spend.total(), Cost::of(9, 1, 0));
        spend.add(30, Change::of(Some(Some(9)), None));
        assert_eq!(spend.total(), Cost::of(9, 1, 0));
    }

    proptest! {
        #[test]
        fn totals_stay_exact_however_many_come(costs in prop::collection::vec(prop::option::of(0i64..1_000_000), 0..2_000)) {
            let mut spend = Spend::default();
            for (at, cost) in costs.iter().enumerate() {
                spend.add(at as i64, Change::of(None, *cost));
            }
            let priced: i64 = costs.iter().flatten().sum();
            let unpriced = costs.iter().filter(|cost| cost.is_none()).count() as u64;
            prop_assert_eq!(spend.total(), Cost::of(priced, costs.len() as u64, unpriced));
            prop_assert!(spend.points.len() <= POINTS_MAX);
            // What was spent of late is exact, too.
            let since = costs.len() - costs.len().min(POINTS_MAX / 4);
            let newest = &costs[since..];
            let priced: i64 = newest.iter().flatten().sum();
            let unpriced = newest.iter().filter(|cost| cost.is_none()).count() as u64;
            prop_assert_eq!(spend.since(since as i64 - 1), Cost::of(priced, newest.len() as u64, unpriced));
        }
    }
}
