//! The digest of a session: everything that needs the whole session, computed from its [`Trace`] at once.
//!
//! [`digest`] is a pure function of trace and [`Limits`]; whoever keeps aggregates keeps the last digest of each session and
//! adds the [`difference`] when it changes. Nothing in it depends on the present, so that a digest computed again from the
//! same rows is the same.
//!
//! Limits: every list and every set of keys is cut as [`Limits`] says, the largest kept, the rest counted under [`OTHER`] or in
//! [`Cut`]. Times outside of the years 1 to 9999 count as their edges; hours of a session beyond [`Limits::hours`] (a jumping
//! clock) count in the nearest hour kept.

pub(crate) mod book;
mod build;
mod contribution;
mod histogram;
pub(crate) mod shell;
pub(crate) mod view;

pub use contribution::*;
pub use histogram::{BINS_MAX, Histogram, HistogramError, HistogramSum, RELATIVE_ERROR, VALUE_MAX};
use serde::{Deserialize, Serialize};

use crate::collaboration::Collaboration;
use crate::context::ContextFacts;
use crate::failures::Failures;
use crate::files::Files;
use crate::quality::Quality;
use crate::sequences::Sequences;
use crate::trace::Trace;

/// Written beside stored digests: one of another version is computed again.
pub const DIGEST_VERSION: u32 = 1;

/// The longest part of a [`Key`], in bytes; a longer one is cut and ends in `~` and the hash of the whole.
pub const KEY_MAX_BYTES: usize = 512;

/// The longest tool name, in bytes, cut the same way.
pub const TOOL_MAX_BYTES: usize = 96;

/// The longest label, in bytes.
pub const LABEL_MAX_BYTES: usize = 400;

/// How much of a session is told; all are counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Distinct keys of a kind, the most frequent kept.
    pub keys: usize,
    /// Contributions of a kind: keys are left out until it holds.
    pub rows: usize,
    /// Distinct hours.
    pub hours: usize,
    /// Items of each list of facts.
    pub facts: usize,
    /// Agents told one by one.
    pub agents: usize,
    /// Points of a context curve.
    pub curve: usize,
    /// Where models compacted by themselves before, in tokens of context: what the prediction goes by.
    pub compaction_points: Vec<(String, i64)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keys: 1_000,
            rows: 10_000,
            hours: 1_000,
            facts: 50,
            agents: 200,
            curve: 300,
            compaction_points: Vec::new(),
        }
    }
}

/// What a session comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// [`DIGEST_VERSION`].
    pub version: u32,
    /// What is told of the session itself.
    pub facts: SessionFacts,
    /// What it adds to the aggregates, by (key, hour), no two of the same, none of them zero.
    pub contributions: Vec<Contribution>,
    /// What became of each failed call, by the call's place in the trace.
    pub resolutions: Vec<Resolution>,
}

/// What became of a failed call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// The row of the failed call.
    pub call: i64,
    /// The row of the call that resolved it.
    pub by: Option<i64>,
    /// From the failure to the end of that call, in milliseconds.
    pub resolution_ms: Option<i64>,
}

/// Everything told of one session; shapes are those of the API. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SessionFacts {
    /// The first and the last time of anything; none where there is nothing.
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    pub calls: u64,
    pub requests: u64,
    pub sequences: Sequences,
    pub collaboration: Collaboration,
    pub failures: Failures,
    pub files: Files,
    pub quality: Quality,
    pub context: ContextFacts,
    pub cut: Cut,
}

/// What was left out because of a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Keys counted under [`OTHER`].
    pub keys: u64,
    /// Hours counted in another.
    pub hours: u64,
    /// Items left out of lists of facts.
    pub facts: u64,
}

/// The digest of a trace.
pub fn digest(trace: &Trace, limits: &Limits) -> Digest {
    build::digest(trace, limits)
}
