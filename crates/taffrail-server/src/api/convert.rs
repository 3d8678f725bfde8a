//! From what the house knows to what leaves it as JSON.

use serde_json::value::{RawValue, to_raw_value};
use taffrail_event::ledger::{Confidence, RequestSighting, Usage};
use taffrail_event::prices::PriceTable;
use taffrail_event::{Event, TimestampMs};
use taffrail_store::{
    ContextSize, CostTotals, Quantiles, StoredAgent, StoredCall, StoredEvent, StoredGitOperation,
    StoredMetrics, StoredPayload, StoredSession, SummaryRows, ToolChain, WindowTotals,
};

use super::money::{self, SessionsMoney, usd};
use super::types::{
    AgentJson, CallJson, ErrorJson, ErrorsJson, EventJson, FacetJson, FileOperationJson, FileOperationsJson,
    GitJson, GitOperationJson, MemoryJson, MemoryUsageJson, MetricsJson, Page, PerformanceJson, QualityJson,
    QuantilesJson, SessionJson, SessionsJson, StepJson, SummaryJson, TokenUsageJson, ToolChainJson, ToolJson,
    WarningJson, WindowJson,
};

/// A rate from here on is a warning, in percent.
const WARNING_PERCENT: f64 = 1.0;
/// A rate from here on is critical, in percent.
const CRITICAL_PERCENT: f64 = 5.0;
/// Git subcommands that write history: the one of an event that is shown.
const WRITING_GIT: [&str; 9] =
    ["commit", "push", "merge", "rebase", "cherry-pick", "revert", "reset", "tag", "am"];

impl<T> Page<T> {
    /// A page of the store, its rows as JSON.
    pub(crate) fn of<R>(page: taffrail_store::Page<R>) -> Self
    where
        T: From<R>,
    {
        Self {
            items: page.rows.into_iter().map(T::from).collect(),
            next_cursor: page.next.map(|id| id.0.to_string()),
        }
    }
}

/// A count as JSON has it; more than fits has never been.
fn count(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// An event that was just taken in, without payload. Its id is set at its commit; its neighbours are not known yet.
impl EventJson {
    /// With the cost by these prices, as the store will have it.
    pub(crate) fn of(e: &Event, prices: &PriceTable) -> Self {
        Self {
            id: 0,
            event_id: e.event_id.to_string(),
            ts_ms: e.ts.get(),
            received_ms: e.received.get(),
            source: e.source.name().to_owned(),
            app: e.app.clone(),
            session_id: e.session_id.clone(),
            agent_id: e.agent_id.clone(),
            agent_type: e.agent_type.clone(),
            prompt_id: e.prompt_id.clone(),
            tool_use_id: e.tool_use_id.clone(),
            user: e.user.clone(),
            host: e.host.clone(),
            model: e.model.clone(),
            type_name: e.type_name.clone(),
            tool_name: e.tool_name.clone(),
            summary: e.summary.clone(),
            metrics: metrics_of(e, prices),
            error: e.error.as_ref().map(|error| ErrorJson {
                class: error.class.to_owned(),
                message: error.message.clone(),
                stack_trace: error.stack_trace.clone(),
                recoverable: error.recoverable,
                retry_count: error.retry_count.into(),
                fingerprint: error.fingerprint.clone(),
            }),
            file_operations: e.file_operations.iter().map(FileOperationJson::from).collect(),
            git_operations: most_important(&e.git_operations, |op| &op.subcommand)
                .map(GitOperationJson::from),
            tool_chain: None,
            warnings: e
                .warnings
                .iter()
                .map(|w| WarningJson {
                    rule: w.rule.clone(),
                    severity: w.severity.name().to_owned(),
                    message: w.message.clone(),
                })
                .collect(),
            issues: e.issues.iter().filter_map(|issue| serde_json::to_value(issue).ok()).collect(),
            payload: None,
            payload_bytes: count(e.payload.original_bytes),
            payload_truncated: e.payload.truncated,
            redactions: e.payload.redactions.into(),
        }
    }
}

fn metrics_of(e: &Event, prices: &PriceTable) -> MetricsJson {
    let m = &e.metrics;
    let usage = e.request.as_ref().and_then(|request| Some((request.usage?, request.model.as_str())));
    let has_memory = m.agent_rss_bytes.is_some() || m.compression_events.is_some() || usage.is_some();
    let memory = has_memory.then(|| MemoryUsageJson {
        context_size: usage.map(|(usage, _)| count(usage.context())),
        context_utilization: usage
            .and_then(|(usage, model)| utilization(usage, prices.context_window(model)?)),
        agent_rss_bytes: m.agent_rss_bytes.map(count),
        compression_events: m.compression_events.map(i64::from),
    });
    MetricsJson {
        execution_time_ms: m.execution_time_ms.map(count),
        token_usage: e.request.as_deref().and_then(|request| tokens_of(request, prices)),
        memory_usage: memory,
        output_bytes: m.output_bytes.map(count),
        hook_wall_us: m.hook_wall_us.map(count),
    }
}

/// Share of the model's context window, 0 to 1.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn utilization(usage: Usage, window: u64) -> Option<f64> {
    (window > 0).then(|| usage.context() as f64 / window as f64)
}

