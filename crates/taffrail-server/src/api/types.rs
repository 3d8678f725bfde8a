//! The shapes of the native API: what leaves the house as JSON.
//!
//! Times are integer milliseconds UTC (`_ms`), sizes bytes, rates per minute, shares percent.
//! A figure that no source has told yet is null, never 0.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A page of a list. `next_cursor` is null on the last page; else it is the `cursor` of the next request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, newest first unless the route says otherwise.
    pub items: Vec<T>,
    /// Opaque; null where nothing follows.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// One stored event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventJson {
    /// Time-ordered row id, exact in JavaScript.
    pub id: i64,
    /// UUID of the delivery.
    pub event_id: String,
    /// When it happened.
    pub ts_ms: i64,
    /// When it was received.
    pub received_ms: i64,
    /// `hook`, `legacy`, ...
    pub source: String,
    /// The project.
    pub app: String,
    /// The agent's session.
    pub session_id: String,
    /// The subagent; absent for the main agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The subagent's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// The prompt this belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<String>,
    /// The tool call this belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_use_id: Option<String>,
    /// Who ran the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the agent ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The model, where the source names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `hook_event_name`: `PreToolUse`, `Stop`, ...; unknown names as they came.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The tool, for every event that concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// One line for a person.
    pub summary: String,
    /// Figures of this event.
    pub metrics: MetricsJson,
    /// The failure, if this event is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorJson>,
    /// Files read, written, edited or deleted.
    pub file_operations: Vec<FileOperationJson>,
    /// The git command that mattered most: the last that wrote history, else the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_operations: Option<GitOperationJson>,
    /// The tools before and after this one, of the same agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_chain: Option<ToolChainJson>,
    /// What a person should know of this event.
    pub warnings: Vec<WarningJson>,
    /// What could not be read (`{"issue": "...", "detail": ...}`); the payload still has it.
    #[schema(value_type = Vec<Object>)]
    pub issues: Vec<Value>,
    /// The raw payload after redaction: the JSON object as it came, or a string where it was none or is
    /// nested too deep to be interpreted.
    /// Absent where the request asked for `payload=false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<RawValue>>,
    /// The true size of the payload, in bytes.
    pub payload_bytes: i64,
    /// Whether the middle of the payload was left out.
    pub payload_truncated: bool,
    /// How many secrets were replaced.
    pub redactions: i64,
}

/// Figures of an event; null where no source told.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct MetricsJson {
    /// Wall time of the call.
    pub execution_time_ms: Option<i64>,
    /// Tokens and cost, once a source tells them.
    pub token_usage: Option<TokenUsageJson>,
    /// Context and process memory, once a source tells them.
    pub memory_usage: Option<MemoryUsageJson>,
    /// Size of the tool's output.
    pub output_bytes: Option<i64>,
    /// Time the hook client took, in microseconds.
    pub hook_wall_us: Option<i64>,
}

/// Tokens and cost of one request, as the event tells them. The request's row in the session's ledger has what all sources
/// together tell.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct TokenUsageJson {
    /// Fresh input tokens.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
    /// Read from the cache.
    pub cache_read: i64,
    /// Written to the five-minute cache.
    pub cache_write_5m: i64,
    /// Written to the one-hour cache.
    pub cache_write_1h: i64,
    /// All of them.
    pub total: i64,
    /// US dollars; null where the price is unknown.
    pub cost_usd: Option<f64>,
    /// How sure the cost is: `exact`, `repaired`, `lower_bound`, `estimated` or `unpriced`; null where it is not told.
    pub confidence: Option<String>,
}

/// Context and memory.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct MemoryUsageJson {
    /// Tokens in the context.
    pub context_size: Option<i64>,
    /// Share of the model's context window, 0 to 1.
    pub context_utilization: Option<f64>,
    /// Compactions.
    pub compression_events: Option<i64>,
    /// Resident memory of the agent process, in bytes.
    pub agent_rss_bytes: Option<i64>,
}

