//! The spool frame: how the hook client hands one event to the server.
//!
//! Layout, little endian:
//!
//! ```text
//! "TFR1" | u32 header_len | u32 payload_len | u32 crc32 | header JSON | payload
//! ```
//!
//! The checksum covers header and payload. The payload is exactly what the client wrote to the hook's stdin, not
//! redacted: the server redacts before it stores. One file or one socket message holds exactly one frame, so trailing
//! bytes are an error like missing ones. Decoding never panics and never allocates more than the input is long.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// First bytes of every frame; the digit is the format's version.
pub const MAGIC: [u8; 4] = *b"TFR1";

/// Magic, two lengths and the checksum.
pub const PREFIX_BYTES: usize = 16;

/// Largest header JSON that [`decode`] accepts.
pub const HEADER_LIMIT_BYTES: usize = 64 * 1024;

/// Largest payload that [`decode`] accepts; the hook client keeps less than that.
pub const PAYLOAD_LIMIT_BYTES: usize = 32 * 1024 * 1024;

/// What the capturing process knows about the event, beside the payload itself.
///
/// Unknown fields are ignored and missing ones are absent, so that client and server of different versions can talk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameHeader {
    /// Identity of the delivery (UUIDv7, minted by the hook client): a replay counts once.
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    /// When the hook client started, milliseconds since the Unix epoch, UTC.
    pub captured_ms: i64,
    /// Where the event comes from; the hook client writes `hook`.
    #[serde(default = "source_hook")]
    pub source: String,
    /// Event name from the command line or the payload; helps where the payload cannot be parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_event_name: Option<String>,
    /// Process id of the coding agent that called the hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_pid: Option<u32>,
    /// Value of `TAFFRAIL_APP`, which overrides the application name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Login name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Node name of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Microseconds from the start of the hook client's `main` until the frame was written to the spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_wall_us: Option<u64>,
    /// What the static guard said, unless it allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<FrameVerdict>,
    /// True size of the payload as it came in, which is more than the frame holds when `truncated`.
    #[serde(default)]
    pub payload_bytes: u64,
    /// Lower-case hexadecimal SHA-256 of the whole payload; only when `truncated` by size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_sha256: Option<String>,
    /// Bytes of the payload that belong to its head; the rest of the payload is its tail. Only when `truncated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_head_bytes: Option<u64>,
    /// The frame holds less than the whole payload.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl FrameHeader {
    /// A header with nothing but identity, time and the size of the payload.
    #[must_use]
    pub fn new(event_id: Uuid, captured_ms: i64, payload_bytes: u64) -> Self {
        Self {
            event_id,
            captured_ms,
            source: source_hook(),
            hook_event_name: None,
            client_pid: None,
            app: None,
            user: None,
            host: None,
            hook_wall_us: None,
            verdict: None,
            payload_bytes,
            payload_sha256: None,
            payload_head_bytes: None,
            truncated: false,
        }
    }
}

