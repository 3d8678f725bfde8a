//! Request bodies within bounds: size, speed, and how far they may grow when decompressed.

use std::io::Read;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::config::Limits;
use crate::problem::Problem;

/// Bodies up to this size are worked on where they arrive; larger ones move to a blocking thread.
const INLINE_BYTES: usize = 64 * 1024;
/// How much room is made before a byte has come, whatever the length claims.
const FIRST_ROOM_BYTES: usize = 1 << 20;
/// A small body may grow by this much whatever its ratio.
const RATIO_FLOOR_BYTES: usize = 1 << 20;

/// Does small work at once, and larger work where it holds nobody up.
pub(crate) async fn inline_or_blocking<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= INLINE_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| Problem::Internal)
}

/// A body whose pieces come fast enough and stay within the limit.
pub(crate) struct Pieces<'a> {
    body: Body,
    limits: &'a Limits,
    began: Instant,
    got_bytes: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(body: Body, limits: &'a Limits) -> Self {
        Self { body, limits, began: Instant::now(), got_bytes: 0 }
    }

    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = tokio::time::timeout_at(self.deadline(), self.body.frame())
                .await
                .map_err(|_| Problem::SlowBody)?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|e| Problem::BadRequest(format!("the body could not be read: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            self.got_bytes += data.len();
            if self.got_bytes > self.limits.body_bytes {
                return Err(Problem::TooLarge { limit_bytes: self.limits.body_bytes });
            }
            return Ok(Some(data));
        }
    }

    /// Every byte buys time at the minimum rate, up to the total.
    fn deadline(&self) -> Instant {
        let bought_ms = self.got_bytes as u64 * 1000 / self.limits.body_min_rate.max(1);
        let allowed_ms = (self.limits.body_grace_ms + bought_ms).min(self.limits.body_total_ms);
        self.began + Duration::from_millis(allowed_ms)
    }
}

/// The whole body, decompressed if it says it is gzip.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Bytes, Problem> {
    let encoding = encoding(headers)?;
    let whole = read_plain(headers, body, limits).await?;
    match encoding {
        Encoding::Identity => Ok(whole),
        Encoding::Gzip => decompress(whole, limits).await,
    }
}

/// The whole body as it was sent.
pub(crate) async fn read_plain(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Bytes, Problem> {
    let claimed = content_length(headers).unwrap_or(0);
    if claimed > limits.body_bytes {
        return Err(Problem::TooLarge { limit_bytes: limits.body_bytes });
    }
    let mut pieces = Pieces::new(body, limits);
    let Some(first) = pieces.next().await? else { return Ok(Bytes::new()) };
    Ok(match pieces.next().await? {
        None => first,
        Some(second) => {
            let mut all = Vec::with_capacity(claimed.clamp(first.len(), FIRST_ROOM_BYTES.max(first.len())));
            all.extend_from_slice(&first);
            all.extend_from_slice(&second);
            while let Some(piece) = pieces.next().await? {
                all.extend_from_slice(&piece);
            }
            Bytes::from(all)
        }
    })
}

/// What was gzip, within the bounds.
pub(crate) async fn decompress(whole: Bytes, limits: &Limits) -> Result<Bytes, Problem> {
    let bounds = Bounds::of(whole.len(), limits);
    if whole.len() <= INLINE_BYTES / 8 {
        return gunzip(&whole, bounds);
    }
    tokio::task::spawn_blocking(move || gunzip(&whole, bounds)).await.map_err(|_| Problem::Internal)?
}

#[derive(Clone, Copy)]
struct Bounds {
    bytes: usize,
    problem: fn(usize) -> Problem,
    named: usize,
}

impl Bounds {
    fn of(compressed_bytes: usize, limits: &Limits) -> Self {
        let by_ratio = compressed_bytes.saturating_mul(limits.decompression_ratio).max(RATIO_FLOOR_BYTES);
        if by_ratio < limits.decompressed_bytes {
            Self { bytes: by_ratio, problem: Problem::TooCompressed, named: limits.decompression_ratio }
        } else {
            Self {
                bytes: limits.decompressed_bytes,
                problem: |limit_bytes| Problem::TooLarge { limit_bytes },
                named: limits.decompressed_bytes,
            }
        }
    }
}

fn gunzip(compressed: &[u8], bounds: Bounds) -> Result<Bytes, Problem> {
    let mut out = Vec::new();
    MultiGzDecoder::new(compressed)
        .take(bounds.bytes as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| Problem::BadRequest(format!("the body is no gzip: {e}")))?;
    if out.len() > bounds.bytes {
        return Err((bounds.problem)(bounds.named));
    }
    Ok(Bytes::from(out))
}

/// The encodings that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
}

/// What `Content-Encoding` says.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        other => Err(Problem::Encoding(other.chars().take(40).collect())),
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
