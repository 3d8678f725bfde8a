//! Of several copies of one entry one is kept, by ccusage's rules.
//!
//! A copy has the same message and request; without a request the same message and session. A sidechain repeats its
//! parent's messages under new requests: such a copy is found by message and session (for sessions and blocks only at the
//! same time). Of two copies the one that is no
//! sidechain stays, then the one with more tokens, by day then the dearer, then the one that says its speed; else the first.

use std::collections::HashMap;

use super::entry::{Entry, Key};
use super::line::Reader;

/// Entries without copies, in the order in which they first came.
#[derive(Debug)]
pub(super) struct Copies {
    reader: Reader,
    kept: Vec<Entry>,
    exact: HashMap<Key, u32>,
    replay: HashMap<Key, Few>,
}

/// Almost always one.
#[derive(Debug)]
enum Few {
    One(u32),
    Many(Vec<u32>),
}

impl Few {
    fn push(&mut self, index: u32) {
        match self {
            Self::One(one) if *one == index => {}
            Self::One(one) => *self = Self::Many(vec![*one, index]),
            Self::Many(many) if many.contains(&index) => {}
            Self::Many(many) => many.push(index),
        }
    }

    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Copies {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, kept: Vec::new(), exact: HashMap::new(), replay: HashMap::new() }
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.kept
    }

    pub(super) fn add(&mut self, entry: Entry) {
        let Some(identity) = entry.identity else {
            self.kept.push(entry);
            return;
        };
        let index = match self.copy_of(&entry) {
            Some(index) => {
                if self.is_better(&entry, &self.kept[index as usize]) {
                    self.kept[index as usize] = entry;
                    self.exact.insert(identity.exact, index);
                }
                index
            }
            None => {
                self.kept.push(entry);
                let index = u32::try_from(self.kept.len() - 1).unwrap_or(u32::MAX);
                self.exact.insert(identity.exact, index);
                index
            }
        };
        // Also a copy that is dropped lends its session: sidechains of both sessions find what is kept.
        self.replay.entry(identity.replay).and_modify(|few| few.push(index)).or_insert(Few::One(index));
    }

    /// What is kept of the same entry. What was replaced is still found under its old key, but no longer has it.
    fn copy_of(&self, entry: &Entry) -> Option<u32> {
        let identity = entry.identity?;
        let kept = |index: &u32| &self.kept[*index as usize];
        let exact = self.exact.get(&identity.exact).copied();
        if let Some(index) =
            exact.filter(|index| kept(index).identity.is_some_and(|i| i.exact == identity.exact))
        {
            return Some(index);
        }
        let replays = self.replay.get(&identity.replay)?.as_slice().iter();
        replays.copied().find(|index| {
            let kept = kept(index);
            (entry.sidechain || kept.sidechain) && (self.reader == Reader::Days || kept.at_ms == entry.at_ms)
        })
    }

    fn is_better(&self, new: &Entry, old: &Entry) -> bool {
        if new.sidechain != old.sidechain {
            return old.sidechain;
        }
        let (new_total, old_total) = (new.usage.total(), old.usage.total());
        if new_total != old_total {
            return new_total > old_total;
        }
        if self.reader == Reader::Days && new.cost != old.cost {
            return new.cost > old.cost;
        }
        new.usage.speed.is_some() && old.usage.speed.is_none()
    }
}
