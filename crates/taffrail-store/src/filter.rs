//! What is asked for: filters, scopes and windows.

use taffrail_event::TimestampMs;

/// Which events; every given part must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// The project.
    pub app: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The event's own name.
    pub type_name: Option<String>,
    /// The tool.
    pub tool: Option<String>,
    /// The subagent; `""` is the main agent.
    pub agent: Option<String>,
    /// A piece of summary, type, tool or app, in any case (ASCII).
    pub q: Option<String>,
    /// First millisecond.
    pub from: Option<TimestampMs>,
    /// One past the last millisecond.
    pub to: Option<TimestampMs>,
}

/// Whether rows come with payload and legacy fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    /// With: they are read and decompressed.
    With,
    /// Without.
    Without,
}

/// Which calls; every given part must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// The project.
    pub app: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// The subagent; `""` is the main agent.
    pub agent: Option<String>,
    /// The tool.
    pub tool: Option<String>,
    /// The status by its name in the API.
    pub status: Option<String>,
    /// First millisecond of its first event.
    pub from: Option<TimestampMs>,
    /// One past the last millisecond of its first event.
    pub to: Option<TimestampMs>,
}

/// Which sessions; every given part must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// The project.
    pub app: Option<String>,
    /// Who ran it.
    pub user: Option<String>,
    /// Newest event at or after this.
    pub from: Option<TimestampMs>,
    /// First event before this.
    pub to: Option<TimestampMs>,
}

/// Whose figures a summary shows. With a session, app and user are not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The project.
    pub app: Option<String>,
    /// Who ran the agent.
    pub user: Option<String>,
    /// The session.
    pub session: Option<String>,
}
