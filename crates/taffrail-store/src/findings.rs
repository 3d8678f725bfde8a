//! Findings: what detectors and the isolation forest found, and what a person said of it. One row per episode.
//!
//! An episode is told of again and again while it goes on: its row keeps the earliest begin, the latest sight, the highest
//! severity and the newest words. Telling is idempotent in all but the count. What a person decided stays. At most
//! [`FINDINGS_MAX`] rows are kept: the oldest that are over go first.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use taffrail_event::{RowId, TimestampMs};

use crate::error::{ReadError, WriteError};
use crate::reader::Reader;
use crate::rows::Page;
use crate::scan;
use crate::store::Store;

/// Rows that are kept.
pub const FINDINGS_MAX: usize = 100_000;
/// How many are taken away at once when there are more.
const PRUNED_AT_ONCE: usize = 1_000;
/// The longest text of a row, in bytes: title, advice, note.
const TEXT_MAX_BYTES: usize = 4 * 1024;
/// The longest JSON of a row, in bytes; a longer one is replaced by a word of its size.
const JSON_MAX_BYTES: usize = 64 * 1024;
/// The longest investigation, in bytes of JSON.
pub const BUNDLE_MAX_BYTES: usize = 1024 * 1024;
/// Models of one kind and family that are kept, newest first.
pub const MODELS_KEPT: usize = 3;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FindingSeverity {
    #[default]
    Info,
    Warning,
    Critical,
}

impl FindingSeverity {
    /// Every severity, lowest first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == name)
    }

    fn from_row(value: i64) -> Self {
        usize::try_from(value).ok().and_then(|n| Self::ALL.get(n).copied()).unwrap_or_default()
    }
}

/// What a person said of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FindingState {
    /// Nothing yet.
    #[default]
    Open,
    /// It was noise.
    Dismissed,
    /// It was real.
    Confirmed,
}

impl FindingState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Open, Self::Dismissed, Self::Confirmed];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Dismissed => "dismissed",
            Self::Confirmed => "confirmed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    fn from_row(value: i64) -> Self {
        usize::try_from(value).ok().and_then(|n| Self::ALL.get(n).copied()).unwrap_or_default()
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct Finding {
    /// One per episode.
    pub key: String,
    /// `retry_loop`, `anomaly`, ...
    pub detector: String,
    pub severity: FindingSeverity,
    pub app: String,
    pub user: Option<String>,
    pub session_id: Option<String>,
    pub agent_id: Option<String>,
    pub agent_type: Option<String>,
    pub tool_name: Option<String>,
    pub started: TimestampMs,
    pub last: TimestampMs,
    /// When it ended; none while it goes on.
    pub ended: Option<TimestampMs>,
    /// 0 to 1, of the isolation forest.
    pub score: Option<f64>,
    pub title: String,
    /// Figures by name.
    pub evidence: Value,
    /// Features by contribution.
    pub reasons: Value,
    /// Calls that show it.
    pub calls: Vec<RowId>,
    pub cost_nano_usd: Option<i64>,
    /// `notify`, `pause`, `throttle`, `stop`, `investigate`.
    pub action: String,
    pub advice: String,
    pub model_version: Option<i64>,
}

/// A stored finding.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StoredFinding {
    pub id: RowId,
    pub finding: Finding,
    /// When this house found it first.
    pub detected: TimestampMs,
    /// How often it was told.
    pub told: i64,
    pub state: FindingState,
    pub decided: Option<TimestampMs>,
    pub decided_by: Option<String>,
    pub note: Option<String>,
    /// What an investigation froze; read by [`Reader::finding`] alone.
    pub bundle: Option<Value>,
    pub has_bundle: bool,
}

/// What telling of a finding did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Told {
    pub id: RowId,
    pub is_new: bool,
    /// Whether it now has a higher severity than before.
    pub is_escalated: bool,
    pub state: FindingState,
}

/// Which findings; every given part must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FindingFilter {
    pub detector: Option<String>,
    pub app: Option<String>,
    pub user: Option<String>,
    pub session: Option<String>,
    pub state: Option<FindingState>,
    /// At least this.
    pub severity: Option<FindingSeverity>,
    /// Whether it goes on.
    pub ongoing: Option<bool>,
    /// First millisecond of its begin.
    pub from: Option<TimestampMs>,
    /// One past the last millisecond of its begin.
    pub to: Option<TimestampMs>,
}

/// How one detector did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FindingCounts {
    pub detector: String,
    pub found: i64,
    pub ongoing: i64,
    pub open: i64,
    pub dismissed: i64,
    pub confirmed: i64,
    /// Of those with a known cost.
    pub cost_nano_usd: i64,
}

