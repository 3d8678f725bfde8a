//! The rows that a forest is trained on: a bounded sample of all that were offered.
//!
//! A bottom-k sample (E. Cohen, H. Kaplan, "Summarizing data using bottom-k sketches", PODC 2007): the rows with the smallest
//! seeded hash of their id stay. Each row is as likely to stay as any other, as in a reservoir (Vitter 1985), and beyond that
//! the sample depends neither on the order in which rows came nor on how often: late, repeated and replayed rows do no harm.

use std::collections::BTreeMap;

use super::random::mix;

/// Rows kept for training, for each tool family.
pub const TRAINING_ROWS_MAX: usize = 10_000;

/// A sample of at most so many rows.
#[derive(Clone, Debug)]
pub struct Reservoir<T> {
    capacity: usize,
    seed: u64,
    kept: BTreeMap<u64, T>,
}

impl<T> Reservoir<T> {
    /// An empty sample.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self { capacity, seed: mix(seed), kept: BTreeMap::new() }
    }

    /// Offers a row; one with the same id is replaced.
    pub fn offer(&mut self, id: i64, row: T) {
        // `mix` gives no two ids the same key.
        let key = mix(self.seed ^ id.cast_unsigned());
        let is_full = self.kept.len() >= self.capacity;
        if is_full && self.kept.last_key_value().is_none_or(|(last, _)| key > *last) {
            return;
        }
        self.kept.insert(key, row);
        if self.kept.len() > self.capacity {
            self.kept.pop_last();
        }
    }

    /// Rows kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none was offered.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The rows, in an order that depends on nothing but seed and ids.
    pub fn rows(&self) -> impl Iterator<Item = &T> {
        self.kept.values()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(ids: &[i64], capacity: usize, seed: u64) -> Vec<i64> {
        let mut reservoir = Reservoir::new(capacity, seed);
        for &id in ids {
            reservoir.offer(id, id);
            assert!(reservoir.len() <= capacity);
        }
        reservoir.rows().copied().collect()
    }

    proptest! {
        #[test]
        fn order_and_repetition_change_nothing(
            ids in proptest::collection::vec(any::<i64>(), 0..80),
            capacity in 0_usize..40,
            seed: u64,
        ) {
            let forward = kept(&ids, capacity, seed);
            let twice: Vec<i64> = ids.iter().rev().chain(&ids).copied().collect();
            prop_assert_eq!(&forward, &kept(&twice, capacity, seed));
            let distinct: std::collections::BTreeSet<i64> = ids.into_iter().collect();
            prop_assert_eq!(forward.len(), distinct.len().min(capacity));
        }
    }

    #[test]
    fn every_row_is_as_likely_to_stay() {
        let ids: Vec<i64> = (1_000..1_020).collect();
        let mut counts = [0_u32; 20];
        for seed in 0..2_000 {
            for id in kept(&ids, 5, seed) {
                counts[(id - 1_000) as usize] += 1;
            }
        }
        // 500 each; the standard deviation is 19.
        assert!(counts.iter().all(|&count| (415..585).contains(&count)), "{counts:?}");
    }
}
