//! Newtypes for ids and units, each with one validating constructor.
//!
//! Limits: identifiers that come from outside are cut at [`ID_MAX_BYTES`]; a row id holds
//! [`ROWS_PER_MS`] events a millisecond and stays below 2^53 until the year 2089, so that
//! JavaScript reads it exactly.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The longest identifier kept of an outside source, in bytes; the rest is replaced by its hash.
pub const ID_MAX_BYTES: usize = 256;

/// How many events one millisecond of row ids has room for; more spill into the next one.
pub const ROWS_PER_MS: i64 = 1 << 12;

/// Row ids count from 2020-01-01T00:00:00Z, in milliseconds since the Unix epoch.
pub const ROW_ID_EPOCH_MS: i64 = 1_577_836_800_000;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimestampMs(i64);

impl TimestampMs {
    /// The first instant a row id can express.
    pub const MIN: Self = Self(ROW_ID_EPOCH_MS);
    /// The last instant a row id can express (2089).
    pub const MAX: Self = Self(ROW_ID_EPOCH_MS + (1 << 41) - 1);

    /// Takes any number of milliseconds and clamps it into what a row id can express.
    pub fn clamped(ms: i64) -> Self {
        Self(ms.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// The integer primary key of an event: time-ordered, and exact in JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowId(pub i64);

impl RowId {
    /// The smallest id of that millisecond.
    pub fn first_of(ts: TimestampMs) -> Self {
        Self((ts.get() - ROW_ID_EPOCH_MS) * ROWS_PER_MS)
    }

    /// The millisecond this id lies in.
    pub fn ts(self) -> TimestampMs {
        TimestampMs::clamped(self.0.div_euclid(ROWS_PER_MS) + ROW_ID_EPOCH_MS)
    }
}

/// The id one delivery of an event carries through the house: a UUID, version 7 where it
/// was minted at capture, a name-based one where it was derived from recorded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// Wraps a UUID minted elsewhere.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// A stable id for recorded bytes that carry none: the same parts give the same id.
    /// Layout: UUID version 8 (RFC 9562) over the first 16 bytes of SHA-256.
    pub fn derived(parts: &[&[u8]]) -> Self {
        let digest = hash_parts(parts);
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl std::str::FromStr for EventId {
    type Err = uuid::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(s).map(Self)
    }
}

/// What makes two deliveries the same event: unique in the store.
///
/// The first six bytes are of the session, so that one session's keys lie together in the index;
/// the other ten are of the fact itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DedupKey(pub [u8; 16]);

impl DedupKey {
    /// The key of a tool fact: (session, agent, tool use, kind), whoever delivered it.
    pub fn of_tool_fact(session_id: &str, agent_id: Option<&str>, tool_use_id: &str, kind: &str) -> Self {
        let agent = agent_id.unwrap_or("");
        let fact = [b"tool".as_slice(), agent.as_bytes(), tool_use_id.as_bytes(), kind.as_bytes()];
        Self::of(session_id, &fact)
    }

    /// The key of every other fact: the id its delivery was stamped with.
    pub fn of_delivery(session_id: &str, event_id: EventId) -> Self {
        Self::of(session_id, &[b"id".as_slice(), event_id.uuid().as_bytes()])
    }

    fn of(session_id: &str, fact: &[&[u8]]) -> Self {
        let session = hash_parts(&[session_id.as_bytes()]);
        let mut parts = vec![session_id.as_bytes()];
        parts.extend_from_slice(fact);
        let fact = hash_parts(&parts);
        let mut key = [0u8; 16];
        key[..6].copy_from_slice(&session[..6]);
        key[6..].copy_from_slice(&fact[..10]);
        Self(key)
    }
}

/// SHA-256 over length-prefixed parts, so that ("ab", "c") and ("a", "bc") differ.
pub fn hash_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// An identifier as an outside source gave it, cut at [`ID_MAX_BYTES`]: a longer one keeps its head
/// and gets a hash of the whole, so that two long ones stay two.
pub fn bounded_id(raw: &str) -> String {
    if raw.len() <= ID_MAX_BYTES {
        return raw.to_owned();
    }
    let digest = hash_parts(&[raw.as_bytes()]);
    let mut head = ID_MAX_BYTES - 17;
    while !raw.is_char_boundary(head) {
        head -= 1;
    }
    let hex: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("{}#{hex}", &raw[..head])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_ids_are_time_ordered_and_exact_in_javascript() {
        let last = RowId::first_of(TimestampMs::MAX).0 + ROWS_PER_MS - 1;
        assert_eq!(last, (1i64 << 53) - 1);
        let ts = TimestampMs::clamped(1_795_333_438_402);
        assert_eq!(RowId(RowId::first_of(ts).0 + 4095).ts(), ts);
        assert!(RowId::first_of(ts).0 + 4095 < RowId::first_of(TimestampMs::clamped(ts.get() + 1)).0);
    }

    #[test]
    fn the_same_fact_has_one_key_and_another_kind_has_another() {
        let pre = DedupKey::of_tool_fact("s", None, "toolu_1", "PreToolUse");
        assert_eq!(pre, DedupKey::of_tool_fact("s", None, "toolu_1", "PreToolUse"));
        assert_ne!(pre, DedupKey::of_tool_fact("s", None, "toolu_1", "PostToolUse"));
        assert_ne!(pre, DedupKey::of_tool_fact("s", Some("a"), "toolu_1", "PreToolUse"));
        assert_eq!(pre.0[..6], DedupKey::of_tool_fact("s", None, "toolu_2", "Stop").0[..6]);
    }

    #[test]
    fn long_ids_stay_distinct() {
        let a = "é".repeat(400);
        let b = format!("{}x", "é".repeat(400));
        assert!(bounded_id(&a).len() <= ID_MAX_BYTES);
        assert_ne!(bounded_id(&a), bounded_id(&b));
    }
}
