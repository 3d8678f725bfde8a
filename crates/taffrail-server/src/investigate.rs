//! What is frozen of a finding while it is fresh: the calls that show it, what happened around it, what was different
//! from before, and who contributed.
//!
//! "During" is the episode with [`MARGIN_MS`] on both sides, "before" the span of the same length that ends where it begins,
//! both within the same session; without a session within the same project. Limits: [`CALLS_MAX`] calls are looked at in
//! each, [`TIMELINE_MAX`] are kept, [`SIMILAR_MAX`] earlier findings.

use std::collections::BTreeMap;

use serde::Serialize;
use taffrail_event::event::CallStatus;
use taffrail_event::{RowId, TimestampMs};
use taffrail_store::{
    CallFilter, CostBy, CostQuery, CostTotals, FindingFilter, ReadError, Reader, Scope, StoredCall,
    StoredFinding,
};

use crate::api::money::usd;

/// What is looked at on both sides of an episode, in milliseconds.
const MARGIN_MS: i64 = 5 * 60_000;
/// The longest span that is looked at, in milliseconds: the end of a longer episode.
const SPAN_MAX_MS: i64 = 6 * 3_600_000;
/// Calls of one span that are looked at.
const CALLS_MAX: usize = 1_000;
/// Calls of the timeline.
const TIMELINE_MAX: usize = 200;
/// Contributors of one kind.
const CONTRIBUTORS_MAX: usize = 10;
/// Earlier findings of the same detector and project.
const SIMILAR_MAX: usize = 20;
/// How far back those are looked for, in milliseconds.
const SIMILAR_MS: i64 = 30 * 86_400_000;

/// What an investigation froze.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BundleJson {
    /// When it was made.
    pub(crate) made_ms: i64,
    /// What was looked at.
    during: SpanJson,
    /// The span before it.
    before: SpanJson,
    /// What differs most between the two, largest first.
    changes: Vec<ChangeJson>,
    /// Tools by wall time during the episode.
    tools: Vec<ContributorJson>,
    /// Models by cost during the episode.
    models: Vec<ContributorJson>,
    /// Calls that the finding names.
    exemplars: Vec<MomentJson>,
    /// Calls during the episode, oldest first; the newest are kept.
    timeline: Vec<MomentJson>,
    /// Whether calls were left out.
    cut: bool,
    /// Earlier findings of the same detector and project, newest first.
    similar: Vec<SimilarJson>,
}

/// One span's figures.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
struct SpanJson {
    from_ms: i64,
    to_ms: i64,
    calls: i64,
    failed: i64,
    denied: i64,
    /// Null where no call ended.
    error_rate_percent: Option<f64>,
    /// Median wall time of the calls; null where none is known.
    execution_ms_p50: Option<i64>,
    requests: i64,
    tokens: i64,
    /// US dollars; null where nothing is priced.
    cost_usd: Option<f64>,
}

/// One figure, before and during.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct ChangeJson {
    metric: &'static str,
    before: f64,
    during: f64,
    /// during / before; null where it was 0 before.
    ratio: Option<f64>,
}

/// Who contributed.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct ContributorJson {
    name: String,
    /// Calls of a tool, requests of a model.
    count: i64,
    failed: i64,
    duration_ms: i64,
    cost_usd: Option<f64>,
    /// Of all of them.
    share_percent: f64,
}

/// One call.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct MomentJson {
    id: i64,
    at_ms: i64,
    session_id: String,
    agent_id: Option<String>,
    tool_name: String,
    summary: String,
    status: &'static str,
    duration_ms: Option<i64>,
    error_type: Option<String>,
}

/// An earlier finding.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct SimilarJson {
    id: i64,
    started_ms: i64,
    session_id: Option<String>,
    title: String,
    state: &'static str,
    cost_usd: Option<f64>,
}

/// Looks at what is around a finding.
pub(crate) fn bundle(
    reader: &Reader,
    found: &StoredFinding,
    now: TimestampMs,
) -> Result<BundleJson, ReadError> {
    let finding = &found.finding;
    let ended = finding.ended.unwrap_or(finding.last).max(finding.last).get();
    let to = ended.saturating_add(MARGIN_MS).min(now.get().max(ended)).saturating_add(1);
    let from = finding.started.get().saturating_sub(MARGIN_MS).max(to.saturating_sub(SPAN_MAX_MS)).min(to);
    let length = to - from;
    let during = Span::read(reader, found, from, to)?;
    let before = Span::read(reader, found, from.saturating_sub(length), from)?;
    let mut exemplars = Vec::new();
    for id in &finding.calls {
        exemplars.extend(call(reader, *id)?.as_ref().map(moment));
    }
    let timeline: Vec<MomentJson> = during.calls.iter().take(TIMELINE_MAX).rev().map(moment).collect();
    Ok(BundleJson {
        made_ms: now.get(),
        changes: changes(&before.json(), &during.json()),
        tools: during.tools(),
        models: during.models(),
        cut: during.cut || during.calls.len() > timeline.len(),
        exemplars,
        timeline,
        similar: similar(reader, found)?,
        during: during.json(),
        before: before.json(),
    })
}