/// What the static guard decided inside the hook client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameVerdict {
    /// `warn`, `ask` or `deny`.
    pub decision: String,
    /// Name of the rule that fired.
    pub rule: String,
    /// The sentence that was shown to the agent.
    pub reason: String,
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The capturing process's part.
    pub header: FrameHeader,
    /// The hook's stdin, whole or (when `header.truncated`) head and tail.
    pub payload: Vec<u8>,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The bytes end early: a writer died or is still writing.
    Torn {
        /// Bytes that a whole frame would have, as far as known.
        expected_bytes: usize,
        /// Bytes that are there.
        actual_bytes: usize,
    },
    /// The first bytes are not [`MAGIC`].
    BadMagic,
    /// Header or payload changed after they were written.
    BadChecksum,
    /// A length is over its limit.
    TooLarge,
    /// Bytes follow the frame.
    TrailingBytes,
    /// The header is not the JSON it should be.
    BadHeader(String),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn { expected_bytes, actual_bytes } => {
                write!(f, "frame is torn: {actual_bytes} of {expected_bytes} bytes")
            }
            Self::BadMagic => f.write_str("not a frame: wrong magic"),
            Self::BadChecksum => f.write_str("frame is damaged: wrong checksum"),
            Self::TooLarge => f.write_str("frame is larger than its limit"),
            Self::TrailingBytes => f.write_str("bytes follow the frame"),
            Self::BadHeader(why) => write!(f, "frame header is not valid: {why}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Encodes everything before the payload, which stays where it is: a 6 MB payload is not copied.
///
/// `payload` is given in parts (whole, or head and tail); the caller writes them after the returned bytes.
///
/// # Errors
/// [`FrameError::TooLarge`] when header or payload are over their limits.
pub fn encode_head(header: &FrameHeader, payload: &[&[u8]]) -> Result<Vec<u8>, FrameError> {
    let payload_len: usize = payload.iter().map(|part| part.len()).sum();
    let mut head = vec![0_u8; PREFIX_BYTES];
    serde_json::to_writer(&mut head, header).map_err(|e| FrameError::BadHeader(e.to_string()))?;
    let header_len = head.len() - PREFIX_BYTES;
    if header_len > HEADER_LIMIT_BYTES || payload_len > PAYLOAD_LIMIT_BYTES {
        return Err(FrameError::TooLarge);
    }
    let mut crc = Crc32::new();
    crc.update(&head[PREFIX_BYTES..]);
    for part in payload {
        crc.update(part);
    }
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&limited_u32(header_len).to_le_bytes());
    head[8..12].copy_from_slice(&limited_u32(payload_len).to_le_bytes());
    head[12..16].copy_from_slice(&crc.finish().to_le_bytes());
    Ok(head)
}

/// Encodes a whole frame into one buffer.
///
/// # Errors
/// As [`encode_head`].
pub fn encode(header: &FrameHeader, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut bytes = encode_head(header, &[payload])?;
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// Decodes exactly one frame.
///
/// # Errors
/// A [`FrameError`] for anything but one whole, undamaged frame.
pub fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    let shared = bytes.len().min(MAGIC.len());
    if bytes[..shared] != MAGIC[..shared] {
        return Err(FrameError::BadMagic);
    }
    let Some((prefix, body)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(FrameError::Torn { expected_bytes: PREFIX_BYTES, actual_bytes: bytes.len() });
    };
    let field = |at: usize| u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    let (header_len, payload_len) = (field(4) as usize, field(8) as usize);
    if header_len > HEADER_LIMIT_BYTES || payload_len > PAYLOAD_LIMIT_BYTES {
        return Err(FrameError::TooLarge);
    }
    let expected_bytes = PREFIX_BYTES + header_len + payload_len;
    if bytes.len() < expected_bytes {
        return Err(FrameError::Torn { expected_bytes, actual_bytes: bytes.len() });
    }
    if bytes.len() > expected_bytes {
        return Err(FrameError::TrailingBytes);
    }
    if crc32(body) != field(12) {
        return Err(FrameError::BadChecksum);
    }
    let (header, payload) = body.split_at(header_len);
    let header = serde_json::from_slice(header).map_err(|e| FrameError::BadHeader(e.to_string()))?;
    Ok(Frame { header, payload: payload.to_vec() })
}

/// CRC-32 (IEEE 802.3, as in zip and PNG) of some bytes.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    crc.update(bytes);
    crc.finish()
}

/// CRC-32 over bytes that come in parts; eight bytes a step ("slicing by 8"), since payloads reach megabytes.
struct Crc32(u32);

impl Crc32 {
    fn new() -> Self {
        Self(u32::MAX)
    }

    fn update(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let (chunks, rest) = bytes.as_chunks::<8>();
        for c in chunks {
            let low = crc ^ u32::from_le_bytes([c[0], c[1], c[2], c[3]]);
            crc = CRC_TABLES[7][(low & 0xff) as usize]
                ^ CRC_TABLES[6][(low >> 8 & 0xff) as usize]
                ^ CRC_TABLES[5][(low >> 16 & 0xff) as usize]
                ^ CRC_TABLES[4][(low >> 24) as usize]
                ^ CRC_TABLES[3][c[4] as usize]
                ^ CRC_TABLES[2][c[5] as usize]
                ^ CRC_TABLES[1][c[6] as usize]
                ^ CRC_TABLES[0][c[7] as usize];
        }
        for byte in rest {
            crc = crc >> 8 ^ CRC_TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
        }
        self.0 = crc;
    }