/// What the event itself tells; the request's row in the ledger has what all sources together tell.
fn tokens_of(request: &RequestSighting, prices: &PriceTable) -> Option<TokenUsageJson> {
    let usage = request.usage?;
    let quote = prices.quote(&request.model, &usage, &request.terms, request.ts);
    Some(TokenUsageJson {
        input: count(usage.input),
        output: count(usage.output),
        cache_read: count(usage.cache_read),
        cache_write_5m: count(usage.cache_write_5m),
        cache_write_1h: count(usage.cache_write_1h),
        total: count(usage.total()),
        cost_usd: quote.map(|quote| usd(quote.total_nano_usd)),
        confidence: Some(confidence_of(quote.is_some()).to_owned()),
    })
}

/// Of an event that tells of a request: only telemetry does, and its usage is final.
fn confidence_of(is_priced: bool) -> &'static str {
    if is_priced { Confidence::Exact.name() } else { Confidence::Unpriced.name() }
}

impl From<&taffrail_event::event::FileOperation> for FileOperationJson {
    fn from(op: &taffrail_event::event::FileOperation) -> Self {
        Self {
            kind: op.kind.name().to_owned(),
            path: op.path.clone(),
            size_bytes: op.size_bytes.map(count),
            duration_ms: op.duration_ms.map(count),
            lines_added: op.lines_added.map(i64::from),
            lines_removed: op.lines_removed.map(i64::from),
        }
    }
}

impl From<&taffrail_event::event::GitOperation> for GitOperationJson {
    fn from(op: &taffrail_event::event::GitOperation) -> Self {
        Self {
            command: op.command.clone(),
            subcommand: op.subcommand.clone(),
            branch: op.branch.clone(),
            files_changed: op.files_changed.map(i64::from),
            insertions: op.insertions.map(i64::from),
            deletions: op.deletions.map(i64::from),
            commit: op.commit.clone(),
        }
    }
}

/// The last that wrote history, else the last.
fn most_important<T>(operations: &[T], subcommand: impl Fn(&T) -> &String) -> Option<&T> {
    let writes = |op: &&T| WRITING_GIT.contains(&subcommand(op).as_str());
    operations.iter().rev().find(writes).or(operations.last())
}

impl From<StoredEvent> for EventJson {
    fn from(e: StoredEvent) -> Self {
        let git_operations = most_important(&e.git_operations, |op| &op.subcommand).cloned();
        let is_deep = e.issues.iter().any(|issue| issue["issue"] == "too_deep");
        Self {
            id: e.row_id.0,
            event_id: e.event_id.to_string(),
            ts_ms: e.ts.get(),
            received_ms: e.received.get(),
            source: e.source,
            app: e.app,
            session_id: e.session_id,
            agent_id: e.agent_id,
            agent_type: e.agent_type,
            prompt_id: e.prompt_id,
            tool_use_id: e.tool_use_id,
            user: e.user,
            host: e.host,
            model: e.model,
            type_name: e.type_name,
            tool_name: e.tool_name,
            summary: e.summary,
            metrics: e.metrics.into(),
            error: e.error.map(|error| ErrorJson {
                class: error.class,
                message: error.message,
                stack_trace: error.stack_trace,
                recoverable: error.recoverable,
                retry_count: error.retry_count,
                fingerprint: error.fingerprint,
            }),
            file_operations: e
                .file_operations
                .into_iter()
                .map(|op| FileOperationJson {
                    kind: op.kind,
                    path: op.path,
                    size_bytes: op.size_bytes,
                    duration_ms: op.duration_ms,
                    lines_added: op.lines_added,
                    lines_removed: op.lines_removed,
                })
                .collect(),
            git_operations: git_operations.map(GitOperationJson::from),
            tool_chain: e.tool_chain.map(ToolChainJson::from),
            warnings: e
                .warnings
                .into_iter()
                .map(|w| WarningJson { rule: w.rule, severity: w.severity, message: w.message })
                .collect(),
            issues: e.issues,
            payload: e.payload.as_ref().and_then(|payload| payload_json(payload, is_deep)),
            payload_bytes: e.payload_bytes,
            payload_truncated: e.payload_truncated,
            redactions: e.redactions,
        }
    }
}

