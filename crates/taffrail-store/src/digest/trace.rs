//! A session's rows as the analyses see them: a [`Trace`].
//!
//! Everything is read in one state of the database. A hook and a transcript that tell of one prompt or one compaction make
//! one mark, by the rules of the ledger: the same prompt id, or moments close together. Calls of one millisecond
//! stand in the order of their rows, which is that in which they were first told of. Limits: [`TRACE_CALLS_MAX`],
//! [`TRACE_REQUESTS_MAX`] and [`TRACE_MARKS_MAX`]; the newest are kept, and what was cut is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use taffrail_analytics::trace::{
    Agent, Call, Failure, FileAction, FileTouch, GitTouch, Mark, MarkKind, Outcome, Request, Trace,
};
use taffrail_event::RowId;
use taffrail_event::event::CallStatus;
use taffrail_event::normalize::calls::input_hash;

use crate::error::ReadError;
use crate::events::{HUMAN_PROMPT, read_payload_text, to_i64};
use crate::ledger::names::Names;

/// Calls of a trace.
pub const TRACE_CALLS_MAX: usize = 100_000;
/// Requests of a trace.
pub const TRACE_REQUESTS_MAX: usize = 100_000;
/// Marks of a trace, of each source.
pub const TRACE_MARKS_MAX: usize = 50_000;
/// Agents whose rows are read; others are known by their calls alone.
const AGENTS_MAX: usize = 10_000;
/// The head of a failure's message that is kept, in characters.
const MESSAGE_MAX_CHARS: usize = 300;
/// The longest tool name, path, model or branch that is kept, in bytes.
const NAME_MAX_BYTES: usize = 512;
/// How far apart hook and transcript can tell of one prompt, in milliseconds.
const SAME_PROMPT_MS: i64 = 10_000;
/// How far apart hook and transcript can tell of one compaction, in milliseconds.
const SAME_COMPACTION_MS: i64 = 30_000;

/// A session as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceRead {
    /// Its row.
    pub session: i64,
    /// The rows.
    pub trace: Trace,
    /// What was left out, oldest first: calls, requests and marks together.
    pub cut: i64,
}

/// How much of a session is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) calls: usize,
    pub(crate) requests: usize,
    /// Of each source.
    pub(crate) marks: usize,
}

const BOUNDS: Bounds =
    Bounds { calls: TRACE_CALLS_MAX, requests: TRACE_REQUESTS_MAX, marks: TRACE_MARKS_MAX };

/// The trace of a session by its row; none where there is none.
pub(crate) fn read(conn: &Connection, session: i64) -> Result<Option<TraceRead>, ReadError> {
    read_within(conn, session, BOUNDS)
}

/// As [`read`] within other bounds.
pub(crate) fn read_within(
    conn: &Connection,
    session: i64,
    bounds: Bounds,
) -> Result<Option<TraceRead>, ReadError> {
    let found = conn
        .prepare_cached(
            "SELECT session_id, source_app, coalesce(user, ''), ended, worked FROM sessions WHERE id = ?1",
        )?
        .query_row([session], |row| {
            let (ended, worked): (Option<i64>, i64) = (row.get(3)?, row.get(4)?);
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, ended.filter(|ended| *ended >= worked)))
        })
        .optional()?;
    let Some((session_id, app, user, ended)) = found else { return Ok(None) };
    let mut reading = Reading {
        conn,
        bounds,
        session,
        session_id,
        ended,
        agents: Agents::default(),
        words: Words::default(),
    };
    reading.read_agents()?;
    let (calls, cut_calls) = reading.read_calls()?;
    let (requests, cut_requests) = reading.read_requests()?;
    let (marks, cut_marks) = reading.read_marks()?;
    let trace = Trace {
        session_id: reading.session_id,
        app,
        user,
        agents: reading.agents.list,
        calls,
        requests,
        marks,
    };
    let cut = cut_calls + cut_requests + cut_marks;
    Ok(Some(TraceRead { session, trace, cut }))
}

struct Reading<'c> {
    conn: &'c Connection,
    bounds: Bounds,
    session: i64,
    session_id: String,
    ended: Option<i64>,
    agents: Agents,
    words: Words,
}

