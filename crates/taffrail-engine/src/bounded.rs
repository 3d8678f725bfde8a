//! Small maps that forget what was used longest ago. Linear in their capacity, which is small.

use std::collections::VecDeque;

/// At most `max` entries; the one used longest ago makes room.
#[derive(Clone, Debug)]
pub(crate) struct Lru<K, V> {
    /// The newest last.
    entries: VecDeque<(K, V)>,
    max: usize,
}

impl<K: PartialEq, V> Lru<K, V> {
    pub(crate) const fn new(max: usize) -> Self {
        Self { entries: VecDeque::new(), max }
    }

    /// The entry, made where it is new, and now the newest. Gives what had to go for it.
    pub(crate) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> (&mut V, Option<(K, V)>) {
        let found = self.entries.iter().rposition(|(known, _)| *known == key);
        let (entry, gone) = match found.and_then(|at| self.entries.remove(at)) {
            Some(entry) => (entry, None),
            None => {
                let gone = if self.entries.len() >= self.max { self.entries.pop_front() } else { None };
                ((key, make()), gone)
            }
        };
        self.entries.push_back(entry);
        let last = self.entries.len() - 1;
        (&mut self.entries[last].1, gone)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.iter_mut().rev().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.entries.iter().rposition(|(known, _)| known == key)?;
        self.entries.remove(at).map(|(_, value)| value)
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.entries.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.entries.retain(|(key, value)| keep(key, value));
    }

    /// Takes everything out, oldest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (K, V)> + '_ {
        self.entries.drain(..)
    }
}

/// The last `max` values, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Ring<T> {
    values: VecDeque<T>,
    max: usize,
}

impl<T> Ring<T> {
    pub(crate) const fn new(max: usize) -> Self {
        Self { values: VecDeque::new(), max }
    }

    pub(crate) fn push(&mut self, value: T) {
        if self.values.len() >= self.max {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    pub(crate) fn iter(&self) -> std::collections::vec_deque::Iter<'_, T> {
        self.values.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The value so many places before the newest (0 is the newest).
    pub(crate) fn back(&self, places: usize) -> Option<&T> {
        let at = self.values.len().checked_sub(places + 1)?;
        self.values.get(at)
    }

    pub(crate) fn first(&self) -> Option<&T> {
        self.values.front()
    }

    pub(crate) fn clear(&mut self) {
        self.values.clear();
    }

    /// Drops from the oldest on while it is to go.
    pub(crate) fn drop_while(&mut self, mut goes: impl FnMut(&T) -> bool) {
        while self.values.front().is_some_and(&mut goes) {
            self.values.pop_front();
        }
    }
}

/// FNV-1a over parts, each ended so that ("ab", "c") and ("a", "bc") differ: for keys inside one process.
pub(crate) fn key_of(parts: &[&[u8]]) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut lru = Lru::new(2);
        lru.entry(1, || 'a');
        lru.entry(2, || 'b');
        lru.entry(1, || 'x');
        let (_, gone) = lru.entry(3, || 'c');
        assert_eq!(gone, Some((2, 'b')));
        assert_eq!(lru.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>(), [(1, 'a'), (3, 'c')]);
    }

    #[test]
    fn a_ring_keeps_the_last() {
        let mut ring = Ring::new(3);
        for n in 0..5 {
            ring.push(n);
        }
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((ring.back(0), ring.back(2), ring.back(3)), (Some(&4), Some(&2), None));
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(key_of(&[b"ab", b"c"]), key_of(&[b"a", b"bc"]));
    }
}
