//! Quantiles of durations and sizes in bounded space: a DDSketch (Masson, Rim, Lee 2019) with
//! [`RELATIVE_ERROR`], whose merge is exact, so that minutes add up to hours.
//!
//! Limits: magnitudes under [`MAGNITUDE_MIN`] count as zero and those over [`MAGNITUDE_MAX`] as that
//! value. Between the two lie fewer buckets than the sketch may hold, so no bucket is ever collapsed,
//! and merging is commutative and associative (the sum up to the rounding of its last digits).

use sketches_ddsketch::{Config, DDSketch};

/// How far a quantile may be from the true one, as a share of the true one.
pub const RELATIVE_ERROR: f64 = 0.01;

/// Magnitudes below this count as zero.
pub const MAGNITUDE_MIN: f64 = 1e-3;

/// Magnitudes above this count as this (three thousand years in milliseconds, 90 TB in bytes).
pub const MAGNITUDE_MAX: f64 = 1e14;

/// The bytes begin with this; a reader refuses any other.
const FORMAT_VERSION: u8 = 1;

/// Version and checksum.
const HEADER_BYTES: usize = 5;

/// A set of numbers, reduced to what quantiles need.
#[derive(Clone)]
pub struct Sketch(DDSketch);

/// Why bytes are no sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SketchError {
    /// Shorter than a header.
    Short,
    /// Another format; the byte found.
    Version(u8),
    /// The bytes are damaged.
    Damaged,
}

impl std::fmt::Display for SketchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("sketch is cut short"),
            Self::Version(found) => write!(f, "sketch has format {found}, known is {FORMAT_VERSION}"),
            Self::Damaged => f.write_str("sketch is damaged"),
        }
    }
}

impl std::error::Error for SketchError {}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sketch")
            .field("count", &self.count())
            .field("sum", &self.sum())
            .field("p50", &self.quantile(0.5))
            .finish()
    }
}

impl Sketch {
    /// An empty sketch.
    pub fn new() -> Self {
        Self(DDSketch::new(Config::defaults()))
    }

    /// Adds one number; NaN is not a number and is left out.
    pub fn add(&mut self, value: f64) {
        if let Some(value) = storable(value) {
            self.0.add(value);
        }
    }

    /// Adds everything that the other holds.
    pub fn merge(&mut self, other: &Sketch) {
        let merged = self.0.merge(&other.0);
        debug_assert!(merged.is_ok(), "every sketch has the same configuration");
    }

    /// The value below which the share `q` (0 to 1, else clamped) of the numbers lies; none while empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let q = if q.is_nan() { 0.5 } else { q.clamp(0.0, 1.0) };
        let value = self.0.quantile(q).ok().flatten()?;
        Some(value.clamp(self.0.min()?, self.0.max()?))
    }

    /// How many numbers it holds.
    pub fn count(&self) -> u64 {
        self.0.count() as u64
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.0.sum().unwrap_or(0.0)
    }

    /// Their mean; none while empty.
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum() / self.count() as f64)
    }

    /// The smallest; none while empty.
    pub fn min(&self) -> Option<f64> {
        self.0.min()
    }

    /// The largest; none while empty.
    pub fn max(&self) -> Option<f64> {
        self.0.max()
    }

    /// Bytes for the database: version, FNV-1a checksum of the rest (little endian), then DataDog's
    /// portable encoding (sketches-java, `DDSketchWithExactSummaryStatistics`), which other tools read too.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.0.to_java_bytes();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.push(FORMAT_VERSION);
        bytes.extend_from_slice(&checksum(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads what [`Sketch::to_bytes`] wrote. The checksum is looked at first: damaged bytes never reach the decoder.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut own = Self::new();
        own.merge_bytes(bytes)?;
        Ok(own)
    }

    /// Adds everything that a stored sketch holds: half the work of reading it first.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), SketchError> {
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(SketchError::Short);
        };
        if header[0] != FORMAT_VERSION {
            return Err(SketchError::Version(header[0]));
        }
        if header[1..] != checksum(body).to_le_bytes() {
            return Err(SketchError::Damaged);
        }
        let inner = DDSketch::from_java_bytes(body).map_err(|_| SketchError::Damaged)?;
        // Merging takes only sketches of one configuration, and the decoder derives it from the bytes.
        self.0.merge(&inner).map_err(|_| SketchError::Damaged)
    }
}