/// One call by its row.
fn call(reader: &Reader, id: RowId) -> Result<Option<StoredCall>, ReadError> {
    let behind = RowId(id.0.saturating_add(1));
    let page = reader.calls(&CallFilter::default(), Some(behind), 1)?;
    Ok(page.rows.into_iter().find(|call| call.id == id))
}

fn moment(call: &StoredCall) -> MomentJson {
    MomentJson {
        id: call.id.0,
        at_ms: call.started.unwrap_or_else(|| call.id.ts()).get(),
        session_id: call.session_id.clone(),
        agent_id: call.agent_id.clone(),
        tool_name: call.tool_name.clone(),
        summary: call.summary.clone(),
        status: call.status.name(),
        duration_ms: call.duration_ms,
        error_type: call.error_type.clone(),
    }
}

fn similar(reader: &Reader, found: &StoredFinding) -> Result<Vec<SimilarJson>, ReadError> {
    let filter = FindingFilter {
        detector: Some(found.finding.detector.clone()),
        app: Some(found.finding.app.clone()),
        from: Some(TimestampMs::clamped(found.finding.started.get().saturating_sub(SIMILAR_MS))),
        ..FindingFilter::default()
    };
    let page = reader.findings(&filter, Some(found.id), SIMILAR_MAX)?;
    let rows = page.rows.into_iter().map(|row| SimilarJson {
        id: row.id.0,
        started_ms: row.finding.started.get(),
        session_id: row.finding.session_id,
        title: row.finding.title,
        state: row.state.name(),
        cost_usd: row.finding.cost_nano_usd.map(usd),
    });
    Ok(rows.collect())
}

/// What is known of a span.
struct Span {
    from: i64,
    to: i64,
    /// Newest first.
    calls: Vec<StoredCall>,
    cut: bool,
    models: Vec<(String, CostTotals)>,
}

impl Span {
    fn read(reader: &Reader, found: &StoredFinding, from: i64, to: i64) -> Result<Self, ReadError> {
        let finding = &found.finding;
        let session = finding.session_id.clone();
        let app = Some(finding.app.clone()).filter(|app| session.is_none() && !app.is_empty());
        let (from_ts, to_ts) = (TimestampMs::clamped(from), TimestampMs::clamped(to));
        let filter = CallFilter {
            app: app.clone(),
            session: session.clone(),
            from: Some(from_ts),
            to: Some(to_ts),
            ..CallFilter::default()
        };
        let page = reader.calls(&filter, None, CALLS_MAX)?;
        let query = CostQuery {
            scope: Scope { app, session, ..Scope::default() },
            from: Some(from_ts),
            to: Some(to_ts),
            by: CostBy { model: true, ..CostBy::default() },
            ..CostQuery::default()
        };
        let models = reader.costs(&query)?.into_iter().map(|row| (row.model.unwrap_or_default(), row.totals));
        Ok(Self { from, to, cut: page.next.is_some(), calls: page.rows, models: models.collect() })
    }

