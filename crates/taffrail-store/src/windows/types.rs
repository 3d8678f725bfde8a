//! What can be asked of the windows, and the shapes of the answers.
//!
//! Every figure is an `Option`: none where the subject cannot have it (see docs/ANALYTICS.md), or where there is nothing to
//! make it of (a quantile of no calls). A count that was possible and did not happen is 0.

use taffrail_analytics::Window;

use crate::filter::Scope;
use crate::summary::Quantiles;

/// What is looked at: a scope, or one tool, type of agent or model in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Whose figures.
    pub scope: Scope,
    /// Which part of them.
    pub part: Part,
}

/// A part of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// One tool, by its name.
    Tool(String),
    /// One type of agent (`main` for main agents); with a session, an agent of it by its id (`""` or `main`).
    Agent(String),
    /// One model, by its name in the ledger.
    Model(String),
}

/// By what series are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// One series.
    #[default]
    None,
    /// By app; the metrics that sum over apps.
    App,
    /// By user.
    User,
    /// By tool.
    Tool,
    /// By type of agent.
    Agent,
    /// By model.
    Model,
}

impl GroupBy {
    /// Every one, in the order of the API.
    pub const ALL: &[Self] = &[Self::None, Self::App, Self::User, Self::Tool, Self::Agent, Self::Model];

    /// The name in queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::App => "app",
            Self::User => "user",
            Self::Tool => "tool",
            Self::Agent => "agent",
            Self::Model => "model",
        }
    }

    /// The grouping of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|by| by.name() == name)
    }
}

/// Where a metric comes from, which tells which subjects have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Calls that ended: every subject but a model.
    Calls,
    /// Events and what hangs on them: no tool, no type of agent, no model.
    Events,
    /// Requests of the ledger: no tool.
    Requests,
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $family:ident,)+) => {
        /// A metric of DESIGN section 7, by its name in the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Metric {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Metric {
            /// Every metric.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in queries and answers; its unit is its last word.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Where it comes from.
            pub const fn family(self) -> Family {
                match self {
                    $(Self::$variant => Family::$family,)+
                }
            }
        }
    };
}

metrics! {
    /// Calls that ended.
    Calls "calls" Calls,
    /// Calls that succeeded.
    Succeeded "succeeded" Calls,
    /// Calls that failed.
    Failed "failed" Calls,
    /// Calls that were refused.
    Denied "denied" Calls,
    /// Calls that a person broke off.
    Interrupted "interrupted" Calls,
    /// Calls whose end nobody saw; they are not among the calls.
    Abandoned "abandoned" Calls,
    /// failed / (calls - denied - interrupted) * 100.
    ErrorRatePercent "error_rate_percent" Calls,
    /// succeeded / (calls - denied - interrupted) * 100.
    SuccessPercent "success_percent" Calls,
    /// denied / calls * 100.
    DeniedPercent "denied_percent" Calls,
    /// Mean wall time of the calls.
    ExecutionMsAvg "execution_ms_avg" Calls,
    /// Median wall time.
    ExecutionMsP50 "execution_ms_p50" Calls,
    /// 95th percentile of the wall time.
    ExecutionMsP95 "execution_ms_p95" Calls,
    /// 99th percentile of the wall time.
    ExecutionMsP99 "execution_ms_p99" Calls,
    /// calls / minutes.
    ThroughputPerMin "throughput_per_min" Calls,
    /// Calls in flight, time-weighted.
    ConcurrencyAvg "concurrency_avg" Calls,
    /// The most calls in flight at once.
    ConcurrencyMax "concurrency_max" Calls,
    /// Events of any kind.
    Events "events" Events,
    /// Prompts by a person.
    Prompts "prompts" Events,
    /// Compactions of a context.
    Compactions "compactions" Events,
    /// Mean time from an event to its commit.
    LatencyMsAvg "latency_ms_avg" Events,
    /// Median of it.
    LatencyMsP50 "latency_ms_p50" Events,
    /// 95th percentile of it.
    LatencyMsP95 "latency_ms_p95" Events,
    /// 99th percentile of it.
    LatencyMsP99 "latency_ms_p99" Events,
    /// File operations of every type.
    FileOperations "file_operations" Events,
    /// Files read.
    FileReads "file_reads" Events,
    /// Files written whole.
    FileWrites "file_writes" Events,
    /// Files edited.
    FileEdits "file_edits" Events,
    /// Files deleted.
    FileDeletes "file_deletes" Events,
    /// File operations / minutes.
    FileOperationsPerMin "file_operations_per_min" Events,
    /// Lines added by edits and writes.
    LinesAdded "lines_added" Events,
    /// Lines removed.
    LinesRemoved "lines_removed" Events,
    /// Git commands.
    GitOperations "git_operations" Events,
    /// Commits made.
    GitCommits "git_commits" Events,
    /// Lines that commits and merges inserted.
    GitInsertions "git_insertions" Events,
    /// Lines that they deleted.
    GitDeletions "git_deletions" Events,
    /// Branches that git commands named, each once.
    GitBranches "git_branches" Events,
    /// API requests.
    Requests "requests" Requests,
    /// Tokens sent that no cache knew.
    InputTokens "input_tokens" Requests,
    /// Tokens answered.
    OutputTokens "output_tokens" Requests,
    /// Tokens read from the cache.
    CacheReadTokens "cache_read_tokens" Requests,
    /// Tokens written to the cache.
    CacheWriteTokens "cache_write_tokens" Requests,
    /// All of these.
    TotalTokens "total_tokens" Requests,
    /// What requests with a known price cost.
    CostUsd "cost_usd" Requests,
    /// cost / hours.
    CostHourlyUsd "cost_hourly_usd" Requests,
    /// read / (read + write + input) * 100.
    CacheHitPercent "cache_hit_percent" Requests,
    /// Mean context of the requests: what they were asked with.
    ContextTokensAvg "context_tokens_avg" Requests,
    /// Mean duration of the requests that tell one.
    RequestMsAvg "request_ms_avg" Requests,
    /// 95th percentile of it.
    RequestMsP95 "request_ms_p95" Requests,
}

