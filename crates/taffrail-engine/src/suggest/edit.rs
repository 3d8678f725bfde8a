//! The change of a file that a suggestion proposes, as data. Which file that is, and whether it may be changed, is for whoever
//! has files.
//!
//! Text for the agent is a fixed template with fields that are plain: a file's name is untrusted.

use serde::{Deserialize, Serialize};

/// The longest path or command that is named to the agent, in bytes.
const FIELD_MAX_BYTES: usize = 120;
/// The longest agent's or server's name that is written, in bytes.
const NAME_MAX_BYTES: usize = 64;

/// A list in the client's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleList {
    /// `permissions.allow`
    Allow,
    /// `permissions.deny`
    Deny,
    /// `disabledMcpjsonServers`
    DisabledMcp,
}

impl RuleList {
    /// Where the list stands in the settings.
    pub const fn path(self) -> &'static [&'static str] {
        match self {
            Self::Allow => &["permissions", "allow"],
            Self::Deny => &["permissions", "deny"],
            Self::DisabledMcp => &["disabledMcpjsonServers"],
        }
    }
}

/// What is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Edit {
    /// A variable under `env` of the project's `.claude/settings.json`.
    SettingsEnv {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// One more element of a list of the project's `.claude/settings.json`.
    SettingsList {
        /// Which list.
        list: RuleList,
        /// The element.
        value: String,
    },
    /// `model:` in the front matter of `.claude/agents/<agent_type>.md`.
    AgentModel {
        /// The file's name without its end.
        agent_type: String,
        /// The client's alias of a model.
        model: String,
    },
    /// A marked block of the project's `CLAUDE.md`.
    Note {
        /// Its lines.
        lines: Vec<String>,
    },
}

/// Whether a name of an agent or server is one that a file or a list may have.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX_BYTES
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// Whether a path may be named to the agent: no blanks, so no sentence; nothing that ends the quotes.
pub fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= FIELD_MAX_BYTES
        && path
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@' | '+' | '='))
}

/// Whether a command is one simple command of plain words: no quotes, expansions, pipes, redirections or lists. Only such a
/// one is written as a rule or named to the agent.
pub fn is_plain_command(command: &str) -> bool {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@' | '+' | '=' | ':' | ',' | ' ')
    };
    !command.is_empty()
        && command.len() <= FIELD_MAX_BYTES
        && command.chars().all(plain)
        && command.trim() == command
        && command.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/'))
        && !command.split(' ').next().is_some_and(|word| word.contains('='))
}
