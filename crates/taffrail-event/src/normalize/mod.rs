//! From what a source sent to an [`Event`](crate::Event). Never fails: what cannot be read becomes an issue.
//!
//! One pass finds the top-level fields of the payload and keeps them as slices of its text; only those
//! that a fact needs are parsed further, so that a 6 MB tool response costs no tree. Everything is linear
//! in the size of the payload. Limits: nesting [`DEPTH_MAX`], [`UNKNOWN_FIELDS_MAX`] unknown fields,
//! [`files::FILE_OPERATIONS_MAX`], [`git::GIT_OPERATIONS_MAX`], [`calls::BATCH_CALLS_MAX`].

pub mod calls;
pub mod error;
pub mod files;
pub mod git;
pub mod otlp;
pub mod result;
pub mod warnings;

mod build;
mod fields;
mod hook;
mod legacy;
mod shell;
mod summary;

use crate::event::Source;
use crate::ids::{EventId, TimestampMs};

pub use fields::DEPTH_MAX;
pub use hook::{UNKNOWN_FIELDS_MAX, hook};
pub use legacy::{LegacyPost, legacy};
pub(crate) use summary::line as one_line;

/// One delivery as a source handed it over, before it is understood.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Minted at capture, or derived from recorded bytes.
    pub event_id: EventId,
    /// Who delivers.
    pub source: Source,
    /// When it was captured, if the transport says so; the payload's own time wins.
    pub captured: Option<TimestampMs>,
    /// Now.
    pub received: TimestampMs,
    /// The project, if the sender set it.
    pub app: Option<&'a str>,
    /// Who ran the agent.
    pub user: Option<&'a str>,
    /// Where the agent ran.
    pub host: Option<&'a str>,
    /// The payload, already redacted.
    pub payload: &'a [u8],
    /// The payload's true size in bytes, before any cut.
    pub payload_bytes: u64,
    /// Whether the middle was left out.
    pub truncated: bool,
    /// Secrets replaced in it.
    pub redactions: u32,
    /// Time the hook client took, in microseconds.
    pub hook_wall_us: Option<u64>,
}
