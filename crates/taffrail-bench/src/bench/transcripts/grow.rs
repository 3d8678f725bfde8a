//! Grows transcripts: copies of real ones whose ids, sessions and times are all their own, so that every copy is other work.
//!
//! Ids keep their length and their cross-references, times their distances; what follows from the seed is the same every
//! time. The sources are given in turn, so that small and large sessions keep their share.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::rng::Rng;

/// Smaller files are samples of a record's form, not sessions.
const SOURCE_BYTES_MIN: u64 = 4 << 10;
/// The sessions' projects.
const PROJECTS: u64 = 24;
/// The sessions began within so many days before [`NOON`].
const DAYS: u64 = 90;
/// 2026-11-01T12:00:00Z, in milliseconds: a fixed end, so that the same seed is the same data on every day.
const NOON: i64 = 1_793_534_400_000;
const DAY_MS: u64 = 86_400_000;
/// Letters of an id behind its prefix.
const LETTERS: &[u8] = b"0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const PREFIXES: [&[u8]; 4] = [b"msg_", b"req_", b"toolu_", b"srvtoolu_"];
/// `2026-02-08T23:02:32.645Z`
const STAMP_BYTES: usize = 24;
const UUID_BYTES: usize = 36;

/// What was grown.
#[derive(Debug)]
pub(crate) struct Grown {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) bytes: u64,
    /// Different message ids with a usage, of models that are billed.
    pub(crate) requests: u64,
}

/// A real transcript.
#[derive(Debug)]
struct Source {
    text: Vec<u8>,
    requests: u64,
    /// Of its first time stamp.
    born_ms: i64,
}

/// Writes transcripts of about so many bytes to `<into>/projects/<project>/<session>.jsonl`.
pub(crate) fn grow(from: &Path, into: &Path, bytes: u64, seed: u64) -> Result<Grown> {
    let sources = sources(from)?;
    let mut grown = Grown { files: Vec::new(), bytes: 0, requests: 0 };
    let mut copy = 0;
    while grown.bytes < bytes {
        for source in &sources {
            if grown.bytes >= bytes {
                break;
            }
            copy += 1;
            let mut rng = Rng::stream(seed, copy);
            let project = into.join(format!("projects/-home-dev-project-{:02}", rng.below(PROJECTS)));
            let begin = NOON - i64::try_from(rng.below(DAYS * DAY_MS)).unwrap_or(0);
            let text = rewritten(&source.text, rng.next(), begin - source.born_ms);
            fs::create_dir_all(&project)?;
            let path = project.join(format!("{}.jsonl", uuid(rng.next(), b"session")));
            fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
            grown.bytes += text.len() as u64;
            grown.requests += source.requests;
            grown.files.push(path);
        }
    }
    Ok(grown)
}

fn sources(from: &Path) -> Result<Vec<Source>> {
    let mut paths = BTreeSet::new();
    walk(from, &mut paths)?;
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (requests, Some(born_ms)) = (requests(&text), stamps(&text).next().map(|(_, ms)| ms)) else {
            continue;
        };
        if requests > 0 {
            sources.push(Source { text, requests, born_ms });
        }
    }
    ensure!(!sources.is_empty(), "no transcripts with requests below {}", from.display());
    Ok(sources)
}

fn walk(directory: &Path, into: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            walk(&path, into)?;
        } else if path.extension().is_some_and(|ext| ext == "jsonl")
            && entry.metadata()?.len() >= SOURCE_BYTES_MIN
        {
            into.insert(path);
        }
    }
    Ok(())
}

/// Different message ids with a usage, counted by reading every line whole: what an import must find.
fn requests(text: &[u8]) -> u64 {
    let mut ids = HashSet::new();
    for line in text.split(|b| *b == b'\n') {
        let Ok(record) = serde_json::from_slice::<Value>(line) else { continue };
        for message in [&record["message"], &record["data"]["message"]["message"]] {
            let billed =
                message["usage"].is_object() && message["model"].as_str().is_some_and(|m| m != "<synthetic>");
            if let (true, Some(id)) = (billed, message["id"].as_str()) {
                ids.insert(id.to_owned());
            }
        }
    }
    ids.len() as u64
}