/// The JSON as it is stored. What is no JSON becomes a string, and so does what is nested so deep that a reader's
/// parser would fail on the whole page.
fn payload_json(payload: &StoredPayload, is_deep: bool) -> Option<Box<RawValue>> {
    if payload.is_json
        && !is_deep
        && let Ok(raw) = RawValue::from_string(payload.text.clone())
    {
        return Some(raw);
    }
    to_raw_value(&payload.text).ok()
}

impl From<StoredMetrics> for MetricsJson {
    fn from(m: StoredMetrics) -> Self {
        let tokens = m.total_tokens.map(|total| TokenUsageJson {
            input: m.input_tokens.unwrap_or(0),
            output: m.output_tokens.unwrap_or(0),
            cache_read: m.cache_read_tokens.unwrap_or(0),
            cache_write_5m: m.cache_write_5m_tokens.unwrap_or(0),
            cache_write_1h: m.cache_write_1h_tokens.unwrap_or(0),
            total,
            cost_usd: m.cost_nano_usd.map(usd),
            confidence: Some(confidence_of(m.cost_nano_usd.is_some()).to_owned()),
        });
        let memory = MemoryUsageJson {
            context_size: m.context_size,
            context_utilization: m.context_utilization,
            compression_events: m.compression_events,
            agent_rss_bytes: m.agent_rss_bytes,
        };
        let has_memory = m.context_size.is_some()
            || m.context_utilization.is_some()
            || m.compression_events.is_some()
            || m.agent_rss_bytes.is_some();
        Self {
            execution_time_ms: m.execution_time_ms,
            token_usage: tokens,
            memory_usage: has_memory.then_some(memory),
            output_bytes: m.output_bytes,
            hook_wall_us: m.hook_wall_us,
        }
    }
}

impl From<StoredGitOperation> for GitOperationJson {
    fn from(op: StoredGitOperation) -> Self {
        Self {
            command: op.command,
            subcommand: op.subcommand,
            branch: op.branch,
            files_changed: op.files_changed,
            insertions: op.insertions,
            deletions: op.deletions,
            commit: op.commit,
        }
    }
}

impl From<ToolChain> for ToolChainJson {
    fn from(chain: ToolChain) -> Self {
        Self {
            previous_tool: chain.previous_tool,
            next_tool: chain.next_tool,
            is_parallel: chain.is_parallel,
        }
    }
}

impl From<StoredCall> for CallJson {
    fn from(c: StoredCall) -> Self {
        Self {
            id: c.id.0,
            tool_use_id: c.tool_use_id,
            app: c.app,
            session_id: c.session_id,
            agent_id: c.agent_id,
            agent_type: c.agent_type,
            tool_name: c.tool_name,
            summary: c.summary,
            status: c.status.name().to_owned(),
            started_ms: c.started.map(TimestampMs::get),
            ended_ms: c.ended.map(TimestampMs::get),
            duration_ms: c.duration_ms,
            start_event: c.start_event.map(|id| id.0),
            end_event: c.end_event.map(|id| id.0),
            error_type: c.error_type,
            tool_chain: c.tool_chain.into(),
        }
    }
}

