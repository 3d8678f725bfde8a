//! The keys by which requests are found: eight bytes made of an id.
//!
//! An index of numbers is a third of the size of one of texts, and comparing them is cheap. A key is no proof: the text of
//! the row decides. Where two ids have the same key, the row that came second has none, and its id stands in
//! `api_request_ids`, as further ids of a request do.

use std::hash::{BuildHasherDefault, Hasher};

/// What the vendor's request ids begin with. A time follows, so that in the order of the texts neighbours in time are
/// neighbours, and a transaction touches few pages of the index.
const TIMED: &str = "req_01";
/// Characters after it that the key keeps in their order: a seventh of a second.
const TIMED_CHARS: usize = 7;
const TIMED_CHAR_BITS: u32 = 6;
/// Shorter ids with that begin are somebody else's.
const TIMED_MIN_BYTES: usize = 20;

/// The key of an id.
pub(crate) fn key_of(id: &str) -> i64 {
    let hash = hash_of(id);
    let key = ordered(id).map_or(hash, |(order, bits)| order << (u64::BITS - bits) | hash >> bits);
    // Half of what tests use shares a few keys, so that every property holds for ids that collide.
    #[cfg(test)]
    let key = if key & 1 == 0 { key & 0x2 } else { key };
    key as i64
}

/// FNV-1a, and the last step of `MurmurHash3`, so that every bit counts. It is stored: it never changes.
pub(crate) fn hash_of(id: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// What decides the order of an id of the vendor's form, and its bits.
fn ordered(id: &str) -> Option<(u64, u32)> {
    let rest = id.strip_prefix(TIMED).filter(|_| id.len() >= TIMED_MIN_BYTES)?;
    let mut order = 0;
    for byte in rest.bytes().take(TIMED_CHARS) {
        let place = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        order = order << TIMED_CHAR_BITS | u64::from(place);
    }
    Some((order, TIMED_CHAR_BITS * TIMED_CHARS as u32))
}

/// For maps by keys.
pub(crate) type ByKey = BuildHasherDefault<KeyHasher>;

/// Keys are hashes; only those of timed ids must be spread.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_i64(i64::from(*byte));
        }
    }

    fn write_i64(&mut self, key: i64) {
        let spread = (self.0 ^ key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ spread >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_vendor_keep_their_order_in_time() {
        let order = |id| ordered(id).map(|(order, _)| order);
        let early = order("req_011CPzYuqyBehXVMovbsLhUW");
        let late = order("req_011CYYVWPLSSdRaAXEHa7X8E");
        assert!(early.is_some() && early < late);
        assert!(late < order("req_011CYYW00000000000000000"));
        assert_eq!(order("req_011CPzYuqyBehXVMovbsLhUW"), order("req_011CPzYuq00000000000000"));
        for other in ["req_1", "msg_01PzYuqyBehXVMovbsLhUW", "req_01-CPzYuqyBehXVMovbsLhUW", ""] {
            assert_eq!(order(other), None, "{other}");
        }
    }

    #[test]
    fn ids_of_the_property_tests_collide_and_others_do_not() {
        for kind in ["msg", "req"] {
            let mut keys: Vec<i64> = (0..7).map(|n| key_of(&format!("{kind}_{n}"))).collect();
            keys.sort_unstable();
            keys.dedup();
            assert!((2..7).contains(&keys.len()), "{kind}: {keys:?}");
        }
    }

    #[test]
    fn keys_stay_as_they_are_stored() {
        assert_eq!(hash_of(""), 0xefd0_1f60_ba99_2926);
        assert_ne!(hash_of("a"), hash_of("b"));
    }
}
