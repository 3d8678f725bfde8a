//! What stands beside the transcripts of subagents: `agent-<id>.meta.json`, and the `journal.jsonl` of a workflow,
//! whose lines (`started`, `result`) name the subagents it ran and carry no usage.

use super::lenient::Text;
use super::parser::Parser;
use super::record::{Meta, Record};
use super::{AgentSighting, FileFacts};
use crate::ids::bounded_id;
use crate::normalize::one_line;

/// The type of a workflow's subagents, as the client's own `.meta.json` calls it.
const WORKFLOW_AGENT_TYPE: &str = "workflow-subagent";

/// What `agent-<id>.meta.json` tells; none where it is no JSON object or no subagent is known to be meant.
pub fn parse_meta(file: &FileFacts, bytes: &[u8]) -> Option<AgentSighting> {
    let bytes = bytes.trim_ascii();
    let meta: Meta<'_> = serde_json::from_slice(bytes).ok().filter(|_| bytes.starts_with(b"{"))?;
    let named = |text: &Text<'_>| text.get().map(bounded_id);
    Some(AgentSighting {
        session_id: file.session_id.clone().unwrap_or_else(|| "unknown".to_owned()),
        agent_id: file.agent_id.clone()?,
        agent_type: named(&meta.agent_type),
        description: meta.description.get().map(one_line),
        tool_use_id: named(&meta.tool_use_id),
        first: None,
        last: None,
    })
}

/// One line of a workflow's journal.
pub(super) fn line(parser: &mut Parser, record: &Record<'_>) {
    if !matches!(record.kind.get(), Some("started" | "result" | "error" | "failed")) {
        parser.facts.counts.unknown += 1;
    }
    let Some(agent_id) = record.agent_id.get().map(bounded_id) else { return };
    let session_id = parser.session_of(record);
    parser.agent_seen(AgentSighting {
        session_id,
        agent_id,
        agent_type: Some(WORKFLOW_AGENT_TYPE.to_owned()),
        ..AgentSighting::default()
    });
}