/// A failure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorJson {
    /// The class: `timeout`, `not_found`, `permission`, ...
    #[serde(rename = "type")]
    pub class: String,
    /// The message.
    pub message: String,
    /// The stack trace, if one was recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_trace: Option<String>,
    /// Whether trying again, or otherwise, can help.
    pub recoverable: bool,
    /// Attempts before this one.
    pub retry_count: i64,
    /// The same for failures that differ only in their variable parts.
    pub fingerprint: String,
}

/// One file operation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FileOperationJson {
    /// `read`, `write`, `edit` or `delete`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The path as the tool gave it.
    pub path: String,
    /// Size after the operation.
    pub size_bytes: Option<i64>,
    /// Wall time of the call.
    pub duration_ms: Option<i64>,
    /// Lines added.
    pub lines_added: Option<i64>,
    /// Lines removed.
    pub lines_removed: Option<i64>,
}

/// One git command.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GitOperationJson {
    /// As typed.
    pub command: String,
    /// `commit`, `push`, ...
    pub subcommand: String,
    /// The branch, where the output names it.
    pub branch: Option<String>,
    /// Files changed.
    pub files_changed: Option<i64>,
    /// Lines added.
    pub insertions: Option<i64>,
    /// Lines removed.
    pub deletions: Option<i64>,
    /// Abbreviated commit id.
    pub commit: Option<String>,
}

/// A call's neighbours among its agent's calls.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ToolChainJson {
    /// The tool of the call that began before.
    pub previous_tool: Option<String>,
    /// The tool of the call that began after.
    pub next_tool: Option<String>,
    /// Whether its span overlaps another call of the same agent.
    pub is_parallel: bool,
}

/// A warning.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WarningJson {
    /// The rule that spoke.
    pub rule: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// For a person.
    pub message: String,
}

/// One tool call: its Pre and Post as one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CallJson {
    /// Row id of the call.
    pub id: i64,
    /// The client's id; null in old payloads.
    pub tool_use_id: Option<String>,
    /// The project.
    pub app: String,
    /// The session.
    pub session_id: String,
    /// The subagent; null for the main agent.
    pub agent_id: Option<String>,
    /// The subagent's type.
    pub agent_type: Option<String>,
    /// The tool.
    pub tool_name: String,
    /// One line of its input.
    pub summary: String,
    /// `running`, `succeeded`, `failed`, `denied`, `interrupted`, `ended`, `abandoned`.
    pub status: String,
    /// When it began; null where only its end was seen and no duration tells.
    pub started_ms: Option<i64>,
    /// When it ended; null while running.
    pub ended_ms: Option<i64>,
    /// `duration_ms` of the client, else Post minus Pre.
    pub duration_ms: Option<i64>,
    /// Event id (row) of the PreToolUse.
    pub start_event: Option<i64>,
    /// Event id (row) of what ended it.
    pub end_event: Option<i64>,
    /// The error's class, if it failed.
    pub error_type: Option<String>,
    /// Its neighbours.
    pub tool_chain: ToolChainJson,
}

/// One session.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionJson {
    /// The client's session id.
    pub session_id: String,
    /// The project.
    pub app: String,
    /// Who ran it.
    pub user: Option<String>,
    /// Where it ran.
    pub host: Option<String>,
    /// Its first working directory.
    pub cwd: Option<String>,
    /// The model, where told.
    pub model: Option<String>,
    /// `startup`, `resume`, `clear`, `compact`, ...
    pub start_source: Option<String>,
    /// First event.
    pub started_ms: i64,
    /// Newest event.
    pub last_event_ms: i64,
    /// SessionEnd; null while it runs.
    pub ended_ms: Option<i64>,
    /// Reason of the SessionEnd.
    pub end_reason: Option<String>,
    /// `active` (an event in the last 5 minutes), `idle`, `ended`.
    pub state: String,
    /// Events stored.
    pub events: i64,
    /// Prompts by a person.
    pub prompts: i64,
    /// Tool calls.
    pub calls: i64,
    /// Of them, failed.
    pub failed_calls: i64,
    /// Subagents seen.
    pub subagents: i64,
    /// Compactions.
    pub compactions: i64,
    /// The newest prompt, shortened.
    pub last_prompt: Option<String>,
    /// The client's own title.
    pub title: Option<String>,
    /// The newest branch.
    pub git_branch: Option<String>,
    /// API requests in the ledger.
    pub requests: i64,
    /// Of them, those whose model has no known price: `cost_usd` does not hold them.
    pub unpriced_requests: i64,
    /// Tokens of all agents; null before any source has told of a request.
    pub tokens: Option<TokensJson>,
    /// US dollars of all agents; null where nothing is priced.
    pub cost_usd: Option<f64>,
    /// The least sure part of the cost: `exact`, `repaired`, `lower_bound`, `estimated` or `unpriced`; null without a
    /// request.
    pub confidence: Option<String>,
    /// Tokens in the main agent's context at its newest request.
    pub context_size: Option<i64>,
    /// Their share of the model's context window, 0 to 1.
    pub context_utilization: Option<f64>,
}

