//! What detectors and the isolation forest found: read, judged, investigated.

use axum::Json;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use taffrail_engine::Detector;
use taffrail_event::{RowId, TimestampMs};
use taffrail_store::{FindingFilter, FindingSeverity, FindingState, StoredFinding};

use super::money::usd;
use super::params::{self, Params, named, text};
use super::types::Page;
use crate::clock;
use crate::ingest::body;
use crate::investigate::{self, BundleJson};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// How far back the detectors' work is counted, in milliseconds.
const COUNTED_MS: i64 = 30 * 86_400_000;
/// The longest note, in characters.
const NOTE_MAX_CHARS: usize = 1_000;

/// One finding: an episode.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AnomalyJson {
    /// Time-ordered by its begin.
    pub(crate) id: i64,
    /// `retry_loop`, `cost_spike`, `anomaly`, ...
    detector: String,
    /// `info`, `warning`, `critical`.
    severity: &'static str,
    /// `open`, `dismissed`, `confirmed`.
    state: &'static str,
    /// The project.
    app: String,
    /// Who ran the agent.
    user: Option<String>,
    /// The session; null where it is about more than one.
    session_id: Option<String>,
    /// The subagent.
    agent_id: Option<String>,
    /// The subagent's type.
    agent_type: Option<String>,
    /// The tool, where it is about one.
    tool_name: Option<String>,
    /// When it began.
    started_ms: i64,
    /// When it was last seen.
    last_ms: i64,
    /// When it was found.
    detected_ms: i64,
    /// When it ended; null while it goes on.
    ended_ms: Option<i64>,
    /// How often it was told.
    told: i64,
    /// 0 to 1, of the isolation forest; null for other detectors.
    score: Option<f64>,
    /// One line for a person.
    title: String,
    /// Figures by name.
    evidence: Value,
    /// Features by contribution, of the isolation forest.
    reasons: Value,
    /// Calls that show it.
    calls: Vec<i64>,
    /// US dollars at stake; null where unknown.
    cost_usd: Option<f64>,
    /// What a rule does by default, the mildest first: `notify`, `pause`, `throttle`, `stop`, `investigate`.
    actions: Vec<String>,
    /// What to do about it.
    advice: String,
    /// The version of the model that found it.
    model_version: Option<i64>,
    /// When a person judged it.
    decided_ms: Option<i64>,
    /// Who did.
    decided_by: Option<String>,
    /// What they noted.
    note: Option<String>,
    /// Whether an investigation was made.
    has_bundle: bool,
}

impl From<StoredFinding> for AnomalyJson {
    fn from(row: StoredFinding) -> Self {
        let finding = row.finding;
        Self {
            id: row.id.0,
            detector: finding.detector,
            severity: finding.severity.name(),
            state: row.state.name(),
            app: finding.app,
            user: finding.user,
            session_id: finding.session_id,
            agent_id: finding.agent_id,
            agent_type: finding.agent_type,
            tool_name: finding.tool_name,
            started_ms: finding.started.get(),
            last_ms: finding.last.get(),
            detected_ms: row.detected.get(),
            ended_ms: finding.ended.map(TimestampMs::get),
            told: row.told,
            score: finding.score,
            title: finding.title,
            evidence: finding.evidence,
            reasons: finding.reasons,
            calls: finding.calls.into_iter().map(|id| id.0).collect(),
            cost_usd: finding.cost_nano_usd.map(usd),
            actions: finding.action.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect(),
            advice: finding.advice,
            model_version: finding.model_version,
            decided_ms: row.decided.map(TimestampMs::get),
            decided_by: row.decided_by,
            note: row.note,
            has_bundle: row.has_bundle,
        }
    }
}

/// A finding with its investigation, where one was made.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AnomalyDetailJson {
    #[serde(flatten)]
    anomaly: AnomalyJson,
    /// See [`BundleJson`]; null where none was made.
    #[schema(value_type = Option<BundleJson>)]
    bundle: Option<Value>,
}

/// Which findings.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AnomaliesQuery {
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// `retry_loop`, `anomaly`, ...
    detector: Option<String>,
    /// The project.
    app: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
    /// The session.
    session: Option<String>,
    /// `open`, `dismissed` or `confirmed`.
    state: Option<String>,
    /// At least this: `info`, `warning` or `critical`.
    severity: Option<String>,
    /// Whether it goes on: `true` or `false`.
    #[param(value_type = Option<bool>)]
    ongoing: Option<String>,
    /// First millisecond of its begin.
    #[param(value_type = Option<i64>)]
    from: Option<String>,
    /// One past the last millisecond of its begin.
    #[param(value_type = Option<i64>)]
    to: Option<String>,
}

