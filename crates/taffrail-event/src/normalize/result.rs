//! What a tool gave back, as one number: two calls with the same hash had the same result.

use memchr::memmem;

use crate::ids::hash_parts;

/// Keys of figures that differ from call to call where the result does not.
const TIMINGS: [&[u8]; 3] = [b"urationMs\":", b"uration_ms\":", b"urationSeconds\":"];

/// First eight bytes of SHA-256 over the text of a result (JSON, or the text of an error), the digits after a key of
/// a duration left out. Linear in its length.
pub fn hash(text: &str) -> i64 {
    let bytes = text.as_bytes();
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(end) = next_timing(bytes, from) {
        parts.push(&bytes[from..end]);
        let digits = bytes[end..]
            .iter()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b' ' | b'-' | b'+' | b'e' | b'E'));
        from = end + digits.count();
    }
    parts.push(&bytes[from..]);
    let digest = hash_parts(&parts);
    let mut head = [0u8; 8];
    head.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(head)
}

/// Where the figure begins that follows the next key of a duration.
fn next_timing(bytes: &[u8], from: usize) -> Option<usize> {
    // Every such key has this in it, and few other bytes do.
    let mut at = from;
    while let Some(found) = memmem::find(&bytes[at..], b"uration") {
        let start = at + found;
        if let Some(key) = TIMINGS.iter().find(|key| bytes[start..].starts_with(key)) {
            return Some(start + key.len());
        }
        at = start + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn a_result_is_the_same_whatever_time_it_took() {
        let a = r#"{"durationMs":12,"filenames":["a"],"totalDurationMs": 3.5e2}"#;
        let b = r#"{"durationMs":7813,"filenames":["a"],"totalDurationMs": 9}"#;
        assert_eq!(hash(a), hash(b));
        assert_ne!(hash(a), hash(&a.replace("\"a\"", "\"b\"")));
    }

    #[test]
    fn other_text_counts_as_it_is() {
        assert_ne!(hash("Exit code 1"), hash("Exit code 2"));
        assert_ne!(hash(r#"{"duration":1}"#), hash(r#"{"duration":2}"#));
        assert_ne!(hash(""), hash(" "));
        assert_eq!(hash("uration"), hash("uration"));
    }
}
