//! The one place where an error becomes an HTTP answer: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::calendar::CalendarError;

/// Seconds after which a refused sender may try again.
pub(crate) const RETRY_AFTER_S: u32 = 1;

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the Host header names no host of this server")]
    HostNotAllowed,
    #[error("the request comes from another site")]
    OriginNotAllowed,
    #[error("this needs the token")]
    Unauthorized,
    #[error("ingest is open to this machine only")]
    NotLoopback,
    #[error("{0}")]
    BadRequest(String),
    /// As [`Self::BadRequest`], with what to do.
    #[error("{detail}")]
    Refused { detail: String, hint: String },
    #[error("{0} not found")]
    NotFound(&'static str),
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the body grows more than {0} times when decompressed")]
    TooCompressed(usize),
    #[error("content-encoding `{0}` is not supported")]
    Encoding(String),
    #[error("the body came too slowly")]
    SlowBody,
    #[error("the queue before the database is full")]
    QueueFull,
    #[error("too many readers")]
    TooManyReaders,
    #[error("the disk is full: nothing was stored")]
    DiskFull,
    #[error("the database refused: {0}")]
    Store(String),
    #[error("the server is stopping")]
    Stopping,
    #[error("the server made a mistake")]
    Internal,
}

impl From<taffrail_store::WriteError> for Problem {
    fn from(error: taffrail_store::WriteError) -> Self {
        tracing::error!(%error, "a change was not stored");
        match error {
            taffrail_store::WriteError::DiskFull(_) => Self::DiskFull,
            taffrail_store::WriteError::Closed => Self::Stopping,
            other => Self::Store(other.to_string()),
        }
    }
}

/// The body of a problem answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ProblemJson {
    /// Always `about:blank`; `code` tells kinds apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// A stable name of this kind of problem.
    code: &'static str,
    /// What happened.
    detail: String,
    /// What to do, where one can do something.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// `detail`, then on a line of its own `hint: ...`.
impl From<CalendarError> for Problem {
    fn from(error: CalendarError) -> Self {
        let text = error.to_string();
        match text.split_once("\nhint: ") {
            Some((detail, hint)) => Self::Refused { detail: detail.to_owned(), hint: hint.to_owned() },
            None => Self::BadRequest(text),
        }
    }
}

impl Problem {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::HostNotAllowed | Self::OriginNotAllowed | Self::NotLoopback => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BadRequest(_) | Self::Refused { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::TooLarge { .. } | Self::TooCompressed(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::QueueFull | Self::TooManyReaders | Self::Store(_) | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable name, also the label of the refused counter.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::HostNotAllowed => "host_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::Unauthorized => "unauthorized",
            Self::NotLoopback => "not_loopback",
            Self::BadRequest(_) | Self::Refused { .. } => "bad_request",
            Self::NotFound(_) => "not_found",
            Self::TooLarge { .. } => "too_large",
            Self::TooCompressed(_) => "too_compressed",
            Self::Encoding(_) => "encoding",
            Self::SlowBody => "slow_body",
            Self::QueueFull => "queue_full",
            Self::TooManyReaders => "too_many_readers",
            Self::DiskFull => "disk_full",
            Self::Store(_) => "store",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => Some(hint),
            Self::HostNotAllowed => {
                Some("use http://localhost with the server's port, or add the name to allowed_hosts")
            }
            Self::OriginNotAllowed => Some("an old page is let in with --legacy-origin"),
            Self::Unauthorized => Some(
                "send `Authorization: Bearer` with the token in the data directory, or open the page with `taffrail up`",
            ),
            Self::TooLarge { .. } | Self::TooCompressed(_) => Some("send fewer events at once"),
            Self::Encoding(_) => Some("send gzip or no encoding"),
            Self::QueueFull => {
                Some("try again after the time in Retry-After; the hook client spools meanwhile")
            }
            Self::TooManyReaders => Some("close a page, or raise limits.live_clients"),
            Self::DiskFull => {
                Some("free space on the disk of the data directory; nothing acknowledged was lost")
            }
            Self::Store(_) => Some("run `taffrail doctor`; nothing acknowledged was lost"),
            _ => None,
        }
    }

    fn retry_after(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE || matches!(self, Self::DiskFull)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = ProblemJson {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: self.code(),
            detail: self.to_string(),
            hint: self.hint().map(str::to_owned),
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"taffrail\""));
        }
        response.extensions_mut().insert(Code(self.code()));
        response
    }
}

/// The kind of problem, left on the answer for the metrics.
#[derive(Clone, Copy)]
pub(crate) struct Code(pub(crate) &'static str);
