//! `POST /v1/logs`, `/v1/metrics`, `/v1/traces`: OTLP/HTTP. The answer has the request's encoding; an error is a
//! `google.rpc.Status` in it.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use serde::Serialize;
use taffrail_event::normalize::otlp::{Rejected, Signal, json};
use tonic::Code;

use super::{Brought, proto, take};
use crate::ingest::body;
use crate::problem::{self, Problem, RETRY_AFTER_S};
use crate::state::App;

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }
}

/// `google.rpc.Status`, without details.
#[derive(Clone, PartialEq, Message, Serialize)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// What OTLP/HTTP answers in JSON.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExportAnswer {
    /// Only where records were rejected: how many, as `rejectedLogRecords`, `rejectedDataPoints` or `rejectedSpans`, and
    /// `errorMessage`.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_success: Option<serde_json::Value>,
}

/// What OTLP/HTTP answers in JSON when nothing was taken.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RpcStatusJson {
    /// A gRPC status code.
    code: i32,
    /// What happened, and what to do.
    message: String,
}

/// Takes log records.
#[utoipa::path(
    post, path = "/v1/logs", tag = "ingest",
    request_body(content = Object, description = "ExportLogsServiceRequest as JSON or protobuf; gzip is taken"),
    responses(
        (status = 200, body = ExportAnswer, description = "committed and synced"),
        (status = 400, body = RpcStatusJson), (status = 413, body = RpcStatusJson), (status = 415, body = RpcStatusJson),
        (status = 503, body = RpcStatusJson, description = "try again after Retry-After"),
    )
)]
pub(crate) async fn logs(State(app): State<App>, request: Request) -> Response {
    export(app, Signal::Log, request).await
}

/// Takes data points.
#[utoipa::path(
    post, path = "/v1/metrics", tag = "ingest",
    request_body(content = Object, description = "ExportMetricsServiceRequest as JSON or protobuf; gzip is taken"),
    responses(
        (status = 200, body = ExportAnswer, description = "committed and synced"),
        (status = 400, body = RpcStatusJson), (status = 413, body = RpcStatusJson), (status = 415, body = RpcStatusJson),
        (status = 503, body = RpcStatusJson, description = "try again after Retry-After"),
    )
)]
pub(crate) async fn metrics(State(app): State<App>, request: Request) -> Response {
    export(app, Signal::Metric, request).await
}

/// Takes spans.
#[utoipa::path(
    post, path = "/v1/traces", tag = "ingest",
    request_body(content = Object, description = "ExportTraceServiceRequest as JSON or protobuf; gzip is taken"),
    responses(
        (status = 200, body = ExportAnswer, description = "committed and synced"),
        (status = 400, body = RpcStatusJson), (status = 413, body = RpcStatusJson), (status = 415, body = RpcStatusJson),
        (status = 503, body = RpcStatusJson, description = "try again after Retry-After"),
    )
)]
pub(crate) async fn traces(State(app): State<App>, request: Request) -> Response {
    export(app, Signal::Span, request).await
}

async fn export(app: App, signal: Signal, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let encoding = match encoding_of(&parts.headers) {
        Ok(encoding) => encoding,
        Err(given) => {
            let message = format!(
                "content-type `{given}` is not taken; send application/json or application/x-protobuf"
            );
            return refusal(Encoding::Json, StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message);
        }
    };
    let taken = async {
        let bytes = body::read(&parts.headers, body, &app.config.limits).await?;
        take(&app, signal, bytes.len(), move || decode(signal, encoding, &bytes)).await
    };
    match taken.await {
        Ok(rejected) => accepted(encoding, signal, rejected),
        Err(problem) => failed(encoding, &problem),
    }
}

/// The encoding by `Content-Type`, else what was given.
fn encoding_of(headers: &HeaderMap) -> Result<Encoding, String> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => Ok(Encoding::Json),
        "application/x-protobuf" | "application/protobuf" => Ok(Encoding::Protobuf),
        _ => Err(given.chars().take(80).collect()),
    }
}

