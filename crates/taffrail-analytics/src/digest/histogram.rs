//! A histogram of durations whose bins can be added and taken away exactly.
//!
//! The sketches of this crate merge exactly but cannot be subtracted; a session's contribution must be replaced when late
//! events change it. So the bins here are plain integers: log-linear as HdrHistogram's (Gil Tene, hdrhistogram.org), all
//! in integer arithmetic, so that a value falls into the same bin on every machine. Values under 128 have a bin of their
//! own; above, each power of two is cut into 64 bins, so the middle of a bin is within 1/128 (0.8 %) of every value in it.
//! Limits: values are clamped to 0..=[`VALUE_MAX`], which leaves at most [`BINS_MAX`] bins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far a quantile may be from the true one, as a share of it.
pub const RELATIVE_ERROR: f64 = 1.0 / 128.0;

/// Larger values count as this: 31 years in milliseconds.
pub const VALUE_MAX: i64 = 1_000_000_000_000;

/// More bins than any histogram can have.
pub const BINS_MAX: usize = 2304;

/// Bins of each power of two.
const SUB_BINS: i64 = 64;

/// The bytes begin with this; a reader refuses any other.
const FORMAT_VERSION: u8 = 1;

/// Counts by bin; counts below zero occur only in a difference ([`Histogram::subtract`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(BTreeMap<u16, i64>);

/// Why bytes are no histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistogramError {
    /// Another format; the byte found.
    Version(u8),
    /// Cut short, out of order, or with bins that cannot be.
    Damaged,
}

impl std::fmt::Display for HistogramError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(found) => write!(f, "histogram has format {found}, known is {FORMAT_VERSION}"),
            Self::Damaged => f.write_str("histogram is damaged"),
        }
    }
}

impl std::error::Error for HistogramError {}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: i64) {
        self.bump(bin_of(value), 1);
    }

    /// Adds every count of the other.
    pub fn add(&mut self, other: &Self) {
        for (&bin, &count) in &other.0 {
            self.bump(bin, count);
        }
    }

    /// Takes every count of the other away: the inverse of [`Histogram::add`].
    pub fn subtract(&mut self, other: &Self) {
        for (&bin, &count) in &other.0 {
            self.bump(bin, count.wrapping_neg());
        }
    }

    /// Whether no bin holds anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many values it holds.
    pub fn count(&self) -> i64 {
        self.0.values().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The value at rank floor(q * (n - 1)), `q` clamped to 0..=1, as the middle of its bin; none while empty.
    pub fn quantile(&self, q: f64) -> Option<i64> {
        let total =
            self.0.values().filter(|count| **count > 0).fold(0i64, |sum, count| sum.saturating_add(*count));
        if total == 0 {
            return None;
        }
        let q = if q.is_nan() { 0.5 } else { q.clamp(0.0, 1.0) };
        let rank = (q * (total - 1) as f64) as i64;
        let mut before = 0i64;
        for (&bin, &count) in self.0.iter().filter(|(_, count)| **count > 0) {
            before = before.saturating_add(count);
            if before > rank {
                return Some(middle_of(bin));
            }
        }
        self.0.keys().next_back().map(|bin| middle_of(*bin))
    }

    /// The median; see [`Histogram::quantile`].
    pub fn median(&self) -> Option<i64> {
        self.quantile(0.5)
    }

    /// Bytes for the database: version, number of bins, then for each bin its distance from the one before and its count
    /// (zigzag), all as LEB128. Nothing at all for an empty histogram.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_empty() {
            return bytes;
        }
        bytes.push(FORMAT_VERSION);
        write_varint(&mut bytes, self.0.len() as u64);
        let mut before = 0;
        for (&bin, &count) in &self.0 {
            write_varint(&mut bytes, u64::from(bin - before));
            write_varint(&mut bytes, ((count << 1) ^ (count >> 63)) as u64);
            before = bin;
        }
        bytes
    }

    /// Reads what [`Histogram::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HistogramError> {
        let Some((&version, mut rest)) = bytes.split_first() else { return Ok(Self::default()) };
        if version != FORMAT_VERSION {
            return Err(HistogramError::Version(version));
        }
        let bins = read_varint(&mut rest)
            .filter(|bins| *bins as usize <= BINS_MAX)
            .ok_or(HistogramError::Damaged)?;
        let mut own = Self::default();
        let mut before = 0;
        for index in 0..bins {
            let step = read_varint(&mut rest).ok_or(HistogramError::Damaged)?;
            let zigzag = read_varint(&mut rest).ok_or(HistogramError::Damaged)?;
            let count = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            let bin = u64::from(before) + step.min(u64::from(u16::MAX));
            if bin as usize >= BINS_MAX || count == 0 || (index > 0 && step == 0) {
                return Err(HistogramError::Damaged);
            }
            before = bin as u16;
            own.0.insert(before, count);
        }
        if rest.is_empty() { Ok(own) } else { Err(HistogramError::Damaged) }
    }

    fn bump(&mut self, bin: u16, by: i64) {
        let count = self.0.entry(bin).or_insert(0);
        *count = count.wrapping_add(by);
        if *count == 0 {
            self.0.remove(&bin);
        }
    }
}

/// Sums many histograms up from their bytes, without a tree for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum(Vec<i64>);

