//! Quantiles of durations and sizes in bounded space: a DDSketch (Masson, Rim, Lee 2019) with
//! [`RELATIVE_ERROR`], whose merge is exact, so that minutes add up to hours, and from which a number can be taken
//! back, so that a correction leaves no trace.
//!
//! The index is that of DataDog's `LogarithmicMapping`: bin `k` holds (gamma^k, gamma^(k+1)], gamma = 1.01 / 0.99.
//!
//! Limits: magnitudes under [`MAGNITUDE_MIN`] count as zero and those over [`MAGNITUDE_MAX`] as that
//! value. Between the two lie fewer than 2,000 bins, so none is ever collapsed: merging is commutative and associative
//! (the sum as long as it is made of integers below 2^53).

/// How far a quantile may be from the true one, as a share of the true one.
pub const RELATIVE_ERROR: f64 = 0.01;

/// Magnitudes below this count as zero.
pub const MAGNITUDE_MIN: f64 = 1e-3;

/// Magnitudes above this count as this (three thousand years in milliseconds, 90 TB in bytes).
pub const MAGNITUDE_MAX: f64 = 1e14;

const GAMMA: f64 = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);
/// ln(gamma); a test holds it against `GAMMA.ln()`.
const LN_GAMMA: f64 = 0.020_000_666_706_669_435;

/// Keys of [`MAGNITUDE_MIN`] and [`MAGNITUDE_MAX`], one beyond each.
const KEY_MIN: i32 = -347;
const KEY_MAX: i32 = 1_613;

/// The bytes begin with this.
const FORMAT_VERSION: u8 = 2;
/// What was written before: DataDog's portable encoding (sketches-java, `DDSketchWithExactSummaryStatistics`), which is
/// still read.
const FORMAT_JAVA: u8 = 1;

/// Version and checksum.
const HEADER_BYTES: usize = 5;

/// Zeros inside a run of counts that cost less than a run of their own.
const RUN_GAP_MAX: usize = 2;

/// A set of numbers, reduced to what quantiles need.
#[derive(Clone, Default)]
pub struct Sketch {
    positive: Bins,
    negative: Bins,
    zeros: u64,
    count: u64,
    sum: f64,
}

/// A number as a sketch keeps it: its bin is looked up once, for however many sketches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    place: Place,
    value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Positive(i32),
    Negative(i32),
    Zero,
}

impl Slot {
    /// The number's slot; NaN is not a number and has none.
    pub fn of(value: f64) -> Option<Self> {
        let value = storable(value)?;
        let key = |magnitude: f64| (magnitude.ln() / LN_GAMMA).floor() as i32;
        let place = if value > 0.0 {
            Place::Positive(key(value))
        } else if value < 0.0 {
            Place::Negative(key(-value))
        } else {
            Place::Zero
        };
        Some(Self { place, value })
    }
}

/// Numbers to put into a sketch and to take from it, in order, as bytes: what is to be done to a stored sketch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits(Vec<u8>);

/// Bytes of one edit: what and where, the key, the number.
const EDIT_BYTES: usize = 1 + 4 + 8;
const EDIT_PUT: u8 = 0;
const EDIT_TAKE: u8 = 1;

impl Edits {
    /// A number is put.
    pub fn put(&mut self, slot: Slot) {
        self.push(EDIT_PUT, slot);
    }

    /// A number is taken back.
    pub fn take(&mut self, slot: Slot) {
        self.push(EDIT_TAKE, slot);
    }

    fn push(&mut self, what: u8, slot: Slot) {
        let (place, key) = match slot.place {
            Place::Positive(key) => (0, key),
            Place::Negative(key) => (1, key),
            Place::Zero => (2, 0),
        };
        self.0.push(what | place << 1);
        self.0.extend_from_slice(&key.to_le_bytes());
        self.0.extend_from_slice(&slot.value.to_le_bytes());
    }