/// One agent of a session.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AgentJson {
    /// The subagent's id; null for the main agent.
    pub agent_id: Option<String>,
    /// Its type.
    pub agent_type: Option<String>,
    /// First event.
    pub started_ms: i64,
    /// SubagentStop, or the session's end; null while it runs.
    pub ended_ms: Option<i64>,
    /// Newest event.
    pub last_event_ms: i64,
    /// Events stored.
    pub events: i64,
    /// Tool calls.
    pub calls: i64,
    /// Of them, failed.
    pub failed_calls: i64,
    /// What it was asked, in a few words.
    pub description: Option<String>,
    /// The call that started it.
    pub tool_use_id: Option<String>,
    /// The subagent that started it; null where the main agent did, or nobody knows.
    pub parent_agent_id: Option<String>,
    /// API requests in the ledger.
    pub requests: i64,
    /// Tokens; null before any source has told of a request.
    pub tokens: Option<TokensJson>,
    /// US dollars; null where nothing is priced.
    pub cost_usd: Option<f64>,
}

/// What can be filtered by, with how often it occurs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FiltersJson {
    /// Projects, by name.
    pub apps: Vec<FacetJson>,
    /// Event types, by name.
    pub types: Vec<FacetJson>,
    /// Tools, by name.
    pub tools: Vec<FacetJson>,
    /// Newest sessions (at most 300).
    pub sessions: Vec<SessionFacetJson>,
}

/// One value and its count.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FacetJson {
    /// The value.
    pub value: String,
    /// Events with it.
    pub count: i64,
}

/// One session to choose from.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionFacetJson {
    /// The session.
    pub session_id: String,
    /// Its project.
    pub app: String,
    /// Newest event.
    pub last_event_ms: i64,
}

/// Everything about a window at a glance. A section is null where no source has told anything of that kind yet.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SummaryJson {
    /// The window.
    pub window: WindowJson,
    /// Tool calls and their times.
    pub performance: PerformanceJson,
    /// Tokens; null before any source has told of a request.
    pub tokens: Option<TokensJson>,
    /// Cost; null before any source has told of a request.
    pub cost: Option<CostJson>,
    /// Failures.
    pub errors: ErrorsJson,
    /// File operations.
    pub file_operations: FileOperationsJson,
    /// Git.
    pub git: GitJson,
    /// Context and memory.
    pub memory: MemoryJson,
    /// Quality.
    pub quality: QualityJson,
    /// Sessions and agents.
    pub sessions: SessionsJson,
}

/// The window of a summary. Its start is rounded down to a whole minute (hour for 7d and 30d).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WindowJson {
    /// `1m 5m 15m 1h 6h 24h 7d 30d`.
    pub name: String,
    /// First millisecond.
    pub from_ms: i64,
    /// One past the last millisecond: now.
    pub to_ms: i64,
    /// Length of one of the 30 steps of `history`.
    pub step_ms: i64,
    /// Events in the window, of any kind.
    pub events: i64,
}

/// Tool calls that ended in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PerformanceJson {
    /// How many.
    pub calls: i64,
    /// Their wall time.
    pub execution_ms: QuantilesJson,
    /// Calls a minute.
    pub throughput_per_min: f64,
    /// From the event's own time to committed.
    pub latency_ms: QuantilesJson,
    /// Calls in flight, time-weighted.
    pub concurrency_avg: f64,
    /// The most at once; null where the window holds too many calls to sweep.
    pub concurrency_max: Option<i64>,
    /// Change of the average wall time against the window before, in percent; null without one.
    pub trend_percent: Option<f64>,
    /// 30 equal steps, oldest first.
    pub history: Vec<StepJson>,
    /// By tool, most calls first (at most 50).
    pub tools: Vec<ToolJson>,
}

