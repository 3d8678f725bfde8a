//! Ids for recorded events that carry none: what is recorded, and how many of the same stood before it.
//!
//! Memory is bounded: after [`EPOCH_FACTS`] distinct facts counting starts anew under the next epoch, which happens at
//! the same place on every run over the same beginning.

use std::collections::HashMap;

use taffrail_event::EventId;

/// Distinct facts counted before counting starts anew; about 40 MB.
const EPOCH_FACTS: usize = 1 << 20;

/// Hands out the ids of one recording, in its order.
pub(crate) struct Identity {
    kind: &'static [u8],
    lineage: Option<[u8; 32]>,
    epoch: u64,
    seen: HashMap<[u8; 16], u32>,
}

impl Identity {
    /// For a file: its first fact tells it from other files, and a grown version has the same.
    pub(crate) fn of_file() -> Self {
        Self::new(b"import hooks", None)
    }

    /// For rows that say enough by themselves, whichever copy of the table they stand in.
    pub(crate) fn of_rows() -> Self {
        Self::new(b"import disler", Some([0; 32]))
    }

    fn new(kind: &'static [u8], lineage: Option<[u8; 32]>) -> Self {
        Self { kind, lineage, epoch: 0, seen: HashMap::new() }
    }

    /// The id of the next fact, given by its hash.
    pub(crate) fn of(&mut self, fact: &[u8; 32]) -> EventId {
        let lineage = *self.lineage.get_or_insert(*fact);
        if self.seen.len() >= EPOCH_FACTS {
            self.seen.clear();
            self.epoch += 1;
        }
        let mut key = [0u8; 16];
        key.copy_from_slice(&fact[..16]);
        let occurrence = self.seen.entry(key).or_insert(0);
        *occurrence += 1;
        EventId::derived(&[self.kind, &lineage, &self.epoch.to_le_bytes(), fact, &occurrence.to_le_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(mut identity: Identity, facts: &[u8]) -> Vec<EventId> {
        facts.iter().map(|fact| identity.of(&[*fact; 32])).collect()
    }

    #[test]
    fn a_grown_file_has_the_same_ids_and_equal_payloads_have_their_own() {
        let short = ids(Identity::of_file(), &[1, 2, 2]);
        assert_eq!(ids(Identity::of_file(), &[1, 2, 2, 1])[..3], short);
        assert_ne!(short[1], short[2]);
        assert_ne!(ids(Identity::of_file(), &[3, 2])[1], short[1]);
    }

    #[test]
    fn a_row_is_the_same_in_every_copy_of_its_table() {
        assert_eq!(ids(Identity::of_rows(), &[1, 2])[1], ids(Identity::of_rows(), &[2])[0]);
    }
}
