//! From the bytes of a client's transcript to facts: [`Parser`] takes them in any chunking, in one or several sittings,
//! and gives [`Facts`].
//!
//! [`decode`] finds the records, `record` says how they lie in the file, `lines` what each type of them tells. Nothing
//! fails: what is no JSON and what is of no known type is counted.

mod journal;
mod lenient;
mod lines;
mod parser;
mod place;
mod prompts;
mod quick;
mod record;

pub mod calls;
pub mod decode;
pub mod gemini;

pub use decode::OBJECT_MAX_BYTES;
pub use journal::parse_meta;
pub use parser::Parser;
pub use place::{FileFacts, FileKind};

use crate::ids::TimestampMs;
use crate::ledger::{ClientTotal, FailureSighting, RequestSighting, Usage};

/// What was drawn out of some lines of one file; the store takes it in one transaction with the file's new place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// API requests.
    pub requests: Vec<RequestSighting>,
    /// Failed attempts (`system/api_error`).
    pub failures: Vec<FailureSighting>,
    /// Prompts, compactions and what else has a moment.
    pub marks: Vec<Mark>,
    /// Sessions seen, one entry each.
    pub sessions: Vec<SessionSighting>,
    /// Subagents seen, one entry each.
    pub agents: Vec<AgentSighting>,
    /// The client's own totals; of one session the last counts.
    pub totals: Vec<ClientTotal>,
    /// Counts of these lines alone.
    pub counts: Counts,
}

/// Something with a moment in a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// The line's `uuid`, else a hash of the line: what makes another telling the same.
    pub key: String,
    /// The session.
    pub session_id: String,
    /// When its file was begun, as of [`RequestSighting::born`].
    pub born: TimestampMs,
    /// The subagent; none for the main agent.
    pub agent_id: Option<String>,
    /// When.
    pub ts: TimestampMs,
    /// What.
    pub kind: MarkKind,
    /// One line for a person, at most [`crate::event::SUMMARY_MAX_CHARS`].
    pub summary: String,
}

/// What a [`Mark`] stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum MarkKind {
    /// By a person.
    Prompt {
        /// The client's id of the prompt.
        prompt_id: Option<String>,
    },
    /// The context was compacted.
    Compaction {
        /// `auto` or `manual`.
        trigger: Option<String>,
        /// Tokens before.
        pre_tokens: Option<u64>,
        /// Tokens after.
        post_tokens: Option<u64>,
    },
    /// A subagent was started by this agent.
    Spawn {
        /// The call that started it.
        tool_use_id: String,
        /// Its type as asked for.
        agent_type: Option<String>,
    },
}

/// What some lines tell of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionSighting {
    /// The session.
    pub session_id: String,
    /// The project; the importer finds it by `cwd`.
    pub app: Option<String>,
    /// Its first working directory.
    pub cwd: Option<String>,
    /// The newest branch.
    pub git_branch: Option<String>,
    /// The newest version of the client.
    pub client_version: Option<String>,
    /// The newest model of the main agent.
    pub model: Option<String>,
    /// The client's own title (`summary`, `ai-title`, `custom-title`).
    pub title: Option<String>,
    /// Earliest time stamp.
    pub first: TimestampMs,
    /// Latest time stamp.
    pub last: TimestampMs,
    /// The newest prompt by a person, one line.
    pub last_prompt: Option<String>,
    /// When that was.
    pub prompted: Option<TimestampMs>,
}

/// What some lines, or a `.meta.json`, tell of a subagent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSighting {
    /// The session.
    pub session_id: String,
    /// The subagent.
    pub agent_id: String,
    /// Its type.
    pub agent_type: Option<String>,
    /// What it was asked, in a few words.
    pub description: Option<String>,
    /// The call that started it: its parent is the agent that made the call.
    pub tool_use_id: Option<String>,
    /// Earliest time stamp, where one was seen.
    pub first: Option<TimestampMs>,
    /// Latest time stamp.
    pub last: Option<TimestampMs>,
}

/// Counts of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Counts {
    pub records: u64,
    /// Text that is no JSON object.
    pub bad: u64,
    /// Records of a type this version does not know: nothing is drawn from them, and they are counted.
    pub unknown: u64,
}

/// Merges another line of the same message: the usage with the highest output counts, of equal ones the greatest, and
/// it is final where a line with that usage has a stop reason. The order of lines does not matter.
pub fn merge(known: &mut RequestSighting, told: RequestSighting) {
    let rank = |usage: Option<Usage>| usage.map(|usage| (usage.output, usage));
    let (ours, theirs) = (rank(known.usage), rank(told.usage));
    if theirs > ours {
        known.usage = told.usage;
        known.is_final = told.is_final;
        known.terms = told.terms;
        known.model = told.model;
    } else if theirs == ours {
        known.is_final |= told.is_final;
    }
    known.ts = known.ts.min(told.ts);
    known.born = known.born.min(told.born);
    known.message_id = known.message_id.take().or(told.message_id);
    known.request_id = known.request_id.take().or(told.request_id);
    known.agent_type = known.agent_type.take().or(told.agent_type);
    known.prompt_id = known.prompt_id.take().or(told.prompt_id);
    known.query_source = known.query_source.take().or(told.query_source);
    known.effort = known.effort.take().or(told.effort);
    known.stop_reason = known.stop_reason.take().or(told.stop_reason);
    known.told_cost_nano_usd = known.told_cost_nano_usd.max(told.told_cost_nano_usd);
}
