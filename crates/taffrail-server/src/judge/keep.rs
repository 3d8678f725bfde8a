//! From the engine's words to the store's rows and the stream's frames, and back after a restart.

use serde_json::{Map, Value, json};
use taffrail_engine::finding::Severity;
use taffrail_engine::signal::{paced, told};
use taffrail_engine::{Finding, Phase, Signal};
use taffrail_event::{RowId, TimestampMs};
use taffrail_store::{FindingSeverity, ReadError, Reader, SessionFilter, Store};

use crate::api::anomalies::AnomalyJson;
use crate::live::Hub;

/// Sessions that are taken again after a restart.
const SESSIONS_MAX: usize = 200;
/// How old the newest event of those is at most, in milliseconds.
const RECENT_MS: i64 = 3_600_000;

/// What the newest sessions did, in the order of time.
pub(super) fn recent(reader: &Reader, now: TimestampMs) -> Result<Vec<(i64, Signal)>, ReadError> {
    let page = reader.sessions(&SessionFilter::default(), None, SESSIONS_MAX)?;
    let oldest = now.get().saturating_sub(RECENT_MS);
    let mut all = Vec::new();
    for session in page.rows.iter().filter(|session| session.last_event.get() >= oldest) {
        let Some(trace) = reader.trace(&session.session_id)? else { continue };
        all.extend(told(&trace.trace).filter(|told| told.at_ms >= oldest));
    }
    all.sort_by_key(|told| told.at_ms);
    Ok(paced(all.into_iter()).collect())
}

/// A finding as it is stored.
pub(super) fn row_of(finding: &Finding) -> taffrail_store::Finding {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let evidence = &finding.evidence;
    let mut figures = Map::new();
    for figure in &evidence.figures {
        let mut told = json!({ "value": figure.value, "unit": figure.unit });
        if let Some(threshold) = figure.threshold {
            told["threshold"] = json!(threshold);
        }
        figures.insert(figure.name.to_owned(), told);
    }
    let texts: Map<String, Value> =
        evidence.texts.iter().map(|text| (text.name.to_owned(), json!(text.value))).collect();
    let cost = json!({ "requests": finding.cost.requests, "unpriced": finding.cost.unpriced });
    let actions: Vec<Value> = finding.response.actions.iter().map(|action| json!(action)).collect();
    let actions: Vec<&str> = actions.iter().filter_map(Value::as_str).collect();
    let score = evidence.figures.iter().find(|figure| figure.name == "score").map(|figure| figure.value);
    #[allow(clippy::cast_possible_truncation, reason = "a version is a small whole number")]
    let model_version = evidence
        .figures
        .iter()
        .find(|figure| figure.name == "model_version")
        .map(|figure| figure.value as i64);
    let at = TimestampMs::clamped(finding.at_ms);
    taffrail_store::Finding {
        key: finding.id.clone(),
        detector: finding.detector.name().to_owned(),
        severity: match finding.severity {
            Severity::Info => FindingSeverity::Info,
            Severity::Warning => FindingSeverity::Warning,
            Severity::Critical => FindingSeverity::Critical,
        },
        app: finding.scope.app.to_string(),
        user: text(&finding.scope.user),
        session_id: text(&finding.scope.session_id),
        agent_id: text(&finding.scope.agent_id),
        agent_type: text(&finding.scope.agent_type),
        tool_name: evidence.texts.iter().find(|text| text.name == "tool").map(|text| text.value.clone()),
        started: TimestampMs::clamped(finding.began_ms),
        last: at,
        ended: (finding.phase == Phase::Resolved).then_some(at),
        score,
        title: finding.summary.clone(),
        evidence: json!({ "figures": figures, "texts": texts, "cost": cost }),
        reasons: evidence
            .texts
            .iter()
            .filter(|text| text.name == "reason")
            .map(|text| json!(text.value))
            .collect(),
        calls: evidence.calls.iter().map(|call| RowId(call.id)).collect(),
        cost_nano_usd: finding.cost.nano_usd,
        action: actions.join(","),
        advice: finding.response.person.to_owned(),
        model_version,
    }
}

/// Tells the readers of the stream what was stored. What a person dismissed is not shown again.
pub(super) fn announce(store: &Store, hub: &Hub, told: &[taffrail_store::Told]) {
    if hub.clients() == 0 {
        return;
    }
    let Ok(reader) = store.reader() else { return };
    for told in told.iter().filter(|told| told.state != taffrail_store::FindingState::Dismissed) {
        match reader.finding(told.id) {
            Ok(Some(found)) => hub.announce("anomaly", &AnomalyJson::from(found)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a finding could not be shown"),
        }
    }
}
