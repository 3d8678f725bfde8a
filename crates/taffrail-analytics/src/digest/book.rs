//! Where the analyses put their contributions, and how these are cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::contribution::{Contribution, Key, Kind, OTHER};
use super::histogram::Histogram;
use super::view::{bounded, hour_of};
use super::{Cut, KEY_MAX_BYTES, Limits, TOOL_MAX_BYTES};

/// Place of `sessions` among the counters of every kind.
const SESSIONS: usize = 1;

#[derive(Default)]
pub(crate) struct Book {
    places: HashMap<Key, usize>,
    entries: Vec<Entry>,
}

struct Entry {
    key: Key,
    label: String,
    cells: BTreeMap<i64, Cell>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) counters: Vec<i64>,
    pub(crate) histogram: Histogram,
}

/// A key of a [`Book`].
#[derive(Clone, Copy)]
pub(crate) struct Place(usize);

impl Book {
    /// The place of a key; its parts are cut here.
    pub(crate) fn key(&mut self, kind: Kind, tool: &str, name: &str, detail: &str, label: &str) -> Place {
        let key = Key {
            kind,
            tool: bounded(tool, TOOL_MAX_BYTES),
            name: bounded(name, KEY_MAX_BYTES),
            detail: bounded(detail, KEY_MAX_BYTES),
        };
        if let Some(&place) = self.places.get(&key) {
            return Place(place);
        }
        self.places.insert(key.clone(), self.entries.len());
        self.entries.push(Entry { key, label: super::view::label(label), cells: BTreeMap::new() });
        Place(self.entries.len() - 1)
    }

    /// The cell of a key in the hour of that time.
    pub(crate) fn cell(&mut self, place: Place, at_ms: i64) -> &mut Cell {
        let entry = &mut self.entries[place.0];
        let counters = entry.key.kind.counters().len();
        entry
            .cells
            .entry(hour_of(at_ms))
            .or_insert_with(|| Cell { counters: vec![0; counters], histogram: Histogram::default() })
    }

    /// Adds to one counter.
    pub(crate) fn add(&mut self, place: Place, at_ms: i64, slot: usize, by: i64) {
        self.cell(place, at_ms).add(slot, by);
    }

    /// The contributions by (key, hour), within the limits.
    pub(crate) fn finish(mut self, limits: &Limits, cut: &mut Cut) -> Vec<Contribution> {
        self.merge_hours(limits.hours.max(1), cut);
        let mut by_kind: BTreeMap<Kind, Vec<(i64, Entry)>> = BTreeMap::new();
        for entry in self.entries {
            by_kind.entry(entry.key.kind).or_default().push((entry.weight(), entry));
        }
        let mut contributions = Vec::new();
        for mut own in by_kind.into_values() {
            own.sort_unstable_by(|(a_weight, a), (b_weight, b)| {
                b_weight.cmp(a_weight).then_with(|| a.key.cmp(&b.key))
            });
            let mut kept: Vec<Entry> = Vec::new();
            let mut others: BTreeMap<Key, Entry> = BTreeMap::new();
            let mut rows = 0;
            for (_, entry) in own {
                // What an analysis left out itself takes nobody's place.
                let is_other = entry.key.name == OTHER;
                rows += if is_other { 0 } else { entry.cells.len() };
                if is_other || kept.len() >= limits.keys || rows > limits.rows {
                    cut.keys += u64::from(!is_other);
                    let key = other(&entry.key);
                    let empty = || Entry { key: key.clone(), label: String::new(), cells: BTreeMap::new() };
                    others.entry(key.clone()).or_insert_with(empty).add(entry);
                } else {
                    kept.push(entry);
                }
            }
            kept.extend(others.into_values());
            kept.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            contributions.extend(kept.into_iter().flat_map(Entry::contributions));
        }
        contributions
    }

    /// Leaves the fullest hours, and counts every other in the nearest of them.
    fn merge_hours(&mut self, max: usize, cut: &mut Cut) {
        let mut filled: BTreeMap<i64, u64> = BTreeMap::new();
        for entry in &self.entries {
            for hour in entry.cells.keys() {
                *filled.entry(*hour).or_default() += 1;
            }
        }
        if filled.len() <= max {
            return;
        }
        cut.hours += (filled.len() - max) as u64;
        let mut ranked: Vec<(u64, i64)> = filled.iter().map(|(hour, cells)| (*cells, *hour)).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        let kept: BTreeSet<i64> = ranked[..max].iter().map(|(_, hour)| *hour).collect();
        for entry in &mut self.entries {
            for (hour, cell) in std::mem::take(&mut entry.cells) {
                entry.cells.entry(nearest(&kept, hour)).or_default().merge(&cell);
            }
        }
    }
}

fn nearest(kept: &BTreeSet<i64>, hour: i64) -> i64 {
    let before = kept.range(..=hour).next_back();
    let after = kept.range(hour..).next();
    match (before, after) {
        (Some(&before), Some(&after)) if hour - before <= after - hour => before,
        (_, Some(&after)) => after,
        (Some(&before), None) => before,
        (None, None) => hour,
    }
}

/// Where a key that is left out is counted; a chain stays among those of its length.
fn other(key: &Key) -> Key {
    let detail = if key.kind == Kind::Chain { key.detail.clone() } else { String::new() };
    Key { kind: key.kind, tool: String::new(), name: OTHER.to_owned(), detail }
}

impl Cell {
    pub(crate) fn add(&mut self, slot: usize, by: i64) {
        if let Some(counter) = self.counters.get_mut(slot) {
            *counter = counter.wrapping_add(by);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.counters.resize(self.counters.len().max(other.counters.len()), 0);
        for (sum, value) in self.counters.iter_mut().zip(&other.counters) {
            *sum = sum.wrapping_add(*value);
        }
        self.histogram.add(&other.histogram);
    }

    fn is_zero(&self) -> bool {
        self.histogram.is_empty() && self.counters.iter().all(|value| *value == 0)
    }
}

impl Entry {
    fn weight(&self) -> i64 {
        self.cells.values().fold(0, |sum, cell| sum.wrapping_add(cell.counters[0]))
    }

    fn add(&mut self, other: Self) {
        for (hour, cell) in other.cells {
            self.cells.entry(hour).or_default().merge(&cell);
        }
    }

    fn contributions(mut self) -> impl Iterator<Item = Contribution> {
        self.cells.retain(|_, cell| !cell.is_zero());
        if let Some(mut last) = self.cells.last_entry() {
            last.get_mut().add(SESSIONS, 1);
        }
        self.cells.into_iter().map(move |(hour_ms, cell)| Contribution {
            hour_ms,
            key: self.key.clone(),
            label: self.label.clone(),
            counters: cell.counters,
            histogram: cell.histogram,
        })
    }
}