impl SessionJson {
    /// A session as it stands now, with what the ledger has of it.
    pub(crate) fn of(s: StoredSession, ledger: &SessionsMoney, now: TimestampMs) -> Self {
        let cost = ledger.costs.get(&s.session_id);
        let context = ledger.contexts.get(&s.session_id);
        Self {
            state: s.state(now).name().to_owned(),
            session_id: s.session_id,
            app: s.app,
            user: s.user,
            host: s.host,
            cwd: s.cwd,
            model: s.model,
            start_source: s.start_source,
            started_ms: s.started.get(),
            last_event_ms: s.last_event.get(),
            ended_ms: s.ended.map(TimestampMs::get),
            end_reason: s.end_reason,
            events: s.events,
            prompts: s.prompts,
            calls: s.calls,
            failed_calls: s.failed_calls,
            subagents: s.subagents,
            compactions: s.compactions,
            last_prompt: s.last_prompt,
            title: s.title,
            git_branch: s.git_branch,
            requests: cost.map_or(0, |cost| cost.requests),
            unpriced_requests: cost.map_or(0, |cost| cost.of(Confidence::Unpriced).requests),
            tokens: cost.map(|cost| (&cost.usage).into()),
            cost_usd: cost.and_then(CostTotals::known_cost_nano_usd).map(usd),
            confidence: cost.and_then(money::least_sure).map(|confidence| confidence.name().to_owned()),
            context_size: context.map(|context| context.tokens),
            context_utilization: context.and_then(ContextSize::utilization),
        }
    }
}

impl AgentJson {
    /// An agent with what it has cost; none where the ledger has no request of it.
    pub(crate) fn of(a: StoredAgent, cost: Option<&CostTotals>) -> Self {
        Self {
            agent_id: a.agent_id,
            agent_type: a.agent_type,
            started_ms: a.started.get(),
            ended_ms: a.ended.map(TimestampMs::get),
            last_event_ms: a.last_event.get(),
            events: a.events,
            calls: a.calls,
            failed_calls: a.failed_calls,
            description: a.description,
            tool_use_id: a.tool_use_id,
            parent_agent_id: a.parent_id,
            requests: cost.map_or(0, |cost| cost.requests),
            tokens: cost.map(|cost| (&cost.usage).into()),
            cost_usd: cost.and_then(CostTotals::known_cost_nano_usd).map(usd),
        }
    }
}

impl From<Quantiles> for QuantilesJson {
    fn from(q: Quantiles) -> Self {
        Self { avg: q.avg, p50: q.p50, p95: q.p95, p99: q.p99 }
    }
}

/// The window that a summary was read for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(crate) name: &'a str,
    pub(crate) from: TimestampMs,
    pub(crate) to: TimestampMs,
    pub(crate) step_ms: i64,
}

/// Rates and shares by the formulas of the contract, from the counts of the rollups.
pub(crate) fn summary(rows: SummaryRows, span: Span<'_>) -> SummaryJson {
    let t = rows.totals;
    SummaryJson {
        window: WindowJson {
            name: span.name.to_owned(),
            from_ms: span.from.get(),
            to_ms: span.to.get(),
            step_ms: span.step_ms,
            events: t.events,
        },
        errors: ErrorsJson {
            failed: t.failed,
            error_rate_percent: error_rate_percent(&t).unwrap_or(0.0),
            status: status_of(error_rate_percent(&t).unwrap_or(0.0)).to_owned(),
            trend_points: rows
                .previous
                .as_ref()
                .and_then(|before| Some(error_rate_percent(&t)? - error_rate_percent(before)?)),
            by_type: rows
                .errors
                .iter()
                .map(|e| FacetJson { value: e.class.clone(), count: e.count })
                .collect(),
        },
        file_operations: FileOperationsJson {
            total: t.files.total(),
            per_min: per_minute(t.files.total(), span),
            read: t.files.read,
            write: t.files.write,
            edit: t.files.edit,
            delete: t.files.delete,
            lines_added: t.files.lines_added,
            lines_removed: t.files.lines_removed,
        },
        git: GitJson {
            operations: t.git.operations,
            commits: t.git.commits,
            insertions: t.git.insertions,
            deletions: t.git.deletions,
        },
        memory: MemoryJson {
            compactions: t.compactions,
            context_size: rows.context_size,
            context_utilization: rows.context_utilization,
        },
        quality: QualityJson {
            success_percent: percent(t.succeeded, t.succeeded + t.failed),
            denied_percent: percent(t.denied, t.calls),
            denied: t.denied,
            interrupted: t.interrupted,
        },
        sessions: SessionsJson {
            seen: rows.sessions.seen,
            active: rows.sessions.active,
            active_agents: rows.sessions.active_agents,
            prompts: t.prompts,
        },
        tokens: None,
        cost: None,
        performance: performance(rows, span),
    }
}

