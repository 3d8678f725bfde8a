//! The top-level fields of a payload, as slices of its text.
//!
//! Whole JSON is checked by the parser; of cut or too deeply nested text a tolerant scan takes what the
//! head tells, and for cut text what the last [`TAIL_BYTES`] tell. Limits: nesting [`DEPTH_MAX`],
//! [`FIELDS_MAX`] fields.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The deepest nesting that is interpreted; anything deeper is stored raw and marked.
pub const DEPTH_MAX: usize = 128;

/// The most top-level fields that are looked at; the payload keeps all.
const FIELDS_MAX: usize = 512;

/// How much of a cut payload's end is searched for fields.
const TAIL_BYTES: usize = 4 * 1024;

/// Top-level fields in the order they came; of two with one name the last counts, as in JavaScript.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a str)>);

/// What the text turned out to be.
#[derive(Debug)]
pub(super) enum Read<'a> {
    /// A JSON object.
    Object(Fields<'a>),
    /// Cut, or nested too deeply: an object as far as it could be told.
    Partial(Fields<'a>),
    /// JSON, but no object.
    NotAnObject,
    /// No JSON; the parser's word.
    NotJson(String),
}

impl<'a> Fields<'a> {
    /// The fields of an object inside a payload; none of anything else.
    pub(super) fn nested(raw: &'a str) -> Self {
        if raw.starts_with('{') { serde_json::from_str(raw).unwrap_or_default() } else { Self::default() }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// The JSON text of a field.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, raw)| *raw)
    }

    /// A string field; none if it is missing or no string.
    pub(super) fn str(&self, name: &str) -> Option<Cow<'a, str>> {
        string_of(self.raw(name)?)
    }

    pub(super) fn string(&self, name: &str) -> Option<String> {
        self.str(name).map(Cow::into_owned)
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.parse(name)
    }

    /// A number of at least zero; fractions are rounded.
    pub(super) fn u64(&self, name: &str) -> Option<u64> {
        let raw = self.raw(name)?;
        raw.parse::<u64>().ok().or_else(|| {
            let number: f64 = serde_json::from_str(raw).ok()?;
            (number >= 0.0 && number < u64::MAX as f64).then(|| number.round() as u64)
        })
    }

    pub(super) fn value(&self, name: &str) -> Option<Value> {
        self.parse(name)
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?).ok()
    }
}

/// The string that a JSON text stands for; none if it is no string.
pub(super) fn string_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
}

/// Finds the fields of a payload.
pub(super) fn read(text: &str, cut: Cut) -> Read<'_> {
    if matches!(cut, Cut::MiddleLeftOut) {
        return Read::Partial(scan(text, cut));
    }
    if depth(text) > DEPTH_MAX {
        return Read::Partial(scan(text, cut));
    }
    match serde_json::from_str::<Fields>(text) {
        Ok(fields) => Read::Object(fields),
        Err(error) => match serde_json::from_str::<&RawValue>(text) {
            Ok(_) if !text.trim_start().starts_with('{') => Read::NotAnObject,
            _ => Read::NotJson(error.to_string()),
        },
    }
}

/// Whether the text is all that there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Whole,
    MiddleLeftOut,
}

/// The deepest nesting of brackets outside of strings; counts on in text that is no JSON.
pub(super) fn depth(text: &str) -> usize {
    let mut depth = 0usize;
    let mut deepest = 0usize;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => return,
            _ => {}
        }
    }
}

/// Replaces escapes of lone surrogates, which JavaScript writes where it cut a string inside an emoji and which
/// no UTF-8 text can hold, by the escape of U+FFFD. The length stays the same; most texts come back as they are.
pub(super) fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut fixed: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(step) = bytes[at..].iter().position(|b| *b == b'\\') {
        let start = at + step;
        at = (start + 2).min(bytes.len());
        let Some(unit) = unicode_escape(bytes, start) else { continue };
        at = start + 6;
        let is_pair = (0xd800..0xdc00).contains(&unit)
            && unicode_escape(bytes, at).is_some_and(|low| (0xdc00..0xe000).contains(&low));
        if is_pair {
            at += 6;
        } else if (0xd800..0xe000).contains(&unit) {
            let fixed = fixed.get_or_insert_with(|| bytes.to_vec());
            fixed[start + 2..start + 6].copy_from_slice(b"fffd");
        }
    }
    match fixed.map(String::from_utf8) {
        Some(Ok(fixed)) => Cow::Owned(fixed),
        _ => Cow::Borrowed(text),
    }
}

