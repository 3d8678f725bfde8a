//! What the digest of one session tells: its contexts, and the quality of its work.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use taffrail_analytics::context::{AgentContext, FillFact, NextCompaction};
use taffrail_analytics::digest::{self, Limits};
use taffrail_store::{ReadError, Reader, StoredFacts};

use super::money::usd;
use crate::clock;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Which digest it is.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DigestedJson {
    /// When the session was digested.
    pub(crate) digested_ms: i64,
    /// Whether changes since wait for the next digest, some seconds.
    pub(crate) is_pending: bool,
    /// Calls, requests and marks that are too many, the oldest, and were left out.
    pub(crate) cut: i64,
}

impl DigestedJson {
    fn of(stored: &StoredFacts) -> Self {
        Self { digested_ms: stored.digested_ms, is_pending: stored.is_pending, cut: stored.cut }
    }
}

/// The contexts of a session's agents; sizes in tokens.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ContextJson {
    /// Which digest this is from.
    pub(crate) digest: DigestedJson,
    /// Compactions of every agent.
    pub(crate) compactions: u64,
    /// What filled the contexts, over all agents, the most first.
    pub(crate) fill: Vec<FillJson>,
    /// The main agent first, then by peak.
    pub(crate) agents: Vec<AgentContextJson>,
}

/// One agent's context.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AgentContextJson {
    /// Null for the main agent.
    pub(crate) agent_id: Option<String>,
    /// `main`, or the subagent's type.
    pub(crate) agent_type: String,
    /// Of its last request; null where none is known.
    pub(crate) model: Option<String>,
    /// The model's window, where it is known.
    pub(crate) window: Option<i64>,
    /// Whether sizes are estimated from bytes, since no request is known, else as the API measured them.
    pub(crate) estimated: bool,
    /// The last size.
    pub(crate) size: i64,
    /// The largest size.
    pub(crate) peak: i64,
    /// Size as a share of the window, 0 to 1.
    pub(crate) utilization: Option<f64>,
    /// Sizes by time.
    pub(crate) curve: CurveJson,
    /// By time.
    pub(crate) compactions: Vec<CompactionJson>,
    /// What filled it, the most first.
    pub(crate) fill: Vec<FillJson>,
    /// Tokens that left it other than by a compaction.
    pub(crate) shrunk: i64,
    /// Null where it does not grow, or the point of compaction is not known.
    pub(crate) next_compaction: Option<NextCompactionJson>,
}

/// Two columns of one length.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CurveJson {
    /// When, in milliseconds since the Unix epoch.
    pub(crate) t: Vec<i64>,
    /// Tokens.
    pub(crate) tokens: Vec<i64>,
}

/// A compaction.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CompactionJson {
    /// When.
    pub(crate) ts_ms: i64,
    /// `auto` or `manual`, where it is told.
    pub(crate) trigger: Option<String>,
    /// Tokens before.
    pub(crate) pre_tokens: Option<i64>,
    /// Tokens after.
    pub(crate) post_tokens: Option<i64>,
}

/// Tokens of one source.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FillJson {
    /// `initial`, `model_output`, `tool_result`, `prompt`, `after_compaction` or `other`.
    pub(crate) source: String,
    /// Of a tool result.
    pub(crate) tool: Option<String>,
    /// Tokens.
    pub(crate) tokens: i64,
    /// Bytes of the tool results.
    pub(crate) bytes: i64,
    /// Results, prompts or requests.
    pub(crate) count: u64,
    /// Whether the tokens are estimated from bytes.
    pub(crate) estimated: bool,
}

/// When the context will be compacted if it goes on growing as it lately did. Ranges are from the 75th to the 25th percentile
/// of growth; an open end is null.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct NextCompactionJson {
    /// At this size.
    pub(crate) at_tokens: i64,
    /// `observed` in this session, `history` of the model, `assumed` share of the window.
    pub(crate) basis: String,
    /// Tokens left.
    pub(crate) tokens_left: i64,
    /// Growth from request to request, in tokens.
    pub(crate) growth_per_request: f64,
    /// Requests left.
    pub(crate) requests: f64,
    /// From, to.
    pub(crate) requests_range: [Option<f64>; 2],
    /// Minutes of work left.
    pub(crate) minutes: Option<f64>,
    /// From, to.
    pub(crate) minutes_range: [Option<f64>; 2],
    /// How many requests it goes by.
    pub(crate) samples: u64,
}

impl From<FillFact> for FillJson {
    fn from(f: FillFact) -> Self {
        let FillFact { source, tool, tokens, bytes, count, estimated } = f;
        Self { source, tool, tokens, bytes, count, estimated }
    }
}

impl From<NextCompaction> for NextCompactionJson {
    fn from(n: NextCompaction) -> Self {
        Self {
            at_tokens: n.at_tokens,
            basis: n.basis,
            tokens_left: n.tokens_left,
            growth_per_request: n.growth_per_request,
            requests: n.requests,
            requests_range: n.requests_range,
            minutes: n.minutes,
            minutes_range: n.minutes_range,
            samples: n.samples,
        }
    }
}

impl From<AgentContext> for AgentContextJson {
    fn from(a: AgentContext) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        Self {
            agent_id: some(a.agent_id),
            agent_type: a.agent_type,
            model: some(a.model),
            window: a.window,
            estimated: a.estimated,
            size: a.size,
            peak: a.peak,
            utilization: a.utilization,
            curve: CurveJson {
                t: a.curve.iter().map(|point| point.ts_ms).collect(),
                tokens: a.curve.iter().map(|point| point.tokens).collect(),
            },
            compactions: a
                .compactions
                .into_iter()
                .map(|c| CompactionJson {
                    ts_ms: c.ts_ms,
                    trigger: c.trigger,
                    pre_tokens: c.pre_tokens,
                    post_tokens: c.post_tokens,
                })
                .collect(),
            fill: a.fill.into_iter().map(FillJson::from).collect(),
            shrunk: a.shrunk,
            next_compaction: a.next_compaction.map(NextCompactionJson::from),
        }
    }
}