/// A trained model.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Model {
    /// `isolation_forest`, ...
    pub kind: String,
    /// Which of its kind: a family of tools.
    pub family: String,
    pub version: i64,
    pub trained: TimestampMs,
    /// Rows it was trained on.
    pub rows: i64,
    /// What it is about, for a person: features, seed, ranges.
    pub about: Value,
    pub data: Vec<u8>,
}

impl Store {
    /// Stores what was found, by episode; waits for the commit.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is stored then.
    pub fn record_findings(&self, findings: Vec<Finding>, now: TimestampMs) -> Result<Vec<Told>, WriteError> {
        if findings.is_empty() {
            return Ok(Vec::new());
        }
        self.change(move |conn| {
            let told = findings
                .iter()
                .map(|finding| tell(conn, finding, now))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            prune(conn, FINDINGS_MAX)?;
            Ok(told)
        })
    }

    /// Stores what a person said of a finding; false where there is none of that id.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn decide_finding(
        &self,
        id: RowId,
        state: FindingState,
        by: Option<String>,
        note: Option<String>,
        now: TimestampMs,
    ) -> Result<bool, WriteError> {
        let note = note.map(|note| cut(&note).to_owned());
        self.change(move |conn| {
            let decided = (state != FindingState::Open).then_some(now.get());
            let rows = conn
                .prepare_cached(
                    "UPDATE anomalies SET state = ?2, decided = ?3, decided_by = ?4, note = coalesce(?5, note)
                        WHERE id = ?1",
                )?
                .execute(params![id.0, state as i64, decided, by, note])?;
            Ok(rows == 1)
        })
    }

    /// Keeps what an investigation of a finding froze, instead of an earlier one; false where there is none of that id
    /// or the bundle is longer than [`BUNDLE_MAX_BYTES`].
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn keep_bundle(&self, id: RowId, bundle: &Value) -> Result<bool, WriteError> {
        let bundle = bundle.to_string();
        if bundle.len() > BUNDLE_MAX_BYTES {
            return Ok(false);
        }
        self.change(move |conn| {
            conn.execute("UPDATE anomalies SET bundle = ?2 WHERE id = ?1", params![id.0, bundle])
                .map(|rows| rows == 1)
        })
    }

    /// Ends what goes on and was last seen before `before`: nobody will tell its end any more.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn end_stale_findings(&self, before: TimestampMs) -> Result<usize, WriteError> {
        self.change(move |conn| {
            conn.execute(
                "UPDATE anomalies SET ended = last WHERE ended IS NULL AND last < ?1",
                [before.get()],
            )
        })
    }

    /// Saves a model under the next version of its kind and family, which is given back, and lets the oldest beyond
    /// [`MODELS_KEPT`] go. `model.version` is not read.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn save_model(&self, model: &Model) -> Result<i64, WriteError> {
        let model = model.clone();
        self.change(move |conn| {
            let version: i64 = conn.query_row(
                "SELECT coalesce(max(version), 0) + 1 FROM models WHERE kind = ?1 AND family = ?2",
                params![model.kind, model.family],
                |row| row.get(0),
            )?;
            conn.execute(
                "INSERT INTO models (kind, family, version, trained, rows, about, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    model.kind,
                    model.family,
                    version,
                    model.trained.get(),
                    model.rows,
                    model.about.to_string(),
                    model.data
                ],
            )?;
            conn.execute(
                "DELETE FROM models WHERE kind = ?1 AND family = ?2 AND version <= ?3",
                params![model.kind, model.family, version - crate::events::to_i64(MODELS_KEPT)],
            )?;
            Ok(version)
        })
    }
}

