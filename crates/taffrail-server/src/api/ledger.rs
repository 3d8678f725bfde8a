//! One session's ledger: every API request, what the sources say of the total, and what failed.
//!
//! Limit: [`ITEMS_MAX`] requests, failures and marks of one answer each; the newest are kept.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{FailureSighting, Witness};
use taffrail_event::transcript::{Mark, MarkKind};
use taffrail_store::{CostTotals, LedgerRow, Reconciliation, StoredFailure, StoredMark};

use super::costs;
use super::money::usd;
use super::types::{CostTotalsJson, TokensJson};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Requests of one answer, at most; and failures, and marks.
const ITEMS_MAX: usize = 10_000;

/// A session's ledger.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LedgerJson {
    /// The session.
    session_id: String,
    /// Its API requests, oldest first; a row without sources is what only the client's own total tells of.
    items: Vec<LedgerRowJson>,
    /// The sum of all of them.
    totals: CostTotalsJson,
    /// What the sources say of the session's total; null where nothing is known.
    reconciliation: Option<ReconciliationJson>,
    /// Attempts that failed, oldest first.
    failures: Vec<FailureJson>,
    /// Prompts, compactions and starts of subagents by the transcript, oldest first.
    marks: Vec<MarkJson>,
    /// Whether older requests, failures or marks were left out; the totals hold them.
    cut: bool,
}

/// One API request, as all sources together tell it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LedgerRowJson {
    /// When the response came.
    ts_ms: i64,
    /// `message.id` of the vendor's answer.
    message_id: Option<String>,
    /// The vendor's request id.
    request_id: Option<String>,
    /// The session that asked.
    session_id: String,
    /// The subagent; null for the main agent.
    agent_id: Option<String>,
    /// The subagent's type.
    agent_type: Option<String>,
    /// The prompt it belongs to.
    prompt_id: Option<String>,
    /// The project.
    app: String,
    /// Who ran the agent.
    user: Option<String>,
    /// The model as its source names it.
    model: String,
    /// Its tokens.
    tokens: TokensJson,
    /// Tokens in the context at this request.
    context_size: i64,
    /// Run by the vendor.
    web_searches: i64,
    /// `standard` or `fast`.
    speed: &'static str,
    /// `standard`, `priority`, `batch`, ...
    service_tier: Option<String>,
    /// Where inference was bound to run.
    inference_geo: Option<String>,
    /// US dollars; null where the model has no known price.
    cost_usd: Option<f64>,
    /// What the client says it cost.
    told_cost_usd: Option<f64>,
    /// `exact`, `repaired`, `lower_bound`, `estimated` or `unpriced`.
    confidence: Option<&'static str>,
    /// Who told of it: `transcript`, `otlp`, `span`, `progress`; empty for what is only derived.
    sources: Vec<&'static str>,
    /// The output tokens that the transcript gave, where another source gave the final ones.
    provisional_output_tokens: Option<u64>,
    /// Why the client asked: `sdk`, `repl_main_thread`, `compact`, ...
    query_source: Option<String>,
    /// Reasoning effort.
    effort: Option<String>,
    /// Why the answer ended.
    stop_reason: Option<String>,
    /// Wall time.
    duration_ms: Option<i64>,
    /// Time to the first token.
    ttft_ms: Option<i64>,
    /// Attempts it took.
    attempts: Option<i64>,
}

/// One session's totals by who tells them.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ReconciliationJson {
    /// US dollars as the ledger has them; null where nothing is priced.
    ledger_usd: Option<f64>,
    /// What the transcript alone gives.
    transcript_usd: Option<f64>,
    /// Requests in it.
    transcript_requests: i64,
    /// What OTLP alone gives: the client's own figures.
    otlp_usd: Option<f64>,
    /// Requests in it.
    otlp_requests: i64,
    /// The client's own running total.
    client_usd: Option<f64>,
    /// What of it a fork had inherited.
    inherited_usd: f64,
    /// client - inherited - ledger; null without a client's total, or where a request is unpriced.
    drift_usd: Option<f64>,
    /// The drift by the client's own part of the total, in percent; null where that is 0.
    drift_percent: Option<f64>,
    /// Attempts that failed.
    failed_attempts: i64,
}

