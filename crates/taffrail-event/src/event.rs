//! The one event that passes through the house.
//!
//! An [`Event`] is an envelope that every source can fill and one [`Fact`]: what happened. It also carries
//! what normalization drew out of the fact (file and git operations, the error, warnings) and the raw payload.
//! The JSON shape served by the API lives in the server crate.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::ids::{DedupKey, EventId, TimestampMs};
use crate::ledger::{FailureSighting, RequestSighting};

/// Where an event came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Source {
    Hook,
    Otlp,
    Transcript,
    Legacy,
    Codex,
    Gemini,
    Opencode,
}

impl Source {
    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Otlp => "otlp",
            Self::Transcript => "transcript",
            Self::Legacy => "legacy",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Opencode => "opencode",
        }
    }
}

/// How an event reached the house.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// As it happened, or from the spool as soon as a server ran: the time until it is committed is a delay.
    #[default]
    Live,
    /// From a recording: the time since it happened says nothing about this house.
    Recorded,
}

/// One event, normalized. `ts` is when it happened as the source says, else when it was received.
#[derive(Clone, Debug)]
pub struct Event {
    /// The id of this delivery.
    pub event_id: EventId,
    /// What makes another delivery the same event.
    pub dedup_key: DedupKey,
    /// When it happened, as the source says; the time of receipt where it says nothing.
    pub ts: TimestampMs,
    /// When this house received it.
    pub received: TimestampMs,
    /// Who delivered it.
    pub source: Source,
    /// Live, or from a recording.
    pub arrival: Arrival,
    /// The project (`source_app` of the old server).
    pub app: String,
    /// The agent's session; `"unknown"` where the payload has none.
    pub session_id: String,
    /// The subagent inside the session; none for the main agent.
    pub agent_id: Option<String>,
    /// The subagent's type; empty for the compaction agent.
    pub agent_type: Option<String>,
    /// The prompt this belongs to.
    pub prompt_id: Option<String>,
    /// The tool call this belongs to.
    pub tool_use_id: Option<String>,
    /// Who ran the agent.
    pub user: Option<String>,
    /// Where the agent ran.
    pub host: Option<String>,
    /// The agent's working directory.
    pub cwd: Option<String>,
    /// The model, where the source names it.
    pub model: Option<String>,
    /// The event's own name: `hook_event_name`, or `hook_event_type` of the old server.
    pub type_name: String,
    /// The tool, for every event that concerns one.
    pub tool_name: Option<String>,
    /// One line for a person (at most [`SUMMARY_MAX_CHARS`]): the prompt, the command, the path, the error.
    pub summary: String,
    /// What happened.
    pub fact: Fact,
    /// Figures drawn from the fact.
    pub metrics: Metrics,
    /// The failure, if this event is one.
    pub error: Option<ErrorInfo>,
    /// Files read, written, edited or deleted.
    pub file_operations: Vec<FileOperation>,
    /// Git commands run, in order.
    pub git_operations: Vec<GitOperation>,
    /// What a person should know of this event.
    pub warnings: Vec<Warning>,
    /// What normalization could not read; the raw payload still has it.
    pub issues: Vec<Issue>,
    /// The payload as it came, redacted; never interpreted again.
    pub payload: Payload,
    /// The API request this event tells of; the ledger takes it in with the event.
    pub request: Option<Box<RequestSighting>>,
    /// The failed API request this event tells of.
    pub failure: Option<Box<FailureSighting>>,
    /// What the sender's resource attributes say beside the known ones (`department`, `team.id`, ...): labels of the
    /// session, by key.
    pub labels: Vec<(String, String)>,
    /// What the old server's sender posted beside the payload (top level of its JSON), and what only it has.
    pub legacy: Option<Legacy>,
}

/// The longest summary, in characters.
pub const SUMMARY_MAX_CHARS: usize = 240;

/// The raw payload: JSON text where it was JSON, else the bytes as lossy text.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// The text that is stored and shown.
    pub text: String,
    /// Whether `text` is valid JSON.
    pub is_json: bool,
    /// The true size of what came, in bytes, before any cut.
    pub original_bytes: u64,
    /// Whether head and tail were kept and the middle was left out.
    pub truncated: bool,
    /// How many secrets were replaced in it.
    pub redactions: u32,
}

