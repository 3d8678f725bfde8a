//! How a blob of text lies in the database: as it is, or as an LZ4 block where that is smaller.
//!
//! The codec's number stands beside the blob; a number and its dictionary never change once released. Most
//! payloads are short and full of the same keys, so codec 2 starts from a dictionary of them.

use std::borrow::Cow;

use lz4_flex::block;

/// The text itself.
const RAW: u8 = 0;
/// An LZ4 block.
const LZ4: u8 = 1;
/// An LZ4 block over [`DICTIONARY_V1`].
const LZ4_V1: u8 = 2;

/// Texts shorter than this are kept as they are.
const COMPRESS_MIN_BYTES: usize = 64;
/// Texts longer than this gain nothing from the dictionary.
const DICTIONARY_MAX_BYTES: usize = 32 * 1024;

/// Typical hook payloads' keys and values; the commonest stand last, where LZ4 finds them soonest.
const DICTIONARY_V1: &[u8] = include_bytes!("dictionary_v1.txt");

/// A blob and how to read it.
pub(crate) struct Encoded<'a> {
    pub(crate) codec: u8,
    pub(crate) raw_bytes: usize,
    pub(crate) data: Cow<'a, [u8]>,
}

/// Why a blob could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("unknown codec {0}")]
    UnknownCodec(u8),
    #[error("damaged block: {0}")]
    Damaged(String),
}

pub(crate) fn encode(text: &str) -> Encoded<'_> {
    let raw = text.as_bytes();
    let (codec, packed) = match raw.len() {
        0..COMPRESS_MIN_BYTES => (RAW, None),
        COMPRESS_MIN_BYTES..=DICTIONARY_MAX_BYTES => {
            (LZ4_V1, Some(block::compress_with_dict(raw, DICTIONARY_V1)))
        }
        _ => (LZ4, Some(block::compress(raw))),
    };
    match packed {
        Some(packed) if packed.len() < raw.len() => {
            Encoded { codec, raw_bytes: raw.len(), data: Cow::Owned(packed) }
        }
        _ => Encoded { codec: RAW, raw_bytes: raw.len(), data: Cow::Borrowed(raw) },
    }
}

pub(crate) fn decode(codec: u8, raw_bytes: usize, data: &[u8]) -> Result<String, DecodeError> {
    let damaged = |e: &dyn std::fmt::Display| DecodeError::Damaged(e.to_string());
    let raw = match codec {
        RAW => data.to_vec(),
        LZ4 => block::decompress(data, raw_bytes).map_err(|e| damaged(&e))?,
        LZ4_V1 => block::decompress_with_dict(data, raw_bytes, DICTIONARY_V1).map_err(|e| damaged(&e))?,
        other => return Err(DecodeError::UnknownCodec(other)),
    };
    String::from_utf8(raw).map_err(|e| damaged(&e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) {
        let encoded = encode(text);
        assert!(encoded.data.len() <= text.len());
        assert_eq!(decode(encoded.codec, encoded.raw_bytes, &encoded.data).unwrap(), text);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in ".*", times in 1usize..40) {
            check(&text.repeat(times));
        }
    }

    #[test]
    fn long_texts_come_back_without_the_dictionary() {
        check(&"{\"session_id\":\"é\"}".repeat(10_000));
        check("");
    }

    #[test]
    fn the_dictionary_pays_for_a_short_payload() {
        let text = r#"{"session_id":"724ad327-e961-4634-b5b1-e68833d2d922","transcript_path":"/home/user/.claude/projects/-home-user-project/724ad327-e961-4634-b5b1-e68833d2d922.jsonl","cwd":"/home/user/project","prompt_id":"f4664d85-d2e6-41af-8e98-b16dcfe869be","permission_mode":"acceptEdits","hook_event_name":"Stop","stop_hook_active":false}"#;
        assert!(encode(text).data.len() * 10 < block::compress(text.as_bytes()).len() * 8);
    }

    #[test]
    fn damaged_blocks_and_unknown_codecs_are_errors() {
        assert!(decode(9, 4, b"abcd").is_err());
        assert!(decode(LZ4, 1_000, b"\xff\xff\xff\xff").is_err());
        assert!(decode(LZ4_V1, 1_000, b"\x1f\x00\xff\xff").is_err());
        assert!(decode(RAW, 2, b"\xff\xfe").is_err());
    }

    /// Real payloads are not in the repository: they are read in place, or the test says that it did nothing.
    #[test]
    fn the_dictionary_pays_on_real_payloads() {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
        let shared = std::env::var("TAFFRAIL_SHARED").unwrap_or_else(|_| beside.to_owned());
        let Ok(projects) = std::fs::read_dir(format!("{shared}/data/hook-payloads")) else {
            eprintln!("SKIPPED: the_dictionary_pays_on_real_payloads: no real payloads in {shared}");
            return;
        };
        let files =
            projects.flatten().filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
        let (mut raw, mut plain, mut packed, mut count) = (0, 0, 0, 0);
        for file in files.filter(|file| file.path().extension().is_some_and(|ext| ext == "jsonl")) {
            for line in std::fs::read_to_string(file.path()).unwrap().lines() {
                check(line);
                raw += line.len();
                plain += block::compress(line.as_bytes()).len().min(line.len());
                packed += encode(line).data.len();
                count += 1;
            }
        }
        eprintln!("{count} payloads, {raw} bytes: LZ4 {plain}, with the dictionary {packed}");
        assert!(count > 0 && packed * 100 < plain * 95);
    }
}