/// A request, or an attempt at one, that failed.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FailureJson {
    /// When.
    ts_ms: i64,
    /// The subagent; null for the main agent.
    agent_id: Option<String>,
    /// The model, where it is told.
    model: Option<String>,
    /// HTTP status, where there was one.
    status_code: Option<u16>,
    /// The message.
    message: String,
    /// Which attempt this was, from 1.
    attempt: Option<u32>,
    /// How many the client makes at most, or has made.
    attempts_max: Option<u32>,
    /// How long the client then waits.
    retry_in_ms: Option<u64>,
    /// Whether the client gave up after it.
    exhausted: bool,
    /// Who told: `transcript`, `otlp`, `span` or `progress`.
    source: &'static str,
}

/// Something with a moment in a session, as its transcript tells it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(crate) struct MarkJson {
    /// When.
    pub(crate) ts_ms: i64,
    /// `prompt` (by a person), `compaction` or `spawn` (of a subagent).
    pub(crate) kind: &'static str,
    /// The agent; null for the main agent.
    pub(crate) agent_id: Option<String>,
    /// One line for a person.
    pub(crate) summary: String,
    /// Of a prompt: the client's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_id: Option<String>,
    /// Of a compaction: `auto` or `manual`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trigger: Option<String>,
    /// Of a compaction: tokens before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pre_tokens: Option<u64>,
    /// Of a compaction: tokens after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) post_tokens: Option<u64>,
    /// Of a spawn: the call that started the subagent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_use_id: Option<String>,
    /// Of a spawn: its type as asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_type: Option<String>,
}