    /// And then these.
    pub fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For [`Sketch::edit`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Counts by key, dense between the lowest and the highest.
#[derive(Clone, Debug, Default)]
struct Bins {
    first: i32,
    counts: Vec<u64>,
}

impl Bins {
    /// The counts of `len` keys from `key` on, to be added to. Keys lie in `KEY_MIN..=KEY_MAX`.
    fn range(&mut self, key: i32, len: usize) -> &mut [u64] {
        debug_assert!(key >= KEY_MIN && len <= (KEY_MAX - KEY_MIN) as usize + 1);
        if self.counts.is_empty() {
            self.first = key;
        }
        if key < self.first {
            let missing = (self.first - key) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = key;
        }
        let at = (key - self.first) as usize;
        if self.counts.len() < at + len {
            self.counts.resize(at + len, 0);
        }
        &mut self.counts[at..at + len]
    }

    /// Takes one back where there is one.
    fn take(&mut self, key: i32) -> bool {
        let at = usize::try_from(i64::from(key) - i64::from(self.first)).ok();
        match at.and_then(|at| self.counts.get_mut(at)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        for (sum, count) in self.range(other.first, other.counts.len()).iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
    }

    fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The key of the number at that rank, by ascending key.
    fn key_at(&self, mut rank: u64) -> Option<i32> {
        for (key, count) in (self.first..).zip(&self.counts) {
            if rank < *count {
                return Some(key);
            }
            rank -= count;
        }
        None
    }

    /// Runs of counts without long gaps: how many, then for each the distance of its first key from the end of the last,
    /// its length and its counts.
    fn write(&self, out: &mut Vec<u8>) {
        let runs = self.runs();
        write_varint(out, runs.len() as u64);
        let mut end = 0i64;
        for (at, len) in runs {
            let key = i64::from(self.first) + at as i64;
            write_varint(out, zigzag(key - end));
            write_varint(out, len as u64);
            for count in &self.counts[at..at + len] {
                write_varint(out, *count);
            }
            end = key + len as i64;
        }
    }

    /// Place and length of each run.
    fn runs(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (at, _) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            match runs.last_mut() {
                Some((from, len)) if at - (*from + *len) <= RUN_GAP_MAX => *len = at + 1 - *from,
                _ => runs.push((at, 1)),
            }
        }
        runs
    }

    /// Adds what [`Bins::write`] wrote; how many numbers that is.
    fn merge_written(&mut self, input: &mut &[u8]) -> Result<u64, SketchError> {
        let runs = read_varint(input)?;
        let mut end = 0i64;
        let mut total = 0u64;
        for _ in 0..runs {
            let key = end.checked_add(unzigzag(read_varint(input)?)).ok_or(SketchError::Damaged)?;
            let len = read_varint(input)?;
            let room = i64::from(KEY_MAX) + 1 - key;
            if key < i64::from(KEY_MIN) || room < 0 || len > room as u64 {
                return Err(SketchError::Damaged);
            }
            for count in self.range(key as i32, len as usize) {
                let more = match input.split_first() {
                    Some((byte, rest)) if *byte < 0x80 => {
                        *input = rest;
                        u64::from(*byte)
                    }
                    _ => read_varint(input)?,
                };
                *count = count.saturating_add(more);
                total = total.saturating_add(more);
            }
            end = key + len as i64;
        }
        Ok(total)
    }
}

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
        Self::default()
    }

    /// Adds one number; NaN is not a number and is left out.
    pub fn add(&mut self, value: f64) {
        if let Some(slot) = Slot::of(value) {
            self.put(slot);
        }
    }

    /// Adds the number of a slot.
    pub fn put(&mut self, slot: Slot) {
        match slot.place {
            Place::Positive(key) => self.positive.range(key, 1)[0] += 1,
            Place::Negative(key) => self.negative.range(key, 1)[0] += 1,
            Place::Zero => self.zeros += 1,
        }
        self.count += 1;
        self.sum += slot.value;
    }