impl Reader {
    /// Findings that match, newest begin first; `cursor` is the last page's `next`. Without bundles.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn findings(
        &self,
        filter: &FindingFilter,
        cursor: Option<RowId>,
        limit: usize,
    ) -> Result<Page<StoredFinding>, ReadError> {
        self.at_once(|conn| list(conn, filter, cursor, limit))
    }

    /// One finding with its bundle.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn finding(&self, id: RowId) -> Result<Option<StoredFinding>, ReadError> {
        let conn = self.conn();
        let row = conn
            .prepare_cached(&format!("SELECT {COLUMNS}, bundle FROM anomalies WHERE id = ?1"))?
            .query_row([id.0], |row| Ok((from_row(row)?, row.get::<_, Option<String>>(COLUMN_COUNT)?)))
            .optional()?;
        let Some((row, bundle)) = row else { return Ok(None) };
        let mut found = row?;
        found.bundle = bundle.as_deref().map(json).transpose()?;
        Ok(Some(found))
    }

    /// How each detector did with what began in a range, most findings first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn finding_counts(
        &self,
        from: TimestampMs,
        to: TimestampMs,
    ) -> Result<Vec<FindingCounts>, ReadError> {
        let conn = self.conn();
        let mut statement = conn.prepare_cached(
            "SELECT detector, count(*), sum(ended IS NULL), sum(state = 0), sum(state = 1), sum(state = 2),
                coalesce(sum(cost), 0) FROM anomalies NOT INDEXED WHERE id >= ?1 AND id < ?2
                GROUP BY detector ORDER BY 2 DESC, 1",
        )?;
        let rows = statement.query_map(params![RowId::first_of(from).0, RowId::first_of(to).0], |row| {
            Ok(FindingCounts {
                detector: row.get(0)?,
                found: row.get(1)?,
                ongoing: row.get(2)?,
                open: row.get(3)?,
                dismissed: row.get(4)?,
                confirmed: row.get(5)?,
                cost_nano_usd: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The newest model of every family of a kind.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn newest_models(&self, kind: &str) -> Result<Vec<Model>, ReadError> {
        let conn = self.conn();
        let mut statement = conn.prepare_cached(
            "SELECT family, version, trained, rows, about, data FROM models m WHERE kind = ?1 AND version =
                (SELECT max(version) FROM models WHERE kind = m.kind AND family = m.family) ORDER BY family",
        )?;
        let mut rows = statement.query([kind])?;
        let mut models = Vec::new();
        while let Some(row) = rows.next()? {
            models.push(Model {
                kind: kind.to_owned(),
                family: row.get(0)?,
                version: row.get(1)?,
                trained: TimestampMs::clamped(row.get(2)?),
                rows: row.get(3)?,
                about: json(&row.get::<_, String>(4)?)?,
                data: row.get(5)?,
            });
        }
        Ok(models)
    }
}

/// Columns of [`from_row`].
const COLUMNS: &str = "id, key, detector, severity, source_app, user, session_id, agent_id, agent_type, tool_name, started, last,
    detected, ended, told, score, title, evidence, reasons, calls, cost, action, advice, model_version, state, decided,
    decided_by, note, bundle IS NOT NULL";
/// How many those are.
const COLUMN_COUNT: usize = 29;

/// The outer error is SQLite's, the inner says that the row is not one of ours.
fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<StoredFinding, ReadError>> {
    let ms = |column| row.get::<_, i64>(column).map(TimestampMs::clamped);
    let maybe_ms = |column| row.get::<_, Option<i64>>(column).map(|ms| ms.map(TimestampMs::clamped));
    let parsed = || -> Result<(Value, Value, Vec<RowId>), ReadError> {
        let text = |column| row.get::<_, String>(column).map_err(ReadError::from);
        let calls = serde_json::from_str(&text(19)?).map_err(|e| ReadError::BadRow(e.to_string()))?;
        Ok((json(&text(17)?)?, json(&text(18)?)?, calls))
    };
    let (evidence, reasons, calls) = match parsed() {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(StoredFinding {
        id: RowId(row.get(0)?),
        finding: Finding {
            key: row.get(1)?,
            detector: row.get(2)?,
            severity: FindingSeverity::from_row(row.get(3)?),
            app: row.get(4)?,
            user: row.get(5)?,
            session_id: row.get(6)?,
            agent_id: row.get(7)?,
            agent_type: row.get(8)?,
            tool_name: row.get(9)?,
            started: ms(10)?,
            last: ms(11)?,
            ended: maybe_ms(13)?,
            score: row.get(15)?,
            title: row.get(16)?,
            evidence,
            reasons,
            calls,
            cost_nano_usd: row.get(20)?,
            action: row.get(21)?,
            advice: row.get(22)?,
            model_version: row.get(23)?,
        },
        detected: ms(12)?,
        told: row.get(14)?,
        state: FindingState::from_row(row.get(24)?),
        decided: maybe_ms(25)?,
        decided_by: row.get(26)?,
        note: row.get(27)?,
        bundle: None,
        has_bundle: row.get(28)?,
    }))
}

fn json(text: &str) -> Result<Value, ReadError> {
    serde_json::from_str(text).map_err(|e| ReadError::BadRow(e.to_string()))
}

fn list(
    conn: &Connection,
    filter: &FindingFilter,
    cursor: Option<RowId>,
    limit: usize,
) -> Result<Page<StoredFinding>, ReadError> {
    let (below, from) = scan::id_range(filter.from, filter.to, cursor);
    let by = match (&filter.session, &filter.detector) {
        (Some(_), _) => {
            "INDEXED BY anomalies_session WHERE session_id = ?3 AND (?4 IS NULL OR detector = ?4)"
        }
        (None, Some(_)) => "INDEXED BY anomalies_detector WHERE ?3 IS NULL AND detector = ?4",
        (None, None) => "NOT INDEXED WHERE ?3 IS NULL AND ?4 IS NULL",
    };
    let sql = format!("SELECT {COLUMNS} FROM anomalies {by} AND id < ?1 AND id >= ?2 ORDER BY id DESC");
    let matches = |row: &StoredFinding| {
        let finding = &row.finding;
        filter.app.as_ref().is_none_or(|app| *app == finding.app)
            && filter.user.as_ref().is_none_or(|user| finding.user.as_ref() == Some(user))
            && filter.state.is_none_or(|state| state == row.state)
            && filter.severity.is_none_or(|severity| finding.severity >= severity)
            && filter.ongoing.is_none_or(|ongoing| ongoing == finding.ended.is_none())
    };
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(params![below.0, from.0, filter.session, filter.detector])?;
    scan::page(rows, limit, |row| {
        let found = from_row(row)??;
        Ok((found.id, matches(&found).then_some(found)))
    })
}

/// One telling of an episode.
fn tell(conn: &Connection, finding: &Finding, now: TimestampMs) -> rusqlite::Result<Told> {
    let before: Option<(i64, i64, i64)> = conn
        .prepare_cached("SELECT id, severity, state FROM anomalies WHERE key = ?1")?
        .query_row([&finding.key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let severity = finding.severity as i64;
    let (evidence, reasons) = (bounded(&finding.evidence), bounded(&finding.reasons));
    let calls = serde_json::to_string(&finding.calls).unwrap_or_else(|_| "[]".to_owned());
    let ended = finding.ended.map(TimestampMs::get);
    if let Some((id, was, state)) = before {
        conn.prepare_cached(
            "UPDATE anomalies SET severity = max(severity, ?2), started = min(started, ?3), last = max(last, ?4), ended = ?5,
                told = told + 1, score = ?6, title = ?7, evidence = ?8, reasons = ?9, calls = ?10, cost = ?11, action = ?12,
                advice = ?13, model_version = ?14 WHERE id = ?1",
        )?
        .execute(params![
            id,
            severity,
            finding.started.get(),
            finding.last.get(),
            ended,
            finding.score,
            cut(&finding.title),
            evidence,
            reasons,
            calls,
            finding.cost_nano_usd,
            finding.action,
            cut(&finding.advice),
            finding.model_version,
        ])?;
        let state = FindingState::from_row(state);
        return Ok(Told { id: RowId(id), is_new: false, is_escalated: severity > was, state });
    }
    let id = free_id(conn, finding.started)?;
    conn.prepare_cached(
        "INSERT INTO anomalies (id, key, detector, severity, source_app, user, session_id, agent_id, agent_type, tool_name,
            started, last, detected, ended, told, score, title, evidence, reasons, calls, cost, action, advice, model_version)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 1, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)",
    )?
    .execute(params![
        id,
        finding.key,
        finding.detector,
        severity,
        finding.app,
        finding.user,
        finding.session_id,
        finding.agent_id,
        finding.agent_type,
        finding.tool_name,
        finding.started.get(),
        finding.last.get(),
        now.get(),
        ended,
        finding.score,
        cut(&finding.title),
        evidence,
        reasons,
        calls,
        finding.cost_nano_usd,
        finding.action,
        cut(&finding.advice),
        finding.model_version,
    ])?;
    Ok(Told { id: RowId(id), is_new: true, is_escalated: false, state: FindingState::Open })
}

/// The first id from that moment on that no row has.
fn free_id(conn: &Connection, started: TimestampMs) -> rusqlite::Result<i64> {
    let mut taken = conn.prepare_cached("SELECT 1 FROM anomalies WHERE id = ?1")?;
    let mut id = RowId::first_of(started).0;
    while taken.exists([id])? {
        id += 1;
    }
    Ok(id)
}

/// Lets the oldest that are over go, where there are more than `max`.
pub(crate) fn prune(conn: &Connection, max: usize) -> rusqlite::Result<()> {
    let rows: i64 = conn.prepare_cached("SELECT count(*) FROM anomalies")?.query_row([], |row| row.get(0))?;
    if rows > crate::events::to_i64(max) {
        conn.prepare_cached(
            "DELETE FROM anomalies WHERE id IN
                (SELECT id FROM anomalies ORDER BY ended IS NULL, id LIMIT ?1)",
        )?
        .execute([crate::events::to_i64(PRUNED_AT_ONCE.min(max))])?;
    }
    Ok(())
}

/// At most [`TEXT_MAX_BYTES`] of a text, whole characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

/// JSON of at most [`JSON_MAX_BYTES`].
fn bounded(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= JSON_MAX_BYTES {
        return text;
    }
    serde_json::json!({ "left_out_bytes": text.len() }).to_string()
}