/// A session's ledger: one row per API request, with its sources.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/ledger", tag = "read", params(("id" = String, Path)),
    responses((status = 200, body = LedgerJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn ledger(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<LedgerJson>, Problem> {
    let read = app
        .read(move |reader| {
            let items = reader.ledger(&id)?;
            if items.is_empty() && reader.session(&id)?.is_none() {
                return Ok(None);
            }
            let reconciliation = reader.reconcile(&id)?;
            let failures = reader.api_failures(&id)?;
            let marks = reader.transcript_marks(&id)?;
            Ok(Some((id, items, reconciliation, failures, marks)))
        })
        .await?;
    let (session_id, items, reconciliation, failures, marks) = read.ok_or(Problem::NotFound("session"))?;
    let mut totals = CostTotals::default();
    for row in &items {
        if let Some(confidence) = row.confidence {
            totals.add(&costs::totals_of(row, confidence));
        }
    }
    let mut cut = false;
    Ok(Json(LedgerJson {
        session_id,
        items: newest(items, &mut cut).map(LedgerRowJson::from).collect(),
        totals: (&totals).into(),
        reconciliation: reconciliation.map(ReconciliationJson::from),
        failures: newest(failures, &mut cut).map(FailureJson::from).collect(),
        marks: newest(marks, &mut cut).map(MarkJson::from).collect(),
        cut,
    }))
}

/// The last [`ITEMS_MAX`]; `cut` turns true where there were more.
fn newest<T>(items: Vec<T>, cut: &mut bool) -> impl Iterator<Item = T> + use<T> {
    let older = items.len().saturating_sub(ITEMS_MAX);
    *cut |= older > 0;
    items.into_iter().skip(older)
}

/// The sources of a row by name.
fn sources(bits: u8) -> Vec<&'static str> {
    Witness::ALL.into_iter().filter(|witness| bits & witness.bit() != 0).map(Witness::name).collect()
}

impl From<LedgerRow> for LedgerRowJson {
    fn from(r: LedgerRow) -> Self {
        Self {
            ts_ms: r.ts.get(),
            message_id: r.message_id,
            request_id: r.request_id,
            session_id: r.session_id,
            agent_id: r.agent_id,
            agent_type: r.agent_type,
            prompt_id: r.prompt_id,
            app: r.app,
            user: r.user.filter(|user| !user.is_empty()),
            model: r.model,
            tokens: (&r.usage).into(),
            context_size: i64::try_from(r.usage.context()).unwrap_or(i64::MAX),
            web_searches: i64::try_from(r.usage.web_searches).unwrap_or(i64::MAX),
            speed: r.terms.speed.name(),
            service_tier: r.terms.service_tier,
            inference_geo: r.terms.inference_geo,
            cost_usd: r.cost_nano_usd.map(usd),
            told_cost_usd: r.told_cost_nano_usd.map(usd),
            confidence: r.confidence.map(|confidence| confidence.name()),
            sources: sources(r.sources),
            provisional_output_tokens: r.provisional_output,
            query_source: r.query_source,
            effort: r.effort,
            stop_reason: r.stop_reason,
            duration_ms: r.duration_ms,
            ttft_ms: r.ttft_ms,
            attempts: r.attempts,
        }
    }
}

impl From<Reconciliation> for ReconciliationJson {
    fn from(r: Reconciliation) -> Self {
        let own = r.client_nano_usd.map(|client| client - r.inherited_nano_usd).filter(|own| *own != 0);
        Self {
            ledger_usd: r.ledger.known_cost_nano_usd().map(usd),
            transcript_usd: r.transcript_nano_usd.map(usd),
            transcript_requests: r.transcript_requests,
            otlp_usd: r.otlp_nano_usd.map(usd),
            otlp_requests: r.otlp_requests,
            client_usd: r.client_nano_usd.map(usd),
            inherited_usd: usd(r.inherited_nano_usd),
            drift_usd: r.drift_nano_usd.map(usd),
            drift_percent: r.drift_nano_usd.zip(own).map(|(drift, own)| usd(drift) / usd(own) * 100.0),
            failed_attempts: r.failed_attempts,
        }
    }
}

impl From<StoredFailure> for FailureJson {
    fn from(stored: StoredFailure) -> Self {
        let FailureSighting {
            witness,
            ts,
            key: _,
            session_id: _,
            agent_id,
            model,
            status_code,
            message,
            attempt,
            attempts_max,
            retry_in_ms,
            exhausted,
        } = stored.failure;
        Self {
            ts_ms: ts.get(),
            agent_id,
            model,
            status_code,
            message,
            attempt,
            attempts_max,
            retry_in_ms,
            exhausted,
            source: witness.name(),
        }
    }
}

impl From<StoredMark> for MarkJson {
    fn from(stored: StoredMark) -> Self {
        let Mark { key: _, session_id: _, born: _, agent_id, ts, kind, summary } = stored.mark;
        let mut mark = Self {
            ts_ms: ts.get(),
            kind: "prompt",
            agent_id,
            summary,
            prompt_id: None,
            trigger: None,
            pre_tokens: None,
            post_tokens: None,
            tool_use_id: None,
            agent_type: None,
        };
        match kind {
            MarkKind::Prompt { prompt_id } => mark.prompt_id = prompt_id,
            MarkKind::Compaction { trigger, pre_tokens, post_tokens } => {
                mark.kind = "compaction";
                (mark.trigger, mark.pre_tokens, mark.post_tokens) = (trigger, pre_tokens, post_tokens);
            }
            MarkKind::Spawn { tool_use_id, agent_type } => {
                mark.kind = "spawn";
                (mark.tool_use_id, mark.agent_type) = (Some(tool_use_id), agent_type);
            }
        }
        mark
    }
}

/// A transcript and a hook tell of the same moment when they are this close, in milliseconds.
const SAME_MOMENT_MS: i64 = 10_000;

/// What hooks told of a session, to tell apart what only its transcript tells.
pub(crate) struct Told {
    /// Kind, when, and the prompt's id.
    moments: Vec<(&'static str, TimestampMs, Option<String>)>,
    calls: Vec<String>,
}

impl Told {
    /// By a timeline's marks (type, time, prompt id) and calls (tool use id).
    pub(crate) fn by<'a>(
        marks: impl Iterator<Item = (&'a str, TimestampMs, Option<String>)>,
        calls: impl Iterator<Item = Option<String>>,
    ) -> Self {
        let kind = |type_name: &str| match type_name {
            "UserPromptSubmit" => Some("prompt"),
            "PreCompact" | "PostCompact" => Some("compaction"),
            _ => None,
        };
        Self {
            moments: marks
                .filter_map(|(type_name, ts, prompt)| Some((kind(type_name)?, ts, prompt)))
                .collect(),
            calls: calls.flatten().collect(),
        }
    }

    /// Whether a hook told of this, too.
    pub(crate) fn has(&self, mark: &MarkJson) -> bool {
        if let Some(call) = &mark.tool_use_id {
            return self.calls.contains(call);
        }
        self.moments.iter().any(|(kind, ts, prompt)| {
            *kind == mark.kind
                && match (prompt, &mark.prompt_id) {
                    (Some(mine), Some(theirs)) => mine == theirs,
                    _ => (ts.get() - mark.ts_ms).abs() <= SAME_MOMENT_MS,
                }
        })
    }
}