/// The text with every id and time its own.
fn rewritten(text: &[u8], salt: u64, shift_ms: i64) -> Vec<u8> {
    let mut out = text.to_vec();
    for (at, ms) in stamps(text) {
        let stamp = crate::clock::stamp(ms + shift_ms);
        out[at..at + STAMP_BYTES].copy_from_slice(stamp.as_bytes());
    }
    let mut at = 0;
    while at < out.len() {
        // Ids begin after something that is not part of a word.
        if at > 0 && out[at - 1].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        if let Some(prefix) = PREFIXES.iter().find(|prefix| out[at..].starts_with(prefix)) {
            let from = at + prefix.len();
            let len = out[from..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
            letters(&mut out[from..from + len], salt);
            at = from + len;
        } else if out[at..].len() >= UUID_BYTES && is_uuid(&out[at..at + UUID_BYTES]) {
            let own = uuid(salt, &out[at..at + UUID_BYTES]);
            out[at..at + UUID_BYTES].copy_from_slice(own.as_bytes());
            at += UUID_BYTES;
        } else {
            at += 1;
        }
    }
    out
}

/// Every time stamp and its place.
fn stamps(text: &[u8]) -> impl Iterator<Item = (usize, i64)> + '_ {
    let ends = text.windows(2).enumerate().filter(|(_, pair)| *pair == b"Z\"").map(|(at, _)| at + 1);
    ends.filter_map(|end| {
        let at = end.checked_sub(STAMP_BYTES)?;
        let stamp = std::str::from_utf8(&text[at..end]).ok()?;
        Some((at, crate::clock::parse_stamp(stamp)?))
    })
}

fn letters(id: &mut [u8], salt: u64) {
    let mut rng = Rng::stream(salt, hash(id));
    for letter in id {
        *letter = *rng.pick(LETTERS);
    }
}

fn is_uuid(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(n, b)| match n {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    })
}

/// The UUID that stands for `of` in the copy with that salt.
fn uuid(salt: u64, of: &[u8]) -> String {
    let mut rng = Rng::stream(salt, hash(of));
    let bits = (u128::from(rng.next()) << 64) | u128::from(rng.next());
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LINE: &str = r#"{"uuid":"6f1c2d3e-0000-4000-8000-000000000001","parentUuid":"6f1c2d3e-0000-4000-8000-000000000002","timestamp":"2026-02-08T23:02:32.645Z","requestId":"req_011CXy","message":{"id":"msg_01AbC","model":"m","usage":{"input_tokens":1},"content":[{"id":"toolu_01Z","text":"msg_01AbC again"}]}}"#;

    #[test]
    fn a_copy_has_its_own_ids_and_times_and_keeps_its_references() {
        let shifted = rewritten(LINE.as_bytes(), 7, 86_400_000 + 5);
        let text = String::from_utf8(shifted).unwrap();
        let (a, b): (Value, Value) =
            (serde_json::from_str(LINE).unwrap(), serde_json::from_str(&text).unwrap());
        assert_eq!(b["timestamp"], "2026-02-09T23:02:32.650Z");
        for path in ["/uuid", "/parentUuid", "/requestId", "/message/id", "/message/content/0/id"] {
            let (old, new) =
                (a.pointer(path).unwrap().as_str().unwrap(), b.pointer(path).unwrap().as_str().unwrap());
            assert_ne!(old, new, "{path}");
            assert_eq!(old.len(), new.len(), "{path}");
        }
        let id = b["message"]["id"].as_str().unwrap();
        assert_eq!(b["message"]["content"][0]["text"], format!("{id} again"));
        assert_ne!(b["uuid"], b["parentUuid"]);
        assert_eq!(rewritten(LINE.as_bytes(), 7, 0), rewritten(LINE.as_bytes(), 7, 0));
        assert_ne!(rewritten(LINE.as_bytes(), 7, 0), rewritten(LINE.as_bytes(), 8, 0));
    }

    #[test]
    fn requests_are_counted_once_an_id() {
        let text = format!("{LINE}\n{LINE}\nnot json\n{}\n", LINE.replace("msg_01AbC", "msg_02"));
        assert_eq!(requests(text.as_bytes()), 2);
        assert_eq!(requests(LINE.replace(r#""model":"m""#, r#""model":"<synthetic>""#).as_bytes()), 0);
    }
}
