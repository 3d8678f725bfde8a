//! Recorded hook payloads: which object is a payload, when it was captured, and what makes it the same on another run.
//!
//! A payload's identity is its file's lineage (the hash of the first payload in it), its own bytes, and how many of
//! the same stood before it (see `identity`). So the same file, or a grown version of it under any name, adds nothing
//! twice, while identical payloads of one file stay distinct events.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use taffrail_event::ids::hash_parts;

use super::identity::Identity;
use super::progress::{Counting, Progress};
use super::sink::{BatchLine, Body, Sink};
use super::stream::{Decoder, Item, ItemKind};
use super::{Found, Totals};

/// Folders inside folders are followed this deep.
const WALK_DEPTH_MAX: usize = 16;
/// A recorder's `t` above this is in milliseconds, below in seconds.
const SECONDS_MAX: f64 = 1e11;
/// Endings that are read when a folder is walked; a file named by itself is read whatever its name.
const ENDINGS: [&str; 4] = ["jsonl", "json", "ndjson", "log"];

/// Reads every file in order into the sink.
pub(super) fn import(
    files: &[PathBuf],
    app: Option<&str>,
    sink: &mut Sink,
    progress: &Progress,
) -> Result<Totals> {
    let mut totals = Totals::default();
    for path in files {
        progress.name(path);
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let found = import_file(Counting::new(file, progress), app, sink)
            .with_context(|| format!("while importing {}", path.display()))?;
        totals.files += 1;
        totals.add(&found);
    }
    Ok(totals)
}

fn import_file(reader: impl std::io::Read, app: Option<&str>, sink: &mut Sink) -> Result<Found> {
    let mut decoder = Decoder::new(reader);
    let mut identity = Identity::of_file();
    let mut found = Found::default();
    while let Some(item) = decoder.next().context("the file cannot be read")? {
        let recorded = understand(&item);
        found.deliveries += 1;
        found.malformed += u64::from(recorded.malformed);
        sink.push(&BatchLine {
            event_id: identity.of(&hash_parts(&[&recorded.payload])),
            captured_ms: recorded.captured_ms,
            app,
            user: None,
            host: None,
            body: Body::Payload(&recorded.payload),
        })?;
    }
    Ok(found)
}

/// What one item of a file says.
pub(crate) struct Recorded<'a> {
    pub(crate) payload: Cow<'a, [u8]>,
    pub(crate) captured_ms: Option<i64>,
    /// It is no JSON object: stored as what it is.
    malformed: bool,
}

/// A line of a recorder: the payload in `body`, and when it came.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    t: Option<f64>,
    #[serde(default)]
    captured_ms: Option<i64>,
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(default)]
    hook_event_name: Option<IgnoredAny>,
}

/// What a recorder writes for a body that was no JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBody {
    _raw: String,
}

pub(crate) fn understand(item: &Item) -> Recorded<'_> {
    let whole = |malformed| Recorded { payload: Cow::Borrowed(&*item.bytes), captured_ms: None, malformed };
    if item.kind == ItemKind::Junk {
        return whole(true);
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&item.bytes) else { return whole(false) };
    let captured_ms = envelope.captured_ms.or(envelope.t.and_then(recorder_ms));
    if envelope.hook_event_name.is_some() || captured_ms.is_none() {
        return whole(false);
    }
    let body = envelope.body.get();
    let text = serde_json::from_str::<RawBody>(body).map(|raw| raw._raw);
    match text.or_else(|_| serde_json::from_str::<String>(body)) {
        Ok(text) => {
            let malformed = !text.trim_start().starts_with('{');
            Recorded { payload: Cow::Owned(text.into_bytes()), captured_ms, malformed }
        }
        Err(_) => {
            let malformed = !body.starts_with('{');
            Recorded { payload: Cow::Borrowed(body.as_bytes()), captured_ms, malformed }
        }
    }
}

/// A recorder's time in milliseconds; none where it is no time.
fn recorder_ms(t: f64) -> Option<i64> {
    let ms = if t < SECONDS_MAX { t * 1000.0 } else { t };
    #[allow(clippy::cast_possible_truncation, reason = "saturates; the event clamps it")]
    (ms.is_finite() && ms > 0.0).then(|| ms.round() as i64)
}

/// The files to read: those named, and those in folders named, by name.
pub(crate) fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let kind = std::fs::metadata(path).with_context(|| {
            format!("cannot read {}\nhint: name files or folders that exist", path.display())
        })?;
        if kind.is_dir() {
            walk(path, 0, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > WALK_DEPTH_MAX {
        return Ok(());
    }
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
        paths.push((entry.path(), entry.file_type()?));
    }
    paths.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (path, kind) in paths {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if kind.is_dir() {
            walk(&path, depth + 1, files)?;
        } else if ENDINGS.contains(&ending) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, payload: &str, captured_ms: Option<i64>, malformed: bool) {
        let item = Item { kind: ItemKind::Object, bytes: text.as_bytes().to_vec() };
        let recorded = understand(&item);
        assert_eq!(std::str::from_utf8(&recorded.payload).unwrap(), payload);
        assert_eq!((recorded.captured_ms, recorded.malformed), (captured_ms, malformed));
    }

    #[test]
    fn a_recorder_line_gives_its_body_and_time() {
        check(
            r#"{"t":1795333438.402,"event":"Stop","body":{"hook_event_name": "Stop"}}"#,
            r#"{"hook_event_name": "Stop"}"#,
            Some(1_795_333_438_402),
            false,
        );
        check(r#"{"captured_ms":5,"body":{"a":1}}"#, r#"{"a":1}"#, Some(5), false);
        check(r#"{"t":1,"body":{"_raw":"no json"}}"#, "no json", Some(1000), true);
        check(r#"{"t":1,"body":"{\"a\":1}"}"#, r#"{"a":1}"#, Some(1000), false);
    }

    #[test]
    fn a_payload_with_a_body_of_its_own_is_no_recorder_line() {
        for text in [
            r#"{"hook_event_name":"Stop","t":1,"body":{"a":1}}"#,
            r#"{"body":{"a":1}}"#,
            r#"{"t":1,"event":"_client_gone"}"#,
        ] {
            check(text, text, None, false);
        }
    }
}
