//! From events and facts of files to traces, merged as the store does: a call told twice is one, a request that a fork
//! copied belongs to the session that was begun first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use taffrail_analytics::trace::{
    Agent, Call, Failure, FileAction, FileTouch, GitTouch, Mark, MarkKind, Outcome, Request, Trace,
};
use taffrail_event::event::{CallStatus, CallUpdate, FileOperationKind, PromptOrigin};
use taffrail_event::ledger::{ApiRequest, RequestSighting};
use taffrail_event::normalize::calls::{CallState, RANK_PRE, merge, updates};
use taffrail_event::prices::PriceTable;
use taffrail_event::transcript::{self, Facts};
use taffrail_event::{Event, Fact, TimestampMs};

/// How far apart two tellings of one compaction or prompt can lie, in milliseconds.
const SAME_MARK_MS: i64 = 10_000;

/// Sessions as far as they are known.
#[derive(Default)]
pub(super) struct Traces {
    sessions: BTreeMap<String, Session>,
    requests: Vec<ApiRequest>,
    /// By message id and by request id.
    request_names: HashMap<String, usize>,
    /// Of each call with an id, the session begun first that shows it.
    owners: HashMap<String, (TimestampMs, String)>,
    rows: usize,
}

#[derive(Default)]
struct Session {
    app: Option<String>,
    user: Option<String>,
    agents: BTreeMap<String, Agent>,
    calls: Vec<Draft>,
    by_use: HashMap<(String, String), usize>,
    /// Calls without an id that have begun, by agent and input: of equal ones the first ends first.
    open: HashMap<(String, i64), VecDeque<usize>>,
    marks: Vec<(String, i64, MarkKind)>,
}

struct Draft {
    agent: String,
    state: CallState,
    first_seen_ms: i64,
    call: Call,
}

impl Traces {
    /// Calls and requests so far.
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// One event; `born` is when the file it stands in was begun.
    pub(super) fn event(&mut self, event: &Event, born: TimestampMs) {
        let agent_id = event.agent_id.clone().unwrap_or_default();
        let session = self.sessions.entry(event.session_id.clone()).or_default();
        if event.app != "unknown" {
            session.app.get_or_insert_with(|| event.app.clone());
        }
        session.user = session.user.take().or_else(|| event.user.clone());
        let ts_ms = event.ts.get();
        let agent = session.agent(&agent_id, event.agent_type.as_deref(), ts_ms);
        if matches!(event.fact, Fact::SubagentStop { compaction: false }) && !agent_id.is_empty() {
            agent.ended_ms = agent.ended_ms.max(Some(ts_ms));
        }
        for update in updates(event) {
            if let Some(id) = &update.tool.tool_use_id {
                let own = (born, event.session_id.clone());
                let owner = self.owners.entry(id.clone()).or_insert_with(|| own.clone());
                *owner = owner.clone().min(own);
            }
            self.rows += usize::from(session.call(event, &agent_id, &update));
        }
        if let Some(kind) = mark_of(event) {
            session.mark(agent_id, ts_ms, kind);
        }
    }

    /// What a transcript tells beside its calls.
    pub(super) fn facts(&mut self, facts: &Facts) {
        for told in &facts.sessions {
            let session = self.sessions.entry(told.session_id.clone()).or_default();
            let of_cwd = |cwd: &String| cwd.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
            session.app = session
                .app
                .take()
                .or_else(|| told.app.clone())
                .or_else(|| told.cwd.as_ref().and_then(of_cwd));
        }
        for told in &facts.agents {
            let session = self.sessions.entry(told.session_id.clone()).or_default();
            let Some(first) = told.first.or(told.last) else { continue };
            let agent = session.agent(&told.agent_id, told.agent_type.as_deref(), first.get());
            agent.last_ms = agent.last_ms.max(told.last.unwrap_or(first).get());
            agent.parent_tool_use_id = agent.parent_tool_use_id.take().or_else(|| told.tool_use_id.clone());
        }
        for told in &facts.marks {
            let kind = match &told.kind {
                transcript::MarkKind::Prompt { .. } => MarkKind::Prompt { human: true },
                transcript::MarkKind::Compaction { trigger, pre_tokens, post_tokens } => {
                    MarkKind::Compaction {
                        trigger: trigger.clone(),
                        pre_tokens: pre_tokens.and_then(|tokens| i64::try_from(tokens).ok()),
                        post_tokens: post_tokens.and_then(|tokens| i64::try_from(tokens).ok()),
                    }
                }
                transcript::MarkKind::Spawn { .. } => continue,
            };
            let agent_id = told.agent_id.clone().unwrap_or_default();
            self.sessions.entry(told.session_id.clone()).or_default().mark(agent_id, told.ts.get(), kind);
        }
        for told in &facts.failures {
            let kind = MarkKind::ApiFailure {
                model: told.model.clone(),
                status_code: told.status_code.map(i64::from),
                retry_in_ms: told.retry_in_ms.and_then(|ms| i64::try_from(ms).ok()),
                exhausted: told.exhausted,
            };
            let agent_id = told.agent_id.clone().unwrap_or_default();
            self.sessions.entry(told.session_id.clone()).or_default().mark(agent_id, told.ts.get(), kind);
        }
        for told in &facts.requests {
            self.request(told);
        }
    }

