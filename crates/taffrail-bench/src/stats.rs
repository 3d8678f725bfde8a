//! Order statistics of measured samples. Quantiles are nearest-rank: a value that was really measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Samples of one case, in the unit of its figure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

/// What is reported of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) n: usize,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        debug_assert!(value.is_finite());
        self.0.push(value);
    }

    pub(crate) fn push_ms(&mut self, took: Duration) {
        self.push(ms(took));
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// The spread; none without samples.
    pub(crate) fn spread(&self) -> Option<Spread> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let at = |q: f64| sorted[nearest_rank(q, sorted.len())];
        Some(Spread { n: sorted.len(), min, p50: at(0.50), p95: at(0.95), p99: at(0.99), max })
    }
}

/// Milliseconds, with the fraction.
pub(crate) fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn nearest_rank(q: f64, n: usize) -> usize {
    let rank = (q * n as f64).ceil() as usize;
    rank.clamp(1, n) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let mut samples = Samples::default();
        for value in (1..=100).rev() {
            samples.push(f64::from(value));
        }
        let expected = Spread { n: 100, min: 1.0, p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 };
        assert_eq!(samples.spread(), Some(expected));
        assert_eq!(Samples::default().spread(), None);
    }

    #[test]
    fn one_sample_is_every_quantile() {
        let mut samples = Samples::default();
        samples.push(7.0);
        assert_eq!(samples.spread().map(|s| (s.min, s.p99, s.max)), Some((7.0, 7.0, 7.0)));
    }
}