/// A distribution by sketch (1 % relative error); null where it is empty.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub struct QuantilesJson {
    pub avg: Option<f64>,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

/// One step of a history.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StepJson {
    /// Start of the step.
    pub t_ms: i64,
    /// Events of any kind.
    pub events: i64,
    /// Calls that ended.
    pub calls: i64,
    /// Of them, failed.
    pub failed: i64,
    /// Average wall time; null without calls.
    pub execution_ms_avg: Option<f64>,
    /// 95th percentile; null without calls.
    pub execution_ms_p95: Option<f64>,
    /// File operations.
    pub file_operations: i64,
}

/// One tool in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ToolJson {
    /// The tool.
    pub tool_name: String,
    /// Calls that ended.
    pub calls: i64,
    /// Of them, failed.
    pub failed: i64,
    /// Wall time.
    pub execution_ms: QuantilesJson,
}

/// Tokens of a window, session or agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct TokensJson {
    /// Fresh input tokens: neither read from the cache nor written to it.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
    /// Read from the cache.
    pub cache_read: i64,
    /// Written to the five-minute cache.
    pub cache_write_5m: i64,
    /// Written to the one-hour cache.
    pub cache_write_1h: i64,
    /// All of them.
    pub total: i64,
    /// read / (read + write + input) * 100; null where nothing was read or written.
    pub cache_hit_percent: Option<f64>,
}

/// Cost of a window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CostJson {
    /// US dollars; null where there were requests and not one has a price.
    pub total_cost_usd: Option<f64>,
    /// US dollars an hour.
    pub cost_hourly_usd: Option<f64>,
    /// Change of the cost an hour against the window before, in percent; null without one.
    pub trend_percent: Option<f64>,
    /// API requests.
    pub requests: i64,
    /// Of them, those whose model has no known price: their cost is in no figure.
    pub unpriced_requests: i64,
    /// How many requests are how sure.
    pub confidence: ConfidenceCountsJson,
    /// How many US dollars are how sure.
    pub cost_by_confidence: ConfidenceCostsJson,
    /// 30 equal steps, oldest first. A step shorter than 15 minutes is exact; a longer one begins at a quarter of an hour.
    pub history: Vec<CostStepJson>,
}

/// One step of a history of cost.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CostStepJson {
    /// Start of the step.
    pub t_ms: i64,
    /// API requests.
    pub requests: i64,
    /// All their tokens.
    pub tokens: i64,
    /// US dollars; null where there were requests and not one has a price.
    pub cost_usd: Option<f64>,
}

/// Requests by how sure their cost is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConfidenceCountsJson {
    /// The client's own final usage, priced.
    pub exact: i64,
    /// Seen with provisional usage, completed from another source.
    pub repaired: i64,
    /// Provisional usage only: the true cost is at least this.
    pub lower_bound: i64,
    /// Derived from the client's running total, not from a request.
    pub estimated: i64,
    /// The model has no known price: the cost is not known, and not 0.
    pub unpriced: i64,
}

/// US dollars by how sure they are; what is unpriced has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[allow(missing_docs, reason = "as `ConfidenceCountsJson`")]
pub struct ConfidenceCostsJson {
    pub exact: f64,
    pub repaired: f64,
    pub lower_bound: f64,
    pub estimated: f64,
}

/// A sum of API requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct CostTotalsJson {
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_5m_tokens: i64,
    pub cache_write_1h_tokens: i64,
    /// All of them.
    pub total_tokens: i64,
    /// Run by the vendor.
    pub web_searches: i64,
    /// API requests; what is only derived from the client's total is none.
    pub requests: i64,
    /// US dollars of those that have a price; null where there were requests and not one has.
    pub cost_usd: Option<f64>,
    /// How many requests are how sure.
    pub confidence: ConfidenceCountsJson,
    /// How many US dollars are how sure.
    pub cost_by_confidence: ConfidenceCostsJson,
    /// Earliest request.
    pub first_ms: Option<i64>,
    /// Latest request.
    pub last_ms: Option<i64>,
}