    fn request(&mut self, told: &RequestSighting) {
        let names: Vec<String> =
            [&told.message_id, &told.request_id].into_iter().flatten().cloned().collect();
        let at = match names.iter().find_map(|name| self.request_names.get(name)) {
            Some(&at) => {
                self.requests[at].see(told);
                at
            }
            None => {
                self.requests.push(ApiRequest::of(told));
                self.rows += 1;
                self.requests.len() - 1
            }
        };
        self.request_names.extend(names.into_iter().map(|name| (name, at)));
    }

    /// The traces, by session id.
    pub(super) fn finish(mut self, prices: &PriceTable) -> Vec<Trace> {
        let mut requests: HashMap<String, Vec<Request>> = HashMap::new();
        for (row, request) in (1i64..).zip(&self.requests) {
            let session = self.sessions.entry(request.session_id.clone()).or_default();
            let agent_id = request.agent_id.clone().unwrap_or_default();
            let agent_type = request.agent_type.as_ref().map(|told| told.value.as_str());
            session.agent(&agent_id, agent_type, request.ts.get());
            let row = request_row(row, request, session.place(&agent_id), prices);
            requests.entry(request.session_id.clone()).or_default().push(row);
        }
        let owners = &self.owners;
        let mut id = 0;
        self.sessions
            .into_iter()
            .map(|(session_id, session)| {
                let mut requests = requests.remove(&session_id).unwrap_or_default();
                requests.sort_by_key(|request| (request.ts_ms, request.id));
                let is_own = |draft: &Draft| {
                    let owner = draft.call.tool_use_id.as_ref().and_then(|id| owners.get(id));
                    owner.is_none_or(|(_, owner)| *owner == session_id)
                };
                session.trace(session_id.clone(), requests, is_own, &mut id)
            })
            .collect()
    }
}

impl Session {
    fn agent(&mut self, agent_id: &str, agent_type: Option<&str>, ts_ms: i64) -> &mut Agent {
        let agent = self.agents.entry(agent_id.to_owned()).or_insert_with(|| Agent {
            agent_id: agent_id.to_owned(),
            agent_type: if agent_id.is_empty() { "main".to_owned() } else { "subagent".to_owned() },
            started_ms: ts_ms,
            last_ms: ts_ms,
            ..Agent::default()
        });
        if let Some(told) = agent_type.filter(|told| !told.is_empty() && !agent_id.is_empty()) {
            told.clone_into(&mut agent.agent_type);
        }
        agent.started_ms = agent.started_ms.min(ts_ms);
        agent.last_ms = agent.last_ms.max(ts_ms);
        agent
    }

    /// Where an agent stands: the main agent first, then by id.
    fn place(&self, agent_id: &str) -> u32 {
        let main = u32::from(!self.agents.contains_key(""));
        let at = self.agents.keys().position(|known| known == agent_id).unwrap_or(0);
        u32::try_from(at).unwrap_or(u32::MAX).saturating_add(main)
    }

