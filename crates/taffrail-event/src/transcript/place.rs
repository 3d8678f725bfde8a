//! What the path of a file tells of it: the client's layout under `projects/`.
//!
//! `<project>/<session>.jsonl`; subagents as `agent-<id>.jsonl` beside it (2.0), under `<session>/subagents/` and, of a
//! workflow, under `<session>/subagents/workflows/<run>/` with its `journal.jsonl` (2.1), each with `.meta.json`.

use crate::ids::{TimestampMs, bounded_id};

/// What the path of a file and its directory entry tell. A line's own ids win over these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// How it is read.
    pub kind: FileKind,
    /// The session its name tells.
    pub session_id: Option<String>,
    /// The subagent its name tells.
    pub agent_id: Option<String>,
    /// When the file was last changed: the time of what stands before its first time stamp.
    pub modified: Option<TimestampMs>,
}

/// The kinds of file a client writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileKind {
    /// Records, one a line or in an array.
    #[default]
    Transcript,
    /// `agent-<id>.meta.json`: one object about a subagent.
    AgentMeta,
    /// `journal.jsonl` of a workflow: which subagents it ran.
    Journal,
    /// A chat of the Gemini CLI: one document, rewritten whole.
    Gemini,
}

impl FileFacts {
    /// Of a path with either kind of slash; none where it is no file to be read. `modified` is left to the caller.
    pub fn of_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
        let (&name, folders) = parts.split_last()?;
        let subagents = folders.iter().rposition(|&folder| folder == "subagents");
        let parent = subagents.and_then(|at| at.checked_sub(1)).map(|at| bounded_id(folders[at]));
        let file = |kind, session_id, agent_id: Option<&str>| {
            Some(Self { kind, session_id, agent_id: agent_id.map(bounded_id), modified: None })
        };
        if let Some(agent) = name.strip_prefix("agent-").and_then(|rest| rest.strip_suffix(".meta.json")) {
            return file(FileKind::AgentMeta, parent, Some(agent));
        }
        if name == "journal.jsonl" && parent.is_some() {
            return file(FileKind::Journal, parent, None);
        }
        if folders.contains(&"chats") && folders.contains(&".gemini") && name.starts_with("session-") {
            return name.ends_with(".json").then(|| file(FileKind::Gemini, None, None)).flatten();
        }
        let stem = name.strip_suffix(".jsonl").or_else(|| name.strip_suffix(".json"))?;
        if stem.is_empty() || stem.ends_with(".meta") || stem.ends_with(".metadata") {
            return None;
        }
        match stem.strip_prefix("agent-").filter(|agent| !agent.is_empty()) {
            Some(agent) => file(FileKind::Transcript, parent, Some(agent)),
            None => file(FileKind::Transcript, parent.or_else(|| Some(bounded_id(stem))), None),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, kind: FileKind, session: Option<&str>, agent: Option<&str>) {
        let expected = FileFacts {
            kind,
            session_id: session.map(str::to_owned),
            agent_id: agent.map(str::to_owned),
            modified: None,
        };
        assert_eq!(FileFacts::of_path(path), Some(expected), "{path}");
    }

    #[test]
    fn the_layout_of_every_version_is_known() {
        check("/h/.claude/projects/-p/5e14.jsonl", FileKind::Transcript, Some("5e14"), None);
        check("/h/.claude/projects/-p/agent-b1f5.jsonl", FileKind::Transcript, None, Some("b1f5"));
        check("-p/5e14/subagents/agent-a4.jsonl", FileKind::Transcript, Some("5e14"), Some("a4"));
        check("-p/5e14/subagents/agent-a4.meta.json", FileKind::AgentMeta, Some("5e14"), Some("a4"));
        check(
            "-p/5e14/subagents/workflows/wf_1/agent-a4.jsonl",
            FileKind::Transcript,
            Some("5e14"),
            Some("a4"),
        );
        check("-p\\5e14\\subagents\\workflows\\wf_1\\journal.jsonl", FileKind::Journal, Some("5e14"), None);
        check("/h/.gemini/tmp/ab/chats/session-2026-01.json", FileKind::Gemini, None, None);
        check("journal.jsonl", FileKind::Transcript, Some("journal"), None);
        assert_eq!(FileFacts::of_path("-p/5e14/tool-results/x.txt"), None);
        assert_eq!(FileFacts::of_path("-p/x.metadata.json"), None);
        assert_eq!(FileFacts::of_path(""), None);
    }
}