/// Findings that match, newest begin first.
#[utoipa::path(
    get, path = "/api/v1/anomalies", tag = "read", params(AnomaliesQuery),
    responses((status = 200, body = Page<AnomalyJson>), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<AnomaliesQuery>,
) -> Result<Json<Page<AnomalyJson>>, Problem> {
    let limit = params::limit(query.limit.as_deref())?;
    let cursor = params::cursor(query.cursor.as_deref())?;
    let states = FindingState::ALL.map(FindingState::name);
    let severities = FindingSeverity::ALL.map(FindingSeverity::name);
    let filter = FindingFilter {
        detector: text(query.detector),
        app: text(query.app),
        user: text(query.user),
        session: text(query.session),
        state: named("state", text(query.state), &states, FindingState::from_name)?,
        severity: named("severity", text(query.severity), &severities, FindingSeverity::from_name)?,
        ongoing: named("ongoing", text(query.ongoing), &["true", "false"], |name| name.parse().ok())?,
        from: params::time("from", query.from.as_deref())?,
        to: params::time("to", query.to.as_deref())?,
    };
    let page = app.read(move |reader| reader.findings(&filter, cursor, limit)).await?;
    Ok(Json(Page::of(page)))
}

/// One finding.
#[utoipa::path(
    get, path = "/api/v1/anomalies/{id}", tag = "read", params(("id" = i64, Path)),
    responses((status = 200, body = AnomalyDetailJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<AnomalyDetailJson>, Problem> {
    let found = find(&app, params::row_id(&id, "anomaly")?).await?;
    let bundle = found.bundle.clone();
    Ok(Json(AnomalyDetailJson { anomaly: found.into(), bundle }))
}

async fn find(app: &App, id: RowId) -> Result<StoredFinding, Problem> {
    app.read(move |reader| reader.finding(id)).await?.ok_or(Problem::NotFound("anomaly"))
}

/// Looks at what is around a finding, and keeps it with the finding.
#[utoipa::path(
    post, path = "/api/v1/anomalies/{id}/investigate", tag = "read", params(("id" = i64, Path)),
    responses((status = 200, body = BundleJson), (status = 401, body = ProblemJson), (status = 404, body = ProblemJson))
)]
pub(crate) async fn investigate(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<BundleJson>, Problem> {
    let found = find(&app, params::row_id(&id, "anomaly")?).await?;
    let id = found.id;
    let now = clock::now();
    let bundle = app.read(move |reader| investigate::bundle(reader, &found, now)).await?;
    let json = serde_json::to_value(&bundle).map_err(|_| Problem::Internal)?;
    let store = app.store.clone();
    let kept = tokio::task::spawn_blocking(move || store.keep_bundle(id, &json)).await;
    if !kept.map_err(|_| Problem::Internal)?? {
        tracing::warn!(id = id.0, "an investigation was larger than is kept");
    }
    Ok(Json(bundle))
}

/// What a person says of a finding.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct VerdictRequest {
    /// Who says it.
    #[serde(default)]
    by: Option<String>,
    /// Why.
    #[serde(default)]
    note: Option<String>,
}

/// Says that a finding is noise.
#[utoipa::path(
    post, path = "/api/v1/anomalies/{id}/dismiss", tag = "read", params(("id" = i64, Path)), request_body = VerdictRequest,
    responses((status = 200, body = AnomalyDetailJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson),
        (status = 404, body = ProblemJson))
)]
pub(crate) async fn dismiss(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<AnomalyDetailJson>, Problem> {
    decide(app, id, request, FindingState::Dismissed).await
}

/// Says that a finding is real.
#[utoipa::path(
    post, path = "/api/v1/anomalies/{id}/confirm", tag = "read", params(("id" = i64, Path)), request_body = VerdictRequest,
    responses((status = 200, body = AnomalyDetailJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson),
        (status = 404, body = ProblemJson))
)]
pub(crate) async fn confirm(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<AnomalyDetailJson>, Problem> {
    decide(app, id, request, FindingState::Confirmed).await
}

async fn decide(
    app: App,
    id: String,
    request: Request,
    state: FindingState,
) -> Result<Json<AnomalyDetailJson>, Problem> {
    let id = params::row_id(&id, "anomaly")?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
    let VerdictRequest { by, note } = match bytes.is_empty() {
        true => VerdictRequest::default(),
        false => serde_json::from_slice(&bytes).map_err(|e| {
            Problem::BadRequest(format!("the body is not {{\"by\": \"...\", \"note\": \"...\"}}: {e}"))
        })?,
    };
    for (what, value) in [("by", &by), ("note", &note)] {
        if value.as_ref().is_some_and(|value| value.chars().count() > NOTE_MAX_CHARS) {
            return Err(Problem::BadRequest(format!("{what} is longer than {NOTE_MAX_CHARS} characters")));
        }
    }
    let store = app.store.clone();
    let now = clock::now();
    let decided = tokio::task::spawn_blocking(move || store.decide_finding(id, state, by, note, now)).await;
    if !decided.map_err(|_| Problem::Internal)?? {
        return Err(Problem::NotFound("anomaly"));
    }
    let found = find(&app, id).await?;
    let bundle = found.bundle.clone();
    let detail = AnomalyDetailJson { anomaly: found.into(), bundle };
    app.hub.announce("anomaly", &detail.anomaly);
    Ok(Json(detail))
}

/// The detectors, and the engine that steps them.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DetectorsJson {
    items: Vec<DetectorJson>,
    /// Always null: there is one page.
    next_cursor: Option<String>,
    /// First millisecond of what is counted: 30 days back.
    from_ms: i64,
    engine: EngineJson,
}