/// A model of which requests were seen and no price is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnpricedModelJson {
    /// The model as its source names it.
    pub model: String,
    /// Its requests without a price.
    pub requests: i64,
    /// All their tokens.
    pub total_tokens: i64,
}

/// A frame `cost` of the stream: sessions whose ledger changed since the last one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct CostFrameJson {
    /// Sessions whose ledger changed, those with the newest request first (at most 100).
    pub sessions: Vec<SessionCostJson>,
    /// Models without a price among what changed, by name.
    pub unpriced_models: Vec<String>,
    /// Sessions that changed beyond those: read them anew.
    pub more_sessions: usize,
}

/// What a session has cost, and what that was a moment ago.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct SessionCostJson {
    /// The session.
    pub session_id: String,
    /// Its project.
    pub app: String,
    /// US dollars of the whole session; null where there were requests and not one has a price.
    pub cost_usd: Option<f64>,
    /// By how much that changed since the last frame that named the session.
    pub delta_usd: f64,
    /// API requests of the whole session.
    pub requests: i64,
    /// Of them, new since then.
    pub new_requests: i64,
    /// The least sure part of the cost: `exact`, `repaired`, `lower_bound`, `estimated` or `unpriced`.
    pub confidence: String,
}

/// Failures in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorsJson {
    /// Calls that failed.
    pub failed: i64,
    /// failed / (calls - denied - interrupted) * 100; 0 without calls.
    pub error_rate_percent: f64,
    /// `healthy` < 1 <= `warning` < 5 <= `critical`.
    pub status: String,
    /// Change of the rate against the window before, in percentage points; null without one.
    pub trend_points: Option<f64>,
    /// By class, most frequent first.
    pub by_type: Vec<FacetJson>,
}

/// File operations in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FileOperationsJson {
    pub total: i64,
    pub per_min: f64,
    pub read: i64,
    pub write: i64,
    pub edit: i64,
    pub delete: i64,
    pub lines_added: i64,
    pub lines_removed: i64,
}

/// Git in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub struct GitJson {
    pub operations: i64,
    pub commits: i64,
    pub insertions: i64,
    pub deletions: i64,
}

/// Context and memory in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MemoryJson {
    /// Compactions.
    pub compactions: i64,
    /// Newest context size, in tokens; null before a source tells it.
    pub context_size: Option<i64>,
    /// Its share of the model's window; null before a source tells it.
    pub context_utilization: Option<f64>,
}

/// Quality in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QualityJson {
    /// succeeded / calls that ended by themselves * 100; null without calls.
    pub success_percent: Option<f64>,
    /// denied / calls * 100; null without calls.
    pub denied_percent: Option<f64>,
    /// Calls refused.
    pub denied: i64,
    /// Calls stopped by a person.
    pub interrupted: i64,
}

/// Sessions in the window.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionsJson {
    /// Sessions with an event in the window.
    pub seen: i64,
    /// Sessions with an event in the last 5 minutes and no end.
    pub active: i64,
    /// Agents with an event in the last 5 minutes and no end.
    pub active_agents: i64,
    /// Prompts by a person in the window.
    pub prompts: i64,
}

/// A frame of the WebSocket `/stream`: `{"type": ..., "data": ...}`.
///
/// `initial` (an array, oldest first) and `event` carry the old contract's event; with `?format=native` an
/// [`EventJson`] without its payload. `analytics` is a [`SummaryJson`] of the last minute every 5 s, `dropped` the
/// number of frames a slow reader was spared. `cost`, with `?format=native` only, is a [`CostFrameJson`]: what the ledger
/// took in, at most 5 times a second.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FrameJson {
    /// `initial`, `event`, `analytics`, `cost`, `anomaly` or `dropped`.
    #[serde(rename = "type")]
    pub kind: String,
    /// By `type`.
    #[schema(value_type = Object)]
    pub data: Value,
}