    fn finish(self) -> u32 {
        !self.0
    }
}

/// `CRC_TABLES[k][b]` is the checksum of byte `b` followed by `k` zero bytes, for the reflected polynomial 0xEDB88320.
static CRC_TABLES: [[u32; 256]; 8] = crc_tables();

const fn crc_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0_u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[table - 1][byte];
            tables[table][byte] = previous >> 8 ^ tables[0][(previous & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

fn limited_u32(len: usize) -> u32 {
    debug_assert!(len <= PAYLOAD_LIMIT_BYTES);
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn source_hook() -> String {
    "hook".to_owned()
}

/// A UUID as its usual text, without switching on the serde feature of the uuid crate for everyone.
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Uuid::try_parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = FrameHeader> {
        let text = || proptest::option::of(".{0,40}");
        (
            any::<u128>(),
            any::<i64>(),
            text(),
            text(),
            any::<Option<u64>>(),
            any::<bool>(),
            text(),
            any::<Option<u32>>(),
        )
            .prop_map(|(id, captured_ms, app, user, wall, truncated, reason, client_pid)| {
                FrameHeader {
                    app,
                    user,
                    client_pid,
                    hook_wall_us: wall,
                    truncated,
                    payload_head_bytes: wall,
                    verdict: reason.map(|reason| FrameVerdict {
                        decision: "deny".to_owned(),
                        rule: "recursive-delete".to_owned(),
                        reason,
                    }),
                    ..FrameHeader::new(Uuid::from_u128(id), captured_ms, 7)
                }
            })
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(header in header(), payload in proptest::collection::vec(any::<u8>(), 0..600)) {
            let bytes = encode(&header, &payload).unwrap();
            prop_assert_eq!(decode(&bytes), Ok(Frame { header, payload }));
        }

        #[test]
        fn any_truncation_is_torn(header in header(), payload in proptest::collection::vec(any::<u8>(), 0..80), cut in any::<proptest::sample::Index>()) {
            let bytes = encode(&header, &payload).unwrap();
            let cut = cut.index(bytes.len());
            let torn = matches!(decode(&bytes[..cut]), Err(FrameError::Torn { .. }));
            prop_assert!(torn, "cut at {}", cut);
        }

        #[test]
        fn any_bit_flip_is_detected(header in header(), payload in proptest::collection::vec(any::<u8>(), 0..80), at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = encode(&header, &payload).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err(), "bit {} of byte {}", bit, at);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let mut framed = MAGIC.to_vec();
            framed.extend_from_slice(&bytes);
            prop_assert!(decode(&framed).is_err());
        }

        #[test]
        fn parts_are_checked_as_one(payload in proptest::collection::vec(any::<u8>(), 0..200), cut in any::<proptest::sample::Index>()) {
            let cut = cut.index(payload.len() + 1);
            let header = FrameHeader::new(Uuid::nil(), 1, 0);
            let whole = encode_head(&header, &[&payload]).unwrap();
            let parts = encode_head(&header, &[&payload[..cut], &payload[cut..]]).unwrap();
            prop_assert_eq!(whole, parts);
        }
    }

    #[test]
    fn checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn unknown_header_fields_are_ignored_and_missing_ones_absent() {
        let json =
            br#"{"event_id":"018f0000-0000-7000-8000-000000000001","captured_ms":5,"from_the_future":[1]}"#;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(json.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&2_u32.to_le_bytes());
        let body = [json.as_slice(), b"{}"].concat();
        bytes.extend_from_slice(&crc32(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let frame = decode(&bytes).unwrap();
        assert_eq!(frame.header.captured_ms, 5);
        assert_eq!(frame.header.source, "hook");
        assert_eq!(frame.payload, b"{}");
    }

    #[test]
    fn lengths_over_their_limits_are_refused_before_anything_is_read() {
        let mut bytes = encode(&FrameHeader::new(Uuid::nil(), 0, 0), b"{}").unwrap();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes), Err(FrameError::TooLarge));
        let long =
            FrameHeader { app: Some("x".repeat(HEADER_LIMIT_BYTES)), ..FrameHeader::new(Uuid::nil(), 0, 0) };
        assert_eq!(encode(&long, b""), Err(FrameError::TooLarge));
    }
}