/// What the old contract's `POST /events` carries beside the payload.
#[derive(Clone, Debug, Default)]
pub struct Legacy {
    /// Every top-level field but the ones the event itself holds (`source_app`, `session_id`, `hook_event_type`,
    /// `payload`, `timestamp`), in the order posted: `chat`, `summary`, `humanInTheLoop`, `model_name` and
    /// whatever else; unknown ones survive a reload.
    pub fields: Map<String, Value>,
}

/// What happened. Tool facts share [`ToolRef`].
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "variants and fields are Claude Code's own names")]
pub enum Fact {
    SessionStart {
        start_source: Option<String>,
    },
    Setup {
        trigger: Option<String>,
    },
    SessionEnd {
        reason: Option<String>,
    },
    Prompt {
        origin: PromptOrigin,
    },
    PromptExpansion {
        command_name: Option<String>,
    },
    /// PreToolUse.
    ToolStart(ToolRef),
    /// PostToolUse, PostToolUseFailure.
    ToolEnd(ToolRef, ToolOutcome),
    PermissionRequest(ToolRef),
    PermissionDenied(ToolRef),
    /// PostToolBatch: the only sign of a call that was denied, invalid or interrupted.
    ToolBatch(Vec<BatchedCall>),
    Notification {
        notification_type: Option<String>,
    },
    MessageDisplay,
    SubagentStart,
    /// `compaction` marks the lone stop with an empty agent type that a compaction sends.
    SubagentStop {
        compaction: bool,
    },
    TaskCreated {
        task_id: Option<String>,
    },
    TaskCompleted {
        task_id: Option<String>,
    },
    Stop,
    StopFailure,
    TeammateIdle,
    InstructionsLoaded,
    ConfigChange,
    CwdChanged,
    DirectoryAdded,
    FileChanged,
    WorktreeCreate,
    WorktreeRemove,
    PreCompact,
    PostCompact,
    Elicitation,
    ElicitationResult,
    /// A log record of the client's telemetry that ends a call: weaker than the call's own Post.
    ToolTold(ToolRef, ToolOutcome),
    /// Any other log record of the client's telemetry.
    Telemetry,
    /// A name this version does not know: stored raw, counted, shown.
    Unknown,
    /// Bytes that are no JSON object: stored as what they are, and marked.
    Malformed,
}

/// Who wrote a prompt: UserPromptSubmit also fires for the client's own notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PromptOrigin {
    Human,
    TaskNotification,
}

/// The tool call an event speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRef {
    /// The tool's name, `mcp__server__tool` for an MCP tool.
    pub tool_name: String,
    /// The client's id of the call; old payloads have none.
    pub tool_use_id: Option<String>,
    /// First eight bytes of SHA-256 over tool name and canonical input: pairs calls that have no id, and finds repeats.
    pub input_hash: i64,
}

/// How a call ended, by its own Post event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolOutcome {
    /// What became of it.
    pub status: CallStatus,
    /// `duration_ms` of the event, where it has one.
    pub duration_ms: Option<u64>,
}

/// One call of a PostToolBatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchedCall {
    /// Which call.
    pub tool: ToolRef,
    /// What the batch says of it; a call's own Post event always knows better.
    pub status: CallStatus,
}

/// The state of a tool call. Later knowledge replaces earlier by [`CallStatus::rank`], so order of arrival is no matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallStatus {
    /// Begun, and no end seen.
    Running,
    /// Its agent or session ended and no end was seen.
    Abandoned,
    /// Seen in a batch, with a result that tells no more.
    Ended,
    /// Refused by a person, a hook, a rule or the client.
    Denied,
    /// Stopped by a person.
    Interrupted,
    /// Ended with an error.
    Failed,
    /// Ended well.
    Succeeded,
}

impl CallStatus {
    /// Every status, weakest evidence first.
    pub const ALL: &[Self] = &[
        Self::Running,
        Self::Abandoned,
        Self::Ended,
        Self::Denied,
        Self::Interrupted,
        Self::Failed,
        Self::Succeeded,
    ];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Abandoned => "abandoned",
            Self::Ended => "ended",
            Self::Denied => "denied",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.name() == name)
    }
}

