//! OTLP/gRPC: the three `Export` calls. Framing and status are tonic's; a message is read within the bounds of every
//! other body and decompressed here, because tonic knows neither a slowest rate nor a ratio.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use prost::bytes::{Buf, BufMut};
use taffrail_event::normalize::otlp::Signal;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::server::Grpc;
use tonic::{Code, Status};

use super::http::{code_of, response_message};
use super::{proto, take};
use crate::api;
use crate::config::Limits;
use crate::ingest::body;
use crate::problem::{self, Problem};
use crate::security;
use crate::state::App;

/// A flag and the length before each message.
const FRAME_HEAD_BYTES: usize = 5;
/// The encodings of a message that are taken, for who sent another.
const ACCEPTED: &str = "identity,gzip";

/// The service on its own port.
pub(crate) fn router(app: &App) -> Router {
    let path = |of: &str, service: &str| format!("/opentelemetry.proto.collector.{of}.v1.{service}/Export");
    Router::new()
        .route(&path("logs", "LogsService"), post(logs))
        .route(&path("metrics", "MetricsService"), post(metrics))
        .route(&path("trace", "TraceService"), post(traces))
        .fallback(any(unknown))
        .layer(from_fn_with_state(app.clone(), security::need_loopback))
        .layer(from_fn_with_state(app.clone(), security::check_site))
        .layer(from_fn(as_status))
        .layer(from_fn_with_state(app.clone(), api::observe))
        .with_state(app.clone())
}

async fn logs(State(app): State<App>, request: Request) -> Response {
    export(app, Signal::Log, request).await
}

async fn metrics(State(app): State<App>, request: Request) -> Response {
    export(app, Signal::Metric, request).await
}

async fn traces(State(app): State<App>, request: Request) -> Response {
    export(app, Signal::Span, request).await
}

async fn unknown() -> Response {
    Status::unimplemented("only the Export calls of LogsService, MetricsService and TraceService are served")
        .into_http::<Body>()
}

/// What the checks refuse as HTTP is told as gRPC does.
async fn as_status(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let told = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    match response.extensions().get::<problem::Code>() {
        Some(code @ problem::Code(name)) if !told => {
            let status = Status::new(code_of(response.status()), (*name).replace('_', " "));
            Refused { status, code: code.0 }.into_response()
        }
        _ => response,
    }
}

async fn export(app: App, signal: Signal, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let message = match whole_message(&parts.headers, body, &app.config.limits).await {
        Ok(message) => message,
        Err(refused) => return refused.into_response(),
    };
    // What tonic reads is one plain message, already in memory.
    parts.headers.remove("grpc-encoding");
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES);
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    let whole = Bytes::from([frame.as_slice(), &message].concat());
    let limit = app.config.limits.decompressed_bytes;
    let service = tower::service_fn(move |request: tonic::Request<Bytes>| {
        let app = app.clone();
        async move {
            let message = request.into_inner();
            let bytes = message.len();
            let decode = move || {
                proto::decode(signal, &message)
                    .map_err(|e| Problem::BadRequest(format!("the message is no OTLP protobuf: {e}")))
            };
            let taken = take(&app, signal, bytes, decode).await;
            let rejected = taken.map_err(|problem| {
                app.metrics.count_refused(problem.code());
                status_of(&problem)
            })?;
            Ok::<_, Status>(tonic::Response::new(response_message(signal, rejected)))
        }
    });
    let mut grpc = Grpc::new(Raw).max_decoding_message_size(limit);
    grpc.unary(service, axum::http::Request::from_parts(parts, Body::from(whole))).await.map(Body::new)
}

/// Why a call got no further than its frame.
struct Refused {
    status: Status,
    code: &'static str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.status.into_http::<Body>();
        response.extensions_mut().insert(problem::Code(self.code));
        response
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { status: status_of(&problem), code: problem.code() }
    }
}

fn status_of(problem: &Problem) -> Status {
    Status::new(code_of(problem.status()), problem.to_string())
}

/// The one message of a unary call, decompressed.
async fn whole_message(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Bytes, Refused> {
    let encoding = headers.get("grpc-encoding").map_or("identity", |v| v.to_str().unwrap_or("?"));
    if !matches!(encoding, "identity" | "gzip") {
        let name: String = encoding.chars().take(40).collect();
        let mut status = Status::new(Code::Unimplemented, format!("grpc-encoding `{name}` is not supported"));
        status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static(ACCEPTED));
        return Err(Refused { status, code: "encoding" });
    }
    let mut whole = body::read_plain(headers, body, limits).await?;
    let bad = |message: &str| Refused::from(Problem::BadRequest(message.to_owned()));
    if whole.len() < FRAME_HEAD_BYTES {
        return Err(bad("the call has no whole message"));
    }
    let (flag, length) = (whole.get_u8(), whole.get_u32() as usize);
    match (flag, whole.len() == length) {
        (_, false) => Err(bad("the call is not one message of the length it says")),
        (0, true) => Ok(whole),
        (1, true) if encoding == "gzip" => Ok(body::decompress(whole, limits).await?),
        (1, true) => Err(bad("the message is compressed and no grpc-encoding says how")),
        _ => Err(bad("the message's flag is none")),
    }
}

/// Messages as bytes: they are decoded where mapping is done.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let bytes = from.remaining();
        Ok(Some(from.copy_to_bytes(bytes)))
    }
}