impl Metric {
    /// The metric of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|metric| metric.name() == name)
    }
}

/// Every metric of a subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// First millisecond of the window, and now.
    pub from_ms: i64,
    /// See `from_ms`.
    pub to_ms: i64,
    /// Where each step of the histories begins.
    pub t_ms: Vec<i64>,
    /// By metric, in the order of [`Metric::ALL`].
    pub figures: Vec<(Metric, Figure)>,
}

/// One metric of a subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// Over the window.
    pub value: Option<f64>,
    /// Over the window of the same length before it.
    pub previous: Option<f64>,
    /// (value - previous) / previous * 100; none where previous is none or 0.
    pub trend_percent: Option<f64>,
    /// Per step of the history, oldest first; empty where the metric has none.
    pub history: Vec<Option<f64>>,
}

/// One metric over time.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesQuery {
    /// What.
    pub metric: Metric,
    /// Over which window, in the steps of its history.
    pub window: Window,
    /// Told apart by this.
    pub group_by: GroupBy,
    /// Of what.
    pub subject: Subject,
}

/// Columns of a chart: `t_ms` and, per group, as many values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesRows {
    /// Where each step begins, in milliseconds since the Unix epoch; ascending.
    pub t_ms: Vec<i64>,
    /// The length of a step, in milliseconds.
    pub step_ms: i64,
    /// The largest groups first, at most [`SERIES_GROUPS_MAX`](crate::SERIES_GROUPS_MAX); the rest, where there is one, last as `(other)`.
    pub series: Vec<Series>,
    /// Groups that are in `(other)`.
    pub groups_cut: usize,
    /// The values are of a part of the rows only: there were more than [`SERIES_ROWS_MAX`](crate::SERIES_ROWS_MAX).
    pub rows_cut: bool,
}

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// The group; the metric's name where there is one series.
    pub name: String,
    /// Per step; none where there is nothing to show.
    pub values: Vec<Option<f64>>,
    /// Over the whole window, made of all that `values` are made of.
    pub total: Option<f64>,
}

/// Tools by time, and calls by weekday and hour.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatmapRows {
    /// Where each column begins.
    pub t_ms: Vec<i64>,
    /// The length of a column, in milliseconds.
    pub step_ms: i64,
    /// Most calls first, at most [`HEATMAP_TOOLS_MAX`](crate::HEATMAP_TOOLS_MAX); the rest last as `(other)`.
    pub tools: Vec<HeatmapTool>,
    /// Tools that are in `(other)`.
    pub tools_cut: usize,
    /// Monday first, then 24 hours, in UTC; only for windows of a day or longer.
    pub week: Option<Vec<HeatmapCell>>,
    /// As [`SeriesRows::rows_cut`].
    pub rows_cut: bool,
}

/// One row of the heatmap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatmapTool {
    /// The tool.
    pub tool_name: String,
    /// One cell per column.
    pub cells: Vec<HeatmapCell>,
}

/// One cell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct HeatmapCell {
    pub calls: i64,
    pub failed: i64,
    pub execution_ms_avg: Option<f64>,
}

/// The tools of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolsRows {
    /// Most calls first, at most [`TOOLS_MAX`](crate::TOOLS_MAX).
    pub tools: Vec<ToolStats>,
    /// Tools that are left out.
    pub tools_cut: usize,
    /// Calls of all tools, those left out too.
    pub calls: i64,
}

/// One tool in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolStats {
    /// Its name.
    pub tool_name: String,
    /// What became of its calls.
    pub calls: CallTotals,
    /// Its share of all calls.
    pub share_percent: f64,
    /// Wall time, in milliseconds.
    pub execution_ms: Quantiles,
    /// Its calls in the window before.
    pub previous_calls: i64,
    /// (calls - previous) / previous * 100; none where previous is 0.
    pub trend_percent: Option<f64>,
    /// Calls per step of the history, oldest first.
    pub history: Vec<i64>,
}

/// What became of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct CallTotals {
    /// Those that ended; the abandoned are not among them.
    pub ended: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub denied: i64,
    pub interrupted: i64,
    pub abandoned: i64,
    pub duration_ms_sum: i64,
    /// How many have a duration.
    pub duration_count: i64,
}

impl CallTotals {
    /// failed / (ended - denied - interrupted) * 100; none where nothing is left to divide by.
    pub fn error_rate_percent(&self) -> Option<f64> {
        let tried = self.ended - self.denied - self.interrupted;
        (tried > 0).then(|| self.failed as f64 / tried as f64 * 100.0)
    }
}

/// One type of agent in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentStats {
    /// `main`, the told type, or `subagent`; `(other)` for those beyond the limit of names.
    pub agent_type: String,
    /// Agents of it with an event in the window.
    pub agents: i64,
    /// What became of their calls.
    pub calls: CallTotals,
    /// Their share of all calls.
    pub share_percent: f64,
    /// Wall time, in milliseconds.
    pub execution_ms: Quantiles,
    /// Calls in the window before.
    pub previous_calls: i64,
    /// API requests.
    pub requests: i64,
    /// Tokens of all kinds.
    pub tokens: i64,
    /// What they cost; none where no request has a price.
    pub cost_nano_usd: Option<i64>,
}