/// The agents by the client's ids of them; the main agent is the first.
#[derive(Default)]
struct Agents {
    list: Vec<Agent>,
    places: HashMap<String, u32>,
}

impl Agents {
    fn push(&mut self, agent: Agent) -> u32 {
        let place = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.places.insert(agent.agent_id.clone(), place);
        self.list.push(agent);
        place
    }

    /// The place of an agent; one without a row of its own is taken in as it was seen at `at_ms`.
    fn place(&mut self, agent_id: &str, agent_type: Option<&str>, at_ms: i64) -> u32 {
        let place = match self.places.get(agent_id) {
            Some(place) => *place,
            None => self.push(Agent {
                agent_id: agent_id.to_owned(),
                agent_type: type_of(agent_id, agent_type),
                started_ms: at_ms,
                last_ms: at_ms,
                ended_ms: None,
                parent_tool_use_id: None,
            }),
        };
        if let Some(agent) = self.list.get_mut(place as usize) {
            agent.started_ms = agent.started_ms.min(at_ms);
            agent.last_ms = agent.last_ms.max(at_ms);
        }
        place
    }
}

fn type_of(agent_id: &str, told: Option<&str>) -> String {
    match told {
        _ if agent_id.is_empty() => "main".to_owned(),
        Some(told) if !told.is_empty() => cut_name(told).to_owned(),
        _ => "subagent".to_owned(),
    }
}

/// Words that repeat, once each.
#[derive(Default)]
struct Words(HashMap<String, Arc<str>>);

impl Words {
    fn get(&mut self, word: &str) -> Arc<str> {
        let word = cut_name(word);
        if let Some(known) = self.0.get(word) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(word);
        self.0.insert(word.to_owned(), Arc::clone(&new));
        new
    }
}

/// At most [`NAME_MAX_BYTES`] of a name.
fn cut_name(name: &str) -> &str {
    match name.char_indices().map(|(at, c)| at + c.len_utf8()).find(|end| *end > NAME_MAX_BYTES) {
        None => name,
        Some(_) => {
            let mut end = NAME_MAX_BYTES;
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            &name[..end]
        }
    }
}

fn outcome_of(status: CallStatus) -> Outcome {
    match status {
        CallStatus::Running => Outcome::Running,
        CallStatus::Abandoned => Outcome::Abandoned,
        CallStatus::Ended => Outcome::Ended,
        CallStatus::Denied => Outcome::Denied,
        CallStatus::Interrupted => Outcome::Interrupted,
        CallStatus::Failed => Outcome::Failed,
        CallStatus::Succeeded => Outcome::Succeeded,
    }
}

fn action_of(name: &str) -> Option<FileAction> {
    match name {
        "read" => Some(FileAction::Read),
        "write" => Some(FileAction::Write),
        "edit" => Some(FileAction::Edit),
        "delete" => Some(FileAction::Delete),
        _ => None,
    }
}

fn count_of(value: Option<i64>) -> Option<u32> {
    value.map(|value| u32::try_from(value.max(0)).unwrap_or(u32::MAX))
}