/// One detector: what it is, by what it judges, and how it did in the last 30 days.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DetectorJson {
    /// `retry_loop`, ...
    name: &'static str,
    /// `retry loop`, ...
    noun: &'static str,
    enabled: bool,
    /// Its table of the configuration, `[detectors.NAME]`; units are last in the names.
    #[schema(value_type = Object)]
    thresholds: Value,
    /// What a rule does by default, the mildest first.
    #[schema(value_type = Vec<String>)]
    actions: Value,
    /// What a person is told.
    advice: &'static str,
    /// Episodes that began.
    found: i64,
    /// Those that go on.
    ongoing: i64,
    confirmed: i64,
    dismissed: i64,
    /// confirmed / (confirmed + dismissed) * 100; null where nobody has judged.
    precision_percent: Option<f64>,
    /// US dollars at stake, of those with a known cost.
    cost_usd: f64,
}

/// What the engine has done since the server started.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct EngineJson {
    /// Calls, requests and marks that were judged.
    signals: u64,
    /// Words on episodes: begun, worse, over.
    findings: u64,
    /// Told again, and told nothing new.
    duplicates: u64,
    /// Too late to be judged in a sequence.
    late: u64,
    /// Not judged for want of room in the queue.
    missed: u64,
    /// Found, and not stored.
    lost: u64,
    /// Sessions and agents that are followed.
    sessions: usize,
    agents: usize,
    /// Sessions forgotten for want of room.
    sessions_forgotten: u64,
    clock_jumps: u64,
}

/// The detectors, by what they judge, and how they did.
#[utoipa::path(
    get, path = "/api/v1/detectors", tag = "read",
    responses((status = 200, body = DetectorsJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn detectors(State(app): State<App>) -> Result<Json<DetectorsJson>, Problem> {
    let to = TimestampMs::clamped(clock::now_ms().saturating_add(1));
    let from = TimestampMs::clamped(to.get().saturating_sub(COUNTED_MS));
    let counts = app.read(move |reader| reader.finding_counts(from, to)).await?;
    let tables = serde_json::to_value(&app.config.detectors).map_err(|_| Problem::Internal)?;
    let items = Detector::ALL.iter().map(|detector| {
        let did = counts.iter().find(|did| did.detector == detector.name()).cloned().unwrap_or_default();
        let thresholds = tables.get(detector.name()).cloned().unwrap_or_default();
        let judged = did.confirmed + did.dismissed;
        #[allow(clippy::cast_precision_loss, reason = "a share for a person")]
        let precision_percent = (judged > 0).then(|| did.confirmed as f64 / judged as f64 * 100.0);
        DetectorJson {
            name: detector.name(),
            noun: detector.noun(),
            enabled: thresholds.get("enabled").and_then(Value::as_bool).unwrap_or(true),
            thresholds,
            actions: detector.response().actions.iter().map(|action| serde_json::json!(action)).collect(),
            advice: detector.response().person,
            found: did.found,
            ongoing: did.ongoing,
            confirmed: did.confirmed,
            dismissed: did.dismissed,
            precision_percent,
            cost_usd: usd(did.cost_nano_usd),
        }
    });
    let stats = app.judge.stats();
    Ok(Json(DetectorsJson {
        items: items.collect(),
        next_cursor: None,
        from_ms: from.get(),
        engine: EngineJson {
            signals: stats.engine.signals,
            findings: stats.engine.findings,
            duplicates: stats.engine.duplicates,
            late: stats.engine.late,
            missed: stats.missed,
            lost: stats.lost,
            sessions: stats.sessions,
            agents: stats.agents,
            sessions_forgotten: stats.engine.sessions_forgotten,
            clock_jumps: stats.engine.clock_jumps,
        },
    }))
}