/// The number as the sketch keeps it; none for NaN.
fn storable(value: f64) -> Option<f64> {
    if value.is_nan() {
        return None;
    }
    if value.abs() < MAGNITUDE_MIN {
        return Some(0.0);
    }
    Some(value.clamp(-MAGNITUDE_MAX, MAGNITUDE_MAX))
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::new();
        for &value in values {
            sketch.add(value);
        }
        sketch
    }

    fn merged(parts: &[&Sketch]) -> Sketch {
        let mut all = Sketch::new();
        for part in parts {
            all.merge(part);
        }
        all
    }

    fn check_same(a: &Sketch, b: &Sketch) {
        assert_eq!(a.count(), b.count());
        assert!((a.sum() - b.sum()).abs() <= 1e-9 * (1.0 + a.sum().abs().max(b.sum().abs())) * 1e3);
        for q in [0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0] {
            assert_eq!(a.quantile(q), b.quantile(q), "q {q}");
        }
    }

    /// What the sketch claims to approximate: the element at rank floor(q * (n - 1)).
    fn exact(values: &[f64], q: f64) -> f64 {
        let mut sorted: Vec<f64> = values.iter().filter_map(|v| storable(*v)).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[(q * (sorted.len() as f64 - 1.0)) as usize]
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => 0.0f64..1e7,
            2 => (-3.0f64..14.0).prop_map(|e| 10f64.powf(e)),
            1 => (-3.0f64..14.0).prop_map(|e| -(10f64.powf(e))),
            1 => Just(0.0),
            1 => proptest::num::f64::ANY,
        ]
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(values in prop::collection::vec(value(), 1..400), q in 0.0f64..=1.0) {
            let kept: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
            prop_assume!(!kept.is_empty());
            let got = of(&values).quantile(q).unwrap();
            let want = exact(&kept, q);
            prop_assert!((got - want).abs() <= want.abs() * (RELATIVE_ERROR + 1e-9), "q {q}: {got} for {want}");
        }

        #[test]
        fn merge_is_exact_commutative_and_associative(
            a in prop::collection::vec(value(), 0..100),
            b in prop::collection::vec(value(), 0..100),
            c in prop::collection::vec(value(), 0..100),
        ) {
            let (x, y, z) = (of(&a), of(&b), of(&c));
            let whole = of(&[a, b, c].concat());
            check_same(&whole, &merged(&[&x, &y, &z]));
            check_same(&whole, &merged(&[&z, &x, &y]));
            check_same(&whole, &merged(&[&x, &merged(&[&y, &z])]));
        }

        #[test]
        fn bytes_round_trip_and_merge_on(a in prop::collection::vec(value(), 0..200), b in prop::collection::vec(value(), 0..50)) {
            let (x, y) = (of(&a), of(&b));
            let back = Sketch::from_bytes(&x.to_bytes()).unwrap();
            check_same(&x, &back);
            check_same(&merged(&[&x, &y]), &merged(&[&back, &y]));
            let mut stored = y.clone();
            stored.merge_bytes(&x.to_bytes()).unwrap();
            check_same(&merged(&[&x, &y]), &stored);
            prop_assert_eq!(back.to_bytes(), x.to_bytes());
        }

        #[test]
        fn damaged_bytes_are_refused_and_never_panic(a in prop::collection::vec(value(), 0..50), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = of(&a).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Sketch::from_bytes(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Sketch::from_bytes(&bytes);
        }
    }

    #[test]
    fn an_empty_sketch_has_no_quantile_and_survives_bytes() {
        let empty = Sketch::new();
        assert_eq!(empty.quantile(0.5), None);
        assert_eq!(empty.mean(), None);
        let back = Sketch::from_bytes(&empty.to_bytes()).unwrap();
        assert_eq!((back.count(), back.sum()), (0, 0.0));
        assert_eq!(Sketch::from_bytes(&[]).unwrap_err(), SketchError::Short);
        assert_eq!(Sketch::from_bytes(&[9, 0, 0, 0, 0]).unwrap_err(), SketchError::Version(9));
    }

    #[test]
    fn zero_negative_and_the_ends_are_kept() {
        let sketch = of(&[-10.0, 0.0, 0.0, 10.0, f64::NAN, f64::INFINITY]);
        assert_eq!(sketch.count(), 5);
        assert_eq!(sketch.quantile(0.0), Some(-10.0));
        assert_eq!(sketch.quantile(0.5), Some(0.0));
        assert_eq!(sketch.quantile(1.0), Some(MAGNITUDE_MAX));
    }

    #[test]
    fn the_whole_range_fits_without_collapsing() {
        let mut sketch = of(&[MAGNITUDE_MIN, MAGNITUDE_MAX]);
        let mut value = MAGNITUDE_MIN;
        while value < MAGNITUDE_MAX {
            sketch.add(value);
            value *= 1.05;
        }
        let low = sketch.quantile(0.01).unwrap();
        assert!(low < 1e-2, "{low}");
        assert!(sketch.to_bytes().len() < 4096, "{}", sketch.to_bytes().len());
    }
}