    /// Takes back a number that was put; false, and nothing changed, where no number like it is there.
    pub fn take(&mut self, slot: Slot) -> bool {
        let taken = match slot.place {
            Place::Positive(key) => self.positive.take(key),
            Place::Negative(key) => self.negative.take(key),
            Place::Zero => {
                let is_there = self.zeros > 0;
                self.zeros = self.zeros.saturating_sub(1);
                is_there
            }
        };
        if taken {
            self.count = self.count.saturating_sub(1);
            self.sum = if self.count == 0 { 0.0 } else { self.sum - slot.value };
        }
        taken
    }

    /// Does what [`Edits`] say; taking what is not there does nothing.
    pub fn edit(&mut self, edits: &[u8]) -> Result<(), SketchError> {
        for edit in edits.chunks(EDIT_BYTES) {
            let Some(([what], rest)) = edit.split_first_chunk::<1>() else {
                return Err(SketchError::Damaged);
            };
            let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Err(SketchError::Damaged) };
            let value = read_f64(&mut { rest })?;
            let key = i32::from_le_bytes(*key);
            let place = match what >> 1 {
                0 => Place::Positive(key),
                1 => Place::Negative(key),
                _ => Place::Zero,
            };
            if !(KEY_MIN..=KEY_MAX).contains(&key) {
                return Err(SketchError::Damaged);
            }
            let slot = Slot { place, value };
            if what & EDIT_TAKE == EDIT_PUT {
                self.put(slot);
            } else {
                self.take(slot);
            }
        }
        Ok(())
    }

    /// Adds everything that the other holds.
    pub fn merge(&mut self, other: &Sketch) {
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
    }

    /// The value below which the share `q` (0 to 1, else clamped) of the numbers lies: that at rank floor(q * (n - 1)),
    /// within [`RELATIVE_ERROR`]; none while empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let q = if q.is_nan() { 0.5 } else { q.clamp(0.0, 1.0) };
        let rank = (q * (self.count - 1) as f64) as u64;
        let negatives = self.negative.total();
        if rank < negatives {
            return self.negative.key_at(negatives - 1 - rank).map(|key| -value_of(key));
        }
        let rank = rank - negatives;
        if rank < self.zeros {
            return Some(0.0);
        }
        // The count of an old or mended sketch may be above that of its bins: its last bin then.
        let last = self.positive.total().saturating_sub(1);
        self.positive.key_at((rank - self.zeros).min(last)).map(value_of)
    }

    /// How many numbers it holds.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Their mean; none while empty.
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum() / self.count() as f64)
    }

    /// Bytes for the database: version, checksum of the rest (little endian), then zeros, sum, and the runs of
    /// the positive and the negative bins, integers as LEB128.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT_VERSION, 0, 0, 0, 0];
        write_varint(&mut bytes, self.zeros);
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        self.positive.write(&mut bytes);
        self.negative.write(&mut bytes);
        let checksum = checksum(&bytes[HEADER_BYTES..]);
        bytes[1..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads what [`Sketch::to_bytes`] wrote, now or in its former format. The checksum is looked at first.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut own = Self::new();
        own.merge_bytes(bytes)?;
        Ok(own)
    }

    /// Adds everything that a stored sketch holds, without making it first. After an error it may hold a part of it.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Result<(), SketchError> {
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(SketchError::Short);
        };
        let sums_up = |checksum: u32| header[1..] == checksum.to_le_bytes();
        match header[0] {
            FORMAT_VERSION if sums_up(checksum(body)) => self.merge_body(body),
            FORMAT_JAVA if sums_up(fnv1a(body)) => java::merge(self, body),
            FORMAT_VERSION | FORMAT_JAVA => Err(SketchError::Damaged),
            other => Err(SketchError::Version(other)),
        }
    }

    fn merge_body(&mut self, mut body: &[u8]) -> Result<(), SketchError> {
        let input = &mut body;
        let zeros = read_varint(input)?;
        let sum = read_f64(input)?;
        let positive = self.positive.merge_written(input)?;
        let negative = self.negative.merge_written(input)?;
        self.zeros = self.zeros.saturating_add(zeros);
        self.count = self.count.saturating_add(zeros).saturating_add(positive).saturating_add(negative);
        self.sum += sum;
        Ok(())
    }
}