    /// Notes what an event tells of a call; true where the call is new.
    fn call(&mut self, event: &Event, agent_id: &str, update: &CallUpdate) -> bool {
        let (at, is_new) = self.draft(event, agent_id, update);
        let draft = &mut self.calls[at];
        let knew = draft.state.rank;
        merge(&mut draft.state, update);
        draft.first_seen_ms = draft.first_seen_ms.min(event.ts.get());
        let call = &mut draft.call;
        // Of two tellings the better one describes the call.
        if update.rank >= knew || is_new {
            call.tool = Arc::from(update.tool.tool_name.as_str());
            if update.tool.input_hash != 0 {
                call.input_hash = update.tool.input_hash;
            }
        }
        let names_it = event.tool_use_id == update.tool.tool_use_id;
        if names_it && (call.summary.is_empty() || update.rank == RANK_PRE) {
            call.summary.clone_from(&event.summary);
        }
        if names_it && update.rank > RANK_PRE {
            call.result_hash = call.result_hash.or(event.metrics.result_hash);
            call.output_bytes =
                call.output_bytes.or(event.metrics.output_bytes.and_then(|n| i64::try_from(n).ok()));
            if call.error.is_none() {
                call.error = event.error.as_ref().map(|error| Failure {
                    class: Arc::from(error.class),
                    fingerprint: error.fingerprint.clone(),
                    message: error.message.chars().take(300).collect(),
                });
            }
            if call.files.is_empty() {
                call.files = event.file_operations.iter().map(file_touch).collect();
            }
            if call.git.is_empty() {
                call.git = event.git_operations.iter().map(git_touch).collect();
            }
        }
        is_new
    }

    fn draft(&mut self, event: &Event, agent_id: &str, update: &CallUpdate) -> (usize, bool) {
        let hash = update.tool.input_hash;
        let by_input = (agent_id.to_owned(), hash);
        let known = match &update.tool.tool_use_id {
            Some(id) => self.by_use.get(&(agent_id.to_owned(), id.clone())).copied(),
            None if update.rank == RANK_PRE => None,
            None => self.open.get_mut(&by_input).and_then(VecDeque::pop_front),
        };
        if let Some(at) = known {
            return (at, false);
        }
        let at = self.calls.len();
        match &update.tool.tool_use_id {
            Some(id) => {
                self.by_use.insert((agent_id.to_owned(), id.clone()), at);
            }
            None if update.rank == RANK_PRE => self.open.entry(by_input).or_default().push_back(at),
            None => {}
        }
        self.calls.push(Draft {
            agent: agent_id.to_owned(),
            state: CallState::UNKNOWN,
            first_seen_ms: event.ts.get(),
            call: Call { tool_use_id: update.tool.tool_use_id.clone(), ..Call::default() },
        });
        (at, true)
    }

    fn mark(&mut self, agent_id: String, ts_ms: i64, kind: MarkKind) {
        let told_twice = |known: &(String, i64, MarkKind)| {
            let same_kind = match (&known.2, &kind) {
                (MarkKind::Compaction { .. }, MarkKind::Compaction { .. }) => true,
                (MarkKind::Prompt { human: a }, MarkKind::Prompt { human: b }) => a == b,
                (a, b) => a == b && known.1 == ts_ms,
            };
            same_kind && known.0 == agent_id && known.1.abs_diff(ts_ms) < SAME_MARK_MS.unsigned_abs()
        };
        if !self.marks.iter().rev().take(64).any(told_twice) {
            self.marks.push((agent_id, ts_ms, kind));
        }
    }

