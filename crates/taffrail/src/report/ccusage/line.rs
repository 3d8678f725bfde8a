//! One line of a transcript as ccusage reads it: which lines count, and what they say.
//!
//! The rules are ccusage's, odd ones included: a line counts only where it holds the bytes `"usage":{`, it is dropped for a
//! null in one of eleven fields anywhere in it, for a version that is none, for an empty id, for a time stamp of another
//! length, and for anything after the one object.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;

/// What a line must hold to count.
pub(super) const MARK: &[u8] = br#""usage":{"#;
const ADVISOR: &[u8] = br#""advisor_message""#;

/// Fields that drop their line where they are null, wherever in it they stand.
const NOT_NULL: [&[u8]; 11] = [
    b"id",
    b"cwd",
    b"model",
    b"speed",
    b"costUSD",
    b"version",
    b"sessionId",
    b"requestId",
    b"isApiErrorMessage",
    b"cache_read_input_tokens",
    b"cache_creation_input_tokens",
];

/// Tokens as the line says them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    #[serde(rename = "input_tokens")]
    pub(super) input: u64,
    #[serde(rename = "output_tokens")]
    pub(super) output: u64,
    #[serde(rename = "cache_creation_input_tokens", default)]
    pub(super) cache_write: u64,
    #[serde(rename = "cache_read_input_tokens", default)]
    pub(super) cache_read: u64,
    pub(super) speed: Option<Speed>,
    #[serde(rename = "cache_creation")]
    pub(super) split: Option<Split>,
}

/// Cache writes by how long they last. Where it is there the flat count is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Split {
    #[serde(rename = "ephemeral_5m_input_tokens", default)]
    pub(super) five_minutes: u64,
    #[serde(rename = "ephemeral_1h_input_tokens", default)]
    pub(super) one_hour: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Speed {
    Standard,
    Fast,
}

impl Usage {
    /// Tokens written to the cache.
    pub(super) fn written(&self) -> u64 {
        match self.split {
            Some(split) => split.five_minutes.saturating_add(split.one_hour),
            None => self.cache_write,
        }
    }

    pub(super) fn total(&self) -> u64 {
        [self.input, self.output, self.written(), self.cache_read].into_iter().fold(0, u64::saturating_add)
    }
}

/// Text that is copied only where it has escapes.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A line that counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    pub(super) timestamp: Text<'a>,
    #[serde(borrow)]
    pub(super) message: Message<'a>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) session_id: Option<Text<'a>>,
    #[serde(rename = "costUSD")]
    pub(super) cost_usd: Option<f64>,
    #[serde(borrow)]
    pub(super) request_id: Option<Text<'a>>,
    pub(super) is_sidechain: Option<bool>,
    pub(super) is_api_error_message: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    pub(super) usage: Usage,
    #[serde(borrow)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
}

/// A subagent's message inside a progress record.
#[derive(Debug, Deserialize)]
struct Progress<'a> {
    #[serde(borrow, rename = "sessionId")]
    session_id: Option<Text<'a>>,
    #[serde(borrow)]
    data: ProgressData<'a>,
}

#[derive(Debug, Deserialize)]
struct ProgressData<'a> {
    #[serde(borrow)]
    message: ProgressMessage<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProgressMessage<'a> {
    #[serde(borrow)]
    timestamp: Text<'a>,
    #[serde(borrow)]
    message: Message<'a>,
    #[serde(rename = "costUSD")]
    cost_usd: Option<f64>,
    #[serde(borrow)]
    request_id: Option<Text<'a>>,
    is_sidechain: Option<bool>,
}

/// ccusage has two readers, and they differ: by day it also reads progress records and keeps what the other takes for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Of the daily report, and of `ccusage weekly` and `monthly`.
    Days,
    /// Of sessions and blocks, and of `ccusage claude weekly` and `monthly`.
    Entries,
}

/// The record of a line that holds [`MARK`]; none where ccusage drops the line.
pub(super) fn record(line: &[u8], reader: Reader) -> Option<Record<'_>> {
    // By day, and where there is any null, ccusage takes every string of the line apart, also those it does not need: half
    // a surrogate pair in one drops the line.
    let nulls = nulls(line);
    if nulls == Nulls::Forbidden
        || ((reader == Reader::Days || nulls == Nulls::Allowed) && !strings_are_sound(line))
    {
        return None;
    }
    let record = match serde_json::from_slice::<Record<'_>>(line) {
        Ok(record) => record,
        Err(_) if reader == Reader::Days => progress(line)?,
        Err(_) => return None,
    };
    is_valid(&record).then_some(record)
}

fn progress(line: &[u8]) -> Option<Record<'_>> {
    let progress: Progress<'_> = serde_json::from_slice(line).ok()?;
    let message = progress.data.message;
    Some(Record {
        timestamp: message.timestamp,
        message: message.message,
        version: None,
        session_id: progress.session_id,
        cost_usd: message.cost_usd,
        request_id: message.request_id,
        is_sidechain: message.is_sidechain,
        is_api_error_message: None,
    })
}

