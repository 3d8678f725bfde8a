//! A session as the analyses see it: plain rows, sorted by time, filled by whoever has them (the store, a replay).
//!
//! Times are milliseconds since the Unix epoch, UTC; durations milliseconds; money nano-dollars; sizes bytes. A trace
//! is what is known now: a later trace of the same session may have more rows, or better ones, anywhere.

use std::sync::Arc;

/// One session.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Trace {
    pub session_id: String,
    pub app: String,
    /// Empty where it is not known.
    pub user: String,
    /// The main agent first; rows name agents by their place here.
    pub agents: Vec<Agent>,
    /// By (`at_ms`, `id`).
    pub calls: Vec<Call>,
    /// By (`ts_ms`, `id`).
    pub requests: Vec<Request>,
    /// By `ts_ms`.
    pub marks: Vec<Mark>,
}

/// One agent of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Agent {
    /// Empty for the main agent.
    pub agent_id: String,
    /// `main` for the main agent; the told type, else `subagent`.
    pub agent_type: String,
    pub started_ms: i64,
    pub last_ms: i64,
    /// When it was seen to end.
    pub ended_ms: Option<i64>,
    /// The call that started it, where it is known.
    pub parent_tool_use_id: Option<String>,
}

/// What became of a call; the names are those of `taffrail-event`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Outcome {
    #[default]
    Running,
    Abandoned,
    Ended,
    Denied,
    Interrupted,
    Failed,
    Succeeded,
}

impl Outcome {
    /// Whether it counts as a call that ended: all but those that run and those whose end nobody saw.
    pub const fn has_ended(self) -> bool {
        !matches!(self, Self::Running | Self::Abandoned)
    }
}

/// One tool call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// Its row: ordered by time, unique.
    pub id: i64,
    /// Which of the trace's agents.
    pub agent: u32,
    /// The client's id of it.
    pub tool_use_id: Option<String>,
    /// The tool's name.
    pub tool: Arc<str>,
    /// When it began, else when it was first seen: what it is ordered by.
    pub at_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// How long the tool worked.
    pub duration_ms: Option<i64>,
    /// What became of it.
    pub outcome: Outcome,
    /// Hash of tool and input; 0 where the input is not known.
    pub input_hash: i64,
    /// Hash of what it gave back, its timings left out.
    pub result_hash: Option<i64>,
    /// Size of what it gave back.
    pub output_bytes: Option<i64>,
    /// The command, the path, the query: at most 240 characters.
    pub summary: String,
    /// Its failure.
    pub error: Option<Failure>,
    /// Files it touched.
    pub files: Vec<FileTouch>,
    /// Git commands it ran.
    pub git: Vec<GitTouch>,
}

/// How a call failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// `network`, `timeout`, `exit_code`, ...: a closed set, see `taffrail_event::normalize::error`.
    pub class: Arc<str>,
    /// Hash of class, tool and the message without its variable parts: 16 hex digits.
    pub fingerprint: String,
    /// Its head, for a person.
    pub message: String,
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FileAction {
    #[default]
    Read,
    Write,
    Edit,
    Delete,
}

/// One file touched by a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FileTouch {
    pub action: FileAction,
    pub path: Arc<str>,
    pub size_bytes: Option<i64>,
    pub lines_added: Option<u32>,
    pub lines_removed: Option<u32>,
}

/// One git command inside a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct GitTouch {
    pub subcommand: String,
    pub branch: Option<String>,
    pub files_changed: Option<u32>,
    pub insertions: Option<u32>,
    pub deletions: Option<u32>,
    /// Abbreviated id of the commit made.
    pub commit: Option<String>,
}

/// One API request of the ledger.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct Request {
    pub id: i64,
    pub agent: u32,
    pub ts_ms: i64,
    pub model: Arc<str>,
    pub input: i64,
    pub output: i64,
    pub cache_read: i64,
    pub cache_write_5m: i64,
    pub cache_write_1h: i64,
    /// None where no price is known.
    pub cost_nano_usd: Option<i64>,
    pub duration_ms: Option<i64>,
    /// The model's context window, in tokens.
    pub context_window: Option<i64>,
    /// `auxiliary`, `compact`, ... as telemetry tells; empty where it does not.
    pub query_source: String,
}

impl Request {
    /// Tokens of the context that it was asked with.
    pub const fn context(&self) -> i64 {
        self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h
    }
}

/// What happened beside calls and requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// When.
    pub ts_ms: i64,
    /// Which of the trace's agents.
    pub agent: u32,
    /// What.
    pub kind: MarkKind,
}

/// See [`Mark`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "variants are the client's own words; figures are tokens unless named")]
pub enum MarkKind {
    SessionStart,
    SessionEnd,
    /// By a person, or by the client's own notification.
    Prompt {
        human: bool,
    },
    Compaction {
        trigger: Option<String>,
        pre_tokens: Option<i64>,
        post_tokens: Option<i64>,
    },
    /// The client waits for a person's word on a call.
    PermissionRequest {
        tool: Arc<str>,
        input_hash: i64,
    },
    PermissionDenied {
        tool: Arc<str>,
        input_hash: i64,
    },
    /// The agent's turn ended: it waits for a prompt.
    Stop,
    /// The agent's turn ended on a failure of the API.
    StopFailure {
        class: Arc<str>,
    },
    SubagentStart,
    SubagentStop,
    /// An attempt at a request failed.
    ApiFailure {
        model: Option<String>,
        status_code: Option<i64>,
        /// After how many milliseconds it is tried again; none where it is not.
        retry_in_ms: Option<i64>,
        exhausted: bool,
    },
    Notification {
        kind: Option<String>,
    },
}