impl Reading<'_> {
    fn read_agents(&mut self) -> Result<(), ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT agent_id, agent_type, started, last_event, iif(ended >= worked, ended, NULL), tool_use_id
                FROM agents WHERE session_id = ?1 ORDER BY agent_id <> '', started, agent_id LIMIT ?2",
        )?;
        let mut rows = statement.query(params![self.session_id, to_i64(AGENTS_MAX)])?;
        while let Some(row) = rows.next()? {
            let agent_id: String = row.get(0)?;
            // As in the list of agents: the main agent ends with the session, a subagent by itself or with it.
            let own: Option<i64> = row.get::<_, Option<i64>>(4)?.filter(|_| !agent_id.is_empty());
            self.agents.push(Agent {
                agent_type: type_of(&agent_id, row.get_ref(1)?.as_str_or_null().unwrap_or_default()),
                agent_id,
                started_ms: row.get(2)?,
                last_ms: row.get(3)?,
                ended_ms: own.or(self.ended),
                parent_tool_use_id: row.get(5)?,
            });
        }
        if self.agents.list.first().is_none_or(|first| !first.agent_id.is_empty()) {
            let told = std::mem::take(&mut self.agents);
            let started = told.list.iter().map(|agent| agent.started_ms).min().unwrap_or(i64::MAX);
            let main = Agent {
                agent_type: "main".to_owned(),
                started_ms: started,
                last_ms: told.list.iter().map(|agent| agent.last_ms).max().unwrap_or(i64::MIN),
                ended_ms: self.ended,
                ..Agent::default()
            };
            self.agents.push(main);
            for agent in told.list {
                self.agents.push(agent);
            }
        }
        Ok(())
    }

    /// By (`at_ms`, `id`), and how many were cut.
    fn read_calls(&mut self) -> Result<(Vec<Call>, i64), ReadError> {
        let total: i64 = self
            .conn
            .prepare_cached("SELECT count(*) FROM tool_calls INDEXED BY tool_calls_at WHERE session_id = ?1")?
            .query_row([&self.session_id], |row| row.get(0))?;
        let mut statement = self.conn.prepare_cached(
            "SELECT c.id, c.agent_id, c.agent_type, c.tool_use_id, c.tool_name, c.at, c.ended, c.duration_ms, c.status,
                c.input_hash, c.result_hash, c.output_bytes, c.summary, c.end_event, e.error_type, e.fingerprint,
                substr(e.error_message, 1, ?3)
            FROM (SELECT * FROM tool_calls INDEXED BY tool_calls_at WHERE session_id = ?1 ORDER BY at DESC, id DESC
                LIMIT ?2) c LEFT JOIN event_errors e ON e.event_id = c.end_event AND c.error_type IS NOT NULL
            ORDER BY c.at, c.id",
        )?;
        let mut rows = statement.query(params![
            self.session_id,
            to_i64(self.bounds.calls),
            to_i64(MESSAGE_MAX_CHARS)
        ])?;
        let mut calls: Vec<Call> = Vec::new();
        let mut ends = Vec::new();
        while let Some(row) = rows.next()? {
            let text = |column: usize| row.get_ref(column).map(|value| value.as_str_or_null().ok().flatten());
            let at_ms: i64 = row.get(5)?;
            let agent = self.agents.place(text(1)?.unwrap_or_default(), text(2)?, at_ms);
            let error = match text(14)? {
                None => None,
                Some(class) => Some(Failure {
                    class: self.words.get(class),
                    fingerprint: row.get(15)?,
                    message: row.get(16)?,
                }),
            };
            ends.push(row.get::<_, Option<i64>>(13)?);
            calls.push(Call {
                id: row.get(0)?,
                agent,
                tool_use_id: row.get(3)?,
                tool: self.words.get(text(4)?.unwrap_or_default()),
                at_ms,
                ended_ms: row.get(6)?,
                duration_ms: row.get(7)?,
                outcome: outcome_of(crate::calls::status_of(text(8)?.unwrap_or_default())),
                input_hash: row.get(9)?,
                result_hash: row.get(10)?,
                output_bytes: row.get(11)?,
                summary: row.get(12)?,
                error,
                files: Vec::new(),
                git: Vec::new(),
            });
        }
        self.read_touches(&mut calls, &ends)?;
        let cut = total.saturating_sub(to_i64(calls.len())).max(0);
        Ok((calls, cut))
    }

    /// What hangs on the events that ended the calls.
    fn read_touches(&mut self, calls: &mut [Call], ends: &[Option<i64>]) -> Result<(), ReadError> {
        let mut files = self.conn.prepare_cached(
            "SELECT operation_type, file_path, file_size, lines_added, lines_removed FROM file_operations
                WHERE event_id = ?1 ORDER BY position",
        )?;
        let mut git = self.conn.prepare_cached(
            "SELECT subcommand, branch, files_changed, insertions, deletions, commit_id FROM git_operations
                WHERE event_id = ?1 ORDER BY position",
        )?;
        for (call, end) in calls.iter_mut().zip(ends) {
            let Some(end) = end.filter(|_| call.outcome != Outcome::Abandoned) else { continue };
            let mut rows = files.query([end])?;
            while let Some(row) = rows.next()? {
                let Some(action) = action_of(row.get_ref(0)?.as_str().unwrap_or_default()) else { continue };
                call.files.push(FileTouch {
                    action,
                    path: self.words.get(row.get_ref(1)?.as_str().unwrap_or_default()),
                    size_bytes: row.get(2)?,
                    lines_added: count_of(row.get(3)?),
                    lines_removed: count_of(row.get(4)?),
                });
            }
            let mut rows = git.query([end])?;
            while let Some(row) = rows.next()? {
                let branch: Option<String> = row.get(1)?;
                call.git.push(GitTouch {
                    subcommand: row.get(0)?,
                    branch: branch.map(|branch| cut_name(&branch).to_owned()),
                    files_changed: count_of(row.get(2)?),
                    insertions: count_of(row.get(3)?),
                    deletions: count_of(row.get(4)?),
                    commit: row.get(5)?,
                });
            }
        }
        Ok(())
    }

    /// By (`ts_ms`, `id`), and how many were cut. What is only derived from the client's total is none.
    fn read_requests(&mut self) -> Result<(Vec<Request>, i64), ReadError> {
        let total: i64 = self
            .conn
            .prepare_cached(
                "SELECT count(*) FROM api_requests INDEXED BY api_requests_session WHERE session = ?1",
            )?
            .query_row([self.session], |row| row.get(0))?;
        let mut statement = self.conn.prepare_cached(
            "SELECT id, agent_id, agent_type, ts, model, input, output, cache_read, cache_write_5m, cache_write_1h, cost,
                duration, context_window, query_source, sources FROM api_requests INDEXED BY api_requests_session
            WHERE session = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let mut names = Names::new(self.conn);
        let mut rows = statement.query(params![self.session, to_i64(self.bounds.requests)])?;
        let mut requests = Vec::new();
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            if row.get::<_, i64>(14)? == 0 {
                continue;
            }
            let agent_id: Option<String> = row.get(1)?;
            let agent_type = names.of(row.get(2)?)?;
            let ts_ms = row.get(3)?;
            requests.push(Request {
                id: row.get(0)?,
                agent: self.agents.place(
                    agent_id.as_deref().unwrap_or_default(),
                    agent_type.as_deref(),
                    ts_ms,
                ),
                ts_ms,
                model: self.words.get(names.get(row.get(4)?)?),
                input: row.get(5)?,
                output: row.get(6)?,
                cache_read: row.get(7)?,
                cache_write_5m: row.get(8)?,
                cache_write_1h: row.get(9)?,
                cost_nano_usd: row.get(10)?,
                duration_ms: row.get(11)?,
                context_window: row.get(12)?,
                query_source: names.of(row.get(13)?)?.unwrap_or_default(),
            });
        }
        requests.sort_unstable_by_key(|request| (request.ts_ms, request.id));
        Ok((requests, (total - seen).max(0)))
    }

    /// By `ts_ms`, and how many were cut.
    fn read_marks(&mut self) -> Result<(Vec<Mark>, i64), ReadError> {
        let (mut marks, told, mut cut) = self.read_event_marks()?;
        cut += self.read_transcript_marks(&mut marks, &told)?;
        cut += self.read_failures(&mut marks)?;
        // They were read newest first; those of one moment stay in the order of their rows.
        marks.reverse();
        marks.sort_by_key(|mark| mark.ts_ms);
        Ok((marks, cut))
    }

    /// What hooks tell, newest first; and the prompts and compactions among it.
    fn read_event_marks(&mut self) -> Result<(Vec<Mark>, Told, i64), ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, timestamp, agent_id, agent_type, hook_event_type, tool_name, flags, prompt_id, tool_use_id
                FROM events INDEXED BY events_session WHERE session_id = ?1 AND hook_event_type IN ('SessionStart',
                'SessionEnd', 'UserPromptSubmit', 'PostCompact', 'PermissionRequest', 'PermissionDenied', 'Stop',
                'StopFailure', 'SubagentStart', 'SubagentStop', 'Notification') ORDER BY id DESC LIMIT ?2",
        )?;
        // One more than is kept tells whether there are more.
        let mut rows =
            statement.query(params![self.session_id, to_i64(self.bounds.marks.saturating_add(1))])?;
        let (mut marks, mut told, mut cut) = (Vec::new(), Told::default(), 0);
        while let Some(row) = rows.next()? {
            if marks.len() >= self.bounds.marks {
                cut += 1;
                continue;
            }
            let ts_ms: i64 = row.get(1)?;
            let type_name: String = row.get(4)?;
            let agent_id: Option<String> = row.get(2)?;
            let agent_type: Option<String> = row.get(3)?;
            // A compaction sends a lone stop of an agent without a type: no subagent of the session.
            if type_name == "SubagentStop" && agent_type.as_deref() == Some("") {
                continue;
            }
            let kind = match type_name.as_str() {
                "UserPromptSubmit" => {
                    told.add_prompt(ts_ms, row.get(7)?);
                    MarkKind::Prompt { human: row.get::<_, i64>(6)? & HUMAN_PROMPT != 0 }
                }
                "PostCompact" => {
                    told.compactions.insert(ts_ms, marks.len());
                    let payload = self.payload(row.get(0)?)?;
                    MarkKind::Compaction {
                        trigger: text_of(&payload, "trigger"),
                        pre_tokens: None,
                        post_tokens: None,
                    }
                }
                "PermissionRequest" | "PermissionDenied" => {
                    let name: Option<String> = row.get(5)?;
                    let payload = self.payload(row.get(0)?)?;
                    let name = name.unwrap_or_default();
                    let input_hash = input_hash(&name, payload.get("tool_input"));
                    let tool = self.words.get(&name);
                    if type_name == "PermissionRequest" {
                        MarkKind::PermissionRequest { tool, input_hash }
                    } else {
                        MarkKind::PermissionDenied { tool, input_hash }
                    }
                }
                "StopFailure" => MarkKind::StopFailure { class: self.class(row.get(0)?)? },
                "Notification" => {
                    MarkKind::Notification { kind: text_of(&self.payload(row.get(0)?)?, "notification_type") }
                }
                "SessionStart" => MarkKind::SessionStart,
                "SessionEnd" => MarkKind::SessionEnd,
                "Stop" => MarkKind::Stop,
                "SubagentStart" => MarkKind::SubagentStart,
                _ => MarkKind::SubagentStop,
            };
            let agent =
                self.agents.place(agent_id.as_deref().unwrap_or_default(), agent_type.as_deref(), ts_ms);
            marks.push(Mark { ts_ms, agent, kind });
        }
        Ok((marks, told, cut))
    }

    /// What only transcripts tell; what they know of a compaction that a hook told is added to that.
    fn read_transcript_marks(&mut self, marks: &mut Vec<Mark>, told: &Told) -> Result<i64, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT ts, agent_id, kind, prompt_id, trigger, pre_tokens, post_tokens
                FROM transcript_marks INDEXED BY transcript_marks_session
                WHERE session = ?1 AND kind IN ('prompt', 'compaction') ORDER BY ts DESC, key LIMIT ?2",
        )?;
        let mut rows = statement.query(params![self.session, to_i64(self.bounds.marks.saturating_add(1))])?;
        let (mut read, mut cut) = (0, 0);
        while let Some(row) = rows.next()? {
            if read >= self.bounds.marks {
                cut += 1;
                continue;
            }
            read += 1;
            let ts_ms: i64 = row.get(0)?;
            let agent_id: Option<String> = row.get(1)?;
            let kind = if row.get_ref(2)?.as_str() == Ok("prompt") {
                if told.has_prompt(ts_ms, row.get_ref(3)?.as_str_or_null().unwrap_or_default()) {
                    continue;
                }
                MarkKind::Prompt { human: true }
            } else {
                let (trigger, pre, post) = (row.get(4)?, row.get(5)?, row.get(6)?);
                if let Some(place) = told.compaction(ts_ms) {
                    if let Some(mark) = marks.get_mut(place) {
                        complete(&mut mark.kind, trigger, pre, post);
                    }
                    continue;
                }
                MarkKind::Compaction { trigger, pre_tokens: pre, post_tokens: post }
            };
            let agent = self.agents.place(agent_id.as_deref().unwrap_or_default(), None, ts_ms);
            marks.push(Mark { ts_ms, agent, kind });
        }
        Ok(cut)
    }

    fn read_failures(&mut self, marks: &mut Vec<Mark>) -> Result<i64, ReadError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT ts, agent_id, model, status_code, retry_in, exhausted FROM api_failures INDEXED BY api_failures_session
                WHERE session = ?1 ORDER BY ts DESC, key LIMIT ?2",
        )?;
        let mut rows = statement.query(params![self.session, to_i64(self.bounds.marks.saturating_add(1))])?;
        let (mut read, mut cut) = (0, 0);
        while let Some(row) = rows.next()? {
            if read >= self.bounds.marks {
                cut += 1;
                continue;
            }
            read += 1;
            let ts_ms = row.get(0)?;
            let agent_id: Option<String> = row.get(1)?;
            let kind = MarkKind::ApiFailure {
                model: row.get(2)?,
                status_code: row.get(3)?,
                retry_in_ms: row.get(4)?,
                exhausted: row.get(5)?,
            };
            let agent = self.agents.place(agent_id.as_deref().unwrap_or_default(), None, ts_ms);
            marks.push(Mark { ts_ms, agent, kind });
        }
        Ok(cut)
    }

    /// An event's payload; null where it is no JSON.
    fn payload(&self, event: i64) -> Result<Value, ReadError> {
        let text = read_payload_text(self.conn, RowId(event))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null))
    }

    fn class(&mut self, event: i64) -> Result<Arc<str>, ReadError> {
        let class: Option<String> = self
            .conn
            .prepare_cached("SELECT error_type FROM event_errors WHERE event_id = ?1")?
            .query_row([event], |row| row.get(0))
            .optional()?;
        Ok(self.words.get(class.as_deref().unwrap_or_default()))
    }
}