impl HistogramSum {
    /// Adds a histogram as [`Histogram::to_bytes`] wrote it.
    ///
    /// # Errors
    /// [`HistogramError`]; the sum is of no use then.
    pub fn add_bytes(&mut self, bytes: &[u8]) -> Result<(), HistogramError> {
        let Some((&version, mut rest)) = bytes.split_first() else { return Ok(()) };
        if version != FORMAT_VERSION {
            return Err(HistogramError::Version(version));
        }
        self.0.resize(BINS_MAX, 0);
        let mut bin = 0u64;
        for _ in 0..read_varint(&mut rest).ok_or(HistogramError::Damaged)? {
            let step = read_varint(&mut rest).ok_or(HistogramError::Damaged)?;
            let zigzag = read_varint(&mut rest).ok_or(HistogramError::Damaged)?;
            bin = bin.saturating_add(step);
            let count = self.0.get_mut(bin as usize).ok_or(HistogramError::Damaged)?;
            *count = count.wrapping_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
        if rest.is_empty() { Ok(()) } else { Err(HistogramError::Damaged) }
    }

    /// The sum.
    pub fn finish(self) -> Histogram {
        let bins = self.0.into_iter().enumerate().filter(|(_, count)| *count != 0);
        Histogram(bins.map(|(bin, count)| (bin as u16, count)).collect())
    }
}

/// The bin of a value.
fn bin_of(value: i64) -> u16 {
    let value = value.clamp(0, VALUE_MAX);
    if value < 2 * SUB_BINS {
        return value as u16;
    }
    // The shift that leaves seven bits, the first of them set.
    let shift = i64::from(57 - value.leading_zeros());
    (2 * SUB_BINS + (shift - 1) * SUB_BINS + (value >> shift) - SUB_BINS) as u16
}

/// The middle of a bin.
fn middle_of(bin: u16) -> i64 {
    let bin = i64::from(bin);
    if bin < 2 * SUB_BINS {
        return bin;
    }
    let above = bin - 2 * SUB_BINS;
    let shift = (above / SUB_BINS + 1).min(48);
    let low = (SUB_BINS + above % SUB_BINS) << shift;
    low + ((1i64 << shift) - 1) / 2
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[i64]) -> Histogram {
        let mut histogram = Histogram::default();
        for &value in values {
            histogram.record(value);
        }
        histogram
    }

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![0i64..300, 0i64..1_000_000, 0i64..=VALUE_MAX, any::<i64>()]
    }

    #[test]
    fn bins_are_in_the_order_of_their_values_and_bounded() {
        let mut last = 0;
        for exponent in 0..40 {
            for step in 0..64 {
                let value = (1i64 << exponent) + (step << exponent) / 64;
                let bin = bin_of(value);
                assert!(bin >= last || value < 128, "{value}");
                last = bin;
            }
        }
        assert_eq!((bin_of(127), bin_of(128), bin_of(129), bin_of(130)), (127, 128, 128, 129));
        assert!((bin_of(i64::MAX) as usize) < BINS_MAX);
        assert_eq!(bin_of(i64::MIN), 0);
    }

    #[test]
    fn nothing_has_no_median_and_no_bytes() {
        assert_eq!(of(&[]).median(), None);
        assert!(of(&[]).to_bytes().is_empty());
        assert_eq!(Histogram::from_bytes(&[]), Ok(of(&[])));
        assert_eq!(Histogram::from_bytes(&[9, 0]), Err(HistogramError::Version(9)));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_error(values in prop::collection::vec(value(), 1..200), q in 0.0f64..=1.0) {
            let mut sorted: Vec<i64> = values.iter().map(|v| (*v).clamp(0, VALUE_MAX)).collect();
            sorted.sort_unstable();
            let want = sorted[(q * (sorted.len() - 1) as f64) as usize];
            let got = of(&values).quantile(q).unwrap();
            prop_assert!((got - want).abs() as f64 <= want as f64 * RELATIVE_ERROR, "{} for {}", got, want);
        }

        #[test]
        fn adding_and_taking_away_is_exact(a in prop::collection::vec(value(), 0..100), b in prop::collection::vec(value(), 0..100)) {
            let both = of(&[a.clone(), b.clone()].concat());
            let mut sum = of(&a);
            sum.add(&of(&b));
            prop_assert_eq!(&sum, &both);
            prop_assert_eq!(sum.count(), (a.len() + b.len()) as i64);
            sum.subtract(&of(&a));
            prop_assert_eq!(&sum, &of(&b));
            // A difference may go below zero on the way.
            let mut delta = of(&a);
            delta.subtract(&of(&b));
            delta.add(&of(&b));
            prop_assert_eq!(delta, of(&a));
        }

        #[test]
        fn bytes_round_trip(a in prop::collection::vec(value(), 0..100), b in prop::collection::vec(value(), 0..100)) {
            let mut delta = of(&a);
            delta.subtract(&of(&b));
            prop_assert_eq!(Histogram::from_bytes(&delta.to_bytes()).unwrap(), delta.clone());
            let json = serde_json::to_string(&delta).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), delta);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(read) = Histogram::from_bytes(&bytes) {
                let _ = (read.median(), read.count(), read.to_bytes());
            }
        }
    }

    proptest! {
        #[test]
        fn a_sum_of_bytes_is_the_sum_of_the_histograms(all in prop::collection::vec(prop::collection::vec(any::<i64>(), 0..20), 0..6)) {
            let (mut slow, mut quick) = (Histogram::default(), HistogramSum::default());
            for values in all {
                let mut one = Histogram::default();
                values.into_iter().for_each(|value| one.record(value));
                quick.add_bytes(&one.to_bytes()).unwrap();
                slow.add(&one);
            }
            prop_assert_eq!(quick.finish(), slow);
        }

        #[test]
        fn a_sum_of_other_bytes_is_an_error_and_harms_nothing(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if Histogram::from_bytes(&bytes).is_ok() {
                prop_assert_eq!(HistogramSum::default().add_bytes(&bytes), Ok(()));
            } else {
                let _ = HistogramSum::default().add_bytes(&bytes);
            }
        }
    }
}