fn decode(signal: Signal, encoding: Encoding, bytes: &Bytes) -> Result<Brought, Problem> {
    match encoding {
        Encoding::Protobuf => proto::decode(signal, bytes)
            .map_err(|e| Problem::BadRequest(format!("the body is no OTLP protobuf: {e}"))),
        Encoding::Json => match signal {
            Signal::Log => json::logs(bytes).map(Brought::Logs),
            Signal::Metric => json::metrics(bytes).map(Brought::Metrics),
            Signal::Span => json::spans(bytes).map(Brought::Spans),
        }
        .map_err(|e| Problem::BadRequest(format!("the body is no OTLP JSON: {e}"))),
    }
}

/// The message of a partial success; empty where everything was taken.
pub(super) fn partial(rejected: Rejected) -> Option<(i64, String)> {
    let count = i64::try_from(rejected.records).unwrap_or(i64::MAX);
    (count > 0).then(|| (count, rejected.reason.unwrap_or_default()))
}

/// The response message of a signal.
pub(super) fn response_message(signal: Signal, rejected: Rejected) -> Vec<u8> {
    let partial = partial(rejected);
    match signal {
        Signal::Log => ExportLogsServiceResponse {
            partial_success: partial.map(|(rejected_log_records, error_message)| ExportLogsPartialSuccess {
                rejected_log_records,
                error_message,
            }),
        }
        .encode_to_vec(),
        Signal::Metric => ExportMetricsServiceResponse {
            partial_success: partial.map(|(rejected_data_points, error_message)| {
                ExportMetricsPartialSuccess { rejected_data_points, error_message }
            }),
        }
        .encode_to_vec(),
        Signal::Span => ExportTraceServiceResponse {
            partial_success: partial.map(|(rejected_spans, error_message)| ExportTracePartialSuccess {
                rejected_spans,
                error_message,
            }),
        }
        .encode_to_vec(),
    }
}

fn accepted(encoding: Encoding, signal: Signal, rejected: Rejected) -> Response {
    let body = match encoding {
        Encoding::Protobuf => response_message(signal, rejected),
        Encoding::Json => {
            let key = match signal {
                Signal::Log => "rejectedLogRecords",
                Signal::Metric => "rejectedDataPoints",
                Signal::Span => "rejectedSpans",
            };
            // An int64 is text in OTLP/JSON.
            let partial_success = partial(rejected).map(
                |(count, message)| serde_json::json!({ key: count.to_string(), "errorMessage": message }),
            );
            serde_json::to_vec(&ExportAnswer { partial_success }).unwrap_or_default()
        }
    };
    ([(header::CONTENT_TYPE, encoding.content_type())], body).into_response()
}

fn failed(encoding: Encoding, problem: &Problem) -> Response {
    // A full disk passes: an exporter repeats a 503, and gives up on a 507.
    let status = match problem {
        Problem::DiskFull => StatusCode::SERVICE_UNAVAILABLE,
        other => other.status(),
    };
    refusal(encoding, status, problem.code(), problem.to_string())
}

fn refusal(encoding: Encoding, status: StatusCode, name: &'static str, message: String) -> Response {
    let rpc = RpcStatus { code: code_of(status) as i32, message };
    let body = match encoding {
        Encoding::Protobuf => rpc.encode_to_vec(),
        Encoding::Json => serde_json::to_vec(&rpc).unwrap_or_default(),
    };
    let mut response = (status, [(header::CONTENT_TYPE, encoding.content_type())], body).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response.extensions_mut().insert(problem::Code(name));
    response
}

/// The gRPC code of an HTTP status; unavailable is what an exporter repeats.
pub(super) fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::Unimplemented,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => Code::Unavailable,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        _ => Code::Internal,
    }
}
