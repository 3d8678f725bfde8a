//! What comes out: stored rows as domain types. The server maps them to JSON.

use serde_json::{Map, Value};
use taffrail_event::event::CallStatus;
use taffrail_event::{EventId, RowId, TimestampMs};

/// Some rows and where to go on.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows, in the order of the call that read them.
    pub rows: Vec<T>,
    /// Pass this as the cursor of the next read; none where nothing follows. A page can be short, even empty,
    /// and still have one: a text search reads only so many rows at a time.
    pub next: Option<RowId>,
}

/// One stored event.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are those of `taffrail_event::Event`")]
pub struct StoredEvent {
    pub row_id: RowId,
    pub event_id: EventId,
    pub ts: TimestampMs,
    pub received: TimestampMs,
    /// `hook`, `legacy`, ...
    pub source: String,
    pub app: String,
    pub session_id: String,
    pub agent_id: Option<String>,
    pub agent_type: Option<String>,
    pub prompt_id: Option<String>,
    pub tool_use_id: Option<String>,
    pub user: Option<String>,
    pub host: Option<String>,
    pub model: Option<String>,
    pub type_name: String,
    pub tool_name: Option<String>,
    pub summary: String,
    pub metrics: StoredMetrics,
    pub error: Option<StoredError>,
    pub file_operations: Vec<StoredFileOperation>,
    /// In the order they ran.
    pub git_operations: Vec<StoredGitOperation>,
    /// For an event of a known tool call.
    pub tool_chain: Option<ToolChain>,
    pub warnings: Vec<StoredWarning>,
    /// `{"issue": "...", "detail": ...}` each.
    pub issues: Vec<Value>,
    /// With [`Payloads::With`](crate::Payloads::With) only.
    pub payload: Option<StoredPayload>,
    /// The true size of the payload, in bytes.
    pub payload_bytes: i64,
    pub payload_truncated: bool,
    pub redactions: i64,
    /// What the old contract's sender posted beside the payload; with payloads only.
    pub legacy: Option<Map<String, Value>>,
    /// `humanInTheLoopStatus`: pending, then what [`Store::respond`](crate::Store::respond) stored.
    pub human_in_the_loop_status: Option<Value>,
}

/// Figures of an event; none where no source told.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct StoredMetrics {
    pub execution_time_ms: Option<i64>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cache_read_tokens: Option<i64>,
    pub cache_write_5m_tokens: Option<i64>,
    pub cache_write_1h_tokens: Option<i64>,
    pub total_tokens: Option<i64>,
    pub cost_nano_usd: Option<i64>,
    pub context_size: Option<i64>,
    pub context_utilization: Option<f64>,
    pub compression_events: Option<i64>,
    pub output_bytes: Option<i64>,
    pub hook_wall_us: Option<i64>,
    pub agent_rss_bytes: Option<i64>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of `taffrail_event::event::ErrorInfo`")]
pub struct StoredError {
    pub class: String,
    pub message: String,
    pub stack_trace: Option<String>,
    pub recoverable: bool,
    pub retry_count: i64,
    pub fingerprint: String,
}

/// One file operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct StoredFileOperation {
    /// `read`, `write`, `edit` or `delete`.
    pub kind: String,
    pub path: String,
    pub size_bytes: Option<i64>,
    pub duration_ms: Option<i64>,
    pub lines_added: Option<i64>,
    pub lines_removed: Option<i64>,
}

/// One git command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StoredGitOperation {
    pub command: String,
    pub subcommand: String,
    pub branch: Option<String>,
    pub files_changed: Option<i64>,
    pub insertions: Option<i64>,
    pub deletions: Option<i64>,
    pub commit: Option<String>,
}

/// A call's neighbours among its agent's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolChain {
    /// The tool of the call that began before.
    pub previous_tool: Option<String>,
    /// The tool of the call that began after.
    pub next_tool: Option<String>,
    /// Whether its span overlaps another call of the same agent.
    pub is_parallel: bool,
}

/// A warning.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the fields are those of `taffrail_event::event::Warning`")]
pub struct StoredWarning {
    pub rule: String,
    pub severity: String,
    pub message: String,
}

/// A payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPayload {
    /// JSON text, or what was no JSON.
    pub text: String,
    /// Whether `text` is valid JSON.
    pub is_json: bool,
}

