//! What telemetry brought beside the events: metrics, spans and the client's chatter about itself.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use taffrail_event::normalize::otlp::Signal;
use taffrail_store::{StoredTelemetry, TelemetryFilter, TelemetryName};
use utoipa::ToSchema;

use super::params::{self, Params, text};
use super::types::Page;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Which rows.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TelemetryQuery {
    /// Rows of the page: 100 unless told, at most 1,000.
    #[param(value_type = Option<usize>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// `log`, `metric` or `span`.
    signal: Option<String>,
    /// The event's, metric's or span's name.
    name: Option<String>,
    /// The session.
    session: Option<String>,
    /// First millisecond.
    #[param(value_type = Option<i64>)]
    from: Option<String>,
    /// One past the last millisecond.
    #[param(value_type = Option<i64>)]
    to: Option<String>,
}

/// One row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TelemetryJson {
    /// Time-ordered row id, exact in JavaScript.
    id: i64,
    /// When; of a span its begin.
    ts_ms: i64,
    /// When it was received.
    received_ms: i64,
    /// `log`, `metric` or `span`.
    signal: String,
    /// The event's, metric's or span's name.
    name: String,
    /// The session, where it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// A metric's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// `delta` or `cumulative`.
    #[serde(skip_serializing_if = "Option::is_none")]
    temporality: Option<String>,
    /// A span's duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<i64>,
    /// The attributes, flat.
    #[schema(value_type = Object)]
    attributes: Box<RawValue>,
    /// What else the record has: unit, ids, events, distribution.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Box<RawValue>>,
    /// The sender's resource and scope.
    #[schema(value_type = Object)]
    resource: Box<RawValue>,
}

impl From<StoredTelemetry> for TelemetryJson {
    fn from(row: StoredTelemetry) -> Self {
        Self {
            id: row.id.0,
            ts_ms: row.ts.get(),
            received_ms: row.received.get(),
            signal: row.signal,
            name: row.name,
            session_id: row.session_id,
            value: row.value,
            temporality: row.temporality,
            duration_us: row.duration_us,
            attributes: raw(row.attributes),
            detail: row.detail.map(raw),
            resource: raw(row.resource),
        }
    }
}

/// Stored JSON as it is; null for a text that is none, which this version does not write.
fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// One name and how many rows it has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TelemetryNameJson {
    /// `log`, `metric` or `span`.
    signal: String,
    /// The name.
    name: String,
    /// How many rows.
    records: i64,
    /// The newest row's time.
    newest_ms: i64,
}

impl From<TelemetryName> for TelemetryNameJson {
    fn from(name: TelemetryName) -> Self {
        Self { signal: name.signal, name: name.name, records: name.records, newest_ms: name.newest.get() }
    }
}

/// Every name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TelemetryNamesJson {
    /// Most records first.
    items: Vec<TelemetryNameJson>,
}

/// Telemetry rows that match, newest first.
#[utoipa::path(
    get, path = "/api/v1/telemetry", tag = "read", params(TelemetryQuery),
    responses((status = 200, body = Page<TelemetryJson>), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn list(
    State(app): State<App>,
    Params(query): Params<TelemetryQuery>,
) -> Result<Json<Page<TelemetryJson>>, Problem> {
    let limit = params::limit(query.limit.as_deref())?;
    let cursor = params::cursor(query.cursor.as_deref())?;
    let signal =
        match text(query.signal) {
            None => None,
            Some(name) => Some(Signal::from_name(&name).ok_or_else(|| {
                Problem::BadRequest(format!("signal is `{name}`; give log, metric or span"))
            })?),
        };
    let filter = TelemetryFilter {
        signal,
        name: text(query.name),
        session: text(query.session),
        from: params::time("from", query.from.as_deref())?,
        to: params::time("to", query.to.as_deref())?,
    };
    let page = app.read(move |reader| reader.telemetry(&filter, cursor, limit)).await?;
    let next_cursor = page.next.map(|id| id.0.to_string());
    Ok(Json(Page { items: page.rows.into_iter().map(TelemetryJson::from).collect(), next_cursor }))
}

/// Every name of telemetry with its count.
#[utoipa::path(
    get, path = "/api/v1/telemetry/names", tag = "read",
    responses((status = 200, body = TelemetryNamesJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn names(State(app): State<App>) -> Result<Json<TelemetryNamesJson>, Problem> {
    let names = app.read(|reader| reader.telemetry_names()).await?;
    Ok(Json(TelemetryNamesJson { items: names.into_iter().map(TelemetryNameJson::from).collect() }))
}