/// The contexts of a session's agents: size over time, compactions, what filled them, and when the next compaction comes.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/context", tag = "read", params(("id" = String, Path)),
    responses((status = 200, body = ContextJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn context(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<ContextJson>, Problem> {
    let stored = facts(&app, id).await?;
    let digest = DigestedJson::of(&stored);
    let context = stored.facts.context;
    Ok(Json(ContextJson {
        digest,
        compactions: context.compactions,
        fill: context.fill.into_iter().map(FillJson::from).collect(),
        agents: context.agents.into_iter().map(AgentContextJson::from).collect(),
    }))
}

/// The quality of a session's work. Percents are null where there is nothing to share.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SessionQualityJson {
    /// Which digest this is from.
    pub(crate) digest: DigestedJson,
    /// Calls that ended.
    pub(crate) calls: u64,
    /// Of these: well.
    pub(crate) succeeded: u64,
    /// With an error.
    pub(crate) failed: u64,
    /// Refused.
    pub(crate) denied: u64,
    /// Stopped by a person.
    pub(crate) interrupted: u64,
    /// Succeeded of those neither denied nor interrupted.
    pub(crate) success_percent: Option<f64>,
    /// First calls on a target since it last succeeded.
    pub(crate) first_tries: u64,
    /// Of these, the ones that succeeded.
    pub(crate) first_try_success_percent: Option<f64>,
    /// Changes of files.
    pub(crate) changes: u64,
    /// Of these, within 10 minutes of another of the same file.
    pub(crate) rework: u64,
    /// See `rework`.
    pub(crate) rework_percent: Option<f64>,
    /// Of the calls.
    pub(crate) denied_percent: Option<f64>,
    /// Commands that run tests.
    pub(crate) test_runs: u64,
    /// Whose tests passed, as far as the command's end tells.
    pub(crate) tests_passed: u64,
    /// Whose tests failed.
    pub(crate) tests_failed: u64,
    /// Passed of both.
    pub(crate) test_pass_percent: Option<f64>,
    /// The outcome of the last run that told one.
    pub(crate) last_test_passed: Option<bool>,
    /// Failed calls that a later success resolved.
    pub(crate) failures_resolved: u64,
    /// Median time from a failure to the end of the call that resolved it.
    pub(crate) resolution_ms_p50: Option<i64>,
    /// Calls of one batch or whose spans overlap.
    pub(crate) parallel_percent: Option<f64>,
    /// Most calls in flight at once.
    pub(crate) parallel_max: u64,
    /// What repetition, cycles and thrash wasted, each call counted once.
    pub(crate) wasted: SessionWasteJson,
}

/// What a session wasted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SessionWasteJson {
    /// Calls.
    pub(crate) calls: u64,
    /// Time the tools worked.
    pub(crate) ms: i64,
    /// Tokens.
    pub(crate) tokens: i64,
    /// Of the session's tokens.
    pub(crate) token_percent: Option<f64>,
    /// Money; null where nothing is priced.
    pub(crate) cost_usd: Option<f64>,
}

/// The quality of a session's work: success, first tries, rework, tests, refusals, waste.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/quality", tag = "read", params(("id" = String, Path)),
    responses((status = 200, body = SessionQualityJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn quality(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<SessionQualityJson>, Problem> {
    let stored = facts(&app, id).await?;
    let digest = DigestedJson::of(&stored);
    let (q, sequences, failures) = (stored.facts.quality, stored.facts.sequences, stored.facts.failures);
    let percent = |share: Option<f64>| share.map(|share| share * 100.0);
    Ok(Json(SessionQualityJson {
        digest,
        calls: q.calls,
        succeeded: q.succeeded,
        failed: q.failed,
        denied: q.denied,
        interrupted: q.interrupted,
        success_percent: percent(q.success_share),
        first_tries: q.first_tries,
        first_try_success_percent: percent(q.first_try_share),
        changes: q.changes,
        rework: q.rework,
        rework_percent: percent(q.rework_share),
        denied_percent: percent(q.denied_share),
        test_runs: q.test_runs,
        tests_passed: q.tests_passed,
        tests_failed: q.tests_failed,
        test_pass_percent: percent(q.test_pass_share),
        last_test_passed: q.last_test_passed,
        failures_resolved: failures.resolved,
        resolution_ms_p50: failures.resolution_median_ms,
        parallel_percent: percent(sequences.parallel.share),
        parallel_max: sequences.parallel.max,
        wasted: SessionWasteJson {
            calls: sequences.wasted.calls,
            ms: sequences.wasted.ms,
            tokens: sequences.wasted.tokens,
            token_percent: percent(sequences.wasted.token_share),
            cost_usd: sequences.wasted.nano_usd.map(usd),
        },
    }))
}

/// What the last digest tells; of a session that was never digested, what a digest would tell now.
async fn facts(app: &App, id: String) -> Result<StoredFacts, Problem> {
    app.read(move |reader| facts_of(reader, &id)).await?.ok_or(Problem::NotFound("session"))
}

fn facts_of(reader: &Reader, id: &str) -> Result<Option<StoredFacts>, ReadError> {
    if let Some(stored) = reader.session_facts(id)? {
        return Ok(Some(stored));
    }
    let read = reader.trace(id)?;
    Ok(read.map(|read| StoredFacts {
        facts: digest::digest(&read.trace, &Limits::default()).facts,
        digested_ms: clock::now_ms(),
        cut: read.cut,
        is_pending: false,
    }))
}
