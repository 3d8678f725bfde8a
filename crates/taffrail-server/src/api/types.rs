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

/// Tokens of one request or scope.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct TokenUsageJson {
    /// Fresh input tokens.
    pub input: i64,
    /// Output tokens.
    pub output: i64,
    /// Input tokens and output tokens together with the cache's.
    pub total: i64,
    /// US dollars; null where the price is unknown.
    pub cost_usd: Option<f64>,
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
    /// Tokens; null before a source tells them.
    pub tokens: Option<TokenUsageJson>,
    /// Cost; null before a source tells it.
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

/// Cost.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CostJson {
    /// US dollars in the window.
    pub total_usd: f64,
    /// US dollars an hour.
    pub cost_hourly_usd: f64,
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
/// number of frames a slow reader was spared.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FrameJson {
    /// `initial`, `event`, `analytics` or `dropped`.
    #[serde(rename = "type")]
    pub kind: String,
    /// By `type`.
    #[schema(value_type = Object)]
    pub data: Value,
}