/// What an event tells about one tool call; the store merges updates into the `tool_calls` table.
///
/// Merging is commutative and idempotent: evidence of a higher rank wins, and `started`, `ended` and `duration_ms`
/// are filled once. Ranks: own Post event 4, PermissionDenied and telemetry 3, PostToolBatch 2, the end of its agent or session 1, Pre 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallUpdate {
    /// Which call.
    pub tool: ToolRef,
    /// What is now known of it.
    pub status: CallStatus,
    /// How good the evidence is.
    pub rank: u8,
    /// When it began, if this event says so.
    pub started: Option<TimestampMs>,
    /// When it ended, if this event says so.
    pub ended: Option<TimestampMs>,
    /// How long it took by the client's own clock, in milliseconds.
    pub duration_ms: Option<u64>,
}

/// Which open calls an event ends without naming them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosesCalls {
    /// None.
    None,
    /// Those of the event's own agent (SubagentStop, Stop).
    OfAgent,
    /// Those of every agent of the session (SessionEnd).
    OfSession,
}

/// Figures of the seed schema that an event can carry. Tokens and cost come with the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Wall time of the tool call, in milliseconds.
    pub execution_time_ms: Option<u64>,
    /// Resident memory of the agent process, in bytes.
    pub agent_rss_bytes: Option<u64>,
    /// Compactions this event stands for (1 for PostCompact).
    pub compression_events: Option<u32>,
    /// Size of the tool's output, in bytes of JSON.
    pub output_bytes: Option<u64>,
    /// Hash of what the tool gave back, its own timings left out: see `normalize::result::hash`.
    pub result_hash: Option<i64>,
    /// Time the hook client itself took, in microseconds.
    pub hook_wall_us: Option<u64>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorInfo {
    /// The class, a closed set of names: see `normalize::error`.
    pub class: &'static str,
    /// The message, cut at [`ERROR_MESSAGE_MAX_BYTES`].
    pub message: String,
    /// The stack trace inside the message, if one is recognised.
    pub stack_trace: Option<String>,
    /// Whether trying again, or otherwise, can help.
    pub recoverable: bool,
    /// Attempts before this one, where the source tells.
    pub retry_count: u32,
    /// Hash of class, tool and the message without its variable parts, 16 hex digits.
    pub fingerprint: String,
}

/// The longest error message kept beside the payload, in bytes.
pub const ERROR_MESSAGE_MAX_BYTES: usize = 8 * 1024;

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum FileOperationKind {
    Read,
    Write,
    Edit,
    Delete,
}

impl FileOperationKind {
    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Delete => "delete",
        }
    }
}

/// One file operation, taken from a Post event (what was done, not what was asked).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct FileOperation {
    pub kind: FileOperationKind,
    pub path: String,
    pub size_bytes: Option<u64>,
    pub duration_ms: Option<u64>,
    pub lines_added: Option<u32>,
    pub lines_removed: Option<u32>,
}

/// One git command inside a Bash call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct GitOperation {
    /// The command as typed, cut at 1,024 bytes.
    pub command: String,
    /// `commit`, `push`, `checkout`, ...
    pub subcommand: String,
    pub branch: Option<String>,
    pub files_changed: Option<u32>,
    pub insertions: Option<u32>,
    pub deletions: Option<u32>,
    /// Abbreviated id of the commit made, from the command's own output.
    pub commit: Option<String>,
}

/// How much a warning matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a person should know of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Warning {
    pub rule: String,
    pub severity: Severity,
    pub message: String,
}

/// What normalization could not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "issue", content = "detail")]
pub enum Issue {
    /// The bytes are no JSON; the detail is the parser's word.
    NotJson(String),
    /// JSON, but no object.
    NotAnObject,
    /// A required field is missing or has another type.
    BadField(String),
    /// The bytes held invalid UTF-8, replaced in the stored text.
    InvalidUtf8,
    /// Nested deeper than the limit: stored raw, not interpreted.
    TooDeep,
    /// The payload was cut before it came here.
    Truncated,
    /// The payload has no time of its own.
    NoTimestamp,
    /// A time outside what can be stored, clamped; the detail is what it said.
    ClampedTimestamp(i64),
    /// A field this version does not know; the detail is its name.
    UnknownField(String),
    /// An event name this version does not know.
    UnknownEvent(String),
}