    fn count(&self, status: CallStatus) -> i64 {
        count(self.calls.iter().filter(|call| call.status == status).count())
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of a bounded page")]
    fn json(&self) -> SpanJson {
        let ended =
            self.calls.iter().filter(|call| call.ended.is_some() && call.status != CallStatus::Abandoned);
        let calls = count(ended.count());
        let (failed, denied) = (self.count(CallStatus::Failed), self.count(CallStatus::Denied));
        let rated = calls - denied - self.count(CallStatus::Interrupted);
        let mut durations: Vec<i64> = self.calls.iter().filter_map(|call| call.duration_ms).collect();
        durations.sort_unstable();
        let sum = |of: fn(&CostTotals) -> i64| self.models.iter().map(|(_, totals)| of(totals)).sum::<i64>();
        SpanJson {
            from_ms: self.from,
            to_ms: self.to,
            calls,
            failed,
            denied,
            error_rate_percent: (rated > 0).then(|| failed as f64 / rated as f64 * 100.0),
            execution_ms_p50: durations.get(durations.len() / 2).copied(),
            requests: sum(|totals| totals.requests),
            tokens: sum(|totals| i64::try_from(totals.usage.total()).unwrap_or(i64::MAX)),
            cost_usd: (!self.models.is_empty()).then(|| usd(sum(|totals| totals.cost_nano_usd))),
        }
    }

    fn tools(&self) -> Vec<ContributorJson> {
        let mut tools: BTreeMap<&str, (i64, i64, i64)> = BTreeMap::new();
        for call in &self.calls {
            let tool = tools.entry(&call.tool_name).or_default();
            tool.0 += 1;
            tool.1 += i64::from(call.status == CallStatus::Failed);
            tool.2 = tool.2.saturating_add(call.duration_ms.unwrap_or(0));
        }
        let all: i64 = tools.values().map(|tool| tool.2).fold(0, i64::saturating_add);
        let rows = tools.into_iter().map(|(name, (count, failed, duration_ms))| ContributorJson {
            name: name.to_owned(),
            count,
            failed,
            duration_ms,
            cost_usd: None,
            share_percent: share(duration_ms, all),
        });
        top(rows.collect())
    }

    fn models(&self) -> Vec<ContributorJson> {
        let all: i64 = self.models.iter().map(|(_, totals)| totals.cost_nano_usd).sum();
        let rows = self.models.iter().map(|(name, totals)| ContributorJson {
            name: name.clone(),
            count: totals.requests,
            failed: 0,
            duration_ms: 0,
            cost_usd: Some(usd(totals.cost_nano_usd)),
            share_percent: share(totals.cost_nano_usd, all),
        });
        top(rows.collect())
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "a share for a person")]
fn share(part: i64, all: i64) -> f64 {
    if all > 0 { part as f64 / all as f64 * 100.0 } else { 0.0 }
}

fn top(mut rows: Vec<ContributorJson>) -> Vec<ContributorJson> {
    rows.sort_by(|a, b| b.share_percent.total_cmp(&a.share_percent).then_with(|| a.name.cmp(&b.name)));
    rows.truncate(CONTRIBUTORS_MAX);
    rows
}

/// Figures that are not the same, by how many times they changed.
#[allow(clippy::cast_precision_loss, reason = "figures for a person")]
fn changes(before: &SpanJson, during: &SpanJson) -> Vec<ChangeJson> {
    type Figure = fn(&SpanJson) -> Option<f64>;
    let figures: [(&'static str, Figure); 7] = [
        ("calls", |span| Some(span.calls as f64)),
        ("failed", |span| Some(span.failed as f64)),
        ("error_rate_percent", |span| span.error_rate_percent),
        ("execution_ms_p50", |span| span.execution_ms_p50.map(|ms| ms as f64)),
        ("requests", |span| Some(span.requests as f64)),
        ("tokens", |span| Some(span.tokens as f64)),
        ("cost_usd", |span| span.cost_usd),
    ];
    let mut changes: Vec<ChangeJson> = figures
        .into_iter()
        .filter_map(|(metric, of)| {
            let (before, during) = (of(before)?, of(during)?);
            let ratio = (before > 0.0).then(|| during / before);
            (before != during).then_some(ChangeJson { metric, before, during, ratio })
        })
        .collect();
    // A fall to a tenth is as much of a change as a rise to tenfold; what was nothing before is the most.
    let weight = |change: &ChangeJson| match change.ratio {
        None => f64::INFINITY,
        Some(ratio) if ratio > 0.0 => ratio.ln().abs(),
        Some(_) => f64::MAX,
    };
    changes.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(calls: i64, failed: i64, cost: Option<f64>) -> SpanJson {
        SpanJson { calls, failed, cost_usd: cost, ..SpanJson::default() }
    }

    #[test]
    fn changes_come_by_how_many_times_it_is_and_what_is_new_first() {
        let told = changes(&span(10, 0, Some(8.0)), &span(20, 3, Some(1.0)));
        let names: Vec<_> = told.iter().map(|change| (change.metric, change.ratio)).collect();
        assert_eq!(names, [("failed", None), ("cost_usd", Some(0.125)), ("calls", Some(2.0))]);
        assert!(changes(&span(1, 1, None), &span(1, 1, Some(2.0))).is_empty(), "unknown is no change");
    }

    #[test]
    fn shares_of_nothing_are_none() {
        assert!((share(1, 4) - 25.0).abs() < 1e-9);
        assert!(share(0, 0).abs() < 1e-9);
    }
}
