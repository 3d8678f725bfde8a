//! What a session has in the aggregates, as it is kept beside its digest, so that it can be taken out again exactly.
//!
//! The bytes: a version, the number of entries, then each entry: kind, key, hour, its counters and its histogram, all
//! numbers as LEB128 (zigzag where they can be below zero). Keys are rows of `digest_keys`.

use std::cmp::Ordering;

use taffrail_analytics::digest::{HOUR_MS, Histogram, Kind};

/// The bytes begin with this.
const FORMAT_VERSION: u8 = 1;

/// One key's figures in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Its row in `digest_keys`.
    pub(crate) key: i64,
    /// The start of the hour.
    pub(crate) hour_ms: i64,
    /// In the order of [`Kind::counters`].
    pub(crate) counters: Vec<i64>,
    pub(crate) histogram: Histogram,
}

impl Entry {
    const fn place(&self) -> (i64, i64) {
        (self.key, self.hour_ms)
    }

    fn add(&mut self, other: &Self) {
        add_counters(&mut self.counters, &other.counters, 1);
        self.histogram.add(&other.histogram);
    }

    pub(crate) fn negated(&self) -> Self {
        let mut gone = Self { counters: Vec::new(), histogram: Histogram::default(), ..self.clone() };
        add_counters(&mut gone.counters, &self.counters, -1);
        gone.histogram.subtract(&self.histogram);
        gone
    }

    fn is_zero(&self) -> bool {
        self.histogram.is_empty() && self.counters.iter().all(|value| *value == 0)
    }
}

/// Adds the other's counters, `by` times; sums wrap around, so that taking away what was added is always exact.
pub(crate) fn add_counters(sum: &mut Vec<i64>, other: &[i64], by: i64) {
    if sum.len() < other.len() {
        sum.resize(other.len(), 0);
    }
    for (sum, value) in sum.iter_mut().zip(other) {
        *sum = sum.wrapping_add(value.wrapping_mul(by));
    }
}

/// Sorts by (key, hour) and makes doubles one.
pub(crate) fn settle(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(Entry::place);
    let mut settled: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match settled.last_mut() {
            Some(last) if last.place() == entry.place() => last.add(&entry),
            _ => settled.push(entry),
        }
    }
    settled.retain(|entry| !entry.is_zero());
    settled
}

/// What must be added where `old` stands so that `new` stands there. Both are settled.
pub(crate) fn difference(new: &[Entry], old: &[Entry]) -> Vec<Entry> {
    let (mut new, mut old) = (new.iter().peekable(), old.iter().peekable());
    let mut delta = Vec::new();
    loop {
        let order = match (new.peek(), old.peek()) {
            (None, None) => return delta,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.place().cmp(&b.place()),
        };
        let come = if order == Ordering::Greater { None } else { new.next() };
        let gone = if order == Ordering::Less { None } else { old.next() };
        let change = match (come, gone) {
            (Some(come), Some(gone)) => {
                let mut change = gone.negated();
                change.add(come);
                change
            }
            (Some(come), None) => come.clone(),
            (None, Some(gone)) => gone.negated(),
            (None, None) => return delta,
        };
        if !change.is_zero() {
            delta.push(change);
        }
    }
}

/// As bytes.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![FORMAT_VERSION];
    write(&mut bytes, entries.len() as u64);
    for entry in entries {
        bytes.push(entry.kind as u8);
        write_signed(&mut bytes, entry.key);
        write_signed(&mut bytes, entry.hour_ms.div_euclid(HOUR_MS));
        write(&mut bytes, entry.counters.len() as u64);
        entry.counters.iter().for_each(|value| write_signed(&mut bytes, *value));
        let histogram = entry.histogram.to_bytes();
        write(&mut bytes, histogram.len() as u64);
        bytes.extend_from_slice(&histogram);
    }
    bytes
}

/// Reads what [`encode`] wrote; none where the bytes are something else.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != FORMAT_VERSION {
        return None;
    }
    let rest = &mut rest;
    let count = read(rest)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (number, behind) = rest.split_first()?;
        *rest = behind;
        let kind = Kind::from_number(*number)?;
        let key = read_signed(rest)?;
        let hour_ms = read_signed(rest)?.checked_mul(HOUR_MS)?;
        let counters = (0..read(rest)?).map(|_| read_signed(rest)).collect::<Option<Vec<i64>>>()?;
        let length = usize::try_from(read(rest)?).ok()?;
        let (histogram, behind) = rest.split_at_checked(length)?;
        let histogram = Histogram::from_bytes(histogram).ok()?;
        *rest = behind;
        entries.push(Entry { kind, key, hour_ms, counters, histogram });
    }
    rest.is_empty().then_some(entries)
}

fn write(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

fn write_signed(bytes: &mut Vec<u8>, value: i64) {
    write(bytes, (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
}

fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = bytes.split_first()?;
        *bytes = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn read_signed(bytes: &mut &[u8]) -> Option<i64> {
    let value = read(bytes)?;
    Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
        let counters = prop::collection::vec(prop_oneof![-3..4i64, any::<i64>()], 0..4);
        let one = (0..15usize, -2..5i64, -2..3i64, counters, prop::collection::vec(0..900i64, 0..3));
        let entry = one.prop_map(|(kind, key, hour, counters, values)| {
            let mut histogram = Histogram::default();
            values.into_iter().for_each(|value| histogram.record(value));
            Entry { kind: Kind::ALL[kind], key, hour_ms: hour * HOUR_MS, counters, histogram }
        });
        prop::collection::vec(entry, 0..20).prop_map(settle)
    }

    type Sums = BTreeMap<(i64, i64), (Vec<i64>, Histogram)>;

    fn sums(parts: &[&[Entry]]) -> Sums {
        let mut sums = Sums::new();
        for entry in parts.iter().copied().flatten() {
            let (counters, histogram) = sums.entry(entry.place()).or_default();
            add_counters(counters, &entry.counters, 1);
            histogram.add(&entry.histogram);
        }
        for (counters, _) in sums.values_mut() {
            while counters.last() == Some(&0) {
                counters.pop();
            }
        }
        sums.retain(|_, (counters, histogram)| !counters.is_empty() || !histogram.is_empty());
        sums
    }

    proptest! {
        #[test]
        fn bytes_come_back(entries in any_entries()) {
            prop_assert_eq!(decode(&encode(&entries)).unwrap(), entries);
        }

        #[test]
        fn other_bytes_are_refused_and_harm_nothing(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(entries) = decode(&bytes) {
                prop_assert!(entries.len() <= bytes.len());
            }
        }

        #[test]
        fn cut_bytes_are_refused(entries in any_entries(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&entries);
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), None);
        }

        #[test]
        fn what_stands_plus_the_difference_is_the_new(old in any_entries(), new in any_entries()) {
            prop_assert_eq!(sums(&[&old, &difference(&new, &old)]), sums(&[&new]));
            prop_assert_eq!(difference(&new, &new), Vec::new());
        }
    }
}
