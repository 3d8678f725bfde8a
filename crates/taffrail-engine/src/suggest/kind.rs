//! The kinds of suggestions, and how much evidence each needs.

use serde::{Deserialize, Serialize};

/// What is suggested. The order is that of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Pauses of 5 to 60 minutes lose the cache, and one-hour writes would cost less.
    CacheShortTtl,
    /// The cache is lost without a pause: the beginning of the prompt changes.
    CachePrefixChange,
    /// Sessions go on after more than an hour with their whole context.
    IdleCacheLoss,
    /// A subagent that only looks runs on an expensive model.
    ModelTooStrong,
    /// Many small subagents, each paying for its start.
    SubagentOveruse,
    /// Files are read again unchanged.
    RepeatedReads,
    /// Outputs of a tool fill the context.
    OutputFlood,
    /// New tasks begin in a nearly full context.
    OversizedContext,
    /// Compactions close to each other.
    CompactionChurn,
    /// A harmless command is approved every time.
    PermissionStall,
    /// A command is denied every time.
    PermissionDeniedRepeat,
    /// A command fails every time, and another one works.
    FailingCommand,
    /// The full test suite again and again.
    FullTestRuns,
    /// Calls far above the tool's own median.
    SlowTool,
    /// An MCP server that is configured and never called.
    UnusedMcp,
}

/// The least evidence: all of `hits` and `sessions`, and of dollars and time one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct Floor {
    pub hits: u64,
    pub sessions: u64,
    /// None where the saving is not known and need not be.
    pub saving: Option<(i64, i64)>,
}

/// A cent, in nano-dollars.
const CENT: i64 = 10_000_000;
/// A minute, in milliseconds.
const MINUTE: i64 = 60_000;

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::CacheShortTtl,
        Self::CachePrefixChange,
        Self::IdleCacheLoss,
        Self::ModelTooStrong,
        Self::SubagentOveruse,
        Self::RepeatedReads,
        Self::OutputFlood,
        Self::OversizedContext,
        Self::CompactionChurn,
        Self::PermissionStall,
        Self::PermissionDeniedRepeat,
        Self::FailingCommand,
        Self::FullTestRuns,
        Self::SlowTool,
        Self::UnusedMcp,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CacheShortTtl => "cache_short_ttl",
            Self::CachePrefixChange => "cache_prefix_change",
            Self::IdleCacheLoss => "idle_cache_loss",
            Self::ModelTooStrong => "model_too_strong",
            Self::SubagentOveruse => "subagent_overuse",
            Self::RepeatedReads => "repeated_reads",
            Self::OutputFlood => "output_flood",
            Self::OversizedContext => "oversized_context",
            Self::CompactionChurn => "compaction_churn",
            Self::PermissionStall => "permission_stall",
            Self::PermissionDeniedRepeat => "permission_denied_repeat",
            Self::FailingCommand => "failing_command",
            Self::FullTestRuns => "full_test_runs",
            Self::SlowTool => "slow_tool",
            Self::UnusedMcp => "unused_mcp",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The least evidence of this kind.
    pub const fn floor(self) -> Floor {
        let (hits, sessions, saving) = match self {
            Self::CacheShortTtl => (5, 2, Some((25 * CENT, i64::MAX))),
            Self::CachePrefixChange => (5, 2, Some((25 * CENT, i64::MAX))),
            Self::IdleCacheLoss => (3, 2, Some((50 * CENT, i64::MAX))),
            Self::ModelTooStrong => (20, 2, Some((25 * CENT, i64::MAX))),
            Self::SubagentOveruse => (10, 2, Some((25 * CENT, i64::MAX))),
            Self::RepeatedReads => (10, 2, Some((5 * CENT, MINUTE))),
            Self::OutputFlood => (5, 2, Some((10 * CENT, i64::MAX))),
            Self::OversizedContext => (5, 2, Some((50 * CENT, i64::MAX))),
            Self::CompactionChurn => (3, 1, None),
            Self::PermissionStall => (5, 2, Some((i64::MAX, MINUTE))),
            Self::PermissionDeniedRepeat => (4, 2, None),
            Self::FailingCommand => (4, 2, None),
            Self::FullTestRuns => (5, 2, Some((i64::MAX, 10 * MINUTE))),
            Self::SlowTool => (5, 2, Some((i64::MAX, MINUTE))),
            Self::UnusedMcp => (0, 5, None),
        };
        Floor { hits, sessions, saving }
    }

    /// What its metric counts, and of what.
    pub const fn metric(self) -> (&'static str, &'static str) {
        match self {
            Self::CacheShortTtl => ("contexts_rewritten_after_a_short_pause", "requests"),
            Self::CachePrefixChange => ("contexts_rewritten_without_a_pause", "requests"),
            Self::IdleCacheLoss => ("contexts_rewritten_after_an_hour", "requests"),
            Self::ModelTooStrong => ("requests_on_an_expensive_model", "requests_of_the_subagent"),
            Self::SubagentOveruse => ("small_subagents", "subagents"),
            Self::RepeatedReads => ("reads_of_unchanged_files", "reads"),
            Self::OutputFlood => ("floods", "calls"),
            Self::OversizedContext => ("prompts_in_a_nearly_full_context", "prompts"),
            Self::CompactionChurn => ("compactions_soon_after_another", "compactions"),
            Self::PermissionStall => ("approvals", "calls"),
            Self::PermissionDeniedRepeat => ("denials", "bash_calls"),
            Self::FailingCommand => ("failures", "bash_calls"),
            Self::FullTestRuns => ("repeated_full_runs", "test_runs"),
            Self::SlowTool => ("slow_calls", "calls"),
            Self::UnusedMcp => ("calls", "sessions"),
        }
    }

    /// How many chances each side of a comparison needs before an effect is told.
    pub const fn enough(self) -> u64 {
        match self {
            Self::CacheShortTtl | Self::CachePrefixChange | Self::IdleCacheLoss => 100,
            Self::PermissionDeniedRepeat | Self::FailingCommand => 50,
            Self::ModelTooStrong | Self::RepeatedReads | Self::OutputFlood | Self::SlowTool => 20,
            Self::SubagentOveruse | Self::OversizedContext | Self::PermissionStall => 5,
            Self::FullTestRuns | Self::UnusedMcp => 5,
            Self::CompactionChurn => 3,
        }
    }
}