    fn trace(
        mut self,
        session_id: String,
        requests: Vec<Request>,
        is_own: impl Fn(&Draft) -> bool,
        id: &mut i64,
    ) -> Trace {
        if !self.agents.contains_key("") {
            let first_ms = self.agents.values().map(|agent| agent.started_ms).min().unwrap_or(0);
            self.agent("", None, first_ms);
        }
        let mut calls: Vec<Call> = std::mem::take(&mut self.calls)
            .into_iter()
            .filter(is_own)
            .map(|draft| {
                let at_ms = draft.state.started.map_or(draft.first_seen_ms, TimestampMs::get);
                let ended_ms = draft.state.ended.map(TimestampMs::get);
                *id += 1;
                Call {
                    id: *id,
                    agent: self.place(&draft.agent),
                    at_ms: ended_ms.map_or(at_ms, |ended_ms| at_ms.min(ended_ms)),
                    ended_ms,
                    duration_ms: draft.state.duration_ms.and_then(|ms| i64::try_from(ms).ok()),
                    outcome: outcome_of(draft.state.status),
                    ..draft.call
                }
            })
            .collect();
        calls.sort_by_key(|call| (call.at_ms, call.id));
        let mut marks: Vec<Mark> = self
            .marks
            .iter()
            .map(|(agent_id, ts_ms, kind)| Mark {
                ts_ms: *ts_ms,
                agent: self.place(agent_id),
                kind: kind.clone(),
            })
            .collect();
        marks.sort_by_key(|mark| mark.ts_ms);
        Trace {
            session_id,
            app: self.app.unwrap_or_else(|| "unknown".to_owned()),
            user: self.user.unwrap_or_default(),
            agents: self.agents.into_values().collect(),
            calls,
            requests,
            marks,
        }
    }
}

fn request_row(id: i64, request: &ApiRequest, agent: u32, prices: &PriceTable) -> Request {
    let settled = request.settle(prices);
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    Request {
        id,
        agent,
        ts_ms: request.ts.get(),
        model: Arc::from(request.model_name()),
        input: count(settled.usage.input),
        output: count(settled.usage.output),
        cache_read: count(settled.usage.cache_read),
        cache_write_5m: count(settled.usage.cache_write_5m),
        cache_write_1h: count(settled.usage.cache_write_1h),
        cost_nano_usd: settled.cost_nano_usd,
        duration_ms: request.duration_ms.as_ref().map(|told| count(told.value)),
        context_window: prices.context_window(request.model_name()).map(count),
        query_source: request.query_source.as_ref().map(|told| told.value.clone()).unwrap_or_default(),
    }
}

fn mark_of(event: &Event) -> Option<MarkKind> {
    Some(match &event.fact {
        Fact::SessionStart { .. } => MarkKind::SessionStart,
        Fact::SessionEnd { .. } => MarkKind::SessionEnd,
        Fact::Prompt { origin } => MarkKind::Prompt { human: *origin == PromptOrigin::Human },
        Fact::PostCompact => MarkKind::Compaction { trigger: None, pre_tokens: None, post_tokens: None },
        Fact::PermissionRequest(tool) => MarkKind::PermissionRequest {
            tool: Arc::from(tool.tool_name.as_str()),
            input_hash: tool.input_hash,
        },
        Fact::PermissionDenied(tool) => MarkKind::PermissionDenied {
            tool: Arc::from(tool.tool_name.as_str()),
            input_hash: tool.input_hash,
        },
        Fact::Stop => MarkKind::Stop,
        Fact::StopFailure => MarkKind::StopFailure {
            class: Arc::from(event.error.as_ref().map_or("unknown", |error| error.class)),
        },
        Fact::SubagentStart => MarkKind::SubagentStart,
        Fact::SubagentStop { compaction: false } if event.agent_id.is_some() => MarkKind::SubagentStop,
        Fact::Notification { notification_type } => {
            MarkKind::Notification { kind: notification_type.clone() }
        }
        _ => return None,
    })
}

const fn outcome_of(status: CallStatus) -> Outcome {
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

fn file_touch(told: &taffrail_event::event::FileOperation) -> FileTouch {
    FileTouch {
        action: match told.kind {
            FileOperationKind::Read => FileAction::Read,
            FileOperationKind::Write => FileAction::Write,
            FileOperationKind::Edit => FileAction::Edit,
            FileOperationKind::Delete => FileAction::Delete,
        },
        path: Arc::from(told.path.as_str()),
        size_bytes: told.size_bytes.and_then(|n| i64::try_from(n).ok()),
        lines_added: told.lines_added,
        lines_removed: told.lines_removed,
    }
}

fn git_touch(told: &taffrail_event::event::GitOperation) -> GitTouch {
    GitTouch {
        subcommand: told.subcommand.clone(),
        branch: told.branch.clone(),
        files_changed: told.files_changed,
        insertions: told.insertions,
        deletions: told.deletions,
        commit: told.commit.clone(),
    }
}