fn performance(rows: SummaryRows, span: Span<'_>) -> PerformanceJson {
    let before = rows.previous.as_ref().and_then(average_ms);
    let trend = average_ms(&rows.totals).zip(before).filter(|(_, before)| *before > 0.0);
    PerformanceJson {
        calls: rows.totals.calls,
        execution_ms: rows.execution_ms.into(),
        throughput_per_min: per_minute(rows.totals.calls, span),
        latency_ms: rows.latency_ms.into(),
        concurrency_avg: rows.concurrency_avg,
        concurrency_max: rows.concurrency_max,
        trend_percent: trend.map(|(now, before)| (now - before) / before * 100.0),
        history: rows
            .history
            .into_iter()
            .map(|s| StepJson {
                t_ms: s.t_ms,
                events: s.events,
                calls: s.calls,
                failed: s.failed,
                execution_ms_avg: s.execution_ms_avg,
                execution_ms_p95: s.execution_ms_p95,
                file_operations: s.file_operations,
            })
            .collect(),
        tools: rows
            .tools
            .into_iter()
            .map(|t| ToolJson {
                tool_name: t.tool_name,
                calls: t.calls,
                failed: t.failed,
                execution_ms: t.execution_ms.into(),
            })
            .collect(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn average_ms(totals: &WindowTotals) -> Option<f64> {
    (totals.duration_count > 0).then(|| totals.duration_ms_sum as f64 / totals.duration_count as f64)
}

/// failed / (calls - denied - interrupted) * 100; none without such calls.
fn error_rate_percent(totals: &WindowTotals) -> Option<f64> {
    percent(totals.failed, totals.calls - totals.denied - totals.interrupted)
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn percent(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}

fn status_of(error_rate_percent: f64) -> &'static str {
    if error_rate_percent >= CRITICAL_PERCENT {
        "critical"
    } else if error_rate_percent >= WARNING_PERCENT {
        "warning"
    } else {
        "healthy"
    }
}

/// By the window as it really was: its start is rounded down.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn per_minute(n: i64, span: Span<'_>) -> f64 {
    let minutes = (span.to.get() - span.from.get()).max(1) as f64 / 60_000.0;
    n as f64 / minutes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn span() -> Span<'static> {
        let to = TimestampMs::clamped(1_800_000_000_000);
        Span { name: "5m", from: TimestampMs::clamped(to.get() - 300_000), to, step_ms: 10_000 }
    }

    #[test]
    fn rates_leave_out_what_was_denied_or_interrupted() {
        let totals = WindowTotals {
            events: 40,
            calls: 25,
            succeeded: 19,
            failed: 1,
            denied: 3,
            interrupted: 2,
            duration_ms_sum: 3_000,
            duration_count: 20,
            ..WindowTotals::default()
        };
        let previous = WindowTotals {
            calls: 10,
            failed: 1,
            duration_ms_sum: 1_000,
            duration_count: 10,
            ..WindowTotals::default()
        };
        let json =
            summary(SummaryRows { totals, previous: Some(previous), ..SummaryRows::default() }, span());
        assert_eq!(json.errors.error_rate_percent, 5.0);
        assert_eq!(json.errors.status, "critical");
        assert_eq!(json.errors.trend_points, Some(-5.0));
        assert_eq!(json.performance.throughput_per_min, 5.0);
        assert_eq!(json.performance.trend_percent, Some(50.0));
        assert_eq!(json.quality.success_percent, Some(95.0));
        assert_eq!(json.quality.denied_percent, Some(12.0));
    }

    #[test]
    fn an_empty_window_has_no_shares_and_is_healthy() {
        let json = summary(SummaryRows::default(), span());
        assert_eq!((json.errors.error_rate_percent, json.errors.status.as_str()), (0.0, "healthy"));
        assert_eq!((json.performance.trend_percent, json.quality.success_percent), (None, None));
        assert!(json.tokens.is_none() && json.cost.is_none());
    }

    #[test]
    fn the_git_command_that_wrote_history_is_shown() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            most_important(&names, |n| n).cloned()
        };
        assert_eq!(of(&["commit", "push", "status"]).unwrap(), "push");
        assert_eq!(of(&["status", "log"]).unwrap(), "log");
        assert_eq!(of(&[]), None);
    }
}