fn unicode_escape(bytes: &[u8], at: usize) -> Option<u32> {
    let escape = bytes.get(at..at + 6)?;
    if &escape[..2] != b"\\u" || !escape[2..].iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;
        impl<'de> Visitor<'de> for TopLevel {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    if fields.len() < FIELDS_MAX {
                        fields.push((key.0, value.get()));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(TopLevel)
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// What a tolerant look at an object's top level tells; stops at the first thing that is no JSON.
fn scan(text: &str, cut: Cut) -> Fields<'_> {
    let mut fields = Fields(scan_head(text).unwrap_or_default());
    if cut == Cut::MiddleLeftOut {
        for (name, raw) in scan_tail(text) {
            if fields.raw(&name).is_none() {
                fields.0.push((name, raw));
            }
        }
    }
    fields
}

fn scan_head(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let bytes = text.as_bytes();
    let mut at = skip_space(bytes, 0);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    at += 1;
    let mut fields = Vec::new();
    while fields.len() < FIELDS_MAX {
        let Some((name, raw, next)) = scan_member(text, at) else { break };
        fields.push((name, raw));
        at = skip_space(bytes, next);
        if bytes.get(at) != Some(&b',') {
            break;
        }
        at += 1;
    }
    Some(fields)
}

fn scan_member(text: &str, at: usize) -> Option<(Cow<'_, str>, &str, usize)> {
    let bytes = text.as_bytes();
    let start = skip_space(bytes, at);
    let end = end_of_value(bytes, start)?;
    let name = string_of(text.get(start..end)?)?;
    let colon = skip_space(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return None;
    }
    let start = skip_space(bytes, colon + 1);
    let end = end_of_value(bytes, start)?;
    Some((name, text.get(start..end)?, end))
}

/// Where the value that begins at `at` ends; none if it does not end or begins with no value.
fn end_of_value(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => end_of_string(bytes, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = at;
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at = end_of_string(bytes, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
            let length = bytes[at..]
                .iter()
                .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')))?;
            Some(at + length)
        }
        _ => None,
    }
}

fn end_of_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// The last members of a cut object: the longest end of the text that reads as `"name":value, ...}` to the very end.
fn scan_tail(text: &str) -> Vec<(Cow<'_, str>, &str)> {
    let mut start = text.len().saturating_sub(TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let tail = &text[start..];
    for (comma, _) in tail.match_indices(',') {
        let mut at = comma + 1;
        let mut fields = Vec::new();
        while let Some((name, raw, next)) = scan_member(tail, at) {
            fields.push((name, raw));
            let next = skip_space(tail.as_bytes(), next);
            match tail.as_bytes().get(next) {
                Some(b',') => at = next + 1,
                Some(b'}') if tail[next + 1..].trim().is_empty() => return fields,
                _ => break,
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn partial(text: &str, cut: Cut) -> Vec<(String, String)> {
        match read(text, cut) {
            Read::Partial(fields) => {
                fields.0.iter().map(|(name, raw)| (name.to_string(), (*raw).to_string())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn pair(name: &str, raw: &str) -> (String, String) {
        (name.to_owned(), raw.to_owned())
    }

    #[test]
    fn a_cut_payload_tells_what_its_head_and_its_tail_say() {
        let text = r#"{"session_id":"s","tool_name":"Read","tool_response":{"content":"abc, \"x\": y, "z"},"tool_use_id":"t","duration_ms":629}"#;
        let fields = partial(text, Cut::MiddleLeftOut);
        assert!(fields.contains(&pair("session_id", "\"s\"")), "{fields:?}");
        assert!(fields.contains(&pair("tool_use_id", "\"t\"")), "{fields:?}");
        assert!(fields.contains(&pair("duration_ms", "629")), "{fields:?}");
        assert_eq!(partial(r#"{"a":"b","c":"unfinished"#, Cut::MiddleLeftOut), [pair("a", "\"b\"")]);
        assert_eq!(partial("no object", Cut::MiddleLeftOut), []);
    }

    #[test]
    fn too_deep_is_scanned_and_not_parsed() {
        let deep = format!(
            r#"{{"session_id":"s","x":{}1{},"hook_event_name":"Stop"}}"#,
            "[".repeat(1000),
            "]".repeat(1000)
        );
        let fields = partial(&deep, Cut::Whole);
        assert!(fields.contains(&pair("hook_event_name", "\"Stop\"")));
        assert_eq!(depth(r#"{"a":"[[[[","b":[1,{"c":2}]}"#), 3);
    }

    #[test]
    fn the_last_of_two_equal_names_counts_and_keys_may_be_escaped() {
        let Read::Object(fields) = read(r#"{"a":1,"\u0061":"x\ny"}"#, Cut::Whole) else { panic!() };
        assert_eq!(fields.str("a").unwrap(), "x\ny");
        assert_eq!(fields.u64("a"), None);
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_are_kept() {
        let fixed =
            without_lone_surrogates(r#"{"a":"\ud83d","b":"\ud83d\ude00","c":"\\ud83d","d":"\udc00x"}"#);
        assert_eq!(fixed, r#"{"a":"\ufffd","b":"\ud83d\ude00","c":"\\ud83d","d":"\ufffdx"}"#);
        assert!(matches!(without_lone_surrogates("{}"), Cow::Borrowed(_)));
        assert_eq!(without_lone_surrogates("\\"), "\\");
    }
}