/// What stands for every number of a bin: no more than [`RELATIVE_ERROR`] from any of them.
fn value_of(key: i32) -> f64 {
    (f64::from(key) * LN_GAMMA).exp() * (2.0 * GAMMA / (1.0 + GAMMA))
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

/// Eight bytes at a time, each step a bijection of the state, so that no single change goes unseen before the last fold.
fn checksum(bytes: &[u8]) -> u32 {
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = (state ^ u64::from_le_bytes(word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^= state >> 32;
    }
    (state >> 32) as u32
}

/// The checksum of the former format.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

const fn zigzag(value: i64) -> u64 {
    ((value >> 63) ^ (value << 1)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(input: &mut &[u8]) -> Result<u64, SketchError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = read_byte(input)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(SketchError::Damaged)
}

fn read_byte(input: &mut &[u8]) -> Result<u8, SketchError> {
    let (byte, rest) = input.split_first().ok_or(SketchError::Damaged)?;
    *input = rest;
    Ok(*byte)
}

fn read_f64(input: &mut &[u8]) -> Result<f64, SketchError> {
    let (bytes, rest) = input.split_first_chunk::<8>().ok_or(SketchError::Damaged)?;
    *input = rest;
    Ok(f64::from_le_bytes(*bytes))
}

/// The former format: DataDog's `DDSketchWithExactSummaryStatistics.encode`, as far as it was ever written here.
mod java {
    use super::{KEY_MAX, KEY_MIN, Sketch, SketchError, read_byte, read_f64, unzigzag};

    const MAPPING: u8 = 0x02;
    const ZEROS: u8 = 0x04;
    const COUNT: u8 = 0xa0;
    const SUM: u8 = 0x84;
    const MIN: u8 = 0x88;
    const MAX: u8 = 0x8c;
    /// A store as pairs of key distance and count.
    const POSITIVE: u8 = 0x05;
    const NEGATIVE: u8 = 0x07;

    pub(super) fn merge(sketch: &mut Sketch, mut body: &[u8]) -> Result<(), SketchError> {
        let input = &mut body;
        let mut read = Sketch::new();
        while !input.is_empty() {
            match read_byte(input)? {
                MAPPING => {
                    read_f64(input)?;
                    read_f64(input)?;
                }
                MIN | MAX => {
                    read_f64(input)?;
                }
                COUNT => {
                    read_var_double(input)?;
                }
                SUM => read.sum = read_f64(input)?,
                ZEROS => read.zeros = read_var_double(input)?,
                store @ (POSITIVE | NEGATIVE) => {
                    let bins = if store == POSITIVE { &mut read.positive } else { &mut read.negative };
                    let mut key = 0i64;
                    for _ in 0..read_var_long(input)? {
                        key = key.checked_add(unzigzag(read_var_long(input)?)).ok_or(SketchError::Damaged)?;
                        let count = read_var_double(input)?;
                        if !(i64::from(KEY_MIN)..=i64::from(KEY_MAX)).contains(&key) {
                            return Err(SketchError::Damaged);
                        }
                        bins.range(key as i32, 1)[0] += count;
                    }
                }
                _ => return Err(SketchError::Damaged),
            }
        }
        read.count = read.zeros + read.positive.total() + read.negative.total();
        sketch.merge(&read);
        Ok(())
    }

    /// As LEB128, but that the ninth byte has all of its bits.
    fn read_var_long(input: &mut &[u8]) -> Result<u64, SketchError> {
        let mut value = 0u64;
        for shift in (0..=56).step_by(7) {
            let byte = read_byte(input)?;
            if byte < 0x80 || shift == 56 {
                return Ok(value | (u64::from(byte) << shift));
            }
            value |= u64::from(byte & 0x7f) << shift;
        }
        Err(SketchError::Damaged)
    }

    /// A whole number below 2^52: its bits, turned so that small numbers are short.
    fn read_var_double(input: &mut &[u8]) -> Result<u64, SketchError> {
        let mut bits = 0u64;
        for shift in (1..=57).rev().step_by(7) {
            let byte = read_byte(input)?;
            if shift == 1 {
                bits |= u64::from(byte);
                break;
            }
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        let value = f64::from_bits(bits.rotate_right(6).wrapping_add(1f64.to_bits())) - 1.0;
        if (0.0..4.5e15).contains(&value) { Ok(value as u64) } else { Err(SketchError::Damaged) }
    }
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
        fn what_is_taken_back_leaves_no_trace(a in prop::collection::vec(0u32..9_000_000, 0..100), b in prop::collection::vec(0u32..9_000_000, 0..100)) {
            let numbers = |list: &[u32]| list.iter().map(|n| f64::from(*n)).collect::<Vec<_>>();
            let (a, b) = (numbers(&a), numbers(&b));
            let mut edits = Edits::default();
            a.iter().chain(&b).for_each(|value| edits.put(Slot::of(*value).unwrap()));
            let mut taken = Edits::default();
            b.iter().for_each(|value| taken.take(Slot::of(*value).unwrap()));
            edits.append(&taken);
            let mut edited = Sketch::new();
            edited.edit(edits.as_bytes()).unwrap();
            prop_assert_eq!(edited.to_bytes(), of(&a).to_bytes());
            let mut sketch = of(&[a.clone(), b.clone()].concat());
            for value in &b {
                prop_assert!(sketch.take(Slot::of(*value).unwrap()));
            }
            prop_assert_eq!(sketch.to_bytes(), of(&a).to_bytes());
            prop_assert!(!sketch.take(Slot::of(1e12).unwrap()));
            prop_assert_eq!(sketch.to_bytes(), of(&a).to_bytes());
        }

        #[test]
        fn agrees_with_the_published_implementation_and_reads_its_format(values in prop::collection::vec(value(), 1..300), q in 0.0f64..=1.0) {
            let mut other = sketches_ddsketch::DDSketch::new(sketches_ddsketch::Config::defaults());
            for value in values.iter().filter_map(|value| storable(*value)) {
                other.add(value);
            }
            prop_assume!(other.count() > 0);
            let body = other.to_java_bytes();
            let bytes = [&[FORMAT_JAVA][..], &fnv1a(&body).to_le_bytes(), &body].concat();
            let read = Sketch::from_bytes(&bytes).unwrap();
            check_same(&read, &of(&values));
            let theirs = other.quantile(q).unwrap().unwrap();
            let ours = read.quantile(q).unwrap();
            // At its ends theirs tells the number itself.
            let slack = if q == 0.0 || q == 1.0 { RELATIVE_ERROR } else { 1e-9 };
            prop_assert!((ours - theirs).abs() <= theirs.abs() * (slack + 1e-9), "q {}: {} for {}", q, ours, theirs);
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
        let near = |value: f64, wanted: f64| ((value - wanted) / wanted).abs() <= RELATIVE_ERROR + 1e-9;
        assert!(near(sketch.quantile(0.0).unwrap(), -10.0));
        assert_eq!(sketch.quantile(0.5), Some(0.0));
        assert!(near(sketch.quantile(1.0).unwrap(), MAGNITUDE_MAX));
    }

    #[test]
    fn the_constant_is_the_logarithm() {
        assert!((LN_GAMMA - GAMMA.ln()).abs() < 1e-17, "{:.20}", GAMMA.ln());
        for (value, bound) in [(MAGNITUDE_MIN, KEY_MIN), (MAGNITUDE_MAX, KEY_MAX)] {
            let Some(Slot { place: Place::Positive(key), .. }) = Slot::of(value) else { panic!("{value}") };
            assert!((KEY_MIN..=KEY_MAX).contains(&key) && (key - bound).abs() <= 2, "{value}: {key}");
        }
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
