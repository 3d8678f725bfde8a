//! Prediction intervals from the errors of a back-test: split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al.
//! 2018), for each step of the path by itself.
//!
//! Errors are divided by the level of the series at their origin (Papadopoulos et al. 2008, normalized conformity scores), so that
//! a series that grew is not judged by how it erred when it was small. Paths of neighbouring origins overlap, so K origins tell
//! less than K independent errors would: an interval is widened by [`WIDEN_STEP`] * steps / K, that of a sum, whose errors share
//! most of what they are made of, by [`WIDEN_SUM`] * steps / K.

/// See above; chosen on back-tests, `docs/adr/0019-forecasts.md`.
pub(crate) const WIDEN_STEP: f64 = 0.3;
/// See above.
pub(crate) const WIDEN_SUM: f64 = 1.0;
/// Points whose mean is the level, unless the season is longer.
const LEVEL_POINTS: usize = 12;
/// The level is at least this share of its mean over the origins: a quiet time does not make the next busy one certain.
const LEVEL_FLOOR: f64 = 0.25;
/// Errors that a check of the coverage needs before it.
pub(crate) const CALIBRATION_MIN: usize = 20;

/// The level of a series at each point: the mean size of the points before it, over two cycles.
pub(crate) struct Levels {
    sums: Vec<f64>,
    span: usize,
    floor: f64,
}

impl Levels {
    pub(crate) fn of(y: &[f64], periods: &[usize], origins: std::ops::RangeInclusive<usize>) -> Self {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        for value in y {
            sum += value.abs();
            sums.push(sum);
        }
        let span = periods.iter().map(|period| 2 * period).max().unwrap_or(0).max(LEVEL_POINTS);
        let mut levels = Self { sums, span, floor: 0.0 };
        let count = origins.clone().count().max(1) as f64;
        levels.floor = LEVEL_FLOOR * origins.map(|origin| levels.at(origin)).sum::<f64>() / count;
        levels
    }

    /// The level behind that many points.
    pub(crate) fn at(&self, points: usize) -> f64 {
        let from = points.saturating_sub(self.span);
        let mean = (self.sums[points] - self.sums[from]) / (points - from).max(1) as f64;
        mean.max(self.floor).max(f64::MIN_POSITIVE.sqrt())
    }
}

/// The half-width that covers a share of errors, widened by `widen` / K: the order statistic of the rank (K + 1) * share, between two of
/// them in proportion, and beyond the last one further by what is missing.
pub(crate) fn half_width(sorted: &[f64], share: f64, widen: f64) -> f64 {
    let Some((last, count)) = sorted.last().map(|last| (*last, sorted.len() as f64)) else { return 0.0 };
    let place = (count + 1.0) * share - 1.0;
    let below = place.max(0.0).floor() as usize;
    let width = match sorted.get(below..below + 2) {
        Some([low, high]) => low + (place.max(0.0) - below as f64) * (high - low),
        _ => last * (1.0 + (place - (count - 1.0)).max(0.0) / count),
    };
    width * (1.0 + widen / count)
}

/// How often intervals from earlier errors held later ones: what an interval was worth when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) checked: usize,
    pub(crate) held: [usize; 2],
}

/// Walks through the origins: each scaled error is held against the interval from the errors that were known at its origin.
/// `errors[origin]` is that of a path's step number `step` (from 0); `shares` are the intervals' shares.
pub(crate) fn check(errors: &[f64], levels: &[f64], step: usize, shares: [f64; 2], held: &mut Held) {
    let mut known: Vec<f64> = Vec::with_capacity(errors.len());
    for (origin, (error, level)) in errors.iter().zip(levels).enumerate() {
        if let Some(ended) = origin.checked_sub(step + 1) {
            let scaled = errors[ended].abs() / levels[ended];
            known.insert(known.partition_point(|other| *other < scaled), scaled);
        }
        if known.len() < CALIBRATION_MIN {
            continue;
        }
        held.checked += 1;
        for (count, share) in held.held.iter_mut().zip(shares) {
            *count +=
                usize::from(error.abs() <= half_width(&known, share, WIDEN_STEP * (step + 1) as f64) * level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_between_two_errors_lies_between_them_and_beyond_the_last_lies_further() {
        let errors: Vec<f64> = (1..=19).map(f64::from).collect();
        let plain = |share| half_width(&errors, share, 0.0);
        assert!((plain(0.5) - 10.0).abs() < 1e-12);
        assert!((plain(0.95) - 19.0).abs() < 1e-9, "rank 19 of 19");
        assert!((plain(0.525) - 10.5).abs() < 1e-9);
        assert!(plain(0.99) > 19.0);
        assert!(half_width(&errors, 0.5, 5.0) > plain(0.5), "further ahead is wider");
        assert!(half_width(&[], 0.95, 1.0).abs() < 1e-12);
        assert!((half_width(&[3.0], 0.8, 0.0) - 3.0).abs() < 2.0);
    }

    #[test]
    fn independent_errors_are_held_as_often_as_was_said() {
        // A linear congruential generator's uniform numbers: errors without any structure.
        let mut seed = 7u64;
        let errors: Vec<f64> = (0..4_000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
            })
            .collect();
        let mut held = Held::default();
        check(&errors, &vec![1.0; errors.len()], 0, [0.8, 0.95], &mut held);
        let share = |count: usize| count as f64 / held.checked as f64;
        assert!((share(held.held[0]) - 0.8).abs() < 0.02, "{held:?}");
        assert!((share(held.held[1]) - 0.95).abs() < 0.01, "{held:?}");
    }

    #[test]
    fn a_level_follows_the_last_cycles_and_does_not_fall_to_nothing() {
        let y: Vec<f64> = (0..200).map(|t| if t < 100 { 10.0 } else { 0.0 }).collect();
        let levels = Levels::of(&y, &[], 50..=200);
        assert!((levels.at(60) - 10.0).abs() < 1e-12);
        assert!(levels.at(200) > 0.5, "{}", levels.at(200));
        assert!(Levels::of(&[0.0; 50], &[], 10..=50).at(30) > 0.0);
    }
}