/// One tool call: its Pre and Post as one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StoredCall {
    /// Time-ordered by the first event seen of it; also the cursor of [`Reader::calls`](crate::Reader::calls).
    pub id: RowId,
    pub tool_use_id: Option<String>,
    pub app: String,
    pub user: Option<String>,
    pub session_id: String,
    pub agent_id: Option<String>,
    pub agent_type: Option<String>,
    pub tool_name: String,
    pub input_hash: i64,
    pub summary: String,
    pub status: CallStatus,
    /// None where only its end was seen and no duration tells.
    pub started: Option<TimestampMs>,
    /// None while running.
    pub ended: Option<TimestampMs>,
    /// Told by the client, else Post minus Pre.
    pub duration_ms: Option<i64>,
    pub start_event: Option<RowId>,
    pub end_event: Option<RowId>,
    pub error_type: Option<String>,
    pub tool_chain: ToolChain,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StoredSession {
    pub session_id: String,
    pub app: String,
    pub user: Option<String>,
    pub host: Option<String>,
    /// Its first working directory.
    pub cwd: Option<String>,
    pub model: Option<String>,
    pub start_source: Option<String>,
    /// First event.
    pub started: TimestampMs,
    /// Newest event.
    pub last_event: TimestampMs,
    /// SessionEnd, unless something happened after it.
    pub ended: Option<TimestampMs>,
    pub end_reason: Option<String>,
    pub events: i64,
    /// By a person.
    pub prompts: i64,
    pub calls: i64,
    pub failed_calls: i64,
    pub subagents: i64,
    pub compactions: i64,
    pub last_prompt: Option<String>,
    /// The client's own title of it.
    pub title: Option<String>,
    /// The newest branch.
    pub git_branch: Option<String>,
    pub client_version: Option<String>,
    /// The session it was forked from, where its lines show that.
    pub forked_from: Option<String>,
}

/// `active`, `idle` or `ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SessionState {
    Active,
    Idle,
    Ended,
}

impl SessionState {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Ended => "ended",
        }
    }
}

impl StoredSession {
    /// Ended, else active within [`ACTIVE_MS`](crate::ACTIVE_MS) of its newest event, else idle.
    pub fn state(&self, now: TimestampMs) -> SessionState {
        if self.ended.is_some() {
            SessionState::Ended
        } else if now.get() - self.last_event.get() <= crate::ACTIVE_MS {
            SessionState::Active
        } else {
            SessionState::Idle
        }
    }
}

/// One agent of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StoredAgent {
    pub session_id: String,
    /// None for the main agent.
    pub agent_id: Option<String>,
    pub agent_type: Option<String>,
    pub started: TimestampMs,
    /// SubagentStop, or the session's end; none while it runs.
    pub ended: Option<TimestampMs>,
    pub last_event: TimestampMs,
    pub events: i64,
    pub calls: i64,
    pub failed_calls: i64,
    /// What it was asked, in a few words.
    pub description: Option<String>,
    /// The call that started it.
    pub tool_use_id: Option<String>,
    /// The subagent that made that call; none where the main agent did, or where it is not known.
    pub parent_id: Option<String>,
}

/// What can be filtered by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FilterOptions {
    /// By name.
    pub apps: Vec<Facet>,
    /// By name.
    pub types: Vec<Facet>,
    /// By name.
    pub tools: Vec<Facet>,
    /// Newest first, at most [`SESSION_OPTIONS_MAX`](crate::SESSION_OPTIONS_MAX).
    pub sessions: Vec<SessionOption>,
}

/// One value and how many events have it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Facet {
    pub value: String,
    pub count: i64,
}

/// One session to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SessionOption {
    pub session_id: String,
    pub app: String,
    pub last_event: TimestampMs,
}

/// One session as it went: its agents, its calls and what happened beside them.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The session.
    pub session: StoredSession,
    /// Main agent first, then by start.
    pub agents: Vec<StoredAgent>,
    /// By begin, at most [`TIMELINE_MAX`].
    pub calls: Vec<StoredCall>,
    /// Events that are no tool calls (prompts, stops, compactions, ...), without payload, oldest first, at most
    /// [`TIMELINE_MAX`].
    pub marks: Vec<StoredEvent>,
    /// Whether older calls or marks were left out.
    pub cut: bool,
}

/// Calls, and marks, of one timeline, at most; the newest are kept.
pub const TIMELINE_MAX: usize = 5_000;

/// How big the database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct StoreSize {
    pub db_bytes: u64,
    pub wal_bytes: u64,
    /// Inside the file, to be reused.
    pub free_bytes: u64,
    pub events: i64,
    pub sessions: i64,
    pub schema_version: u32,
}

/// What the writer has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct WriterStats {
    pub stored: u64,
    pub duplicates: u64,
    /// Events that were not stored for an error of disk or data.
    pub failed: u64,
    /// Events given back by a full queue.
    pub refused: u64,
    pub commits: u64,
    /// Time of all commits with their syncs, in microseconds.
    pub commit_us: u64,
    pub commit_us_max: u64,
    pub last_commit_us: u64,
    /// Events waiting now.
    pub queue_events: u64,
    /// Their payloads, in bytes.
    pub queue_bytes: u64,
}