/// What hooks told, so that a transcript's word on the same is known.
#[derive(Default)]
struct Told {
    prompt_ids: HashSet<String>,
    /// When; and of those without an id.
    prompts: BTreeSet<i64>,
    nameless_prompts: BTreeSet<i64>,
    /// When, and the place of its mark.
    compactions: BTreeMap<i64, usize>,
}

impl Told {
    fn add_prompt(&mut self, ts_ms: i64, id: Option<String>) {
        self.prompts.insert(ts_ms);
        match id {
            Some(id) => drop(self.prompt_ids.insert(id)),
            None => drop(self.nameless_prompts.insert(ts_ms)),
        }
    }

    /// Where both have an id, it tells; else the moment.
    fn has_prompt(&self, ts_ms: i64, id: Option<&str>) -> bool {
        let near = around(ts_ms, SAME_PROMPT_MS);
        match id {
            Some(id) => self.prompt_ids.contains(id) || self.nameless_prompts.range(near).next().is_some(),
            None => self.prompts.range(near).next().is_some(),
        }
    }

    /// The mark of the nearest compaction that can be the same.
    fn compaction(&self, ts_ms: i64) -> Option<usize> {
        let near = self.compactions.range(around(ts_ms, SAME_COMPACTION_MS));
        near.min_by_key(|(at, _)| at.abs_diff(ts_ms)).map(|(_, place)| *place)
    }
}

fn around(ts_ms: i64, by_ms: i64) -> RangeInclusive<i64> {
    ts_ms.saturating_sub(by_ms)..=ts_ms.saturating_add(by_ms)
}

/// Adds what a transcript knows of a compaction.
fn complete(kind: &mut MarkKind, told: Option<String>, pre: Option<i64>, post: Option<i64>) {
    if let MarkKind::Compaction { trigger, pre_tokens, post_tokens } = kind {
        *trigger = trigger.take().or(told);
        *pre_tokens = pre_tokens.or(pre);
        *post_tokens = post_tokens.or(post);
    }
}

fn text_of(payload: &Value, field: &str) -> Option<String> {
    payload.get(field).and_then(Value::as_str).map(|text| cut_name(text).to_owned())
}