fn strings_are_sound(line: &[u8]) -> bool {
    (memmem::find(line, br"\ud").is_none() && memmem::find(line, br"\uD").is_none())
        || serde_json::from_slice::<Value>(line).is_ok()
}

fn is_valid(record: &Record<'_>) -> bool {
    let filled = |text: &Option<Text<'_>>| text.as_ref().is_none_or(|text| !text.as_str().is_empty());
    record.version.as_ref().is_none_or(|version| begins_with_version(version.as_str()))
        && filled(&record.session_id)
        && filled(&record.request_id)
        && filled(&record.message.id)
        && filled(&record.message.model)
}

/// Whether a text begins as `1.2.3` does.
fn begins_with_version(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let number =
        |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    number(parts.next())
        && number(parts.next())
        && parts.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What of null is in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nulls {
    /// The word is not in it.
    Absent,
    /// It is, but no field is null that must not be.
    Allowed,
    Forbidden,
}

fn nulls(line: &[u8]) -> Nulls {
    let mut found = Nulls::Absent;
    for at in memmem::find_iter(line, b"null") {
        found = Nulls::Allowed;
        let forbidden = match field_before(line, at) {
            // The client writes a null model for the main iteration; that one is let pass.
            Some(b"model") => !null_models_are_of_iterations(line),
            Some(field) => NOT_NULL.contains(&field),
            None => false,
        };
        if forbidden {
            return Nulls::Forbidden;
        }
    }
    found
}

/// The key whose value begins at `at`, as its bytes stand in the line.
fn field_before(line: &[u8], at: usize) -> Option<&[u8]> {
    let before = line[..at].trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"")?;
    let start = memchr::memrchr(b'"', before)? + 1;
    Some(&before[start..])
}

/// Whether every null `model` stands in the `iterations` of a `usage`.
fn null_models_are_of_iterations(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|value| !has_null_model(&value, Place::Elsewhere))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Elsewhere,
    Usage,
    Iterations,
}

fn has_null_model(value: &Value, place: Place) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            if name == "model" && value.is_null() {
                return place != Place::Iterations;
            }
            let inside = match (place, name.as_str()) {
                (Place::Iterations, _) => Place::Iterations,
                (Place::Usage, "iterations") if value.is_array() => Place::Iterations,
                (_, "usage") => Place::Usage,
                _ => Place::Elsewhere,
            };
            has_null_model(value, inside)
        }),
        Value::Array(values) => {
            let inside = if place == Place::Iterations { place } else { Place::Elsewhere };
            values.iter().any(|value| has_null_model(value, inside))
        }
        _ => false,
    }
}

/// What an adviser used on behalf of this message: a request of its own, of another model.
#[derive(Debug, Deserialize)]
pub(super) struct Advice {
    #[serde(rename = "type")]
    kind: String,
    pub(super) model: Option<String>,
    #[serde(flatten)]
    pub(super) usage: Usage,
}

/// The advisers' usage in a line; all or, where one of the iterations cannot be read, none.
pub(super) fn advice(line: &[u8]) -> Vec<Advice> {
    #[derive(Deserialize)]
    struct Outer {
        message: Middle,
    }
    #[derive(Deserialize)]
    struct Middle {
        usage: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(default)]
        iterations: Vec<Advice>,
    }
    if memmem::find(line, ADVISOR).is_none() {
        return Vec::new();
    }
    let Ok(outer) = serde_json::from_slice::<Outer>(line) else { return Vec::new() };
    let mut all = outer.message.usage.iterations;
    all.retain(|one| one.kind == "advisor_message" && one.model.as_deref().is_some_and(|m| !m.is_empty()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_found_as_ccusage_finds_them() {
        let check =
            |line: &str, dropped| assert_eq!(nulls(line.as_bytes()) == Nulls::Forbidden, dropped, "{line}");
        check(r#"{"id":null}"#, true);
        check(r#"{"id": null}"#, true);
        check(r#"{"id" :null}"#, true);
        check(r#"{"x":{"speed":null}}"#, true);
        check(r#"{"parentUuid":null,"stop_reason":null,"isSidechain":null}"#, false);
        check(r#"{"t":"a\"id\":null"}"#, false);
        check(r#"{"content":[null,"null"]}"#, false);
        check(r#"{"message":{"model":null}}"#, true);
        check(r#"{"usage":{"iterations":[{"model":null}]}}"#, false);
        check(r#"{"model":null,"usage":{"iterations":[{"model":null}]}}"#, true);
        check(r#"{"toolUseResult":{"iterations":[{"model":null}]}}"#, true);
        check(r#"{"usage":{"iterations":[{"model":null,"cache_read_input_tokens":null}]}}"#, true);
    }

    #[test]
    fn versions_have_three_numbers() {
        assert!(["1.0.0", "2.1.63", "1.2.3-beta", "1.2.3x"].into_iter().all(begins_with_version));
        assert!(
            !["", "1", "2.1", "2.1.", "abc", "v1.0.0", "1..0", "1.0.x"].into_iter().any(begins_with_version)
        );
    }
}
